//! How much of the journal is kept: settings, the measure of the journal, and what follows from both.
//!
//! Owns the retention settings, the size of the journal, and the marks in it that say how much lies before a revision.
//! Never lets go of anything by itself: the leader asks [`due`], proposes, and `decide` asks [`allowed`] again.
//!
//! The size is counted from the moment that feature level 2 is in force; what was written before counts as nothing.
//! Marks are [`MARK_BYTES`] apart, so sizes are as exact as that.

use crate::dump::Describe;
use crate::ids::{Millis, Revision};
use crate::journal;
use crate::keys;
use crate::store::{Fault, View};
use crate::system::{self, Refusal};
use crate::table::{Range, Table};
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// The feature level from which the journal is measured and retention can be set.
pub const FEATURE_LEVEL: u32 = 2;

/// The shortest age that can be asked for, in ms.
pub const AGE_MS_MIN: u64 = 1000;
/// The smallest size that can be asked for, in bytes.
pub const BYTES_MIN: u64 = 1 << 20;
/// How far marks are apart, in bytes.
pub const MARK_BYTES: u64 = 64 << 10;
/// The most marks that one compaction deletes; the next one takes what is left.
const MARKS_DELETED_MAX: usize = 65_536;

/// How much of the journal is kept. What is past either limit is let go of; with neither, everything stays.
///
/// So that a compaction is not an event of every second, the journal may run over a limit by a tenth: it is cut back to
/// `age_ms` once the oldest event is a tenth older, and to nine tenths of `bytes` once there is more than `bytes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Events at least this young stay, in ms of log time.
    pub age_ms: Option<u64>,
    /// About this much stays, in bytes as they are stored before compression.
    pub bytes: Option<u64>,
}

/// How large the journal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// What was ever appended, in bytes.
    pub appended: u64,
    /// What of it lies below the floor, in bytes.
    pub dropped: u64,
}

impl Size {
    /// What is kept, in bytes.
    pub fn kept(&self) -> u64 {
        self.appended.saturating_sub(self.dropped)
    }
}

/// How much was appended before the revision that is the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    appended: u64,
}

pub(crate) const RETENTION: Table<u8, Retention> = Table::new(keys::SYSTEM, "sys");
pub(crate) const SIZE: Table<u8, Size> = Table::new(keys::SYSTEM, "sys");
pub(crate) const RETENTION_KEY: u8 = 4;
pub(crate) const SIZE_KEY: u8 = 5;
const MARKS: Table<u64, Mark> = Table::new(keys::JOURNAL_MARKS, "journal_marks");
pub(crate) const TABLES: &[&dyn Describe] = &[&MARKS];

/// The settings in force.
pub fn settings(view: &dyn View) -> Result<Retention, Fault> {
    Ok(RETENTION.get(view, &RETENTION_KEY)?.unwrap_or_default())
}

/// How large the journal is; `None` while nobody measures.
pub fn size(view: &dyn View) -> Result<Option<Size>, Fault> {
    SIZE.get(view, &SIZE_KEY)
}

/// The settings that may be asked for.
pub(crate) fn check(retention: &Retention) -> Result<(), Refusal> {
    match *retention {
        Retention {
            age_ms: Some(age_ms), ..
        } if age_ms < AGE_MS_MIN => Err(Refusal::JournalAge {
            age_ms,
            min_ms: AGE_MS_MIN,
        }),
        Retention {
            bytes: Some(bytes), ..
        } if bytes < BYTES_MIN => Err(Refusal::JournalBytes {
            bytes,
            min: BYTES_MIN,
        }),
        _ => Ok(()),
    }
}

pub(crate) fn set(txn: &mut Txn<'_>, retention: &Retention) {
    RETENTION.put(txn, &RETENTION_KEY, retention);
}

/// Begins to measure.
pub(crate) fn begin(txn: &mut Txn<'_>) {
    SIZE.put(txn, &SIZE_KEY, &Size::default());
}

/// Takes note of a record of so many bytes.
pub(crate) fn count(txn: &mut Txn<'_>, revision: Revision, bytes: u64) -> Result<(), Fault> {
    let Some(mut size) = size(txn)? else {
        return Ok(());
    };
    let appended = size.appended;
    size.appended += bytes;
    if appended == 0 || appended / MARK_BYTES != size.appended / MARK_BYTES {
        MARKS.put(txn, &revision.0, &Mark { appended });
    }
    SIZE.put(txn, &SIZE_KEY, &size);
    Ok(())
}

/// Takes note of a new floor: what lies below it no longer counts.
pub(crate) fn drop_below(txn: &mut Txn<'_>, floor: Revision) -> Result<(), Fault> {
    let Some(mut size) = size(txn)? else {
        return Ok(());
    };
    let below = Range::all().below(&(floor.0 + 1));
    let Some((last, mark)) = MARKS.last(txn, &below)? else {
        return Ok(());
    };
    size.dropped = size.dropped.max(mark.appended);
    SIZE.put(txn, &SIZE_KEY, &size);
    let passed = MARKS.list(txn, &Range::all().below(&last), MARKS_DELETED_MAX)?;
    for (revision, _) in passed {
        MARKS.delete(txn, &revision);
    }
    Ok(())
}

/// The floor that the settings ask for at log time `now`, where the journal has run past a limit by a tenth.
pub fn due(view: &dyn View, now: Millis) -> Result<Option<Revision>, Fault> {
    let settings = settings(view)?;
    let floor = system::gate(view)?.journal_floor;
    let oldest = journal::first_from(view, floor)?;
    let too_old = match (settings.age_ms, &oldest) {
        (Some(age_ms), Some((_, record))) => now.since(record.at) > age_ms.saturating_add(age_ms / 10),
        _ => false,
    };
    let kept = size(view)?.unwrap_or_default().kept();
    let too_large = settings.bytes.is_some_and(|bytes| kept > bytes);
    if !too_old && !too_large {
        return Ok(None);
    }
    let allowed = allowed(view, now)?;
    Ok((allowed > floor).then_some(allowed))
}

/// The highest floor that the settings allow at log time `now`: nothing that they keep lies below it.
pub(crate) fn allowed(view: &dyn View, now: Millis) -> Result<Revision, Fault> {
    let settings = settings(view)?;
    let floor = system::gate(view)?.journal_floor;
    let mut allowed = floor;
    if let Some(age_ms) = settings.age_ms {
        let young = Millis(now.0.saturating_sub(age_ms));
        let first = first_where(view, floor, |view, at| {
            Ok(journal::first_from(view, at)?.map(|(revision, record)| (revision, record.at >= young)))
        })?;
        allowed = allowed.max(first);
    }
    let size = size(view)?.unwrap_or_default();
    if let Some(bytes) = settings.bytes
        && size.kept() > bytes
    {
        let keep = bytes - bytes / 10;
        let first = first_where(view, floor, |view, at| {
            let mark = MARKS.list(view, &Range::all().at_least(&at.0), 1)?.pop();
            Ok(mark.map(|(revision, mark)| (Revision(revision), size.appended - mark.appended <= keep)))
        })?;
        allowed = allowed.max(first);
    }
    Ok(allowed)
}

/// The first place in the journal from `floor` on that is to stay, where all that comes after such a place stays too.
/// `probe` looks at the first place at or after a revision, and says whether it stays. Where all go, it is past the end.
fn first_where(
    view: &dyn View,
    floor: Revision,
    probe: impl Fn(&dyn View, Revision) -> Result<Option<(Revision, bool)>, Fault>,
) -> Result<Revision, Fault> {
    // Every place below `low` goes; from `high` on, every place stays.
    let (mut low, mut high) = (floor.0, system::clock(view)?.revision.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match probe(view, Revision(middle))? {
            Some((place, false)) if place.0 < high => low = place.0 + 1,
            _ => high = middle,
        }
    }
    // Between places, the next one that stays.
    match probe(view, Revision(high))? {
        Some((place, true)) => Ok(place),
        _ => Ok(Revision(high)),
    }
}
