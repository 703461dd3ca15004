//! What commands print and how they exit, by what the cluster answers.

use super::Setting;
use super::server::{Answer, Server};
use serde_json::json;

fn with(answer: impl Fn() -> Option<Answer> + Send + 'static) -> (Server, Setting<'static>) {
    let server = Server::start(move |_| answer());
    let setting = Setting {
        server: server.url(),
        ..Setting::default()
    };
    (server, setting)
}

fn problem(status: u16, code: &str, detail: &str) -> Answer {
    let kind = format!("/v1/problems#{code}");
    Answer::json(
        status,
        &json!({"type": kind, "title": code, "status": status, "code": code, "detail": detail}),
    )
}

#[test]
fn a_value_is_printed_as_it_is() {
    let pair = json!({"key": "k", "value": "v\n", "created": 1, "modified": 2, "version": 1, "revision": 7});
    let (_server, setting) = with(move || Some(Answer::json(200, &pair)));
    let ran = setting.run(&["kv", "get", "k"]);
    assert_eq!((ran.code, ran.output.as_str()), (0, "v\n"), "{ran:?}");
    let ran = setting.run(&["kv", "get", "k", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.output).expect("standard output is JSON alone");
    assert_eq!(value["modified"], 2);
}

#[test]
fn a_put_carries_an_idempotency_key_and_a_condition() {
    let (server, setting) = with(|| Some(Answer::json(200, &json!({"revision": 9}))));
    let ran = setting.run(&["kv", "put", "a/b", "v", "--expect", "4"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].header("if-match")),
        ("PUT", Some("4"))
    );
    assert!(
        seen[0]
            .header("idempotency-key")
            .is_some_and(|key| key.len() == 36)
    );
    assert!(
        seen[0]
            .header("onward-actor")
            .is_some_and(|actor| actor.starts_with("cli:"))
    );
}

#[test]
fn a_refusal_is_exit_1_and_says_why() {
    let (_server, setting) = with(|| {
        Some(problem(
            412,
            "kv_revision_mismatch",
            "key `k` was last modified at 3",
        ))
    });
    let ran = setting.run(&["kv", "put", "k", "v", "--expect", "2"]);
    assert_eq!((ran.code, ran.output.as_str()), (1, ""));
    assert!(
        ran.error.contains("key `k` was last modified at 3"),
        "{}",
        ran.error
    );
}

#[test]
fn nobody_there_is_exit_3() {
    let setting = Setting {
        server: "http://127.0.0.1:9".to_owned(),
        ..Setting::default()
    };
    let ran = setting.run(&["kv", "get", "k", "--timeout", "200ms"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn a_write_that_nobody_answered_is_exit_4() {
    let (_server, setting) = with(|| None);
    let ran = setting.run(&["kv", "put", "k", "v", "--timeout", "500ms"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.error.contains("unknown"), "{}", ran.error);
}

#[test]
fn wrong_usage_is_exit_2_and_sends_nothing() {
    let (server, setting) = with(|| Some(Answer::json(200, &json!({"revision": 9}))));
    let ran = setting.run(&["apply", "-f", "/nonexistent/site.yaml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let setting = Setting {
        server: server.url(),
        input: "name: x\n",
        ..Setting::default()
    };
    let ran = setting.run(&["plan", "-f", "-"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.error.contains("document 1") && ran.error.contains("kind"),
        "{}",
        ran.error
    );
    assert!(server.seen().is_empty());
}

#[test]
fn a_plan_shows_what_changes_field_by_field() {
    let plan = json!({
        "steps": [
            {"action": "create", "kind": "kv", "name": "a", "after": {"kind": "kv", "key": "a", "value": "1"}},
            {"action": "update", "kind": "kv", "name": "b", "before": {"value": "1"}, "after": {"value": "2"},
             "fields": [{"field": "value", "from": "1", "to": "2"}]},
            {"action": "unchanged", "kind": "kv", "name": "c"},
        ],
        "create": 1, "update": 1, "unchanged": 1, "revision": 5,
    });
    let server = Server::start(move |_| Some(Answer::json(200, &plan)));
    let input = "kind: kv\nkey: a\nvalue: '1'\n";
    let setting = Setting {
        server: server.url(),
        input,
        ..Setting::default()
    };
    let ran = setting.run(&["plan", "-f", "-"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.output,
        "+ kv a\n~ kv b\n    value: \"1\" -> \"2\"\n1 to create, 1 to update, 1 unchanged\n"
    );
}
