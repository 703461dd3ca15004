//! Bugs that are planted on purpose, one at a time, to see that the tests find them: docs/jepsen.md has the table.
//!
//! Only a build with the feature `mutants` can have one, and a release cannot be such a build. Without the feature
//! [`on`] is a constant, and the compiler leaves nothing of them. The names stay, for those who list them.

use crate::ids::Millis;

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("planted bugs have no place in a release: build it without the feature `mutants`");

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// The log acknowledges what it did not sync, and never does.
    AckBeforeSync,
    /// A linearizable read answers from the replica as it is.
    StaleRead,
    /// Each entry is applied twice over.
    ApplyTwice,
    /// A vote is given, and kept in memory only.
    VoteNotPersisted,
    /// A snapshot is announced, and the log purged up to it, before there is one.
    PurgeBeforeSnapshot,
    /// A command that comes again is done again.
    DuplicateTableOff,
    /// Deadlines are counted from the clock of the node that applies.
    TtlByWallClock,
    /// A stream that is woken to several revisions sends the first and goes on after the last.
    LostWatch,
    /// Slots and addresses are handed out without a look at who has them.
    IpamNotUnique,
    /// A rollout's start is done again when it is asked for again.
    RolloutStepRepeated,
    /// A node writes other values than it decided on.
    StateBitFlip,
    /// A backup takes its rows from the state as it goes on, and not as of one revision.
    BackupTorn,
    /// An earlier state lacks what happened in its last revision.
    PastOffByOne,
    /// A member that was let go of does not ask whether it still belongs.
    RemovedStays,
    /// A leader that handed over goes on answering reads by itself.
    HandoverKeepsReads,
    /// A node that is started anew forgets that a leader counts on it.
    PromiseForgotten,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 16] = [
        Mutant::AckBeforeSync,
        Mutant::StaleRead,
        Mutant::ApplyTwice,
        Mutant::VoteNotPersisted,
        Mutant::PurgeBeforeSnapshot,
        Mutant::DuplicateTableOff,
        Mutant::TtlByWallClock,
        Mutant::LostWatch,
        Mutant::IpamNotUnique,
        Mutant::RolloutStepRepeated,
        Mutant::StateBitFlip,
        Mutant::BackupTorn,
        Mutant::PastOffByOne,
        Mutant::RemovedStays,
        Mutant::HandoverKeepsReads,
        Mutant::PromiseForgotten,
    ];

    /// Its name on command lines and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Mutant::AckBeforeSync => "ack-before-sync",
            Mutant::StaleRead => "stale-read",
            Mutant::ApplyTwice => "apply-twice",
            Mutant::VoteNotPersisted => "vote-not-persisted",
            Mutant::PurgeBeforeSnapshot => "purge-before-snapshot",
            Mutant::DuplicateTableOff => "duplicate-table-off",
            Mutant::TtlByWallClock => "ttl-by-wall-clock",
            Mutant::LostWatch => "lost-watch",
            Mutant::IpamNotUnique => "ipam-not-unique",
            Mutant::RolloutStepRepeated => "rollout-step-repeated",
            Mutant::StateBitFlip => "state-bit-flip",
            Mutant::BackupTorn => "backup-torn",
            Mutant::PastOffByOne => "past-off-by-one",
            Mutant::RemovedStays => "removed-stays",
            Mutant::HandoverKeepsReads => "handover-keeps-reads",
            Mutant::PromiseForgotten => "promise-forgotten",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

#[cfg(not(feature = "mutants"))]
mod switch {
    use super::{Millis, Mutant};

    /// Whether this bug is planted: never, in this build.
    #[inline(always)]
    pub const fn on(_: Mutant) -> bool {
        false
    }

    /// The time that deadlines are counted from: log time.
    #[inline(always)]
    pub(crate) const fn deadline_base(log_time: Millis) -> Millis {
        log_time
    }
}

#[cfg(feature = "mutants")]
mod switch {
    use super::{Millis, Mutant};
    use std::sync::OnceLock;

    /// The bug of this process, and the clock that it goes by.
    static PLANTED: OnceLock<(Mutant, fn() -> Millis)> = OnceLock::new();

    /// Plants a bug in this process, for good. `wall_clock` is for the one that reads it: this crate must not.
    ///
    /// # Panics
    /// Where one is planted already.
    pub fn plant(mutant: Mutant, wall_clock: fn() -> Millis) {
        assert!(PLANTED.set((mutant, wall_clock)).is_ok(), "one bug at a time");
    }

    /// Whether this bug is planted.
    pub fn on(mutant: Mutant) -> bool {
        PLANTED.get().is_some_and(|(planted, _)| *planted == mutant)
    }

    /// The time that deadlines are counted from: log time, if all is well.
    pub(crate) fn deadline_base(log_time: Millis) -> Millis {
        match PLANTED.get() {
            Some((Mutant::TtlByWallClock, wall_clock)) => wall_clock(),
            _ => log_time,
        }
    }
}

pub(crate) use switch::deadline_base;
pub use switch::on;
#[cfg(feature = "mutants")]
pub use switch::plant;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_own() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(mutant));
        }
    }

    #[test]
    fn nothing_is_planted_unless_somebody_plants_it() {
        assert!(!Mutant::ALL.into_iter().any(on));
        assert_eq!(deadline_base(Millis(7)), Millis(7));
    }
}
