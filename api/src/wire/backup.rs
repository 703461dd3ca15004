//! Scheduled backups, as the node that is asked knows them.

use super::{Time, time};
use onward_statemachine::ports::{ScheduleStatus, ScheduledBackup};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The scheduled backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backups {
    /// Where they stand; null where nothing is scheduled.
    pub schedule: Option<Schedule>,
}

/// Where scheduled backups stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BackupSchedule)]
pub struct Schedule {
    /// Where they go.
    pub destination: String,
    /// How long after one the next is taken, in ms.
    pub interval_ms: u64,
    /// How many are kept.
    pub keep: u64,
    /// How many were there when this node last looked.
    pub kept: u64,
    /// The newest of them.
    pub newest: Option<Stored>,
    /// Whether this node is taking one; the leader does.
    pub running: bool,
    /// How many this node took since it started.
    pub taken: u64,
    /// How many it could not take.
    pub failures: u64,
    /// Why it could not, the last time, unless it could since.
    pub error: Option<String>,
}

/// A backup at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = StoredBackup)]
pub struct Stored {
    /// What it is called there.
    pub name: String,
    /// What it is of.
    pub revision: u64,
    /// When it was taken.
    pub taken_at: Time,
    /// How long ago that was, in ms.
    pub age_ms: u64,
}

impl From<ScheduledBackup> for Stored {
    fn from(backup: ScheduledBackup) -> Self {
        Stored {
            name: backup.name,
            revision: backup.revision.0,
            taken_at: time(backup.taken_at),
            age_ms: backup.age_ms,
        }
    }
}

impl From<ScheduleStatus> for Schedule {
    fn from(status: ScheduleStatus) -> Self {
        Schedule {
            destination: status.destination,
            interval_ms: status.interval_ms,
            keep: status.keep as u64,
            kept: status.kept as u64,
            newest: status.newest.map(Stored::from),
            running: status.running,
            taken: status.taken,
            failures: status.failures,
            error: status.error,
        }
    }
}
