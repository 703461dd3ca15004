//! Who must come before whom.

use super::orders::{List, Orders};
use super::{Txn, UNSEEN_MAX};
use crate::history::{Outcome, TimeNs};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Why one transaction comes before another, the strongest reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It appended, and the other appended next.
    WriteWrite,
    /// It appended what the other read last.
    WriteRead,
    /// It read, and the other appended next.
    ReadWrite,
    /// The same process asked for the other after it.
    Process,
    /// It was answered before the other was asked for.
    RealTime,
}

/// An edge to another transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge<'a> {
    /// To whom, by place.
    pub to: usize,
    /// Why.
    pub reason: Reason,
    /// Of the first three reasons: the list, and which element the later one appended, or the reader saw last.
    pub item: Option<(&'a str, u64)>,
}

/// The transactions, by place, each with its edges, strongest first.
pub(super) struct Graph<'a> {
    pub edges: Vec<Vec<Edge<'a>>>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(txns: &'a [Txn], orders: &Orders<'a>) -> Self {
        let mut graph = Graph {
            edges: vec![Vec::new(); txns.len()],
        };
        let shown: HashSet<usize> = orders.lists().flat_map(|(_, list)| list.shown()).collect();
        for (key, list) in orders.lists() {
            graph.versions(key, list);
            graph.unseen(txns, &shown, key, list);
        }
        graph.processes(txns);
        graph.real_time(txns);
        for edges in &mut graph.edges {
            edges.sort_by_key(|edge| (edge.reason, edge.to));
            edges.dedup_by_key(|edge| (edge.reason, edge.to));
        }
        graph
    }

    fn add(&mut self, from: usize, to: usize, reason: Reason, item: Option<(&'a str, u64)>) {
        if from != to {
            self.edges[from].push(Edge { to, reason, item });
        }
    }

    /// What follows from the order of a list and from who read how much of it.
    fn versions(&mut self, key: &'a str, list: &List<'_>) {
        let writer = |place: usize| list.writers[&list.order[place]].txn;
        for next in 1..list.order.len() {
            let item = Some((key, list.order[next]));
            self.add(writer(next - 1), writer(next), Reason::WriteWrite, item);
        }
        for &(reader, seen) in &list.reads {
            if let Some(last) = seen.checked_sub(1) {
                let item = Some((key, list.order[last]));
                self.add(writer(last), reader, Reason::WriteRead, item);
            }
            if let Some(next) = list.order.get(seen) {
                self.add(reader, writer(seen), Reason::ReadWrite, Some((key, *next)));
            }
        }
    }

    /// What was appended for sure, and no read shows, was appended after the last version that one does. Sure is what
    /// was acknowledged, and what belongs to a transaction of which reads show another part.
    fn unseen(&mut self, txns: &[Txn], shown: &HashSet<usize>, key: &'a str, list: &List<'_>) {
        let ended = |place: usize| {
            let unknown = shown.contains(&place).then_some(TimeNs::MAX);
            txns[place].ended_ns().or(unknown)
        };
        let mut unseen: Vec<(TimeNs, u64, usize)> = list
            .writers
            .iter()
            .filter(|(value, _)| !list.place.contains_key(value))
            .filter_map(|(value, append)| Some((ended(append.txn)?, *value, append.txn)))
            .collect();
        unseen.sort_unstable();
        if list.reads.is_empty() {
            return;
        }
        if let Some(last) = list.order.last() {
            let last = list.writers[last].txn;
            for (_, value, writer) in &unseen {
                self.add(last, *writer, Reason::WriteWrite, Some((key, *value)));
            }
        }
        for &(reader, seen) in &list.reads {
            if seen == list.order.len() {
                for (_, value, writer) in unseen.iter().take(UNSEEN_MAX) {
                    self.add(reader, *writer, Reason::ReadWrite, Some((key, *value)));
                }
            }
        }
    }

    fn processes(&mut self, txns: &[Txn]) {
        let mut by_time: Vec<_> = (0..txns.len()).collect();
        by_time.sort_by_key(|place| txns[*place].invoked_ns);
        let mut last: HashMap<u64, usize> = HashMap::new();
        for place in by_time {
            // One that failed comes before nothing; one that never ended is the last of its process.
            if txns[place].outcome == Outcome::Fail {
                continue;
            }
            if let Some(before) = last.insert(txns[place].process, place) {
                self.add(before, place, Reason::Process, None);
            }
        }
    }

    /// The order of real time, reduced: an edge that follows from others is left out, so that each transaction has
    /// about as many as there are clients.
    fn real_time(&mut self, txns: &[Txn]) {
        let mut instants: Vec<(TimeNs, bool, usize)> = Vec::new();
        for (place, txn) in txns.iter().enumerate() {
            if txn.outcome != Outcome::Fail {
                // At the same instant, invocations come first: then neither is known to be before the other.
                instants.push((txn.invoked_ns, false, place));
                instants.extend(txn.ended_ns().map(|ended| (ended, true, place)));
            }
        }
        instants.sort_unstable();
        // Those that ended, and after which nothing began that ended as well.
        let mut frontier: BTreeSet<usize> = BTreeSet::new();
        let mut before: HashMap<usize, Vec<usize>> = HashMap::new();
        for (_, ended, place) in instants {
            if ended {
                for implied in before.remove(&place).unwrap_or_default() {
                    frontier.remove(&implied);
                }
                frontier.insert(place);
            } else {
                for earlier in &frontier {
                    self.add(*earlier, place, Reason::RealTime, None);
                }
                if txns[place].ended_ns().is_some() {
                    before.insert(place, frontier.iter().copied().collect());
                }
            }
        }
    }
}
