//! What the state machine needs of a store: ordered bytes to read, and a set of changes to write at once.
//!
//! [`View`] is read-only; [`Txn`](crate::Txn) is the only thing that collects writes, and only `evolve` functions of
//! this crate can reach its writing half. [`MemoryStore`] serves tests and simulation; `raft/` has the durable one.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// A break-down of this node: a failed disk, bytes that do not decode, an invariant that does not hold.
///
/// A fault is never an answer to a client. It stops the node, because a replica that cannot apply an entry as the
/// others did must not go on serving.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The store failed to read or write.
    #[error("the store failed: {0}")]
    Store(String),
    /// Stored bytes mean nothing to this build.
    #[error("stored state is corrupt: {0}")]
    Corrupt(String),
    /// An invariant between rows does not hold.
    #[error("an invariant is broken: {0}")]
    Invariant(String),
}

impl Fault {
    /// Stored bytes that mean nothing.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Fault::Corrupt(what.into())
    }
    /// Rows that contradict each other.
    pub fn invariant(what: impl Into<String>) -> Self {
        Fault::Invariant(what.into())
    }
}

/// The direction of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// What a scan calls for each row; `Break` ends it.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Read-only, consistent state.
pub trait View {
    /// The value at `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;

    /// The values at `keys`, in their order.
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Visits the rows whose keys are at least `from` and less than `to` (an empty `to` is no bound).
    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault>;
}

/// Changes by key: a value to put, or `None` to delete.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The bounds of a `BTreeMap` range.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// `from` and `to` as bounds; `None` where they leave nothing between them.
pub(crate) fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> Option<Bounds<'a>> {
    match to {
        [] => Some((Bound::Included(from), Bound::Unbounded)),
        to if from < to => Some((Bound::Included(from), Bound::Excluded(to))),
        _ => None,
    }
}

/// A store in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// Writes all changes.
    pub fn write(&mut self, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// All rows in key order.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

impl View for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
        let Some(range) = bounds(from, to) else {
            return Ok(());
        };
        let mut rows = self.rows.range::<[u8], _>(range);
        while let Some((key, value)) = match order {
            Order::Ascending => rows.next(),
            Order::Descending => rows.next_back(),
        } {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
