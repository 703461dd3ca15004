//! Boot templates: what a machine is told when it asks how to boot.
//!
//! Owns the tables `boot_templates` and `boot_template_bodies`, which is apart so that choosing a template reads no
//! bodies. It never renders: whether a body is a template at all is checked by `appliers/machines` before a command is
//! proposed, because template engines change and the log does not.
//!
//! A machine gets, of the templates of a kind whose selector chooses it, the one with the highest priority; among
//! those the one whose selector says most (has the most requirements); among those the first by name.
//!
//! Limits: [`BODY_BYTES_MAX`], [`TEMPLATES_MAX`].

mod command;
mod event;
mod query;
mod types;

pub use command::{Command, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub(crate) use query::check;
pub use query::{Cursor, Listing, body, choose, get, list};
pub(crate) use types::TABLES;
pub use types::*;
