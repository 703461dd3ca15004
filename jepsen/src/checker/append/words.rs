//! Transactions, lists and cycles in words.

use super::cycles::Cycle;
use super::graph::{Edge, Reason};
use super::orders::Orders;
use super::{Mop, Txn};
use crate::checker::Violation;
use crate::history::Outcome;

/// The most elements of a list that are spelled out.
const ELEMENTS_MAX: usize = 12;

/// What a transaction is called: `T17` for call 17.
pub(super) fn name(txn: &Txn) -> String {
    format!("T{}", txn.call)
}

/// A transaction, all of it.
pub(super) fn txn(txn: &Txn) -> String {
    let ops: Vec<_> = txn
        .ops
        .iter()
        .map(|op| match op {
            Mop::Append { key, value } => format!("append {value} to {key}"),
            Mop::Read {
                key,
                values: Some(list),
            } => format!("read {key} as {}", values(list)),
            Mop::Read { key, values: None } => format!("read {key}"),
        })
        .collect();
    let (from, to) = (txn.invoked_ns / 1000, txn.completed_ns.map(|ns| ns / 1000));
    let time = match to {
        Some(to) => format!("{from} to {to} µs"),
        None => format!("from {from} µs"),
    };
    let outcome = match txn.outcome {
        Outcome::Ok => "",
        Outcome::Fail => ", failed",
        Outcome::Info => ", outcome unknown",
    };
    format!(
        "{} of process {}, {time}{outcome}: {}",
        name(txn),
        txn.process,
        ops.join(", ")
    )
}

/// A list; of a long one, its end.
pub(super) fn values(list: &[u64]) -> String {
    values_around(list, list.len())
}

/// A list; of a long one, the part around a place.
pub(super) fn values_around(list: &[u64], place: usize) -> String {
    let end = (place + ELEMENTS_MAX / 2).min(list.len());
    let start = end.saturating_sub(ELEMENTS_MAX);
    let shown: Vec<_> = list[start..end].iter().map(u64::to_string).collect();
    let (before, after) = (
        if start > 0 { "... " } else { "" },
        if end < list.len() { " ..." } else { "" },
    );
    format!("[{before}{}{after}]", shown.join(" "))
}

/// The violation that a cycle is.
pub(super) fn cycle(txns: &[Txn], orders: &Orders<'_>, cycle: &Cycle<'_>) -> Violation {
    let names: Vec<_> = cycle.steps.iter().map(|(place, _)| name(&txns[*place])).collect();
    let mut lines: Vec<_> = cycle.steps.iter().map(|(place, _)| txn(&txns[*place])).collect();
    for (from, edge) in &cycle.steps {
        let (from, to) = (&txns[*from], &txns[edge.to]);
        lines.push(format!("{}: {}", before(from, to), why(orders, from, to, edge)));
    }
    let summary = format!("{} -> {}", names.join(" -> "), names[0]);
    Violation {
        lines,
        calls: cycle.steps.iter().map(|(place, _)| txns[*place].call).collect(),
        ..Violation::new(cycle.kind(), summary, [])
    }
}

fn before(from: &Txn, to: &Txn) -> String {
    format!("{} before {}", name(from), name(to))
}

fn why(orders: &Orders<'_>, from: &Txn, to: &Txn, edge: &Edge<'_>) -> String {
    let (one, other) = (name(from), name(to));
    let Some((key, value)) = edge.item else {
        return match (edge.reason, from.completed_ns) {
            (Reason::RealTime, Some(ended)) => {
                let gap = to.invoked_ns.saturating_sub(ended) / 1000;
                format!("{one} ended {gap} µs before {other} began")
            }
            _ => format!("{other} came after {one} in process {}", from.process),
        };
    };
    let list = orders.list(key);
    match edge.reason {
        Reason::WriteRead => format!("{one} appended {value} to {key}, and {other} read it"),
        Reason::ReadWrite => format!("{one} read {key} without {value}, which {other} appended"),
        _ => match list.place.get(&value) {
            Some(place) => {
                let previous = place.checked_sub(1).map(|place| list.order[place]);
                let previous = previous.map_or_else(String::new, |value| value.to_string());
                format!("{one} appended {previous} to {key}, and {other} appended {value} right after it")
            }
            None => {
                format!("{one} appended the last element of {key} that was read, and {other} {value} later")
            }
        },
    }
}
