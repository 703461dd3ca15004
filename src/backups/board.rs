//! What a node knows of its schedule, and when the next backup is due.
//!
//! The times in names were written by clocks that may have been wrong; what this node did and saw itself it counts with
//! its monotonic clock. A backup is due only by both: so no name at the destination, whatever time it bears, makes a
//! leader take one after the other, and none keeps it from taking the next.

use super::destination::Name;
use onward_statemachine::Millis;
use std::time::Duration;
use tokio::time::Instant;

/// What one node knows.
pub struct Board {
    /// The newest backup of this cluster at the destination.
    newest: Option<Seen>,
    /// When this node began the last one that it took.
    own: Option<Instant>,
    /// When it began to keep to the schedule.
    since: Instant,
    /// How many are at the destination.
    pub kept: usize,
    /// Whether this node is taking one.
    pub running: bool,
    /// How many it took.
    pub taken: u64,
    /// How often it failed while it led.
    pub failures: u64,
    /// Why the destination could not be looked at, the last time.
    pub unseen: Option<String>,
    /// Why none could be taken, the last time.
    pub untaken: Option<String>,
}

/// A backup, and since when this node knows of it.
struct Seen {
    name: Name,
    at: Instant,
}

impl Board {
    /// Of a node that begins at `since`.
    pub fn new(since: Instant) -> Board {
        Board {
            newest: None,
            own: None,
            since,
            kept: 0,
            running: false,
            taken: 0,
            failures: 0,
            unseen: None,
            untaken: None,
        }
    }

    /// Notes what is at the destination, the newest last.
    pub fn see(&mut self, names: &[Name], at: Instant) {
        self.kept = names.len();
        self.unseen = None;
        let known = self.newest.take();
        self.newest = names.last().map(|name| {
            let known = known.filter(|known| known.name == *name);
            known.unwrap_or_else(|| Seen {
                name: name.clone(),
                at,
            })
        });
    }

    /// Notes a backup that this node began at `begun` and that is whole.
    pub fn took(&mut self, name: Name, begun: Instant) {
        self.taken += 1;
        self.own = Some(begun);
        self.newest = Some(Seen { name, at: begun });
    }

    /// The newest.
    pub fn newest(&self) -> Option<&Name> {
        self.newest.as_ref().map(|newest| &newest.name)
    }

    /// How long ago the newest was taken, by the clock that shows `now` or for as long as this node knows of it, whichever
    /// is longer: one that bears a time to come is not new for ever. Where there is none, how long this node has kept to
    /// the schedule, so that who watches the age hears of one that never came to anything.
    pub fn age(&self, now: Millis, at: Instant) -> Duration {
        match &self.newest {
            None => at.saturating_duration_since(self.since),
            Some(newest) => {
                let told = Duration::from_millis(now.0.saturating_sub(newest.name.taken_at_ms));
                told.max(at.saturating_duration_since(newest.at))
            }
        }
    }

    /// Whether the newest is as old as `interval`, or from a future that a wrong clock wrote, and this node's own last one
    /// as old.
    pub fn due(&self, interval: Duration, now: Millis, at: Instant) -> bool {
        let since = |own| at.saturating_duration_since(own) >= interval;
        let horizon_ms = horizon_ms(now, interval);
        self.own.is_none_or(since)
            && self
                .newest
                .as_ref()
                .is_none_or(|newest| self.age(now, at) >= interval || newest.name.taken_at_ms > horizon_ms)
    }

    /// What is wrong.
    pub fn error(&self) -> Option<&String> {
        self.untaken.as_ref().or(self.unseen.as_ref())
    }
}

/// What bears a later time than this was written by a wrong clock.
pub fn horizon_ms(now: Millis, interval: Duration) -> u64 {
    now.0.saturating_add(interval.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Millis = Millis(1_700_000_000_000);

    fn name(revision: u64, taken_at_ms: u64) -> Name {
        Name {
            revision,
            taken_at_ms,
            cluster: Uuid::from_u128(7),
        }
    }

    fn hours(count: u64) -> u64 {
        count * 3_600_000
    }

    #[test]
    fn the_next_leader_goes_on_where_the_last_one_left_off() {
        let at = Instant::now();
        let mut board = Board::new(at);
        assert!(board.due(HOUR, NOW, at), "there is none");
        board.see(&[name(5, NOW.0 - hours(1) + 1)], at);
        assert!(!board.due(HOUR, NOW, at));
        assert!(board.due(HOUR, Millis(NOW.0 + 1), at));
    }

    #[test]
    fn a_name_from_the_future_or_the_past_makes_no_leader_take_one_after_the_other() {
        for planted in [NOW.0 + hours(1000), 0] {
            let begun = Instant::now();
            let mut board = Board::new(begun);
            board.see(&[name(5, planted)], begun);
            assert!(
                board.due(HOUR, NOW, begun),
                "{planted}: what is there tells nothing"
            );
            board.took(name(5, NOW.0), begun);
            // As on a cluster in which nothing is written: the planted one may still count as the newest.
            board.see(&[name(5, NOW.0), name(5, planted)], begun);
            for minutes in 0..60 {
                let later = Duration::from_secs(60 * minutes);
                let now = Millis(NOW.0 + later.as_millis() as u64);
                assert!(!board.due(HOUR, now, begun + later), "{planted}, {minutes} min");
            }
            assert!(
                board.due(HOUR, Millis(NOW.0 + hours(1)), begun + HOUR),
                "{planted}"
            );
        }
    }

    #[test]
    fn a_backup_that_vanishes_is_not_taken_again_at_once() {
        let begun = Instant::now();
        let mut board = Board::new(begun);
        board.took(name(5, NOW.0), begun);
        board.see(&[], begun);
        assert!(!board.due(HOUR, NOW, begun + HOUR / 2));
        assert!(board.due(HOUR, NOW, begun + HOUR), "whatever the clock shows");
    }

    #[test]
    fn the_age_counts_from_the_start_until_there_is_one() {
        let start = Instant::now();
        let mut board = Board::new(start);
        assert_eq!(board.age(NOW, start + HOUR), HOUR);
        board.see(&[name(5, NOW.0 - hours(3))], start + HOUR);
        assert_eq!(board.age(NOW, start + HOUR), 3 * HOUR);
        // One from the future grows old from when it was seen, and does not begin anew at each look.
        let future = [name(6, NOW.0 + hours(1000))];
        board.see(&future, start + HOUR);
        board.see(&future, start + 2 * HOUR);
        assert_eq!(board.age(NOW, start + 3 * HOUR), 2 * HOUR);
    }

    #[test]
    fn what_is_wrong_is_said_until_it_went_well() {
        let mut board = Board::new(Instant::now());
        board.unseen = Some("away".to_owned());
        assert_eq!(board.error().map(String::as_str), Some("away"));
        board.untaken = Some("full".to_owned());
        board.see(&[], Instant::now());
        assert_eq!(board.error().map(String::as_str), Some("full"));
    }
}
