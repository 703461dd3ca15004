//! Transactions that append to lists and read them: strict serializability, after Elle (Kingsbury and Alvaro,
//! "Elle: Inferring Isolation Anomalies from Experimental Observations", 2020).
//!
//! A list that is read tells the order of all that was appended to it so far, and every element tells who appended it.
//! So the longest read of a list is the order of its versions (`orders`), from which follows who overwrote (ww), read
//! (wr) and was overwritten after being read (rw) by whom; with who was done before whom began (`graph`), that is a
//! graph in which a cycle is an anomaly (`cycles`), named after Adya's phenomena:
//!
//! | kind | what |
//! |---|---|
//! | `G0` | a cycle of writes |
//! | `G1a`, `G1b`, `G1c` | what failed was read; what was not the last write was read; a cycle of writes and reads |
//! | `G-single`, `G2-item` | a cycle with one anti-dependency, with several |
//! | `...-process`, `...-realtime` | a cycle only with the order of a process, only with real time |
//! | `lost-update` | several transactions read the same version of a list, and all appended to it |
//! | `internal` | a transaction contradicts itself |
//! | `incompatible-order`, `duplicate-element`, `phantom-element` | reads that no list can answer |
//!
//! Of unknown outcome is what nobody read; what was read took place, whatever its client was told.
//!
//! Limits: of what no read shows, at most [`UNSEEN_MAX`] appends a list are held against the reads that miss them.
//! In one tangle of transactions the worst cycle is named, not all of them.

mod cycles;
mod graph;
mod orders;
#[cfg(test)]
mod tests;
mod words;

use super::{Findings, Violation};
use crate::history::{Outcome, TimeNs};
use graph::Graph;
use orders::Orders;

/// How many appends that no read shows are held against each read of the last version of their list.
pub const UNSEEN_MAX: usize = 32;

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

impl Txn {
    /// When it ended, if it took place.
    fn ended_ns(&self) -> Option<TimeNs> {
        self.completed_ns.filter(|_| self.outcome == Outcome::Ok)
    }

    /// What it was told of lists, where it was told.
    fn reads(&self) -> impl Iterator<Item = (&str, &[u64])> {
        let told = self.outcome == Outcome::Ok;
        self.ops.iter().filter_map(move |op| match op {
            Mop::Read {
                key,
                values: Some(values),
            } if told => Some((key.as_str(), values.as_slice())),
            _ => None,
        })
    }

    /// What it appends.
    fn appends(&self) -> impl Iterator<Item = (&str, u64)> {
        self.ops.iter().filter_map(|op| match op {
            Mop::Append { key, value } => Some((key.as_str(), *value)),
            Mop::Read { .. } => None,
        })
    }
}

/// Whether `txns` are strictly serializable, as far as they show.
pub fn check(txns: &[Txn]) -> Findings {
    let ok = txns.iter().filter(|txn| txn.outcome == Outcome::Ok).count();
    let reads: usize = txns.iter().map(|txn| txn.reads().count()).sum();
    let orders = Orders::new(txns);
    let looked_at = format!("{ok} transactions with {reads} reads of {} lists", orders.len());
    let mut findings = Findings::new(looked_at, reads);
    orders.anomalies(&mut findings);
    let graph = Graph::new(txns, &orders);
    let cycles = cycles::find(&graph);
    findings
        .violations
        .extend(cycles.iter().map(|cycle| words::cycle(txns, &orders, cycle)));
    findings
        .violations
        .sort_by_key(|violation| severity(violation.kind));
    findings
}

/// The order in which anomalies are told: what contradicts itself, then what is worst.
fn severity(kind: &str) -> usize {
    const ORDER: [&str; 9] = [
        "phantom-element",
        "duplicate-element",
        "incompatible-order",
        "internal",
        "G1a",
        "G1b",
        "lost-update",
        "G0",
        "G1c",
    ];
    let place = ORDER.iter().position(|name| kind == *name);
    place.unwrap_or(ORDER.len())
}

/// A violation of so many transactions.
fn violation(kind: &'static str, summary: String, txns: &[&Txn]) -> Violation {
    Violation {
        lines: txns.iter().map(|txn| words::txn(txn)).collect(),
        calls: txns.iter().map(|txn| txn.call).collect(),
        ..Violation::new(kind, summary, [])
    }
}
