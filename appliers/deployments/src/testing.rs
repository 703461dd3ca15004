//! What the tests of this crate share.

use crate::driver::procfs;
use crate::{Config, Handle};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use onward_statemachine::deployments::apps::{
    self, Commit, Health, Name, Probe, Protocol, Route, Source, Spec,
};
use onward_statemachine::deployments::instances::{
    self, Instance, Reply as InstancesReply, Rollout, RolloutNumber, Serving, Step,
};
use onward_statemachine::membership::{Change, ChangeError, Changed};
use onward_statemachine::ports::{
    BoxFuture, Cluster, ClusterStatus, Metric, Proposal, ProposeError, Proposer, Reader,
};
use onward_statemachine::testing::SingleNode;
use onward_statemachine::{Actor, Command, Fault, Millis, NodeId, Outcome, Reply, View};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true; only a broken build waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP/1.1 server that says which version and release it is.
pub(crate) const SERVER: &str = r#"
import os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        release = os.environ["ONWARD_RELEASE"] + os.environ.get("GREETING", "")
        body = (open("version").read() + " " + release).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// An app that runs [`SERVER`] from a repository, at host `web.test`.
pub(crate) fn spec(repository: &Repository) -> Spec {
    Spec {
        source: Source {
            repository: repository.url(),
            reference: "main".into(),
        },
        build: None,
        build_env: BTreeMap::new(),
        run: "exec python3 server.py".into(),
        protocol: Protocol::Http,
        env: BTreeMap::new(),
        routes: vec![Route {
            host: "web.test".into(),
            path: "/".into(),
        }],
        health: Health {
            probe: Probe::Http { path: "/".into() },
            interval_ms: 20,
            ..Health::default()
        },
        stop_grace_ms: 10_000,
        drain_ms: 300,
    }
}

/// GET through an ingress over a connection of its own.
pub(crate) async fn get(ingress: SocketAddr, host: &str, path: &str) -> Option<(u16, String)> {
    let stream = tokio::net::TcpStream::connect(ingress).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", host)
        .body(Empty::<Bytes>::new())
        .expect("builds");
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// One node's log in memory, on real time, under a cluster id of its own, with a crash in its proposer on demand.
struct Log {
    node: SingleNode,
    cluster_id: uuid::Uuid,
    crash: Mutex<Option<Crash>>,
}

struct Crash {
    proposals_left: AtomicU32,
    after: bool,
    reached: CancellationToken,
}

impl Log {
    async fn run(&self, proposal: Proposal) -> Result<Outcome, ProposeError> {
        let hit = {
            let crash = self.crash.lock().unwrap();
            crash.as_ref().and_then(|crash| {
                let left = crash.proposals_left.fetch_sub(1, Ordering::SeqCst);
                (left <= 1).then(|| (crash.after, crash.reached.clone(), left == 1))
            })
        };
        let Some((after, reached, first)) = hit else {
            return self.apply(proposal).await;
        };
        if after && first {
            self.apply(proposal).await?;
        }
        reached.cancel();
        std::future::pending().await
    }

    async fn apply(&self, proposal: Proposal) -> Result<Outcome, ProposeError> {
        self.node.set_now(real_time());
        let outcome = self.node.propose(proposal, 1_000).await?;
        let violations = <dyn Reader>::read(&self.node, onward_statemachine::check::check);
        assert_eq!(violations, []);
        Ok(outcome)
    }
}

fn real_time() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis(since.as_millis() as u64)
}

struct Applier(Arc<Log>);

impl Proposer for Applier {
    fn propose(&self, proposal: Proposal, _deadline_ms: u64) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        Box::pin(self.0.run(proposal))
    }
    fn now(&self) -> Millis {
        real_time()
    }
}

impl Cluster for Log {
    fn status(&self) -> ClusterStatus {
        ClusterStatus {
            cluster_id: self.cluster_id,
            ..self.node.status()
        }
    }
    fn metrics(&self) -> Vec<Metric> {
        Vec::new()
    }
    fn change(&self, change: Change, deadline_ms: u64) -> BoxFuture<'_, Result<Changed, ChangeError>> {
        self.node.change(change, deadline_ms)
    }
}

struct LogReader(Arc<Log>);

impl Reader for LogReader {
    fn barrier(
        &self,
        freshness: onward_statemachine::ports::Freshness,
    ) -> BoxFuture<'_, Result<onward_statemachine::ports::Stamp, onward_statemachine::ports::ReadError>> {
        self.0.node.barrier(freshness)
    }
    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        self.0.node.with_view(read);
    }
    fn stamp(&self) -> onward_statemachine::ports::Stamp {
        self.0.node.stamp()
    }
    fn past(
        &self,
        at: onward_statemachine::Revision,
    ) -> BoxFuture<'_, Result<Arc<dyn onward_statemachine::ports::Past>, onward_statemachine::ports::PastError>>
    {
        self.0.node.past(at)
    }
    fn changed(&self, after: onward_statemachine::Revision) -> BoxFuture<'_, onward_statemachine::Revision> {
        self.0.node.changed(after)
    }
}

/// A log, a folder, and nodes that come and go on them.
pub(crate) struct Bed {
    scratch: tempfile::TempDir,
    log: Arc<Log>,
}

/// A running node.
pub(crate) struct Node {
    pub(crate) ingress_addr: SocketAddr,
    handle: Handle,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Bed {
            scratch: tempfile::tempdir().unwrap(),
            log: Arc::new(Log {
                node: SingleNode::new(),
                cluster_id: uuid::Uuid::new_v4(),
                crash: Mutex::new(None),
            }),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(LogReader(Arc::clone(&self.log)))
    }

    pub(crate) fn repository(&self) -> Repository {
        Repository::new(self.path("repository"))
    }

    pub(crate) async fn start(&self) -> Node {
        let config = Config {
            node: NodeId(1),
            data_dir: self.path("deployments"),
            ingress_listen: "127.0.0.1:0".parse().unwrap(),
            ingress_domain: Some("apps.test".into()),
            advertise_host: "127.0.0.1".parse().unwrap(),
        };
        let log = &self.log;
        let handle = crate::start(
            config,
            Arc::new(Applier(Arc::clone(log))),
            self.reader(),
            Arc::clone(log) as Arc<dyn Cluster>,
            CancellationToken::new(),
        )
        .await
        .unwrap();
        Node {
            ingress_addr: handle.ingress_addr,
            handle,
        }
    }

    /// Ends all of a node's work at once, as if it had been killed.
    pub(crate) async fn crash(&self, node: Node) {
        for task in &node.handle.tasks {
            task.abort();
        }
        node.handle.ended().await;
        // A killed process does nothing any more; a cancelled task does until it is next asked.
        self.until("the node's tasks are gone", || Arc::strong_count(&self.log) == 1)
            .await;
    }

    /// Lets the applier's `count`th proposal from now on, and all later ones, never end: the first one after it was
    /// applied, or before. Resolves once that is reached.
    pub(crate) fn crash_at(&self, count: u32, after: bool) -> impl Future<Output = ()> + use<> {
        let reached = CancellationToken::new();
        *self.log.crash.lock().unwrap() = Some(Crash {
            proposals_left: AtomicU32::new(count),
            after,
            reached: reached.clone(),
        });
        async move { reached.cancelled().await }
    }

    pub(crate) fn heal(&self) {
        *self.log.crash.lock().unwrap() = None;
    }

    async fn propose(&self, command: Command) -> Reply {
        let proposal = Proposal::new(Actor::new("test"), command);
        match self.log.apply(proposal).await.unwrap() {
            Outcome::Accepted { reply, .. } => reply,
            Outcome::Refused { refusal, .. } => panic!("refused: {refusal}"),
        }
    }

    pub(crate) async fn apps(&self, command: apps::Command) {
        self.propose(Command::Apps(command)).await;
    }

    pub(crate) async fn declare(&self, name: &str, spec: Spec) {
        let name = Name(name.into());
        let spec = Box::new(spec);
        self.apps(apps::Command::Set {
            name,
            spec,
            expect: None,
        })
        .await;
    }

    pub(crate) async fn instances(&self, command: instances::Command) -> RolloutNumber {
        match self.propose(Command::Instances(command)).await {
            Reply::Instances(InstancesReply::Rollout(number)) => number,
            other => panic!("no rollout: {other:?}"),
        }
    }

    pub(crate) async fn deploy(&self, app: &str) -> RolloutNumber {
        let app = Name(app.into());
        self.instances(instances::Command::Deploy { app, reference: None })
            .await
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, Fault>) -> T {
        <dyn Reader>::read(&self.log.node, read)
    }

    pub(crate) fn rollout(&self, app: &str, number: RolloutNumber) -> Rollout {
        let app = Name(app.into());
        self.read(|view| instances::rollout(view, &app, number)).unwrap()
    }

    pub(crate) fn serving(&self, app: &str) -> Serving {
        let app = Name(app.into());
        self.read(|view| instances::serving(view, &app)).unwrap()
    }

    /// Instances that have not ended.
    pub(crate) fn live(&self, app: &str) -> Vec<(instances::Ordinal, Instance)> {
        let app = Name(app.into());
        let all = self
            .read(|view| instances::instances(view, Some(&app), None, 1_000))
            .instances;
        let live = all.into_iter().filter(|(_, instance)| !instance.state.is_end());
        live.map(|((_, _, ordinal), instance)| (ordinal, instance))
            .collect()
    }

    /// Every living process of this bed's instances.
    pub(crate) fn processes(&self) -> Vec<procfs::Pid> {
        let marked = procfs::marked(&format!("ONWARD_INSTANCE={}/", self.log.cluster_id));
        marked.iter().map(|process| process.process).collect()
    }

    /// How many supervisors live.
    pub(crate) fn instances_running(&self) -> usize {
        let marked = procfs::marked(&format!("ONWARD_INSTANCE={}/", self.log.cluster_id));
        marked.iter().filter(|process| process.leads()).count()
    }

    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(tokio::time::Instant::now() < give_up, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn until_step(&self, app: &str, number: RolloutNumber, step: Step) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            let rollout = self.rollout(app, number);
            if rollout.step == step {
                return;
            }
            let hopeless = rollout.step.is_end() || tokio::time::Instant::now() >= give_up;
            assert!(!hopeless, "rollout {number} did not come to {step}: {rollout:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn get(&self, node: &Node, host: &str, path: &str) -> Option<(u16, String)> {
        get(node.ingress_addr, host, path).await
    }

    /// Waits for an answer of this status, whose text begins like this.
    pub(crate) async fn until_get(&self, node: &Node, host: &str, (status, begins): (u16, &str)) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = self.get(node, host, "/").await;
            if let Some((got, text)) = &answer
                && *got == status
                && text.starts_with(begins)
            {
                return;
            }
            assert!(tokio::time::Instant::now() < give_up, "not in time: {answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Bed {
    /// Whatever a failed test leaves running.
    fn drop(&mut self) {
        for left in procfs::marked(&format!("ONWARD_INSTANCE={}/", self.log.cluster_id)) {
            let group = nix::unistd::Pid::from_raw(left.group.cast_signed());
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// A git repository with a work tree.
pub(crate) struct Repository {
    folder: PathBuf,
}

impl Repository {
    pub(crate) fn new(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let repository = Repository { folder };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org"])
            .args(arguments)
            .current_dir(&self.folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Writes files and commits them.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> Commit {
        for (name, content) in files {
            let path = self.folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
        Commit::parse(&self.git(&["rev-parse", "HEAD"])).unwrap()
    }
}
