//! What commands ask of the cluster, print, and end with.

use super::server::{Answer, Request, Server};
use super::{Ran, Setting};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

fn problem(status: u16, code: &str, detail: &str) -> Answer {
    Answer::json(
        status,
        &json!({"type": "", "title": "", "status": status, "code": code, "detail": detail}),
    )
}

/// Runs a command against a server that answers everything with `status` and `body`.
pub(super) fn against(status: u16, body: Value, arguments: &[&str]) -> (Ran, Vec<Request>) {
    let server = Server::start(move |_| Some(Answer::json(status, &body)));
    let ran = Setting::of(&server).run(arguments);
    (ran, server.seen())
}

fn refused(status: u16, code: &'static str, arguments: &[&str]) -> Ran {
    let server = Server::start(move |_| Some(problem(status, code, "the object and the rule")));
    Setting::of(&server).run(arguments)
}

#[test]
fn exit_codes_tell_apart_what_happened() {
    let (done, _) = against(200, json!({"revision": 7}), &["kv", "put", "k", "v"]);
    assert_eq!(
        (done.code, done.output.as_str(), done.error.as_str()),
        (0, "", "put k at revision 7\n")
    );
    let not_found = refused(404, "not_found", &["kv", "get", "k"]);
    assert_eq!(
        (not_found.code, not_found.error.as_str()),
        (1, "error: the object and the rule\n")
    );
    assert_eq!(
        refused(
            412,
            "kv_revision_mismatch",
            &["kv", "put", "k", "v", "--expect", "3"]
        )
        .code,
        1
    );
    assert_eq!(
        refused(400, "field_invalid", &["machine", "state", "S1", "bogus"]).code,
        2
    );
    assert_eq!(
        Setting::default()
            .run(&["--server", "ftp://x", "kv", "get", "k"])
            .code,
        2
    );
}

#[test]
fn nobody_there_is_unreachable_and_a_lost_answer_is_unknown() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = Setting {
        server: format!("http://{closed}"),
        ..Setting::default()
    };
    assert_eq!(nobody.run(&["--timeout", "300ms", "kv", "put", "k", "v"]).code, 3);

    let no_majority = Server::start(|_| Some(problem(503, "no_leader", "no leader is known")));
    let setting = Setting::of(&no_majority);
    let ran = setting.run(&["--timeout", "300ms", "kv", "put", "k", "v"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.error.contains("no leader is known"), "{ran:?}");

    let silent = Server::start(|_| None);
    let setting = Setting::of(&silent);
    let ran = setting.run(&["--timeout", "300ms", "kv", "put", "k", "v"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let ids: Vec<_> = silent
        .seen()
        .iter()
        .map(|seen| seen.header("idempotency-key").map(str::to_owned))
        .collect();
    assert!(
        ids[0].is_some() && ids.iter().all(|id| *id == ids[0]),
        "one id over all tries: {ids:?}"
    );
    assert!(
        ran.error.contains(ids[0].as_deref().unwrap()),
        "the message names the command id: {ran:?}"
    );
}

#[test]
fn a_value_is_printed_as_it_is() {
    let pair =
        json!({"key": "k", "value": "no newline", "created": 1, "modified": 2, "version": 2, "revision": 9});
    let (ran, seen) = against(200, pair.clone(), &["kv", "get", "k"]);
    assert_eq!(
        (ran.code, ran.output.as_str(), ran.error.as_str()),
        (0, "no newline", "")
    );
    assert_eq!(seen[0].target, "/v1/kv/k");
    let (ran, _) = against(200, pair.clone(), &["kv", "get", "k", "-o", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ran.output).unwrap(),
        pair,
        "JSON, and nothing else, is on stdout"
    );
    let (ran, seen) = against(
        200,
        pair,
        &["--consistency", "local", "kv", "get", "k", "-o", "yaml"],
    );
    assert!(ran.output.contains("value: no newline\n"), "{ran:?}");
    assert!(seen[0].target.contains("consistency=local"), "{seen:?}");
}

#[test]
fn a_value_comes_from_standard_input() {
    let server = Server::start(|_| Some(Answer::json(200, &json!({"revision": 3}))));
    let setting = Setting {
        server: server.url(),
        input: "two\nlines\n",
        ..Setting::default()
    };
    assert_eq!(
        setting.run(&["-q", "kv", "put", "k", "-", "--expect", "0"]).error,
        ""
    );
    let seen = server.seen();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].body.as_str()),
        ("PUT", "two\nlines\n")
    );
    assert_eq!(seen[0].header("if-match"), Some("0"));
    assert!(
        seen[0]
            .header("onward-actor")
            .is_some_and(|actor| actor.starts_with("cli"))
    );
}

#[test]
fn lists_are_read_to_their_end_or_limit() {
    let pages = |request: &Request| {
        let second = request.target.contains("cursor=next");
        let key = if second { "b" } else { "a" };
        let pair = json!({"key": key, "value": key, "created": 1, "modified": 1, "version": 1});
        let next = if second { Value::Null } else { json!("next") };
        Some(Answer::json(
            200,
            &json!({"items": [pair], "next": next, "revision": 5}),
        ))
    };
    let server = Server::start(pages);
    let setting = Setting::of(&server);
    let ran = setting.run(&["kv", "list"]);
    assert_eq!(
        ran.output,
        "KEY   VALUE   MODIFIED\na     a       1\nb     b       1\n"
    );
    let ran = setting.run(&["kv", "list", "--limit", "1", "-o", "json"]);
    let listed: Value = serde_json::from_str(&ran.output).unwrap();
    assert_eq!(
        (listed["items"].as_array().unwrap().len(), &listed["revision"]),
        (1, &json!(5))
    );
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn selectors_and_fields_are_joined() {
    let (ran, seen) = against(
        200,
        json!({"items": [], "next": null, "revision": 1}),
        &[
            "machine",
            "list",
            "-l",
            "role=worker",
            "-l",
            "!gpu",
            "--field",
            "rack=3",
        ],
    );
    assert_eq!(
        ran.output,
        "SERIAL   RACK   INDEX   ROLE   STATE   ADDRESS   SINCE\n"
    );
    let target = &seen[0].target;
    assert!(
        target.contains("selector=role%3Dworker%2C%21gpu") && target.contains("fields=rack%3D3"),
        "{target}"
    );
}

#[test]
fn what_cannot_be_taken_back_is_confirmed() {
    let server = Server::start(|_| Some(Answer::json(200, &json!({"revision": 3}))));
    let setting = |input, interactive| Setting {
        server: server.url(),
        input,
        interactive,
        ..Setting::default()
    };
    let unasked = setting("", false).run(&["machine", "delete", "S1"]);
    assert_eq!(unasked.code, 2);
    assert!(unasked.error.contains("--yes"), "{unasked:?}");
    let no = setting("n\n", true).run(&["machine", "delete", "S1"]);
    assert_eq!(
        (no.code, no.error.contains("delete S1? [y/N]")),
        (1, true),
        "{no:?}"
    );
    assert!(server.seen().is_empty(), "nothing was sent");
    assert_eq!(setting("y\n", true).run(&["machine", "delete", "S1"]).code, 0);
    assert_eq!(
        setting("", false)
            .run(&["machine", "delete", "S1", "S2", "--yes"])
            .code,
        0
    );
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn an_object_is_put_on_top_of_what_is_there() {
    let server = Server::start(|request| {
        Some(match request.method.as_str() {
            "GET" => Answer::json(
                200,
                &json!({"oid": "01", "serial": "00aa", "next": null, "bytes_base64": "aGk=", "revision": 4}),
            ),
            _ => Answer::json(200, &json!({"tid": "00ab", "revision": 5})),
        })
    });
    let setting = Setting::of(&server);
    let ran = setting.run(&["object", "put", "1", "hello", "-m", "greeting"]);
    assert_eq!(
        (ran.code, ran.error.as_str()),
        (0, "committed 1 object as transaction 00ab at revision 5\n")
    );
    let commit = server.seen()[1].json();
    let write = json!({"oid": "1", "read": "00aa", "text": "hello"});
    assert_eq!(
        (&commit["writes"], &commit["description"]),
        (&json!([write]), &json!("greeting"))
    );
    assert_eq!(setting.run(&["object", "get", "1"]).output, "hi");
    setting.run(&["object", "put", "1", "x", "--read", "0"]);
    assert_eq!(
        server.seen().last().unwrap().json()["writes"][0].get("read"),
        None
    );
}

/// A rollout as the API shows it, at the last step of `trail`.

#[test]
fn a_watch_prints_a_line_for_each_change() {
    let served = AtomicUsize::new(0);
    let server = Server::start(move |_| {
        let change = r#"{"revision":6,"events":[{"event":"put","key":"a","value":"x\ny"},{"event":"deleted","key":"b"}]}"#;
        let gone =
            json!({"type": "", "title": "", "status": 410, "code": "compacted", "detail": "it is gone"});
        let stream = |body: String| Answer {
            status: 200,
            content_type: "text/event-stream",
            revision: Some(5),
            body,
        };
        Some(match served.fetch_add(1, Ordering::SeqCst) {
            0 => stream(format!("event: change\nid: 6\ndata: {change}\n\n")),
            _ => stream(format!("event: compacted\ndata: {gone}\n\n")),
        })
    });
    let setting = Setting::of(&server);
    let ran = setting.run(&["kv", "watch", "", "--after", "5"]);
    assert_eq!(ran.output, "6 put a x\\ny\n6 deleted b\n");
    assert_eq!((ran.code, ran.error.as_str()), (1, "error: it is gone\n"));
    assert!(
        server.seen()[1].target.contains("after=6"),
        "it comes back where it left off: {:?}",
        server.seen()
    );
}

#[test]
fn the_cluster_is_shown() {
    let member = |id: u64, lag: u64| {
        json!({"id": id, "peer_address": format!("10.0.0.{id}:7401"), "http_url": format!("http://10.0.0.{id}:7400"),
               "voter": true, "matched": 90 - lag, "lag": lag, "last_contact_ms": 12, "feature_level_max": 4 - id,
               "disk": {"free_bytes": id << 30, "total_bytes": 50_u64 << 30, "reserve_bytes": 3 << 29, "nearly_full": id == 1}})
    };
    let status = json!({
        "cluster_id": "00000000-0000-0000-0000-000000000001", "node": 1, "role": "leader", "leader": 1, "term": 3,
        "healthy": true, "last_log": 90, "committed": 90, "applied": 90, "snapshot": 0, "first_log": 1,
        "log_time": "2026-01-01T00:00:00Z", "age_ms": 0, "members": [member(1, 0), member(2, 4)], "revision": 90,
        "alarms": ["the disk of node 1 is nearly full"], "oldest": 40, "journal_bytes": 3 << 20,
        "feature_level": 2, "feature_level_max": 3,
    });
    let (wide, _) = against(200, status.clone(), &["cluster", "status", "-o", "wide"]);
    assert!(
        wide.output.contains("2 in force, node 1 knows 3"),
        "{}",
        wide.output
    );
    let known: Vec<_> = wide
        .output
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    assert_eq!(known[known.len() - 3..], ["LEVEL", "3", "2"], "{}", wide.output);
    let (ran, _) = against(200, status, &["cluster", "status"]);
    assert_eq!(
        ran.output,
        "cluster    00000000-0000-0000-0000-000000000001\n\
         healthy    yes\n\
         leader     1\n\
         term       3\n\
         revision   90\n\
         journal    3.0 MiB, back to revision 40\n\
         alarm      the disk of node 1 is nearly full\n\
         \n\
         NODE   ROLE     API                    LAG   LAST CONTACT   DISK FREE\n\
         1      leader   http://10.0.0.1:7400   0     12 ms          1.0 GiB, 2 %\n\
         2      voter    http://10.0.0.2:7400   4     12 ms          2.0 GiB, 4 %\n"
    );
}

#[test]
fn of_a_revision_with_many_events_the_first_are_shown() {
    let put =
        |number: usize| json!({"area": "kv", "event": "put", "key": format!("k{number}"), "value": "v"});
    let entry = |revision: u64, count: usize| {
        json!({"revision": revision, "at": "2026-01-01T00:00:00Z", "actor": "cli:taro",
               "command_id": "00000000-0000-0000-0000-000000000001", "events": (0..count).map(put).collect::<Vec<_>>()})
    };
    let page =
        json!({"items": [entry(4, 336), entry(5, 10)], "next_after": 5, "complete": true, "revision": 5});
    let rows = |output: &str| output.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let (ran, _) = against(200, page.clone(), &["event", "list"]);
    let shown = rows(&ran.output);
    assert_eq!(shown.len(), 10 + 1 + 10, "{}", ran.output);
    assert!(shown[10].contains("326 more"), "{}", shown[10]);
    let (ran, _) = against(200, page, &["event", "list", "-o", "wide"]);
    assert_eq!(rows(&ran.output).len(), 336 + 10);
}

/// What `node` answers of a cluster that node 2, at `leader`, leads.
fn status_of(node: u64, leader: &str) -> Value {
    let lag = |id: u64| (node == 2 || node == id).then_some(id);
    let member = |id: u64, url: &str| json!({"id": id, "peer_address": "", "http_url": url, "voter": true, "matched": null, "lag": lag(id)});
    let role = if node == 2 { "leader" } else { "follower" };
    json!({
        "cluster_id": "00000000-0000-0000-0000-000000000001", "node": node, "role": role, "leader": 2, "term": 3,
        "healthy": true, "last_log": 90, "committed": 90, "applied": 90, "snapshot": 0, "first_log": 1,
        "log_time": "2026-01-01T00:00:00Z", "revision": 90, "members": [member(1, ""), member(2, leader), member(3, "")],
    })
}

/// The lags that were shown.
fn lags(output: &str) -> Vec<&str> {
    let rows = output
        .lines()
        .skip_while(|line| !line.starts_with("NODE"))
        .skip(1);
    rows.filter_map(|row| row.split_whitespace().rev().nth(2))
        .collect()
}

#[test]
fn how_far_the_members_are_is_asked_of_the_leader() {
    let leader = Server::start(|_| Some(Answer::json(200, &status_of(2, ""))));
    let follower = Server::start({
        let leader = leader.url();
        move |_| Some(Answer::json(200, &status_of(1, &leader)))
    });
    let setting = Setting::of(&follower);
    let ran = setting.run(&["cluster", "status"]);
    assert_eq!((ran.code, ran.error.as_str()), (0, ""));
    assert_eq!(lags(&ran.output), ["1", "2", "3"]);
    let local = setting.run(&["cluster", "status", "--consistency", "local"]);
    assert_eq!(lags(&local.output), ["1", "-", "-"]);
    assert_eq!(leader.seen().len(), 1);
}

#[test]
fn a_leader_that_cannot_be_asked_is_named() {
    let follower = Server::start(|_| Some(Answer::json(200, &status_of(1, "http://127.0.0.1:1"))));
    let setting = Setting::of(&follower);
    let ran = setting.run(&["cluster", "status"]);
    assert_eq!((ran.code, lags(&ran.output)), (0, vec!["1", "-", "-"]));
    assert!(
        ran.error
            .starts_with("node 2 leads, and was not reached at `http://127.0.0.1:1`"),
        "{}",
        ran.error
    );
}

#[test]
fn another_cluster_at_the_address_of_the_leader_is_not_believed() {
    let stranger = Server::start(|_| {
        let mut status = status_of(2, "");
        status["cluster_id"] = json!("00000000-0000-0000-0000-000000000002");
        Some(Answer::json(200, &status))
    });
    let follower = Server::start({
        let stranger = stranger.url();
        move |_| Some(Answer::json(200, &status_of(1, &stranger)))
    });
    let setting = Setting::of(&follower);
    let ran = setting.run(&["cluster", "status"]);
    assert_eq!((ran.code, lags(&ran.output)), (0, vec!["1", "-", "-"]));
    assert!(
        ran.error.contains("another cluster answers there"),
        "{}",
        ran.error
    );
}

/// The cluster after node 3 has made way for a node at 10.0.0.4, which has this vote and is this far.
fn cluster_with(voter: bool, under_way: &Value) -> Value {
    let member = |id: u64, voter: bool| json!({"id": id, "peer_address": format!("10.0.0.{id}:7401"), "http_url": "", "voter": voter});
    json!({
        "cluster_id": "00000000-0000-0000-0000-000000000001", "node": 1, "role": "leader", "leader": 1, "term": 3,
        "healthy": true, "last_log": 90, "committed": 90, "applied": 90, "snapshot": 0, "first_log": 1,
        "log_time": "2026-01-01T00:00:00Z", "revision": 90, "under_way": under_way,
        "members": [member(1, true), member(2, true), member(4, voter)],
    })
}

#[test]
fn a_node_that_is_added_is_followed_until_it_votes() {
    let looks = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        if request.method == "POST" {
            return Some(Answer::json(
                200,
                &json!({"node": 4, "peer_address": "10.0.0.4:7401", "join": "10.0.0.1:7401", "replaces": 3,
                        "command": "onward serve ...", "revision": 80}),
            ));
        }
        let status = match looks.fetch_add(1, Ordering::SeqCst) {
            0 => cluster_with(false, &json!({"step": "awaited", "node": 4})),
            1 => cluster_with(false, &json!({"step": "catching_up", "node": 4, "lag": 12})),
            2 => cluster_with(
                true,
                &json!({"step": "voting", "from": [1, 2, 3], "to": [1, 2, 4]}),
            ),
            _ => cluster_with(true, &Value::Null),
        };
        Some(Answer::json(200, &status))
    });
    let setting = Setting::of(&server);
    let ran = setting.run(&["cluster", "replace", "3", "10.0.0.4:7401"]);
    assert_eq!(
        ran.error,
        "node 4 may start, and votes once it has caught up; if it does not run yet:\n\n  onward serve ...\n\n  node 4 may \
         start, and was not seen yet\n  node 4 catches up\n  the voters change from 1, 2, 3 to 1, 2, 4\nnode 4 votes in \
         the place of node 3; 3 voters, 1 of them may fail\n"
    );
    assert_eq!(ran.code, 0);
    let asked = &server.seen()[0];
    assert_eq!(asked.target, "/v1/cluster/members/3/replace");
    assert_eq!(asked.json(), json!({"peer_address": "10.0.0.4:7401"}));
}

#[test]
fn a_node_that_is_added_and_removed_again_does_not_arrive() {
    let server = Server::start(|request| {
        let mut body = cluster_with(false, &Value::Null);
        if request.method == "POST" {
            body = json!({"node": 5, "peer_address": "10.0.0.5:7401", "join": "", "command": "", "revision": 80});
        }
        Some(Answer::json(200, &body))
    });
    let setting = Setting::of(&server);
    let ran = setting.run(&["--quiet", "cluster", "add", "10.0.0.5:7401"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.error.contains("removed before it could vote"),
        "{}",
        ran.error
    );
    let prepared = setting.run(&["cluster", "add", "10.0.0.5:7401", "--no-wait", "-o", "json"]);
    assert_eq!(prepared.code, 0);
    let prepared: Value = serde_json::from_str(&prepared.output).expect("JSON");
    assert_eq!(prepared["node"], 5);
}

#[test]
fn a_removal_is_confirmed_and_says_what_is_left() {
    let (asked, seen) = against(200, json!({"revision": 7}), &["cluster", "remove", "3"]);
    assert_eq!((asked.code, seen.len()), (2, 0), "{}", asked.error);
    let server = Server::start(|request| {
        let mut body = cluster_with(true, &Value::Null);
        if request.method == "DELETE" {
            body = json!({"revision": 7});
        }
        Some(Answer::json(200, &body))
    });
    let setting = Setting::of(&server);
    let ran = setting.run(&["cluster", "remove", "3", "--yes"]);
    assert_eq!(
        ran.error,
        "node 3 is no member any more, and stops by itself; 3 voters, 1 of them may fail\n"
    );
    let (ran, seen) = against(
        200,
        json!({"leader": 2, "revision": 7}),
        &["cluster", "transfer", "--to", "2"],
    );
    assert!(ran.error.starts_with("node 2 leads ("), "{}", ran.error);
    assert_eq!(seen[0].json(), json!({"to": 2}));
}

#[test]
fn the_hash_of_a_state_says_whose_and_of_when() {
    let body = json!({"node": 2, "hash": "00000000000000ff", "revision": 7, "age_ms": 0});
    let (ran, seen) = against(200, body.clone(), &["cluster", "hash"]);
    assert_eq!(seen[0].target, "/v1/cluster/hash");
    assert_eq!(
        ran.output,
        "NODE   REVISION   HASH\n2      7          00000000000000ff\n"
    );
    let (json, _) = against(200, body.clone(), &["cluster", "hash", "-o", "json"]);
    let shown: Value = serde_json::from_str(&json.output).unwrap();
    for name in ["node", "revision", "hash"] {
        assert_eq!(shown[name], body[name], "{shown}");
    }
}

#[test]
fn completions_are_of_the_whole_program() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Setting::default().run(&["completion", shell]);
        assert!(
            ran.code == 0 && ran.output.contains("rollback") && ran.output.contains("onward"),
            "{shell}"
        );
    }
}

#[test]
fn a_boot_document_is_printed_as_it_is_and_its_absence_is_not_found() {
    let server = Server::start(|request| {
        let known = request.target == "/boot/v1/ipxe/S1?consistency=linearizable";
        Some(Answer {
            status: if known { 200 } else { 404 },
            content_type: "text/plain",
            revision: Some(5),
            body: if known {
                "#!ipxe\nboot\n"
            } else {
                "no machine is registered under serial `S2`\n"
            }
            .to_owned(),
        })
    });
    let setting = Setting::of(&server);
    assert_eq!(
        setting.run(&["boot", "template", "render", "S1", "ipxe"]).output,
        "#!ipxe\nboot\n"
    );
    let ran = setting.run(&["boot", "template", "render", "S2", "user-data"]);
    assert_eq!(
        (ran.code, ran.error.as_str()),
        (1, "error: no machine is registered under serial `S2`\n")
    );
    setting.run(&[
        "boot",
        "template",
        "render",
        "S2",
        "user-data",
        "--at",
        "4",
        "--consistency",
        "local",
    ]);
    assert_eq!(
        server.seen()[2].target,
        "/boot/v1/cloud-init/S2/user-data?consistency=local&at=4"
    );
}
