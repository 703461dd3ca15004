//! The log store: entries and the vote, durable before they are acknowledged.
//!
//! # Group commit
//! [`append`](openraft::storage::RaftLogStorage::append) puts the entries into the RAM [`tail`], where they are
//! readable at once, and queues them. One [`writer`] thread drains the queue, writes all of it as one batch with one
//! sync, and completes the callbacks in order: batches form by themselves while a sync is under way, without a timer.
//! Votes go through the same queue, so that neither overtakes the other. Truncation and purge need no sync of their
//! own: what a crash brings back was uncommitted, or is deleted again.
//!
//! # What a crash takes
//! Nothing that was acknowledged. Unsynced entries may be gone or cut anywhere: they were acknowledged to no one. A
//! damaged or forgetful disk is noticed by each record's checksum and by the durable [`watermark`].
//!
//! A write or sync that fails stops the process; it is never retried.

pub(crate) mod disk;
pub(crate) mod former;
mod index;
pub(crate) mod record;
mod replay;
mod segment;
pub(crate) mod stored;
mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod watermark;
mod writer;

use crate::catch_up::CatchingUp;
use crate::counters::Counters;
use crate::host::Host;
use crate::types::{Entry, EntryPayload, LogId, TypeConfig, Vote};
use disk::{LogDisk, ReadLog, Recovered};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stored::other;
use tail::Tail;
use tokio::sync::oneshot;
use tokio::time::Instant;
use watermark::{Mark, Watermark};
use writer::{Op, Writer};

/// The most bytes of entries that one message to a peer carries, save for a single larger entry.
const READ_BYTES_MAX: usize = 4 << 20;

/// What to do about a log that is not what it was.
const ADVICE: &str = "this node may no longer vote: wipe its data directory and let it join again under a new node id with \
                      `onward serve --join HOST:PORT`";

/// Why a log is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Entries or a vote that this node acknowledged are gone.
    #[error("{0}")]
    Forgot(String),
}

/// The log store. Clones share one log.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
}

struct Shared {
    disk: LogDisk,
    /// Only consensus changes it, by one call after the other. Let go of before the writer is woken, which takes it first of
    /// all.
    tail: Mutex<Tail>,
    counters: Arc<Counters>,
    catching_up: Arc<CatchingUp>,
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore {
    /// Opens the log in `dir`, which holds the segments in `log/` and the watermark.
    pub(crate) fn open(dir: &Path, host: &Host, counters: Arc<Counters>) -> Result<Self, OpenError> {
        let watermark = Watermark::open(&*host.files, &dir.join("watermark"))?;
        former::convert(&host.files, dir, host.log)?;
        let disk =
            LogDisk::open(&host.files, &dir.join("log"), host.log).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => OpenError::Forgot(format!("{error}; {ADVICE}")),
                _ => error.into(),
            })?;
        LogStore::over(disk, watermark, counters)
    }

    fn over(disk: LogDisk, watermark: Watermark, counters: Arc<Counters>) -> Result<Self, OpenError> {
        let mut recovered = disk.recover()?;
        recovered.committed = committed_here(&recovered);
        check_watermark(&disk, &recovered, watermark.mark())?;
        let shared = Arc::new(Shared {
            disk,
            tail: Mutex::new(Tail::new(&recovered)),
            counters,
            catching_up: Arc::default(),
        });
        let writer = Arc::new(Writer::start(shared.clone(), watermark)?);
        Ok(LogStore { shared, writer })
    }

    /// The first index that is still in the log.
    pub(crate) fn first_index(&self) -> u64 {
        self.shared.tail().bounds().start
    }

    /// Who is sent a part of this log at a pace.
    pub(crate) fn catching_up(&self) -> Arc<CatchingUp> {
        self.shared.catching_up.clone()
    }

    /// The last entry, durable or not.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.shared.tail().last
    }

    /// Cuts off the end of a log that goes another way than the state, which is of `applied`: entries of an earlier leader in
    /// places that a later one has filled. What replaced them was applied, since a majority of others had it, before it was
    /// durable here, and a power loss took it. openraft takes such an end for damage, and one that is shorter for what it is.
    pub(crate) fn follow(&self, applied: Option<LogId>) -> io::Result<()> {
        let (last, bounds, purged) = {
            let tail = self.shared.tail();
            (tail.last, tail.bounds(), tail.purged)
        };
        let (Some(applied), Some(last)) = (applied, last) else {
            return Ok(());
        };
        if last >= applied || last.index < applied.index {
            return Ok(());
        }
        let before = match applied.index.checked_sub(1) {
            Some(index) if bounds.contains(&index) => {
                let entries = self.read(index..index + 1, usize::MAX)?;
                entries.first().map(|entry| entry.log_id)
            }
            _ => purged,
        };
        tracing::warn!(
            applied = name(Some(applied)),
            log = name(Some(last)),
            kept = name(before),
            "a power loss took the end of the log, and what it was to replace is cut off"
        );
        let truncations = self.shared.tail().truncate(before);
        self.writer.queue(Op::Truncate(before, truncations));
        Ok(())
    }

    /// Whether the last vote that is on record is for a leader that was elected, and is not `me`.
    pub(crate) fn follows_another(&self, me: u64) -> bool {
        let vote = self.shared.tail().vote;
        vote.is_some_and(|vote| vote.committed && vote.leader_id.node_id != me)
    }

    /// Where the last few whole segments before the entry `index` begin.
    pub(crate) fn start_of_kept(&self, index: u64) -> u64 {
        self.shared.disk.start_of_kept(index)
    }

    /// Drops the files that hold nothing but purged entries.
    pub(crate) fn reclaim(&self) -> io::Result<()> {
        self.shared.disk.reclaim()
    }

    /// Writes and syncs what is queued, and ends the writer. Nothing may be appended afterwards.
    pub(crate) async fn end(&self) -> io::Result<()> {
        self.writer.clone().end().await
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let (on_disk, mut cached, truncations) = {
                let tail = self.shared.tail();
                let bounds = tail.bounds();
                let range = range.start.max(bounds.start)..range.end.min(bounds.end);
                if range.is_empty() {
                    return Ok(Vec::new());
                }
                let cached_from = tail.cached_from();
                if range.start >= cached_from {
                    return Ok(tail.cached(range, bytes_max));
                }
                let on_disk = range.start..range.end.min(cached_from);
                // Behind a gap of the disk's part nothing cached may follow, so with a bound it is left out.
                let cached = if bytes_max == usize::MAX && range.end > cached_from {
                    tail.cached(cached_from..range.end, usize::MAX)
                } else {
                    Vec::new()
                };
                (on_disk, cached, tail.truncations)
            };
            let mut entries = self.shared.disk.read(on_disk.start, on_disk.end, bytes_max)?;
            let tail = self.shared.tail();
            if tail.truncations != truncations {
                continue;
            }
            let first = on_disk.start.max(tail.bounds().start);
            drop(tail);
            entries.retain(|entry| entry.log_id.index >= first);
            if !reaches(&entries, &(first..on_disk.end), bytes_max == usize::MAX) {
                return Err(other(format!(
                    "the log has a hole between {first} and {}",
                    on_disk.end
                )));
            }
            entries.append(&mut cached);
            return Ok(entries);
        }
    }
}

/// Whether `entries` begin where `range` does, have no gap and, if all of it was asked for, go up to its end.
fn reaches(entries: &[Entry], range: &Range<u64>, whole: bool) -> bool {
    let in_order = entries
        .iter()
        .zip(range.start..)
        .all(|(entry, index)| entry.log_id.index == index);
    let count = entries.len() as u64;
    let wanted = range.end.saturating_sub(range.start);
    in_order && (count == wanted || (!whole && (1..wanted).contains(&count)))
}

/// What of the log is known to be committed. The note of it may be of entries that are not here, as releases before wrote it
/// ahead of them: of the same leader, all that is here is committed too; of another, nobody knows where it begins to differ.
fn committed_here(recovered: &Recovered) -> Option<LogId> {
    let (committed, last) = (recovered.committed?, recovered.last?);
    if committed <= last {
        Some(committed)
    } else {
        (committed.leader_id == last.leader_id).then_some(last)
    }
}

pub(crate) fn check_watermark(
    disk: &dyn ReadLog,
    recovered: &Recovered,
    mark: Mark,
) -> Result<(), OpenError> {
    if recovered.last < mark.last {
        return Err(OpenError::Forgot(format!(
            "the log ends at {}, but was durable up to {}: entries that this node acknowledged are gone; {ADVICE}",
            name(recovered.last),
            name(mark.last)
        )));
    }
    let forgot_vote = match (&recovered.vote, &mark.vote) {
        (Some(vote), Some(mark)) => vote < mark,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    if forgot_vote {
        return Err(OpenError::Forgot(format!(
            "the vote {:?} is older than the durable vote {:?}; {ADVICE}",
            recovered.vote, mark.vote
        )));
    }
    let purged = recovered.purged.map_or(0, |id| id.index);
    if let Some(last) = mark.last
        && last.index > purged
    {
        let there = disk.read(last.index, last.index + 1, usize::MAX)?;
        if there.first().map(|entry| entry.log_id) != Some(last) {
            return Err(OpenError::Forgot(format!(
                "entry {} is missing though it was durable; {ADVICE}",
                name(mark.last)
            )));
        }
    }
    Ok(())
}

pub(crate) fn name(id: Option<LogId>) -> String {
    id.map_or_else(
        || "nothing".to_owned(),
        |id| {
            format!(
                "{} (term {}, node {})",
                id.index, id.leader_id.term, id.leader_id.node_id
            )
        },
    )
}

fn indices(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.read(indices(&range), usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries_max = self.shared.catching_up.request_entries_max(Instant::now());
        self.read(start..end.min(start.saturating_add(entries_max)), READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.tail().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.shared.tail();
        Ok(LogState {
            last_purged_log_id: tail.purged,
            last_log_id: tail.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.writer.queue(Op::Vote(*vote, done));
        durable.await.map_err(|_| other("the log is closed"))?;
        self.shared.tail().vote = Some(*vote);
        Ok(())
    }

    /// Rides along with the next write, which may be one of earlier entries: it spares a wait after a restart.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut tail = self.shared.tail();
        tail.committed = committed;
        tail.committed_dirty = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries: Vec<Entry> = entries.into_iter().collect();
        let now = Instant::now();
        for entry in &mut entries {
            if let EntryPayload::Normal(payload) = &mut entry.payload {
                payload.passed.appended = Some(now);
                if let Some(proposed) = payload.passed.proposed {
                    self.shared.counters.steps.queue.count(now - proposed);
                }
            }
        }
        self.shared.tail().append(&entries);
        self.writer.queue(Op::Append(entries, callback, now));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let truncations = self.shared.tail().truncate(last);
        self.writer.queue(Op::Truncate(last, truncations));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.tail().purge(upto);
        self.writer.queue(Op::Purge(upto));
        Ok(())
    }
}
