//! Duplicate replies: a command that arrives again is answered as it was the first time, and not done again.
//!
//! Ids are UUIDs version 7, so the table is ordered by the time of the id. Ids older than [`WINDOW_MS`] against log
//! time are refused, and their rows swept: the table is bounded by log time, and no duplicate is ever missed.

use crate::command::Outcome;
use crate::dump::Describe;
use crate::ids::{CommandId, Millis};
use crate::keys;
use crate::store::{Fault, View};
use crate::system::{Clock, Refusal};
use crate::table::{Range, Table};
use crate::txn::Txn;

/// How long a duplicate is recognised, in ms of log time.
pub const WINDOW_MS: u64 = 15 * 60 * 1000;

/// The most rows that one entry sweeps.
const SWEEP_ROWS_MAX: usize = 65_536;

const REPLIES: Table<u128, Outcome> = Table::new(keys::REPLIES, "replies");
pub(crate) const TABLES: &[&dyn Describe] = &[&REPLIES];

/// The outcome of an earlier proposal under this id.
pub(crate) fn find(view: &dyn View, id: CommandId) -> Result<Option<Outcome>, Fault> {
    REPLIES.get(view, &id.0.as_u128())
}

/// The key of the row that [`find`] reads.
pub(crate) fn key(id: CommandId) -> Vec<u8> {
    REPLIES.key(&id.0.as_u128())
}

/// Whether the id is young enough that a duplicate of it would be recognised.
pub(crate) fn check(id: CommandId, now: Millis) -> Result<(), Refusal> {
    let made = id.time().ok_or(Refusal::CommandIdVersion { id })?;
    let age_ms = now.since(made);
    if age_ms >= WINDOW_MS {
        return Err(Refusal::CommandIdStale {
            id,
            age_ms,
            window_ms: WINDOW_MS,
        });
    }
    Ok(())
}

pub(crate) fn keep(txn: &mut Txn<'_>, id: CommandId, outcome: &Outcome) {
    REPLIES.put(txn, &id.0.as_u128(), outcome);
}

/// The reply that is new in `txn`, as it is stored.
pub(crate) fn written<'t>(txn: &'t Txn<'_>, id: CommandId) -> Option<(Vec<u8>, &'t [u8])> {
    REPLIES.written(txn, &id.0.as_u128())
}

/// Lets go of rows that [`check`] would refuse anyway, once for each second of log time.
pub(crate) fn sweep(txn: &mut Txn<'_>, clock: &mut Clock) -> Result<(), Fault> {
    let bound = Millis(clock.now.0.saturating_sub(WINDOW_MS) / 1000 * 1000);
    if bound <= clock.replies_swept {
        return Ok(());
    }
    let first_of = |ms: Millis| u128::from(ms.0) << 80;
    let range = Range::all()
        .at_least(&first_of(clock.replies_swept))
        .below(&first_of(bound));
    let rows = REPLIES.list(txn, &range, SWEEP_ROWS_MAX)?;
    clock.replies_swept = match rows.last() {
        Some((last, _)) if rows.len() == SWEEP_ROWS_MAX => Millis((last >> 80) as u64),
        _ => bound,
    };
    for (id, _) in &rows {
        REPLIES.delete(txn, id);
    }
    Ok(())
}
