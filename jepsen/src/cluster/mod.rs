//! The cluster under test: real processes of the real binary, and what can be done to each.
//!
//! A [`Node`] here is a place in the cluster: an address and a directory. The member that serves there has the same
//! number at first, and another one once it was replaced. Everything below the directory of the cluster is its own;
//! nothing of it runs any more once the cluster is dropped, or the harness is killed.
//!
//! It does what it is told and checks that it came about. What to do, and when, is for [`crate::nemesis`].

mod ask;
mod clock;
mod config;
mod leftovers;
mod process;

pub use ask::{Member, Status};
pub use clock::Skew;

use crate::disk::{self, Faults, FaultyDisk};
use crate::net::{Isolation, Network};
use anyhow::{Context, bail, ensure};
use ask::Ask;
use clock::Clock;
use config::Membership;
use futures::future::join_all;
use process::{Order, Process};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// How long all nodes may take to serve after the start.
const START_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
/// How much of a node's log is shown where it did not start.
const LOG_LINES: usize = 15;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binary under test.
    pub binary: PathBuf,
    /// The one that nodes are upgraded to and back from.
    pub other_binary: Option<PathBuf>,
    /// How many nodes.
    pub nodes: u64,
    /// Each node has a folder below it, by its number.
    pub dir: PathBuf,
    /// How they are kept apart.
    pub isolation: Isolation,
    /// What they are fitted with.
    pub fittings: Fittings,
}

/// What nodes are fitted with so that some faults can be done to them. Each costs some speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fittings {
    /// Peers reach each other through proxies: see [`Network::shape`].
    pub proxies: bool,
    /// Clocks can be set: see [`Cluster::set_clock`].
    pub clocks: bool,
    /// The log is compacted all the time, so that whoever lags needs a snapshot.
    pub snapshots: bool,
    /// Disks lose, tear, fail, fill and flip: see [`Cluster::disk`]. What a fault leaves open is drawn from this seed.
    pub disks: Option<u64>,
}

/// A place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number, from 1.
    pub id: u64,
    /// Where its HTTP API is, without a slash at the end.
    pub http: String,
    /// Where its DNS server is.
    pub dns: SocketAddr,
    /// Where its ingress is.
    pub ingress: SocketAddr,
    /// Its configuration, its log, and its data.
    pub dir: PathBuf,
}

/// Which binary a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// The one under test.
    Tested,
    /// The other one.
    Other,
}

/// A running cluster.
pub struct Cluster {
    options: Options,
    nodes: Vec<Node>,
    slots: Vec<Mutex<Slot>>,
    faketime: Option<PathBuf>,
    ask: Ask,
    network: Network,
}

/// What is in a place now.
struct Slot {
    process: Option<Process>,
    /// Who serves here, by its id in the cluster.
    member: u64,
    membership: Membership,
    build: Build,
    clock: Option<Clock>,
    disk: Option<Arc<FaultyDisk>>,
}

impl Cluster {
    /// Starts all nodes and waits until each serves.
    ///
    /// # Errors
    /// Where the machine does not allow what `options` ask for, or a node does not start; its last words are in the
    /// error.
    pub async fn start(options: Options) -> anyhow::Result<Cluster> {
        leftovers::end_orphans();
        disk::unmount_stale(Path::new("/"))?;
        let Fittings { proxies, clocks, .. } = options.fittings;
        let faketime = clocks.then(clock::library).transpose()?;
        std::fs::create_dir_all(&options.dir)
            .with_context(|| format!("cannot create {}", options.dir.display()))?;
        let dir = options.dir.canonicalize()?;
        leftovers::claim(&dir)?;
        let network = Network::lay(options.isolation, options.nodes, proxies).await?;
        let mut cluster = Cluster {
            options: Options { dir, ..options },
            nodes: Vec::new(),
            slots: Vec::new(),
            faketime,
            ask: Ask::new()?,
            network,
        };
        for id in 1..=cluster.options.nodes {
            cluster.lay_out(id)?;
        }
        for id in cluster.ids() {
            cluster.start_node(id).await?;
        }
        cluster.wait_until_ready(START_PATIENCE).await?;
        Ok(cluster)
    }

    fn lay_out(&mut self, id: u64) -> anyhow::Result<()> {
        let dir = self.options.dir.join(id.to_string());
        let data = dir.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot create {}", dir.display()))?;
        let addresses = self.network.addresses(id);
        let clock = self.faketime.as_ref().map(|_| Clock::make(&dir)).transpose()?;
        let seed = self.options.fittings.disks;
        let disk = seed.map(|seed| FaultyDisk::mount(&dir.join("disk"), &data, seed.wrapping_add(id)));
        let disk = disk.transpose()?.map(Arc::new);
        self.nodes.push(Node {
            id,
            http: format!("http://{}", addresses.http),
            dns: addresses.dns,
            ingress: addresses.ingress,
            dir,
        });
        self.slots.push(Mutex::new(Slot {
            process: None,
            member: id,
            membership: Membership::Initial,
            build: Build::Tested,
            clock,
            disk,
        }));
        Ok(())
    }

    /// All places.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Their numbers.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// What is between the nodes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The place of this number.
    ///
    /// # Panics
    /// Where there is none.
    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[place_of(id)]
    }

    async fn slot(&self, id: u64) -> MutexGuard<'_, Slot> {
        self.slots[place_of(id)].lock().await
    }

    /// Starts the process of a node that has none. That it starts does not mean that it serves.
    ///
    /// # Errors
    /// Where it runs already, or cannot be started.
    pub async fn start_node(&self, id: u64) -> anyhow::Result<()> {
        let mut slot = self.slot(id).await;
        if let Some(process) = &mut slot.process {
            ensure!(process.ended()?.is_some(), "node {id} runs already");
        }
        let node = self.node(id);
        let (config, log) = (node.dir.join("onward.toml"), node.dir.join("onward.log"));
        let text = config::text(
            &self.network,
            self.options.nodes,
            id,
            &node.dir.join("data"),
            &slot.membership,
            self.options.fittings.snapshots,
        );
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let environment = match (&slot.clock, &self.faketime) {
            (Some(clock), Some(library)) => clock.environment(library),
            _ => Vec::new(),
        };
        let order = Order {
            binary: self.binary(slot.build)?,
            config: &config,
            log: &log,
            environment,
        };
        let process = Process::start(self.network.place(id), order).await?;
        self.network.set_process(id, Some(process.id()));
        slot.process = Some(process);
        Ok(())
    }

    fn binary(&self, build: Build) -> anyhow::Result<&Path> {
        match build {
            Build::Tested => Ok(&self.options.binary),
            Build::Other => self
                .options
                .other_binary
                .as_deref()
                .context("there is no other binary"),
        }
    }

    /// Kills a node with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// Where it does not run, or stays.
    pub async fn kill(&self, id: u64) -> anyhow::Result<()> {
        let mut slot = self.slot(id).await;
        let mut process = self.take(id, &mut slot)?;
        process.kill().await?;
        clock::forget(process.id());
        Ok(())
    }

    /// Kills all of `ids` at once, and waits until they are gone.
    ///
    /// # Errors
    /// Where one does not run, or stays.
    pub async fn kill_at_once(&self, ids: &[u64]) -> anyhow::Result<()> {
        for &id in ids {
            if let Some(process) = &mut self.slot(id).await.process {
                process.strike()?;
            }
        }
        for &id in ids {
            let mut slot = self.slot(id).await;
            let mut process = self.take(id, &mut slot)?;
            process.gone().await?;
            clock::forget(process.id());
        }
        Ok(())
    }

    /// Asks a node to stop, as a service manager would, and waits until it has. A leader hands over first.
    ///
    /// # Errors
    /// Where it does not run, or stays.
    pub async fn stop_node(&self, id: u64) -> anyhow::Result<()> {
        let mut slot = self.slot(id).await;
        let mut process = self.take(id, &mut slot)?;
        process.stop().await
    }

    fn take(&self, id: u64, slot: &mut Slot) -> anyhow::Result<Process> {
        let process = slot
            .process
            .take()
            .with_context(|| format!("node {id} does not run"))?;
        self.network.set_process(id, None);
        Ok(process)
    }

    /// Stops a node's clockwork (SIGSTOP), and sees that it stands.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn pause(&self, id: u64) -> anyhow::Result<()> {
        let mut slot = self.slot(id).await;
        let process = slot
            .process
            .as_mut()
            .with_context(|| format!("node {id} does not run"))?;
        process.pause().await
    }

    /// Lets a node go on (SIGCONT).
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn resume(&self, id: u64) -> anyhow::Result<()> {
        let mut slot = self.slot(id).await;
        let process = slot
            .process
            .as_mut()
            .with_context(|| format!("node {id} does not run"))?;
        process.resume().await
    }

    /// Whether a node has a process, paused or not.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub async fn is_up(&self, id: u64) -> anyhow::Result<bool> {
        match &mut self.slot(id).await.process {
            Some(process) => Ok(process.ended()?.is_none()),
            None => Ok(false),
        }
    }

    /// Whether a node has a process that goes on.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub async fn is_running(&self, id: u64) -> anyhow::Result<bool> {
        match &mut self.slot(id).await.process {
            Some(process) => Ok(process.ended()?.is_none() && !process.paused()),
            None => Ok(false),
        }
    }

    /// The nodes whose processes ended without having been told to.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub async fn fallen(&self) -> anyhow::Result<Vec<u64>> {
        let mut fallen = Vec::new();
        for id in self.ids() {
            if let Some(process) = &mut self.slot(id).await.process
                && process.ended()?.is_some()
            {
                fallen.push(id);
            }
        }
        Ok(fallen)
    }

    /// Which binary a node runs from its next start on.
    pub async fn set_build(&self, id: u64, build: Build) {
        self.slot(id).await.build = build;
    }

    /// Sets the clock of a node. Its process, if it has one, sees it at once.
    ///
    /// # Errors
    /// Where nodes are not fitted with clocks, or the clock does not show it.
    pub async fn set_clock(&self, id: u64, skew: Skew) -> anyhow::Result<()> {
        let slot = self.slot(id).await;
        let clock = slot
            .clock
            .as_ref()
            .context("clocks cannot be set: nodes are not fitted for it")?;
        clock.set(skew)
    }

    /// How far a program that follows the same clock as a node finds itself ahead of the real time, in ms.
    ///
    /// # Errors
    /// Where nodes are not fitted with clocks, or the node does not follow its own.
    pub async fn clock_ahead_ms(&self, id: u64) -> anyhow::Result<i64> {
        let slot = self.slot(id).await;
        let (Some(clock), Some(library)) = (&slot.clock, &self.faketime) else {
            bail!("clocks cannot be set: nodes are not fitted for it");
        };
        if let Some(process) = &slot.process {
            clock::follows(process.id())?;
        }
        clock.ahead_ms(library)
    }

    /// The disk of a node.
    ///
    /// # Errors
    /// Where nodes are not fitted with disks.
    pub async fn disk(&self, id: u64) -> anyhow::Result<Arc<FaultyDisk>> {
        let disk = self.slot(id).await.disk.clone();
        disk.context("disks do not fail: nodes are not fitted for it")
    }

    /// Wipes a node that does not run, and starts it as a new member in the place of the one that it was.
    ///
    /// # Errors
    /// Where it runs, no other node does, or it cannot be started.
    pub async fn replace(&self, id: u64) -> anyhow::Result<()> {
        ensure!(
            !self.is_up(id).await?,
            "node {id} runs: its disk is not wiped under it"
        );
        let through = self.through(id).await?;
        let data = self.node(id).dir.join("data");
        leftovers::end(&data);
        if let Ok(disk) = self.disk(id).await {
            disk.set(Faults::default());
        }
        wipe(&data).with_context(|| format!("cannot wipe {}", data.display()))?;
        {
            let mut slot = self.slot(id).await;
            slot.membership = Membership::Joins {
                through,
                replaces: slot.member,
            };
        }
        self.start_node(id).await
    }

    /// The peer address of the leader, or of any other node that runs.
    async fn through(&self, id: u64) -> anyhow::Result<String> {
        let leader = self.leader().await.filter(|leader| *leader != id);
        let through = match leader {
            Some(leader) => leader,
            None => {
                let mut others = Vec::new();
                for other in self.ids() {
                    if other != id && self.is_running(other).await? {
                        others.push(other);
                    }
                }
                *others
                    .first()
                    .context("nobody runs whom a new member could join")?
            }
        };
        Ok(self.network.addresses(through).front.to_string())
    }

    /// Whether the member of a node votes, and the one that it replaced is gone, as the leader sees it.
    pub async fn is_settled(&self, id: u64) -> bool {
        let Some(leader) = self.leader().await else {
            return false;
        };
        let (Ok(here), Ok(known)) = (self.status(id).await, self.status(leader).await) else {
            return false;
        };
        let mut slot = self.slot(id).await;
        if let Membership::Joins { replaces, .. } = slot.membership
            && known.members.iter().any(|member| member.id == replaces)
        {
            return false;
        }
        slot.member = here.node;
        known.votes(here.node)
    }

    /// How a node sees the cluster.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn status(&self, id: u64) -> anyhow::Result<Status> {
        self.ask.status(&self.node(id).http).await
    }

    /// The node that leads, as it says itself; the one of the highest term where two say so.
    pub async fn leader(&self) -> Option<u64> {
        let asked = self.ids().into_iter().map(|id| async move {
            // One that is paused would be waited for in vain.
            if !self.is_running(id).await.unwrap_or(false) {
                return None;
            }
            let status = self.status(id).await.ok()?;
            (status.role == "leader").then_some((status.term, id))
        });
        let leaders = join_all(asked).await.into_iter().flatten();
        leaders.max().map(|(_, id)| id)
    }

    /// Whether a node answers at all.
    pub async fn answers(&self, id: u64) -> bool {
        self.ask.succeeds(&self.node(id).http, "/healthz").await
    }

    /// Takes back what can be done to a cluster: the network is whole, clocks are right, everybody runs the binary under
    /// test and goes on.
    ///
    /// # Errors
    /// Where something could not be taken back.
    pub async fn heal(&self) -> anyhow::Result<()> {
        self.network.heal().await?;
        for id in self.ids() {
            if self.options.fittings.clocks {
                self.set_clock(id, Skew::default()).await?;
            }
            if let Ok(disk) = self.disk(id).await {
                disk.set(Faults::default());
            }
            let replaced = self.slot(id).await.build != Build::Tested;
            self.set_build(id, Build::Tested).await;
            if !self.is_up(id).await? {
                self.start_node(id).await?;
            } else if replaced {
                self.stop_node(id).await?;
                self.start_node(id).await?;
            } else {
                self.resume(id).await?;
            }
        }
        Ok(())
    }

    /// Waits until every node serves: it knows a leader and applies entries.
    ///
    /// # Errors
    /// Where one does not in time, or its process ends.
    pub async fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for node in &self.nodes {
            while !self.ask.succeeds(&node.http, "/readyz").await {
                let gone = !self.is_up(node.id).await?;
                if gone || Instant::now() > deadline {
                    let what = if gone { "ended" } else { "does not serve" };
                    bail!("node {} {what}:\n{}", node.id, last_words(node));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some(process) = slot.get_mut().process.take() {
                let pid = process.id();
                drop(process);
                clock::forget(pid);
            }
        }
        leftovers::end(&self.options.dir);
    }
}

fn place_of(id: u64) -> usize {
    usize::try_from(id - 1).expect("a handful of nodes")
}

/// Removes what is in a directory, which may be a mount.
fn wipe(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Why clocks cannot be set here, if they cannot.
pub fn clocks_obstacle() -> Option<String> {
    clock::library().err().map(|error| format!("{error:#}"))
}

/// The end of a node's log.
pub fn last_words(node: &Node) -> String {
    let text = std::fs::read_to_string(node.dir.join("onward.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
pub(crate) mod tests;
