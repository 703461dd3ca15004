//! What members tell each other of themselves: once a second, and at once where somebody waits for it, each member sends
//! its [`Report`] to the leader, and hears in return what the leader knows of all. So every node can show the whole
//! cluster, and the leader knows what it needs to decide for all of them: which release the oldest member runs
//! ([`crate::agreement`]), whether they hold the same state, whether their disks have room.
//!
//! Nothing here is replicated, and nothing is true for longer than [`FRESH`].

use crate::engine::Engine;
use crate::peer::frame::Lane;
use crate::peer::wire::{self, kind};
use crate::room::Measured;
use onward_statemachine::codec;
use onward_statemachine::system::{FEATURE_LEVEL_MAX, Mark};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Between two reports of a member.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the leader may take to answer one.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
/// How long a report is believed.
pub(crate) const FRESH: Duration = Duration::from_secs(5);

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The highest feature level that its release knows.
    pub(crate) feature_level_max: u32,
    /// Its state at the last mark that it applied.
    pub(crate) mark: Option<Mark>,
    /// Its disk, where it can be measured.
    pub(crate) room: Option<Measured>,
}

/// A report as the leader passes it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Passed {
    node: u64,
    age_ms: u64,
    report: Report,
}

/// The newest report of each member, its own among them.
#[derive(Default)]
pub(crate) struct Reports(Mutex<BTreeMap<u64, (Instant, Report)>>);

impl Reports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, Report)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report of a member. Old ones of others go: they may be members no longer.
    fn take(&self, node: u64, at: Instant, report: Report) {
        let mut reports = self.lock();
        reports.retain(|_, (at, _)| at.elapsed() < FRESH);
        if reports.get(&node).is_none_or(|(known, _)| *known <= at) {
            reports.insert(node, (at, report));
        }
    }

    /// What is believed of each member.
    pub(crate) fn fresh(&self) -> BTreeMap<u64, Report> {
        let reports = self.lock();
        let fresh = reports.iter().filter(|(_, (at, _))| at.elapsed() < FRESH);
        fresh.map(|(node, (_, report))| (*node, report.clone())).collect()
    }

    fn passed_on(&self) -> Vec<Passed> {
        let reports = self.lock();
        let passed = reports.iter().map(|(node, (at, report))| Passed {
            node: *node,
            age_ms: at.elapsed().as_millis() as u64,
            report: report.clone(),
        });
        passed.collect()
    }
}

impl Engine {
    /// What this node says of itself now.
    fn own_report(&self) -> Report {
        Report {
            feature_level_max: FEATURE_LEVEL_MAX,
            mark: self.state.last_mark(),
            room: self.room.own(),
        }
    }

    /// The answer to a member's report, on the leader.
    pub(crate) fn hear_report(&self, node: u64, report: Report) -> Vec<u8> {
        self.reports.take(node, Instant::now(), report);
        self.judge.notify_one();
        codec::encode(&self.reports.passed_on())
    }

    /// Reports again and again, until the engine stops.
    pub(crate) async fn keep_reporting(self: Arc<Self>) {
        let mut marks = self.state.watch_marks();
        let mut leadership = self.watch_leadership();
        let rounds = async {
            loop {
                leadership.mark_unchanged();
                self.report_once().await;
                tokio::select! {
                    biased;
                    _ = marks.changed() => {}
                    _ = leadership.changed() => {}
                    () = self.room.moved.notified() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        };
        self.token().run_until_cancelled(rounds).await;
    }

    async fn report_once(&self) {
        let report = self.own_report();
        self.reports.take(self.id(), Instant::now(), report.clone());
        match self.leader() {
            Some((leader, _)) if leader == self.id() => self.judge.notify_one(),
            Some((leader, node)) => {
                let channel = self.peers.channel(leader, &node, Lane::Control);
                let asked = Instant::now();
                let answer = channel
                    .call(kind::REPORT, &codec::encode(&report), ANSWER_DEADLINE)
                    .await;
                // A leader of an earlier release knows no reports, and one that is gone hears the next one.
                let passed = answer
                    .ok()
                    .and_then(|body| wire::decode::<Vec<Passed>>(&body).ok());
                for Passed { node, age_ms, report } in passed.unwrap_or_default() {
                    let at = asked.checked_sub(Duration::from_millis(age_ms));
                    if let Some(at) = at.filter(|_| node != self.id()) {
                        self.reports.take(node, at, report);
                    }
                }
            }
            None => {}
        }
    }
}
