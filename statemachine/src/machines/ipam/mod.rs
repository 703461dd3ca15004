//! The address plan: which addresses a machine has, as a pure function of the plan, its rack and its index in the rack.
//!
//! Owns the table `address_plan`, one row. It gives out nothing and keeps no leases: [`super::registry`] places
//! machines, and the plan says what follows. So the plan is fixed once machines exist: changing it would renumber them.
//!
//! The arithmetic is sabakan's (docs/ipam.md of cybozu-go/sabakan): each rack has a block of `2^range_bits` addresses
//! for every address of a machine, and a machine's address in a block is the block's first plus its index.

mod command;
mod event;
mod plan;
mod query;
mod types;

pub use command::{Command, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub use plan::PlanError;
pub(crate) use query::check;
pub use query::{plan, slots};
pub(crate) use types::TABLES;
pub use types::*;
