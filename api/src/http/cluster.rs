//! `/v1/cluster`, health, metrics, and what the API says of itself.

use super::backup;
use crate::answer::{Answer, document};
use crate::app::App;
use crate::params::Nothing;
use crate::problem::{self, NOT_READY};
use crate::request::Params;
use crate::routes::{Routes, op};
use crate::wire;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use onward_statemachine::hash::state_hash;
use onward_statemachine::ports::Role;
use onward_statemachine::system;
use serde_json::json;
use std::sync::{Arc, LazyLock};

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .tag("cluster")
        .get(
            "/v1/cluster",
            status,
            op(
                "cluster",
                "Members, leader, revisions, lag and health, as this node sees them",
            )
            .answer::<wire::cluster::Status>(),
        )
        .get(
            "/v1/cluster/hash",
            hash,
            op(
                "cluster_hash",
                "Reads the whole state of this node for its hash, to compare replicas that stand at one revision",
            )
            .answer::<wire::cluster::StateHash>(),
        )
        .get(
            "/healthz",
            health,
            op("healthz", "Whether the process is alive").document("application/json"),
        )
        .get(
            "/readyz",
            ready,
            op("readyz", "Whether this node knows a leader and applied lately").document("application/json"),
        )
        .get(
            "/metrics",
            metrics,
            op("metrics", "Numbers in the Prometheus text format").document("text/plain; version=0.0.4"),
        )
        .get(
            "/v1/errors",
            errors,
            op("errors", "Every code that a problem can have").document("application/json"),
        )
        .get(
            "/v1/openapi.json",
            openapi,
            op("openapi", "This document").document("application/json"),
        )
}

async fn status(State(app): State<App>, Params(Nothing): Params<Nothing>) -> Answer {
    let stamp = app.services.reader.stamp();
    let mut status = app.services.cluster.status();
    status
        .alarms
        .extend(backup::alarm(&app, status.role == Role::Leader));
    let revision = status.applied;
    crate::answer::Seen {
        value: wire::cluster::Status::from(status),
        revision,
        age_ms: Some(stamp.age_ms),
    }
    .answer()
}

/// Reads every row, so away from the threads that serve.
async fn hash(State(app): State<App>, Params(Nothing): Params<Nothing>) -> Answer {
    let node = app.services.cluster.status().node.0;
    let age_ms = app.services.reader.stamp().age_ms;
    let reader = Arc::clone(&app.services.reader);
    let hashed = tokio::task::spawn_blocking(move || {
        reader.read(|view| Ok((system::clock(view)?.revision, state_hash(view)?)))
    });
    let (revision, hash) = hashed
        .await
        .expect("reading neither panics nor is cancelled: a fault stops the node");
    crate::answer::Seen {
        value: wire::cluster::StateHash::new(node, hash),
        revision,
        age_ms: Some(age_ms),
    }
    .answer()
}

async fn health() -> Response {
    document(
        StatusCode::OK,
        "application/json",
        Bytes::from_static(br#"{"status":"alive"}"#),
    )
}

async fn ready(State(app): State<App>) -> Answer {
    let status = app.services.cluster.status();
    let stamp = app.services.reader.stamp();
    let Some(leader) = status.leader else {
        return Err(NOT_READY.because("no leader is known"));
    };
    let max = app.services.limits.ready_age_ms;
    if stamp.age_ms > max {
        let age = stamp.age_ms;
        return Err(NOT_READY.because(format!(
            "the leader was last heard from {age} ms ago; the most is {max}"
        )));
    }
    let body =
        json!({"status": "ready", "leader": leader.0, "applied": stamp.applied.0, "age_ms": stamp.age_ms});
    Ok(document(
        StatusCode::OK,
        "application/json",
        Bytes::from(body.to_string()),
    ))
}

async fn metrics(State(app): State<App>) -> Response {
    let mut all = app.services.cluster.metrics();
    all.extend(backup::metrics(&app));
    all.push(app.receiving.metric());
    let text = app.metrics.render(&all);
    document(StatusCode::OK, "text/plain; version=0.0.4", Bytes::from(text))
}

async fn errors() -> Response {
    let codes: Vec<_> = problem::table()
        .into_iter()
        .map(|code| wire::ProblemCode {
            status: code.status,
            code: code.code.to_owned(),
        })
        .collect();
    let body = serde_json::to_vec(&json!({"codes": codes})).expect("codes are JSON");
    document(StatusCode::OK, "application/json", Bytes::from(body))
}

async fn openapi() -> Response {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
        let document = serde_json::to_vec(&super::routes().openapi());
        document.expect("the document is JSON").into()
    });
    document(StatusCode::OK, "application/json", DOCUMENT.clone())
}
