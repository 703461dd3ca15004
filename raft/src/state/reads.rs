//! What one batch reads of the state before it, read once: `evolve` looks a row up, and so does the hash of the state.

use onward_statemachine::{Fault, Order, View, Visit, digest};
use std::cell::RefCell;
use std::collections::HashMap;

/// About how many bytes of values are kept: what goes beyond is read again.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// How many rows are read together: as many as RocksDB takes at a time (`MultiGetContext::MAX_BATCH_SIZE`). Their
/// values are in memory at once.
const TOGETHER: usize = 32;

/// A view that does not change meanwhile, and what was read of it.
pub(crate) struct Reads<'a> {
    view: &'a dyn View,
    known: RefCell<Known>,
}

#[derive(Default)]
struct Known {
    rows: HashMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Known {
    fn keep(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let length = value.as_ref().map_or(0, Vec::len);
        if self.bytes + length <= KEPT_BYTES_MAX {
            self.bytes += length;
            self.rows.insert(key, value);
        }
    }
}

impl<'a> Reads<'a> {
    /// Reads the rows of `keys` together, before anybody asks for them.
    pub(crate) fn ahead(view: &'a dyn View, mut keys: Vec<Vec<u8>>) -> Result<Self, Fault> {
        keys.sort_unstable();
        keys.dedup();
        let mut known = Known::default();
        while !keys.is_empty() {
            let some: Vec<_> = keys.drain(keys.len().saturating_sub(TOGETHER)..).collect();
            let values = view.get_many(&some)?;
            for (key, value) in some.into_iter().zip(values) {
                known.keep(key, value);
            }
        }
        let known = RefCell::new(known);
        Ok(Reads { view, known })
    }
}

impl View for Reads<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        if let Some(value) = self.known.borrow().rows.get(key) {
            return Ok(value.clone());
        }
        let value = self.view.get(key)?;
        if digest::is_summed(key) {
            self.known.borrow_mut().keep(key.to_vec(), value.clone());
        }
        Ok(value)
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
        self.view.scan(from, to, order, visit)
    }
}
