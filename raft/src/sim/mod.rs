//! Simulation: nodes on machines that are models, in one thread, in simulated time, from one seed.
//!
//! All of this crate runs as it does in production, down to the frames on the streams between peers; what is modelled
//! is what it stands on: file system and database ([`files`], [`stores`]), network ([`net`]), clock and process
//! ([`machine`], [`process`]). Time is tokio's paused clock: it moves on when there is nothing left to do, so a minute of
//! a quiet cluster takes no time at all.
//!
//! # Why a seed repeats
//! One thread; chance from one generator; tasks in the order in which they became ready; waiters woken in the order in
//! which they came ([`watch`]); no hash map is iterated. `docs/decisions/0004-simulator.md` says what else was thought of.

mod files;
mod logs;
mod machine;
mod net;
pub(crate) mod process;
pub(crate) mod runtime;
mod stores;
pub(crate) mod watch;
mod world;

pub use files::DiskFaults;
pub use machine::{Machine, current_machine};
pub use net::Link;
pub use world::World;
