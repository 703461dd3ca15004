use crate::dump::Describe;
use crate::ids::Revision;
use crate::keys;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 2048;
/// The largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most comparisons, and the most operations of a branch, in one transaction.
pub const TXN_OPS_MAX: usize = 512;

/// A key: 1 to [`KEY_BYTES_MAX`] bytes of any kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(#[serde(with = "crate::bytes_field")] pub Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A stored pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The bytes.
    #[serde(with = "crate::bytes_field")]
    pub value: Vec<u8>,
    /// When the key came into being (again after each deletion).
    pub created: Revision,
    /// When it was last put.
    pub modified: Revision,
    /// How often it was put since it came into being, from 1.
    pub version: u64,
}

/// Which keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// Exactly this one.
    Key(Key),
    /// All that begin with these bytes; empty for all keys.
    Prefix(#[serde(with = "crate::bytes_field")] Vec<u8>),
}

/// A condition of a transaction on one key. A key that does not exist has revisions and version 0 and no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Whose.
    pub key: Key,
    /// What is compared with what.
    pub target: Target,
    /// How.
    pub relation: Relation,
}

/// What a [`Compare`] looks at, and what it compares it with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The revision of the last put.
    Modified(Revision),
    /// The revision of the first put.
    Created(Revision),
    /// The count of puts.
    Version(u64),
    /// The bytes; a key that does not exist equals nothing and is less than everything.
    Value(#[serde(with = "crate::bytes_field")] Vec<u8>),
}

/// How two sides compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// The stored side is greater.
    Greater,
    /// The stored side is less.
    Less,
}

/// One operation of a transaction. Operations run in order and see the ones before them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Read a key.
    Get(Key),
    /// Put a key.
    Put {
        /// Where.
        key: Key,
        /// What.
        #[serde(with = "crate::bytes_field")]
        value: Vec<u8>,
    },
    /// Delete keys.
    Delete(Selection),
}

/// What a command tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// How many keys were deleted.
    Deleted {
        /// The count.
        count: u64,
    },
    /// What a transaction did.
    Txn {
        /// Whether all conditions held, so that `then` ran.
        succeeded: bool,
        /// One for each operation of the branch that ran.
        results: Vec<OpResult>,
    },
}

/// What one operation of a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// The pair read, if there was one.
    Got(Option<Pair>),
    /// Put.
    Put,
    /// How many keys were deleted.
    Deleted(u64),
}

pub(super) const PAIRS: Table<Vec<u8>, Pair> = Table::new(keys::KV, "kv");

/// This area's tables.
pub(crate) const TABLES: &[&dyn Describe] = &[&PAIRS];
