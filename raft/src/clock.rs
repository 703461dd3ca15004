//! The clock behind a trait, so that simulation can turn it.

use onward_statemachine::Millis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time that a leader stamps proposals with.
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
