use super::types::*;
use super::{Event, Oid, Tid, query};
use crate::command::{self, Accepted, Context, Decision, Stop};
use crate::store::{Fault, View};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Demands on objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Commit a transaction.
    Commit {
        /// What it says about itself.
        metadata: Metadata,
        /// What it writes, each object once.
        writes: Vec<Write>,
        /// What else must not have changed since it was read.
        checks: Vec<Check>,
    },
    /// Give out oids that nobody has.
    AllocateOids {
        /// How many.
        count: u32,
    },
}

/// What a command tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The transaction is committed.
    Committed {
        /// Its tid, the serial of all that it wrote.
        tid: Tid,
    },
    /// The oids from `first` on belong to the caller.
    Allocated {
        /// The first.
        first: Oid,
        /// How many.
        count: u32,
    },
}

/// Why a demand on objects is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// What the transaction read is not current.
    #[error("{}", Conflicts(conflicts, *count))]
    Conflict {
        /// Which objects, in order of oid: at most [`CONFLICTS_MAX`].
        conflicts: Vec<Conflict>,
        /// How many objects in all.
        count: usize,
    },
    /// A deletion of what does not exist.
    #[error("object {oid} does not exist, so it cannot be deleted")]
    NotFound {
        /// Which.
        oid: Oid,
    },
    /// One object twice.
    #[error("object {oid} is written twice in one transaction")]
    Duplicate {
        /// Which.
        oid: Oid,
    },
    /// An oid beyond the last.
    #[error("object id {oid} is beyond the last, {OID_MAX}")]
    OidRange {
        /// Which.
        oid: Oid,
    },
    /// An object that is too large.
    #[error("object {oid} has {length} bytes; the most is {OBJECT_BYTES_MAX}")]
    ObjectLength {
        /// Which.
        oid: Oid,
        /// Its size in bytes.
        length: usize,
    },
    /// A transaction without content.
    #[error("a transaction writes or checks at least one object")]
    Empty,
    /// A transaction that is too long.
    #[error("the transaction has {length} {part}; the most is {max}")]
    PartLength {
        /// What is too long.
        part: Part,
        /// How long it is.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// None or too many oids at once.
    #[error("{count} object ids were asked for; a command gives out 1 to {OIDS_MAX}")]
    OidCount {
        /// How many.
        count: u32,
    },
    /// The last oid is used up.
    #[error("{count} object ids were asked for; the last one in use is {last}, of {OID_MAX}")]
    OidsExhausted {
        /// How many.
        count: u32,
        /// The largest in use.
        last: Oid,
    },
    /// Log time is past the last tid.
    #[error("log time is past the last tid, {last}")]
    TidsExhausted {
        /// The last transaction.
        last: Tid,
    },
}

/// The most conflicts that a refusal names.
pub const CONFLICTS_MAX: usize = 100;

/// An object that is not as the transaction read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conflict {
    /// Which.
    pub oid: Oid,
    /// The serial that the transaction read.
    pub expected: Tid,
    /// The serial that is current; [`Tid::NONE`] where the object never existed.
    pub actual: Tid,
}

/// The parts of a transaction that have a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Objects written.
    Writes,
    /// Objects checked.
    Checks,
    /// The user.
    User,
    /// The description.
    Description,
    /// The extension.
    Extension,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Writes => "writes",
            Part::Checks => "checks",
            Part::User => "bytes of user",
            Part::Description => "bytes of description",
            Part::Extension => "bytes of extension",
        })
    }
}

/// The first conflict in full, and how many more there are.
struct Conflicts<'a>(&'a [Conflict], usize);

impl fmt::Display for Conflicts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflicts(conflicts, count) = self;
        let serial = |tid: Tid| match tid {
            Tid::NONE => "none (no such object)".to_owned(),
            tid => tid.to_string(),
        };
        if let Some(Conflict {
            oid,
            expected,
            actual,
        }) = conflicts.first()
        {
            let (expected, actual) = (serial(*expected), serial(*actual));
            write!(
                f,
                "object {oid} has serial {actual}, but the transaction read {expected}"
            )?;
        }
        match count {
            0 | 1 => Ok(()),
            count => write!(f, " ({count} objects conflict)"),
        }
    }
}

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on objects.
pub fn decide(view: &dyn View, ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Commit {
            metadata,
            writes,
            checks,
        } => commit(view, ctx, metadata, writes, checks),
        Command::AllocateOids { count } => allocate(view, *count),
    }
}

fn commit(
    view: &dyn View,
    ctx: &Context,
    metadata: &Metadata,
    writes: &[Write],
    checks: &[Check],
) -> Decision<Event, Refusal> {
    check_shape(metadata, writes, checks)?;
    check_conflicts(view, writes, checks)?;
    let last = query::head(view)?.tid;
    let Some(tid) = last.following(ctx.now) else {
        return refuse(Refusal::TidsExhausted { last });
    };
    let written = |write: &Write| Written {
        oid: write.oid,
        content: write.content.clone(),
    };
    let mut writes: Vec<_> = writes.iter().map(written).collect();
    writes.sort_by_key(|write| write.oid);
    Ok(Accepted {
        events: vec![Event::Committed {
            tid,
            metadata: metadata.clone(),
            writes,
        }],
        reply: command::Reply::Objects(Reply::Committed { tid }),
    })
}

/// What is wrong with the transaction whatever the state.
fn check_shape(metadata: &Metadata, writes: &[Write], checks: &[Check]) -> Result<(), Stop<Refusal>> {
    let parts = [
        (Part::Writes, writes.len(), TRANSACTION_OBJECTS_MAX),
        (Part::Checks, checks.len(), TRANSACTION_OBJECTS_MAX),
        (Part::User, metadata.user.len(), METADATA_BYTES_MAX),
        (Part::Description, metadata.description.len(), METADATA_BYTES_MAX),
        (Part::Extension, metadata.extension.len(), METADATA_BYTES_MAX),
    ];
    for (part, length, max) in parts {
        if length > max {
            return refuse(Refusal::PartLength { part, length, max });
        }
    }
    if writes.is_empty() && checks.is_empty() {
        return refuse(Refusal::Empty);
    }
    let mut seen = BTreeSet::new();
    for &Write { oid, ref content, .. } in writes {
        if oid > OID_MAX {
            return refuse(Refusal::OidRange { oid });
        }
        if !seen.insert(oid) {
            return refuse(Refusal::Duplicate { oid });
        }
        if let Some(length) = content.size().filter(|length| *length > OBJECT_BYTES_MAX) {
            return refuse(Refusal::ObjectLength { oid, length });
        }
    }
    Ok(())
}

/// Compares every serial that the transaction read with the one that is current now.
fn check_conflicts(view: &dyn View, writes: &[Write], checks: &[Check]) -> Result<(), Stop<Refusal>> {
    let mut conflicts = BTreeSet::new();
    let mut compare = |oid, expected| -> Result<bool, Fault> {
        let (actual, exists) = match query::current(view, oid)? {
            Some((serial, record)) => (serial, record.size.is_some()),
            None => (Tid::NONE, false),
        };
        // To a reader, what was deleted and what never was are the same: nothing.
        if expected != actual && (exists || expected != Tid::NONE) {
            conflicts.insert(Conflict {
                oid,
                expected,
                actual,
            });
        }
        Ok(exists)
    };
    let mut missing = None;
    for write in writes {
        let exists = compare(write.oid, write.read)?;
        if !exists && write.content == Content::Deleted {
            missing = missing.or(Some(write.oid));
        }
    }
    for check in checks {
        compare(check.oid, check.read)?;
    }
    if !conflicts.is_empty() {
        let count = conflicts.len();
        let conflicts = conflicts.into_iter().take(CONFLICTS_MAX).collect();
        return refuse(Refusal::Conflict { conflicts, count });
    }
    match missing {
        Some(oid) => refuse(Refusal::NotFound { oid }),
        None => Ok(()),
    }
}

fn allocate(view: &dyn View, count: u32) -> Decision<Event, Refusal> {
    if !(1..=OIDS_MAX).contains(&count) {
        return refuse(Refusal::OidCount { count });
    }
    let last = query::head(view)?.oid;
    if OID_MAX.0 - last.0 < u64::from(count) {
        return refuse(Refusal::OidsExhausted { count, last });
    }
    let first = Oid(last.0 + 1);
    Ok(Accepted {
        events: vec![Event::OidsAllocated { first, count }],
        reply: command::Reply::Objects(Reply::Allocated { first, count }),
    })
}
