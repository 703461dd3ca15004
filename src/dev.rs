//! `onward dev`: a cluster of real processes on loopback, for trying things and for tests.
//!
//! Each node is this binary's own `serve` with a configuration file under the directory, so a directory is all that a
//! resumed cluster needs. A node that dies is not restarted: that is for whoever killed it to look at.

use crate::config::{self, Config};
use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Flags of `onward dev`.
#[derive(Debug, Args)]
pub struct Flags {
    /// How many nodes
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: Option<u64>,
    /// Keep the cluster here, and resume the one that is there already; a temporary directory without
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first node's HTTP port; peers are at +1, DNS at +53, ingress at +80, node i at +100 x (i-1). 0 picks free ones
    #[arg(long, value_name = "P")]
    base_port: Option<u16>,
    /// Print one line of JSON once all are ready, then nothing
    #[arg(long)]
    json: bool,
}

/// How long the nodes may take until each answers that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long apps may take to stop.
const APP_GRACE: Duration = Duration::from_secs(5);
const BASE_PORT: u16 = 7400;
/// Where `--base-port 0` looks.
const FREE_PORTS: std::ops::Range<u16> = 20_000..32_000;
/// So many belong together: four for each of seven nodes, the one that is held, and some that others may have.
const PORTS_EACH: u16 = 50;

#[derive(Debug, Serialize)]
struct Announcement<'a> {
    nodes: Vec<Announced<'a>>,
}

#[derive(Debug, Serialize)]
struct Announced<'a> {
    id: u64,
    pid: u32,
    dir: &'a Path,
    http: String,
    peer: SocketAddr,
    dns: SocketAddr,
    ingress: SocketAddr,
}

struct Node {
    id: u64,
    dir: PathBuf,
    config: Config,
}

/// Runs the cluster until SIGINT or SIGTERM.
pub async fn run(flags: Flags) -> anyhow::Result<()> {
    // Before anything else, so that a signal during the start stops what was started.
    let mut signals = crate::signals()?;
    let (dir, temporary) = match &flags.dir {
        Some(dir) => (dir.clone(), false),
        None => (
            std::env::temp_dir().join(format!("onward-dev-{}", uuid::Uuid::now_v7())),
            true,
        ),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot resolve {}", dir.display()))?;
    let result = run_in(&dir, &flags, &mut signals).await;
    if temporary && let Err(error) = std::fs::remove_dir_all(&dir) {
        tracing::warn!(dir = %dir.display(), %error, "the temporary directory could not be removed");
    }
    result
}

async fn run_in(dir: &Path, flags: &Flags, signals: &mut crate::Signals) -> anyhow::Result<()> {
    let (nodes, _held) = match resume(dir)? {
        nodes if nodes.is_empty() => lay_out(dir, flags)?,
        nodes => {
            if let Some(wanted) = flags.nodes {
                ensure!(
                    wanted == nodes.len() as u64,
                    "--nodes {wanted}: the cluster in {} has {}; leave the flag out to resume it",
                    dir.display(),
                    nodes.len()
                );
            }
            ensure!(
                flags.base_port.is_none(),
                "--base-port: the cluster in {} keeps its ports; leave the flag out to resume it",
                dir.display()
            );
            let held = Ports::claim_again(nodes[0].config.http.listen.port());
            (nodes, held)
        }
    };
    let mut children = Vec::new();
    let started = start(&nodes, &mut children, flags.json, signals).await;
    let outcome = match started {
        Ok(true) => {
            if !flags.json {
                eprintln!("\nCtrl-C stops the cluster.");
            }
            signals.recv().await;
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    stop(&nodes, children).await;
    outcome
}

/// Starts all nodes and waits until each is ready; `false` if a signal came first.
async fn start(
    nodes: &[Node],
    children: &mut Vec<Child>,
    json: bool,
    signals: &mut crate::Signals,
) -> anyhow::Result<bool> {
    for node in nodes {
        children.push(spawn(node)?);
    }
    let deadline = Instant::now() + READY_TIMEOUT;
    for (node, child) in nodes.iter().zip(children.iter_mut()) {
        tokio::select! {
            ready = wait_ready(node, child, deadline) => ready?,
            () = signals.recv() => return Ok(false),
        }
    }
    let announced = nodes.iter().zip(children.iter()).filter_map(|(node, child)| {
        let Config {
            http,
            peer,
            dns,
            ingress,
            ..
        } = &node.config;
        Some(Announced {
            id: node.id,
            pid: child.id()?,
            dir: &node.dir,
            http: format!("http://{}", http.listen),
            peer: peer.listen,
            dns: dns.listen,
            ingress: ingress.listen,
        })
    });
    announce(
        &Announcement {
            nodes: announced.collect(),
        },
        json,
    )?;
    Ok(true)
}

#[expect(clippy::print_stdout, reason = "the announcement is this command's output")]
fn announce(announcement: &Announcement<'_>, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(announcement)?);
        return Ok(());
    }
    println!(
        "{:<6}{:<9}{:<26}{:<18}{:<18}DIR",
        "NODE", "PID", "HTTP", "DNS", "INGRESS"
    );
    for node in &announcement.nodes {
        println!(
            "{:<6}{:<9}{:<26}{:<18}{:<18}{}",
            node.id,
            node.pid,
            node.http,
            node.dns.to_string(),
            node.ingress.to_string(),
            node.dir.display()
        );
    }
    let servers: Vec<&str> = announcement.nodes.iter().map(|node| node.http.as_str()).collect();
    println!("\nexport ONWARD_SERVER={}", servers.join(","));
    Ok(())
}

/// The nodes of a cluster that was laid out in `dir` before.
fn resume(dir: &Path) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for id in 1.. {
        let dir = dir.join(format!("node{id}"));
        let file = dir.join("onward.toml");
        if !file.exists() {
            break;
        }
        nodes.push(Node {
            id,
            dir,
            config: Config::load(&config::Flags::file(file))?,
        });
    }
    Ok(nodes)
}

/// Writes the configuration of each node of a new cluster; with where their ports are from, if they are drawn.
fn lay_out(dir: &Path, flags: &Flags) -> anyhow::Result<(Vec<Node>, Option<Ports>)> {
    let count = flags.nodes.unwrap_or(1);
    let base = flags.base_port.unwrap_or(BASE_PORT);
    let mut ports = (base == 0).then(Ports::claim).transpose()?;
    let mut configs = Vec::new();
    for id in 1..=count {
        let offset = u16::try_from(100 * (id - 1)).expect("at most 7 nodes");
        let mut port = |plus: u16| match &mut ports {
            Some(ports) => ports.next(),
            None => base
                .checked_add(offset + plus)
                .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
                .with_context(|| format!("--base-port {base}: node {id} would need a port past 65535")),
        };
        let mut config = Config {
            cluster: "dev".to_owned(),
            node_id: Some(id),
            data_dir: dir.join(format!("node{id}")).join("data"),
            ..Config::default()
        };
        config.http.listen = port(0)?;
        config.peer.listen = port(1)?;
        config.dns.listen = port(53)?;
        config.ingress.listen = port(80)?;
        configs.push(config);
    }
    let members: Vec<config::Member> = configs
        .iter()
        .map(|config| config::Member {
            id: config.node_id.expect("set above"),
            peer: config.peer_advertise(),
            http: config.http_advertise(),
        })
        .collect();
    let mut nodes = Vec::new();
    for mut config in configs {
        config.members.clone_from(&members);
        let id = config.node_id.expect("set above");
        let dir = dir.join(format!("node{id}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let file = dir.join("onward.toml");
        std::fs::write(&file, toml::to_string(&config)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        nodes.push(Node { id, dir, config });
    }
    Ok((nodes, ports))
}

/// A run of ports of loopback that no other `onward dev` uses, below those that Linux gives to outgoing connections. The
/// first of them is bound for as long as this is held, so that they stay this cluster's while a node of it is down.
struct Ports {
    _claim: TcpListener,
    rest: std::ops::Range<u16>,
}

impl Ports {
    fn claim() -> anyhow::Result<Self> {
        let runs = (FREE_PORTS.len() / usize::from(PORTS_EACH)) as u128;
        for _ in 0..1000 {
            let drawn = (uuid::Uuid::new_v4().as_u128() % runs) as u16;
            if let Some(ports) = Ports::claim_run(drawn) {
                return Ok(ports);
            }
        }
        bail!("--base-port 0: every run of {PORTS_EACH} ports from {FREE_PORTS:?} is in use")
    }

    /// The run that a cluster was given when it was laid out; `None` where its ports were chosen, or others have them now.
    fn claim_again(port: u16) -> Option<Self> {
        let drawn = FREE_PORTS.contains(&port).then(|| port - FREE_PORTS.start)?;
        Ports::claim_run(drawn / PORTS_EACH)
    }

    fn claim_run(number: u16) -> Option<Self> {
        let first = FREE_PORTS.start + number * PORTS_EACH;
        let claim = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
        Some(Ports {
            _claim: claim,
            rest: first + 1..first + PORTS_EACH,
        })
    }

    /// The next one that is free for TCP and UDP.
    fn next(&mut self) -> anyhow::Result<SocketAddr> {
        let mut addresses = self
            .rest
            .by_ref()
            .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let free =
            addresses.find(|address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok());
        free.context("--base-port 0: other programs use too many ports; try again, or choose one")
    }
}

fn spawn(node: &Node) -> anyhow::Result<Child> {
    let log_path = node.dir.join("onward.log");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("cannot open {}", log_path.display()))?;
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    Command::new(binary)
        .arg("serve")
        .arg("--config")
        .arg(node.dir.join("onward.toml"))
        .arg("--exit-with-parent")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C goes to the whole foreground group; the nodes are stopped by this process, in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start node {}", node.id))
}

async fn wait_ready(node: &Node, child: &mut Child, deadline: Instant) -> anyhow::Result<()> {
    loop {
        if let Some(status) = child.try_wait()? {
            bail!(
                "node {} stopped at its start ({status}):\n{}",
                node.id,
                log_tail(&node.dir)
            );
        }
        if is_ready(node.config.http.listen).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "node {} is not ready after {READY_TIMEOUT:?}:\n{}",
                node.id,
                log_tail(&node.dir)
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether `GET /readyz` answers 200.
async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.0\r\nHost: onward\r\n\r\n")
            .await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head.ends_with(b" 200"))
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(2), ask).await,
        Ok(Ok(true))
    )
}

fn log_tail(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("onward.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Asks all nodes to stop, and kills those that do not in time.
async fn stop(nodes: &[Node], mut children: Vec<Child>) {
    for child in &children {
        if let Some(pid) = child.id() {
            crate::terminate(pid);
        }
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    for (node, child) in nodes.iter().zip(&mut children) {
        if tokio::time::timeout_at(deadline, child.wait()).await.is_err() {
            tracing::warn!(node = node.id, "the node did not stop in time and is killed");
            if let Err(error) = child.kill().await {
                tracing::error!(node = node.id, %error, "the node could not be killed");
            }
        }
    }
    // Instances outlive their node, but not this cluster.
    for node in nodes {
        let apps = node.config.deployments_dir();
        if let Err(error) = onward_appliers_deployments::stop_instances(&apps, APP_GRACE).await {
            tracing::warn!(node = node.id, %error, "the node's apps could not be stopped");
        }
    }
}
