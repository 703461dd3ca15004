//! Instances of services: where a name leads, and whether what is there still answers.
//!
//! Owns the instances, the index of their deadlines, and a summary row for each service. Never judges health itself:
//! an instance says that it lives by renewing, somebody says otherwise by [`Command::SetHealth`], or its deadline
//! passes and the leader's expiry loop names it in [`Command::Expire`]. All of it runs on log time.
//!
//! # Invariants
//! - A deadline is in the index exactly as the instance has it, and only then.
//! - A service exists while it has instances, and its summary counts them.
//! - `modified` moves when what an instance *is* changes, `health_since` when its health does, and neither when it
//!   merely renews: whoever waits for a change is not woken by heartbeats.
//! - Expiry takes only an instance whose deadline is still the one that was named: a renewal that was logged first wins.
//!
//! Limits: [`SERVICE_INSTANCES_MAX`], [`BULK_MAX`], [`TAGS_MAX`], [`TAG_BYTES_MAX`], [`METADATA_PAIRS_MAX`],
//! [`METADATA_VALUE_BYTES_MAX`], [`TTL_MS_MIN`], [`TTL_MS_MAX`], [`DEREGISTER_AFTER_MS_MAX`].

mod check;
mod command;
mod event;
mod query;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use check::check;
pub use command::{Command, Refusal, decide};
pub(crate) use event::evolve;
pub use event::{Cause, Event};
pub use query::{Filter, InstanceListing, ServiceListing, all, due, get, instances, service, services};
pub(crate) use types::TABLES;
pub use types::*;
