//! Strikes: how each fault is made, seen to have its effect, and taken back.

use super::campaign::Campaign;
use super::partition::{self, Shape};
use super::plan::{Fault, Hold, Stream, Strike, Time};
use super::target::{Target, running};
use crate::cluster::{Build, Cluster, Skew};
use crate::history::Edge;
use crate::net::{self, Passage};
use anyhow::ensure;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How long a fault between nodes may take to show in what it stops. Leaders are heard of ten times a second.
const EFFECT_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a node may take to answer before the next one is upgraded.
const UPGRADE_PATIENCE: Duration = Duration::from_secs(5);
/// How much longer a follower is held back where the log that it lacks is not gone yet.
const HOLD_PATIENCE: Duration = Duration::from_secs(15);
pub(super) const POLL: Duration = Duration::from_millis(20);
/// How exactly a clock must show what it was set to, besides what its speed adds.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

type Links = BTreeSet<(u64, u64)>;

/// What came of a strike.
pub(super) enum Came {
    /// It happened.
    Struck(Ongoing),
    /// It did not, because of this.
    Missed(String),
}

/// What has to be taken back.
pub(super) enum Ongoing {
    /// Nothing.
    Over,
    /// These are down.
    Down(Vec<u64>),
    /// These are paused.
    Paused(Vec<u64>),
    /// These links are cut.
    Cut(Links),
    /// These links are shaped.
    Shaped(Links),
    /// These links lose packets.
    Lossy(Links),
    /// These clocks are off.
    Clocks(Vec<u64>),
    /// These clocks flicker.
    Strobe(Vec<u64>, Skew, bool),
    /// A follower is held back.
    Held {
        /// Which.
        node: u64,
        /// What it had applied.
        applied: u64,
        /// How.
        hold: Hold,
        /// What has to be taken back.
        by: Box<Ongoing>,
    },
    /// All run the other binary.
    Upgraded,
    /// These have disks that fail.
    FailingDisks(Vec<u64>),
    /// This one is no member, or may be none.
    Gone(u64),
}

impl Ongoing {
    /// Whether the disk of this node fails meanwhile.
    pub(super) fn fails_disk(&self, id: u64) -> bool {
        matches!(self, Ongoing::FailingDisks(nodes) if nodes.contains(&id))
    }

    /// Whether this node stays away meanwhile.
    pub(super) fn keeps_away(&self, id: u64) -> bool {
        matches!(self, Ongoing::Gone(gone) if *gone == id)
    }

    /// What has to be done all the time.
    pub(super) async fn tick(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        if let Ongoing::Strobe(nodes, skew, off) = self {
            *off = !*off;
            for id in nodes {
                let skew = if *off { *skew } else { Skew::default() };
                cluster.set_clock(*id, skew).await?;
            }
        }
        Ok(())
    }
}

impl Campaign<'_> {
    /// Makes a fault.
    pub(super) async fn strike(&mut self, strike: &Strike) -> anyhow::Result<Came> {
        let mut rng = ChaCha8Rng::seed_from_u64(strike.draw);
        match strike.fault {
            Fault::Partition(shape) => self.partition(strike, shape, &mut rng).await,
            Fault::Rolling => self.upgrade(strike).await,
            Fault::Snapshot(hold) => self.hold_back(hold, &mut rng).await,
            Fault::Bitflip(count) => self.flip(strike, count, &mut rng).await,
            Fault::Transfer(heir) => self.transfer(strike, heir, &mut rng).await,
            Fault::Kill(target)
            | Fault::Pause(target)
            | Fault::Restart(target)
            | Fault::Power(target)
            | Fault::Replace(target)
            | Fault::Member(target)
            | Fault::Slow(target, _)
            | Fault::Lossy(target, _)
            | Fault::Clock(target, _)
            | Fault::PowerLoss(target, _)
            | Fault::Disk(target, _) => {
                let nodes = running(target, self.cluster, &mut rng).await?;
                if nodes.is_empty() {
                    return Ok(Came::Missed("no such node runs".to_owned()));
                }
                self.strike_nodes(strike, target, nodes).await
            }
        }
    }

    async fn strike_nodes(
        &mut self,
        strike: &Strike,
        target: Target,
        nodes: Vec<u64>,
    ) -> anyhow::Result<Came> {
        let cluster = self.cluster;
        let what = format!("{}: {}", strike.fault, listed(&nodes));
        match strike.fault {
            Fault::Pause(_) => {
                for id in &nodes {
                    cluster.pause(*id).await?;
                }
                self.record(strike, Edge::Begin, what, &nodes);
                Ok(Came::Struck(Ongoing::Paused(nodes)))
            }
            Fault::Restart(_) => {
                for id in &nodes {
                    cluster.stop_node(*id).await?;
                    cluster.start_node(*id).await?;
                }
                self.record(strike, Edge::Moment, what, &nodes);
                Ok(Came::Struck(Ongoing::Over))
            }
            Fault::Slow(_, stream) => {
                let links = links_of(cluster, target, &nodes);
                for (from, to) in &links {
                    let shape = shape(stream, nodes.contains(from));
                    cluster.network().shape(*from, *to, shape)?;
                }
                self.between(strike, what, nodes, Ongoing::Shaped(links.clone()), links)
                    .await
            }
            Fault::Lossy(_, percent) => {
                let links = links_of(cluster, target, &nodes);
                for (from, to) in &links {
                    cluster.network().lose(*from, *to, percent).await?;
                }
                self.between(strike, what, nodes, Ongoing::Lossy(links.clone()), links)
                    .await
            }
            Fault::Clock(_, time) => self.set_clocks(strike, time, nodes, what).await,
            Fault::Replace(_) => self.replace(strike, nodes[0]).await,
            Fault::Member(_) => self.remove(strike, nodes[0]).await,
            Fault::PowerLoss(_, loss) => self.power_loss(strike, loss, nodes).await,
            Fault::Disk(_, media) => self.fail_disks(strike, media, nodes).await,
            _ => {
                cluster.kill_at_once(&nodes).await?;
                self.record(strike, Edge::Begin, what, &nodes);
                Ok(Came::Struck(Ongoing::Down(nodes)))
            }
        }
    }

    async fn partition(
        &mut self,
        strike: &Strike,
        shape: Shape,
        rng: &mut ChaCha8Rng,
    ) -> anyhow::Result<Came> {
        let leader = self.cluster.leader().await;
        let nodes = self.cluster.ids();
        let running = running(Target::All, self.cluster, rng).await?;
        let (cuts, how) = partition::cuts(shape, &nodes, &running, leader, rng);
        for (from, to) in &cuts {
            self.cluster.network().cut(*from, *to).await?;
        }
        let what = format!("{shape}: {how}");
        self.between(strike, what, nodes, Ongoing::Cut(cuts.clone()), cuts)
            .await
    }

    /// Sees that a fault between nodes stops something; takes it back where it does not.
    async fn between(
        &mut self,
        strike: &Strike,
        what: String,
        nodes: Vec<u64>,
        ongoing: Ongoing,
        links: Links,
    ) -> anyhow::Result<Came> {
        let before = touched(self.cluster, &links).await?;
        let deadline = Instant::now() + EFFECT_PATIENCE;
        while touched(self.cluster, &links).await? == before {
            if Instant::now() > deadline {
                take_back(self.cluster, ongoing).await?;
                return Ok(Came::Missed(format!("{what}: nothing was under way there")));
            }
            tokio::time::sleep(POLL).await;
        }
        self.record(strike, Edge::Begin, what, &nodes);
        Ok(Came::Struck(ongoing))
    }

    async fn set_clocks(
        &mut self,
        strike: &Strike,
        time: Time,
        nodes: Vec<u64>,
        what: String,
    ) -> anyhow::Result<Came> {
        let (Time::Off(skew) | Time::Strobe(skew)) = time;
        for id in &nodes {
            self.cluster.set_clock(*id, skew).await?;
            let shown = self.cluster.clock_ahead_ms(*id).await?;
            // At another speed it moves away from what it was set to.
            let exact = (skew.rate - 1.0).abs() < f64::EPSILON;
            ensure!(
                !exact || (shown - skew.ahead_ms).abs() < CLOCK_TOLERANCE_MS,
                "the clock of node {id} was set {} ms ahead and is {shown} ms",
                skew.ahead_ms
            );
        }
        self.record(strike, Edge::Begin, what, &nodes);
        Ok(Came::Struck(match time {
            Time::Off(_) => Ongoing::Clocks(nodes),
            Time::Strobe(skew) => Ongoing::Strobe(nodes, skew, true),
        }))
    }

    async fn replace(&mut self, strike: &Strike, id: u64) -> anyhow::Result<Came> {
        if !self.may_lose_disk().await {
            return Ok(Came::Missed(
                "one more disk would be more than a minority".to_owned(),
            ));
        }
        if self.others_running(id).await? <= self.cluster.nodes().len() / 2 {
            return Ok(Came::Missed(
                "too few would be left to take a new member in".to_owned(),
            ));
        }
        self.losses.insert(id);
        self.cluster.kill(id).await?;
        self.cluster.replace(id).await?;
        let what = format!("node {id} has lost its disk, a new member takes its place");
        self.record(strike, Edge::Moment, what, &[id]);
        Ok(Came::Struck(Ongoing::Over))
    }

    /// How many other nodes run.
    pub(super) async fn others_running(&self, id: u64) -> anyhow::Result<usize> {
        let mut others = 0;
        for other in self.cluster.ids() {
            others += usize::from(other != id && self.cluster.is_running(other).await?);
        }
        Ok(others)
    }

    /// Begins to hold a follower back until it needs a snapshot.
    async fn hold_back(&mut self, hold: Hold, rng: &mut ChaCha8Rng) -> anyhow::Result<Came> {
        let nodes = running(Target::Follower, self.cluster, rng).await?;
        let [id] = nodes[..] else {
            return Ok(Came::Missed("there is no follower".to_owned()));
        };
        let Ok(status) = self.cluster.status(id).await else {
            return Ok(Came::Missed(format!("node {id} does not say what it has")));
        };
        let held = match hold {
            Hold::Paused => {
                self.cluster.pause(id).await?;
                Ongoing::Paused(nodes)
            }
            Hold::Killed => {
                self.cluster.kill(id).await?;
                Ongoing::Down(nodes)
            }
            Hold::Alone => {
                let links = links_of(self.cluster, Target::Follower, &nodes);
                for (from, to) in &links {
                    self.cluster.network().cut(*from, *to).await?;
                }
                Ongoing::Cut(links)
            }
        };
        let what = format!("node {id}, held back at revision {}", status.applied);
        self.record_as(hold.kind(), Edge::Begin, what, &[id]);
        Ok(Came::Struck(Ongoing::Held {
            node: id,
            applied: status.applied,
            hold,
            by: Box::new(held),
        }))
    }

    /// Takes a fault back.
    pub(super) async fn end(&mut self, strike: &Strike, ongoing: Ongoing) -> anyhow::Result<()> {
        match ongoing {
            Ongoing::Over => Ok(()),
            Ongoing::Held {
                node,
                applied,
                hold,
                by,
            } => {
                let gone = log_is_gone(self.cluster, node, applied).await;
                // Only that is the fault; the rest is a pause like any other.
                if let Some(first) = gone {
                    let what = format!("node {node} has {applied}, and the log begins at {first}");
                    self.record(strike, Edge::Moment, what, &[node]);
                } else {
                    self.miss(strike, "the log that the follower lacks is still there");
                }
                take_back(self.cluster, *by).await?;
                self.record_as(hold.kind(), Edge::End, format!("node {node}"), &[node]);
                Ok(())
            }
            Ongoing::Upgraded => {
                roll(self.cluster, Build::Tested).await?;
                self.record_end(strike, "all are back");
                Ok(())
            }
            Ongoing::FailingDisks(nodes) => {
                self.mend_disks(&nodes).await?;
                self.record_end(strike, strike.fault.to_string());
                Ok(())
            }
            Ongoing::Gone(id) => {
                let what = self.bring_back(id).await?;
                self.record_end(strike, what);
                Ok(())
            }
            ongoing => {
                take_back(self.cluster, ongoing).await?;
                self.record_end(strike, strike.fault.to_string());
                Ok(())
            }
        }
    }

    async fn upgrade(&mut self, strike: &Strike) -> anyhow::Result<Came> {
        let nodes = self.cluster.ids();
        ensure!(
            self.cluster.options().other_binary.is_some(),
            "there is no other binary"
        );
        self.record(strike, Edge::Begin, "to the other binary, one by one", &nodes);
        roll(self.cluster, Build::Other).await?;
        Ok(Came::Struck(Ongoing::Upgraded))
    }
}

/// Takes back what it can without a word.
async fn take_back(cluster: &Cluster, ongoing: Ongoing) -> anyhow::Result<()> {
    let network = cluster.network();
    match ongoing {
        Ongoing::Down(nodes) => {
            for id in &nodes {
                // Another fault may have brought it back.
                if !cluster.is_up(*id).await? {
                    cluster.start_node(*id).await?;
                }
            }
        }
        Ongoing::Paused(nodes) => {
            for id in &nodes {
                if cluster.is_up(*id).await? {
                    cluster.resume(*id).await?;
                }
            }
        }
        Ongoing::Cut(links) => {
            for (from, to) in &links {
                network.mend(*from, *to).await?;
            }
        }
        Ongoing::Shaped(links) => {
            for (from, to) in &links {
                network.shape(*from, *to, net::Shape::default())?;
            }
        }
        Ongoing::Lossy(links) => {
            for (from, to) in &links {
                network.lose(*from, *to, 0).await?;
            }
        }
        Ongoing::Clocks(nodes) | Ongoing::Strobe(nodes, ..) => {
            for id in &nodes {
                cluster.set_clock(*id, Skew::default()).await?;
            }
        }
        // Taken back in ways of their own.
        Ongoing::Over
        | Ongoing::Held { .. }
        | Ongoing::Upgraded
        | Ongoing::FailingDisks(_)
        | Ongoing::Gone(_) => {}
    }
    Ok(())
}

/// Waits until the log that a node lacks is gone; where the leader's log begins then.
async fn log_is_gone(cluster: &Cluster, id: u64, applied: u64) -> Option<u64> {
    let deadline = Instant::now() + HOLD_PATIENCE;
    loop {
        if let Some(leader) = cluster.leader().await.filter(|leader| *leader != id)
            && let Ok(status) = cluster.status(leader).await
            && status.first_log > applied + 1
        {
            return Some(status.first_log);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Brings all nodes to this build, one after the other.
async fn roll(cluster: &Cluster, build: Build) -> anyhow::Result<()> {
    for id in cluster.ids() {
        cluster.set_build(id, build).await;
        // One that is down comes back with it.
        if !cluster.is_up(id).await? {
            continue;
        }
        cluster.stop_node(id).await?;
        cluster.start_node(id).await?;
        let deadline = Instant::now() + UPGRADE_PATIENCE;
        while !cluster.answers(id).await && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// All directions from and to these nodes.
fn links_of(cluster: &Cluster, target: Target, nodes: &[u64]) -> Links {
    let all = cluster.ids();
    let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to)));
    let concerned = |id: &u64| target == Target::All || nodes.contains(id);
    pairs
        .filter(|(from, to)| from != to && (concerned(from) || concerned(to)))
        .collect()
}

async fn touched(cluster: &Cluster, links: &Links) -> anyhow::Result<u64> {
    let mut sum = 0;
    for (from, to) in links {
        sum += cluster.network().touched(*from, *to).await?;
    }
    Ok(sum)
}

/// `outward`: it is the struck node that sends.
fn shape(stream: Stream, outward: bool) -> net::Shape {
    let open = net::Shape::default();
    match stream {
        Stream::Late { delay_ms, jitter_ms } => net::Shape {
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::from_millis(jitter_ms),
            ..open
        },
        Stream::Thin { bytes_per_second } => net::Shape {
            bytes_per_second: Some(bytes_per_second),
            ..open
        },
        Stream::Stuck if outward => net::Shape {
            passage: Passage::Held,
            ..open
        },
        Stream::Stuck => open,
        Stream::Broken => net::Shape {
            passage: Passage::Reset,
            ..open
        },
    }
}

pub(super) fn listed(nodes: &[u64]) -> String {
    let names: Vec<String> = nodes.iter().map(u64::to_string).collect();
    names.join(" ")
}
