//! Releases: immutable versions of an app, numbered: a build, and everything that was declared when its rollout was
//! asked for. Going back to one restores code, environment, routes and health check together.
//!
//! Owns the `releases` table. A release never changes; it is made by the rollout that first runs it.
//!
//! Limits: the newest [`KEPT_MAX`] releases of an app are kept, and those that it runs.

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
