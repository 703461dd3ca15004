//! What is seen of a node on its way to a vote.

use super::Setting;
use super::server::{Answer, Server};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `node` says of a cluster that node 2, at `leader`, leads, and that lets node 4 in.
fn status_of(node: u64, leader: &str, voter: bool, under_way: &Value) -> Value {
    let member = |id: u64, url: &str, voter: bool| json!({"id": id, "peer_address": format!("10.0.0.{id}:7401"), "http_url": url, "voter": voter});
    let role = if node == 2 { "leader" } else { "follower" };
    json!({
        "cluster_id": "00000000-0000-0000-0000-000000000001", "node": node, "role": role, "leader": 2, "term": 3,
        "healthy": true, "last_log": 90, "committed": 90, "applied": 90, "snapshot": 0, "first_log": 1,
        "log_time": "2026-01-01T00:00:00Z", "revision": 90, "under_way": under_way,
        "members": [member(1, "", true), member(2, leader, true), member(3, "", true), member(4, "", voter)],
    })
}

/// A follower, which knows that node 4 is not there yet, and not how far it is.
fn follower(leader: String) -> Server {
    Server::start(move |request| {
        if request.method == "POST" {
            return Some(Answer::json(
                200,
                &json!({"node": 4, "peer_address": "10.0.0.4:7401", "join": "10.0.0.1:7401",
                        "command": "onward serve ...", "revision": 80}),
            ));
        }
        let unknown = json!({"step": "catching_up", "node": 4, "lag": null});
        Some(Answer::json(200, &status_of(1, &leader, false, &unknown)))
    })
}

#[test]
fn how_far_a_node_is_on_its_way_is_asked_of_the_leader() {
    let looks = AtomicUsize::new(0);
    let leader = Server::start(move |_| {
        let status = match looks.fetch_add(1, Ordering::SeqCst) {
            0 => json!({"step": "snapshot", "node": 4, "sent_bytes": 12_000_000, "total_bytes": 40_000_000}),
            1 => json!({"step": "catching_up", "node": 4, "lag": 77}),
            _ => return Some(Answer::json(200, &status_of(2, "", true, &Value::Null))),
        };
        Some(Answer::json(200, &status_of(2, "", false, &status)))
    });
    let follower = follower(leader.url());
    let watched = Setting {
        animated: true,
        ..Setting::of(&follower)
    };
    let ran = watched.run(&["cluster", "add", "10.0.0.4:7401"]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    for seen in [
        "node 4 receives a snapshot",
        "12 of 40 MB",
        "node 4 catches up",
        "77 entries behind",
        "node 4 votes; 4 voters",
    ] {
        assert!(ran.error.contains(seen), "{seen}: {}", ran.error);
    }
    assert_eq!(leader.seen().len(), 3);
}

#[test]
fn a_leader_that_cannot_be_asked_of_a_node_on_its_way_is_named_once() {
    let follower = follower("http://127.0.0.1:1".to_owned());
    let setting = Setting::of(&follower);
    let ran = setting.run(&["cluster", "add", "10.0.0.4:7401", "--wait", "1s"]);
    assert_eq!(ran.code, 4, "{}", ran.error);
    let named = "node 2 leads, and was not reached at `http://127.0.0.1:1`";
    assert_eq!(ran.error.matches(named).count(), 1, "{}", ran.error);
    assert!(ran.error.contains("node 4 catches up"), "{}", ran.error);
}
