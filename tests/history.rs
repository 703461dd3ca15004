//! The past on real processes: every node answers what was read then, over snapshots, crashes, a wiped member and
//! compaction; and what the commands say of it.

use crate::support::{Cluster, Node, Process, eventually};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The pairs as of a revision.
type Then = BTreeMap<String, String>;

/// Puts a key through a node; the revision of it.
fn put(cluster: &Cluster, node: &Node, key: &str, value: &str) -> u64 {
    let url = format!("{}/v1/kv/{key}", node.http);
    let done = cluster
        .http
        .put(url)
        .header("content-type", "application/octet-stream");
    let done: Value = done
        .body(value.to_owned())
        .send()
        .expect("an answer")
        .json()
        .expect("JSON");
    done["revision"]
        .as_u64()
        .unwrap_or_else(|| panic!("not put: {done}"))
}

/// An answer with its status.
fn get(cluster: &Cluster, node: &Node, path: &str) -> (u16, Value) {
    let mut found = None;
    // Far away states may take longer than a request waits.
    eventually("the past is put together", || {
        let answer = cluster
            .http
            .get(format!("{}{path}", node.http))
            .send()
            .expect("an answer");
        let status = answer.status().as_u16();
        found = Some((status, answer.json().expect("JSON")));
        status != 503
    });
    found.expect("found above")
}

fn pairs_at(cluster: &Cluster, node: &Node, at: u64) -> Then {
    let (status, page) = get(cluster, node, &format!("/v1/kv?prefix=k&limit=5000&at={at}"));
    assert_eq!(status, 200, "as of {at} on node {}: {page}", node.id);
    assert_eq!(page["revision"], at);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let items = page["items"].as_array().expect("items").iter();
    items
        .map(|pair| (text(&pair["key"]), text(&pair["value"])))
        .collect()
}

/// Takes snapshots often: of every node the configuration is changed, and it starts again.
fn snapshot_often(cluster: &Cluster) -> BTreeMap<u64, Process> {
    let restarted = cluster.nodes.iter().map(|node| {
        let path = node.dir.join("onward.toml");
        let text = std::fs::read_to_string(&path).expect("a configuration");
        let often = text
            .replace("snapshot_entries = 200000", "snapshot_entries = 100")
            .replace("snapshot_keep_entries = 250000", "snapshot_keep_entries = 10");
        assert_ne!(often, text, "the defaults are others now");
        std::fs::write(&path, often).expect("is written");
        cluster.kill(node.id);
        (node.id, cluster.revive(node.id))
    });
    restarted.collect()
}

/// Writes `rounds` revisions, and takes note of what each tenth of them holds.
fn write_rounds(cluster: &Cluster, rounds: usize, now: &mut Then, were: &mut BTreeMap<u64, Then>) {
    for round in 0..rounds {
        let (key, value) = (format!("k{}", round * 7 % 30), format!("{}-{round}", were.len()));
        let node = &cluster.nodes[round % cluster.nodes.len()];
        let revision = put(cluster, node, &key, &value);
        now.insert(key, value);
        if round % 10 == 9 {
            were.insert(revision, now.clone());
        }
    }
}

#[test]
fn every_node_tells_what_was_read_then() {
    let cluster = Cluster::start(3);
    let mut running = snapshot_often(&cluster);
    let (mut now, mut were) = (Then::new(), BTreeMap::new());
    write_rounds(&cluster, 320, &mut now, &mut were);
    for node in &cluster.nodes {
        let url = format!("{}/v1/cluster", node.http);
        eventually("each node has a snapshot", || {
            let status: Value = cluster
                .http
                .get(&url)
                .send()
                .expect("an answer")
                .json()
                .expect("JSON");
            status["snapshot"].as_u64() > Some(0)
        });
        for (at, then) in were.iter().rev().step_by(5) {
            assert_eq!(
                &pairs_at(&cluster, node, *at),
                then,
                "as of {at} on node {}",
                node.id
            );
        }
    }

    // A member that lost its disk gets a snapshot, and the history with it. Another one crashes.
    let lost = cluster
        .nodes
        .iter()
        .find(|node| node.id != cluster.leader())
        .expect("a follower");
    let other = cluster.others(lost.id)[0];
    drop(running.remove(&lost.id));
    running.insert(lost.id, cluster.replace(lost, other));
    drop(running.remove(&other.id));
    running.insert(other.id, cluster.revive(other.id));
    for node in [lost, other] {
        for (at, then) in were.iter().step_by(9) {
            assert_eq!(
                &pairs_at(&cluster, node, *at),
                then,
                "as of {at} on node {}",
                node.id
            );
        }
    }

    // Compaction, with a crash in the middle of what follows from it, and more snapshots after it.
    let (&oldest, _) = were.iter().nth(were.len() / 2).expect("a revision");
    cluster.ok(&["event", "compact", "--to", &oldest.to_string(), "--yes"]);
    drop(running.remove(&other.id));
    running.insert(other.id, cluster.revive(other.id));
    write_rounds(&cluster, 150, &mut now, &mut were);
    for node in &cluster.nodes {
        for (at, then) in were.range(oldest..).step_by(6) {
            assert_eq!(
                &pairs_at(&cluster, node, *at),
                then,
                "as of {at} on node {}",
                node.id
            );
        }
        let (status, gone) = get(&cluster, node, &format!("/v1/kv/k1?at={}", oldest - 1));
        assert_eq!(
            (status, &gone["code"], &gone["floor"]),
            (410, &json!("revision_compacted"), &json!(oldest))
        );
        let (status, gone) = get(&cluster, node, &format!("/v1/journal?after={}", oldest - 1));
        assert_eq!((status, &gone["code"]), (410, &json!("compacted")));
    }
    drop(running);
}

#[test]
fn the_commands_tell_the_past() {
    let cluster = Cluster::start(1);
    let at = |arguments: &[&str], revision: u64| {
        let revision = revision.to_string();
        cluster.ok(&[arguments, &["--at", &revision]].concat())
    };
    let node = &cluster.nodes[0];
    // Settings that change by themselves would be in a difference, too.
    eventually("the feature level has risen", || {
        cluster
            .ok(&["event", "list", "--area", "system"])
            .contains("level_raised")
    });
    let first = put(&cluster, node, "site", "tokyo");
    cluster.ok(&["machine", "register", "S1", "--rack", "1", "--role", "worker"]);
    let second = put(&cluster, node, "site", "osaka");
    cluster.ok(&["kv", "delete", "site"]);
    assert_eq!(at(&["kv", "get", "site"], first), "tokyo");
    assert_eq!(at(&["kv", "get", "site"], second), "osaka");
    assert!(at(&["kv", "list"], second).contains("osaka"));
    assert!(at(&["machine", "list"], second).contains("S1"));
    assert!(!at(&["machine", "list"], first).contains("S1"));
    assert!(at(&["export"], second).contains("osaka"));

    let refused = cluster.cli(&["kv", "put", "site", "x", "--at", "1"]);
    assert_eq!(refused.status.code(), Some(2), "a write has no past");
    let refused = cluster.cli(&["kv", "get", "site", "--at", "999999999"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("not there yet"), "{said}");

    let (from, to) = (first.to_string(), second.to_string());
    let diff = cluster.ok(&["diff", "--from", &from, "--to", &to]);
    assert!(
        diff.contains("+ machine/S1") && diff.contains("value: \"tokyo\" -> \"osaka\""),
        "{diff}"
    );
    assert!(diff.contains("1 added, 1 changed, 0 removed"), "{diff}");
    let diff: Value =
        serde_json::from_str(&cluster.ok(&["diff", "--from", &to, "-o", "json"])).expect("JSON");
    assert_eq!(diff["items"][0]["became"], "removed", "{diff}");

    let why = cluster.ok(&["why", "kv/site", "--all", "-o", "wide"]);
    assert_eq!(why.matches("kv.put").count(), 2, "{why}");
    assert!(why.contains("kv.deleted") && why.contains("cli:"), "{why}");
    let last = cluster.ok(&["event", "list", "-n", "1"]);
    assert!(last.contains("kv.deleted") && !last.contains("kv.put"), "{last}");
}

#[test]
fn the_journal_is_kept_by_size_and_age() {
    let cluster = Cluster::start(3);
    let node = &cluster.nodes[0];
    eventually("retention can be set", || {
        let set = cluster.cli(&["event", "retention", "--bytes", "1MiB"]);
        set.status.success()
    });
    let state = || -> Value {
        let text = cluster.ok(&["event", "retention", "-o", "json"]);
        serde_json::from_str(&text).expect("JSON")
    };
    let large = "x".repeat(100_000);
    let last = (0..25).fold(0, |_, _| put(&cluster, node, "large", &large));
    eventually("what is too much goes", || {
        let state = state();
        state["oldest"].as_u64() > Some(0) && state["bytes"].as_u64() <= Some(1 << 20)
    });
    let oldest = state()["oldest"].as_u64().expect("a revision");
    assert!(oldest < last, "about a MiB of it stays: {oldest} of {last}");
    let events = cluster.ok(&["event", "list", "--area", "system", "-o", "json"]);
    assert!(
        events.contains("raft:journal"),
        "the leader asked for it: {events}"
    );
    for node in &cluster.nodes {
        let (status, _) = get(&cluster, node, &format!("/v1/kv/large?at={oldest}"));
        assert_eq!(status, 200);
    }

    cluster.ok(&["event", "retention", "--age", "1s", "--bytes", "none"]);
    let young = put(&cluster, node, "young", "1");
    eventually("what is too old goes", || {
        state()["oldest"].as_u64() >= Some(young)
    });
    cluster.ok(&["event", "retention", "--age", "none"]);
    assert_eq!(state()["retention"], json!({"age_ms": null, "bytes": null}));
}
