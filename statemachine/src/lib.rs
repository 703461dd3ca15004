//! The replicated state machine.
//!
//! A committed log entry carries an [`Envelope`]: a [`Command`] with its stamps. [`apply`](apply::apply) consumes it:
//! `decide` reads a [`View`] and either accepts with events or refuses with a reason; `evolve` writes each event into
//! a [`Txn`]. State is the fold of events, and every node folds the same ones.
//!
//! # The contract
//! Nothing here awaits, logs, or reads a clock, a file, an environment variable or a random source; nothing iterates a
//! `HashMap` or computes in floating point (`clippy.toml` bans the means). Time, ids and actors come in the envelope.
//! A deterministic no is a [`Refusal`]; a broken node is a [`Fault`] and has no road to a client.
//!
//! # Three families of types
//! Commands, events, refusals and replies (the log types) and rows are encoded by [`codec`] and are append-only:
//! variants and fields are added at the end, never reordered. Wire types live in `api/` and never enter the log. Rows
//! are read by everyone through an area's queries, and written, by `table::Table`, only in this crate.

pub mod apply;
pub mod backup;
mod bytes_field;
pub mod check;
pub mod codec;
mod command;
pub mod deployments;
pub mod digest;
pub mod dump;
pub mod footprint;
pub mod foresight;
pub mod hash;
pub mod history;
mod ids;
pub mod journal;
pub mod keys;
pub mod machines;
pub mod membership;
mod metric;
pub mod mutant;
pub mod objects;
pub mod ports;
pub mod replies;
pub mod retention;
pub mod services;
mod store;
pub mod system;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod txn;

pub use command::{Accepted, Command, Context, Decision, Envelope, Event, Outcome, Refusal, Reply, Stop};
pub use ids::{
    Actor, CommandId, Generation, Millis, NameError, NodeId, Revision, check_label, check_label_key,
    check_label_value, check_length,
};
pub use store::{Changes, Fault, MemoryStore, Order, View, Visit};
pub use txn::Txn;
