//! What goes of the log once a snapshot has it.
//!
//! What a member lacks that was away for a while is kept, so that a restart does not cost a copy of the state: as many
//! entries as are set, as long as they are in the last few segments of the log, and always some. Every node keeps them,
//! since any may lead next.
//!
//! openraft would purge by the number of entries behind each snapshot, whoever is being sent one meanwhile: a member that
//! takes longer to install one than the cluster to write those entries would need the next one as well, and the one
//! after it, for as long as writes go on. So it is told to purge nothing by itself, and is asked to here; what a member
//! will need after its snapshot is kept until it has caught up, within bounds.

use crate::engine::Engine;
use crate::room::Stage;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A member that lacks no more entries than these has caught up; and so many are kept however long they are, or however full
/// the disk is.
const NEAR_ENTRIES: u64 = 10_000;

/// What is kept for a member that a snapshot is sent to.
#[derive(Debug, Clone, Copy)]
struct Hold {
    /// The last entry of the snapshot: those behind it are what the member will need.
    index: u64,
    /// How large the snapshot is.
    bytes: u64,
    /// How much had been written of the log, in bytes, when it was begun.
    began: u64,
}

/// What this leader keeps of the log for members that take a snapshot.
#[derive(Default)]
pub(crate) struct Holds(Mutex<BTreeMap<u64, Hold>>);

/// How the log stands.
#[derive(Debug, Clone, Copy)]
struct LogState<'m> {
    last: u64,
    /// How much was written of it so far, in bytes.
    written: u64,
    /// Up to where each member is known to have it.
    matched: &'m BTreeMap<u64, Option<u64>>,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of so many bytes that ends at `index` is being sent to `target`.
    pub(crate) fn begin(&self, target: u64, index: u64, bytes: u64, written: u64) {
        let hold = Hold {
            index,
            bytes,
            began: written,
        };
        self.lock().insert(target, hold);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    /// The last entry that may be purged, if a member bounds that. Lets go of what is held for members that have caught up to
    /// within `keep` entries, are none any more, or for whom more would have to be kept than their snapshot is worth: its own
    /// size, at least `bytes_min`.
    fn floor(&self, log: LogState<'_>, keep: u64, bytes_min: u64) -> Option<u64> {
        let mut holds = self.lock();
        holds.retain(|member, hold| {
            let Some(matched) = log.matched.get(member) else {
                return false;
            };
            let outrun = log.written.saturating_sub(hold.began) > hold.bytes.max(bytes_min);
            if outrun {
                tracing::warn!(
                    member, snapshot_bytes = hold.bytes,
                    "the log is not kept any longer for a member that takes a snapshot: more was written meanwhile \
                     than the snapshot has, and it may need another one"
                );
            }
            hold.index = hold.index.max(matched.unwrap_or(0));
            let caught_up = matched.is_some_and(|matched| matched.saturating_add(keep) >= log.last);
            !outrun && !caught_up
        });
        holds.values().map(|hold| hold.index).min()
    }
}

impl Engine {
    /// Purges what a snapshot has of the log, but for the entries that are kept behind it and those that a member will
    /// need that is sent one; not where it was `asked` to already. Returns up to where it was asked to.
    pub(crate) async fn purge(&self, asked: u64) -> u64 {
        let upto = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let Some(snapshot) = metrics.snapshot.as_ref().map(|id| id.index) else {
                return asked;
            };
            let short = self.room.own().is_some_and(|own| own.stage > Stage::Enough);
            let near = self.snapshots.keep_entries.min(NEAR_ENTRIES);
            let least = snapshot.saturating_sub(near);
            let upto = if short {
                least
            } else {
                let most = snapshot.saturating_sub(self.snapshots.keep_entries);
                let start = self.log.start_of_kept(snapshot);
                most.max(start.saturating_sub(1)).min(least)
            };
            let floor = match &metrics.replication {
                Some(known) if !short => {
                    let matched = known
                        .iter()
                        .map(|(id, matched)| (*id, matched.map(|id| id.index)));
                    let log = LogState {
                        last: metrics.last_log_index.unwrap_or(0),
                        written: self.counters.log_synced_bytes.load(Relaxed),
                        matched: &matched.collect(),
                    };
                    self.peers.holds.floor(log, near, self.snapshots.log_bytes)
                }
                // Another one leads, or there is no room to keep anything.
                _ => {
                    self.peers.holds.clear();
                    None
                }
            };
            let purged = metrics.purged.as_ref().map_or(0, |id| id.index);
            let upto = upto.min(floor.unwrap_or(u64::MAX));
            if upto <= asked.max(purged) {
                return asked;
            }
            upto
        };
        // It fails when the node stops.
        let _ = self.raft.trigger().purge_log(upto).await;
        upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: u64 = 10;

    /// What `holds` keep when the log ends at `last`, so much of it was written, and member 4 has it up to `matched`.
    fn floor(holds: &Holds, last: u64, written: u64, matched: Option<u64>) -> Option<u64> {
        let matched = &BTreeMap::from([(2, Some(last)), (4, matched)]);
        let log = LogState {
            last,
            written,
            matched,
        };
        holds.floor(log, KEEP, 1000)
    }

    #[test]
    fn the_log_is_kept_until_the_member_has_caught_up() {
        let holds = Holds::default();
        assert_eq!(floor(&holds, 100, 0, None), None);
        holds.begin(4, 100, 50, 0);
        assert_eq!(floor(&holds, 500, 400, None), Some(100));
        assert_eq!(floor(&holds, 600, 500, Some(300)), Some(300), "as it catches up");
        assert_eq!(floor(&holds, 610, 510, Some(600)), None);
        assert_eq!(floor(&holds, 700, 600, Some(600)), None, "it lags as any other");
    }

    #[test]
    fn no_more_is_kept_than_the_snapshot_has() {
        let holds = Holds::default();
        holds.begin(4, 100, 5000, 10);
        assert_eq!(floor(&holds, 500, 5010, None), Some(100));
        assert_eq!(floor(&holds, 500, 5011, None), None);
        // A small one is worth `bytes_min`.
        holds.begin(4, 500, 1, 6000);
        assert_eq!(floor(&holds, 900, 7000, None), Some(500));
        assert_eq!(floor(&holds, 900, 7001, None), None);
    }

    #[test]
    fn nothing_is_kept_for_who_is_no_member() {
        let holds = Holds::default();
        holds.begin(5, 100, 50, 0);
        assert_eq!(floor(&holds, 500, 10, None), None);
    }
}
