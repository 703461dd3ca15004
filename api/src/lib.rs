//! The HTTP API: routes under `/v1`, wire types, problems, the OpenAPI document, and the client library.
//!
//! Owns how the cluster looks from outside. It turns a request into a [`Command`](onward_statemachine::Command) and an
//! outcome into an answer, or reads through an area's queries; it decides nothing about the state itself. Log types
//! and rows never leave as JSON: [`wire`] has types of its own, with conversions both ways.
//!
//! # What holds for every route
//! - JSON in and out, `snake_case`, times in RFC 3339. A field or query parameter that is not known is refused, by name.
//! - Every no is a problem document (RFC 9457) with a stable `code`; [`problem::table`] lists them.
//! - Every answer carries `revision`, in the body and as `Onward-Revision`.
//! - Reads are linearizable unless `?consistency=local` or `?at_least=REV` say otherwise.
//! - Writes are done once under one `Idempotency-Key`; `If-Match: REV` is the compare of a compare-and-set.
//! - Lists page by an opaque cursor; nothing scans without bound.
//!
//! Limits: [`Limits`]; those of the commands are named in the areas of `onward-statemachine`.

mod answer;
mod app;
pub mod client;
mod cursor;
mod http;
mod manifest;
mod metrics;
mod params;
pub mod problem;
mod receiving;
mod request;
mod routes;
mod stream;
mod subject;
#[cfg(test)]
mod tests;
pub mod wire;

pub use crate::http::router;
pub use app::{Limits, Services};
pub use onward_statemachine::backup;
