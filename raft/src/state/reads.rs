//! What one batch reads of the state before it, read once: `evolve` looks a row up, and so does the hash of the state.

use onward_statemachine::{Fault, Order, View, Visit, digest};
use std::cell::RefCell;
use std::collections::HashMap;

/// Longer values are read again rather than kept twice.
const VALUE_BYTES_MAX: usize = 4 << 10;

/// A view that does not change meanwhile, and what was read of it.
pub(super) struct Reads<'a> {
    view: &'a dyn View,
    known: RefCell<HashMap<Vec<u8>, Option<Vec<u8>>>>,
}

impl<'a> Reads<'a> {
    pub(super) fn of(view: &'a dyn View) -> Self {
        let known = RefCell::default();
        Reads { view, known }
    }
}

impl View for Reads<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        if let Some(value) = self.known.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.view.get(key)?;
        let is_short = value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX);
        if is_short && digest::is_summed(key) {
            self.known.borrow_mut().insert(key.to_vec(), value.clone());
        }
        Ok(value)
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
        self.view.scan(from, to, order, visit)
    }
}
