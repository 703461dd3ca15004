//! Carries a plan out: each strike at its time, each taken back at its time, and everything at the end.

use super::Kind;
use super::outcome::Outcome;
use super::plan::{Plan, Strike};
use super::strike::{Came, Ongoing};
use super::target::minority;
use crate::cluster::{Cluster, last_words};
use crate::history::Edge;
use crate::run::Recorder;
use anyhow::ensure;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How often clocks flicker, and fallen nodes are looked for.
const TICK: Duration = Duration::from_millis(100);
/// How often a strike that finds nothing to strike is tried again, and when.
const RETRIES: u8 = 4;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long nodes may take to come back once everything is healed.
const HEAL_PATIENCE: Duration = Duration::from_secs(60);
/// How long all have to answer: what a flush met while its disk was full ends the node at the next write.
const LATE: Duration = Duration::from_secs(2);

/// One plan under way on one cluster.
pub struct Campaign<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) recorder: &'a Recorder,
    ongoing: Vec<(Instant, Strike, Ongoing)>,
    /// Strikes that found nothing to strike: when they are tried again, and how often at most.
    retries: Vec<(Instant, u8, Strike)>,
    /// Nodes whose disks are lost, and whose successors are not members yet.
    pub(super) losses: BTreeSet<u64>,
    /// Nodes on whose disks bits were flipped, and who have not stopped over it.
    pub(super) damaged: BTreeSet<u64>,
    /// Nodes who may stop by themselves: their disks have failed.
    pub(super) excused: BTreeSet<u64>,
    /// Nodes who may stop because they are no members any more.
    pub(super) leaving: BTreeSet<u64>,
    /// Whether nothing is done that could keep a node from noticing that it was let go of.
    pub(super) undisturbed: bool,
    /// Whom each strike that is not over struck, by what it was drawn from.
    struck: BTreeMap<u64, Vec<u64>>,
    outcome: Outcome,
}

impl<'a> Campaign<'a> {
    /// A campaign on `cluster` that writes down what it does in `recorder`.
    pub fn new(cluster: &'a Cluster, recorder: &'a Recorder) -> Self {
        Campaign {
            cluster,
            recorder,
            ongoing: Vec::new(),
            retries: Vec::new(),
            losses: BTreeSet::new(),
            damaged: BTreeSet::new(),
            excused: BTreeSet::new(),
            leaving: BTreeSet::new(),
            undisturbed: false,
            struck: BTreeMap::new(),
            outcome: Outcome::default(),
        }
    }

    /// What came of it so far.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Carries out the whole plan. It can be dropped at any moment; [`Campaign::heal_all`] takes back what is left.
    pub async fn run(&mut self, plan: &Plan) {
        let began = Instant::now();
        let leaves_alone = |kind: &Kind| matches!(kind, Kind::Member | Kind::Transfer);
        self.undisturbed = plan.kinds.iter().all(leaves_alone);
        for strike in &plan.strikes {
            let at = began + strike.at;
            self.idle_until(at).await;
            let kind = strike.fault.kind();
            self.end_where(|_, earlier| earlier.fault.kind() == kind).await;
            // It has had its time.
            self.retries.retain(|(.., earlier)| earlier.fault.kind() != kind);
            self.attempt(strike, RETRIES).await;
        }
        while let Some(next) = self.next() {
            self.idle_until(next).await;
        }
    }

    /// When there is something to do again.
    fn next(&self) -> Option<Instant> {
        let ends = self.ongoing.iter().map(|(end, ..)| *end);
        ends.chain(self.retries.iter().map(|(at, ..)| *at)).min()
    }

    async fn attempt(&mut self, strike: &Strike, retries: u8) {
        let (kind, fault) = (strike.fault.kind(), strike.fault);
        match self.strike(strike).await {
            Ok(Came::Struck(ongoing)) => {
                // It lasts as long as was planned, however long it took to make it.
                let end = Instant::now() + (strike.until - strike.at);
                self.ongoing.push((end, strike.clone(), ongoing));
            }
            Ok(Came::Missed(_)) if retries > 0 => {
                let again = Strike {
                    // Others may be found that way.
                    draw: strike.draw.wrapping_add(1),
                    ..strike.clone()
                };
                self.retries
                    .push((Instant::now() + RETRY_PAUSE, retries - 1, again));
            }
            Ok(Came::Missed(why)) => self.miss(strike, &why),
            Err(error) => self.outcome.failures.push(format!("{kind}: {fault}: {error:#}")),
        }
    }

    /// Waits, while what is over is taken back, clocks flicker, and nodes that fell are started again.
    async fn idle_until(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            self.end_where(|end, _| end <= now).await;
            for (.., ongoing) in &mut self.ongoing {
                if let Err(error) = ongoing.tick(self.cluster).await {
                    self.outcome.failures.push(format!("{error:#}"));
                }
            }
            self.raise_fallen().await;
            self.retry_due(now).await;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until.min(now + TICK)).await;
        }
    }

    /// Tries again what found nothing to strike.
    async fn retry_due(&mut self, now: Instant) {
        let (due, rest) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition(|(at, ..)| *at <= now);
        self.retries = rest;
        for (_, retries, strike) in due {
            self.attempt(&strike, retries).await;
        }
    }

    /// Takes back what is chosen.
    async fn end_where(&mut self, chosen: impl Fn(Instant, &Strike) -> bool) {
        let (due, rest) = std::mem::take(&mut self.ongoing)
            .into_iter()
            .partition(|(end, strike, _)| chosen(*end, strike));
        self.ongoing = rest;
        for (_, strike, ongoing) in due {
            if let Err(error) = self.end(&strike, ongoing).await {
                let Strike { fault, .. } = strike;
                let failure = format!("{}: {fault} could not be taken back: {error:#}", fault.kind());
                self.outcome.failures.push(failure);
            }
        }
    }

    /// Writes down a fault as it begins or strikes.
    pub(super) fn record(&mut self, strike: &Strike, edge: Edge, what: impl Into<String>, nodes: &[u64]) {
        if edge == Edge::Begin {
            self.struck.insert(strike.draw, nodes.to_vec());
        }
        self.record_as(strike.fault.kind(), edge, what, nodes);
    }

    /// Writes down that a fault is over for the nodes that it struck.
    pub(super) fn record_end(&mut self, strike: &Strike, what: impl Into<String>) {
        let nodes = self.struck.remove(&strike.draw).unwrap_or_default();
        self.record_as(strike.fault.kind(), Edge::End, what, &nodes);
    }

    /// Writes down a fault under the name of another kind.
    pub(super) fn record_as(&self, kind: Kind, edge: Edge, what: impl Into<String>, nodes: &[u64]) {
        self.recorder.fault(kind.name(), edge, what, nodes.to_vec());
    }

    /// A node that was let go of goes on.
    pub(super) fn stayed(&mut self, id: u64) {
        let words = last_words(self.cluster.node(id));
        self.outcome
            .stayed
            .push(format!("node {id} was let go of and goes on:\n{words}"));
    }

    /// A strike came to nothing.
    pub(super) fn miss(&mut self, strike: &Strike, why: &str) {
        let fault = strike.fault;
        self.outcome
            .missed
            .push(format!("{}: {fault}: {why}", fault.kind()));
    }

    /// Nodes whose processes ended by themselves are found, blamed where no fault explains it, and started again.
    async fn raise_fallen(&mut self) {
        let fallen = match self.cluster.fallen().await {
            Ok(fallen) => fallen,
            Err(error) => return self.outcome.failures.push(format!("{error:#}")),
        };
        for id in fallen {
            let meanwhile =
                |(.., ongoing): &(_, _, Ongoing)| ongoing.fails_disk(id) || ongoing.keeps_away(id);
            if self.ongoing.iter().any(meanwhile) {
                continue;
            }
            let raised = if self.damaged.contains(&id) {
                self.replace_damaged(id).await
            } else if self.has_left(id) {
                self.rejoin(id).await
            } else {
                if !self.excused.contains(&id) && !self.losses.contains(&id) {
                    let words = last_words(self.cluster.node(id));
                    self.outcome
                        .fallen
                        .push(format!("node {id} ended by itself:\n{words}"));
                }
                self.cluster.start_node(id).await
            };
            if let Err(error) = raised {
                self.outcome
                    .failures
                    .push(format!("node {id} could not be started: {error:#}"));
            }
        }
    }

    /// Whether one more disk may be lost.
    pub(super) async fn may_lose_disk(&mut self) -> bool {
        self.settle_losses().await;
        self.losses.union(&self.damaged).count() < minority(self.cluster.nodes().len())
    }

    async fn settle_losses(&mut self) {
        for id in self.losses.clone() {
            if self.cluster.is_settled(id).await {
                self.losses.remove(&id);
            }
        }
    }

    /// Takes everything back, whatever is under way, and waits until every process answers and every lost disk is made
    /// good. What does not come back is in the outcome.
    pub async fn heal_all(&mut self) {
        self.retries.clear();
        self.end_where(|_, _| true).await;
        if let Err(error) = self.cluster.heal().await {
            self.outcome
                .failures
                .push(format!("not everything could be taken back: {error:#}"));
        }
        if let Err(error) = self.come_back().await {
            self.outcome.unhealed = Some(format!("{error:#}"));
        }
    }

    async fn come_back(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + HEAL_PATIENCE;
        let mut since = Instant::now();
        while since.elapsed() < LATE {
            for id in self.cluster.ids() {
                if self.cluster.answers(id).await {
                    continue;
                }
                since = Instant::now();
                self.raise_fallen().await;
                let words = || last_words(self.cluster.node(id));
                ensure!(since < deadline, "node {id} does not come back:\n{}", words());
            }
            tokio::time::sleep(TICK).await;
        }
        // A disk that flips bits is taken out before it takes its node down at some later time.
        for id in self.damaged.clone() {
            if self.cluster.is_up(id).await? {
                self.cluster.kill(id).await?;
            }
            self.replace_damaged(id).await?;
        }
        while !self.losses.is_empty() {
            self.settle_losses().await;
            ensure!(
                Instant::now() < deadline,
                "the members in the place of nodes {:?} do not settle",
                self.losses
            );
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }
}
