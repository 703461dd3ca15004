//! Key-value pairs.

use super::{Invalid, join_bytes, split_bytes};
use onward_statemachine::Revision;
use onward_statemachine::services::kv;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stored pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = KvPair)]
pub struct Pair {
    /// The key, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The value, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// When the key came into being (again after each deletion).
    pub created: u64,
    /// When it was last put: what `If-Match` compares with.
    pub modified: u64,
    /// How often it was put since it came into being, from 1.
    pub version: u64,
}

impl Pair {
    /// The key as bytes.
    pub fn key_bytes(&self) -> Result<Vec<u8>, Invalid> {
        join_bytes("key", self.key.clone(), self.key_base64.clone())
    }

    /// The value as bytes.
    pub fn value_bytes(&self) -> Result<Vec<u8>, Invalid> {
        join_bytes("value", self.value.clone(), self.value_base64.clone())
    }
}

impl From<(kv::Key, kv::Pair)> for Pair {
    fn from((key, pair): (kv::Key, kv::Pair)) -> Self {
        let (key, key_base64) = split_bytes(key.0);
        let (value, value_base64) = split_bytes(pair.value);
        Pair {
            key,
            key_base64,
            value,
            value_base64,
            created: pair.created.0,
            modified: pair.modified.0,
            version: pair.version,
        }
    }
}

/// The JSON form of a value to put; the key is in the path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvValue)]
pub struct Value {
    /// As text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// As base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        let (value, value_base64) = split_bytes(bytes);
        Value { value, value_base64 }
    }
}

impl Value {
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, Invalid> {
        join_bytes("value", self.value, self.value_base64)
    }
}

/// Puts a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvPut)]
pub struct Put {
    /// The key, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// Only if the key's `modified` is this; 0 for "does not exist".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl Put {
    /// Puts `value` at `key`, whatever is there.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        let (key, key_base64) = split_bytes(key.into());
        let (value, value_base64) = split_bytes(value.into());
        Put {
            key,
            key_base64,
            value,
            value_base64,
            expect_revision: None,
        }
    }
}

impl Put {
    /// The key and the value.
    pub(crate) fn parts(self) -> Result<(kv::Key, Vec<u8>), Invalid> {
        let key = join_bytes("key", self.key, self.key_base64)?;
        Ok((kv::Key(key), join_bytes("value", self.value, self.value_base64)?))
    }
}

impl TryFrom<Put> for kv::Command {
    type Error = Invalid;
    fn try_from(put: Put) -> Result<Self, Invalid> {
        let expect = put.expect_revision.map(Revision);
        let (key, value) = put.parts()?;
        Ok(kv::Command::Put { key, value, expect })
    }
}

/// Deletes one key, or all with a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvDelete)]
pub struct Delete {
    /// The key, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// Instead of a key: all keys that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only if the key's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl TryFrom<Delete> for kv::Command {
    type Error = Invalid;
    fn try_from(delete: Delete) -> Result<Self, Invalid> {
        Ok(kv::Command::Delete {
            keys: selection(delete.key, delete.key_base64, delete.prefix)?,
            expect: delete.expect_revision.map(Revision),
        })
    }
}

fn selection(
    key: Option<String>,
    key_base64: Option<String>,
    prefix: Option<String>,
) -> Result<kv::Selection, Invalid> {
    match prefix {
        None => Ok(kv::Selection::Key(kv::Key(join_bytes("key", key, key_base64)?))),
        Some(prefix) if key.is_none() && key_base64.is_none() => {
            Ok(kv::Selection::Prefix(prefix.into_bytes()))
        }
        Some(_) => Err(Invalid::new("prefix", "a key and a prefix exclude each other")),
    }
}

/// How many keys a deletion took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = KvDeleted)]
pub struct Deleted {
    /// The count.
    pub deleted: u64,
}

/// Compares, then does one thing or the other, in one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvTxn)]
pub struct Txn {
    /// All of these must hold for `then`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compare: Vec<Compare>,
    /// Done when they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Op>,
    /// Done when they do not.
    #[serde(default, rename = "else", skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<Op>,
}

/// A condition on one key. A key that does not exist has revisions and version 0 and no value. One of `modified`,
/// `created`, `version`, `value` and `value_base64` says what is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvCompare)]
pub struct Compare {
    /// The key, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// How the stored side compares with the one that is given.
    #[serde(default)]
    pub is: Relation,
    /// The revision of the last put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
    /// The revision of the first put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// The count of puts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// How two sides compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = KvRelation)]
pub enum Relation {
    /// The same.
    #[default]
    Equal,
    /// Not the same.
    NotEqual,
    /// The stored side is greater.
    Greater,
    /// The stored side is less.
    Less,
}

impl From<Relation> for kv::Relation {
    fn from(relation: Relation) -> Self {
        match relation {
            Relation::Equal => kv::Relation::Equal,
            Relation::NotEqual => kv::Relation::NotEqual,
            Relation::Greater => kv::Relation::Greater,
            Relation::Less => kv::Relation::Less,
        }
    }
}

impl TryFrom<Compare> for kv::Compare {
    type Error = Invalid;
    fn try_from(compare: Compare) -> Result<Self, Invalid> {
        let value = match (compare.value, compare.value_base64) {
            (None, None) => None,
            (text, base64) => Some(kv::Target::Value(join_bytes("value", text, base64)?)),
        };
        let targets = [
            compare
                .modified
                .map(|revision| kv::Target::Modified(Revision(revision))),
            compare
                .created
                .map(|revision| kv::Target::Created(Revision(revision))),
            compare.version.map(kv::Target::Version),
            value,
        ];
        let mut given = targets.into_iter().flatten();
        let (Some(target), None) = (given.next(), given.next()) else {
            let rule =
                "a condition takes exactly one of `modified`, `created`, `version`, `value`, `value_base64`";
            return Err(Invalid::new("compare", rule));
        };
        Ok(kv::Compare {
            key: kv::Key(join_bytes("key", compare.key, compare.key_base64)?),
            target,
            relation: compare.is.into(),
        })
    }
}

/// One operation of a transaction. Operations run in order and see the ones before them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = KvOp)]
pub enum Op {
    /// Reads a key.
    Get(Key),
    /// Puts a key. `expect_revision` is for `compare` to say.
    Put(Put),
    /// Deletes a key, or all with a prefix.
    Delete(Delete),
}

/// A key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvKey)]
pub struct Key {
    /// As text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// As base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
}

impl From<kv::Key> for Key {
    fn from(key: kv::Key) -> Self {
        let (key, key_base64) = split_bytes(key.0);
        Key { key, key_base64 }
    }
}

impl TryFrom<Op> for kv::Op {
    type Error = Invalid;
    fn try_from(op: Op) -> Result<Self, Invalid> {
        let unconditional = |expect: Option<u64>| match expect {
            None => Ok(()),
            Some(_) => Err(Invalid::new(
                "expect_revision",
                "in a transaction, `compare` says what is expected",
            )),
        };
        Ok(match op {
            Op::Get(Key { key, key_base64 }) => kv::Op::Get(kv::Key(join_bytes("key", key, key_base64)?)),
            Op::Put(put) => {
                unconditional(put.expect_revision)?;
                kv::Op::Put {
                    key: kv::Key(join_bytes("key", put.key, put.key_base64)?),
                    value: join_bytes("value", put.value, put.value_base64)?,
                }
            }
            Op::Delete(delete) => {
                unconditional(delete.expect_revision)?;
                kv::Op::Delete(selection(delete.key, delete.key_base64, delete.prefix)?)
            }
        })
    }
}

impl TryFrom<Txn> for kv::Command {
    type Error = Invalid;
    fn try_from(txn: Txn) -> Result<Self, Invalid> {
        let ops = |ops: Vec<Op>| ops.into_iter().map(kv::Op::try_from).collect::<Result<_, _>>();
        Ok(kv::Command::Txn {
            compares: txn
                .compare
                .into_iter()
                .map(kv::Compare::try_from)
                .collect::<Result<_, _>>()?,
            then: ops(txn.then)?,
            otherwise: ops(txn.otherwise)?,
        })
    }
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = KvTxnResult)]
pub struct TxnResult {
    /// Whether all conditions held, so that `then` ran.
    pub succeeded: bool,
    /// One for each operation of the branch that ran.
    pub results: Vec<OpResult>,
}

/// What one operation of a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = KvOpResult)]
pub enum OpResult {
    /// The value that was read, or null.
    Got(Option<Got>),
    /// Put.
    Put,
    /// How many keys were deleted.
    Deleted(u64),
}

/// A value that a transaction read. Its revisions are 0 where the transaction itself made them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = KvGot)]
pub struct Got {
    /// The value, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// When the key came into being.
    pub created: u64,
    /// When it was last put.
    pub modified: u64,
    /// How often it was put since it came into being.
    pub version: u64,
}

impl From<kv::Pair> for Got {
    fn from(pair: kv::Pair) -> Self {
        let (value, value_base64) = split_bytes(pair.value);
        Got {
            value,
            value_base64,
            created: pair.created.0,
            modified: pair.modified.0,
            version: pair.version,
        }
    }
}

impl From<kv::OpResult> for OpResult {
    fn from(result: kv::OpResult) -> Self {
        match result {
            kv::OpResult::Got(pair) => OpResult::Got(pair.map(Got::from)),
            kv::OpResult::Put => OpResult::Put,
            kv::OpResult::Deleted(count) => OpResult::Deleted(count),
        }
    }
}

/// What happened to a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = KvEvent)]
pub enum Event {
    /// A key was put.
    Put {
        /// The key, where it is UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The key, where it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_base64: Option<String>,
        /// The value, where it is UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// The value, where it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value_base64: Option<String>,
    },
    /// A key was deleted.
    Deleted {
        /// The key, where it is UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The key, where it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_base64: Option<String>,
    },
}

impl From<kv::Event> for Event {
    fn from(event: kv::Event) -> Self {
        match event {
            kv::Event::Put { key, value } => {
                let (key, key_base64) = split_bytes(key.0);
                let (value, value_base64) = split_bytes(value);
                Event::Put {
                    key,
                    key_base64,
                    value,
                    value_base64,
                }
            }
            kv::Event::Deleted { key } => {
                let (key, key_base64) = split_bytes(key.0);
                Event::Deleted { key, key_base64 }
            }
        }
    }
}

/// All that happened to the watched pairs in one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = KvChange)]
pub struct Change {
    /// When: the `after` to go on with.
    pub revision: u64,
    /// In order.
    pub events: Vec<Event>,
}

/// What a command told, as its own route would answer it.
pub(crate) fn reply(reply: kv::Reply) -> serde_json::Value {
    let value = match reply {
        kv::Reply::Deleted { count } => serde_json::to_value(Deleted { deleted: count }),
        kv::Reply::Txn { succeeded, results } => serde_json::to_value(TxnResult {
            succeeded,
            results: results.into_iter().map(OpResult::from).collect(),
        }),
    };
    value.expect("wire types are maps with text keys")
}
