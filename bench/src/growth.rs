//! Cost as work grows: one benchmark, 64 clients that put, with more and more pairs stored, more nodes, longer values.

use crate::fill::{self, Bulk};
use crate::load::{self, Keys, Load, Sample, Summary, Work};
use crate::machine;
use crate::system::{Kind, Programs, System};
use crate::values::Values;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// How many nodes there are while values grow.
pub const NODES: usize = 3;
/// How many there are while keys are stored: millions of them, three times, would want three times the disk, and no node
/// does anything else with more of them.
pub const KEYS_NODES: usize = 1;
/// How many clients put.
pub const CLIENTS: usize = 64;
/// How long a system may take to come to rest once pairs are stored.
const SETTLE: Duration = Duration::from_secs(60);

/// How far each grows.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Pairs that are stored, rising.
    pub keys: Vec<u64>,
    /// Nodes of ours.
    pub nodes: Vec<usize>,
    /// Of the peer, which is not run with an even number.
    pub peer_nodes: Vec<usize>,
    /// Bytes of each value.
    pub value_bytes: Vec<usize>,
    /// How often each is measured.
    pub rounds: u32,
    /// Ahead of each measurement.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
}

/// What grew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grown {
    /// Pairs that are stored.
    Keys,
    /// Members of the cluster.
    Nodes,
    /// Bytes of each value.
    ValueBytes,
}

/// What was measured at one size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// Who was measured.
    pub kind: Kind,
    /// What grew.
    pub grown: Grown,
    /// How far.
    pub at: u64,
    /// What came of it.
    pub load: Summary,
    /// Memory of the largest node then.
    pub resident_mib: u64,
    /// What a node holds on the disk then.
    pub disk_mib: u64,
}

/// Measures everything, of each system.
pub async fn measure(sizes: &Sizes, kinds: &[Kind], programs: &Programs, dir: &Path) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    // Each by one way of asking it; of etcd's two by the faster one.
    let chosen = |kind: &Kind| !matches!(kind, Kind::OnwardShared | Kind::Etcd);
    for kind in kinds.iter().copied().filter(chosen) {
        let growing = Growing {
            sizes,
            kind,
            programs,
            dir,
        };
        points.extend(growing.keys().await?);
        for nodes in growing.nodes() {
            points.push(growing.fresh(Grown::Nodes, *nodes, load::VALUE_BYTES).await?);
        }
        for bytes in &sizes.value_bytes {
            points.push(growing.fresh(Grown::ValueBytes, NODES, *bytes).await?);
        }
    }
    Ok(points)
}

/// One system as it grows.
struct Growing<'a> {
    sizes: &'a Sizes,
    kind: Kind,
    programs: &'a Programs,
    dir: &'a Path,
}

impl Growing<'_> {
    fn nodes(&self) -> &[usize] {
        if self.kind.is_ours() {
            &self.sizes.nodes
        } else {
            &self.sizes.peer_nodes
        }
    }

    fn load(&self, value_bytes: usize, keys: Keys) -> Load {
        Load {
            work: Work::Put,
            clients: CLIENTS,
            value_bytes,
            keys,
            warm_up: self.sizes.warm_up,
            measured: self.sizes.measured,
        }
    }

    /// One node that is stored more and more in; stored pairs are put again, so that their number stays.
    async fn keys(&self) -> Result<Vec<Point>> {
        let dir = self.dir.join(format!("{:?}-keys", self.kind));
        let system = System::start(self.kind, KEYS_NODES, self.programs, &dir).await?;
        let values = Values::new(load::VALUE_BYTES);
        let mut points = Vec::new();
        let mut stored = 0;
        for keys in self.sizes.keys.iter().copied() {
            let began = Instant::now();
            fill::store(&system, stored..keys, &values, Bulk::default()).await?;
            let took = began.elapsed();
            stored = keys;
            system.settle(SETTLE).await?;
            crate::progress(format_args!(
                "{}: {keys} keys are stored, the last of them in {took:.1?}, settled after {:.1?}",
                self.kind.name(),
                began.elapsed() - took,
            ));
            let mut sample = Sample::default();
            for _ in 0..self.sizes.rounds {
                let load = self.load(load::VALUE_BYTES, Keys::Stored(keys));
                sample.add(self.run(&system, load).await?);
            }
            points.push(self.point(Grown::Keys, keys, &sample, &system)?);
        }
        drop(system);
        std::fs::remove_dir_all(&dir)?;
        Ok(points)
    }

    /// An empty cluster of so many nodes for each round, and new pairs of so many bytes.
    async fn fresh(&self, grown: Grown, nodes: usize, value_bytes: usize) -> Result<Point> {
        let at = match grown {
            Grown::Keys | Grown::Nodes => nodes,
            Grown::ValueBytes => value_bytes,
        };
        let mut sample = Sample::default();
        let mut point = None;
        for round in 0..self.sizes.rounds {
            let dir = self.dir.join(format!("{:?}-{grown:?}-{at}-{round}", self.kind));
            let system = System::start(self.kind, nodes, self.programs, &dir).await?;
            let load = self.load(value_bytes, Keys::New(round));
            sample.add(self.run(&system, load).await?);
            point = Some(self.point(grown, at as u64, &sample, &system)?);
            drop(system);
            std::fs::remove_dir_all(&dir)?;
        }
        point.context("nothing is measured in no round")
    }

    async fn run(&self, system: &System, load: Load) -> Result<Sample> {
        load::run(system, load).await.with_context(|| {
            let log = system.last_words();
            format!("{}; its nodes logged last:\n{log}\n", self.kind.name())
        })
    }

    fn point(&self, grown: Grown, at: u64, sample: &Sample, system: &System) -> Result<Point> {
        let load = sample.summary();
        let resident_mib = machine::resident_mib(&system.pids)?;
        crate::progress(format_args!(
            "{}: {grown:?} at {at}: {} puts/s, p50 {:.2} ms, p99 {:.2} ms",
            self.kind.name(),
            load.rate(),
            load.p50_ms,
            load.p99_ms,
        ));
        Ok(Point {
            kind: self.kind,
            grown,
            at,
            load,
            resident_mib: resident_mib.into_iter().max().unwrap_or(0),
            disk_mib: system.disk_mib()?,
        })
    }
}
