//! Some nodes in this process, each on a directory and a port of its own, and what tests ask of them.

use onward_raft::{Config, InitialMember, Node, SnapshotPolicy};
use onward_statemachine::hash::StateHasher;
use onward_statemachine::ports::{Freshness, Proposal, Role};
use onward_statemachine::services::kv;
use onward_statemachine::{Actor, Command, NodeId, Order, Outcome, Revision, journal, keys};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const PROPOSE_MS: u64 = 30_000;

pub fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

pub fn put(key: &str, value: &str) -> Proposal {
    Proposal::new(
        Actor::new("test"),
        Command::Kv(kv::Command::Put {
            key: kv::Key(key.as_bytes().to_vec()),
            value: value.as_bytes().to_vec(),
            expect: None,
        }),
    )
}

pub async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn write(node: &Node, key: &str, value: &str) -> Revision {
    match node.proposer().propose(put(key, value), PROPOSE_MS).await {
        Ok(Outcome::Accepted { revision, .. }) => revision,
        other => panic!("{key} was not written: {other:?}"),
    }
}

/// So many writers, spread over the nodes, put a key of their own in each round.
pub async fn write_at_once(nodes: &[Node], writers: usize, rounds: usize) {
    let mut writing = JoinSet::new();
    for (writer, node) in (0..writers).zip(nodes.iter().cycle()) {
        let proposer = node.proposer();
        writing.spawn(async move {
            for round in 0..rounds {
                let proposal = put(&format!("{writer}-{round}"), "v");
                let outcome = proposer.propose(proposal, PROPOSE_MS).await;
                assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
            }
        });
    }
    while let Some(written) = writing.join_next().await {
        written.expect("writes");
    }
}

pub fn value(node: &Node, key: &str) -> Option<String> {
    let key = kv::Key(key.as_bytes().to_vec());
    let reader = node.reader();
    let pair = reader.read(|view| kv::get(view, &key));
    pair.map(|pair| String::from_utf8(pair.value).expect("text"))
}

pub async fn read(node: &Node, key: &str) -> Option<String> {
    node.reader()
        .barrier(Freshness::Linearizable)
        .await
        .expect("a fresh read");
    value(node, key)
}

/// What a metric of this name counts.
pub fn count(node: &Node, name: &str) -> Option<u64> {
    let metrics = node.cluster().metrics();
    let metric = metrics.into_iter().find(|metric| metric.name == name);
    metric.map(|metric| metric.reading.number())
}

/// A hash over the rows of the domains: the members settle some things among themselves at any time.
pub fn hash(node: &Node) -> u64 {
    node.reader().read(|view| {
        let mut hasher = StateHasher::new(Revision(0));
        view.scan(
            &[keys::MACHINES],
            &[keys::BASE],
            Order::Ascending,
            &mut |key, value| {
                hasher.row(key, value);
                ControlFlow::Continue(())
            },
        )?;
        Ok(hasher.finish())
    })
}

/// Records of what was demanded from outside: the members settle some things among themselves.
pub fn journal_length(node: &Node) -> usize {
    let outside = |record: &journal::Record| !record.actor.as_str().starts_with("raft:");
    node.reader().read(|view| {
        let page = journal::read(view, Revision(0), 1_000_000, 1_000_000, outside)?;
        Ok(page.expect("not compacted").records.len())
    })
}

pub struct Member {
    pub dir: TempDir,
    pub id: NodeId,
    pub port: Option<TcpListener>,
    pub address: String,
}

pub struct Site {
    pub members: Vec<Member>,
    pub initial: Vec<InitialMember>,
    pub snapshots: SnapshotPolicy,
}

impl Site {
    pub fn new(count: u64) -> Self {
        let members: Vec<Member> = (1..=count)
            .map(|id| {
                let port = listener();
                let address = port.local_addr().expect("bound").to_string();
                Member {
                    dir: tempfile::tempdir().expect("temp dir"),
                    id: NodeId(id),
                    port: Some(port),
                    address,
                }
            })
            .collect();
        let initial = members
            .iter()
            .map(|member| InitialMember {
                id: member.id,
                peer_address: member.address.clone(),
                http_url: format!("http://127.0.0.1:{}", 7000 + member.id.0),
            })
            .collect();
        Site {
            members,
            initial,
            snapshots: SnapshotPolicy::default(),
        }
    }

    pub fn config(&mut self, place: usize) -> Config {
        let member = &mut self.members[place];
        let mut config = Config::new(member.dir.path(), "test");
        config.node_id = Some(member.id);
        config.peer_listen = member.address.clone();
        config.peer_listener = member.port.take();
        config.initial_members = self.initial.clone();
        config.snapshots = self.snapshots;
        config
    }

    /// Starts a member; a predecessor in this process may still be letting go of its files and its port.
    pub async fn start(&mut self, place: usize) -> Node {
        let end = Instant::now() + DEADLINE;
        loop {
            match Node::start(self.config(place)).await {
                Ok(node) => return node,
                Err(error) if Instant::now() > end => panic!("node {place} does not start: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub async fn start_all(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for place in 0..self.members.len() {
            nodes.push(self.start(place).await);
        }
        nodes
    }
}

pub async fn leader_of(nodes: &[&Node]) -> NodeId {
    until("a leader", async || {
        nodes
            .iter()
            .map(|node| node.cluster().status())
            .find(|status| status.role == Role::Leader && status.healthy)
            .map(|status| status.node)
    })
    .await
}

pub async fn wait_applied(node: &Node, revision: Revision) {
    until("a revision to be applied", async || {
        (node.reader().stamp().applied >= revision).then_some(())
    })
    .await;
}
