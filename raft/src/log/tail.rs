//! What the log holds, in RAM: its bounds, the vote, and the newest entries.
//!
//! The cache is always the end of the log without a gap, and at least everything that the writer has not written yet:
//! so an entry is readable as soon as `append` returns, and replication and apply rarely touch the disk.

use super::record;
use crate::types::{Entry, LogId, Vote};
use std::collections::VecDeque;
use std::ops::Range;

/// How much of the end of the log is kept in RAM, in bytes of records.
const CACHE_BYTES_MAX: usize = 32 << 20;

#[derive(Default)]
pub(crate) struct Tail {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// Whether `committed` is newer than what the writer last wrote.
    pub(crate) committed_dirty: bool,
    pub(crate) purged: Option<LogId>,
    /// The first index of a log that was never purged.
    first: u64,
    pub(crate) last: Option<LogId>,
    /// Counts truncations, so that a reader notices one.
    pub(crate) truncations: u64,
    /// The last index that is on the disk.
    written: u64,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
}

impl Tail {
    pub(crate) fn new(recovered: &super::disk::Recovered) -> Self {
        Tail {
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            first: recovered.first,
            last: recovered.last,
            written: recovered.last.map_or(0, |id| id.index),
            ..Tail::default()
        }
    }

    /// The indices that the log holds.
    pub(crate) fn bounds(&self) -> Range<u64> {
        let first = self.purged.map_or(self.first, |id| id.index + 1);
        first..self.last.map_or(0, |id| id.index + 1).max(first)
    }

    /// Where the cache begins; the end of the log when it is empty.
    pub(crate) fn cached_from(&self) -> u64 {
        self.cache
            .front()
            .map_or_else(|| self.bounds().end, |entry| entry.log_id.index)
    }

    /// Clones the cached entries of `range`, at most `bytes_max`, though never less than one.
    pub(crate) fn cached(&self, range: Range<u64>, bytes_max: usize) -> Vec<Entry> {
        let from = self.cached_from();
        let at = |index: u64| (index.max(from) - from) as usize;
        let mut bytes = 0;
        self.cache
            .range(at(range.start)..at(range.end).min(self.cache.len()))
            .enumerate()
            .take_while(|(position, entry)| {
                bytes += record::size(entry);
                *position == 0 || bytes <= bytes_max
            })
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// Takes entries in behind the last one.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            debug_assert!(self.last.is_none_or(|last| last.index + 1 == entry.log_id.index));
            if self.last.is_none() {
                self.first = entry.log_id.index;
            }
            self.last = Some(entry.log_id);
            self.cache_bytes += record::size(entry);
            self.cache.push_back(entry.clone());
        }
    }

    /// Forgets all entries behind `last`; returns how often that was done by now.
    pub(crate) fn truncate(&mut self, last: Option<LogId>) -> u64 {
        let from = last.map_or(0, |id| id.index + 1);
        while self.cache.back().is_some_and(|entry| entry.log_id.index >= from) {
            if let Some(entry) = self.cache.pop_back() {
                self.cache_bytes -= record::size(&entry);
            }
        }
        self.truncations += 1;
        self.written = self.written.min(from.saturating_sub(1));
        self.last = self.last.min(last).max(self.purged);
        self.truncations
    }

    /// Forgets all entries up to `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
        self.evict(|entry, _| entry.log_id.index <= upto.index);
    }

    /// The writer wrote everything up to `index`, unless it was truncated since.
    pub(crate) fn wrote(&mut self, index: u64, truncations: u64) {
        if truncations == self.truncations {
            self.written = self.written.max(index);
        }
        let written = self.written;
        self.evict(|entry, bytes| bytes > CACHE_BYTES_MAX && entry.log_id.index <= written);
    }

    fn evict(&mut self, doomed: impl Fn(&Entry, usize) -> bool) {
        while let Some(entry) = self.cache.front()
            && doomed(entry, self.cache_bytes)
        {
            self.cache_bytes -= record::size(entry);
            self.cache.pop_front();
        }
    }
}
