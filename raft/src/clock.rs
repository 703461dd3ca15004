//! What time it is: the machine's clock, and the one that the members of a cluster agree on.
//!
//! A leader stamps proposals, and log time follows its stamps and never goes back. So a leader whose clock leaps ahead
//! would take everybody's time with it. Therefore each node asks the others for their clocks, once a second, and goes by
//! the one in the middle: as long as most clocks are right, a wrong one does no harm, neither elsewhere nor to the node
//! that has it. Between two rounds time is counted by the monotonic clock, which does not leap.
//!
//! Where log time is ahead all the same, because most clocks were, it goes on at three quarters of its speed until the clocks have caught
//! up: were it to wait for them, whatever runs on it would stand still as long.
//!
//! Limits: a leader that has heard of no majority some seconds after its start goes by its own clock, and so does a
//! cluster of one.

use crate::engine::Engine;
use crate::peer::frame::Lane;
use crate::peer::wire::{self, kind};
use futures::future::join_all;
use onward_statemachine::{Millis, system};
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How often the others are asked.
const ROUND: Duration = Duration::from_secs(1);
/// The same until the first round that heard a majority.
const FIRST_ROUND: Duration = Duration::from_millis(20);
/// How long after the start nothing is proposed without an agreement.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one may take to answer; what its clock showed is known to half of what it took.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);
/// How far off this node's clock may be before its log says so.
const WARN_MS: u64 = 2_000;

/// Tells the time.
pub(crate) trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970 UTC.
    fn now(&self) -> Millis;
}

/// The clock of the machine.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(since.as_millis() as u64)
    }
}

/// The clock in the middle of those of the members.
pub(crate) struct ClusterClock {
    own: Arc<dyn Clock>,
    started: Instant,
    agreed: Mutex<Option<Agreement>>,
}

/// What the last round came to.
#[derive(Debug, Clone, Copy)]
struct Agreement {
    /// The clock in the middle.
    middle: Reading,
    /// Log time, which does not go back.
    floor: Reading,
}

impl Agreement {
    fn at(self, now: Instant) -> u64 {
        let slowed = now.saturating_duration_since(self.floor.at) * 3 / 4;
        let floor = self.floor.ms + slowed.as_millis() as u64;
        floor.max(self.middle.carried_to(now))
    }
}

/// What a clock showed when.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    ms: u64,
}

impl Reading {
    /// What it shows at `at`, later, if it is right from then on.
    fn carried_to(self, at: Instant) -> u64 {
        self.ms + at.saturating_duration_since(self.at).as_millis() as u64
    }
}

impl ClusterClock {
    pub(crate) fn new(own: Arc<dyn Clock>) -> Self {
        ClusterClock {
            own,
            started: Instant::now(),
            agreed: Mutex::default(),
        }
    }

    /// What this machine's own clock shows, right or wrong.
    pub(crate) fn own(&self) -> Millis {
        self.own.now()
    }

    /// Whether there is an agreement, or no use in waiting for one.
    pub(crate) fn is_ready(&self) -> bool {
        self.agreed().is_some() || self.started.elapsed() > PATIENCE
    }

    /// How far this machine's clock is ahead of what it is agreed to be, in ms.
    pub(crate) fn offset_ms(&self) -> i64 {
        self.own().0.cast_signed() - self.now().0.cast_signed()
    }

    fn agreed(&self) -> MutexGuard<'_, Option<Agreement>> {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, now: Instant) -> Millis {
        let agreed = *self.agreed();
        agreed.map_or_else(|| self.own.now(), |agreed| Millis(agreed.at(now)))
    }

    /// Takes the clock in the middle of these, and goes on from log time where that is ahead of it. Of two in the middle it is the one that is nearer to what was agreed on
    /// before, or else the one that is behind, since log time can be made up for but not taken back.
    fn agree(&self, now: Instant, readings: &[Reading], log_time: Millis) {
        let mut shown: Vec<u64> = readings.iter().map(|reading| reading.carried_to(now)).collect();
        shown.sort_unstable();
        let Some(last) = shown.len().checked_sub(1) else {
            return;
        };
        let (low, high) = (shown[last / 2], shown[last.div_ceil(2)]);
        let mut agreed = self.agreed();
        let expected = agreed.map_or(low, |agreed| agreed.middle.carried_to(now));
        let ms = if high.abs_diff(expected) < low.abs_diff(expected) {
            high
        } else {
            low
        };
        let floor = Reading {
            at: now,
            ms: log_time.0,
        };
        *agreed = Some(Agreement {
            middle: Reading { at: now, ms },
            floor,
        });
    }
}

impl Clock for ClusterClock {
    fn now(&self) -> Millis {
        self.at(Instant::now())
    }
}

impl Engine {
    /// Asks the others for their clocks again and again, until the engine stops.
    pub(crate) async fn keep_clock(self: Arc<Self>) {
        let mut off = false;
        let rounds = async {
            loop {
                self.clock_round().await;
                let offset_ms = self.clock.offset_ms();
                let now_off = offset_ms.unsigned_abs() > WARN_MS;
                if now_off && !off {
                    tracing::warn!(
                        offset_ms,
                        "this machine's clock differs from those of most members"
                    );
                } else if off && !now_off {
                    tracing::info!(offset_ms, "this machine's clock is that of most members again");
                }
                off = now_off;
                let agreed = self.clock.agreed().is_some();
                tokio::time::sleep(if agreed { ROUND } else { FIRST_ROUND }).await;
            }
        };
        self.token().run_until_cancelled(rounds).await;
    }

    /// One round. What fewer than a majority of the voters say changes nothing.
    async fn clock_round(&self) {
        let membership = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().clone()
        };
        let voters: Vec<u64> = membership.voter_ids().collect();
        let others = membership
            .nodes()
            .filter(|(id, _)| **id != self.id() && voters.contains(*id));
        let asked = others.map(async |(id, node)| {
            let channel = self.peers.channel(*id, node, Lane::Control);
            let began = Instant::now();
            let body = channel.call(kind::CLOCK, &[], ANSWER_DEADLINE).await.ok()?;
            let Millis(ms) = wire::decode(&body).ok()?;
            let halfway = began + began.elapsed() / 2;
            Some(Reading { at: halfway, ms })
        });
        let mut readings: Vec<Reading> = join_all(asked).await.into_iter().flatten().collect();
        if voters.contains(&self.id()) {
            readings.push(Reading {
                at: Instant::now(),
                ms: self.clock.own().0,
            });
        }
        if !voters.is_empty() && readings.len() > voters.len() / 2 {
            let log_time = self.state.read(|view| Ok(system::clock(view)?.now));
            self.clock.agree(Instant::now(), &readings, log_time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl Clock for Fixed {
        fn now(&self) -> Millis {
            Millis(self.0)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn agreed_on(clock: &ClusterClock, at: Instant, shown: &[u64]) -> u64 {
        let readings: Vec<_> = shown.iter().map(|ms| Reading { at, ms: *ms }).collect();
        clock.agree(at, &readings, Millis(0));
        clock.at(at).0
    }

    #[test]
    fn the_clock_in_the_middle_counts() {
        let clock = ClusterClock::new(Arc::new(Fixed(9_000_000)));
        assert_eq!(
            clock.now(),
            Millis(9_000_000),
            "its own until others are heard of"
        );
        assert!(!clock.is_ready());
        let at = Instant::now();
        assert_eq!(agreed_on(&clock, at, &[9_000_000, 1_000, 1_020]), 1_020);
        assert!(clock.is_ready());
        assert_eq!(agreed_on(&clock, at, &[1_010, 0, 1_030, 2_000, 8_000_000]), 1_030);
    }

    #[test]
    fn of_two_clocks_the_one_that_goes_on_counts() {
        let clock = ClusterClock::new(Arc::new(Fixed(0)));
        let at = Instant::now();
        assert_eq!(
            agreed_on(&clock, at, &[5_000, 900_000]),
            5_000,
            "the one behind, at first"
        );
        assert_eq!(
            agreed_on(&clock, at + SECOND, &[6_010, 900_000]),
            6_010,
            "one leapt ahead"
        );
        assert_eq!(
            agreed_on(&clock, at + 2 * SECOND, &[7_000, 10]),
            7_000,
            "one fell behind"
        );
    }

    #[test]
    fn time_goes_on_between_rounds_whatever_the_machine_says() {
        let clock = ClusterClock::new(Arc::new(Fixed(50)));
        let at = Instant::now();
        agreed_on(&clock, at, &[1_000, 1_000, 1_000]);
        assert_eq!(clock.at(at + SECOND), Millis(2_000));
        clock.agree(at + SECOND, &[], Millis(0));
        assert_eq!(
            clock.at(at + SECOND),
            Millis(2_000),
            "a round that heard nobody changes nothing"
        );
    }

    #[test]
    fn log_time_that_is_ahead_goes_on_until_it_is_caught_up_with() {
        let clock = ClusterClock::new(Arc::new(Fixed(0)));
        let at = Instant::now();
        let shown = [Reading { at, ms: 1_000 }; 3];
        clock.agree(at, &shown, Millis(5_000));
        assert_eq!(clock.at(at), Millis(5_000));
        assert_eq!(clock.at(at + SECOND), Millis(5_750));
        assert_eq!(clock.at(at + 16 * SECOND), Millis(17_000));
        assert_eq!(clock.at(at + 17 * SECOND), Millis(18_000), "at full speed again");
    }
}
