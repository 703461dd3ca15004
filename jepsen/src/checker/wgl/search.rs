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

    fn within(&self, other: &Bits) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .all(|(mine, theirs)| mine & !theirs == 0)
    }
}

/// The operations in order of time, in two lists: what was answered, with both ends, and what was not.
struct Timeline {
    entries: Vec<Entry>,
    links: Links,
    /// Of each operation with an answer, the place of its completion in `entries`.
    completion: Vec<usize>,
    /// The operations of unknown outcome, by invocation; place 0 stands for none.
    unknown: Vec<usize>,
    unknown_links: Links,
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
                Fate::Unknown => unknown.push((op.invoked_ns, place)),
                Fate::Failed => {}
            }
        }
        ends.sort_unstable();
        unknown.sort_unstable();
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
        let unknown_links = Links::new(unknown.len());
        Timeline {
            entries,
            links,
            completion,
            unknown: [0]
                .into_iter()
                .chain(unknown.into_iter().map(|(_, place)| place))
                .collect(),
            unknown_links,
        }
    }

    /// The first answer that is not in the order yet: whatever comes next was invoked before it.
    fn first_completion(&self) -> Option<(usize, usize)> {
        let mut at = self.links.next[0];
        loop {
            match self.entries[at] {
                Entry::Head => return None,
                Entry::Completed(op) => return Some((at, op)),
                Entry::Invoked(_) => at = self.links.next[at],
            }
        }
    }
}

/// Where to look for what comes next.
#[derive(Clone, Copy)]
enum Cursor {
    /// At this place of `entries`.
    Answered(usize),
    /// At this place of `unknown`.
    Unknown(usize),
}

/// A step that was taken: what it chose, and the state before it.
struct Taken<S> {
    cursor: Cursor,
    op: usize,
    before: S,
}

struct Search<'a, M: Model, K> {
    model: &'a M,
    ops: &'a [&'a OpOf<M, K>],
    timeline: Timeline,
    state: M::State,
    answered: Bits,
    unknown: Bits,
    stack: Vec<Taken<M::State>>,
    /// For a state with the answered operations in it: the least sets of others that were tried with it.
    tried: HashMap<(M::State, Bits), Vec<Bits>>,
}

/// Looks for an order of `ops`, none of which failed.
pub(super) fn search<M: Model, K>(model: &M, ops: &[&OpOf<M, K>], budget: usize) -> Answer {
    let mut search = Search {
        model,
        ops,
        timeline: Timeline::new(ops),
        state: model.initial(),
        answered: Bits::none(ops.len()),
        unknown: Bits::none(ops.len()),
        stack: Vec::new(),
        tried: HashMap::new(),
    };
    search.run(budget)
}

impl<M: Model, K> Search<'_, M, K> {
    fn run(&mut self, budget: usize) -> Answer {
        let mut looked_at = 0;
        let mut furthest: Option<(usize, Stuck)> = None;
        let mut cursor = Cursor::Answered(self.timeline.links.next[0]);
        loop {
            let Some((barrier, blocked)) = self.timeline.first_completion() else {
                return Answer::Linearizable;
            };
            if let Some((chosen, op, after)) = self.choose(cursor, barrier, &mut looked_at) {
                self.take(chosen, op, after);
                cursor = Cursor::Answered(self.timeline.links.next[0]);
                continue;
            }
            if looked_at > budget {
                return Answer::Exhausted;
            }
            let further = furthest
                .as_ref()
                .is_none_or(|(before, stuck)| (barrier, self.stack.len()) > (*before, stuck.prefix.len()));
            if further {
                let prefix = self.stack.iter().map(|taken| taken.op).collect();
                furthest = Some((barrier, Stuck { op: blocked, prefix }));
            }
            match self.take_back() {
                Some(next) => cursor = next,
                None => {
                    let (_, stuck) = furthest.expect("set in this round at the latest");
                    return Answer::Stuck(stuck);
                }
            }
        }
    }

    /// The next step from `cursor` on that the model allows and that was not tried before.
    fn choose(
        &mut self,
        mut cursor: Cursor,
        barrier: usize,
        looked_at: &mut usize,
    ) -> Option<(Cursor, usize, M::State)> {
        let barrier_ns = match self.timeline.entries[barrier] {
            Entry::Completed(op) => self.completed_ns(op),
            _ => unreachable!("the barrier is a completion"),
        };
        loop {
            let op = match cursor {
                Cursor::Answered(place) => match self.timeline.entries[place] {
                    Entry::Invoked(op) => op,
                    Entry::Completed(_) | Entry::Head => {
                        cursor = Cursor::Unknown(self.timeline.unknown_links.next[0]);
                        continue;
                    }
                },
                Cursor::Unknown(0) => return None,
                Cursor::Unknown(place) => {
                    let op = self.timeline.unknown[place];
                    if self.ops[op].invoked_ns > barrier_ns {
                        return None;
                    }
                    op
                }
            };
            *looked_at += 1;
            if let Some(after) = self.allowed(op)
                && self.is_new(cursor, op, &after)
            {
                return Some((cursor, op, after));
            }
            cursor = self.following(cursor);
        }
    }

    fn completed_ns(&self, op: usize) -> u64 {
        match self.ops[op].fate {
            Fate::Done { completed_ns, .. } => completed_ns,
            Fate::Failed | Fate::Unknown => u64::MAX,
        }
    }

    fn allowed(&self, op: usize) -> Option<M::State> {
        let op = self.ops[op];
        let output = match &op.fate {
            Fate::Done { output, .. } => Some(output),
            Fate::Failed | Fate::Unknown => None,
        };
        self.model.step(&self.state, &op.input, output)
    }

    fn following(&self, cursor: Cursor) -> Cursor {
        match cursor {
            Cursor::Answered(place) => Cursor::Answered(self.timeline.links.next[place]),
            Cursor::Unknown(place) => Cursor::Unknown(self.timeline.unknown_links.next[place]),
        }
    }

    /// Remembers the state after `op`, unless one that is as good was tried.
    fn is_new(&mut self, cursor: Cursor, op: usize, after: &M::State) -> bool {
        let (mut answered, mut unknown) = (self.answered.clone(), self.unknown.clone());
        match cursor {
            Cursor::Answered(_) => answered.flip(op),
            // Without an effect, it may as well not have taken place.
            Cursor::Unknown(_) if *after == self.state => return false,
            Cursor::Unknown(_) => unknown.flip(op),
        }
        let tried = self.tried.entry((after.clone(), answered)).or_default();
        if tried.iter().any(|before| before.within(&unknown)) {
            return false;
        }
        tried.retain(|before| !unknown.within(before));
        tried.push(unknown);
        true
    }

    fn take(&mut self, cursor: Cursor, op: usize, after: M::State) {
        let timeline = &mut self.timeline;
        match cursor {
            Cursor::Answered(place) => {
                timeline.links.take_out(place);
                timeline.links.take_out(timeline.completion[op]);
                self.answered.flip(op);
            }
            Cursor::Unknown(place) => {
                timeline.unknown_links.take_out(place);
                self.unknown.flip(op);
            }
        }
        let before = std::mem::replace(&mut self.state, after);
        self.stack.push(Taken { cursor, op, before });
    }

    /// Undoes the last step; where to go on looking. `None` where there is none to undo.
    fn take_back(&mut self) -> Option<Cursor> {
        let Taken { cursor, op, before } = self.stack.pop()?;
        let timeline = &mut self.timeline;
        match cursor {
            Cursor::Answered(place) => {
                timeline.links.put_back(timeline.completion[op]);
                timeline.links.put_back(place);
                self.answered.flip(op);
            }
            Cursor::Unknown(place) => {
                timeline.unknown_links.put_back(place);
                self.unknown.flip(op);
            }
        }
        self.state = before;
        Some(self.following(cursor))
    }
}
