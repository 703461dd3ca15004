//! The search for an order of one key's operations.

use super::{Fate, Model, Op, OpOf};
use std::collections::HashMap;

/// What became of a search.
pub(super) enum Answer {
    /// There is an order.
    Linearizable,
    /// There is none.
    Stuck(Stuck),
    /// The budget was used up first.
    Exhausted,
}

/// Where a search came no further, by places in the operations that it was given.
pub(super) struct Stuck {
    /// The operation whose answer fits nowhere. Without that answer, and all that was answered after it, there is an
    /// order.
    pub op: usize,
    /// The longest order that the search found up to there.
    pub prefix: Vec<usize>,
    /// How many steps that took.
    depth: usize,
}

/// An end of an operation: where it begins, or where it was answered.
#[derive(Clone, Copy)]
enum Entry {
    Head,
    Invoked(usize),
    Completed(usize),
}

/// A doubly linked list over the places of an array, as in Knuth's dancing links: what is taken out can be put back
/// in the reverse order. Place 0 is the head, and the end.
struct Links {
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Links {
    fn new(length: usize) -> Self {
        Links {
            next: (1..=length).chain([0]).collect(),
            previous: [length].into_iter().chain(0..length).collect(),
        }
    }

    fn take_out(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn put_back(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }
}

/// Which operations were taken, a bit each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Bits(Box<[u64]>);

impl Bits {
    fn none(of: usize) -> Self {
        Bits(vec![0; of.div_ceil(64)].into())
    }

    fn flip(&mut self, place: usize) {
        self.0[place / 64] ^= 1 << (place % 64);
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] & 1 << (place % 64) != 0
    }

    fn within(&self, other: &Bits) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(mine, theirs)| mine & !theirs == 0)
    }
}

/// The operations in order of time: what was answered, with both ends, and what was not.
struct Timeline {
    entries: Vec<Entry>,
    links: Links,
    /// Of each operation with an answer, the place of its completion in `entries`.
    completion: Vec<usize>,
    /// The operations of unknown outcome, by invocation.
    unknown: Vec<usize>,
}

impl Timeline {
    fn new<K, I, O>(ops: &[&Op<K, I, O>]) -> Self {
        let mut ends = Vec::new();
        let mut unknown = Vec::new();
        for (place, op) in ops.iter().enumerate() {
            match &op.fate {
                Fate::Done { completed_ns, .. } => {
                    // At the same instant, invocations come first: nothing says which was first, so either may be.
                    ends.push((op.invoked_ns, false, place));
                    ends.push((*completed_ns, true, place));
                }
                Fate::Unknown => unknown.push(place),
                Fate::Failed => {}
            }
        }
        ends.sort_unstable();
        unknown.sort_by_key(|place| ops[*place].invoked_ns);
        let mut entries = vec![Entry::Head];
        let mut completion = vec![0; ops.len()];
        for (_, completed, place) in ends {
            if completed {
                completion[place] = entries.len();
                entries.push(Entry::Completed(place));
            } else {
                entries.push(Entry::Invoked(place));
            }
        }
        let links = Links::new(entries.len() - 1);
        Timeline {
            entries,
            links,
            completion,
            unknown,
        }
    }

    /// The first answer that is not in the order yet, as its place and its operation: whatever comes next was invoked
    /// before it.
    fn barrier(&self) -> Option<(usize, usize)> {
        let mut at = self.links.next[0];
        loop {
            match self.entries[at] {
                Entry::Head => return None,
                Entry::Completed(op) => return Some((at, op)),
                Entry::Invoked(_) => at = self.links.next[at],
            }
        }
    }

    /// The operations with an answer that may come next, each with the place of its invocation.
    fn open(&self) -> Vec<(usize, usize)> {
        let mut open = Vec::new();
        let mut at = self.links.next[0];
        while let Entry::Invoked(op) = self.entries[at] {
            open.push((at, op));
            at = self.links.next[at];
        }
        open
    }
}

/// A step that may be taken: an operation with an answer, after some whose outcome is unknown.
struct Step<S> {
    via: Vec<usize>,
    place: usize,
    op: usize,
    after: S,
}

/// Which steps of a node were looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    Nowhere,
    /// Those without operations of unknown outcome.
    Plain,
    Everywhere,
}

/// A state on the way.
struct Node<S> {
    state: S,
    /// The operations of unknown outcome that led to it.
    unknown: Bits,
    looked: Looked,
    /// The steps that were found and not taken yet, the best one last.
    steps: Vec<Step<S>>,
    /// The step that leads on to the next node.
    taken: Option<(Vec<usize>, usize, usize)>,
}

impl<S> Node<S> {
    fn new(state: S, unknown: Bits) -> Self {
        Node {
            state,
            unknown,
            looked: Looked::Nowhere,
            steps: Vec::new(),
            taken: None,
        }
    }
}

/// For a state with the answered operations in it: the least sets of others that were tried with it.
type Tried<S> = HashMap<(S, Bits), Vec<Bits>>;

struct Search<'a, M: Model, K> {
    model: &'a M,
    ops: &'a [&'a OpOf<M, K>],
    timeline: Timeline,
    answered: Bits,
    nodes: Vec<Node<M::State>>,
    tried: Tried<M::State>,
    /// How many states were looked at, and how many may be.
    looked_at: usize,
    budget: usize,
}

/// Looks for an order of `ops`, none of which failed.
pub(super) fn search<M: Model, K>(model: &M, ops: &[&OpOf<M, K>], budget: usize) -> Answer {
    let mut search = Search {
        model,
        ops,
        timeline: Timeline::new(ops),
        answered: Bits::none(ops.len()),
        nodes: vec![Node::new(model.initial(), Bits::none(ops.len()))],
        tried: HashMap::new(),
        looked_at: 0,
        budget,
    };
    search.run()
}

impl<M: Model, K> Search<'_, M, K> {
    fn run(&mut self) -> Answer {
        let mut furthest: Option<(usize, Stuck)> = None;
        loop {
            let Some((barrier, blocked)) = self.timeline.barrier() else {
                return Answer::Linearizable;
            };
            if let Some(step) = self.next(blocked) {
                self.take(step);
                continue;
            }
            if self.looked_at > self.budget {
                return Answer::Exhausted;
            }
            let further = furthest
                .as_ref()
                .is_none_or(|(before, stuck)| (barrier, self.nodes.len()) > (*before, stuck.depth));
            if further {
                let prefix = self.prefix();
                let depth = self.nodes.len();
                furthest = Some((
                    barrier,
                    Stuck {
                        op: blocked,
                        prefix,
                        depth,
                    },
                ));
            }
            if !self.take_back() {
                let (_, stuck) = furthest.expect("set in this round at the latest");
                return Answer::Stuck(stuck);
            }
        }
    }

    /// The next step from here that leads to something new.
    fn next(&mut self, blocked: usize) -> Option<Step<M::State>> {
        loop {
            let node = self.nodes.last_mut().expect("there is the first one");
            if let Some(step) = node.steps.pop() {
                if self.is_new(&step) {
                    return Some(step);
                }
                continue;
            }
            match node.looked {
                Looked::Nowhere => self.look_plain(),
                Looked::Plain => self.look_everywhere(blocked),
                Looked::Everywhere => return None,
            }
        }
    }

    /// Looks for steps without operations of unknown outcome.
    fn look_plain(&mut self) {
        let node = self.nodes.last().expect("there is the first one");
        let mut steps = Vec::new();
        let mut looked = Looked::Plain;
        for (place, op) in self.open() {
            self.looked_at += 1;
            let Some(after) = self.step(&node.state, op) else {
                continue;
            };
            // What only reads may as well be next: wherever it comes later, it can come now instead.
            let only_reads = self.only_reads(op);
            let step = Step {
                via: Vec::new(),
                place,
                op,
                after,
            };
            if only_reads {
                looked = Looked::Everywhere;
                steps = vec![step];
                break;
            }
            steps.push(step);
        }
        steps.reverse();
        self.found(looked, steps);
    }

    /// Looks for steps after some operations of unknown outcome: first one of them, then two, and so on, as long as that
    /// leads to states that fewer do not lead to.
    fn look_everywhere(&mut self, blocked: usize) {
        let node = self.nodes.last().expect("there is the first one");
        let barrier_ns = ended(self.ops[blocked]);
        let unknown = self.timeline.unknown.iter().copied();
        let unknown: Vec<usize> = unknown
            .take_while(|op| self.ops[*op].invoked_ns <= barrier_ns)
            .filter(|op| !node.unknown.has(*op))
            .collect();
        let mut states = vec![(node.state.clone(), Vec::new())];
        let mut sets: HashMap<M::State, Vec<Bits>> = HashMap::new();
        sets.insert(node.state.clone(), vec![Bits::none(self.ops.len())]);
        let mut next = 0;
        while let Some((state, via)) = states.get(next).cloned() {
            if self.looked_at > self.budget {
                break;
            }
            next += 1;
            let hidden = |op: usize| !via.is_empty() && self.model.hides(&self.ops[op].input);
            for op in unknown.iter().filter(|op| !via.contains(*op) && !hidden(**op)) {
                self.looked_at += 1;
                let Some(after) = self.step(&state, *op) else {
                    continue;
                };
                let mut via: Vec<usize> = via.clone();
                via.push(*op);
                let mut set = Bits::none(self.ops.len());
                via.iter().for_each(|op| set.flip(*op));
                let known = sets.entry(after.clone()).or_default();
                if !known.iter().any(|fewer| fewer.within(&set)) {
                    known.push(set);
                    states.push((after, via));
                }
            }
        }
        let mut steps = Vec::new();
        let open = self.open();
        for (state, via) in states.iter().skip(1) {
            for (place, op) in &open {
                self.looked_at += 1;
                steps.extend(self.step(state, *op).map(|after| Step {
                    via: via.clone(),
                    place: *place,
                    op: *op,
                    after,
                }));
            }
        }
        steps.reverse();
        self.found(Looked::Everywhere, steps);
    }

    /// The operations with an answer that may come next. Where answers say which is the first of them, only that.
    fn open(&self) -> Vec<(usize, usize)> {
        let mut open = self.timeline.open();
        let first = open.iter().filter_map(|(_, op)| self.place(*op)).min();
        open.retain(|(_, op)| self.place(*op).is_none_or(|place| Some(place) == first));
        open
    }

    fn place(&self, op: usize) -> Option<u64> {
        match &self.ops[op].fate {
            Fate::Done { output, .. } => self.model.place(output),
            Fate::Failed | Fate::Unknown => None,
        }
    }

    fn found(&mut self, looked: Looked, steps: Vec<Step<M::State>>) {
        let node = self.nodes.last_mut().expect("there is the first one");
        node.looked = looked;
        node.steps = steps;
    }

    fn step(&self, state: &M::State, op: usize) -> Option<M::State> {
        let op = self.ops[op];
        let output = match &op.fate {
            Fate::Done { output, .. } => Some(output),
            Fate::Failed | Fate::Unknown => None,
        };
        self.model.step(state, &op.input, output)
    }

    fn only_reads(&self, op: usize) -> bool {
        let op = self.ops[op];
        match &op.fate {
            Fate::Done { output, .. } => self.model.only_reads(&op.input, output),
            Fate::Failed | Fate::Unknown => false,
        }
    }

    /// Remembers the state after a step, unless one that is as good was tried.
    fn is_new(&mut self, step: &Step<M::State>) -> bool {
        let mut answered = self.answered.clone();
        answered.flip(step.op);
        let unknown = self.unknown_after(&step.via);
        let tried = self.tried.entry((step.after.clone(), answered)).or_default();
        if tried.iter().any(|before| before.within(&unknown)) {
            return false;
        }
        tried.retain(|before| !unknown.within(before));
        tried.push(unknown);
        true
    }

    fn unknown_after(&self, via: &[usize]) -> Bits {
        let node = self.nodes.last().expect("there is the first one");
        let mut unknown = node.unknown.clone();
        via.iter().for_each(|op| unknown.flip(*op));
        unknown
    }

    fn take(&mut self, step: Step<M::State>) {
        let Step {
            via,
            place,
            op,
            after,
        } = step;
        self.timeline.links.take_out(place);
        self.timeline.links.take_out(self.timeline.completion[op]);
        self.answered.flip(op);
        let unknown = self.unknown_after(&via);
        let node = self.nodes.last_mut().expect("there is the first one");
        node.taken = Some((via, place, op));
        self.nodes.push(Node::new(after, unknown));
    }

    /// Undoes the last step, if there is one.
    fn take_back(&mut self) -> bool {
        self.nodes.pop();
        let Some((_, place, op)) = self.nodes.last_mut().and_then(|node| node.taken.take()) else {
            return false;
        };
        self.timeline.links.put_back(self.timeline.completion[op]);
        self.timeline.links.put_back(place);
        self.answered.flip(op);
        true
    }

    /// The order so far.
    fn prefix(&self) -> Vec<usize> {
        let taken = self.nodes.iter().filter_map(|node| node.taken.as_ref());
        taken
            .flat_map(|(via, _, op)| via.iter().copied().chain([*op]))
            .collect()
    }
}

fn ended<K, I, O>(op: &Op<K, I, O>) -> u64 {
    match op.fate {
        Fate::Done { completed_ns, .. } => completed_ns,
        Fate::Failed | Fate::Unknown => u64::MAX,
    }
}
