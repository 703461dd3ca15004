//! A cluster that nothing is done to: `onward dev` on loopback.

use crate::client::Target;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const START_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Announcement {
    nodes: Vec<Announced>,
}

#[derive(Deserialize)]
struct Announced {
    id: u64,
    http: String,
    dns: SocketAddr,
    ingress: SocketAddr,
}

/// The processes, killed when dropped.
pub(super) struct Cluster {
    child: Child,
    pub(super) nodes: Arc<[Target]>,
}

impl Cluster {
    pub(super) async fn start(binary: &Path, nodes: u64, dir: &Path) -> anyhow::Result<Cluster> {
        let mut child = Command::new(binary)
            .args(["dev", "--json", "--base-port", "0", "--nodes", &nodes.to_string()])
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let out = child.stdout.take().context("no output of the cluster")?;
        let mut lines = BufReader::new(out).lines();
        let line = tokio::time::timeout(START_TIMEOUT, lines.next_line())
            .await
            .context("the cluster did not start in time")??;
        let Some(line) = line else {
            bail!("the cluster did not start");
        };
        let announced: Announcement = serde_json::from_str(&line).context("what the cluster announces")?;
        let nodes = announced.nodes.into_iter().map(|node| Target {
            id: node.id,
            http: node.http,
            dns: node.dns,
            ingress: node.ingress,
        });
        Ok(Cluster {
            child,
            nodes: nodes.collect(),
        })
    }

    /// Ends the processes.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .context("the cluster could not be stopped")
    }
}
