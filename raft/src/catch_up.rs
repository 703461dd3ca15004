//! Followers that took a snapshot, and the pace at which they are sent what was written meanwhile.
//!
//! Sent as fast as they take it, it keeps their processors busy and the leader with reading it: on machines that have
//! other things to do, writes wait. A fixed pace might be slower than what is written, so it doubles every four seconds.
//! Who lacks less than a snapshot may be needed for a majority soon, and is sent everything at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The pace at first.
const ENTRIES_PER_SECOND: u64 = 25_000;
/// After which it doubles.
const DOUBLING: Duration = Duration::from_secs(4);
/// Twice as much so often is more than anybody can send.
const DOUBLED_MAX: u64 = 16;
/// The most entries of one request meanwhile: it is read and put together on the thread of consensus.
const REQUEST_ENTRIES_MAX: u64 = 256;
/// For so long there is a pace at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// The followers that are sent what they lack at a pace, and since when.
#[derive(Default)]
pub(crate) struct CatchingUp(Mutex<BTreeMap<u64, Instant>>);

impl CatchingUp {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `follower` has installed a snapshot.
    pub(crate) fn begin(&self, follower: u64, now: Instant) {
        self.lock().insert(follower, now);
    }

    /// How many entries are read at most for one request, to whomever.
    pub(crate) fn request_entries_max(&self, now: Instant) -> u64 {
        let mut since = self.lock();
        since.retain(|_, since| now.duration_since(*since) < PATIENCE);
        if since.is_empty() {
            u64::MAX
        } else {
            REQUEST_ENTRIES_MAX
        }
    }
}

/// The pace of what is sent to one follower.
pub(crate) struct Pace {
    catching_up: Arc<CatchingUp>,
    follower: u64,
    due: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(catching_up: Arc<CatchingUp>, follower: u64) -> Self {
        Pace {
            catching_up,
            follower,
            due: None,
        }
    }

    /// When the next request may follow one that was sent just now with so many entries, behind which so many more are
    /// committed: at once if `None`. What is left for one request ends the pace; one that is not full does not, since
    /// openraft asks for the log in stretches, and the last request of each has what remains of it.
    pub(crate) fn next(&mut self, entries: u64, left: u64, now: Instant) -> Option<Instant> {
        if entries == 0 {
            return None;
        }
        let mut catching_up = self.catching_up.lock();
        let since = *catching_up.get(&self.follower)?;
        if left < REQUEST_ENTRIES_MAX {
            catching_up.remove(&self.follower);
            return None;
        }
        let doubled = (now.duration_since(since).as_secs() / DOUBLING.as_secs()).min(DOUBLED_MAX);
        let takes = Duration::from_nanos(entries * 1_000_000_000 / (ENTRIES_PER_SECOND << doubled));
        let due = self.due.map_or(now, |due| due.max(now)) + takes;
        self.due = Some(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOWER: u64 = 3;
    const MANY: u64 = 1 << 20;

    fn pace() -> (Arc<CatchingUp>, Pace) {
        let catching_up = Arc::<CatchingUp>::default();
        (catching_up.clone(), Pace::new(catching_up, FOLLOWER))
    }

    #[test]
    fn who_took_a_snapshot_is_sent_twice_as_much_every_four_seconds() {
        let ((catching_up, mut pace), mut now) = (pace(), Instant::now());
        catching_up.begin(FOLLOWER, now);
        for doubled in 0..4 {
            let until = now + DOUBLING;
            let due = (ENTRIES_PER_SECOND << doubled) * DOUBLING.as_secs();
            let mut sent = 0;
            while now < until {
                // As at the end of what openraft asked for in one go.
                for entries in [REQUEST_ENTRIES_MAX, 3] {
                    now = pace.next(entries, MANY, now).expect("a pace");
                    sent += entries;
                }
            }
            assert!(
                (due - due / 10..due + due / 10).contains(&sent),
                "{sent} in the time of {due}"
            );
        }
        // Heartbeats say nothing; what fits in one more request is the end.
        assert_eq!(pace.next(0, 0, now), None);
        assert_eq!(catching_up.request_entries_max(now), REQUEST_ENTRIES_MAX);
        assert_eq!(pace.next(REQUEST_ENTRIES_MAX, REQUEST_ENTRIES_MAX - 1, now), None);
        assert_eq!(pace.next(REQUEST_ENTRIES_MAX, MANY, now), None);
        assert_eq!(catching_up.request_entries_max(now), u64::MAX);
    }

    #[test]
    fn who_took_none_is_not_waited_for_and_nobody_for_ever() {
        let ((catching_up, mut pace), now) = (pace(), Instant::now());
        catching_up.begin(FOLLOWER + 1, now);
        assert_eq!(pace.next(REQUEST_ENTRIES_MAX, MANY, now), None);
        // One that never came back.
        assert_eq!(catching_up.request_entries_max(now + PATIENCE), u64::MAX);
    }
}
