//! A node whose disk is nearly full: what takes room there is put off.

use super::site::*;
use onward_raft::Node;
use onward_statemachine::ports::{PastError, Proposal, ProposeError};
use onward_statemachine::{Actor, Command, Outcome, Revision, history, system};

/// Starts the only member with so much of its disk in reserve.
async fn start(site: &mut Site, reserve_bytes: u64) -> Node {
    let mut config = site.config(0);
    config.limits.disk_reserve_bytes = Some(reserve_bytes);
    Node::start(config).await.expect("starts")
}

fn base(node: &Node) -> Revision {
    node.reader().read(history::base_revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_puts_off_what_takes_room() {
    let mut site = Site::new(1);
    let node = start(&mut site, 0).await;
    let first = write(&node, "a", "1").await;
    let second = write(&node, "a", "2").await;
    node.reader().past(first).await.expect("is made");
    node.shutdown().await;

    // More than any disk has: as if less than a quarter of the reserve were free.
    let node = start(&mut site, 1 << 60).await;
    until("writes to be refused", async || {
        let outcome = node.proposer().propose(put("b", "1"), PROPOSE_MS).await;
        matches!(outcome, Err(ProposeError::DiskNearlyFull { .. })).then_some(())
    })
    .await;
    let past = node.reader().past(first).await.map(|_| ());
    assert!(
        matches!(past, Err(PastError::NoRoom { at, .. }) if at == first),
        "{past:?}"
    );
    let compact = Command::System(system::Command::CompactJournal { below: second });
    let compact = Proposal::new(Actor::new("test"), compact);
    let outcome = node.proposer().propose(compact, PROPOSE_MS).await;
    assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
    // It let go of what it can, twice.
    let built = || count(&node, "onward_raft_snapshots_built_total");
    let before = built().expect("a number") + 1;
    until("a snapshot", async || built().filter(|built| *built > before)).await;
    assert_eq!(base(&node), Revision(0));
    node.shutdown().await;

    let node = start(&mut site, 0).await;
    let floor = Revision(second.0 - 1);
    until("the base to move", async || (base(&node) == floor).then_some(())).await;
    node.reader().past(second).await.expect("is made");
    node.shutdown().await;
}
