//! A hash over the whole state, for comparing replicas.

use crate::ids::Revision;
use crate::keys;
use crate::store::{Fault, Order, View};
use std::ops::ControlFlow;

/// Two CRC-32s side by side, one over the rows and one over the rows with their lengths, of everything but the journal
/// below its floor and the base that takes it up, which each node does in its own time. It finds divergence, not
/// forgery.
pub fn state_hash(view: &dyn View) -> Result<u64, Fault> {
    let mut hasher = StateHasher::new(crate::system::gate(view)?.journal_floor);
    view.scan(&[], &[], Order::Ascending, &mut |key, value| {
        hasher.row(key, value);
        ControlFlow::Continue(())
    })?;
    Ok(hasher.finish())
}

/// Computes [`state_hash`] row by row, for those who see every row once, in the order of the keys.
#[derive(Debug, Clone)]
pub struct StateHasher {
    journal_below: (Vec<u8>, Vec<u8>),
    rows: crc32fast::Hasher,
    framed: crc32fast::Hasher,
}

impl StateHasher {
    /// Before the first row of a state with this floor of the journal.
    pub fn new(journal_floor: Revision) -> Self {
        StateHasher {
            journal_below: crate::journal::range_below(journal_floor),
            rows: crc32fast::Hasher::new(),
            framed: crc32fast::Hasher::new_with_initial(keys::SYSTEM.into()),
        }
    }

    /// Takes the next row.
    pub fn row(&mut self, key: &[u8], value: &[u8]) {
        let (from, to) = &self.journal_below;
        if key.first() == Some(&keys::BASE) {
            return;
        }
        if key < from.as_slice() || key >= to.as_slice() {
            self.framed.update(&(key.len() as u32).to_be_bytes());
            for part in [key, value] {
                self.rows.update(part);
                self.framed.update(part);
            }
        }
    }

    /// The hash of all rows taken.
    pub fn finish(self) -> u64 {
        u64::from(self.rows.finalize()) << 32 | u64::from(self.framed.finalize())
    }
}
