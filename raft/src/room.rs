//! Room on the disk. A node whose disk fills up cannot write its log any more, and stops; so before it comes to that, the
//! cluster takes no writes that add, and goes on taking those that delete.
//!
//! Each node measures its own disk and reports it ([`crate::report`]). The leader refuses when its own disk is short, or
//! when a disk is and the voters that have room are no majority: with one, the cluster goes on without the others. Who is
//! silent has none, for a disk that filled up ends its node: without that, the disks of a cluster would fill up one after
//! the other, each time as the only one. Where no disk that is heard of is short, nothing is refused, whoever is silent.
//!
//! A disk is short while less than the reserve is free, and until a quarter more than it is; below a quarter of the
//! reserve, commands that only rewrite are refused as well.
//!
//! A node that is short lets go of what it can: of the older snapshots that make the past near, of copies of earlier
//! states, and, by taking new ones, of the log behind them and of the files that only earlier ones have; files of purged
//! entries go at once. It makes no copies, and moves the base of the journal only while half of the reserve is free.

use crate::config::Limits;
use crate::engine::Engine;
use crate::report::{FRESH, Report};
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

    /// Whether so many bytes more leave half of the reserve.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        self.free_bytes >= bytes.saturating_add(self.reserve_bytes / 2)
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
    /// On the leader: its term, and when it was first known to lead in it.
    leads_since: Mutex<Option<(u64, Instant)>>,
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

    /// How short this node's own disk is, where it is.
    pub(crate) fn own_shortage(&self) -> Option<Measured> {
        self.own().filter(|own| own.stage > Stage::Enough)
    }

    /// Whether the base of the journal may move. Each step adds before it lets go of anything, and what it adds has to be
    /// flushed and compacted; where snapshots hold what it let go of, that is free only after the next one.
    pub(crate) fn lets_base_move(&self) -> bool {
        let short = self.own_shortage();
        short.is_none_or(|own| own.free_bytes >= own.reserve_bytes / 2)
    }

    /// Whether the leader of `term` has led for so long that it has heard of everyone who can be heard.
    fn has_heard_all(&self, term: u64, now: Instant) -> bool {
        let mut leads = lock(&self.leads_since);
        let (_, since) = match *leads {
            Some(known) if known.0 == term => known,
            _ => *leads.insert((term, now)),
        };
        now.duration_since(since) > FRESH
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

/// Whose disk decides, if it keeps the cluster from taking writes: the leader's own, or that of the voter with which the
/// majority of those with room is lost. Of the others, the ones without a report have none, once `all_heard`.
fn judge(
    leader: u64,
    voters: &BTreeSet<u64>,
    reports: &BTreeMap<u64, Report>,
    all_heard: bool,
) -> Option<Shortage> {
    let of = |node: &u64| {
        let measured = reports.get(node)?.room?;
        Some(Shortage {
            node: *node,
            measured,
        })
    };
    let mut short: Vec<Shortage> = voters.iter().filter_map(of).collect();
    short.sort_by_key(|one| (std::cmp::Reverse(one.measured.stage), one.measured.free_bytes));
    let silent = voters.iter().filter(|node| !reports.contains_key(node)).count();
    // So many may be lost, and a majority is left.
    let spare = voters.len().saturating_sub(1) / 2;
    let spare = spare.saturating_sub(if all_heard { silent } else { 0 });
    let decisive = short.get(spare).copied();
    [of(&leader), decisive]
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
                let short = self.room.own_shortage().is_some();
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
        let all_heard = self.room.has_heard_all(self.term(), Instant::now());
        let shortage = judge(self.id(), voters, reports, all_heard);
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
        let state = self.state.clone();
        // One that was being made when the disk became short was kept after that.
        let _ = blocking(move || state.pasts.spare(true)).await;
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

    /// Whose disk decides in a cluster of the nodes from 1 on, which the first leads.
    fn judged(voters: u64, stages: &[(u64, Stage)], all_heard: bool) -> Option<(u64, Stage)> {
        let voters = (1..=voters).collect();
        let judged = judge(1, &voters, &reports(stages), all_heard);
        judged.map(|shortage| (shortage.node, shortage.measured.stage))
    }

    #[test]
    fn the_leader_or_what_is_left_of_a_majority_decides() {
        use Stage::{Critical, Enough, Short};
        let judged = |stages: &[(u64, Stage)]| judged(3, stages, true);
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
    }

    #[test]
    fn writes_are_refused_as_soon_as_those_with_room_are_no_majority() {
        for (voters, bearable) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            for short in 0..voters {
                // The leader has room, and the last ones have not.
                let stage = |node| {
                    if node + short > voters {
                        Stage::Short
                    } else {
                        Stage::Enough
                    }
                };
                let stages: Vec<_> = (1..=voters).map(|node| (node, stage(node))).collect();
                let refused = judged(voters, &stages, true).is_some();
                assert_eq!(refused, short > bearable, "{short} of {voters}");
            }
        }
    }

    #[test]
    fn who_is_silent_has_no_room_once_a_disk_is_short() {
        use Stage::{Critical, Enough, Short};
        // One ended, and the next disk fills up.
        assert_eq!(judged(3, &[(1, Enough), (2, Short)], true), Some((2, Short)));
        assert_eq!(
            judged(3, &[(1, Enough), (2, Critical)], true),
            Some((2, Critical))
        );
        assert_eq!(
            judged(4, &[(1, Enough), (2, Enough), (3, Short)], true),
            Some((3, Short))
        );
        let four_of_five = [(1, Enough), (2, Enough), (3, Enough), (4, Short)];
        assert_eq!(judged(5, &four_of_five, true), None, "three are left");
        let three_of_five = [(1, Enough), (2, Enough), (4, Short)];
        assert_eq!(judged(5, &three_of_five, true), Some((4, Short)));
        // Whoever ended, disks with room refuse nothing.
        assert_eq!(judged(3, &[(1, Enough), (2, Enough)], true), None);
        assert_eq!(judged(2, &[(1, Enough)], true), None);
        assert_eq!(judged(5, &[(1, Enough), (2, Enough)], true), None);
        // One that is heard but cannot measure its disk is taken to have room.
        let mut reports = reports(&[(1, Enough), (2, Short), (3, Enough)]);
        if let Some(report) = reports.get_mut(&3) {
            report.room = None;
        }
        assert_eq!(judge(1, &BTreeSet::from([1, 2, 3]), &reports, true), None);
        // A new leader has not heard of everyone yet.
        assert_eq!(judged(3, &[(1, Enough), (2, Short)], false), None);
    }

    #[test]
    fn a_leader_hears_of_everyone_in_each_term_anew() {
        let room = Room::default();
        let began = Instant::now();
        let heard = |term, after| room.has_heard_all(term, began + after);
        assert!(!heard(4, Duration::ZERO));
        assert!(!heard(4, FRESH));
        assert!(heard(4, FRESH + Duration::from_millis(1)));
        assert!(!heard(6, FRESH * 2));
        assert!(!heard(6, FRESH * 3));
        assert!(heard(6, FRESH * 4));
    }

    #[test]
    fn the_base_moves_while_half_of_the_reserve_is_free() {
        let room = Room::default();
        assert!(room.lets_base_move(), "a disk that nobody can measure");
        for (free_bytes, moves) in [(5000, true), (1000, true), (500, true), (499, false), (0, false)] {
            let space = Space {
                free_bytes,
                total_bytes: 10_000,
            };
            *lock(&room.own) = Some(Measured::new(space, Some(RESERVE), Stage::Enough));
            assert_eq!(room.lets_base_move(), moves, "{free_bytes}");
        }
    }
}
