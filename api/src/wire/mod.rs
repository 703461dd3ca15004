//! The JSON of the API, and nothing else: these types never enter the log, and the log's types never leave as JSON.
//!
//! Requests refuse fields that they do not know, by name. Answers may grow fields; a client ignores what it does not
//! know. Every type converts to or from the types of an area by `From` and `TryFrom`.
//!
//! Bytes travel as text where they are UTF-8 (`value`), and as base64 where they are not (`value_base64`).

pub mod apps;
pub mod backup;
pub mod catalog;
pub mod cluster;
mod command;
mod event;
pub mod history;
pub mod ipam;
pub mod kv;
pub mod machines;
pub mod manifest;
pub mod members;
pub mod netboot;
pub mod objects;
pub mod rollouts;

pub(crate) use command::reply;
pub use command::{AppDeploy, AppRollback, Batch, Command, Expect, Results};
pub use event::{Entry, Event, JournalPage, SystemEvent};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use onward_statemachine::Millis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A moment of log time, RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = DateTime)]
pub struct Time(pub DateTime<Utc>);

/// The wire form of log time. Moments beyond what the calendar holds become the last one that it does.
pub(crate) fn time(at: Millis) -> Time {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    Time(DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC))
}

/// An answer with the revision of the write, or of the state that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// What was asked for.
    #[serde(flatten)]
    pub value: T,
    /// When.
    pub revision: u64,
    /// How old a `local` answer may be, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The `cursor` of the next page, if there is more.
    pub next: Option<String>,
}

/// An answer with nothing to say beside its revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nothing {}

/// Why a request has no answer: a problem document (RFC 9457) with members of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where the code is listed.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code as words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable name of the problem.
    pub code: String,
    /// Which object broke which rule, and what to do.
    pub detail: String,
    /// The revision of the state that it was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The command whose outcome is unknown: the `Idempotency-Key` to retry with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<Uuid>,
    /// Which command of a batch was refused, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_index: Option<usize>,
    /// When to try again, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The first revision that the journal still has, or whose state is still kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<u64>,
}

/// A kind of problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemCode {
    /// The HTTP status.
    pub status: u16,
    /// The stable name.
    pub code: String,
}

/// A field whose JSON is of the right shape and still means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {reason}")]
pub struct Invalid {
    /// Which.
    pub field: String,
    /// Why, and what it takes.
    pub reason: String,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Bytes as the two fields `x` and `x_base64`, of which one is there.
pub(crate) fn split_bytes(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    }
}

/// The bytes of the two fields `field` and `field_base64`, of which one must be there.
pub(crate) fn join_bytes(
    field: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Vec<u8>, Invalid> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => from_base64(&format!("{field}_base64"), &base64),
        (None, None) => Err(Invalid::new(
            field,
            format!("missing; give `{field}` as text or `{field}_base64`"),
        )),
        (Some(_), Some(_)) => Err(Invalid::new(
            field,
            format!("`{field}` and `{field}_base64` exclude each other"),
        )),
    }
}

pub(crate) fn from_base64(field: &str, text: &str) -> Result<Vec<u8>, Invalid> {
    STANDARD
        .decode(text)
        .map_err(|error| Invalid::new(field, format!("not base64 (RFC 4648 section 4, padded): {error}")))
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
