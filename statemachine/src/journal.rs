//! The journal: every event at (revision, ordinal), with who demanded it and when. It outlives the Raft log.

use crate::command::Event;
use crate::dump::Describe;
use crate::ids::{Actor, CommandId, Millis, Revision};
use crate::keys;
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

pub(crate) fn append(txn: &mut Txn<'_>, revision: Revision, record: &Record) {
    JOURNAL.put(txn, &revision.0, record);
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

/// Reads the records after `after`: at most `records_max` of those that `wanted` lets through, looking at no more than
/// `scan_max`, so that one call stays short however long the journal is.
pub fn read(
    view: &dyn View,
    after: Revision,
    records_max: usize,
    scan_max: usize,
    mut wanted: impl FnMut(&Record) -> bool,
) -> Result<Result<Page, Compacted>, Fault> {
    let floor = system::gate(view)?.journal_floor;
    if after.0 + 1 < floor.0 {
        return Ok(Err(Compacted { floor, after }));
    }
    let mut page = Page {
        records: Vec::new(),
        scanned: after,
        complete: true,
    };
    let mut scanned = 0;
    JOURNAL.scan(
        view,
        &Range::all().at_least(&(after.0 + 1)),
        Order::Ascending,
        |revision, record| {
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
        },
    )?;
    if page.complete {
        page.scanned = page.scanned.max(system::clock(view)?.revision);
    }
    Ok(Ok(page))
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
