//! Nodes in one process on 127.0.0.1: replication, failover, restart, rejoin by snapshot, reads and writes from
//! anywhere. Nothing here waits for a time: everything waits for a condition, with a generous deadline.

use onward_raft::{Config, InitialMember, Join, Node, SnapshotPolicy, StartError};
use onward_statemachine::hash::state_hash;
use onward_statemachine::membership::{Change, Changed};
use onward_statemachine::ports::{Freshness, Proposal, ProposeError, ReadError, Role};
use onward_statemachine::services::kv;
use onward_statemachine::{Actor, Command, CommandId, NodeId, Outcome, Refusal, Revision, journal};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);
const PROPOSE_MS: u64 = 30_000;

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn put(key: &str, value: &str) -> Proposal {
    Proposal::new(
        Actor::new("test"),
        Command::Kv(kv::Command::Put {
            key: kv::Key(key.as_bytes().to_vec()),
            value: value.as_bytes().to_vec(),
            expect: None,
        }),
    )
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn write(node: &Node, key: &str, value: &str) -> Revision {
    match node.proposer().propose(put(key, value), PROPOSE_MS).await {
        Ok(Outcome::Accepted { revision, .. }) => revision,
        other => panic!("{key} was not written: {other:?}"),
    }
}

fn value(node: &Node, key: &str) -> Option<String> {
    let key = kv::Key(key.as_bytes().to_vec());
    let reader = node.reader();
    let pair = reader.read(|view| kv::get(view, &key));
    pair.map(|pair| String::from_utf8(pair.value).expect("text"))
}

async fn read(node: &Node, key: &str) -> Option<String> {
    node.reader()
        .barrier(Freshness::Linearizable)
        .await
        .expect("a fresh read");
    value(node, key)
}

fn hash(node: &Node) -> u64 {
    node.reader().read(state_hash)
}

/// Records of what was demanded from outside: the members settle some things among themselves.
fn journal_length(node: &Node) -> usize {
    let outside = |record: &journal::Record| !record.actor.as_str().starts_with("raft:");
    node.reader().read(|view| {
        let page = journal::read(view, Revision(0), 1_000_000, 1_000_000, outside)?;
        Ok(page.expect("not compacted").records.len())
    })
}

struct Member {
    dir: TempDir,
    id: NodeId,
    port: Option<TcpListener>,
    address: String,
}

struct Site {
    members: Vec<Member>,
    initial: Vec<InitialMember>,
    snapshots: SnapshotPolicy,
}

impl Site {
    fn new(count: u64) -> Self {
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

    fn config(&mut self, place: usize) -> Config {
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
    async fn start(&mut self, place: usize) -> Node {
        let end = Instant::now() + DEADLINE;
        loop {
            match Node::start(self.config(place)).await {
                Ok(node) => return node,
                Err(error) if Instant::now() > end => panic!("node {place} does not start: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn start_all(&mut self) -> Vec<Node> {
        let mut nodes = Vec::new();
        for place in 0..self.members.len() {
            nodes.push(self.start(place).await);
        }
        nodes
    }
}

async fn leader_of(nodes: &[&Node]) -> NodeId {
    until("a leader", async || {
        nodes
            .iter()
            .map(|node| node.cluster().status())
            .find(|status| status.role == Role::Leader && status.healthy)
            .map(|status| status.node)
    })
    .await
}

async fn wait_applied(node: &Node, revision: Revision) {
    until("a revision to be applied", async || {
        (node.reader().stamp().applied >= revision).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_proposes_restarts_and_remembers() {
    let mut site = Site::new(1);
    let node = site.start(0).await;
    let first = write(&node, "a", "1").await;
    let second = write(&node, "a", "2").await;
    assert!(second > first);
    assert_eq!(read(&node, "a").await.as_deref(), Some("2"));
    let before = hash(&node);
    let status = node.cluster().status();
    assert_eq!((status.role, status.leader), (Role::Leader, Some(NodeId(1))));
    assert_eq!(status.members.len(), 1);
    assert!(status.healthy && status.applied >= second && status.log_time.0 > 0);

    // As after a crash: nothing was flushed, so the log is replayed.
    node.abandon().await;
    let node = site.start(0).await;
    assert_eq!(read(&node, "a").await.as_deref(), Some("2"));
    assert_eq!(hash(&node), before);
    let third = write(&node, "b", "3").await;
    assert!(third > second);

    // As after an orderly stop.
    let before = hash(&node);
    node.shutdown().await;
    let node = site.start(0).await;
    assert_eq!(hash(&node), before);
    assert_eq!(read(&node, "b").await.as_deref(), Some("3"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_says_whose_it_is() {
    let mut site = Site::new(1);
    let node = site.start(0).await;
    assert!(matches!(
        Node::start(site.config(0)).await,
        Err(StartError::Locked { .. })
    ));
    let other = tempfile::tempdir().expect("temp dir");
    let mut config = site.config(0);
    config.data_dir = other.path().to_owned();
    let error = Node::start(config).await.err().expect("the port is taken");
    assert!(matches!(&error, StartError::PortInUse { address } if *address == site.members[0].address));
    assert!(error.to_string().contains(&site.members[0].address));
    node.shutdown().await;

    let mut config = site.config(0);
    config.node_id = Some(NodeId(2));
    config.peer_listener = Some(listener());
    assert!(matches!(
        Node::start(config).await,
        Err(StartError::OtherNode {
            found: NodeId(1),
            wanted: NodeId(2),
            ..
        })
    ));
    let mut config = site.config(0);
    config.cluster_name = "elsewhere".to_owned();
    config.peer_listener = Some(listener());
    assert!(matches!(
        Node::start(config).await,
        Err(StartError::OtherCluster { .. })
    ));
    let mut config = Config::new(other.path(), "test");
    config.peer_listener = Some(listener());
    assert!(matches!(Node::start(config).await, Err(StartError::NoIdentity)));
    let mut config = site.config(0);
    config.data_dir = Path::new("/proc/onward").to_owned();
    assert!(matches!(
        Node::start(config).await,
        Err(StartError::Unwritable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_replicate_read_and_write_anywhere() {
    let mut site = Site::new(3);
    let nodes = site.start_all().await;
    let mut last = Revision(0);
    for (round, node) in nodes.iter().cycle().take(9).enumerate() {
        last = write(node, "key", &round.to_string()).await;
        // Any node sees it at once.
        let reader = &nodes[(round + 1) % 3];
        assert_eq!(read(reader, "key").await, Some(round.to_string()));
    }
    for node in &nodes {
        let stamp = node.reader().barrier(Freshness::AtLeast(last)).await;
        assert!(stamp.expect("it arrives").applied >= last);
    }
    assert!(nodes.iter().all(|node| hash(node) == hash(&nodes[0])));
    let changed = nodes[1].reader().changed(Revision(last.0 - 1)).await;
    assert!(changed >= last);

    // The same demand twice is done once, wherever it is made.
    let length = journal_length(&nodes[0]);
    let mut twice = put("once", "x");
    twice.command_id = Some(CommandId(uuid::Uuid::now_v7()));
    let first = nodes[0].proposer().propose(twice.clone(), PROPOSE_MS).await;
    let second = nodes[1].proposer().propose(twice, PROPOSE_MS).await;
    assert_eq!(first, second);
    read(&nodes[0], "once").await;
    assert_eq!(journal_length(&nodes[0]), length + 1);

    // A refusal is an outcome, and comes from wherever it is decided.
    let mut refused = put("", "x");
    refused.command_id = None;
    for node in &nodes {
        let outcome = node.proposer().propose(refused.clone(), PROPOSE_MS).await;
        assert!(matches!(
            outcome,
            Ok(Outcome::Refused {
                refusal: Refusal::Kv(_),
                ..
            })
        ));
    }
    let too_large = put("large", &"x".repeat(5 << 20));
    for node in &nodes {
        let outcome = node.proposer().propose(too_large.clone(), PROPOSE_MS).await;
        assert!(
            matches!(outcome, Err(ProposeError::TooLarge { .. })),
            "{outcome:?}"
        );
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_on_all_nodes_lose_nothing() {
    let mut site = Site::new(3);
    let nodes = site.start_all().await;
    leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..24 {
        let proposer = nodes[writer % 3].proposer();
        writers.spawn(async move {
            for round in 0..20 {
                let outcome = proposer
                    .propose(put(&format!("{writer}-{round}"), "v"), PROPOSE_MS)
                    .await;
                assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.expect("writes");
    }
    read(&nodes[2], "0-0").await;
    assert_eq!(journal_length(&nodes[2]), 24 * 20);
    let synced = |name: &str| {
        let metrics = nodes[0].cluster().metrics();
        metrics
            .iter()
            .find(|metric| metric.name == name)
            .expect("is there")
            .reading
            .number()
    };
    assert!(
        synced("onward_raft_log_syncs_total") < synced("onward_raft_log_synced_entries_total"),
        "a sync covers more than one entry"
    );
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_replaced_and_comes_back() {
    let mut site = Site::new(3);
    let mut nodes = site.start_all().await;
    write(&nodes[0], "before", "1").await;
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let gone = (leader.0 - 1) as usize;
    nodes.remove(gone).abandon().await;
    // No wait for an election: a write retries until somebody leads.
    let during = write(&nodes[0], "during", "2").await;
    assert_eq!(read(&nodes[1], "during").await.as_deref(), Some("2"));
    let new_leader = leader_of(&[&nodes[0], &nodes[1]]).await;
    assert_ne!(new_leader, leader);
    let back = site.start(gone).await;
    wait_applied(&back, during).await;
    assert_eq!(read(&back, "before").await.as_deref(), Some("1"));
    assert_eq!(read(&back, "during").await.as_deref(), Some("2"));
    for node in nodes {
        node.shutdown().await;
    }
    back.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over() {
    let mut site = Site::new(3);
    let mut nodes = site.start_all().await;
    write(&nodes[0], "a", "1").await;
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let heir = NodeId(leader.0 % 3 + 1);
    until("the heir to lead", async || {
        let change = Change::Transfer { to: Some(heir) };
        let changed = nodes[0].cluster().change(change, PROPOSE_MS).await;
        assert_eq!(changed, Ok(Changed::Leads { id: heir }));
        let status = nodes[(heir.0 - 1) as usize].cluster().status();
        (status.role == Role::Leader).then_some(())
    })
    .await;
    // A leader that shuts down hands over by itself.
    nodes.remove((heir.0 - 1) as usize).shutdown().await;
    write(&nodes[0], "b", "2").await;
    assert_eq!(read(&nodes[1], "b").await.as_deref(), Some("2"));
    for node in nodes {
        node.abandon().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_neither_writes_nor_reads_fresh() {
    let mut site = Site::new(3);
    let mut nodes = site.start_all().await;
    write(&nodes[0], "a", "1").await;
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let survivor = nodes.remove((leader.0 - 1) as usize);
    for node in nodes {
        node.abandon().await;
    }
    let mut demand = put("a", "2");
    demand.command_id = Some(CommandId(uuid::Uuid::now_v7()));
    let outcome = survivor.proposer().propose(demand.clone(), 3_000).await;
    assert!(
        matches!(outcome, Err(ProposeError::Unknown(_) | ProposeError::NoLeader)),
        "{outcome:?}"
    );
    let fresh = survivor.reader().barrier(Freshness::Linearizable).await;
    assert_eq!(fresh, Err(ReadError::NoLeader));
    assert_eq!(value(&survivor, "a").as_deref(), Some("1"));
    assert!(!survivor.cluster().status().healthy);
    // With a majority back, the same demand is done, once.
    let others: Vec<usize> = (0..3).filter(|place| *place != (leader.0 - 1) as usize).collect();
    let back = site.start(others[0]).await;
    let outcome = survivor.proposer().propose(demand, PROPOSE_MS).await;
    assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
    assert_eq!(read(&back, "a").await.as_deref(), Some("2"));
    assert_eq!(journal_length(&back), 2);
    back.abandon().await;
    survivor.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_follower_joins_again_by_snapshot_under_a_new_id() {
    let mut site = Site::new(3);
    site.snapshots = SnapshotPolicy {
        entries: 50,
        log_bytes: u64::MAX,
        keep_entries: 5,
    };
    let mut nodes = site.start_all().await;
    for round in 0..120 {
        write(&nodes[0], &format!("key-{round}"), &"v".repeat(2000)).await;
    }
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    until("the log to be purged", async || {
        let status = nodes[(leader.0 - 1) as usize].cluster().status();
        (status.snapshot.0 > 50 && status.first_log.0 > 20).then_some(())
    })
    .await;
    let wiped = (leader.0 % 3) as usize;
    let old_id = NodeId(wiped as u64 + 1);
    nodes.remove(wiped).abandon().await;
    write(&nodes[0], "while-away", "x").await;

    let dir = tempfile::tempdir().expect("temp dir");
    let mut config = Config::new(dir.path(), "test");
    config.peer_listener = Some(listener());
    config.snapshots = site.snapshots;
    // Any member will do, also one that does not lead.
    config.join = Some(Join {
        peer_address: nodes[1].peer_address().to_string(),
        replaces: Some(old_id),
    });
    let joined = Node::start(config).await.expect("joins");
    assert!(joined.id().0 > 3, "an id is never used again: {}", joined.id());
    assert_eq!(joined.cluster_id(), nodes[0].cluster_id());
    until("the new member to vote in place of the old one", async || {
        let members = nodes[0].cluster().status().members;
        let votes = |id| members.iter().any(|member| member.id == id && member.voter);
        let gone = members.iter().all(|member| member.id != old_id);
        (votes(joined.id()) && gone).then_some(())
    })
    .await;
    let installed = joined.cluster().metrics();
    let installed = installed
        .iter()
        .find(|metric| metric.name == "onward_raft_snapshots_installed_total");
    assert_eq!(installed.map(|metric| metric.reading.number()), Some(1));
    assert_eq!(read(&joined, "while-away").await.as_deref(), Some("x"));
    assert_eq!(read(&joined, "key-0").await.map(|value| value.len()), Some(2000));
    read(&nodes[0], "key-0").await;
    assert_eq!(hash(&joined), hash(&nodes[0]));

    // It keeps what it got over a restart, and carries its part of a majority.
    let (id, address) = (joined.id(), joined.peer_address().to_string());
    joined.abandon().await;
    let mut config = Config::new(dir.path(), "test");
    config.peer_listen = address;
    let restarted = until("the new member to start again", async || {
        let mut again = Config::new(dir.path(), "test");
        again.peer_listen.clone_from(&config.peer_listen);
        Node::start(again).await.ok()
    })
    .await;
    assert_eq!(restarted.id(), id);
    nodes.remove(0).abandon().await;
    write(&nodes[0], "after", "y").await;
    assert_eq!(read(&restarted, "after").await.as_deref(), Some("y"));
    restarted.abandon().await;
    nodes.remove(0).abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let mut site = Site::new(1);
    let node = site.start(0).await;
    write(&node, "a", "1").await;
    // A member of another cluster that thinks it knows this address.
    let port = listener();
    let address = port.local_addr().expect("bound").to_string();
    let other = tempfile::tempdir().expect("temp dir");
    let mut config = Config::new(other.path(), "test");
    config.node_id = Some(NodeId(2));
    config.peer_listener = Some(port);
    config.initial_members = vec![
        site.initial[0].clone(),
        InitialMember {
            id: NodeId(2),
            peer_address: address,
            http_url: "http://127.0.0.1:1".to_owned(),
        },
    ];
    let stranger = Node::start(config).await.expect("starts");
    until("the stranger to be refused", async || {
        let metrics = node.cluster().metrics();
        let refused = metrics
            .iter()
            .find(|metric| metric.name == "onward_raft_peer_refusals_total")?;
        (refused.reading.number() > 0).then_some(())
    })
    .await;
    assert_eq!(read(&node, "a").await.as_deref(), Some("1"));
    assert_eq!(node.cluster().status().members.len(), 1);
    stranger.abandon().await;
    node.shutdown().await;
}

/// A member of another cluster, such as one that was restored from a backup, may have the address of one of ours by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_members_of_its_own_cluster_can_tell_a_node_that_it_was_removed() {
    let mut site = Site::new(3);
    let mut nodes = site.start_all().await;
    write(&nodes[0], "a", "1").await;
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let left = (leader.0 % 3) as usize;
    let alone = nodes.remove(left);
    let mut addresses = Vec::new();
    for node in nodes {
        addresses.push(node.peer_address().to_string());
        node.abandon().await;
    }
    // Who is there now is ahead, and does not know the node that is left.
    let dir = tempfile::tempdir().expect("temp dir");
    let other = until("another cluster to take an address", async || {
        let mut config = Config::new(dir.path(), "test");
        config.node_id = Some(NodeId(9));
        config.peer_listen.clone_from(&addresses[0]);
        config.initial_members = vec![InitialMember {
            id: NodeId(9),
            peer_address: addresses[0].clone(),
            http_url: "http://127.0.0.1:1".to_owned(),
        }];
        Node::start(config).await.ok()
    })
    .await;
    leader_of(&[&other]).await;
    for round in 0..20 {
        write(&other, &format!("{round}"), "x").await;
    }
    let change = Change::Add {
        peer_address: "127.0.0.1:9".to_owned(),
        replaces: None,
    };
    let changed = other.cluster().change(change, PROPOSE_MS).await;
    assert!(matches!(changed, Ok(Changed::Admitted { .. })), "{changed:?}");
    // It asks twice a second once it has heard of no leader for a while.
    let removed = tokio::time::timeout(Duration::from_secs(5), alone.removed()).await;
    assert!(removed.is_err(), "{removed:?}");
    alone.abandon().await;
    other.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_does_not_come_back_under_its_id() {
    let mut site = Site::new(3);
    let mut nodes = site.start_all().await;
    let last = write(&nodes[0], "a", "1").await;
    for node in &nodes {
        wait_applied(node, last).await;
    }
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let wiped = (leader.0 % 3) as usize;
    nodes.remove(wiped).abandon().await;
    let mut config = site.config(wiped);
    let empty = tempfile::tempdir().expect("temp dir");
    config.data_dir = empty.path().to_owned();
    config.peer_listener = Some(listener());
    let refused = Node::start(config).await.err().expect("is refused");
    assert!(matches!(refused, StartError::Forgot(_)), "{refused}");
    assert!(refused.to_string().contains("onward serve --join URL"));
    write(&nodes[0], "b", "2").await;
    for node in nodes {
        node.abandon().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_forms_once_all_initial_members_were_there() {
    let mut site = Site::new(3);
    let first = site.start(0).await;
    let second = site.start(1).await;
    // Both have asked each other and the absent one by the time that their founding has gone round.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for node in [&first, &second] {
        let status = node.cluster().status();
        assert_eq!(
            (status.leader, status.members.len()),
            (None, 0),
            "one of three was never seen"
        );
    }
    // Whose processes end before the third comes: nobody has to remember anything.
    first.abandon().await;
    let first = site.start(0).await;
    let third = site.start(2).await;
    leader_of(&[&first, &second, &third]).await;
    write(&third, "a", "1").await;
    let nodes = [first, second, third];
    for node in &nodes {
        assert_eq!(read(node, "a").await.as_deref(), Some("1"));
    }
    for node in nodes {
        node.abandon().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_right_after_forming_stops_nobody() {
    for _ in 0..5 {
        let mut site = Site::new(3);
        let nodes = site.start_all().await;
        until("the cluster to be formed", async || {
            let formed = |node: &Node| !node.cluster().status().members.is_empty();
            nodes.iter().any(formed).then_some(())
        })
        .await;
        for node in nodes {
            node.abandon().await;
        }
        let nodes = site.start_all().await;
        leader_of(&nodes.iter().collect::<Vec<_>>()).await;
        write(&nodes[0], "a", "1").await;
        for node in nodes {
            node.abandon().await;
        }
    }
}
