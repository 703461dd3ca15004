use crate::deployments::apps::{Commit, Name, Spec};
use crate::deployments::{builds, instances};
use crate::dump::Describe;
use crate::ids::{Generation, Millis, Revision};
use crate::keys;
use crate::table::Table;
use serde::{Deserialize, Serialize};

/// The most releases of an app that are kept, besides those that it runs.
pub const KEPT_MAX: u64 = 100;

crate::deployments::number!(
    /// The number of a release among those of its app.
    Number
);

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The build whose files it runs.
    pub build: builds::Number,
    /// The commit that was built.
    pub commit: Commit,
    /// The ref that was asked for, and meant that commit then.
    pub reference: String,
    /// Everything else: what was declared of the app when the rollout was asked for.
    pub spec: Spec,
    /// The generation of the app that declared it.
    pub generation: Generation,
    /// The rollout that made it.
    pub rollout: instances::RolloutNumber,
    /// When it was made.
    pub created: Revision,
    /// Log time at which it was made.
    pub created_at: Millis,
}

impl Release {
    /// What its build depends on, by which its files are known.
    pub fn inputs(&self) -> builds::Inputs {
        builds::Inputs {
            commit: self.commit.clone(),
            command: self.spec.build.clone(),
            env: self.spec.build_env.clone(),
        }
    }
}

/// What a command tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The release that was made.
    Number(Number),
}

pub(super) const RELEASES: Table<(Name, Number), Release> = Table::new(keys::RELEASES, "releases");
pub(crate) const TABLES: &[&dyn Describe] = &[&RELEASES];
