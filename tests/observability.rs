//! What an operator sees: one write followed through the logs of all nodes, its steps in the metrics, and a dashboard
//! that asks for nothing that is not there.

use crate::support::{Cluster, Node, ONWARD, eventually};
use std::collections::BTreeSet;

/// The filter that shows the way of each write, and nothing of the engine below.
const FOLLOWED: &str = "info,openraft=error,onward_api=debug,onward_raft=debug";

/// The lines of a node's log that name this command, in themselves or in a span around them.
fn lines_of(node: &Node, command: &str) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(node.dir.join("onward.log")).unwrap_or_default();
    log.lines()
        .filter(|line| line.contains(command))
        .map(|line| serde_json::from_str(line).expect("a line of the log is one JSON object"))
        .collect()
}

fn says(lines: &[serde_json::Value], message: &str) -> bool {
    lines.iter().any(|line| line["fields"]["message"] == message)
}

/// The names of the spans around a line, from the outside.
fn spans(line: &serde_json::Value) -> Vec<&str> {
    let spans = line["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
    spans.iter().filter_map(|span| span["name"].as_str()).collect()
}

/// `PUT` on a follower with a known id, in logs of JSON: the request, the forwarding, the leader's part and the applying
/// on every node are found by that id.
#[test]
fn a_write_is_followed_through_all_nodes_by_its_command_id() {
    let environment = [("ONWARD_LOG", FOLLOWED), ("ONWARD_LOG_FORMAT", "json")];
    let cluster = Cluster::start_with(3, &environment);
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let command = uuid::Uuid::now_v7().to_string();
    let put = cluster.http.put(format!("{}/v1/kv/followed", follower.http));
    let put = put
        .header("Content-Type", "application/octet-stream")
        .header("Idempotency-Key", &command)
        .body("x");
    let answer = put.send().expect("the follower answers");
    assert!(answer.status().is_success(), "{}", answer.status());

    for node in &cluster.nodes {
        eventually("every node logs that it applied the command", || {
            says(&lines_of(node, &command), "applied")
        });
    }
    let asked = lines_of(follower, &command);
    let forwarded = asked
        .iter()
        .find(|line| line["fields"]["message"] == "forwarded")
        .expect("the follower forwarded it");
    assert_eq!(spans(forwarded), ["http", "propose"], "{forwarded}");
    assert_eq!(forwarded["spans"][0]["command_id"], *command, "{forwarded}");
    assert!(says(&asked, "has its outcome"), "{asked:?}");
    let led = lines_of(cluster.node(leader), &command);
    let handed = led
        .iter()
        .find(|line| line["fields"]["message"] == "handed to consensus")
        .expect("the leader took it");
    assert_eq!(spans(handed), ["forwarded"], "{handed}");
    assert_eq!(handed["span"]["from"], follower.id, "{handed}");
}

/// Puts a pair through this node.
fn put(cluster: &Cluster, node: &Node, key: &str) {
    let put = cluster.http.put(format!("{}/v1/kv/{key}", node.http));
    let put = put.header("Content-Type", "application/octet-stream").body("x");
    let answer = put.send().expect("the node answers");
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// Each step of a write is timed where it takes place.
#[test]
fn each_step_of_a_write_is_counted() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    for number in 0..20 {
        cluster.ok(&["kv", "put", &format!("counted/{number}"), "x"]);
    }
    let on_leader = |step: &str| format!("onward_raft_write_step_seconds_count{{step=\"{step}\"}}");
    let seen = cluster.metrics(cluster.node(leader));
    for step in ["queue", "append", "sync", "replicate", "apply"] {
        assert!(seen[&on_leader(step)] >= 20.0, "{step}: {seen:?}");
    }
    let replies: f64 = cluster
        .nodes
        .iter()
        .map(|node| cluster.metrics(node)["onward_raft_proposal_seconds_count"])
        .sum();
    assert!(replies >= 20.0);
    // Whoever was asked, it is the leader that answers, and few writes are its own.
    for node in &cluster.nodes {
        let before = cluster.metric(cluster.node(leader), &on_leader("reply"));
        for number in 0..200 {
            put(&cluster, node, &format!("answered/{number}"));
        }
        eventually("the leader counts how long its answers took", || {
            cluster.metric(cluster.node(leader), &on_leader("reply")) >= before + 200.0
        });
    }
    for follower in cluster.others(leader) {
        eventually("followers sync and apply too, and propose nothing", || {
            let seen = cluster.metrics(follower);
            ["append", "sync", "replicate", "apply"]
                .iter()
                .all(|step| seen[&on_leader(step)] >= 20.0)
                && seen["onward_raft_log_syncs_total"] > 0.0
        });
    }
}

/// A rolling upgrade is seen by what is in force and what each release knows.
#[test]
fn the_feature_level_is_shown_and_who_knows_which() {
    let cluster = Cluster::start(3);
    let leader = cluster.node(cluster.leader());
    let mut status = serde_json::Value::Null;
    eventually(
        "the level has risen to what all know, and nobody holds it down",
        || {
            status = cluster.status(leader).unwrap_or_default();
            let level = &status["feature_level"];
            let members = status["members"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            level.as_u64() > Some(1)
                && *level == status["feature_level_max"]
                && members.iter().all(|member| member["feature_level_max"] == *level)
                && status["alarms"].as_array().is_some_and(Vec::is_empty)
        },
    );
    let level = status["feature_level"].as_u64().expect("a level");
    for node in &cluster.nodes {
        for name in ["onward_raft_feature_level", "onward_raft_feature_level_max"] {
            eventually("every node shows it", || {
                cluster.metric(node, name) == f64::from(level as u32)
            });
        }
    }
    let shown = cluster.ok(&["cluster", "status", "-o", "wide"]);
    assert!(shown.contains(&format!("{level} in force")), "{shown}");
}

/// A filter that is none is told, and so is why a node does not start, in the format of the logs.
#[test]
fn what_goes_wrong_at_a_start_is_told_in_the_format_of_the_logs() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = |environment: &[(&str, &str)]| {
        let output = std::process::Command::new(ONWARD)
            .args(["verify", "no-such-file"])
            .current_dir(dir.path())
            .envs(environment.iter().copied())
            .output()
            .expect("the binary runs");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let plain = said(&[("ONWARD_LOG", "onward=loudly")]);
    let told: Vec<_> = plain
        .lines()
        .filter(|line| line.contains("onward=loudly"))
        .collect();
    assert_eq!(told.len(), 1, "{plain}");
    assert!(told[0].contains("ONWARD_LOG is no filter"), "{plain}");
    assert!(
        plain
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("error: ")),
        "{plain}"
    );
    assert!(!said(&[]).contains("ONWARD_LOG"));

    let json = said(&[("ONWARD_LOG", "onward=loudly"), ("ONWARD_LOG_FORMAT", "json")]);
    let objects: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    assert_eq!(objects.len(), 2, "{json}");
    assert_eq!(
        (&objects[0]["level"], &objects[1]["level"]),
        (&"WARN".into(), &"ERROR".into())
    );
    let why = objects[1]["fields"]["message"].as_str().expect("a message");
    assert!(why.contains("no-such-file"), "{why}");
    assert!(
        objects[1]["timestamp"]
            .as_str()
            .is_some_and(|at| at.ends_with('Z')),
        "{json}"
    );
}

/// The names of metrics in a query of Prometheus.
fn names_in(query: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c: char| !word(c));
    words
        .filter(|word| word.starts_with("onward_"))
        .map(str::to_owned)
        .collect()
}

/// The queries of all panels.
fn queries(panel: &serde_json::Value, found: &mut Vec<String>) {
    match panel {
        serde_json::Value::Object(fields) => {
            if let Some(query) = fields.get("expr").and_then(|query| query.as_str()) {
                found.push(query.to_owned());
            }
            fields.values().for_each(|value| queries(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana.json");
    let text = std::fs::read_to_string(file).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut asked = Vec::new();
    queries(&dashboard, &mut asked);
    assert!(asked.len() >= 20, "the dashboard has {} queries", asked.len());

    let place = tempfile::tempdir().expect("a directory");
    let section = format!(
        "\n[backup]\ninterval_s = 3600\ndirectory = '{}'\n",
        place.path().display()
    );
    let cluster = crate::schedule::start(3, &section);
    cluster.ok(&["kv", "put", "seen", "x"]);
    let there: BTreeSet<String> = cluster
        .nodes
        .iter()
        .flat_map(|node| cluster.metrics(node).into_keys())
        .map(|series| series.split('{').next().unwrap_or_default().to_owned())
        .collect();
    for query in &asked {
        let names = names_in(query);
        assert!(!names.is_empty(), "`{query}` asks for nothing of ours");
        for name in names {
            assert!(
                there.contains(&name),
                "`{query}` asks for {name}, which no node shows"
            );
        }
    }
}
