//! Manifests: planned, applied, exported.

use super::Setting;
use super::commands::against;
use super::server::{Answer, Server};
use serde_json::{Value, json};

fn step(action: &str, name: &str, fields: &Value) -> Value {
    json!({"action": action, "kind": "kv", "name": name, "fields": fields})
}

#[test]
fn apply_shows_the_plan_and_applies_what_it_saw() {
    let server = Server::start(|request| {
        let field = json!([{"field": "value", "from": "a", "to": "b"}]);
        let steps = json!([
            step("create", "new", &json!([])),
            step("update", "old", &field),
            step("unchanged", "x", &json!([]))
        ]);
        let revision = if request.target == "/v1/apply" { 13 } else { 12 };
        Some(Answer::json(
            200,
            &json!({"steps": steps, "create": 1, "update": 1, "unchanged": 1, "revision": revision}),
        ))
    });
    let input = "kind: kv\nkey: new\nvalue: a\n---\nkind: kv\nkey: old\nvalue: b\n";
    let setting = Setting {
        server: server.url(),
        input,
        ..Setting::default()
    };
    let ran = setting.run(&["apply", "-f", "-"]);
    let plan = "+ kv new\n~ kv old\n    value: \"a\" -> \"b\"\n1 to create, 1 to update, 1 unchanged";
    assert_eq!(
        (ran.code, ran.output.as_str()),
        (0, format!("{plan}; applied at revision 13\n").as_str()),
        "{ran:?}"
    );
    let seen = server.seen();
    assert_eq!([&*seen[0].target, &*seen[1].target], ["/v1/plan", "/v1/apply"]);
    assert_eq!(
        seen[1].json()["expect_revision"],
        12,
        "what changed since the plan is not overwritten"
    );
    assert_eq!(setting.run(&["plan", "-f", "-"]).output, format!("{plan}\n"));
    let ran = setting.run(&["apply", "-f", "-", "-o", "json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&ran.output).unwrap()["revision"],
        13
    );
}

#[test]
fn nothing_to_change_is_not_applied() {
    let server = Server::start(|_| {
        let steps = json!([step("unchanged", "a", &json!([]))]);
        Some(Answer::json(
            200,
            &json!({"steps": steps, "create": 0, "update": 0, "unchanged": 1, "revision": 12}),
        ))
    });
    let setting = Setting {
        server: server.url(),
        input: "kind: kv\nkey: a\nvalue: b\n",
        ..Setting::default()
    };
    let ran = setting.run(&["apply", "-f", "-"]);
    assert_eq!(
        (ran.code, ran.output.as_str()),
        (0, "0 to create, 0 to update, 1 unchanged; nothing to do\n")
    );
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn an_export_is_a_manifest() {
    let objects = json!([{"kind": "kv", "key": "a", "value": "1"}, {"kind": "kv", "key": "b", "value": ""}]);
    let (ran, seen) = against(
        200,
        json!({"objects": objects, "revision": 3}),
        &["export", "--kind", "kv"],
    );
    assert_eq!(
        ran.output,
        "# 2 objects at revision 3\n---\nkind: kv\nkey: a\nvalue: '1'\n---\nkind: kv\nkey: b\nvalue: ''\n"
    );
    assert_eq!(seen[0].target, "/v1/export?kind=kv");
    let (ran, _) = against(
        200,
        json!({"objects": objects, "revision": 3}),
        &["export", "-o", "json"],
    );
    assert_eq!(serde_json::from_str::<Value>(&ran.output).unwrap(), objects);
}

#[test]
fn wrong_manifests_are_wrong_usage_and_send_nothing() {
    let server = Server::start(|_| Some(Answer::json(200, &json!({"revision": 9}))));
    let setting = Setting {
        server: server.url(),
        input: "name: x\n",
        ..Setting::default()
    };
    assert_eq!(setting.run(&["apply", "-f", "/nonexistent/site.yaml"]).code, 2);
    let ran = setting.run(&["plan", "-f", "-"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.error
            .contains("standard input, document 1: field `kind` is missing"),
        "{ran:?}"
    );
    assert!(server.seen().is_empty());
}

#[test]
fn what_would_be_refused_is_not_applied() {
    let refused = json!({"type": "", "title": "", "status": 409, "code": "x", "detail": "rack 3 is full"});
    let body = json!({
        "steps": [step("create", "a", &json!([]))], "create": 1, "update": 0, "unchanged": 0, "refused": refused,
        "revision": 12,
    });
    let server = Server::start(move |_| Some(Answer::json(200, &body)));
    let setting = Setting {
        server: server.url(),
        input: "kind: kv\nkey: a\nvalue: b\n",
        ..Setting::default()
    };
    let ran = setting.run(&["apply", "-f", "-"]);
    assert_eq!((ran.code, ran.error.as_str()), (1, "error: rack 3 is full\n"));
    assert_eq!(setting.run(&["plan", "-f", "-"]).code, 1);
    assert!(server.seen().iter().all(|seen| seen.target == "/v1/plan"));
}
