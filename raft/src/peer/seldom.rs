//! What would be said again and again, said now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(10);

/// When something was said last.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it may be said now; then it was.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.is_none_or(|said| now.duration_since(said) >= INTERVAL);
        if due {
            *said = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_and_again_after_a_while() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert!(seldom.is_due(now));
        assert!(!seldom.is_due(now + INTERVAL / 2));
        assert!(seldom.is_due(now + INTERVAL));
        assert!(!seldom.is_due(now + INTERVAL));
    }
}
