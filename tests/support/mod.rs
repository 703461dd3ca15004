//! A cluster of real processes for a test: started by `onward dev`, stopped by process id, its directory removed.

pub mod alone;
pub mod load;
pub mod newcomer;

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub const ONWARD: &str = env!("CARGO_BIN_EXE_onward");

/// How long anything may take that the test waits for. Generous: it bounds a hang, it does not measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One node of the cluster, as `onward dev --json` announces it.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    pub id: u64,
    pub pid: u32,
    pub dir: PathBuf,
    pub http: String,
    pub peer: String,
    pub dns: String,
    pub ingress: String,
}

impl Node {
    /// The last `count` lines of its log.
    fn last_lines(&self, count: usize) -> String {
        let log = std::fs::read_to_string(self.dir.join("onward.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

#[derive(Deserialize)]
struct Announcement {
    nodes: Vec<Node>,
}

/// A running cluster.
pub struct Cluster {
    dev: Child,
    pub dir: tempfile::TempDir,
    pub nodes: Vec<Node>,
    pub http: reqwest::blocking::Client,
    /// What its nodes have in their environment besides the test's.
    environment: Vec<(String, String)>,
}

impl Cluster {
    /// Starts `count` nodes on free ports and waits until all are ready.
    pub fn start(count: usize) -> Cluster {
        Cluster::start_with(count, &[])
    }

    /// As [`Cluster::start`], with these variables in the environment of all nodes.
    pub fn start_with(count: usize, environment: &[(&str, &str)]) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let arguments = ["--nodes", &count.to_string(), "--base-port", "0"];
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Cluster::launch(dir, &arguments, environment.iter().map(owned).collect())
    }

    fn launch(dir: tempfile::TempDir, arguments: &[&str], environment: Vec<(String, String)>) -> Cluster {
        let mut dev = Command::new(ONWARD)
            .envs(environment.iter().cloned())
            .args(["dev", "--json", "--dir"])
            .arg(dir.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("onward dev starts");
        let mut line = String::new();
        BufReader::new(dev.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("one line");
        let announcement: Announcement = match serde_json::from_str(&line) {
            Ok(announcement) => announcement,
            Err(error) => {
                let _ = dev.wait();
                panic!("onward dev announced `{line}`: {error}");
            }
        };
        let http = reqwest::blocking::Client::builder()
            .timeout(Duration::from_secs(15))
            .build()
            .expect("a client");
        Cluster {
            dev,
            dir,
            nodes: announcement.nodes,
            http,
            environment,
        }
    }

    /// Stops all nodes that still run, and resumes the cluster from its directory.
    pub fn restart(self) -> Cluster {
        self.restart_with(str::to_owned)
    }

    /// As [`Cluster::restart`], with other configurations.
    pub fn restart_with(mut self, edit: impl Fn(&str) -> String) -> Cluster {
        self.stop();
        for node in &self.nodes {
            let path = node.dir.join("onward.toml");
            let text = std::fs::read_to_string(&path).expect("a configuration");
            std::fs::write(&path, edit(&text)).expect("a configuration");
        }
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a temporary directory"));
        let environment = std::mem::take(&mut self.environment);
        Cluster::launch(dir, &[], environment)
    }

    /// Stops all nodes that still run.
    pub fn stop(&mut self) {
        if matches!(self.dev.try_wait(), Ok(None)) {
            signal(self.dev.id(), nix::sys::signal::Signal::SIGTERM);
            let _ = self.dev.wait();
        }
    }

    /// All HTTP URLs, comma-separated, as `--server` takes them.
    pub fn servers(&self) -> String {
        self.nodes
            .iter()
            .map(|node| node.http.as_str())
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Runs the CLI against this cluster.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(ONWARD)
            .env("ONWARD_SERVER", self.servers())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the CLI runs")
    }

    /// Runs the CLI, which must exit 0, and returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "onward {arguments:?} failed ({}): {stderr}",
            output.status
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Kills a node with SIGKILL, and waits until it has let go of its files and ports: another can take its place then.
    pub fn kill(&self, id: u64) {
        signal(self.node(id).pid, nix::sys::signal::Signal::SIGKILL);
        self.wait_for_end(id);
    }

    /// Starts a killed node again, by its own configuration, outside of `onward dev`.
    pub fn revive(&self, id: u64) -> Process {
        self.revive_with(id, &[])
    }

    /// As [`Cluster::revive`], with these variables in its environment.
    pub fn revive_with(&self, id: u64, environment: &[(&str, &str)]) -> Process {
        self.serve(self.node(id), &[], environment)
    }

    /// Waits until all of a node that ends has ended, and let go of its files and ports with its last thread: it stays a
    /// zombie until `onward dev` ends.
    pub fn wait_for_end(&self, id: u64) {
        let status = format!("/proc/{}/status", self.node(id).pid);
        eventually("the node has ended", || {
            std::fs::read_to_string(&status).map_or(true, |status| {
                let is = |field: &str, value: &str| {
                    let mut lines = status.lines();
                    lines.any(|line| {
                        line.strip_prefix(field)
                            .is_some_and(|rest| rest.trim().starts_with(value))
                    })
                };
                is("State:", "Z") && is("Threads:", "1")
            })
        });
    }

    /// Wipes the directory of a killed node, and starts a fresh one with its addresses in its place.
    pub fn replace(&self, lost: &Node, through: &Node) -> Process {
        std::fs::remove_dir_all(lost.dir.join("data")).expect("the lost directory");
        let id = lost.id.to_string();
        self.serve(lost, &["--join", &through.peer, "--replaces", &id], &[])
    }

    fn serve(&self, node: &Node, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut process = self.spawn_with(node, arguments, environment);
        let url = format!("{}/readyz", node.http);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.http.get(&url).send();
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return process;
            }
            let ended = process.0.try_wait().expect("a child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "node {} is not ready ({ended:?}); the end of its log:\n{}",
                node.id,
                node.last_lines(20)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts a node by its own configuration and these flags, outside of `onward dev`, and waits for nothing.
    pub fn spawn(&self, node: &Node, arguments: &[&str]) -> Process {
        self.spawn_with(node, arguments, &[])
    }

    fn spawn_with(&self, node: &Node, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(node.dir.join("onward.log"))
            .expect("a log");
        let child = Command::new(ONWARD)
            .args(["serve", "--config"])
            .arg(node.dir.join("onward.toml"))
            .args(arguments)
            .envs(environment.iter().copied())
            .arg("--exit-with-parent")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a node starts");
        Process(child)
    }

    /// The node with this id.
    pub fn node(&self, id: u64) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.id == id)
            .expect("a node of this id")
    }

    /// The id of the leader, asked of any node that answers, once one is known.
    pub fn leader(&self) -> u64 {
        let mut leader = None;
        eventually("a leader is known", || {
            leader = self
                .nodes
                .iter()
                .find_map(|node| self.status(node)?["leader"].as_u64());
            leader.is_some()
        });
        leader.expect("found above")
    }

    /// What `/v1/cluster` answers on this node; `None` if it does not.
    pub fn status(&self, node: &Node) -> Option<serde_json::Value> {
        self.http
            .get(format!("{}/v1/cluster", node.http))
            .send()
            .ok()?
            .json()
            .ok()
    }

    /// All series of a node: the name, with its labels, to the value. Empty where it does not answer.
    pub fn metrics(&self, node: &Node) -> BTreeMap<String, f64> {
        let answer = self.http.get(format!("{}/metrics", node.http)).send();
        let text = answer.and_then(|answer| answer.text()).unwrap_or_default();
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = series.map(|line| line.rsplit_once(' ').expect("a name and a value"));
        pairs
            .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
            .collect()
    }

    /// One of them; 0 where it is not there.
    pub fn metric(&self, node: &Node, series: &str) -> f64 {
        self.metrics(node).get(series).copied().unwrap_or(0.0)
    }

    /// Every pair under `prefix` as this node has it: key to (version, value).
    pub fn pairs(&self, node: u64, prefix: &str, consistency: &str) -> BTreeMap<String, (u64, String)> {
        self.pairs_at(self.node(node), prefix, consistency)
    }

    /// As [`Cluster::pairs`], of a node that need not be one of `nodes`.
    pub fn pairs_at(&self, node: &Node, prefix: &str, consistency: &str) -> BTreeMap<String, (u64, String)> {
        let mut pairs = BTreeMap::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = vec![("prefix", prefix.to_owned()), ("limit", "1000".to_owned())];
            query.push(("consistency", consistency.to_owned()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let url = format!("{}/v1/kv", node.http);
            let answer = self.http.get(url).query(&query).send().expect("the node answers");
            assert!(answer.status().is_success(), "{}", answer.status());
            let page: serde_json::Value = answer.json().expect("JSON");
            for pair in page["items"].as_array().expect("items") {
                let text = |field: &str| {
                    pair[field]
                        .as_str()
                        .unwrap_or_else(|| panic!("{field} in {pair}"))
                        .to_owned()
                };
                pairs.insert(
                    text("key"),
                    (pair["version"].as_u64().expect("version"), text("value")),
                );
            }
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return pairs;
            }
        }
    }

    /// The nodes but this one.
    pub fn others(&self, id: u64) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.id != id).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A node that was started outside of `onward dev`; killed when dropped.
pub struct Process(Child);

impl Process {
    /// A process that ends with this value.
    pub fn of(child: Child) -> Process {
        Process(child)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        eventually("the process ends by itself", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("found above")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where tests look for ports of their own: neither `onward dev` does, nor are they given to outgoing connections.
const FREE_PORTS: std::ops::Range<u16> = 12_000..16_000;

/// Addresses of loopback that are free for TCP and UDP now, no two alike.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let mut taken: Vec<(TcpListener, UdpSocket)> = Vec::new();
    [(); N].map(|()| {
        let mut drawn = (0..1000).map(|_| {
            let drawn = (uuid::Uuid::new_v4().as_u128() % FREE_PORTS.len() as u128) as u16;
            SocketAddr::from((Ipv4Addr::LOCALHOST, FREE_PORTS.start + drawn))
        });
        let free = drawn.find_map(|address| {
            let sockets = (TcpListener::bind(address).ok()?, UdpSocket::bind(address).ok()?);
            taken.push(sockets);
            Some(address)
        });
        free.expect("a port that is free for both TCP and UDP")
    })
}

pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Waits until `condition` holds; panics with `what` when it does not within [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not so in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
