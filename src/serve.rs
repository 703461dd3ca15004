//! `onward serve`: one node, its crates wired together.
//!
//! Started outside in, so that a port that is taken is found before anything is written; stopped the other way round:
//! no new requests, requests under way, appliers, and the log last.

use crate::backups;
use crate::config::{Config, Flags};
use crate::http;
use anyhow::Context;
use onward_appliers_deployments as deployments;
use onward_appliers_services as services;
use onward_raft::{InitialMember, Join, Node, SnapshotPolicy, StartError, Timings};
use onward_statemachine::machines::netboot;
use onward_statemachine::ports::{Cluster, Proposer, Reader};
use onward_statemachine::{Command, NodeId};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long apps may take to stop on a node that was let go of.
const APP_GRACE: Duration = Duration::from_secs(10);

/// Runs a node until SIGINT or SIGTERM, or until its cluster lets go of it.
pub async fn run(flags: Flags) -> anyhow::Result<()> {
    let mut signals = crate::signals()?;
    if flags.exit_with_parent {
        exit_with_parent()?;
    }
    #[cfg(feature = "mutants")]
    crate::mutants::plant()?;
    let config = Config::load(&flags)?;
    let apps = config.deployments_dir();
    tokio::select! {
        server = Server::start(config) => {
            let server = match server {
                Ok(server) => server,
                Err(error) => {
                    if matches!(error.downcast_ref(), Some(StartError::Removed { .. })) {
                        stop_apps(&apps).await;
                    }
                    return Err(error);
                }
            };
            tokio::select! {
                () = signals.recv() => {
                    tracing::info!("asked to stop");
                    server.stop().await;
                }
                // Said where it was found out.
                _ = server.node.removed() => {
                    server.stop().await;
                    stop_apps(&apps).await;
                }
            }
            Ok(())
        }
        // A node that joins may wait long for its cluster.
        () = signals.recv() => Ok(()),
    }
}

/// Ends what a node ran that was let go of: the others run it now.
async fn stop_apps(dir: &Path) {
    if let Err(error) = deployments::stop_instances(dir, APP_GRACE).await {
        tracing::warn!(%error, "instances of apps may still run on this machine");
    }
}

/// Ends this process when the one that started it ends, however that comes about.
fn exit_with_parent() -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
        .context("cannot follow the parent process")
}

/// A running node.
struct Server {
    node: Node,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    async fn start(config: Config) -> anyhow::Result<Server> {
        let listener = listen("http.listen", config.http.listen).await?;
        let peers = listen("peer.listen", config.peer.listen).await?.into_std()?;
        let node = Node::start(raft_config(&config, peers)).await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let ports = Ports {
            proposer: node.proposer(),
            reader: node.reader(),
            cluster: node.cluster(),
        };
        let scheduled = backups::Scheduled::new(
            &config.backup,
            backups::Ports {
                backups: node.backups(),
                reader: ports.reader.clone(),
                cluster: ports.cluster.clone(),
                proposer: ports.proposer.clone(),
            },
        );
        let scheduled = match scheduled {
            Ok(scheduled) => scheduled,
            Err(error) => {
                node.shutdown().await;
                return Err(error);
            }
        };
        if let Err(error) = roll_forward(&config, node.id(), &ports, &tasks, &stop).await {
            // What runs already must not keep the directory locked.
            stop.cancel();
            node.shutdown().await;
            return Err(error);
        }
        let mut api = onward_api::Services::new(
            ports.proposer,
            ports.reader.clone(),
            ports.cluster,
            node.backups(),
        );
        if let Some(scheduled) = scheduled {
            api.schedule = Some(scheduled.clone());
            tasks.spawn(scheduled.run(stop.clone()));
        }
        api.shutdown = stop.clone();
        api.check = check_content;
        let router = onward_api::router(api).merge(onward_appliers_machines::router(ports.reader));
        tasks.spawn(http::serve(listener, router, stop.clone()));
        tasks.close();
        tracing::info!(node = %node.id(), cluster = %node.cluster_id(), http = %config.http.listen, "serving");
        Ok(Server { node, stop, tasks })
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.node.shutdown().await;
        tracing::info!("stopped");
    }
}

struct Ports {
    proposer: Arc<dyn Proposer>,
    reader: Arc<dyn Reader>,
    cluster: Arc<dyn Cluster>,
}

/// Starts the appliers: names, expiry, deployments.
async fn roll_forward(
    config: &Config,
    node: NodeId,
    ports: &Ports,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Ports {
        proposer,
        reader,
        cluster,
    } = ports;
    let dns = services::dns::Config::new(config.dns.listen, config.dns.zone.clone());
    let dns = services::dns::serve(dns, reader.clone(), stop.clone())
        .await
        .context("dns.listen")?;
    let deployments = deployments::Config {
        node,
        data_dir: config.deployments_dir(),
        ingress_listen: config.ingress.listen,
        ingress_domain: Some(config.ingress_domain()),
        advertise_host: config.instance_address(),
    };
    let deployments = deployments::start(
        deployments,
        proposer.clone(),
        reader.clone(),
        cluster.clone(),
        stop.clone(),
    )
    .await
    .context("ingress.listen")?;
    tracing::info!(dns = %dns.address, ingress = %deployments.ingress_addr, "rolling forward");
    tasks.spawn(dns.task);
    tasks.spawn(deployments.ended());
    tasks.spawn(services::expiry::run(
        proposer.clone(),
        reader.clone(),
        cluster.clone(),
        stop.clone(),
    ));
    Ok(())
}

/// What the state machine cannot decide, because it takes more than state.
fn check_content(command: &Command) -> Result<(), String> {
    match command {
        Command::Netboot(netboot::Command::SetTemplate { name, kind, body, .. }) => {
            let source = onward_appliers_machines::Source {
                name,
                kind: *kind,
                body,
            };
            onward_appliers_machines::check_template(source).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

async fn listen(field: &str, address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{field}: cannot listen on {address}; another process has it, or it is not an address of this machine")
    })
}

fn raft_config(config: &Config, peers: std::net::TcpListener) -> onward_raft::Config {
    let mut raft = onward_raft::Config::new(&config.data_dir, &config.cluster);
    raft.node_id = config.node_id.map(NodeId);
    raft.join = config.join.clone().map(|peer_address| Join {
        peer_address,
        replaces: config.replaces.map(NodeId),
    });
    raft.peer_listen = config.peer.listen.to_string();
    raft.peer_listener = Some(peers);
    raft.peer_advertise = Some(config.peer_advertise());
    raft.http_url = config.http_advertise();
    raft.initial_members = config
        .members
        .iter()
        .map(|member| InitialMember {
            id: NodeId(member.id),
            peer_address: member.peer.clone(),
            http_url: member.http.clone(),
        })
        .collect();
    raft.timings = Timings {
        heartbeat_ms: config.peer.heartbeat_ms,
        election_min_ms: config.peer.election_ms,
        election_max_ms: 2 * config.peer.election_ms,
    };
    raft.snapshots = SnapshotPolicy {
        entries: config.peer.snapshot_entries,
        keep_entries: config.peer.snapshot_keep_entries,
        bytes_per_second: NonZeroU64::new(config.peer.snapshot_mib_per_second.saturating_mul(1 << 20)),
        ..SnapshotPolicy::default()
    };
    raft.limits.in_flight_max = config.peer.proposals_max;
    raft.limits.disk_reserve_bytes = config.disk.reserve_mib.map(|mib| mib << 20);
    raft
}
