//! Room on the disk. A node whose disk fills up cannot write its log any more, and stops; so before it comes to that, the
//! cluster takes no writes that add, and goes on taking those that delete.
//!
//! Each node measures its own disk and reports it ([`crate::report`]). The leader refuses when its own disk is short or
//! those of a majority of the voters are: fewer than that, and the cluster goes on without them. A disk is short while
//! less than the reserve is free, and until a quarter more than it is; below a quarter of the reserve, commands that
//! only rewrite are refused as well.
//!
//! A node that is short lets go of what it can: of the older snapshots that make the past near, and, by taking new
//! ones, of the log behind them and of the files that only earlier ones have; files of purged entries go at once.

use crate::config::Limits;
use crate::engine::Engine;
use crate::report::Report;
use crate::runtime::blocking;
use onward_statemachine::footprint::Footprint;
use onward_statemachine::{Command, Revision, digest, system};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Between two looks at the disk.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same where less than twice the reserve is free: there, what is written between two looks counts.
const CLOSE_INTERVAL: Duration = Duration::from_millis(50);
/// Between two tries to let go of something.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(2);
/// The reserve where none is set: a twentieth of the disk within these bounds, though no more than a quarter of it. It
/// has to hold what the database may yet write out of its memory, up to 500 MiB, and what a compaction writes before it
/// lets go of what it read: the first level and what is above it, about 550 MiB.
const RESERVE_MIN: u64 = 1280 << 20;
const RESERVE_MAX: u64 = 2 << 30;

/// How a disk stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// There is room.
    #[default]
    Enough,
    /// Nothing that adds is taken.
    Short,
    /// Nothing but what deletes is taken.
    Critical,
}

impl Stage {
    fn of(number: u8) -> Stage {
        match number {
            0 => Stage::Enough,
            1 => Stage::Short,
            _ => Stage::Critical,
        }
    }

    /// Where a disk stands that has so much free, and stood here before.
    fn next(self, free: u64, reserve: u64) -> Stage {
        // What it takes to leave a stage is a quarter more than what it took to enter it.
        let below = |bound: u64, inside: bool| free < if inside { bound + bound / 4 } else { bound };
        if below(reserve / 4, self == Stage::Critical) {
            Stage::Critical
        } else if below(reserve, self >= Stage::Short) {
            Stage::Short
        } else {
            Stage::Enough
        }
    }

    /// Whether a command of this kind is taken.
    fn takes(self, footprint: Footprint) -> bool {
        match self {
            Stage::Enough => true,
            Stage::Short => footprint < Footprint::Grows,
            Stage::Critical => footprint == Footprint::Frees,
        }
    }
}

/// What a file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// How the disk of a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) stage: Stage,
}

impl Measured {
    fn new(space: Space, reserve: Option<u64>, before: Stage) -> Self {
        let Space {
            free_bytes,
            total_bytes,
        } = space;
        let usual = (total_bytes / 20)
            .clamp(RESERVE_MIN, RESERVE_MAX)
            .min(total_bytes / 4);
        let reserve_bytes = reserve.unwrap_or(usual);
        Measured {
            free_bytes,
            total_bytes,
            reserve_bytes,
            stage: before.next(free_bytes, reserve_bytes),
        }
    }
}

/// Whose disk keeps the cluster from taking writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) node: u64,
    pub(crate) measured: Measured,
}

/// What a node knows of the room there is.
#[derive(Default)]
pub(crate) struct Room {
    own: Mutex<Option<Measured>>,
    /// On the leader: the stage that writes are judged by, and whose disk that is.
    limit: AtomicU8,
    shortage: Mutex<Option<Shortage>>,
    /// Told when this node's disk comes to stand otherwise.
    pub(crate) moved: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// This node's own disk; `None` where it cannot be measured.
    pub(crate) fn own(&self) -> Option<Measured> {
        *lock(&self.own)
    }

    /// Why a command is not taken now. On the path of every write: one load where there is room.
    pub(crate) fn refuses(&self, command: &Command) -> Option<Shortage> {
        let limit = Stage::of(self.limit.load(Relaxed));
        if limit.takes(Footprint::Grows) || limit.takes(command.footprint()) {
            return None;
        }
        *lock(&self.shortage)
    }

    /// Whose disk keeps this node, as the leader, from taking writes.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        *lock(&self.shortage)
    }

    /// Takes up what was judged; says whether that is news.
    fn limit(&self, shortage: Option<Shortage>) -> bool {
        let stage = shortage.map_or(Stage::Enough, |shortage| shortage.measured.stage);
        *lock(&self.shortage) = shortage;
        self.limit.swap(stage as u8, Relaxed) != stage as u8
    }
}

/// Whose disk decides, if it keeps the cluster from taking writes: the leader's own, or the one of the voters that a
/// majority of them is at least as short as.
fn judge(leader: u64, voters: &BTreeSet<u64>, reports: &BTreeMap<u64, Report>) -> Option<Shortage> {
    let of = |node: &u64| {
        let measured = reports.get(node)?.room?;
        Some(Shortage {
            node: *node,
            measured,
        })
    };
    let mut short: Vec<Shortage> = voters.iter().filter_map(of).collect();
    short.sort_by_key(|one| (std::cmp::Reverse(one.measured.stage), one.measured.free_bytes));
    let majority = short.get(voters.len() / 2).copied();
    [of(&leader), majority]
        .into_iter()
        .flatten()
        .max_by_key(|one| one.measured.stage)
        .filter(|one| one.measured.stage > Stage::Enough)
}

impl Engine {
    /// Measures this node's disk again and again, and lets go of what it can while it is short.
    pub(crate) async fn keep_room(self: Arc<Self>, limits: Limits) {
        let rounds = async {
            let mut reclaimed: Option<(Instant, Revision)> = None;
            while self.measure(limits.disk_reserve_bytes).await {
                let own = self.room.own();
                let short = own.is_some_and(|own| own.stage > Stage::Enough);
                if short && reclaimed.is_none_or(|(at, _)| at.elapsed() >= RECLAIM_INTERVAL) {
                    let before = reclaimed.map(|(_, applied)| applied);
                    let applied = self.state.applied();
                    reclaimed = Some((Instant::now(), applied));
                    self.reclaim(before != Some(applied)).await;
                }
                let close = own.is_some_and(|own| own.free_bytes / 2 < own.reserve_bytes);
                tokio::time::sleep(if close { CLOSE_INTERVAL } else { INTERVAL }).await;
            }
        };
        self.token().run_until_cancelled(rounds).await;
    }

    /// One look at the disk; `false` where there is nothing to see.
    async fn measure(&self, reserve: Option<u64>) -> bool {
        let (files, root) = (self.state.files().clone(), self.state.root().to_owned());
        let space = match blocking(move || files.space(&root)).await {
            Ok(Ok(Some(space))) => space,
            Ok(Ok(None)) | Err(_) => return false,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the disk cannot be measured");
                return true;
            }
        };
        let before = self.room.own().map_or(Stage::Enough, |own| own.stage);
        let measured = Measured::new(space, reserve, before);
        *lock(&self.room.own) = Some(measured);
        let Measured {
            free_bytes,
            reserve_bytes,
            stage,
            ..
        } = measured;
        if stage != before {
            let state = self.state.clone();
            // In the background: files go with it.
            let _ = blocking(move || state.pasts.spare(stage > Stage::Enough)).await;
            self.room.moved.notify_one();
        }
        if stage > before {
            tracing::warn!(
                free_bytes,
                reserve_bytes,
                ?stage,
                "the disk of this node is nearly full: enlarge it, or delete what is not needed"
            );
        } else if stage < before {
            tracing::info!(
                free_bytes,
                reserve_bytes,
                ?stage,
                "the disk of this node has room again"
            );
        }
        true
    }

    /// Judges, on the leader, whether writes are taken.
    pub(crate) fn judge_room(&self, voters: &BTreeSet<u64>, reports: &BTreeMap<u64, Report>) {
        let shortage = judge(self.id(), voters, reports);
        if self.room.limit(shortage) {
            match shortage {
                Some(Shortage { node, measured }) => tracing::warn!(
                    node, free_bytes = measured.free_bytes, stage = ?measured.stage,
                    "writes are refused, deletes are taken: the disk is nearly full"
                ),
                None => tracing::info!("writes are taken again: the disks have room"),
            }
        }
    }

    /// Forgets what was judged: another one leads.
    pub(crate) fn leave_room_to_others(&self) {
        self.room.limit(None);
    }

    /// Lets go of what is not needed. A snapshot that nothing was applied since would hold on to the same files, so
    /// where nothing `moved` the leader first adds an entry that changes nothing.
    async fn reclaim(&self, moved: bool) {
        let level = self.state.read(|view| Ok(system::gate(view)?.feature_level));
        if !moved && self.leads() && level >= digest::FEATURE_LEVEL {
            self.command(system::Command::MarkState { agreed: None }).await;
        }
        if let Err(error) = self.raft.trigger().snapshot().await {
            tracing::debug!(%error, "no snapshot is taken");
        }
        let log = self.log.clone();
        if let Ok(Err(error)) = blocking(move || log.reclaim()).await {
            tracing::warn!(%error, "the files of purged entries cannot be dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 1000;

    #[test]
    fn a_disk_is_short_until_a_quarter_more_is_free() {
        let next = |stage: Stage, free| stage.next(free, RESERVE);
        assert_eq!(next(Stage::Enough, 1000), Stage::Enough);
        assert_eq!(next(Stage::Enough, 999), Stage::Short);
        assert_eq!(next(Stage::Short, 1249), Stage::Short);
        assert_eq!(next(Stage::Short, 1250), Stage::Enough);
        assert_eq!(next(Stage::Short, 249), Stage::Critical);
        assert_eq!(next(Stage::Critical, 311), Stage::Critical);
        assert_eq!(next(Stage::Critical, 312), Stage::Short);
        assert_eq!(next(Stage::Critical, 2000), Stage::Enough);
        assert_eq!(Stage::Enough.next(0, 0), Stage::Enough, "no reserve, no refusal");
    }

    #[test]
    fn the_reserve_fits_the_disk() {
        let reserve = |total_bytes| {
            let free_bytes = total_bytes;
            let space = Space {
                free_bytes,
                total_bytes,
            };
            Measured::new(space, None, Stage::Enough).reserve_bytes
        };
        assert_eq!(reserve(1 << 40), RESERVE_MAX);
        assert_eq!(reserve(30 << 30), (30 << 30) / 20);
        assert_eq!(reserve(8 << 30), RESERVE_MIN);
        assert_eq!(reserve(1 << 30), 256 << 20);
    }

    fn reports(stages: &[(u64, Stage)]) -> BTreeMap<u64, Report> {
        let report = |(node, stage): &(u64, Stage)| {
            let measured = Measured {
                free_bytes: 100 - *node,
                total_bytes: 1000,
                reserve_bytes: 100,
                stage: *stage,
            };
            let report = Report {
                feature_level_max: 3,
                mark: None,
                room: Some(measured),
            };
            (*node, report)
        };
        stages.iter().map(report).collect()
    }

    #[test]
    fn the_leader_or_a_majority_decides() {
        use Stage::{Critical, Enough, Short};
        let judged = |stages: &[(u64, Stage)]| {
            let judged = judge(1, &BTreeSet::from([1, 2, 3]), &reports(stages));
            judged.map(|shortage| (shortage.node, shortage.measured.stage))
        };
        assert_eq!(judged(&[(1, Enough), (2, Enough), (3, Enough)]), None);
        assert_eq!(judged(&[(1, Short), (2, Enough), (3, Enough)]), Some((1, Short)));
        assert_eq!(
            judged(&[(1, Enough), (2, Short), (3, Enough)]),
            None,
            "one of three"
        );
        assert_eq!(
            judged(&[(1, Enough), (2, Short), (3, Critical)]),
            Some((2, Short))
        );
        assert_eq!(
            judged(&[(1, Short), (2, Critical), (3, Critical)]),
            Some((2, Critical))
        );
        // One that says nothing is taken to have room.
        assert_eq!(judged(&[(1, Enough), (2, Short)]), None);
    }
}
