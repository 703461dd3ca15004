//! What instances run on: the trait, and the driver for plain processes.
//!
//! Every call is idempotent and keyed by the instance, so that a step repeated after a crash finds what the first
//! attempt left. An instance is started at most once in its life: what ended is not revived but replaced.

pub mod process;
pub mod procfs;

use onward_statemachine::Revision;
use onward_statemachine::deployments::apps::Name;
use onward_statemachine::deployments::instances::{Ordinal, Process};
use onward_statemachine::deployments::releases;
use onward_statemachine::ports::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Which instance, for ever: a deleted app of the same name had others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// Of which app.
    pub app: Name,
    /// Of which release.
    pub release: releases::Number,
    /// Which.
    pub ordinal: Ordinal,
    /// The revision that placed it.
    pub created: Revision,
}

impl InstanceId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, created) = text.rsplit_once('@')?;
        let mut parts = rest.split('/');
        let app = parts
            .next()
            .filter(|app| onward_statemachine::check_label("app", app).is_ok())?;
        let id = InstanceId {
            app: Name(app.to_owned()),
            release: releases::Number(parts.next()?.parse().ok()?),
            ordinal: Ordinal(parts.next()?.parse().ok()?),
            created: Revision(created.parse().ok()?),
        };
        parts.next().is_none().then_some(id)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}@{}",
            self.app, self.release, self.ordinal, self.created
        )
    }
}

/// What is to run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which instance it is to be.
    pub id: InstanceId,
    /// Shell text.
    pub run: String,
    /// The built tree, which is where it runs; shared between instances of the release, so not for writing.
    pub tree: PathBuf,
    /// Its environment, to which the driver adds its own names.
    pub env: BTreeMap<String, String>,
}

/// What has become of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Its process lives.
    Running(Process),
    /// Its process has ended.
    Exited {
        /// How, for people.
        reason: String,
    },
    /// It was never started here, or is forgotten.
    Absent,
}

/// Why a driver could not do as told.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A file or process operation failed.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// How it failed.
        error: std::io::Error,
    },
    /// It does not die.
    #[error("instance {id} still runs after it was killed")]
    Immortal {
        /// Which.
        id: InstanceId,
    },
}

impl DriverError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| DriverError::Io { what, error }
    }
}

/// Runs instances.
pub trait Driver: Send + Sync + 'static {
    /// Starts an instance, unless it was started before; answers with what has become of it.
    fn start(&self, order: Order) -> BoxFuture<'_, Result<Status, DriverError>>;
    /// What has become of an instance.
    fn status(&self, id: &InstanceId) -> Status;
    /// Asks an instance to end, and ends it after `grace`. Returns once nothing of it is left.
    fn stop(&self, id: &InstanceId, grace: Duration) -> BoxFuture<'_, Result<(), DriverError>>;
    /// Lets go of what is kept of an instance that has ended.
    fn forget(&self, id: &InstanceId);
    /// Every instance that something is kept of, or runs, whoever started it.
    fn known(&self) -> Vec<InstanceId>;
    /// Does what has to be done now and then: logs that have grown too large.
    fn tend(&self);
}
