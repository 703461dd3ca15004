//! The systems under test: started on loopback in a directory of their own, stopped by process id.

use crate::client::Client;
use crate::machine;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a system may take until it takes writes.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may take to stop when asked to; then it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// What etcd may store; it takes no more writes past 2 GiB without, and serves them no other way with.
const ETCD_QUOTA_BYTES: &str = "8589934592";
/// How many lines of each node's log go into a failure.
const LAST_LINES: usize = 10;

/// Nodes have settled when together they use less than a tenth of a core.
const SETTLED_SHARE: u32 = 10;
const SETTLE_LOOK: Duration = Duration::from_millis(500);

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Ours, through its HTTP API, with one connection for each client.
    Onward,
    /// Ours, with one connection to each node that all clients share.
    OnwardShared,
    /// The peer, through its own protocol, with one connection for each client.
    Etcd,
    /// The peer, with one connection to each node that all clients share, as its client library does it.
    EtcdShared,
}

impl Kind {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Onward => "onward",
            Kind::OnwardShared => "onward, shared connections",
            Kind::Etcd => "etcd",
            Kind::EtcdShared => "etcd, shared connections",
        }
    }

    /// Whether it is ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Kind::Onward | Kind::OnwardShared)
    }

    /// Whether clients share connections.
    pub fn shares(self) -> bool {
        matches!(self, Kind::OnwardShared | Kind::EtcdShared)
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The binary of ours.
    pub onward: PathBuf,
    /// The peer's, where it is installed.
    pub etcd: Option<PathBuf>,
}

impl Programs {
    fn etcd(&self) -> Result<&Path> {
        self.etcd.as_deref().context("etcd is not installed")
    }
}

/// A running cluster. Dropping it stops its processes.
pub struct System {
    /// Who it is.
    pub kind: Kind,
    /// Where its nodes take client connections.
    pub endpoints: Vec<SocketAddr>,
    /// Its server processes, one a node.
    pub pids: Vec<u32>,
    /// Where nodes of ours take connections of their peers, and their ids.
    pub peers: Vec<(String, u64)>,
    dirs: Vec<PathBuf>,
    logs: Vec<PathBuf>,
    processes: Vec<Process>,
}

impl System {
    /// Starts a cluster in `dir`, or resumes the one that is there, and waits until it takes writes.
    pub async fn start(kind: Kind, nodes: usize, programs: &Programs, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let system = match kind {
            Kind::Onward | Kind::OnwardShared => start_onward(kind, &programs.onward, nodes, dir)?,
            Kind::Etcd | Kind::EtcdShared => start_etcd(kind, programs.etcd()?, nodes, dir).await?,
        };
        Ok(system)
    }

    /// CPU time used by all nodes so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        machine::cpu_time(&self.pids)
    }

    /// The end of what its nodes logged: they log in the directory that goes with the run.
    pub fn last_words(&self) -> String {
        let mut words = Vec::new();
        for log in &self.logs {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            words.extend(
                lines[lines.len().saturating_sub(LAST_LINES)..]
                    .iter()
                    .map(|line| (*line).to_owned()),
            );
        }
        words.join("\n")
    }

    /// Waits until the nodes have done what they do after a load, and the disk has all of it; no longer than `at_most`.
    pub async fn settle(&self, at_most: Duration) -> Result<()> {
        let until = Instant::now() + at_most;
        tokio::task::spawn_blocking(nix::unistd::sync).await?;
        while Instant::now() < until {
            let before = self.cpu_time()?;
            tokio::time::sleep(SETTLE_LOOK).await;
            if (self.cpu_time()? - before) * SETTLED_SHARE < SETTLE_LOOK {
                break;
            }
        }
        Ok(())
    }

    /// What the directories of the nodes hold on the disk, each on average, in MiB.
    pub fn disk_mib(&self) -> Result<u64> {
        let dirs = self.dirs.iter().map(|dir| machine::disk_bytes(dir));
        let bytes: u64 = dirs.sum::<Result<u64>>()?;
        Ok((bytes >> 20) / self.dirs.len().max(1) as u64)
    }

    /// Sends a signal to one of the nodes.
    pub fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pids[index])?), signal)?;
        Ok(())
    }

    /// Starts one of our nodes again, once the process that it had has let go of its directory.
    pub fn start_again(&mut self, index: usize, programs: &Programs) -> Result<()> {
        self.wait_for_end(index)?;
        self.serve(index, programs, &[])
    }

    /// Deletes the data of one of our nodes, whose process is stopped, and starts it to take its own place as a new member.
    pub fn replace(&mut self, index: usize, through: usize, programs: &Programs) -> Result<()> {
        self.wait_for_end(index)?;
        std::fs::remove_dir_all(self.logs[index].with_file_name("data"))?;
        let id = self.peers[index].1.to_string();
        let door = self.peers[through].0.clone();
        self.serve(index, programs, &["--join", &door, "--replaces", &id])
    }

    fn wait_for_end(&self, index: usize) -> Result<()> {
        let deadline = Instant::now() + STOP_DEADLINE;
        while machine::is_running(self.pids[index]) {
            ensure!(Instant::now() < deadline, "node {index} does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, programs: &Programs, flags: &[&str]) -> Result<()> {
        let log = File::options().append(true).open(&self.logs[index])?;
        let mut command = Command::new(&programs.onward);
        command
            .args(["serve", "--config"])
            .arg(self.logs[index].with_file_name("onward.toml"))
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log);
        let process = Process::spawn(&mut command)?;
        self.pids[index] = process.0.id();
        self.processes.push(process);
        Ok(())
    }

    /// Kills the nodes without warning.
    pub fn kill(&self) -> Result<()> {
        for pid in &self.pids {
            kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL)?;
        }
        Ok(())
    }
}

/// A child that is stopped, first politely, when it is dropped.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Process(
            child.with_context(|| format!("cannot start {}", name.display()))?,
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + STOP_DEADLINE;
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // It fails where the process is gone already, which is what is wanted.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// The line that `onward dev --json` prints once all nodes are ready.
#[derive(Deserialize)]
struct Ready {
    nodes: Vec<ReadyNode>,
}

#[derive(Deserialize)]
struct ReadyNode {
    id: u64,
    pid: u32,
    http: String,
    peer: String,
    dir: PathBuf,
}

fn start_onward(kind: Kind, program: &Path, nodes: usize, dir: &Path) -> Result<System> {
    let mut command = Command::new(program);
    command.args(["dev", "--json", "--dir"]).arg(dir);
    if !dir.join("node1").exists() {
        command.args(["--nodes", &nodes.to_string(), "--base-port", "0"]);
    }
    command
        .stdout(Stdio::piped())
        .stderr(File::create(dir.with_extension("log"))?);
    let mut process = Process::spawn(&mut command)?;
    let stdout = process.0.stdout.take().context("stdout was piped")?;
    let line = first_line(stdout).with_context(|| format!("see {}", dir.with_extension("log").display()))?;
    let ready: Ready = serde_json::from_str(&line).with_context(|| format!("onward dev printed {line:?}"))?;
    ensure!(
        ready.nodes.len() == nodes,
        "onward dev started {} nodes",
        ready.nodes.len()
    );
    let endpoint = |node: &ReadyNode| -> Result<SocketAddr> {
        let address = node.http.trim_start_matches("http://").trim_end_matches('/');
        address.parse().with_context(|| format!("address {address:?}"))
    };
    Ok(System {
        kind,
        endpoints: ready.nodes.iter().map(endpoint).collect::<Result<_>>()?,
        pids: ready.nodes.iter().map(|node| node.pid).collect(),
        peers: ready
            .nodes
            .iter()
            .map(|node| (node.peer.clone(), node.id))
            .collect(),
        dirs: ready.nodes.iter().map(|node| node.dir.clone()).collect(),
        logs: ready
            .nodes
            .iter()
            .map(|node| node.dir.join("onward.log"))
            .collect(),
        processes: vec![process],
    })
}

/// Waits for one line, on a thread of its own: the pipe has no deadline.
fn first_line(stdout: std::process::ChildStdout) -> Result<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        // Nobody listens any more when the deadline has passed.
        let _late = sender.send(read.map(|_| line));
    });
    let line = receiver
        .recv_timeout(START_DEADLINE)
        .context("it was not ready in time")??;
    ensure!(!line.is_empty(), "it ended before it was ready");
    Ok(line)
}

async fn start_etcd(kind: Kind, program: &Path, nodes: usize, dir: &Path) -> Result<System> {
    let started = Instant::now();
    let ports = free_ports(2 * nodes)?;
    let (client_ports, peer_ports) = ports.split_at(nodes);
    let member = |index: usize| format!("node{index}=http://127.0.0.1:{}", peer_ports[index]);
    let cluster: Vec<String> = (0..nodes).map(member).collect();
    let mut processes = Vec::new();
    for index in 0..nodes {
        let client_url = format!("http://127.0.0.1:{}", client_ports[index]);
        let peer_url = format!("http://127.0.0.1:{}", peer_ports[index]);
        let log = File::create(dir.join(format!("node{index}.log")))?;
        let mut command = Command::new(program);
        command
            .args(["--name", &format!("node{index}"), "--data-dir"])
            .arg(dir.join(format!("node{index}")));
        command.args([
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ]);
        command.args([
            "--initial-cluster",
            &cluster.join(","),
            "--initial-cluster-state",
            "new",
        ]);
        command.args(["--logger", "zap", "--log-level", "warn"]);
        command.args(["--quota-backend-bytes", ETCD_QUOTA_BYTES]);
        command.stdout(log.try_clone()?).stderr(log);
        processes.push(Process::spawn(&mut command)?);
    }
    let endpoints: Vec<SocketAddr> = client_ports
        .iter()
        .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
        .collect();
    for endpoint in &endpoints {
        wait_for_write(*endpoint, started + START_DEADLINE)
            .await
            .with_context(|| format!("see {}", dir.display()))?;
    }
    Ok(System {
        kind,
        endpoints,
        pids: processes.iter().map(|process| process.0.id()).collect(),
        peers: Vec::new(),
        dirs: (0..nodes).map(|index| dir.join(format!("node{index}"))).collect(),
        logs: (0..nodes)
            .map(|index| dir.join(format!("node{index}.log")))
            .collect(),
        processes,
    })
}

async fn wait_for_write(endpoint: SocketAddr, deadline: Instant) -> Result<()> {
    loop {
        let attempt = async {
            let mut client = Client::connect(Kind::Etcd, endpoint).await?;
            client.put("ready", &Bytes::from_static(b"yes")).await
        };
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() > deadline => {
                return Err(error.context("it was not ready in time"));
            }
            Err(_) if Instant::now() > deadline => bail!("it was not ready in time"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Ports that were free a moment ago. Whoever takes one in between makes the start fail, with a message.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}
