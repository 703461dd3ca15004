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
mod deeds;
mod leftovers;
mod members;
mod process;
mod view;

pub use ask::{Asked, Member, Status};
pub use clock::Skew;
pub use view::last_words;

use crate::disk::{self, Faults, FaultyDisk};
use crate::net::{Isolation, Network};
use anyhow::Context;
use ask::Ask;
use clock::Clock;
use config::Membership;
use process::Process;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// How long all nodes may take to serve after the start.
const START_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);

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

/// Why clocks cannot be set here, if they cannot.
pub fn clocks_obstacle() -> Option<String> {
    clock::library().err().map(|error| format!("{error:#}"))
}

#[cfg(test)]
pub(crate) mod tests;
