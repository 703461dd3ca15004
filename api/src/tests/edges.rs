//! Bad input, preconditions, idempotency, freshness: what holds for every route.

use super::Site;
use crate::Limits;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use onward_statemachine::ports::{ProposeError, ReadError};
use onward_statemachine::{CommandId, NodeId, Revision};
use serde_json::json;
use std::convert::Infallible;
use tower::ServiceExt;
use uuid::Uuid;

const JSON: (&str, &str) = ("content-type", "application/json");
const BYTES: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test]
async fn malformed_bodies_are_refused_with_their_place() {
    let site = Site::new();
    let send = async |body: &'static str| site.send("POST", "/v1/kv/txn", &[JSON], body).await;
    send("{\"then\": [}")
        .await
        .problem(400, "body_invalid", &["line 1 column 11"]);
    send("").await.problem(400, "body_invalid", &["EOF"]);
    send("{\"than\": []}").await.problem(
        400,
        "body_invalid",
        &["unknown field `than`", "`then`", "`compare`"],
    );
    send("{\"then\": [{\"put\": {\"key\": \"a\", \"vaule\": \"1\"}}]}")
        .await
        .problem(400, "body_invalid", &["unknown field `vaule`", "`value`"]);
    send("{\"then\": [{\"erase\": {}}]}")
        .await
        .problem(400, "body_invalid", &["`erase`", "`delete`"]);
    send("[1]").await.problem(400, "body_invalid", &["invalid type"]);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    site.send("POST", "/v1/kv/txn", &form, "{}").await.problem(
        415,
        "media_type_unsupported",
        &["application/x-www-form-urlencoded", "application/json"],
    );
    site.send("PUT", "/v1/kv/a", &[("content-type", "text/plain")], "x")
        .await
        .problem(
            415,
            "media_type_unsupported",
            &["text/plain", "application/octet-stream"],
        );
}

#[tokio::test]
async fn fields_that_mean_nothing_are_named() {
    let site = Site::new();
    let put = async |body| site.json("PUT", "/v1/kv/a", &body).await;
    put(json!({}))
        .await
        .problem(400, "field_invalid", &["`value`", "missing", "`value_base64`"]);
    put(json!({"value": "a", "value_base64": "YQ=="}))
        .await
        .problem(400, "field_invalid", &["exclude"]);
    put(json!({"value_base64": "%%%"}))
        .await
        .problem(400, "field_invalid", &["`value_base64`", "base64"]);
    let txn = json!({"compare": [{"key": "a", "modified": 1, "version": 1}]});
    site.json("POST", "/v1/kv/txn", &txn)
        .await
        .problem(400, "field_invalid", &["exactly one", "`version`"]);
}

#[tokio::test]
async fn large_bodies_are_refused_whether_announced_or_not() {
    let limits = Limits {
        body_bytes: 100,
        ..Limits::default()
    };
    let site = Site::with(limits);
    site.send("PUT", "/v1/kv/a", &[BYTES], vec![b'x'; 100]).await.ok();
    site.send(
        "PUT",
        "/v1/kv/a",
        &[BYTES, ("content-length", "101")],
        vec![b'x'; 101],
    )
    .await
    .problem(413, "body_too_large", &["100 bytes"]);
    let parts = (0..3).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 40])));
    let body = Body::from_stream(futures::stream::iter(parts));
    site.send("PUT", "/v1/kv/a", &[BYTES], body)
        .await
        .problem(413, "body_too_large", &["100 bytes"]);
    let parts = (0..2).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'y'; 40])));
    site.send(
        "PUT",
        "/v1/kv/a",
        &[BYTES],
        Body::from_stream(futures::stream::iter(parts)),
    )
    .await
    .ok();
    let pair = site.get("/v1/kv/a").await.ok();
    assert_eq!(pair["value"], "y".repeat(80));
}

#[tokio::test]
async fn values_over_their_limit_are_refused_by_the_log() {
    let site = Site::new();
    let max = onward_statemachine::services::kv::VALUE_BYTES_MAX;
    site.send("PUT", "/v1/kv/a", &[BYTES], vec![0; max]).await.ok();
    let big = site.send("PUT", "/v1/kv/a", &[BYTES], vec![0; max + 1]).await;
    let problem = big.problem(413, "kv_value_length", &["key `a`", "1048577"]);
    assert_eq!(problem["revision"], 2);
    let long = format!("/v1/kv/{}", "k".repeat(2049));
    site.send("PUT", &long, &[BYTES], "x")
        .await
        .problem(400, "kv_key_length", &["2049"]);
}

#[tokio::test]
async fn query_parameters_are_known_or_refused() {
    let site = Site::new();
    let bad = async |path: &str, words: &[&str]| site.get(path).await.problem(400, "query_invalid", words);
    bad("/v1/kv?prefx=a", &["`prefx`", "`prefix`", "`limit`"]).await;
    bad("/v1/kv?limit=0", &["`limit`", "1 to 5000"]).await;
    bad("/v1/kv?limit=many", &["`limit`", "`many`", "whole number"]).await;
    bad("/v1/kv?limit=1&limit=2", &["`limit`", "more than once"]).await;
    bad("/v1/kv/a?consistency=eventual", &["`eventual`", "`linearizable`"]).await;
    bad("/v1/kv/a?at_least=x", &["`at_least`"]).await;
    bad("/v1/kv/a?at_least=1&consistency=local", &["exclude"]).await;
    bad("/v1/events?area=nothing", &["`nothing`", "kv", "machines"]).await;
    bad("/v1/machines?selector=a%3D1%2C%2Cb", &["`selector`", "comma"]).await;
    bad("/v1/machines?fields=zone%3Da", &["`fields`", "`zone`"]).await;
    bad("/v1/machines?mac=xyz", &["`mac`", "`xyz`"]).await;
    bad("/v1/machines?address=nowhere", &["`address`", "`nowhere`"]).await;
    bad("/v1/objects/0?tid=zz", &["`tid`", "`zz`"]).await;
    bad("/v1/objects/0?tid=1&before=2", &["exclude"]).await;
    let all = site.send("DELETE", "/v1/kv", &[], "").await;
    all.problem(400, "query_invalid", &["`prefix` is missing"]);
}

#[tokio::test]
async fn cursors_page_through_and_are_not_forged() {
    let site = Site::new();
    for key in ["p/a", "p/b", "p/c", "q"] {
        site.put(key, "1").await;
    }
    let first = site.get("/v1/kv?prefix=p/&limit=2").await.ok();
    assert_eq!(first["items"].as_array().map(Vec::len), Some(2));
    let next = first["next"].as_str().expect("there is more");
    let second = site
        .get(&format!("/v1/kv?prefix=p/&limit=2&cursor={next}"))
        .await
        .ok();
    assert_eq!(
        (&second["items"][0]["key"], &second["next"]),
        (&"p/c".into(), &json!(null))
    );
    for cursor in ["nonsense", &next[..next.len() - 1], "%00"] {
        let path = format!("/v1/kv?cursor={cursor}");
        site.get(&path)
            .await
            .problem(400, "cursor_invalid", &["key-value pairs", "leave it out"]);
    }
    let foreign = format!("/v1/machines?cursor={next}");
    site.get(&foreign)
        .await
        .problem(400, "cursor_invalid", &["machines"]);
}

#[tokio::test]
async fn preconditions_hold_or_refuse() {
    let site = Site::new();
    let put = async |expect: &str, value: &'static str| {
        site.send("PUT", "/v1/kv/a", &[BYTES, ("if-match", expect)], value)
            .await
    };
    assert_eq!(put("0", "1").await.ok()["revision"], 1);
    let stale = put("0", "2")
        .await
        .problem(412, "kv_revision_mismatch", &["`a`", "revision 1", "not at 0"]);
    assert_eq!(stale["revision"], 2);
    put("\"1\"", "2").await.ok();
    put("W/abc", "3")
        .await
        .problem(400, "header_invalid", &["`If-Match: W/abc`", "`modified`"]);
    site.send(
        "POST",
        "/v1/batch",
        &[JSON, ("if-match", "1")],
        "{\"commands\":[]}",
    )
    .await
    .problem(400, "header_invalid", &["no `If-Match`"]);
    assert_eq!(site.get("/v1/kv/a").await.ok()["value"], "2");
}

#[tokio::test]
async fn a_retry_under_the_same_key_is_done_once() {
    let site = Site::new();
    let id = Uuid::now_v7().to_string();
    let put = async |value: &'static str| {
        let headers = [BYTES, ("idempotency-key", id.as_str())];
        site.send("PUT", "/v1/kv/a", &headers, value).await
    };
    assert_eq!(put("1").await.ok()["revision"], 1);
    assert_eq!(put("1").await.ok()["revision"], 1);
    let pair = site.get("/v1/kv/a").await.ok();
    assert_eq!((&pair["version"], &pair["modified"]), (&1.into(), &1.into()));
    for bad in ["123", &Uuid::new_v4().to_string()] {
        let headers = [BYTES, ("idempotency-key", bad)];
        let answered = site.send("PUT", "/v1/kv/a", &headers, "2").await;
        answered.problem(400, "header_invalid", &[bad, "UUID version 7"]);
    }
}

#[tokio::test]
async fn proposals_without_outcome_say_what_to_do() {
    let site = Site::new();
    let put = async || site.send("PUT", "/v1/kv/a", &[BYTES], "1").await;
    let fail = |error| site.node.fail_next(error);

    fail(ProposeError::NoLeader);
    let answered = put().await;
    assert_eq!(answered.headers["retry-after"], "1");
    answered.problem(503, "no_leader", &["majority"]);

    fail(ProposeError::Overloaded {
        in_flight: 9,
        retry_after_ms: 1_200,
    });
    let answered = put().await;
    assert_eq!(answered.headers["retry-after"], "2");
    assert_eq!(
        answered.problem(429, "overloaded", &["9"])["retry_after_ms"],
        1_200
    );

    fail(ProposeError::DiskNearlyFull {
        node: NodeId(3),
        free_bytes: 40 << 20,
        reserve_bytes: 512 << 20,
        retry_after_ms: 10_000,
    });
    let answered = put().await;
    assert_eq!(answered.headers["retry-after"], "10");
    answered.problem(
        507,
        "disk_nearly_full",
        &["node 3", "40 MiB", "512 MiB", "Deletes"],
    );

    fail(ProposeError::TooLarge { bytes: 9, max: 8 });
    put().await.problem(413, "command_too_large", &["9", "8"]);
    fail(ProposeError::Poisonous("x".to_owned()));
    put().await.problem(500, "command_poisonous", &["x"]);
    fail(ProposeError::ShuttingDown);
    put().await.problem(503, "shutting_down", &[]);

    let id = Uuid::now_v7();
    fail(ProposeError::Unknown(CommandId(id)));
    let problem = put()
        .await
        .problem(504, "outcome_unknown", &["Idempotency-Key", "again"]);
    assert!(problem["command_id"].is_string());
}

#[tokio::test]
async fn bodies_that_come_slowly_are_bounded_together() {
    let site = Site::with(Limits {
        receiving_bytes: 100,
        ..Limits::default()
    });
    let (sender, pieces) = futures::channel::mpsc::unbounded::<Result<Bytes, Infallible>>();
    let piece = |bytes: usize| Ok(Bytes::from(vec![b'x'; bytes]));
    sender.unbounded_send(piece(80)).expect("is received");
    let request = http::Request::put("/v1/kv/slow").header(BYTES.0, BYTES.1);
    let request = request.body(Body::from_stream(pieces)).expect("a request");
    let slow = tokio::spawn(site.router.clone().oneshot(request));
    tokio::task::yield_now().await;

    let put = async |bytes: usize| site.send("PUT", "/v1/kv/a", &[BYTES], vec![b'x'; bytes]).await;
    let refused = put(40).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.problem(429, "overloaded", &["100 bytes"]);
    site.get("/v1/kv/a").await.problem(404, "not_found", &[]);
    put(20).await.ok();

    // What one has is given back when it is there, and when it is gone.
    sender.unbounded_send(piece(20)).expect("is received");
    drop(sender);
    let response = slow.await.expect("ends").expect("the router never fails");
    assert_eq!(response.status(), 200);
    put(100).await.ok();
    put(101).await.problem(429, "overloaded", &[]);
    put(100).await.ok();
    let metrics = site.raw("GET", "/metrics", &[], "").await.into_body();
    let metrics = metrics.collect().await.expect("a body").to_bytes();
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(
        metrics.contains("\nonward_http_bodies_overloaded_total 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn reads_say_how_fresh_they_are() {
    let site = Site::new();
    site.put("a", "1").await;
    let fresh = site.get("/v1/kv/a").await;
    assert_eq!(fresh.headers["onward-revision"], "1");
    assert_eq!(fresh.ok()["age_ms"], json!(null));
    let local = site.get("/v1/kv/a?consistency=local").await;
    assert_eq!(local.headers["onward-age-ms"], "0");
    assert_eq!(local.ok()["age_ms"], 0);
    site.get("/v1/kv/a?at_least=1").await.ok();
    let ahead = site.get("/v1/kv/a?at_least=7").await;
    assert!(ahead.headers.contains_key("retry-after"));
    ahead.problem(503, "revision_not_applied", &["revision 7", "at 1"]);

    site.node.fail_barriers(Some(ReadError::Overloaded {
        waiting: 9,
        retry_after_ms: 2_500,
    }));
    let overloaded = site.get("/v1/kv/a").await;
    assert_eq!(overloaded.headers["retry-after"], "3");
    overloaded.problem(429, "overloaded", &["9 reads", "another node"]);

    site.node.fail_barriers(Some(ReadError::NoLeader));
    site.get("/v1/kv/a")
        .await
        .problem(503, "no_leader", &["consistency=local"]);
    assert_eq!(site.get("/v1/kv/a?consistency=local").await.ok()["value"], "1");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let site = Site::new();
    site.get("/v2/kv")
        .await
        .problem(404, "route_not_found", &["/v2/kv", "openapi"]);
    let answered = site.send("PATCH", "/v1/machines", &[], "").await;
    let allowed = answered.headers["allow"].to_str().expect("text").to_owned();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    answered.problem(405, "method_not_allowed", &["PATCH", "/v1/machines"]);
}

#[tokio::test]
async fn the_journal_names_who_demanded_it() {
    let site = Site::new();
    site.send(
        "PUT",
        "/v1/kv/a",
        &[BYTES, ("onward-actor", "cli:hanako@desk")],
        "1",
    )
    .await
    .ok();
    site.put("a", "2").await;
    site.send(
        "PUT",
        "/v1/kv/a",
        &[BYTES, ("onward-actor", &"x".repeat(500))],
        "3",
    )
    .await
    .ok();
    let journal = site.get("/v1/journal").await.ok();
    assert_eq!(journal["items"][0]["actor"], "cli:hanako@desk");
    assert_eq!(journal["items"][1]["actor"], "http");
    assert_eq!(journal["items"][2]["actor"].as_str().map(str::len), Some(128));
    assert_eq!(
        (&journal["next_after"], &journal["complete"]),
        (&3.into(), &true.into())
    );
    assert_eq!(
        journal["items"][0]["events"][0],
        json!({"area": "kv", "event": "put", "key": "a", "value": "1"})
    );
}

#[tokio::test]
async fn a_batch_is_done_whole_or_not_at_all() {
    let site = Site::new();
    let put = |key: &str, expect: Option<u64>| json!({"kv_put": {"key": key, "value": "1", "expect_revision": expect}});
    let good = json!({"commands": [put("a", None), {"kv_delete": {"prefix": "a"}}, put("b", None)]});
    let done = site.json("POST", "/v1/batch", &good).await.ok();
    assert_eq!(done["results"], json!([null, {"deleted": 1}, null]));
    let bad = json!({"commands": [put("c", None), put("b", Some(9))]});
    let problem = site.json("POST", "/v1/batch", &bad).await.problem(
        412,
        "kv_revision_mismatch",
        &["command 1", "`b`"],
    );
    assert_eq!(problem["command_index"], 1);
    site.get("/v1/kv/c").await.problem(404, "not_found", &["`c`"]);
    let empty = json!({"commands": []});
    site.json("POST", "/v1/batch", &empty)
        .await
        .problem(400, "batch_shape", &["0 commands"]);
    let unknown = json!({"commands": [{"kv_shout": {}}]});
    site.json("POST", "/v1/batch", &unknown)
        .await
        .problem(400, "body_invalid", &["`kv_shout`", "`kv_put`"]);
    let invalid =
        json!({"commands": [put("c", None), {"machine_set_state": {"serial": "S1", "state": "tired"}}]});
    site.json("POST", "/v1/batch", &invalid).await.problem(
        400,
        "field_invalid",
        &["commands[1].state", "tired"],
    );
}

#[tokio::test]
async fn history_that_was_compacted_is_gone_and_says_so() {
    use onward_statemachine::ports::{Proposal, Proposer};
    let site = Site::new();
    for value in ["1", "2", "3"] {
        site.put("a", value).await;
    }
    let compact = onward_statemachine::system::Command::CompactJournal { below: Revision(3) };
    let command = onward_statemachine::Command::System(compact);
    let proposal = Proposal::new(onward_statemachine::Actor::new("test"), command);
    site.node.propose(proposal, 1_000).await.expect("compacts");
    for path in [
        "/v1/journal?after=1",
        "/v1/events?after=1",
        "/v1/kv/watch?after=1",
    ] {
        let problem = site
            .get(path)
            .await
            .problem(410, "compacted", &["revision 3", "after=2"]);
        assert_eq!(problem["floor"], 3);
    }
    let kept = site.get("/v1/journal").await.ok();
    assert_eq!(kept["items"][0]["revision"], 3);
}
