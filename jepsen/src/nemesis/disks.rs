//! Strikes on disks.
//!
//! A node whose disk fails may stop, and should: it is excused, and started again once the disk is well. One whose bits
//! were flipped is replaced as soon as it stops; as long as it does not, it counts as lost all the same.

use super::Kind;
use super::campaign::Campaign;
use super::plan::{Media, Strike};
use super::strike::{Came, Ongoing, POLL, listed};
use super::target::{Target, running};
use crate::disk::{Counts, Faults, FaultyDisk, Flip, Loss};
use crate::history::Edge;
use anyhow::Context;
use rand::rngs::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a fault may take to be felt: the next write does, or, of a full disk, the next new file.
const EFFECT_PATIENCE: Duration = Duration::from_secs(4);
/// Where bits are flipped: in what a node keeps, not in who it is.
const FLIPPED: [&str; 3] = ["log", "state", "snap"];

impl Campaign<'_> {
    /// Kills nodes at once; what they had not synced is lost.
    pub(super) async fn power_loss(
        &mut self,
        strike: &Strike,
        loss: Loss,
        nodes: Vec<u64>,
    ) -> anyhow::Result<Came> {
        self.cluster.kill_at_once(&nodes).await?;
        let (mut bytes, mut names) = (0, 0);
        for id in &nodes {
            let lost = self.on_disk(*id, move |disk| disk.power_cut(loss)).await?;
            bytes += lost.bytes;
            names += lost.names.len();
        }
        if bytes == 0 && names == 0 {
            for id in &nodes {
                self.cluster.start_node(*id).await?;
            }
            self.record_as(Kind::Power, Edge::Moment, listed(&nodes), &nodes);
            return Ok(Came::Missed("everything was synced".to_owned()));
        }
        let what = format!(
            "{}: {}: lost {bytes} bytes in files and {names} changes of directories",
            strike.fault,
            listed(&nodes)
        );
        self.record(strike, Edge::Begin, what, &nodes);
        Ok(Came::Struck(Ongoing::Down(nodes)))
    }

    /// Lets disks fail until the strike is over.
    pub(super) async fn fail_disks(
        &mut self,
        strike: &Strike,
        media: Media,
        nodes: Vec<u64>,
    ) -> anyhow::Result<Came> {
        let before = self.hurt(media, &nodes).await?;
        for id in &nodes {
            self.cluster.disk(*id).await?.set(faults(media));
        }
        self.excused.extend(&nodes);
        let deadline = Instant::now() + EFFECT_PATIENCE;
        while self.hurt(media, &nodes).await? == before {
            if Instant::now() > deadline {
                self.mend_disks(&nodes).await?;
                return Ok(Came::Missed("nothing was written meanwhile".to_owned()));
            }
            tokio::time::sleep(POLL).await;
        }
        let what = format!("{}: {}", strike.fault, listed(&nodes));
        self.record(strike, Edge::Begin, what, &nodes);
        Ok(Came::Struck(Ongoing::FailingDisks(nodes)))
    }

    /// How many calls have felt this fault so far.
    async fn hurt(&self, media: Media, nodes: &[u64]) -> anyhow::Result<u64> {
        let mut hurt = 0;
        for id in nodes {
            let Counts {
                failed_syncs,
                full,
                delayed,
                ..
            } = self.cluster.disk(*id).await?.counts();
            hurt += match media {
                Media::SyncErrors(_) => failed_syncs,
                Media::Full(_) => full,
                Media::Slow { .. } => delayed,
            };
        }
        Ok(hurt)
    }

    /// Makes disks work again, and starts the nodes that stopped because of them.
    pub(super) async fn mend_disks(&mut self, nodes: &[u64]) -> anyhow::Result<()> {
        for id in nodes {
            self.cluster.disk(*id).await?.set(Faults::default());
            if !self.cluster.is_up(*id).await? {
                // What a failed sync left in memory alone is gone by the time that somebody has looked after the disk.
                self.on_disk(*id, FaultyDisk::evict_dropped).await?;
                self.cluster.start_node(*id).await?;
            }
        }
        Ok(())
    }

    /// Flips bits on one disk, while its node is down for a moment.
    pub(super) async fn flip(
        &mut self,
        strike: &Strike,
        count: usize,
        rng: &mut ChaCha8Rng,
    ) -> anyhow::Result<Came> {
        let mut candidates = running(Target::All, self.cluster, rng).await?;
        if !self.may_lose_disk().await {
            candidates.retain(|id| self.damaged.contains(id));
        }
        let pick = super::target::pick(Target::Leader, None, self.cluster.nodes().len(), &candidates, rng);
        let [id] = pick[..] else {
            return Ok(Came::Missed(
                "one more disk would be more than a minority".to_owned(),
            ));
        };
        self.cluster.put_down(id).await?;
        self.damaged.insert(id);
        let of_the_node = |file: &Path| {
            // What RocksDB tells people is read by nobody else.
            let told = file
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("LOG"));
            !told && FLIPPED.iter().any(|folder| file.starts_with(folder))
        };
        let flips = self
            .on_disk(id, move |disk| disk.flip_bits(of_the_node, count))
            .await?;
        self.cluster.start_node(id).await?;
        if flips.is_empty() {
            self.record_as(Kind::Kill, Edge::Moment, format!("node {id}"), &[id]);
            return Ok(Came::Missed("there is nothing on that disk".to_owned()));
        }
        let what = format!("node {id}: {}", places(&flips));
        self.record(strike, Edge::Moment, what, &[id]);
        Ok(Came::Struck(Ongoing::Over))
    }

    /// Replaces a node whose disk was damaged and who does not run.
    pub(super) async fn replace_damaged(&mut self, id: u64) -> anyhow::Result<()> {
        if self.others_running(id).await? == 0 {
            // There is nobody yet whom a new member could join.
            return Ok(());
        }
        self.cluster.replace(id).await?;
        self.damaged.remove(&id);
        self.losses.insert(id);
        let what = format!("node {id} has a damaged disk, a new member takes its place");
        self.record_as(Kind::Replace, Edge::Moment, what, &[id]);
        Ok(())
    }

    /// Does something to a disk, off the threads that others wait for.
    async fn on_disk<T: Send + 'static>(
        &self,
        id: u64,
        act: impl FnOnce(&FaultyDisk) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let disk: Arc<FaultyDisk> = self.cluster.disk(id).await?;
        let acted = tokio::task::spawn_blocking(move || act(&disk)).await?;
        acted.with_context(|| format!("the disk of node {id}"))
    }
}

fn faults(media: Media) -> Faults {
    match media {
        Media::SyncErrors(sync_errors) => Faults {
            sync_errors,
            ..Faults::default()
        },
        Media::Full(left) => Faults {
            space_left: Some(left),
            ..Faults::default()
        },
        Media::Slow { sync_ms, other_ms } => Faults {
            sync_delay: Duration::from_millis(sync_ms),
            read_delay: Duration::from_millis(other_ms),
            write_delay: Duration::from_millis(other_ms),
            ..Faults::default()
        },
    }
}

/// How many bits were flipped in which files.
fn places(flips: &[Flip]) -> String {
    let mut files: Vec<String> = flips.iter().map(|flip| flip.file.display().to_string()).collect();
    files.sort();
    files.dedup();
    format!("{} in {}", flips.len(), files.join(", "))
}
