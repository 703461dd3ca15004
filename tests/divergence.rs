//! A node whose state is not the others': it stops before long, says what to do, and does not come back by itself.
//!
//! What makes its state another is a planted bug, so most of this is for builds with the feature `mutants`
//! (`scripts/mutants` runs it).

use crate::support::{Cluster, eventually};

/// On a healthy cluster the check goes on, on every node, and finds nothing.
#[test]
fn replicas_agree_on_their_state_again_and_again() {
    let cluster = Cluster::start(3);
    let mut before = 0.0;
    for round in 0..3 {
        cluster.ok(&["kv", "put", &format!("agreed/{round}"), "x"]);
        for node in &cluster.nodes {
            eventually("a later revision is agreed on", || {
                // A verdict travels with the mark after it.
                cluster.ok(&["kv", "put", "agreed/tick", "x"]);
                cluster.metric(node, "onward_raft_state_hash_agreed_revision") > before
            });
        }
        let agreed = |node| cluster.metric(node, "onward_raft_state_hash_agreed_revision");
        before = cluster.nodes.iter().map(agreed).fold(before, f64::max);
    }
    for node in &cluster.nodes {
        assert_eq!(cluster.metric(node, "onward_raft_state_hash_disputed"), 0.0);
        assert_eq!(
            cluster.metric(node, "onward_raft_state_hash_odd_members_total"),
            0.0
        );
    }
}

#[cfg(feature = "mutants")]
mod planted {
    use super::*;
    use crate::support::{ONWARD, Process, signal};
    use nix::sys::signal::Signal;
    use std::process::{Command, Stdio};

    /// `EX_DATAERR`, as docs/operations.md says.
    const DIVERGED: i32 = 65;
    const BUG: [(&str, &str); 1] = [("ONWARD_MUTANT", "state-bit-flip")];

    /// Starts a node again, with the bug. It has no effect until something is put: the node is stopped in good order, so
    /// that it has nothing to apply again.
    fn infect(cluster: &Cluster, id: u64) -> Process {
        signal(cluster.node(id).pid, Signal::SIGTERM);
        cluster.wait_for_end(id);
        cluster.revive_with(id, &BUG)
    }

    fn in_force(cluster: &Cluster) {
        eventually("the check is in force on all nodes", || {
            cluster.ok(&["kv", "put", "warm", "up"]);
            let checked = |node| cluster.metric(node, "onward_raft_state_hash_checks_total") > 0.0;
            cluster.nodes.iter().all(checked)
        });
    }

    /// What holds of a node that was found out: its exit code, its last words, and that it does not start again.
    fn is_out(cluster: &Cluster, id: u64, mut process: Process) {
        assert_eq!(process.ended().code(), Some(DIVERGED));
        let dir = &cluster.node(id).dir;
        let note = std::fs::read_to_string(dir.join("data/diverged")).expect("a note");
        assert!(note.contains("is not that of the majority"), "{note}");
        let log = std::fs::read_to_string(dir.join("onward.log")).expect("a log");
        assert!(log.contains("--replaces"), "the log says what to do");
        let again = Command::new(ONWARD)
            .args(["serve", "--config"])
            .arg(dir.join("onward.toml"))
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        assert_eq!(again.status.code(), Some(DIVERGED));
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(said.contains("replace this member"), "{said}");
    }

    #[test]
    fn an_odd_follower_stops_and_is_replaced() {
        let cluster = Cluster::start(3);
        in_force(&cluster);
        let leader = cluster.leader();
        let odd = cluster.others(leader)[0].clone();
        let process = infect(&cluster, odd.id);
        let leader = cluster.node(leader).clone();
        let put = cluster.http.put(format!("{}/v1/kv/flipped", leader.http));
        let put = put
            .header("Content-Type", "application/octet-stream")
            .body("x".repeat(500));
        assert!(put.send().expect("answers").status().is_success());
        is_out(&cluster, odd.id, process);
        for node in cluster.others(odd.id) {
            assert_eq!(cluster.pairs(node.id, "flipped", "linearizable")["flipped"].0, 1);
        }
        assert_eq!(
            cluster.metric(&leader, "onward_raft_state_hash_odd_members_total"),
            1.0
        );

        let _fresh = cluster.replace(&odd, &leader);
        eventually("the new member is compared, too", || {
            cluster.ok(&["kv", "put", "warm", "up"]);
            cluster.metric(&odd, "onward_raft_state_hash_checks_total") > 0.0
        });
    }

    #[test]
    fn an_odd_leader_stops_and_another_takes_over() {
        let cluster = Cluster::start(3);
        in_force(&cluster);
        let odd = cluster.others(cluster.leader())[0].id;
        let process = infect(&cluster, odd);
        eventually("the odd one leads", || {
            cluster.cli(&["cluster", "transfer", "--to", &odd.to_string()]);
            cluster.leader() == odd
        });
        let mut acknowledged = 0;
        for number in 0..50 {
            let put = cluster.cli(&["kv", "put", &format!("led/{number:02}"), &"y".repeat(500)]);
            acknowledged += usize::from(put.status.success());
        }
        is_out(&cluster, odd, process);
        let another = cluster.others(odd)[0].id;
        eventually("another one leads, and what was acknowledged is there", || {
            let there = cluster.pairs(another, "led/", "linearizable");
            there.len() >= acknowledged && there.values().all(|pair| pair.1 == "y".repeat(500))
        });
    }
}
