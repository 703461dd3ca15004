//! Nodes in one process on 127.0.0.1: replication, failover, restart, rejoin by snapshot, reads and writes from
//! anywhere. Nothing here waits for a time: everything waits for a condition, with a generous deadline.

mod backup;
mod members;
mod room;
mod site;

use onward_raft::{Config, Node, StartError};
use onward_statemachine::membership::{Change, Changed};
use onward_statemachine::ports::{Freshness, ProposeError, ReadError, Role};
use onward_statemachine::{CommandId, NodeId, Outcome, Refusal, Revision};
use site::*;
use std::path::Path;
use std::time::Duration;

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
    write_at_once(&nodes, 24, 20).await;
    read(&nodes[2], "0-0").await;
    assert_eq!(journal_length(&nodes[2]), 24 * 20);
    assert!(
        count(&nodes[0], "onward_raft_log_syncs_total")
            < count(&nodes[0], "onward_raft_log_synced_entries_total"),
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

/// Reads that wait for a leader are so many at most, and those that need not wait are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_are_bounded() {
    let mut site = Site::new(3);
    let mut nodes = Vec::new();
    for place in 0..3 {
        let mut config = site.config(place);
        config.limits.reads_waiting_max = 2;
        nodes.push(Node::start(config).await.expect("starts"));
    }
    let last = write(&nodes[0], "a", "1").await;
    let survivor = nodes.remove(0);
    for node in nodes {
        node.abandon().await;
    }
    until("the survivor to miss the others", async || {
        (!survivor.cluster().status().healthy).then_some(())
    })
    .await;
    let reader = survivor.reader();
    let ahead = Freshness::AtLeast(Revision(last.0 + 1_000));
    let (mut first, mut second) = (reader.barrier(Freshness::Linearizable), reader.barrier(ahead));
    for waits in [&mut first, &mut second] {
        let begun = tokio::time::timeout(Duration::from_millis(1), waits).await;
        assert!(begun.is_err(), "{begun:?}");
    }
    for freshness in [Freshness::Linearizable, ahead] {
        let third = reader.barrier(freshness).await;
        assert!(
            matches!(third, Err(ReadError::Overloaded { waiting: 2, .. })),
            "{third:?}"
        );
    }
    assert_eq!(count(&survivor, "onward_raft_reads_overloaded_total"), Some(2));
    for freshness in [Freshness::Local, Freshness::AtLeast(Revision(1))] {
        assert!(reader.barrier(freshness).await.is_ok());
    }
    // A read that is given up leaves its place, and so does one that ends.
    drop(second);
    assert_eq!(first.await, Err(ReadError::NoLeader));
    for _ in 0..3 {
        let begun = tokio::time::timeout(Duration::from_millis(1), reader.barrier(ahead)).await;
        assert!(begun.is_err(), "{begun:?}");
    }
    survivor.abandon().await;
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
