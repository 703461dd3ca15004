//! Typed tables over the ordered bytes of a [`View`].

use crate::codec;
use crate::keys::{Key, after_prefix};
use crate::store::{Fault, Order, View};
use crate::txn::Txn;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;
use std::ops::ControlFlow;

/// A table: a prefix, the type of its keys, and the type of its rows. Reading is for the whole crate; writing is for
/// the `evolve` of the area that owns the table.
pub(crate) struct Table<K, V> {
    pub(crate) prefix: u8,
    pub(crate) name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V: Serialize + DeserializeOwned> Table<K, V> {
    pub(crate) const fn new(prefix: u8, name: &'static str) -> Self {
        Table {
            prefix,
            name,
            types: PhantomData,
        }
    }

    /// The key as it is stored, with the prefix of the table.
    pub(crate) fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = vec![self.prefix];
        key.encode(&mut bytes);
        bytes
    }

    pub(crate) fn row(&self, bytes: &[u8]) -> Result<V, Fault> {
        codec::decode(bytes).map_err(|error| Fault::corrupt(format!("a row of {}: {error}", self.name)))
    }

    pub(crate) fn get(&self, view: &dyn View, key: &K) -> Result<Option<V>, Fault> {
        view.get(&self.key(key))?
            .map(|bytes| self.row(&bytes))
            .transpose()
    }

    /// The row that an invariant says exists.
    pub(crate) fn expect(&self, view: &dyn View, key: &K) -> Result<V, Fault> {
        self.get(view, key)?
            .ok_or_else(|| Fault::invariant(format!("{} has no row {:02x?}", self.name, self.key(key))))
    }

    pub(crate) fn contains(&self, view: &dyn View, key: &K) -> Result<bool, Fault> {
        Ok(view.get(&self.key(key))?.is_some())
    }

    /// The row that `txn` wrote at `key`, as it is stored, with its whole key.
    pub(crate) fn written<'t>(&self, txn: &'t Txn<'_>, key: &K) -> Option<(Vec<u8>, &'t [u8])> {
        let key = self.key(key);
        let row = txn.written(&key)?;
        Some((key, row))
    }

    pub(crate) fn put(&self, txn: &mut Txn<'_>, key: &K, row: &V) {
        txn.put(self.key(key), codec::encode(row));
    }

    /// As [`Table::put`]; says how many bytes the row has with its key.
    pub(crate) fn put_counted(&self, txn: &mut Txn<'_>, key: &K, row: &V) -> u64 {
        let (key, row) = (self.key(key), codec::encode(row));
        let bytes = key.len() + row.len();
        txn.put(key, row);
        bytes as u64
    }

    pub(crate) fn delete(&self, txn: &mut Txn<'_>, key: &K) {
        txn.delete(self.key(key));
    }

    /// Visits the rows of `range` in `order` until `visit` breaks.
    pub(crate) fn scan(
        &self,
        view: &dyn View,
        range: &Range,
        order: Order,
        mut visit: impl FnMut(K, V) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let mut from = vec![self.prefix];
        from.extend_from_slice(&range.from);
        let to = match &range.to {
            Some(to) => [&[self.prefix][..], to].concat(),
            None => after_prefix(&[self.prefix]),
        };
        let mut fault = None;
        view.scan(&from, &to, order, &mut |key, value| {
            let mut rest = &key[1..];
            let step = K::decode(&mut rest).and_then(|key| visit(key, self.row(value)?));
            step.unwrap_or_else(|error| {
                fault = Some(error);
                ControlFlow::Break(())
            })
        })?;
        fault.map_or(Ok(()), Err)
    }

    /// All rows of `range`, at most `limit`, smallest key first.
    pub(crate) fn list(&self, view: &dyn View, range: &Range, limit: usize) -> Result<Vec<(K, V)>, Fault> {
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.scan(view, range, Order::Ascending, |key, row| {
            rows.push((key, row));
            Ok(if rows.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok(rows)
    }

    /// The row with the largest key of `range`.
    pub(crate) fn last(&self, view: &dyn View, range: &Range) -> Result<Option<(K, V)>, Fault> {
        let mut last = None;
        self.scan(view, range, Order::Descending, |key, row| {
            last = Some((key, row));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(last)
    }
}

/// Encoded keys of one table: at least `from`, less than `to`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Range {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Range {
    /// Every key.
    pub(crate) fn all() -> Self {
        Range::default()
    }

    /// Keys that begin with the fields of `head`: `(app, _)` by `within(&app)`.
    pub(crate) fn within<K: Key>(head: &K) -> Self {
        let mut from = Vec::new();
        head.encode(&mut from);
        Range::starting_with(from)
    }

    /// Text or byte-string keys that begin with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        let mut from = Vec::new();
        crate::keys::encode_bytes_prefix(prefix, &mut from);
        Range::starting_with(from)
    }

    fn starting_with(from: Vec<u8>) -> Self {
        let to = after_prefix(&from);
        Range {
            from,
            to: (!to.is_empty()).then_some(to),
        }
    }

    /// Narrows to keys at least `key`.
    pub(crate) fn at_least<K: Key>(mut self, key: &K) -> Self {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        self.from = self.from.max(bytes);
        self
    }

    /// Narrows to keys after `key`: where a page goes on. `key` must be a whole key of the table.
    pub(crate) fn after<K: Key>(mut self, key: &K) -> Self {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes.push(0);
        self.from = self.from.max(bytes);
        self
    }

    /// Narrows to keys less than `key`.
    pub(crate) fn below<K: Key>(mut self, key: &K) -> Self {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        self.to = Some(match self.to {
            Some(to) => to.min(bytes),
            None => bytes,
        });
        self
    }
}
