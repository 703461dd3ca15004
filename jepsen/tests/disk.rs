//! A real node on a disk that fails: what it acknowledged is there whatever the disk loses, and where a disk lies the
//! loss is seen.
//!
//! The binary is the one beside this program, which a build of the workspace puts there, or what `ONWARD_BINARY` names.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onward_jepsen::disk::{self, Errors, Faults, FaultyDisk, Loss};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take that has to happen. It bounds a hang and measures nothing.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const WRITERS: usize = 8;
/// Bytes of a value.
const SMALL: usize = 200;
const LARGE: usize = 100_000;

fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("ONWARD_BINARY") {
        return named.into();
    }
    let me = std::env::current_exe().expect("this program has a path");
    let target = me.ancestors().nth(2).expect("target/debug/deps/...");
    let built = target.join("onward");
    assert!(
        built.exists(),
        "these tests run the real binary: `cargo build -p onward` first, or name one with ONWARD_BINARY"
    );
    built
}

/// So small that there is always one under way.
const SNAPSHOTS: &str = "snapshot_entries = 100\nsnapshot_keep_entries = 50\n";

/// A node that is a cluster of its own, with its data on a disk that fails.
struct Node {
    http: SocketAddr,
    client: reqwest::Client,
    child: Option<Child>,
    disk: FaultyDisk,
    /// Last, as the disk lies in it.
    dir: tempfile::TempDir,
}

impl Node {
    /// Starts one; `None`, with the reason printed, where no such disk can be mounted.
    async fn start(seed: u64) -> Option<Node> {
        Node::configured(seed, "").await
    }

    /// The same with these settings of `[peer]`.
    async fn configured(seed: u64, settings: &str) -> Option<Node> {
        if let Err(reason) = disk::usable() {
            eprintln!("not tested: {reason}");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let disk =
            FaultyDisk::mount(&dir.path().join("backing"), &dir.path().join("data"), seed).expect("mounts");
        let sockets = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [http, peer, dns, ingress] = sockets.map(|socket| socket.local_addr().expect("an address"));
        let config = format!(
            "node_id = 1\ndata_dir = '{}'\n[http]\nlisten = '{http}'\n[peer]\nlisten = '{peer}'\n{settings}[disk]\nreserve_mib = 0\n[dns]\n\
             listen = '{dns}'\n[ingress]\nlisten = '{ingress}'\n",
            disk.path().display()
        );
        std::fs::write(dir.path().join("onward.toml"), config).expect("writes");
        let mut node = Node {
            dir,
            http,
            client: reqwest::Client::new(),
            child: None,
            disk,
        };
        node.launch();
        node.ready().await;
        Some(node)
    }

    fn launch(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("onward.log"))
            .expect("a log");
        let child = Command::new(binary())
            .args(["serve", "--exit-with-parent", "--config"])
            .arg(self.dir.path().join("onward.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the node starts"));
    }

    async fn ready(&mut self) {
        assert!(self.ready_or_ended().await, "the node ended\n{}", self.log());
    }

    /// Waits until it is ready, `true`, or has ended by itself.
    async fn ready_or_ended(&mut self) -> bool {
        let url = format!("http://{}/readyz", self.http);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return true;
            }
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().expect("asks").is_some() {
                self.child = None;
                return false;
            }
            assert!(Instant::now() < deadline, "the node is not ready\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("onward.log")).expect("the node's log")
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kills");
        child.wait().expect("ends");
    }

    /// Asks it to stop and waits until it has.
    async fn stop(&mut self) {
        let pid = self.child.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("it is asked to stop");
        self.ended().await;
    }

    /// Waits until it ends by itself.
    async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("asks") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the node goes on\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    async fn restart(&mut self) {
        self.launch();
        self.ready().await;
    }

    async fn put(&self, key: &str) -> bool {
        put(&self.client, self.http, key, SMALL).await
    }

    /// Which of these keys are not there.
    async fn missing(&self, keys: &BTreeSet<String>) -> Vec<String> {
        self.try_missing(keys).await.expect("answers")
    }

    /// The same, of a node that may end while it is asked.
    async fn try_missing(&self, keys: &BTreeSet<String>) -> reqwest::Result<Vec<String>> {
        let mut missing = Vec::new();
        for key in keys {
            let answer = self.client.get(url(self.http, key)).send().await?;
            match answer.status().as_u16() {
                200 => {}
                404 => missing.push(key.clone()),
                other => panic!("{key}: {other}"),
            }
        }
        Ok(missing)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

fn url(http: SocketAddr, key: &str) -> String {
    format!("http://{http}/v1/kv/{key}")
}

/// Puts a key once; whether it was acknowledged.
async fn put(client: &reqwest::Client, http: SocketAddr, key: &str, bytes: usize) -> bool {
    let request = client
        .put(url(http, key))
        .header("content-type", "application/octet-stream")
        .timeout(Duration::from_secs(5))
        .body(vec![b'x'; bytes]);
    request
        .send()
        .await
        .is_ok_and(|answer| answer.status().is_success())
}

/// Clients that put keys of their own until they are told to stop.
struct Writers {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Writers {
    fn start(node: &Node, round: &str, bytes: usize) -> Writers {
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (client, http, acknowledged) = (node.client.clone(), node.http, acknowledged.clone());
            let round = round.to_owned();
            tasks.spawn(async move {
                for count in 0.. {
                    let key = format!("{round}-{writer}-{count}");
                    if put(&client, http, &key, bytes).await {
                        acknowledged.lock().expect("not poisoned").insert(key);
                    } else {
                        tokio::time::sleep(POLL).await;
                    }
                }
            });
        }
        Writers { acknowledged, tasks }
    }

    async fn until_acknowledged(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged.lock().expect("not poisoned").len() < count {
            assert!(Instant::now() < deadline, "the node acknowledges too little");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn stop(mut self) -> BTreeSet<String> {
        self.tasks.shutdown().await;
        std::mem::take(&mut *self.acknowledged.lock().expect("not poisoned"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts() {
    survives_power_cuts(1, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts_while_snapshots_come_and_go() {
    survives_power_cuts(6, SNAPSHOTS).await;
}

async fn survives_power_cuts(seed: u64, settings: &str) {
    let Some(mut node) = Node::configured(seed, settings).await else {
        return;
    };
    let mut acknowledged = BTreeSet::new();
    let losses = [Loss::All, Loss::Pages, Loss::Sectors].into_iter().cycle();
    for (round, loss) in losses.take(6).enumerate() {
        let writers = Writers::start(&node, &round.to_string(), SMALL);
        writers.until_acknowledged(200).await;
        node.kill();
        acknowledged.extend(writers.stop().await);
        node.disk.power_cut(loss).expect("cuts");
        node.restart().await;
        assert_eq!(
            node.missing(&acknowledged).await,
            [""; 0],
            "round {round}: {loss:?}"
        );
    }
    assert!(node.disk.counts().lost_bytes > 0, "{:?}", node.disk.counts());
}

/// The proof that the test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_loses_what_was_acknowledged() {
    let Some(mut node) = Node::start(2).await else {
        return;
    };
    assert!(node.put("before").await);
    node.disk.set(Faults {
        lying_sync: true,
        ..Faults::default()
    });
    let writers = Writers::start(&node, "lost", SMALL);
    writers.until_acknowledged(100).await;
    node.kill();
    let acknowledged = writers.stop().await;
    node.disk.power_cut(Loss::All).expect("cuts");
    node.disk.set(Faults::default());
    node.restart().await;
    assert_eq!(node.missing(&["before".to_owned()].into()).await, [""; 0]);
    assert!(
        !node.missing(&acknowledged).await.is_empty(),
        "a lying disk lost nothing"
    );
    assert!(node.disk.counts().lying_syncs > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_node_and_takes_nothing() {
    let Some(mut node) = Node::start(3).await else {
        return;
    };
    node.disk.set(Faults {
        space_left: Some(16 << 20),
        ..Faults::default()
    });
    let writers = Writers::start(&node, "full", LARGE);
    let status = node.ended().await;
    let acknowledged = writers.stop().await;
    assert!(!status.success() && !acknowledged.is_empty(), "{status:?}");
    assert!(node.disk.counts().full > 0);
    let said = node.log();
    assert!(
        said.contains("this node cannot go on") && said.contains("the disk is full: free"),
        "{said}"
    );

    node.disk.set(Faults {
        space_left: Some(0),
        ..Faults::default()
    });
    node.launch();
    let again = node.ended().await;
    let said_again = node.log().split_off(said.len());
    assert!(
        !again.success() && said_again.contains("the disk is full: free"),
        "{said_again}"
    );

    node.disk.power_cut(Loss::All).expect("cuts");
    node.disk.set(Faults::default());
    node.restart().await;
    assert_eq!(node.missing(&acknowledged).await, [""; 0]);
    assert!(node.put("after").await, "it takes writes again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_node_and_takes_nothing() {
    let Some(mut node) = Node::start(4).await else {
        return;
    };
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let writers = Writers::start(&node, &round.to_string(), SMALL);
        writers.until_acknowledged(50).await;
        node.disk.set(Faults {
            sync_errors: Errors::Next(1),
            ..Faults::default()
        });
        let status = node.ended().await;
        acknowledged.extend(writers.stop().await);
        let said = node.log();
        assert!(
            !status.success() && said.contains("the disk failed: look into"),
            "{said}"
        );
        // What the sync dropped is at first in the page cache still, then lost in a power cut, or read back from the disk.
        match round {
            0 => {}
            1 => drop(node.disk.power_cut(Loss::All).expect("cuts")),
            _ => assert!(node.disk.evict_dropped().is_ok()),
        }
        node.restart().await;
        assert_eq!(node.missing(&acknowledged).await, [""; 0], "round {round}");
    }
    assert_eq!(node.disk.counts().failed_syncs, 3);
}

/// A snapshot is written beside the log: its failure ends the engine and not the log's thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_a_snapshot_stops_the_node_and_takes_nothing() {
    let Some(mut node) = Node::configured(5, SNAPSHOTS).await else {
        return;
    };
    let writers = Writers::start(&node, "snapshot", SMALL);
    writers.until_acknowledged(150).await;
    node.disk.set(Faults {
        space_left: Some(1 << 20),
        ..Faults::default()
    });
    let status = node.ended().await;
    let acknowledged = writers.stop().await;
    let said = node.log();
    assert!(
        !status.success() && said.contains("the disk is full: free"),
        "{said}"
    );
    node.disk.power_cut(Loss::Sectors).expect("cuts");
    node.disk.set(Faults::default());
    node.restart().await;
    assert_eq!(node.missing(&acknowledged).await, [""; 0]);
}

/// A flipped bit is noticed: the node refuses to go on, or everything is there as it was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_are_never_served() {
    let mut refused = 0;
    for seed in 0..6 {
        let Some(mut node) = Node::start(seed).await else {
            return;
        };
        let writers = Writers::start(&node, "flip", SMALL);
        writers.until_acknowledged(100).await;
        let acknowledged = writers.stop().await;
        node.stop().await;
        let folder = if seed % 2 == 0 { "log" } else { "state" };
        let stored = |path: &Path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            path.starts_with(folder) && matches!(extension, Some("log" | "sst"))
        };
        let flips = node.disk.flip_bits(stored, 1).expect("flips");
        assert_eq!(flips.len(), 1, "nothing is stored in {folder}");
        node.launch();
        if node.ready_or_ended().await {
            // What is damaged may be found as late as somebody asks for it.
            if let Ok(missing) = node.try_missing(&acknowledged).await {
                assert_eq!(missing, [""; 0], "{flips:?}");
                continue;
            }
            assert!(
                !node.ready_or_ended().await,
                "{flips:?}: it does not answer, and goes on"
            );
        }
        let said = node.log();
        assert!(
            said.contains("are gone") || said.contains("is damaged"),
            "{flips:?}: {said}"
        );
        refused += 1;
    }
    assert!(refused > 0, "no flipped bit was noticed");
}
