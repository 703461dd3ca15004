//! The machinery's own rows: log time, the feature level, the floor of the journal.
//!
//! Owns the `sys` table. Never holds anything of a domain.

use crate::command::{self, Accepted, Context, Decision, Stop};
use crate::digest::HashValue;
use crate::dump::{Describe, Row};
use crate::ids::{Millis, NodeId, Revision};
use crate::keys;
use crate::retention::{self, Retention};
use crate::store::{Fault, View};
use crate::table::Table;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// The highest feature level that this build can apply. New behaviour of a `decide` rides on a higher level, so that
/// all nodes of a cluster with mixed versions decide alike.
pub const FEATURE_LEVEL_MAX: u32 = 3;

/// The machinery's state, one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The last applied entry that carried a command.
    pub revision: Revision,
    /// Log time as of that entry.
    pub now: Millis,
    /// Replies whose ids are older than this were swept.
    pub replies_swept: Millis,
}

/// What the cluster as a whole may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Commands and behaviour up to this level are in force.
    pub feature_level: u32,
    /// Journal entries below this revision may be gone.
    pub journal_floor: Revision,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            feature_level: 1,
            journal_floor: Revision(0),
        }
    }
}

/// The node ids given out so far, which are never given out again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct NodeIds {
    last: NodeId,
}

const CLOCK: Table<u8, Clock> = Table::new(keys::SYSTEM, "sys");
const GATE: Table<u8, Gate> = Table::new(keys::SYSTEM, "sys");
const NODE_IDS: Table<u8, NodeIds> = Table::new(keys::SYSTEM, "sys");
const CLOCK_KEY: u8 = 1;
const GATE_KEY: u8 = 2;
const NODE_IDS_KEY: u8 = 3;

/// A row of this area as text: its tables share a prefix, so the key says which one it is.
pub(crate) fn describe(key: &[u8], value: &[u8]) -> Result<Row, Fault> {
    let table: &dyn Describe = match key {
        [CLOCK_KEY] => &CLOCK,
        [GATE_KEY] => &GATE,
        [NODE_IDS_KEY] => &NODE_IDS,
        [retention::RETENTION_KEY] => &retention::RETENTION,
        [retention::SIZE_KEY] => &retention::SIZE,
        _ => return Err(Fault::corrupt(format!("sys has no row {key:02x?}"))),
    };
    table.describe(key, value)
}

/// Reads the clock.
pub fn clock(view: &dyn View) -> Result<Clock, Fault> {
    Ok(CLOCK.get(view, &CLOCK_KEY)?.unwrap_or_default())
}

pub(crate) fn set_clock(txn: &mut Txn<'_>, clock: &Clock) {
    CLOCK.put(txn, &CLOCK_KEY, clock);
}

/// Reads the gate.
pub fn gate(view: &dyn View) -> Result<Gate, Fault> {
    Ok(GATE.get(view, &GATE_KEY)?.unwrap_or_default())
}

/// Faults on a state at a feature level that this build does not know: it cannot tell what entries and rows mean there.
///
/// # Errors
/// That, or where the level cannot be read.
pub fn check_level(view: &dyn View) -> Result<(), Fault> {
    match gate(view)?.feature_level {
        level if level > FEATURE_LEVEL_MAX => Err(unknown_level(level)),
        _ => Ok(()),
    }
}

fn unknown_level(level: u32) -> Fault {
    Fault::invariant(format!(
        "the cluster runs at feature level {level}, this build knows {FEATURE_LEVEL_MAX}: upgrade this node"
    ))
}

/// The highest node id that was given out; initial members have theirs from their configuration.
pub fn last_node_id(view: &dyn View) -> Result<NodeId, Fault> {
    Ok(NODE_IDS.get(view, &NODE_IDS_KEY)?.unwrap_or_default().last)
}

/// Demands on the machinery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Put behaviour up to `level` in force. Proposed only when every member supports it.
    RaiseFeatureLevel {
        /// The new level.
        level: u32,
    },
    /// Let go of the journal below `below`.
    CompactJournal {
        /// The first revision that is kept.
        below: Revision,
    },
    /// Give out a node id that no node ever had.
    AllocateNodeId {
        /// The highest id in the membership, which the machinery does not see.
        above: NodeId,
    },
    /// Changes nothing: at this revision every node takes the hash of its state, to compare it with the others'. From
    /// level [`crate::digest::FEATURE_LEVEL`] on.
    MarkState {
        /// What a majority of the members had at an earlier mark.
        agreed: Option<Mark>,
    },
    /// Set how much of the journal is kept.
    SetRetention {
        /// All of the settings.
        retention: Retention,
    },
    /// Let go of what the settings no longer keep: proposed by the leader, and decided on the settings in force.
    Retain {
        /// The first revision that is kept.
        below: Revision,
    },
}

/// The hash of the state at a marked revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The revision of the mark.
    pub at: Revision,
    /// The hash there.
    pub hash: HashValue,
}

/// What a demand on the machinery tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The id that was given out.
    NodeId(NodeId),
}

/// What happened to the machinery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Behaviour up to `level` is in force.
    FeatureLevelRaised {
        /// The new level.
        level: u32,
    },
    /// Events below `below` may be gone.
    JournalCompacted {
        /// The first revision that is kept.
        below: Revision,
    },
    /// A node id was given out.
    NodeIdAllocated {
        /// Which.
        id: NodeId,
    },
    /// So much of the journal is kept.
    RetentionSet {
        /// All of the settings.
        retention: Retention,
    },
}

/// Why a demand on the machinery, or any demand, is refused before its area sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Levels only rise.
    #[error("feature level {level} is not above the level in force, {current}")]
    FeatureLevelNotHigher {
        /// Asked for.
        level: u32,
        /// In force.
        current: u32,
    },
    /// The journal cannot be compacted past the present.
    #[error("journal floor {below} is not between the present floor {floor} and revision {revision}")]
    JournalFloor {
        /// Asked for.
        below: Revision,
        /// In force.
        floor: Revision,
        /// The last applied revision.
        revision: Revision,
    },
    /// The id's own time is outside the window in which duplicates are recognised.
    #[error(
        "command id {id} was made {age_ms} ms before log time; only ids younger than {window_ms} ms are taken, since \
         older duplicates can no longer be recognised: propose again under a fresh UUID version 7"
    )]
    CommandIdStale {
        /// The id.
        id: crate::ids::CommandId,
        /// How much older than log time it is, in ms.
        age_ms: u64,
        /// The window, in ms.
        window_ms: u64,
    },
    /// The id is not a UUID version 7.
    #[error("command id {id} is not a UUID version 7")]
    CommandIdVersion {
        /// The id.
        id: crate::ids::CommandId,
    },
    /// A batch inside a batch, or an empty or too long one.
    #[error("a batch has {length} commands; it takes 1 to {max}, none of them a batch")]
    BatchShape {
        /// How many there were.
        length: usize,
        /// The most there may be.
        max: usize,
    },
    /// Behaviour that is not in force yet.
    #[error(
        "this needs feature level {needed}, and level {current} is in force: it rises by itself once every member runs a \
         release that knows it"
    )]
    FeatureLevelTooLow {
        /// The level that it needs.
        needed: u32,
        /// In force.
        current: u32,
    },
    /// The age is too short.
    #[error("an age of {age_ms} ms is too short for the journal; the shortest is {min_ms} ms")]
    JournalAge {
        /// Asked for.
        age_ms: u64,
        /// The limit.
        min_ms: u64,
    },
    /// The size is too small.
    #[error("{bytes} bytes are too little for the journal; the least is {min}")]
    JournalBytes {
        /// Asked for.
        bytes: u64,
        /// The limit.
        min: u64,
    },
    /// The settings keep what was to go.
    #[error("the journal is kept from revision {allowed} on, and was to begin at {below}")]
    JournalKept {
        /// The first revision that was to stay.
        below: Revision,
        /// The highest floor that the settings allow.
        allowed: Revision,
    },
}

/// Decides a demand on the machinery.
pub fn decide(view: &dyn View, ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    let gate = gate(view)?;
    match *command {
        Command::RaiseFeatureLevel { level } => {
            if level <= gate.feature_level {
                let current = gate.feature_level;
                return Err(Stop::Refuse(Refusal::FeatureLevelNotHigher { level, current }));
            }
            Ok(Accepted::event(Event::FeatureLevelRaised { level }))
        }
        Command::CompactJournal { below } => {
            let floor = gate.journal_floor;
            // Before level 2, the event before this one stayed.
            let last = ctx.revision.0 - u64::from(gate.feature_level < retention::FEATURE_LEVEL);
            if below <= floor || below.0 > last {
                let revision = ctx.revision;
                return Err(Stop::Refuse(Refusal::JournalFloor {
                    below,
                    floor,
                    revision,
                }));
            }
            Ok(Accepted::event(Event::JournalCompacted { below }))
        }
        Command::MarkState { .. } => Ok(Accepted::unchanged()),
        Command::SetRetention { retention } => {
            needs(&gate, retention::FEATURE_LEVEL)?;
            retention::check(&retention).map_err(Stop::Refuse)?;
            if retention::settings(view)? == retention {
                return Ok(Accepted::unchanged());
            }
            Ok(Accepted::event(Event::RetentionSet { retention }))
        }
        Command::Retain { below } => {
            needs(&gate, retention::FEATURE_LEVEL)?;
            let allowed = retention::allowed(view, ctx.now)?.min(ctx.revision);
            if below > allowed {
                return Err(Stop::Refuse(Refusal::JournalKept { below, allowed }));
            }
            if below <= gate.journal_floor {
                return Ok(Accepted::unchanged());
            }
            Ok(Accepted::event(Event::JournalCompacted { below }))
        }
        Command::AllocateNodeId { above } => {
            let given = NODE_IDS.get(view, &NODE_IDS_KEY)?.unwrap_or_default().last;
            let id = NodeId(given.max(above).0 + 1);
            let reply = command::Reply::System(Reply::NodeId(id));
            Ok(Accepted {
                events: vec![Event::NodeIdAllocated { id }],
                reply,
            })
        }
    }
}

/// Refuses what rides on a level that is not in force.
fn needs(gate: &Gate, needed: u32) -> Result<(), Stop<Refusal>> {
    let current = gate.feature_level;
    if current < needed {
        return Err(Stop::Refuse(Refusal::FeatureLevelTooLow { needed, current }));
    }
    Ok(())
}

pub(crate) fn evolve(txn: &mut Txn<'_>, event: &Event) -> Result<(), Fault> {
    let mut gate = gate(txn)?;
    match *event {
        Event::FeatureLevelRaised { level } if level > FEATURE_LEVEL_MAX => {
            return Err(unknown_level(level));
        }
        Event::FeatureLevelRaised { level } => {
            if gate.feature_level < retention::FEATURE_LEVEL && level >= retention::FEATURE_LEVEL {
                retention::begin(txn);
            }
            gate.feature_level = level;
        }
        Event::JournalCompacted { below } => {
            gate.journal_floor = below;
            retention::drop_below(txn, below)?;
        }
        Event::RetentionSet { retention } => {
            retention::set(txn, &retention);
            return Ok(());
        }
        Event::NodeIdAllocated { id } => {
            NODE_IDS.put(txn, &NODE_IDS_KEY, &NodeIds { last: id });
            return Ok(());
        }
    }
    GATE.put(txn, &GATE_KEY, &gate);
    Ok(())
}
