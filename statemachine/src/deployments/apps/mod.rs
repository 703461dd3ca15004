//! Apps: what is declared of an application: its source, how it is built and run, its environment, routes and health
//! check, and whether it should run at all.
//!
//! Owns the `apps` and `routes` tables. A declaration changes nothing that runs: a [rollout](super::instances) takes a
//! copy of it, so that what runs, what is declared and what ran before can differ and each be shown. Never holds
//! secrets of a repository: a URL with credentials in it is refused.
//!
//! A route (host and path prefix) belongs to one app at a time, from the moment that it is declared. A deleted app
//! keeps its row, marked [`App::deleting`], until nothing of it runs; then a [`Command::Remove`] lets go of it.
//!
//! Limits: [`ENV_ENTRIES_MAX`], [`ENV_BYTES_MAX`], [`ROUTES_MAX`], [`COMMAND_BYTES_MAX`], [`URL_BYTES_MAX`].

mod check;
mod command;
mod event;
mod query;
mod types;
mod validate;

pub(crate) use check::check;
pub use command::{Command, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub(crate) use query::routes;
pub use query::{Cursor, Listing, get, list, route_owner};
pub(crate) use types::TABLES;
pub use types::*;
pub use validate::{check_reference, check_repository};
