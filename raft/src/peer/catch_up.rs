//! The pace at which a follower that is far behind is sent entries: gently at first, and faster the longer it takes.
//!
//! Sent as fast as it takes them, they keep its processors and its disk busy, and the leader with reading them: on machines
//! that have other things to do, writes wait meanwhile. A fixed pace might be slower than what is written. So it doubles.

use crate::config::APPEND_ENTRIES_MAX;
use std::time::Duration;
use tokio::time::Instant;

/// The pace in the first second; it doubles with each second.
const ENTRIES_PER_SECOND: u64 = 40_000;
/// So many requests in a row that are as long as they may be make a follower one that is behind. A busy leader has a few.
const FULL_REQUESTS: u32 = 8;

/// Follows the requests of one session.
#[derive(Default)]
pub(super) struct CatchUp {
    full_requests: u32,
    paced: Option<Paced>,
}

struct Paced {
    since: Instant,
    due: Instant,
}

impl CatchUp {
    /// When the next request may follow one that was sent just now with so many entries: at once if `None`.
    pub(super) fn next(&mut self, entries: u64, now: Instant) -> Option<Instant> {
        if entries < APPEND_ENTRIES_MAX {
            *self = CatchUp::default();
            return None;
        }
        self.full_requests += 1;
        if self.full_requests < FULL_REQUESTS {
            return None;
        }
        let paced = self.paced.get_or_insert(Paced { since: now, due: now });
        let doubled = now.duration_since(paced.since).as_secs().min(20);
        let takes = Duration::from_secs(1) * entries as u32 / (ENTRIES_PER_SECOND << doubled) as u32;
        paced.due = paced.due.max(now) + takes;
        Some(paced.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many entries go within the next second.
    fn in_a_second(pace: &mut CatchUp, now: &mut Instant) -> u64 {
        let until = *now + Duration::from_secs(1);
        let mut entries = 0;
        while *now < until {
            entries += APPEND_ENTRIES_MAX;
            if let Some(due) = pace.next(APPEND_ENTRIES_MAX, *now) {
                *now = due;
            }
        }
        entries
    }

    #[test]
    fn one_that_is_far_behind_is_sent_twice_as_much_each_second() {
        let (mut pace, mut now) = (CatchUp::default(), Instant::now());
        let unpaced = u64::from(FULL_REQUESTS) * APPEND_ENTRIES_MAX;
        for doubled in 0..4 {
            let due = ENTRIES_PER_SECOND << doubled;
            let sent = in_a_second(&mut pace, &mut now);
            assert!(
                (due - due / 10..due + due / 10 + unpaced).contains(&sent),
                "{sent} in a second that is due {due}"
            );
        }
        // For ever does not overflow.
        let later = now + Duration::from_secs(1 << 20);
        assert!(
            pace.next(APPEND_ENTRIES_MAX, later)
                .is_some_and(|due| due >= later)
        );
    }

    #[test]
    fn one_that_keeps_up_is_not_waited_for() {
        let (mut pace, now) = (CatchUp::default(), Instant::now());
        for _ in 0..100 {
            for _ in 1..FULL_REQUESTS {
                assert_eq!(pace.next(APPEND_ENTRIES_MAX, now), None);
            }
            assert_eq!(pace.next(APPEND_ENTRIES_MAX - 1, now), None);
        }
    }
}
