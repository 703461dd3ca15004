//! Who belongs to a cluster: it forms, members come without a log or come back without theirs, strangers stay out.

use crate::site::*;
use onward_raft::{Config, InitialMember, Join, Node, SnapshotPolicy, StartError};
use onward_statemachine::NodeId;
use onward_statemachine::membership::{Change, Changed};
use std::num::NonZeroU64;
use std::process::Command;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_follower_joins_again_by_snapshot_under_a_new_id() {
    let mut site = Site::new(3);
    site.snapshots = SnapshotPolicy {
        entries: 50,
        log_bytes: u64::MAX,
        keep_entries: 5,
        ..SnapshotPolicy::default()
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
    assert_eq!(count(&joined, "onward_raft_snapshots_installed_total"), Some(1));
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

/// It takes some seconds for its snapshot; meanwhile others are taken, and more is written than stays behind one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_slower_than_the_writes_is_sent_one_snapshot() {
    let mut site = Site::new(1);
    site.snapshots = SnapshotPolicy {
        entries: 20,
        log_bytes: u64::MAX,
        keep_entries: 5,
        bytes_per_second: NonZeroU64::new(96 << 10),
    };
    let node = site.start(0).await;
    for round in 0..60 {
        // Nothing that could be stored in less.
        let noise: String = (0..60)
            .map(|_| uuid::Uuid::new_v4().simple().to_string())
            .collect();
        write(&node, &format!("key-{round}"), &noise).await;
    }
    let purged = async || {
        let status = node.cluster().status();
        (status.first_log.0 > 20).then_some(())
    };
    until("the log to be purged", purged).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let mut config = Config::new(dir.path(), "test");
    config.peer_listener = Some(listener());
    config.snapshots = site.snapshots;
    config.join = Some(Join {
        peer_address: node.peer_address().to_string(),
        replaces: None,
    });
    let mut round = 0;
    let mut write_more = async || {
        round += 1;
        write(&node, &format!("meanwhile-{}", round % 50), "x").await;
        let sent = count(&node, "onward_raft_snapshots_sent_total");
        assert!(sent <= Some(1), "sent one after the other");
    };
    let joining = Node::start(config);
    tokio::pin!(joining);
    let joined = loop {
        tokio::select! {
            joined = &mut joining => break joined.expect("joins"),
            () = write_more() => {}
        }
    };
    let votes = || {
        let members = node.cluster().status().members;
        members
            .iter()
            .any(|member| member.id == joined.id() && member.voter)
    };
    while !votes() {
        write_more().await;
    }
    let taken = count(&node, "onward_raft_snapshots_built_total");
    assert!(taken > Some(4), "snapshots are taken meanwhile: {taken:?}");
    assert_eq!(count(&node, "onward_raft_snapshots_sent_total"), Some(1));
    assert_eq!(count(&joined, "onward_raft_snapshots_installed_total"), Some(1));
    // What was kept for it goes now.
    until("the log to be purged", async || {
        write(&node, "after", "x").await;
        let status = node.cluster().status();
        (status.first_log.0 + 60 > status.snapshot.0).then_some(())
    })
    .await;
    joined.shutdown().await;
    node.shutdown().await;
}

/// It lacks more entries than are always kept, and none more than are kept as a rule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_is_caught_up_from_the_log() {
    let mut site = Site::new(3);
    site.snapshots.entries = 1_000;
    let mut nodes = site.start_all().await;
    write(&nodes[0], "before", "1").await;
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let away = (leader.0 % 3) as usize;
    nodes.remove(away).shutdown().await;
    write_at_once(&nodes, 64, 220).await;
    let during = write(&nodes[0], "during", "2").await;
    until("a snapshot of nearly all of it", async || {
        let snapshots = nodes.iter().map(|node| node.cluster().status().snapshot);
        snapshots.min().filter(|least| least.0 + 2_000 > during.0)
    })
    .await;

    let back = site.start(away).await;
    wait_applied(&back, during).await;
    assert_eq!(
        count(&back, "onward_raft_snapshots_installed_total"),
        Some(0),
        "it needs no copy of the state"
    );
    read(&nodes[0], "during").await;
    read(&back, "during").await;
    assert_eq!(hash(&back), hash(&nodes[0]));
    for node in nodes {
        node.abandon().await;
    }
    back.abandon().await;
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
        let refused = count(&node, "onward_raft_peer_refusals_total")?;
        (refused > 0).then_some(())
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

/// It may be sent the change that removes it before its streams end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_applied_its_own_removal_stops() {
    let mut site = Site::new(3);
    let mut nodes = site.start_all().await;
    write(&nodes[0], "a", "1").await;
    let leader = leader_of(&nodes.iter().collect::<Vec<_>>()).await;
    let leading = (leader.0 - 1) as usize;
    let (left, other) = ((leading + 1) % 3, (leading + 2) % 3);
    let id = nodes[left].id();
    let changed = nodes[leading]
        .cluster()
        .change(Change::Remove { id }, PROPOSE_MS)
        .await;
    assert!(matches!(changed, Ok(Changed::Removed { .. })), "{changed:?}");
    let last = write(&nodes[leading], "b", "2").await;
    wait_applied(&nodes[other], last).await;
    for node in nodes.drain(..) {
        node.shutdown().await;
    }
    // What another applied, with its log, is what this one would have.
    let (from, to) = (site.members[other].dir.path(), site.members[left].dir.path());
    for name in ["log", "state", "snap"] {
        std::fs::remove_dir_all(to.join(name)).expect("clears");
    }
    for name in ["log", "state", "snap", "watermark"] {
        let copied = Command::new("cp").arg("-r").arg(from.join(name)).arg(to).status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "{name} is not copied"
        );
    }
    let node = site.start(left).await;
    let removed = tokio::time::timeout(DEADLINE, node.removed()).await;
    assert!(removed.is_ok(), "it waits for a leader");
    node.abandon().await;
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
    assert!(refused.to_string().contains("onward serve --join HOST:PORT"));
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
