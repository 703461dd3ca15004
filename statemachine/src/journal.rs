//! The journal: every event at (revision, ordinal), with who demanded it and when. It outlives the Raft log.

use crate::command::Event;
use crate::dump::Describe;
use crate::ids::{Actor, CommandId, Millis, Revision};
use crate::keys::{self, Key};
use crate::retention;
use crate::store::{Fault, Order, View};
use crate::system;
use crate::table::{Range, Table};
use crate::txn::Txn;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// All events of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Log time.
    pub at: Millis,
    /// Who demanded it.
    pub actor: Actor,
    /// Which demand it was.
    pub command_id: CommandId,
    /// In order; an event's ordinal is its place.
    pub events: Vec<Event>,
}

const JOURNAL: Table<u64, Record> = Table::new(keys::JOURNAL, "journal");
pub(crate) const TABLES: &[&dyn Describe] = &[&JOURNAL];

/// The journal no longer reaches back to where a reader wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal was compacted: events begin at revision {floor}, after {after} was asked for")]
pub struct Compacted {
    /// The first revision that is kept.
    pub floor: Revision,
    /// What was asked for.
    pub after: Revision,
}

pub(crate) fn append(txn: &mut Txn<'_>, revision: Revision, record: &Record) -> Result<(), Fault> {
    let bytes = JOURNAL.put_counted(txn, &revision.0, record);
    retention::count(txn, revision, bytes)
}

/// What the entry at `revision` added, as it is stored.
pub(crate) fn written<'t>(txn: &'t Txn<'_>, revision: Revision) -> Option<(Vec<u8>, &'t [u8])> {
    JOURNAL.written(txn, &revision.0)
}

/// One page of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order of revision.
    pub records: Vec<(Revision, Record)>,
    /// Where to go on: everything up to here was looked at.
    pub scanned: Revision,
    /// Whether the end of the journal was reached.
    pub complete: bool,
}

impl Page {
    /// The records of `range` that `wanted` lets through, until there are `records_max` of them or `scan_max` were looked
    /// at. `scanned` is the last one that was; revision 0 where there was none.
    fn of(
        view: &dyn View,
        range: &Range,
        order: Order,
        (records_max, scan_max): (usize, usize),
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Result<Page, Fault> {
        let mut page = Page {
            records: Vec::new(),
            scanned: Revision(0),
            complete: true,
        };
        let mut scanned = 0;
        JOURNAL.scan(view, range, order, |revision, record| {
            page.scanned = Revision(revision);
            scanned += 1;
            if wanted(&record) {
                page.records.push((Revision(revision), record));
            }
            if page.records.len() >= records_max || scanned >= scan_max {
                page.complete = false;
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(page)
    }
}

/// Reads the records after `after`: at most `records_max` of those that `wanted` lets through, looking at no more than
/// `scan_max`, so that one call stays short however long the journal is.
pub fn read(
    view: &dyn View,
    after: Revision,
    records_max: usize,
    scan_max: usize,
    wanted: impl FnMut(&Record) -> bool,
) -> Result<Result<Page, Compacted>, Fault> {
    let floor = system::gate(view)?.journal_floor;
    if after.0 + 1 < floor.0 {
        return Ok(Err(Compacted { floor, after }));
    }
    let range = Range::all().at_least(&(after.0 + 1));
    let mut page = Page::of(view, &range, Order::Ascending, (records_max, scan_max), wanted)?;
    page.scanned = page.scanned.max(after);
    if page.complete {
        page.scanned = page.scanned.max(system::clock(view)?.revision);
    }
    Ok(Ok(page))
}

/// Reads backwards: at most `records_max` of those records before `before` and from `first` on that `wanted` lets
/// through, newest first, looking at no more than `scan_max`. `scanned` of the page is the `before` to go on with; the
/// page is complete where it reached `first`, or the floor, below which there may have been more.
pub fn read_back(
    view: &dyn View,
    before: Revision,
    first: Revision,
    records_max: usize,
    scan_max: usize,
    wanted: impl FnMut(&Record) -> bool,
) -> Result<Page, Fault> {
    let floor = system::gate(view)?.journal_floor;
    let first = first.max(floor);
    let range = Range::all().at_least(&first.0).below(&before.0);
    let mut page = Page::of(view, &range, Order::Descending, (records_max, scan_max), wanted)?;
    if page.complete {
        page.scanned = first;
    }
    Ok(page)
}

/// The first record at or after `revision`.
pub fn first_from(view: &dyn View, revision: Revision) -> Result<Option<(Revision, Record)>, Fault> {
    let mut rows = JOURNAL.list(view, &Range::all().at_least(&revision.0), 1)?;
    Ok(rows.pop().map(|(revision, record)| (Revision(revision), record)))
}

/// Visits the records after `after` up to and including `to`, each with its length in bytes, in order, until `visit`
/// breaks. What [`read`] is for readers this is for those who fold: it does not look at the floor.
pub(crate) fn visit(
    view: &dyn View,
    after: Revision,
    to: Revision,
    mut visit: impl FnMut(Revision, Record, usize) -> Result<ControlFlow<()>, Fault>,
) -> Result<(), Fault> {
    let key = |revision: u64| [&[keys::JOURNAL][..], &revision.to_be_bytes()].concat();
    let (from, to) = (key(after.0 + 1), key(to.0.saturating_add(1)));
    let mut fault = None;
    view.scan(&from, &to, Order::Ascending, &mut |mut key, value| {
        key = &key[1..];
        let step = u64::decode(&mut key)
            .and_then(|revision| visit(Revision(revision), JOURNAL.row(value)?, value.len()));
        step.unwrap_or_else(|error| {
            fault = Some(error);
            ControlFlow::Break(())
        })
    })?;
    fault.map_or(Ok(()), Err)
}

/// The record of exactly this revision.
pub fn at(view: &dyn View, revision: Revision) -> Result<Option<Record>, Fault> {
    JOURNAL.get(view, &revision.0)
}

/// The encoded keys of the journal below `floor`, for a store that lets go of them in one range delete.
pub fn range_below(floor: Revision) -> (Vec<u8>, Vec<u8>) {
    (
        vec![keys::JOURNAL],
        [&[keys::JOURNAL][..], &floor.0.to_be_bytes()].concat(),
    )
}
