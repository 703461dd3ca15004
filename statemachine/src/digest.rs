//! The hash of the state that replicas agree on, kept as the state changes: it costs what changed, not what there is.
//!
//! # What it is
//! Two parts, each a sum modulo 2^128 of the XXH3-128 of rows (the length of the key, the key, the value), so that
//! neither depends on an order or on how entries were cut into batches:
//! - **rows**: of every row that is there, but for the journal, the replies, and what a node keeps for itself. It can be computed anew from
//!   the state at any time ([`StateHash::scan`]), and must then be what was kept.
//! - **history**: of every journal record and every reply ever written since the first mark ([`StateHash::mark`]). Their
//!   rows go again, each in its own time, and stay in this sum.
//!
//! # What it finds
//! Divergence, not forgery. Two states that differ by accident have the same hash with a probability of about 2^-128;
//! whoever may choose values can construct two that do, as with any sum of this size, and gains nothing by it, since
//! nobody is let in on the strength of a hash. A row that changed behind the back of `evolve` shows once it is written
//! again, or once the rows are read anew.

use crate::command::Outcome;
use crate::ids::{CommandId, Revision};
use crate::store::{Changes, Fault, Order, View};
use crate::txn::Txn;
use crate::{journal, keys, replies};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::ControlFlow;
use twox_hash::XxHash3_128;

/// The level from which on replicas compare hashes ([`crate::system::Command::MarkState`]).
pub const FEATURE_LEVEL: u32 = 3;

/// The hash of a state, as it is kept with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHash {
    rows: u128,
    history: Option<u128>,
}

/// What is compared: 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HashValue(pub u128);

impl fmt::Display for HashValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hashes one row after the other.
#[derive(Default)]
struct RowHasher(Vec<u8>);

impl RowHasher {
    fn row(&mut self, key: &[u8], value: &[u8]) -> u128 {
        self.0.clear();
        self.0.reserve(4 + key.len() + value.len());
        self.0.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
        XxHash3_128::oneshot(&self.0)
    }
}

/// Keys from here on are not replicated: what each node keeps for itself, in its own time.
const OWN_FROM: u8 = 0x7f;

/// Whether a row is part of the state that all nodes keep alike, and stays until it is changed.
pub fn is_summed(key: &[u8]) -> bool {
    !matches!(
        key.first(),
        None | Some(&(keys::JOURNAL | keys::REPLIES | OWN_FROM..))
    )
}

impl StateHash {
    /// Computes the sum of the rows anew, from all of them. There is no history in it.
    pub fn scan(view: &dyn View) -> Result<Self, Fault> {
        let mut hasher = RowHasher::default();
        let mut rows = 0_u128;
        view.scan(&[], &[], Order::Ascending, &mut |key, value| {
            if is_summed(key) {
                rows = rows.wrapping_add(hasher.row(key, value));
            }
            ControlFlow::Continue(())
        })?;
        let history = None;
        Ok(StateHash { rows, history })
    }

    /// Whether both are of the same rows, whatever their histories.
    pub fn has_rows_of(&self, scanned: &StateHash) -> bool {
        self.rows == scanned.rows
    }

    /// Takes in the entry that was just applied to `txn`, before the next one is: what it did and what it answered.
    pub fn take_entry(&mut self, txn: &Txn<'_>, command: CommandId, outcome: &Outcome, revision: Revision) {
        let Some(history) = &mut self.history else { return };
        // A duplicate has the revision of the first, and adds nothing.
        if outcome.revision() != revision {
            return;
        }
        let mut hasher = RowHasher::default();
        let record = journal::written(txn, revision);
        for (key, value) in [record, replies::written(txn, command)].into_iter().flatten() {
            *history = history.wrapping_add(hasher.row(&key, value));
        }
    }

    /// Takes in the changes of a batch to the state `before`.
    pub fn take_changes(&mut self, before: &dyn View, changes: &Changes) -> Result<(), Fault> {
        let mut hasher = RowHasher::default();
        for (key, change) in changes.iter().filter(|(key, _)| is_summed(key)) {
            let old = before.get(key)?;
            if old == *change {
                continue;
            }
            if let Some(value) = old {
                self.rows = self.rows.wrapping_sub(hasher.row(key, &value));
            }
            if let Some(value) = change {
                self.rows = self.rows.wrapping_add(hasher.row(key, value));
            }
        }
        Ok(())
    }

    /// The value as of a mark, which is the last entry that was taken in. The first mark begins the history, at the same
    /// revision on every node.
    pub fn mark(&mut self) -> HashValue {
        let history = *self.history.get_or_insert(0);
        let both = [self.rows.to_be_bytes(), history.to_be_bytes()].concat();
        HashValue(XxHash3_128::oneshot(&both))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use proptest::prelude::*;

    fn changes(rows: &[(Vec<u8>, Option<Vec<u8>>)]) -> Changes {
        rows.iter().cloned().collect()
    }

    proptest! {
        /// Kept over any changes, in any cut, the sum is that of the rows that are left.
        #[test]
        fn kept_is_what_a_scan_finds(
            written in prop::collection::vec((prop::collection::vec(0_u8..6, 1..3), any::<Option<[u8; 2]>>()), 0..40),
            cut in 1_usize..7,
        ) {
            let written: Vec<_> = written
                .into_iter()
                .map(|(key, value)| (key, value.map(|value| value.to_vec())))
                .collect();
            let mut store = MemoryStore::default();
            let mut kept = StateHash::default();
            for batch in written.chunks(cut) {
                let batch = changes(batch);
                kept.take_changes(&store, &batch).expect("memory never fails");
                store.write(batch);
            }
            prop_assert_eq!(kept, StateHash::scan(&store).expect("memory never fails"));
        }
    }

    #[test]
    fn a_bit_a_swap_and_a_shift_between_key_and_value_show() {
        let of = |rows: &[(&[u8], &[u8])]| {
            let mut store = MemoryStore::default();
            store.write(
                rows.iter()
                    .map(|(key, value)| (key.to_vec(), Some(value.to_vec())))
                    .collect(),
            );
            StateHash::scan(&store).expect("memory never fails")
        };
        let state = of(&[(b"\x22a", b"1"), (b"\x22b", b"2")]);
        assert_ne!(state, of(&[(b"\x22a", b"1"), (b"\x22b", b"3")]));
        assert_ne!(state, of(&[(b"\x22a", b"2"), (b"\x22b", b"1")]));
        assert_ne!(state, of(&[(b"\x22a", b"1"), (b"\x22", b"b2")]));
        // What each node lets go of in its own time is no part of it.
        let aside: &[u8] = &[keys::REPLIES, 9];
        assert_eq!(state, of(&[(aside, b"x"), (b"\x22a", b"1"), (b"\x22b", b"2")]));
    }

    #[test]
    fn values_are_pinned() {
        let mut store = MemoryStore::default();
        store.write(changes(&[(b"\x22key".to_vec(), Some(b"value".to_vec()))]));
        let mut hash = StateHash::scan(&store).expect("memory never fails");
        assert_eq!(hash.mark().to_string(), "70cdfe5bcb274810d9f13a87f3988937");
    }
}
