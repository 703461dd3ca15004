//! Numbers and names with a meaning, shared by every area.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// The log index of the entry that made a change: the one version number that users see. 0 is "before everything".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970-01-01 UTC on log time: the proposer's clock, made monotonic by the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// This many milliseconds later.
    pub fn plus(self, ms: u64) -> Self {
        Millis(self.0.saturating_add(ms))
    }
    /// Milliseconds since `earlier`, 0 when it is not earlier.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A per-object counter of desired changes; it fences actions on the world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation after this one.
    pub fn next(self) -> Self {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a demand across retries: a UUID version 7, whose time says how long a duplicate is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId(pub Uuid);

impl CommandId {
    /// The time that is part of the id, in ms since 1970; `None` for a UUID of another version.
    pub fn time(&self) -> Option<Millis> {
        let (seconds, nanos) = self
            .0
            .get_timestamp()
            .filter(|_| self.0.get_version_num() == 7)?
            .to_unix();
        Some(Millis(seconds * 1000 + u64::from(nanos) / 1_000_000))
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who demanded a change, for the journal: `http:127.0.0.1`, `cli:alice@rack-1`, `applier:deployments@2`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor(String);

impl Actor {
    /// The longest actor, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// An actor from text; control characters become `?` and what is over [`Actor::BYTES_MAX`] is cut.
    pub fn new(text: &str) -> Self {
        let mut name = String::new();
        for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
            if name.len() + c.len_utf8() > Self::BYTES_MAX {
                break;
            }
            name.push(c);
        }
        Actor(name)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A member or agent of this control plane. Ids are never reused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("{field} has {length} bytes; it takes 1 to {max}")]
    Length {
        /// Which name it is.
        field: String,
        /// Its length in bytes.
        length: usize,
        /// The longest it may be.
        max: usize,
    },
    /// A character that the rule does not have.
    #[error("{field} `{}` is not allowed: {rule}", .value.escape_debug())]
    Characters {
        /// Which name it is.
        field: String,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: String,
    },
}

/// Checks a DNS label (RFC 1123 section 2.1, lower case): what names of services, apps and templates are.
pub fn check_label(field: &str, value: &str) -> Result<(), NameError> {
    check_length(field, value, 63)?;
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
    let bytes = value.as_bytes();
    if bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
        return Ok(());
    }
    Err(NameError::Characters {
        field: field.to_owned(),
        value: value.to_owned(),
        rule: "lower-case letters, digits and `-`, neither first nor last".to_owned(),
    })
}

/// Checks the length in bytes of a name.
pub fn check_length(field: &str, value: &str, max: usize) -> Result<(), NameError> {
    if (1..=max).contains(&value.len()) {
        return Ok(());
    }
    Err(NameError::Length {
        field: field.to_owned(),
        length: value.len(),
        max,
    })
}

/// Checks the key of a label: Kubernetes' syntax without the prefix part, `[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?`
/// and 63 bytes at most.
pub fn check_label_key(field: &str, value: &str) -> Result<(), NameError> {
    check_length(field, value, 63)?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    if bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
        return Ok(());
    }
    Err(NameError::Characters {
        field: field.to_owned(),
        value: value.to_owned(),
        rule: "letters, digits, `-`, `_` and `.`; a letter or digit first and last".to_owned(),
    })
}

/// Checks the value of a label: as [`check_label_key`], or empty.
pub fn check_label_value(field: &str, value: &str) -> Result<(), NameError> {
    if value.is_empty() {
        Ok(())
    } else {
        check_label_key(field, value)
    }
}
