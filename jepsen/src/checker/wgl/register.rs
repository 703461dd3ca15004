//! Registers: a value that is read, written, taken away, and compared and set.
//!
//! [`Register`] knows of values alone. [`Versioned`] also holds the system to its revisions: of a write, the one that
//! it made; of a read, the one at which what it found was written, and the one of the whole state that it saw.

use super::{Fate, Model, Op};
use crate::history::TimeNs;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

/// A demand on a register. A value of `None` is none: the key does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input<V> {
    /// What is there?
    Read,
    /// Let this be there.
    Write(Option<V>),
    /// Let `to` be there, provided that `from` is.
    CompareAndSet {
        /// What must be there.
        from: Option<V>,
        /// What is to be there.
        to: Option<V>,
    },
    /// Let `to` be there, provided that what is there was written at this revision, 0 for nothing. Only
    /// [`Versioned`] can tell.
    CompareRevision {
        /// The revision.
        modified: u64,
        /// What is to be there.
        to: Option<V>,
    },
}

/// What a [`Register`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output<V> {
    /// This is there.
    Read(Option<V>),
    /// Done.
    Written,
    /// Done, or not because something else was there.
    Compared(bool),
}

/// A register that does not exist at first.
#[derive(Debug, Clone, Copy)]
pub struct Register<V>(PhantomData<V>);

impl<V> Default for Register<V> {
    fn default() -> Self {
        Register(PhantomData)
    }
}

impl<V: Clone + Eq + Hash + Debug> Model for Register<V> {
    type State = Option<V>;
    type Input = Input<V>;
    type Output = Output<V>;

    fn initial(&self) -> Option<V> {
        None
    }

    fn step(&self, state: &Option<V>, input: &Input<V>, output: Option<&Output<V>>) -> Option<Option<V>> {
        match (input, output) {
            (Input::Read, None) => Some(state.clone()),
            (Input::Read, Some(Output::Read(value))) => (value == state).then(|| state.clone()),
            (Input::Write(value), None | Some(Output::Written)) => Some(value.clone()),
            (Input::CompareAndSet { from, to }, output) => {
                let next = if from == state { to } else { state };
                match output {
                    None => Some(next.clone()),
                    Some(Output::Compared(done)) => (*done == (from == state)).then(|| next.clone()),
                    Some(_) => None,
                }
            }
            _ => None,
        }
    }

    fn only_reads(&self, _: &Input<V>, output: &Output<V>) -> bool {
        matches!(output, Output::Read(_) | Output::Compared(false))
    }

    fn hides(&self, input: &Input<V>) -> bool {
        matches!(input, Input::Write(_))
    }
}

/// What a [`Versioned`] register answers. `at` is the revision of the whole state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stamped<V> {
    /// What is there, with the revision at which it was written.
    Read {
        /// The state that was read.
        at: u64,
        /// What was found.
        found: Option<(u64, V)>,
    },
    /// Done, in this revision.
    Written {
        /// Which.
        at: u64,
    },
    /// Done in this revision, or found in it that something else was there.
    Compared {
        /// Which.
        at: u64,
        /// Whether it was done.
        done: bool,
    },
}

/// A register whose revisions only rise.
#[derive(Debug, Clone, Copy)]
pub struct Versioned<V>(PhantomData<V>);

impl<V> Default for Versioned<V> {
    fn default() -> Self {
        Versioned(PhantomData)
    }
}

/// What a [`Versioned`] register has come to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version<V> {
    /// What is there.
    pub value: Option<V>,
    /// The revision of the last write; `None` where no answer told it yet.
    pub modified: Option<u64>,
    /// The last write has at least this revision; what was answered after it tells nothing of that.
    pub since: u64,
    /// The state is at least this old: no write from now on has this revision.
    pub at_least: u64,
}

impl<V: Clone + Eq + Hash + Debug> Model for Versioned<V> {
    type State = Version<V>;
    type Input = Input<V>;
    type Output = Stamped<V>;

    fn initial(&self) -> Version<V> {
        Version {
            value: None,
            modified: Some(0),
            since: 0,
            at_least: 0,
        }
    }

    fn step(&self, state: &Version<V>, input: &Input<V>, output: Option<&Stamped<V>>) -> Option<Version<V>> {
        match (input, output) {
            (Input::Read, None) => Some(state.clone()),
            (Input::Read, Some(Stamped::Read { at, found })) => state.read(*at, found.as_ref()),
            (Input::Write(value), None) => Some(state.written(value, None)),
            (Input::Write(value), Some(Stamped::Written { at })) => state.writes(value, *at),
            (Input::CompareAndSet { from, to }, output) => state.compares(*from == state.value, to, output),
            (Input::CompareRevision { modified, to }, output) => {
                let matches = match (state.modified, &state.value) {
                    (_, None) => *modified == 0,
                    (Some(written), Some(_)) => written == *modified,
                    // Not told yet: it may be any that has not passed before.
                    (None, Some(_)) => match output {
                        Some(Stamped::Compared { done, .. }) if *modified >= state.since => *done,
                        Some(_) => false,
                        None => *modified >= state.since,
                    },
                };
                match state.modified {
                    None if matches => state.told(*modified).compares(matches, to, output),
                    _ => state.compares(matches, to, output),
                }
            }
            _ => None,
        }
    }

    /// The revision; in one revision, what was written comes before what was read.
    fn place(&self, output: &Stamped<V>) -> Option<u64> {
        Some(match output {
            Stamped::Written { at } | Stamped::Compared { at, done: true } => 2 * at,
            Stamped::Read { at, .. } | Stamped::Compared { at, done: false } => 2 * at + 1,
        })
    }

    fn hides(&self, input: &Input<V>) -> bool {
        matches!(input, Input::Write(_))
    }
}

/// Where somebody found a value in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting<K, V> {
    /// In which register.
    pub key: K,
    /// What.
    pub value: V,
    /// The revision at which it was written.
    pub modified: u64,
    /// When it was known.
    pub at_ns: TimeNs,
}

/// A write of unknown outcome whose value somebody found took place, at the revision that was found with it, and before
/// it was found: this is written into its fate. No value may be written twice.
pub fn settle<K: Ord, V: Clone + Ord>(
    ops: &mut [Op<K, Input<V>, Stamped<V>>],
    sightings: impl IntoIterator<Item = Sighting<K, V>>,
) {
    let mut first: BTreeMap<K, BTreeMap<V, (TimeNs, u64)>> = BTreeMap::new();
    for Sighting {
        key,
        value,
        modified,
        at_ns,
    } in sightings
    {
        let seen = first
            .entry(key)
            .or_default()
            .entry(value)
            .or_insert((at_ns, modified));
        *seen = (at_ns, modified).min(*seen);
    }
    for op in ops.iter_mut().filter(|op| matches!(op.fate, Fate::Unknown)) {
        let (Input::Write(Some(to))
        | Input::CompareAndSet { to: Some(to), .. }
        | Input::CompareRevision { to: Some(to), .. }) = &op.input
        else {
            continue;
        };
        let Some((seen_ns, at)) = first.get(&op.key).and_then(|values| values.get(to)).copied() else {
            continue;
        };
        let output = match op.input {
            Input::Write(_) => Stamped::Written { at },
            _ => Stamped::Compared { at, done: true },
        };
        op.fate = Fate::Done {
            // Of one that was found before it was asked for, the search says that it fits nowhere.
            completed_ns: seen_ns.max(op.invoked_ns),
            output,
        };
    }
}

impl<V: Clone + Eq> Version<V> {
    /// What a write leaves; one of unknown revision took at least the next.
    fn written(&self, value: &Option<V>, at: Option<u64>) -> Self {
        let since = at.unwrap_or(self.at_least + 1);
        Version {
            value: value.clone(),
            modified: at,
            since,
            at_least: since,
        }
    }

    /// The same, where the revision of the last write turns out to be this.
    fn told(&self, modified: u64) -> Self {
        Version {
            value: self.value.clone(),
            modified: Some(modified),
            since: modified,
            at_least: modified.max(self.at_least),
        }
    }

    fn writes(&self, value: &Option<V>, at: u64) -> Option<Self> {
        (at > self.at_least).then(|| self.written(value, Some(at)))
    }

    fn read(&self, at: u64, found: Option<&(u64, V)>) -> Option<Self> {
        if at < self.at_least || found.map(|(_, value)| value) != self.value.as_ref() {
            return None;
        }
        let modified = match (found, self.modified) {
            (None, known) => known,
            (Some((told, _)), Some(known)) if *told == known => Some(known),
            (Some((told, _)), None) if (self.since..=at).contains(told) => Some(*told),
            (Some(_), _) => return None,
        };
        Some(Version {
            value: self.value.clone(),
            modified,
            since: modified.unwrap_or(self.since),
            at_least: at,
        })
    }

    fn compares(&self, matches: bool, to: &Option<V>, output: Option<&Stamped<V>>) -> Option<Self> {
        match output {
            None if matches => Some(self.written(to, None)),
            None => Some(self.clone()),
            Some(Stamped::Compared { at, done: true }) if matches => self.writes(to, *at),
            Some(Stamped::Compared { at, done: false }) if !matches && *at >= self.at_least => {
                Some(Version {
                    at_least: *at,
                    ..self.clone()
                })
            }
            Some(_) => None,
        }
    }
}
