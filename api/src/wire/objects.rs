//! Object transactions. Oids and tids are 16 hexadecimal digits, as the tools of ZODB write them.

use super::{Invalid, Time, from_base64, time, to_base64};
use onward_statemachine::objects::{self, Content, Oid, Tid};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) fn oid(field: &str, text: &str) -> Result<Oid, Invalid> {
    text.parse()
        .map_err(|error: objects::ParseIdError| Invalid::new(field, error.to_string()))
}

pub(crate) fn tid(field: &str, text: &str) -> Result<Tid, Invalid> {
    text.parse()
        .map_err(|error: objects::ParseIdError| Invalid::new(field, error.to_string()))
}

/// Commits a transaction: all that it writes, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CommitObjects)]
pub struct Commit {
    /// On whose behalf.
    #[serde(default)]
    pub user: String,
    /// What for.
    #[serde(default)]
    pub description: String,
    /// Anything else, opaque.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub extension_base64: String,
    /// What it writes, each object once.
    pub writes: Vec<Write>,
    /// What else must not have changed since it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

/// One object that a transaction writes. One of `text`, `bytes_base64` and `delete` says what it becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ObjectWrite)]
pub struct Write {
    /// Which.
    pub oid: String,
    /// The serial that the transaction read of it; missing where it did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
    /// Its bytes, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its bytes, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_base64: Option<String>,
    /// It is to be no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
}

impl Write {
    /// Writes `bytes` to an object of which nothing was read.
    pub fn new(oid: impl Into<String>, bytes: Vec<u8>) -> Self {
        let (text, bytes_base64) = super::split_bytes(bytes);
        Write {
            oid: oid.into(),
            text,
            bytes_base64,
            ..Write::default()
        }
    }
}

/// One object that a transaction read, did not write, and depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ObjectCheck)]
pub struct Check {
    /// Which.
    pub oid: String,
    /// The serial that the transaction read of it; missing where it did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
}

fn read(serial: Option<&str>) -> Result<Tid, Invalid> {
    serial.map_or(Ok(Tid::NONE), |serial| tid("read", serial))
}

impl TryFrom<Write> for objects::Write {
    type Error = Invalid;
    fn try_from(write: Write) -> Result<Self, Invalid> {
        let content = match (write.text, write.bytes_base64, write.delete) {
            (Some(text), None, false) => Content::Bytes(text.into_bytes()),
            (None, Some(base64), false) => Content::Bytes(from_base64("bytes_base64", &base64)?),
            (None, None, true) => Content::Deleted,
            _ => {
                let rule = "a write takes exactly one of `text`, `bytes_base64` and `delete`";
                return Err(Invalid::new("writes", rule));
            }
        };
        Ok(objects::Write {
            oid: oid("oid", &write.oid)?,
            read: read(write.read.as_deref())?,
            content,
        })
    }
}

impl TryFrom<Check> for objects::Check {
    type Error = Invalid;
    fn try_from(check: Check) -> Result<Self, Invalid> {
        Ok(objects::Check {
            oid: oid("oid", &check.oid)?,
            read: read(check.read.as_deref())?,
        })
    }
}

impl TryFrom<Commit> for objects::Command {
    type Error = Invalid;
    fn try_from(commit: Commit) -> Result<Self, Invalid> {
        Ok(objects::Command::Commit {
            metadata: objects::Metadata {
                user: commit.user,
                description: commit.description,
                extension: from_base64("extension_base64", &commit.extension_base64)?,
            },
            writes: commit
                .writes
                .into_iter()
                .map(objects::Write::try_from)
                .collect::<Result<_, _>>()?,
            checks: commit
                .checks
                .into_iter()
                .map(objects::Check::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A transaction that was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Committed {
    /// Its tid, the serial of all that it wrote.
    pub tid: String,
}

/// Asks for oids that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AllocateOids)]
pub struct Allocate {
    /// How many.
    pub count: u32,
}

/// Oids that belong to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Allocated {
    /// The first.
    pub first: String,
    /// How many, from the first on.
    pub count: u32,
}

/// An object as a reader finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Object {
    /// Which.
    pub oid: String,
    /// Which transaction wrote it so.
    pub serial: String,
    /// Which transaction wrote it next, if one did: this is current until then.
    pub next: Option<String>,
    /// Its bytes.
    pub bytes_base64: String,
}

impl Object {
    /// The bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, Invalid> {
        from_base64("bytes_base64", &self.bytes_base64)
    }

    pub(crate) fn new(oid: Oid, serial: Tid, next: Option<Tid>, bytes: &[u8]) -> Self {
        Object {
            oid: oid.to_string(),
            serial: serial.to_string(),
            next: next.map(|tid| tid.to_string()),
            bytes_base64: to_base64(bytes),
        }
    }
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectEntry)]
pub struct Entry {
    /// Which.
    pub oid: String,
    /// Which transaction wrote it so.
    pub serial: String,
    /// How many bytes it holds; null for a deletion.
    pub size: Option<u64>,
    /// The revision at which it was written so.
    pub modified: u64,
}

impl From<(Oid, Tid, objects::Record)> for Entry {
    fn from((oid, serial, record): (Oid, Tid, objects::Record)) -> Self {
        Entry {
            oid: oid.to_string(),
            serial: serial.to_string(),
            size: record.size,
            modified: record.created.0,
        }
    }
}

/// A revision of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectHistory)]
pub struct History {
    /// How many bytes it holds; null for a deletion.
    pub size: Option<u64>,
    /// The transaction that wrote it, whose tid is its serial.
    pub transaction: Transaction,
}

impl From<objects::History> for History {
    fn from(history: objects::History) -> Self {
        History {
            size: history.record.size,
            transaction: (history.tid, history.transaction).into(),
        }
    }
}

/// A committed transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectTransaction)]
pub struct Transaction {
    /// Its tid.
    pub tid: String,
    /// On whose behalf.
    pub user: String,
    /// What for.
    pub description: String,
    /// Anything else.
    pub extension_base64: String,
    /// How many objects it wrote.
    pub writes: u32,
    /// When.
    pub at: Time,
    /// The revision at which it was committed.
    pub created: u64,
}

impl From<(Tid, objects::Transaction)> for Transaction {
    fn from((tid, transaction): (Tid, objects::Transaction)) -> Self {
        Transaction {
            tid: tid.to_string(),
            user: transaction.metadata.user,
            description: transaction.metadata.description,
            extension_base64: to_base64(&transaction.metadata.extension),
            writes: transaction.writes,
            at: time(transaction.at),
            created: transaction.created.0,
        }
    }
}

/// A committed transaction with what it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectTransactionDetail)]
pub struct TransactionDetail {
    /// The transaction.
    pub transaction: Transaction,
    /// What it wrote, in order of oid.
    pub objects: Vec<Entry>,
}

/// Where the object database stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectHead)]
pub struct Head {
    /// The last transaction: what a snapshot of now reads at.
    pub tid: String,
    /// The largest oid that was given out or written.
    pub oid: String,
    /// How many objects exist.
    pub objects: u64,
}

impl From<objects::Head> for Head {
    fn from(head: objects::Head) -> Self {
        Head {
            tid: head.tid.to_string(),
            oid: head.oid.to_string(),
            objects: head.objects,
        }
    }
}

/// What happened to objects. The bytes are read by oid and serial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = ObjectEvent)]
pub enum Event {
    /// A transaction was committed.
    Committed {
        /// Its tid.
        tid: String,
        /// On whose behalf.
        user: String,
        /// What for.
        description: String,
        /// What it wrote.
        writes: Vec<Written>,
    },
    /// Oids were given out.
    OidsAllocated {
        /// The first.
        first: String,
        /// How many.
        count: u32,
    },
}

/// One object that a transaction wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ObjectWritten)]
pub struct Written {
    /// Which.
    pub oid: String,
    /// How many bytes it holds; null for a deletion.
    pub size: Option<u64>,
}

impl From<objects::Event> for Event {
    fn from(event: objects::Event) -> Self {
        match event {
            objects::Event::Committed {
                tid,
                metadata,
                writes,
            } => Event::Committed {
                tid: tid.to_string(),
                user: metadata.user,
                description: metadata.description,
                writes: writes
                    .iter()
                    .map(|written| Written {
                        oid: written.oid.to_string(),
                        size: written.content.size().map(|size| size as u64),
                    })
                    .collect(),
            },
            objects::Event::OidsAllocated { first, count } => Event::OidsAllocated {
                first: first.to_string(),
                count,
            },
        }
    }
}
