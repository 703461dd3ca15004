//! Machines: which hardware exists, where it stands, what it is for, and which state of its life it is in.
//!
//! Owns the tables `machines`, `machine_macs`, `machine_slots`, `machine_addresses` and `machine_names`, of which all but
//! the first are indexes. A machine is known by its SMBIOS serial. Rack and index in rack (its slot) are given once, at
//! registration, and are the whole input from which [`super::ipam`] computes its addresses; nothing here ever moves a
//! machine. Without an address plan machines register without addresses, in any slot up to [`INDEX_MAX`]: what a lab
//! needs that has no plan.
//!
//! Invariants: no two machines share a serial, a hardware address, a slot, or an address; the addresses of a machine
//! are those that the plan computes for its slot; role [`ROLE_BOOT`] has the first slot of a rack, and only it.
//!
//! Limits: [`SERIAL_BYTES_MAX`], [`LABELS_MAX`], [`MACS_MAX`], [`REGISTER_MAX`], [`REASON_BYTES_MAX`], [`INDEX_MAX`].

mod check;
mod command;
mod draft;
mod event;
mod query;
mod selector;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use check::check;
pub use command::{Command, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub(crate) use query::exists_any;
pub use query::{Cursor, Listing, by_address, by_mac, by_name, get, list};
pub use selector::{FIELDS, Operator, Requirement, Selector, SelectorError};
pub(crate) use types::TABLES;
pub use types::*;
