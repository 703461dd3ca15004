//! The past: a base and the journal after it.
//!
//! The state is the fold of all events. Where the journal was compacted, its beginning is gone; what it folded to stays
//! as the **base**: the rows of an earlier revision, under the prefix [`keys::BASE`]. So at any time
//!
//! ```text
//! state  =  base + the events after it
//! ```
//!
//! and the state as of any revision from the base on is the base with the events up to that revision folded in.
//! [`fold`] does that step by step; who keeps what it yields, and where, is the caller's: the base itself moves forward
//! behind the floor of the journal, and a copy of the store becomes an earlier state.
//!
//! Rows of the base are no part of the state: every node moves its own in its own time, and [`crate::hash`] leaves them
//! out. A state that was folded holds the rows of the domains, feature level and retention, and a clock at its revision;
//! it has no journal, no replies and no measure of the journal.

use crate::apply;
use crate::ids::Revision;
use crate::journal;
use crate::keys::{self, after_prefix};
use crate::ports::PastError;
use crate::store::{Changes, Fault, MemoryStore, Order, View, Visit};
use crate::system;
use crate::txn::Txn;
use std::ops::ControlFlow;

/// The base below a state, as a view of its own.
pub struct Base<'a>(pub &'a dyn View);

fn based(key: &[u8]) -> Vec<u8> {
    [&[keys::BASE], key].concat()
}

impl View for Base<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.0.get(&based(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
        let to = match to {
            [] => after_prefix(&[keys::BASE]),
            to => based(to),
        };
        self.0.scan(&based(from), &to, order, &mut |key, value| {
            visit(&key[1..], value)
        })
    }
}

/// Changes to a folded state as changes to the store that has it as its base.
pub fn to_base(changes: Changes) -> Changes {
    changes
        .into_iter()
        .map(|(key, change)| (based(&key), change))
        .collect()
}

/// The revision of the base: everything up to it is in it.
pub fn base_revision(view: &dyn View) -> Result<Revision, Fault> {
    Ok(system::clock(&Base(view))?.revision)
}

/// The oldest revision that can be read: the state just before the events that are kept.
pub fn oldest(view: &dyn View) -> Result<Revision, Fault> {
    let floor = system::gate(view)?.journal_floor;
    Ok(Revision(floor.0.saturating_sub(1)))
}

/// Whether `at` is within the history that `view` has; the same answer on every node that has applied as much.
pub fn check(view: &dyn View, at: Revision, head: Revision) -> Result<Result<(), PastError>, Fault> {
    let oldest = oldest(view)?;
    Ok(if at < oldest {
        Err(PastError::Compacted { at, oldest })
    } else if at > head {
        Err(PastError::Future { at, head })
    } else {
        Ok(())
    })
}

/// Whether nothing happened after `at`, so that the state is still the one as of then.
pub fn is_present(view: &dyn View, at: Revision) -> Result<bool, Fault> {
    Ok(journal::first_from(view, Revision(at.0.saturating_add(1)))?.is_none())
}

/// One step of a fold.
#[derive(Debug, Default)]
pub struct Folded {
    /// What it changes in the state that is folded into.
    pub changes: Changes,
    /// The events were folded up to here.
    pub reached: Revision,
    /// How many revisions were folded.
    pub records: usize,
    /// The bytes of their events: about what the state grows by at most.
    pub bytes: usize,
}

/// The bytes of events after which a step ends early.
const STEP_BYTES_MAX: usize = 8 << 20;

/// Folds the events after `state`, which `journal` has, up to `to`: at most `records_max` revisions of them. The step
/// is the last where it reached `to`.
pub fn fold(state: &dyn View, journal: &dyn View, to: Revision, records_max: usize) -> Result<Folded, Fault> {
    let mut clock = system::clock(state)?;
    let mut txn = Txn::new(state);
    let mut folded = Folded {
        reached: to,
        ..Folded::default()
    };
    journal::visit(journal, clock.revision, to, |revision, record, length| {
        apply::replay(&mut txn, revision, &record)?;
        clock.now = clock.now.max(record.at);
        folded.records += 1;
        folded.bytes += length;
        if folded.records < records_max && folded.bytes < STEP_BYTES_MAX {
            return Ok(ControlFlow::Continue(()));
        }
        folded.reached = revision;
        Ok(ControlFlow::Break(()))
    })?;
    clock.revision = clock.revision.max(folded.reached);
    system::set_clock(&mut txn, &clock);
    folded.changes = txn.into_changes();
    Ok(folded)
}

/// The whole state as of `at`, in memory: for tests, and for stores that live there.
pub fn in_memory(view: &dyn View, at: Revision) -> Result<MemoryStore, Fault> {
    let mut past = MemoryStore::default();
    let mut rows = Changes::new();
    Base(view).scan(&[], &[], Order::Ascending, &mut |key, value| {
        rows.insert(key.to_vec(), Some(value.to_vec()));
        ControlFlow::Continue(())
    })?;
    past.write(rows);
    loop {
        let Folded { changes, reached, .. } = fold(&past, view, at, usize::MAX)?;
        past.write(changes);
        if reached >= at {
            return Ok(past);
        }
    }
}
