//! Transactions that append to lists and read them: strict serializability, after Elle (Kingsbury and Alvaro, 2020).

use crate::history::{Outcome, TimeNs};

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// Whose.
    pub process: u64,
    /// When it was asked for.
    pub invoked_ns: TimeNs,
    /// When it was answered; whatever the outcome, only the time of one that took place counts.
    pub completed_ns: Option<TimeNs>,
    /// What is known of it.
    pub outcome: Outcome,
    /// What it did, in order; of one that did not take place, or may not have, what was asked.
    pub ops: Vec<Mop>,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mop {
    /// An element was added to the end of a list. No element is added to a list twice.
    Append {
        /// Which list.
        key: String,
        /// The element.
        value: u64,
    },
    /// A list was read.
    Read {
        /// Which.
        key: String,
        /// What was in it; a list that does not exist is empty. Missing where nobody was told.
        values: Option<Vec<u64>>,
    },
}
