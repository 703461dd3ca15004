//! Linearizability, key by key: the search of Wing and Gong (1993) with the memory of Lowe (2017).
//!
//! It looks for an order of a key's operations that the sequential [`Model`] allows and that keeps real time: what
//! ended before another began comes first. An operation of unknown outcome may take place at any time after it was
//! invoked, or never. Operations that failed are left out.
//!
//! The search goes depth first and on a stack of its own. What it remembers of a dead end is the state and which
//! operations were in it; of two dead ends that differ only in operations of unknown outcome, the one that used up
//! fewer of them stands for both, because whatever follows from the other follows from it too. Operations of unknown
//! outcome are tried last, as few as lead to a state: mostly, they never took place. What only reads is taken as soon
//! as it is allowed, because it can be moved there from wherever it comes later. Where answers say in which order they
//! were given, as revisions do, no other order is tried.
//!
//! Limits: the problem is NP-complete, so a search ends after a budget of states, undecided.

mod explain;
pub mod register;
mod search;
#[cfg(test)]
mod tests;

use super::Findings;
use crate::history::TimeNs;
use search::Answer;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;

/// The states of a key that are looked at before its search gives up. A run of good histories needs about one for
/// each operation.
pub const BUDGET: usize = 2_000_000;

/// What one key is, were there only one client.
pub trait Model {
    /// All that the past of a key comes to.
    type State: Clone + Eq + Hash + Debug;
    /// What is asked.
    type Input: Debug;
    /// What is answered.
    type Output: Debug;

    /// Before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `input`, if it may answer `output` in `state`. `output` is missing where the outcome is unknown;
    /// then this is what it would do if it took place now.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether `input`, answered so, leaves every state as it is, as a read does. It makes searches shorter to say so.
    fn only_reads(&self, _input: &Self::Input, _output: &Self::Output) -> bool {
        false
    }

    /// Where the answer says that its operation stands among all others: of two, the one with the lower place comes
    /// first in every order that there is.
    fn place(&self, _output: &Self::Output) -> Option<u64> {
        None
    }

    /// Whether `input` of unknown outcome hides what was before it, so that nobody can tell whether another operation of
    /// unknown outcome took place right before it.
    fn hides(&self, _input: &Self::Input) -> bool {
        false
    }
}

/// An operation on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op<K, I, O> {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// Whose.
    pub process: u64,
    /// On what.
    pub key: K,
    /// What was asked.
    pub input: I,
    /// When.
    pub invoked_ns: TimeNs,
    /// What became of it.
    pub fate: Fate<O>,
}

/// An operation on a key that is what `M` says.
pub type OpOf<M, K> = Op<K, <M as Model>::Input, <M as Model>::Output>;

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate<O> {
    /// It took place.
    Done {
        /// When that was known.
        completed_ns: TimeNs,
        /// What was answered.
        output: O,
    },
    /// It did not take place, and never will.
    Failed,
    /// It may have taken place, may yet, or may never.
    Unknown,
}

/// Whether the operations on each key are linearizable, looking at no more than `budget` states a key.
pub fn check<M, K>(model: &M, ops: &[OpOf<M, K>], budget: usize) -> Findings
where
    M: Model,
    K: Ord + Debug,
{
    let mut keys: BTreeMap<&K, Vec<&OpOf<M, K>>> = BTreeMap::new();
    for op in ops.iter().filter(|op| !matches!(op.fate, Fate::Failed)) {
        keys.entry(&op.key).or_default().push(op);
    }
    let done = ops
        .iter()
        .filter(|op| matches!(op.fate, Fate::Done { .. }))
        .count();
    let unknown = ops.iter().filter(|op| matches!(op.fate, Fate::Unknown)).count();
    let looked_at = format!(
        "{done} operations on {} keys, and {unknown} of unknown outcome",
        keys.len()
    );
    let mut findings = Findings::new(looked_at, done);
    for (key, ops) in keys {
        match search::search(model, &ops, budget) {
            Answer::Linearizable => {}
            Answer::Stuck(stuck) => findings
                .violations
                .push(explain::violation(model, key, &ops, &stuck)),
            Answer::Exhausted => findings
                .undecided
                .push(format!("key {key:?}: no order found within {budget} states")),
        }
    }
    findings
}
