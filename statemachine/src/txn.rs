//! The write overlay: reads see the writes of earlier commands of the same batch, and all of it lands at once.

use crate::store::{Changes, Fault, Order, View, Visit, bounds};
use std::ops::ControlFlow;

/// Changes on top of a [`View`]. A `Txn` is a `View` itself, so overlays nest: `Batch` runs in a child that is
/// merged when every command was accepted and dropped when one was refused.
pub struct Txn<'a> {
    base: &'a dyn View,
    changes: Changes,
}

impl<'a> Txn<'a> {
    /// An empty overlay on `base`.
    pub fn new(base: &'a dyn View) -> Self {
        Txn {
            base,
            changes: Changes::new(),
        }
    }

    /// What was written, to be stored in one write batch.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// The value that was written at `key` by this overlay.
    pub(crate) fn written(&self, key: &[u8]) -> Option<&[u8]> {
        self.changes.get(key)?.as_deref()
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// Takes over the changes of a child overlay.
    pub(crate) fn merge(&mut self, changes: Changes) {
        self.changes.extend(changes);
    }
}

impl View for Txn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
        let Some(range) = bounds(from, to) else {
            return Ok(());
        };
        if self.changes.is_empty() {
            return self.base.scan(from, to, order, visit);
        }
        let mut changes = self.changes.range::<[u8], _>(range);
        let mut next_change = || match order {
            Order::Ascending => changes.next(),
            Order::Descending => changes.next_back(),
        };
        let mut pending = next_change();
        let mut stopped = false;
        self.base.scan(from, to, order, &mut |key, value| {
            while let Some((changed, change)) = pending {
                let position = match order {
                    Order::Ascending => changed.as_slice().cmp(key),
                    Order::Descending => key.cmp(changed.as_slice()),
                };
                if position.is_gt() {
                    break;
                }
                pending = next_change();
                if let Some(new) = change
                    && visit(changed, new).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if position.is_eq() {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            stopped = flow.is_break();
            flow
        })?;
        while let (false, Some((changed, change))) = (stopped, pending) {
            pending = next_change();
            if let Some(new) = change {
                stopped = visit(changed, new).is_break();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use proptest::prelude::*;

    fn all(view: &dyn View, from: &[u8], to: &[u8], order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        view.scan(from, to, order, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .expect("memory never fails");
        rows
    }

    proptest! {
        /// Reading through the overlay equals reading a store that has the changes already.
        #[test]
        fn overlay_equals_merged(
            base in prop::collection::btree_map(any::<[u8; 1]>(), any::<u8>(), 0..20),
            changes in prop::collection::btree_map(any::<[u8; 1]>(), any::<Option<u8>>(), 0..20),
            from in any::<[u8; 1]>(), to in prop::collection::vec(any::<u8>(), 0..2),
            descending in any::<bool>(), limit in 1usize..30,
        ) {
            let mut store = MemoryStore::default();
            store.write(base.iter().map(|(k, v)| (k.to_vec(), Some(vec![*v]))).collect());
            let mut txn = Txn::new(&store);
            for (key, value) in &changes {
                match value {
                    Some(value) => txn.put(key.to_vec(), vec![*value]),
                    None => txn.delete(key.to_vec()),
                }
            }
            let order = if descending { Order::Descending } else { Order::Ascending };
            let seen = all(&txn, &from, &to, order, limit);
            let landed = txn.into_changes();
            let mut merged = store.clone();
            merged.write(landed);
            prop_assert_eq!(seen, all(&merged, &from, &to, order, limit));
        }
    }
}
