use super::tid::Newest;
use super::{Oid, Tid};
use crate::apply::ENVELOPE_BYTES_MAX;
use crate::dump::Describe;
use crate::ids::{Millis, Revision};
use crate::keys;
use crate::table::Table;
use serde::{Deserialize, Serialize};

/// The largest object, in bytes.
pub const OBJECT_BYTES_MAX: usize = 3 << 20;
/// The most objects that one transaction writes, and the most that it checks.
pub const TRANSACTION_OBJECTS_MAX: usize = 16_384;
/// The longest user, description, and extension of a transaction, in bytes each (as ZODB's FileStorage has it).
pub const METADATA_BYTES_MAX: usize = 65_535;
/// The most oids that are given out at once.
pub const OIDS_MAX: u32 = 65_536;
/// The largest oid.
pub const OID_MAX: Oid = Oid(i64::MAX as u64);

// The largest object fits into an envelope together with the largest metadata.
const _: () = assert!(OBJECT_BYTES_MAX + 3 * METADATA_BYTES_MAX + 4096 <= ENVELOPE_BYTES_MAX);

/// What a revision of an object holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// These bytes.
    Bytes(#[serde(with = "crate::bytes_field")] Vec<u8>),
    /// Nothing: from this revision on the object does not exist.
    Deleted,
}

impl Content {
    /// The size in bytes; `None` for a deletion.
    pub fn size(&self) -> Option<usize> {
        match self {
            Content::Bytes(bytes) => Some(bytes.len()),
            Content::Deleted => None,
        }
    }
}

/// One object that a transaction is to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Which.
    pub oid: Oid,
    /// The serial that the transaction read of it; [`Tid::NONE`] where it did not exist.
    pub read: Tid,
    /// What it is to be.
    pub content: Content,
}

/// One object that a transaction read, did not write, and depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which.
    pub oid: Oid,
    /// The serial that the transaction read of it; [`Tid::NONE`] where it did not exist.
    pub read: Tid,
}

/// One object that a transaction wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Which.
    pub oid: Oid,
    /// What it became.
    pub content: Content,
}

/// What a transaction says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// On whose behalf.
    pub user: String,
    /// What for.
    pub description: String,
    /// Anything else, opaque.
    #[serde(with = "crate::bytes_field")]
    pub extension: Vec<u8>,
}

/// A revision of an object, without its bytes. It is never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How many bytes it holds; `None` for a deletion.
    pub size: Option<u64>,
    /// When it was written.
    pub created: Revision,
}

/// A committed transaction. It is never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What it says about itself.
    pub metadata: Metadata,
    /// How many objects it wrote.
    pub writes: u32,
    /// Log time.
    pub at: Millis,
    /// When it was committed.
    pub created: Revision,
}

/// Where the object database stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last transaction.
    pub tid: Tid,
    /// The largest oid that was given out or written.
    pub oid: Oid,
    /// How many objects exist.
    pub objects: u64,
}

/// The bytes of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bytes(#[serde(with = "crate::bytes_field")] pub Vec<u8>);

pub(super) const RECORDS: Table<(Oid, Newest), Record> = Table::new(keys::OBJECTS, "objects");
pub(super) const BYTES: Table<(Oid, Newest), Bytes> = Table::new(keys::OBJECT_BYTES, "object_bytes");
pub(super) const TRANSACTIONS: Table<Tid, Transaction> =
    Table::new(keys::OBJECT_TRANSACTIONS, "object_transactions");
/// The oids that a transaction wrote, in order of oid.
pub(super) const WRITES: Table<Tid, Vec<Oid>> = Table::new(keys::OBJECT_WRITES, "object_writes");
pub(super) const HEAD: Table<(), Head> = Table::new(keys::OBJECT_HEAD, "object_head");

/// This area's tables.
pub(crate) const TABLES: &[&dyn Describe] = &[&RECORDS, &BYTES, &TRANSACTIONS, &WRITES, &HEAD];
