//! Cycles: which there are, and what they are called.

use super::graph::{Edge, Graph, Reason};
use std::collections::{HashMap, HashSet, VecDeque};

/// How many edges of a tangle are tried for a short cycle through them.
const TRIES_MAX: usize = 100;
/// How many tangles are looked into: a system that makes more of them has been found out.
const TANGLES_MAX: usize = 1000;

/// Transactions of which each comes before the next, and the last before the first.
#[derive(Debug, Clone)]
pub(super) struct Cycle<'a> {
    /// Each transaction, by place, with the edge to the next.
    pub steps: Vec<(usize, Edge<'a>)>,
}

impl Cycle<'_> {
    /// What it is called.
    pub(super) fn kind(&self) -> &'static str {
        let count = |reason| {
            self.steps
                .iter()
                .filter(|(_, edge)| edge.reason == reason)
                .count()
        };
        let real_time = count(Reason::RealTime) > 0;
        let process = count(Reason::Process) > 0;
        let names = match (count(Reason::ReadWrite), count(Reason::WriteRead)) {
            (0, 0) => ["G0", "G0-process", "G0-realtime"],
            (0, _) => ["G1c", "G1c-process", "G1c-realtime"],
            (1, _) => ["G-single", "G-single-process", "G-single-realtime"],
            _ => ["G2-item", "G2-item-process", "G2-item-realtime"],
        };
        match (process, real_time) {
            (_, true) => names[2],
            (true, false) => names[1],
            (false, false) => names[0],
        }
    }
}

/// A kind of cycle: it has at least one edge of `through` (any, if there is none), and all others are of `along`.
struct Shape {
    through: Option<Reason>,
    along: &'static [Reason],
}

use Reason::{Process, ReadWrite, RealTime, WriteRead, WriteWrite};

/// From the worst to the weakest.
const SHAPES: [Shape; 4] = [
    Shape {
        through: None,
        along: &[WriteWrite],
    },
    Shape {
        through: Some(WriteRead),
        along: &[WriteWrite, WriteRead],
    },
    Shape {
        through: Some(ReadWrite),
        along: &[WriteWrite, WriteRead],
    },
    Shape {
        through: Some(ReadWrite),
        along: &[WriteWrite, WriteRead, ReadWrite],
    },
];

/// What else may be in a cycle: first nothing, then what is demanded of processes, then of real time.
const ORDERS: [&[Reason]; 3] = [&[], &[Process], &[Process, RealTime]];

/// The worst cycle of each tangle.
pub(super) fn find<'a>(graph: &Graph<'a>) -> Vec<Cycle<'a>> {
    let mut cycles: Vec<Cycle<'a>> = Vec::new();
    for order in ORDERS {
        let all = |reason| reason <= ReadWrite || order.contains(&reason);
        let tangles = tangles(graph, all);
        if tangles.is_empty() {
            continue;
        }
        for shape in &SHAPES {
            let along = |reason| shape.along.contains(&reason) || order.contains(&reason);
            for tangle in &tangles {
                let known = |cycle: &Cycle<'_>| cycle.steps.iter().all(|(txn, _)| tangle.contains(txn));
                if cycles.iter().any(known) {
                    continue;
                }
                cycles.extend(shortest(graph, tangle, shape.through, along));
            }
        }
    }
    cycles
}

/// The shortest cycle, of those that were tried, that goes along `along`, but for one edge of `through`.
fn shortest<'a>(
    graph: &Graph<'a>,
    tangle: &HashSet<usize>,
    through: Option<Reason>,
    along: impl Fn(Reason) -> bool + Copy,
) -> Option<Cycle<'a>> {
    // Only what is in a cycle with the edge counts: for most shapes that leaves little of the tangle.
    let narrowed = |reason| along(reason) || Some(reason) == through;
    let mut best: Option<Cycle<'a>> = None;
    for inner in tangles_within(graph, tangle, narrowed) {
        let mut members: Vec<_> = inner.iter().copied().collect();
        members.sort_unstable();
        let firsts = members.iter().flat_map(|from| {
            let inside = graph.edges[*from].iter().filter(|edge| inner.contains(&edge.to));
            let wanted = inside.filter(|edge| match through {
                None => along(edge.reason),
                Some(reason) => edge.reason == reason,
            });
            wanted.map(|edge| (*from, *edge))
        });
        for (from, first) in firsts.take(TRIES_MAX) {
            let longest = best.as_ref().map_or(usize::MAX, |cycle| cycle.steps.len() - 1);
            if let Some(rest) = path(graph, &inner, first.to, from, longest, along) {
                let steps = [(from, first)].into_iter().chain(rest).collect();
                best = Some(Cycle { steps });
            }
        }
    }
    best
}

/// The shortest way from one transaction to another, of fewer than `longest` steps.
fn path<'a>(
    graph: &Graph<'a>,
    inside: &HashSet<usize>,
    from: usize,
    to: usize,
    longest: usize,
    along: impl Fn(Reason) -> bool,
) -> Option<Vec<(usize, Edge<'a>)>> {
    let mut reached: HashMap<usize, Option<(usize, Edge<'a>)>> = HashMap::from([(from, None)]);
    let mut queue = VecDeque::from([(from, 0)]);
    while let Some((at, steps)) = queue.pop_front() {
        if at == to {
            let mut way = Vec::new();
            let mut last = to;
            while let Some((before, edge)) = reached[&last] {
                way.push((before, edge));
                last = before;
            }
            way.reverse();
            return Some(way);
        }
        if steps + 1 >= longest {
            continue;
        }
        for edge in &graph.edges[at] {
            if along(edge.reason) && inside.contains(&edge.to) && !reached.contains_key(&edge.to) {
                reached.insert(edge.to, Some((at, *edge)));
                queue.push_back((edge.to, steps + 1));
            }
        }
    }
    None
}

fn tangles(graph: &Graph<'_>, along: impl Fn(Reason) -> bool + Copy) -> Vec<HashSet<usize>> {
    let mut tangles = components(graph, 0..graph.edges.len(), |_| true, along);
    tangles.truncate(TANGLES_MAX);
    tangles
}

fn tangles_within(
    graph: &Graph<'_>,
    tangle: &HashSet<usize>,
    along: impl Fn(Reason) -> bool + Copy,
) -> Vec<HashSet<usize>> {
    let mut members: Vec<_> = tangle.iter().copied().collect();
    members.sort_unstable();
    components(graph, members, |txn| tangle.contains(&txn), along)
}

/// Where Tarjan's search stands with a transaction.
#[derive(Clone, Copy)]
struct Visit {
    number: usize,
    lowest: usize,
    on_stack: bool,
}

/// The strongly connected components of more than one member, after Tarjan (1972), without recursion.
fn components(
    graph: &Graph<'_>,
    members: impl IntoIterator<Item = usize>,
    inside: impl Fn(usize) -> bool,
    along: impl Fn(Reason) -> bool,
) -> Vec<HashSet<usize>> {
    let mut visits: HashMap<usize, Visit> = HashMap::new();
    let mut stack: Vec<usize> = Vec::new();
    let mut found = Vec::new();
    for root in members {
        if visits.contains_key(&root) {
            continue;
        }
        // Each transaction under way, with the edge to look at next.
        let mut work: Vec<(usize, usize)> = vec![(root, 0)];
        while let Some((at, next)) = work.pop() {
            let number = visits.len();
            let visit = *visits.entry(at).or_insert_with(|| {
                stack.push(at);
                Visit {
                    number,
                    lowest: number,
                    on_stack: true,
                }
            });
            if let Some(edge) = graph.edges[at].get(next) {
                work.push((at, next + 1));
                if along(edge.reason) && inside(edge.to) {
                    match visits.get(&edge.to) {
                        None => work.push((edge.to, 0)),
                        Some(&Visit {
                            number,
                            on_stack: true,
                            ..
                        }) => lower(&mut visits, at, number),
                        Some(_) => {}
                    }
                }
                continue;
            }
            if visit.lowest == visit.number {
                let start = stack.iter().rposition(|member| *member == at);
                let component = stack.split_off(start.expect("it is on the stack"));
                for member in &component {
                    visits.get_mut(member).expect("it was visited").on_stack = false;
                }
                if component.len() > 1 {
                    found.push(component.into_iter().collect());
                }
            }
            if let Some((parent, _)) = work.last() {
                lower(&mut visits, *parent, visit.lowest);
            }
        }
    }
    found
}

fn lower(visits: &mut HashMap<usize, Visit>, at: usize, to: usize) {
    let visit = visits.get_mut(&at).expect("it is under way");
    visit.lowest = visit.lowest.min(to);
}
