use crate::deployments::apps::{Commit, Name};
use crate::dump::Describe;
use crate::ids::{Millis, NodeId, Revision};
use crate::keys;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most builds of an app that are kept.
pub const KEPT_MAX: u64 = 100;
/// The longest reason of a failure, in bytes.
pub const REASON_BYTES_MAX: usize = 2048;

crate::deployments::number!(
    /// The number of a build among those of its app.
    Number
);

/// All that a build depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The source, at this commit.
    pub commit: Commit,
    /// The shell text that builds it, if anything does.
    pub command: Option<String>,
    /// The environment of that.
    pub env: BTreeMap<String, String>,
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// What it depends on.
    pub inputs: Inputs,
    /// How far it is.
    pub state: State,
    /// How often it was started.
    pub attempt: u32,
    /// Log time at which it was queued.
    pub queued_at: Millis,
    /// Log time at which it was last started.
    pub started_at: Option<Millis>,
    /// Log time at which it last came to an end.
    pub finished_at: Option<Millis>,
    /// When it was queued.
    pub created: Revision,
    /// When it last changed.
    pub modified: Revision,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nobody works on it.
    Queued,
    /// A node works on it.
    Running {
        /// Which.
        node: NodeId,
    },
    /// Its files are there.
    Succeeded {
        /// On this node, at least.
        node: NodeId,
    },
    /// The last attempt failed.
    Failed {
        /// Where.
        node: NodeId,
        /// Why, for people.
        reason: String,
    },
}

/// What a command tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The build of these inputs.
    Number(Number),
}

pub(super) const BUILDS: Table<(Name, Number), Build> = Table::new(keys::BUILDS, "builds");
pub(crate) const TABLES: &[&dyn Describe] = &[&BUILDS];
