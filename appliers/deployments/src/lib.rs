//! Rolls deployments forward onto processes: git, builds, the process driver, the ingress, and the loop of plan, act
//! and report that ties them together.
//!
//! [`start`] runs all of it on one node. It never decides what should run: it reads that from the log, works towards it
//! and reports. Everything on disk is below [`Config::data_dir`]: git caches, built trees, and a folder for each
//! instance with its handle and log.

mod build;
pub mod driver;
mod git;
mod health;
mod ingress;
mod rollout;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use driver::DriverError;
use driver::process::ProcessDriver;
use ingress::Ingress;
use onward_statemachine::ports::{Cluster, Proposer, Reader};
use onward_statemachine::{Actor, NodeId};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The least time between two looks at a log that moves on: each wakes the node.
const BREATH: Duration = Duration::from_millis(25);

/// What a node needs to take part in deployments.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Where everything is kept; it is made where it is missing.
    pub data_dir: PathBuf,
    /// Where the ingress listens; port 0 for any.
    pub ingress_listen: SocketAddr,
    /// Every app is reachable as `NAME.DOMAIN` below this domain, whatever routes it has.
    pub ingress_domain: Option<String>,
    /// The address that instances listen on, and at which the other nodes' ingress reaches them.
    pub advertise_host: IpAddr,
}

/// Why deployments could not be started on this node.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ingress cannot listen.
    #[error("the ingress cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("the folder of deployments {} cannot be used: {error}", .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Deployments as they run on this node.
#[derive(Debug)]
pub struct Handle {
    /// Where the ingress listens.
    pub ingress_addr: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl Handle {
    /// Waits until all of it has ended, after the token was cancelled. Instances go on running.
    pub async fn ended(self) {
        for task in self.tasks {
            // A task that panicked was logged where it happened.
            let _ = task.await;
        }
    }
}

/// Starts the ingress and the rollout loop of this node; both end when `token` is cancelled.
pub async fn start(
    config: Config,
    proposer: Arc<dyn Proposer>,
    reader: Arc<dyn Reader>,
    cluster: Arc<dyn Cluster>,
    token: CancellationToken,
) -> Result<Handle, StartError> {
    let folder = std::path::absolute(&config.data_dir).map_err(|error| StartError::Folder {
        folder: config.data_dir.clone(),
        error,
    })?;
    std::fs::create_dir_all(&folder).map_err(|error| StartError::Folder {
        folder: folder.clone(),
        error,
    })?;
    let address = config.ingress_listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| StartError::Listen { address, error })?;
    let ingress_addr = listener
        .local_addr()
        .map_err(|error| StartError::Listen { address, error })?;
    let cluster_id = cluster.status().cluster_id;
    let driver = ProcessDriver::new(
        instances_folder(&folder),
        config.advertise_host,
        cluster_id,
        config.node,
    );
    let ingress = Ingress::new(config.ingress_domain, Arc::clone(&reader));
    let worker = Arc::new(rollout::Worker {
        node: config.node,
        actor: Actor::new(&format!("applier:deployments@{}", config.node)),
        git: git::Git::new(folder.join("git")),
        builds: build::Builds::new(folder.join("builds"), format!("{cluster_id}/{}", config.node)),
        driver: Arc::new(driver),
        ingress: ingress.clone(),
        proposer,
        reader,
        cluster,
    });
    tracing::info!(ingress = %ingress_addr, "deployments run on this node");
    let tasks = vec![
        tokio::spawn(ingress.clone().follow(token.clone())),
        tokio::spawn(ingress.serve(listener, token.clone())),
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = rollout::run(worker, token.clone()) => {}
            }
        }),
    ];
    Ok(Handle { ingress_addr, tasks })
}

fn instances_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("instances")
}

/// Ends every instance that a node which has stopped left running on this machine: for clusters whose end is the end
/// of all that they ran. `data_dir` is what its [`Config`] had.
pub async fn stop_instances(data_dir: &Path, grace: Duration) -> Result<(), DriverError> {
    driver::process::stop_all(&instances_folder(data_dir), grace).await
}
