//! What can be done to a node.

use super::clock::{self, Skew};
use super::config::{self, Membership};
use super::process::{Order, Process};
use super::{Build, Cluster, POLL, Slot, leftovers};
use crate::disk::{Faults, FaultyDisk};
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the applications of a node that is wiped may take to be gone.
const WIPE_PATIENCE: Duration = Duration::from_secs(5);

impl Cluster {
    /// Starts the process of a node that has none. That it starts does not mean that it serves.
    ///
    /// # Errors
    /// Where it runs already, or cannot be started.
    pub async fn start_node(&self, id: u64) -> anyhow::Result<()> {
        self.name_predecessor(id).await;
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

    /// A node that is still to join takes the place of whoever votes there now, which may be one that was not seen to
    /// settle.
    async fn name_predecessor(&self, id: u64) {
        if self.node(id).dir.join("data").join("identity").exists() {
            return;
        }
        let Some(voter) = self.voter_in(id).await else {
            return;
        };
        if let Membership::Joins { replaces, .. } = &mut self.slot(id).await.membership {
            *replaces = Some(voter);
        }
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

    /// Sees to it that a node does not run: one whose disk is full may have ended by itself a moment ago.
    ///
    /// # Errors
    /// Where it was not started, or stays.
    pub async fn put_down(&self, id: u64) -> anyhow::Result<()> {
        let mut slot = self.slot(id).await;
        let mut process = self.take(id, &mut slot)?;
        if process.ended()?.is_none() {
            process.kill().await?;
        }
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
            clock::follows(process.id()).await?;
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

    /// Wipes a node that does not run, and starts it as a new member: in the place of the one that it was, as long as that
    /// votes.
    ///
    /// # Errors
    /// Where it runs, no other node does, or it cannot be started.
    pub async fn replace(&self, id: u64) -> anyhow::Result<()> {
        ensure!(
            !self.is_up(id).await?,
            "node {id} runs: its disk is not wiped under it"
        );
        let last = self.slot(id).await.member;
        self.begin_anew(id, Some(last)).await
    }

    /// Wipes a node that does not run, and starts it as a new member, in the place of one if that is given.
    pub(super) async fn begin_anew(&self, id: u64, replaces: Option<u64>) -> anyhow::Result<()> {
        let through = self.through(id).await?;
        let data = self.node(id).dir.join("data");
        leftovers::end(&data);
        if let Ok(disk) = self.disk(id).await {
            disk.set(Faults::default());
        }
        let deadline = Instant::now() + WIPE_PATIENCE;
        // What was working in it may still be writing its last.
        while let Err(error) = wipe(&data) {
            if Instant::now() > deadline {
                return Err(error).with_context(|| format!("cannot wipe {}", data.display()));
            }
            tokio::time::sleep(POLL).await;
        }
        {
            let mut slot = self.slot(id).await;
            slot.membership = Membership::Joins { through, replaces };
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
