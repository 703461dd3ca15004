//! Builds: what makes a release's files out of a commit, numbered for each app.
//!
//! Owns the `builds` table. A build is known by its inputs: commit, build command and build environment. One that
//! succeeded is never made twice, whatever else changes about the app. The files themselves are on the nodes, under a
//! name made of the same inputs; a node that lacks them builds again under the same number.
//!
//! Limits: the newest [`KEPT_MAX`] builds of an app are kept; [`REASON_BYTES_MAX`].

mod check;
mod command;
mod event;
mod query;
mod types;

pub(crate) use check::check;
pub use command::{Command, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub use query::{Cursor, Listing, get, list, newest};
pub(crate) use types::TABLES;
pub use types::*;
