//! Key-value pairs: ordered keys, compare-and-set on the modified revision, multi-key transactions.
//!
//! Owns the `kv` table. A watch is a read of the journal ([`crate::journal::read`]) that lets the events of this area
//! through; the table itself keeps only the present.
//!
//! Limits: [`KEY_BYTES_MAX`], [`VALUE_BYTES_MAX`], [`TXN_OPS_MAX`].

mod command;
mod event;
mod query;
mod types;

pub use command::{Command, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub use query::{Cursor, Listing, get, range};
pub(crate) use query::{check, foresee};
pub(crate) use types::TABLES;
pub use types::*;
