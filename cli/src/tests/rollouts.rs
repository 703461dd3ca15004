//! Deploys: followed step by step, to their end or their failure.

use super::Setting;
use super::server::{Answer, Server};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

fn rollout(trail: &[&str], ended: bool, reason: Option<&str>) -> Value {
    let passages: Vec<Value> = trail
        .iter()
        .map(|step| json!({"step": step, "attempt": 1, "node": 2, "at": "2026-01-01T00:00:00Z"}))
        .collect();
    json!({
        "app": "hello", "rollout": 4, "what": {"kind": "deploy", "ref": "main"}, "step": trail.last(), "ended": ended,
        "generation": 1, "commit": "0123456789abcdef0123456789abcdef01234567", "build": 3, "release": 5, "instance": 6,
        "attempt": 1, "failures": 0, "node": 2, "next_attempt_at": null, "trail": passages, "reason": reason,
        "requested_by": "cli:a", "requested_at": "2026-01-01T00:00:00Z", "created": 1, "modified": 2, "revision": 9,
    })
}

/// A server on which a deploy of `hello` goes through `states`, one a look, and stays in the last.
fn deploying(states: Vec<Value>) -> Server {
    let looks = AtomicUsize::new(0);
    Server::start(move |request| {
        Some(if request.method == "POST" {
            Answer::json(200, &json!({"rollout": 4, "revision": 8}))
        } else {
            let look = looks.fetch_add(1, Ordering::SeqCst).min(states.len() - 1);
            Answer::json(200, &states[look])
        })
    })
}

#[test]
fn a_deploy_is_followed_step_by_step() {
    let server = deploying(vec![
        rollout(&["queued"], false, None),
        rollout(&["queued", "fetching", "building"], false, None),
        rollout(
            &["queued", "fetching", "building", "starting", "switching", "done"],
            true,
            None,
        ),
    ]);
    let setting = Setting::of(&server);
    let ran = setting.run(&["deploy", "hello", "--ref", "main"]);
    assert_eq!((ran.code, ran.output.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<&str> = ran.error.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "hello: rollout 4",
            "  queued      node 2",
            "  fetching    node 2",
            "  building    build 3, commit 0123456789, node 2",
            "  starting    release 5, instance 6, node 2",
            "  switching   release 5, instance 6, node 2",
            "  done        node 2",
        ]
    );
    assert!(
        lines[7].starts_with("hello: release 5 serves, commit 0123456789 ("),
        "{ran:?}"
    );
    assert_eq!(server.seen()[0].json(), json!({"ref": "main"}));
}

#[test]
fn a_deploy_that_fails_says_why() {
    let server = deploying(vec![rollout(
        &["queued", "failed"],
        true,
        Some("the build exited with 1"),
    )]);
    let setting = Setting::of(&server);
    let ran = setting.run(&["-o", "json", "deploy", "hello"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.error
            .ends_with("error: rollout 4 of app `hello` failed: the build exited with 1\n"),
        "{ran:?}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&ran.output).unwrap()["step"],
        "failed"
    );
}

#[test]
fn a_deploy_need_not_be_followed_and_is_not_for_ever() {
    let server = deploying(vec![rollout(&["queued", "building"], false, None)]);
    let setting = Setting::of(&server);
    let ran = setting.run(&["deploy", "hello", "--no-wait", "-o", "json"]);
    assert_eq!((ran.code, server.seen().len()), (0, 1), "{ran:?}");
    let ran = setting.run(&["rollback", "hello", "3", "--wait", "1ms"]);
    assert_eq!(ran.code, 4);
    assert!(
        ran.error.contains("is at step building") && ran.error.contains("goes on by itself"),
        "{ran:?}"
    );
}

#[test]
fn an_attempt_that_failed_is_told_with_its_reason() {
    let looks = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let failed = json!({
            "app": "hello", "failure": 9, "rollout": 4, "step": "building", "attempt": 1, "node": 2,
            "reason": "the build exited with 1", "at": "2026-01-01T00:00:01Z", "next_attempt_at": null,
        });
        Some(match (request.method.as_str(), &*request.target) {
            ("POST", _) => Answer::json(200, &json!({"rollout": 4, "revision": 8})),
            (_, target) if target.contains("/failures") => {
                Answer::json(200, &json!({"items": [failed], "next": null, "revision": 8}))
            }
            _ if looks.fetch_add(1, Ordering::SeqCst) == 0 => {
                let mut state = rollout(&["queued", "building"], false, None);
                state["failures"] = json!(1);
                state["next_attempt_at"] = json!("2026-01-01T00:00:02Z");
                Answer::json(200, &state)
            }
            _ => Answer::json(200, &rollout(&["queued", "building", "done"], true, None)),
        })
    });
    let setting = Setting::of(&server);
    let ran = setting.run(&["deploy", "hello"]);
    let told = "  attempt 1 failed: the build exited with 1; the next one is at 2026-01-01T00:00:02.000Z\n";
    assert!(ran.code == 0 && ran.error.contains(told), "{ran:?}");
    let ran = setting.run(&["rollout", "get", "hello", "4"]);
    assert!(
        ran.output
            .contains("building   1         2026-01-01T00:00:01.000Z   the build exited with 1"),
        "{ran:?}"
    );
}
