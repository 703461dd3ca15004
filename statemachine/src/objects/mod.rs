//! Object transactions: opaque bytes by oid, changed only by transactions, every revision kept.
//!
//! The semantics are those of a ZODB storage. A transaction names for each object that it writes the serial that it
//! had read, and is refused as a whole where one of them is not current any more. It gets a tid, which becomes the
//! serial of all that it wrote; a reader who stays with one tid sees one consistent state for ever.
//!
//! Owns the revisions, their bytes, the transactions, and the head row with the last tid and oid. Never looks into the
//! bytes, and never merges: resolving a conflict is the caller's.
//!
//! # Invariants
//! - Tids grow strictly, with log time where it runs ahead, and are valid ZODB time stamps.
//! - No revision is changed or dropped once written; a deletion is a revision without bytes.
//! - No oid is given out that was written or given out before.
//!
//! Limits: [`OBJECT_BYTES_MAX`], [`TRANSACTION_OBJECTS_MAX`], [`METADATA_BYTES_MAX`], [`OIDS_MAX`]; the sum of a
//! transaction is bounded by [`ENVELOPE_BYTES_MAX`](crate::apply::ENVELOPE_BYTES_MAX).

mod check;
mod command;
mod event;
mod query;
#[cfg(test)]
mod tests;
mod tid;
mod types;

pub(crate) use check::check;
pub use command::{CONFLICTS_MAX, Command, Conflict, Part, Refusal, Reply, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub use query::{
    History, Load, ObjectListing, Page, TransactionListing, current, head, history, load_at, load_before,
    load_serial, objects, transaction, transactions, writes,
};
pub use tid::{Oid, ParseIdError, Tid};
pub(crate) use types::TABLES;
pub use types::*;
