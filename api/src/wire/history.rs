//! The journal's retention, and what history tells: differences between revisions, and why an object is as it is.

use super::{Entry, Invalid, manifest::Difference};
use onward_statemachine::retention;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// How much of the journal is kept. What is past either limit is let go of; without both, everything stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JournalRetention)]
pub struct Retention {
    /// Events at least this young stay, in ms; at least 1000.
    #[serde(default)]
    pub age_ms: Option<u64>,
    /// About this much stays, in bytes before compression; at least 1048576.
    #[serde(default)]
    pub bytes: Option<u64>,
}

impl From<Retention> for retention::Retention {
    fn from(wire: Retention) -> Self {
        retention::Retention {
            age_ms: wire.age_ms,
            bytes: wire.bytes,
        }
    }
}

impl From<retention::Retention> for Retention {
    fn from(retention: retention::Retention) -> Self {
        Retention {
            age_ms: retention.age_ms,
            bytes: retention.bytes,
        }
    }
}

/// What is kept of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalState {
    /// The settings in force.
    pub retention: Retention,
    /// The oldest revision whose state can be read, and after which the events are kept.
    pub oldest: u64,
    /// The time of the oldest event that is kept.
    pub oldest_at: Option<super::Time>,
    /// How much is kept, in bytes before compression; missing while nobody measures.
    pub bytes: Option<u64>,
}

/// Which revision to compact to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CompactJournal)]
pub struct Compact {
    /// Events up to this revision go; the state as of it can still be read.
    pub to: u64,
}

impl Compact {
    /// The first revision that is kept.
    pub(crate) fn below(self) -> Result<onward_statemachine::Revision, Invalid> {
        let below = self.to.checked_add(1).map(onward_statemachine::Revision);
        below.ok_or_else(|| Invalid::new("to", "is no revision"))
    }
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It came into being.
    Added,
    /// It is otherwise than it was.
    Changed,
    /// It is no more.
    Removed,
}

/// One object that is not the same at two revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = HistoryChange)]
pub struct Change {
    /// Which: `kv/site/name`, `machine/S1001`.
    pub object: String,
    /// What became of it.
    pub became: Became,
    /// What it was, as its own route reads it; null where it was not there.
    #[schema(value_type = Object)]
    pub before: Option<Value>,
    /// What it is then.
    #[schema(value_type = Object)]
    pub after: Option<Value>,
    /// Where an object changed, field by field.
    pub fields: Vec<Difference>,
}

/// The differences between two revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = HistoryDiff)]
pub struct Diff {
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// In the order of kind and name.
    pub items: Vec<Change>,
    /// The `cursor` of the next page, if there is more.
    pub next: Option<String>,
}

/// The events that made an object what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = HistoryWhy)]
pub struct Why {
    /// Which object.
    pub object: String,
    /// Whether it is there now.
    pub exists: bool,
    /// Its events, the oldest first, each revision with those of this object alone.
    pub items: Vec<Entry>,
    /// The `before` of the page before this one, where there may be one.
    pub next_before: Option<u64>,
    /// Where earlier events may have been compacted: the oldest revision after which they are kept.
    pub compacted: Option<u64>,
}
