//! The replicated log: consensus, storage, snapshots, peer transport. The only crate that names openraft or RocksDB,
//! and neither shows in what it exports.
//!
//! # The path of a write
//! [`propose`] stamps a command and hands it to openraft on the leader (or forwards it there); [`log`] makes it durable
//! on a majority, one sync for many; [`state`] applies it, one write batch for many; the answer follows the batch.
//!
//! # Where durability comes from
//! - The Raft log is synced before anything is acknowledged; votes too, in one order with the entries.
//! - The state is not synced per batch: it carries the id of the last entry in it, and what a crash takes is applied
//!   again from the log, which is purged only up to a flushed snapshot.
//! - A log that ends before what it acknowledged keeps its node from voting; a failed write or sync stops the process.
//!
//! # Where it runs
//! Every task of a node on one thread ([`thread`]), which must not block; the log is written by another. Snapshots are
//! sent and received elsewhere, and so runs what its ports are called from.
//!
//! # What it never does
//! It decides nothing about a command: that is the state machine's. It answers no client: that is the API's.

mod agreement;
mod alarms;
mod backup;
mod catch_up;
mod clock;
mod config;
mod contact;
mod counters;
mod engine;
mod fault;
mod files;
mod found;
mod history;
mod host;
mod identity;
mod log;
mod member;
mod metrics;
mod node;
mod note;
mod peer;
mod promise;
mod propose;
mod purge;
mod read;
mod report;
mod room;
mod runtime;
#[cfg(feature = "simulation")]
pub mod sim;
mod state;
mod status;
mod tables;
#[cfg(test)]
mod testing;
mod thread;
mod trust;
mod types;

pub use backup::restore::{Restore, RestoreError, Restored, restore};
pub use backup::verify::{Finding, Looked, Verdict, VerifyError, verify};
pub use config::{Config, InitialMember, Join, Limits, SnapshotPolicy, Timings};
pub use fault::DIVERGED_EXIT_CODE;
pub use identity::node_of;
pub use member::Removal;
pub use node::{Node, StartError};

/// A log filter that keeps what this crate says and leaves out the everyday chatter of the engine below it, such as an error
/// for each request that comes while a node stops: whoever sent it is told.
pub const LOG_DIRECTIVE: &str = "openraft=error,openraft::raft::raft_inner=off";
