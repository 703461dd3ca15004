//! The journal as it happens.

use super::Site;
use crate::{Limits, Services, router};
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::BodyExt;
use onward_statemachine::ports::{BoxFuture, Freshness, Past, PastError, ReadError, Reader, Stamp};
use onward_statemachine::testing::SingleNode;
use onward_statemachine::{Fault, Revision, View};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tower::ServiceExt;

/// The end of a stream as a client sees it.
struct Reading {
    body: Body,
    text: String,
}

impl Reading {
    fn of(response: Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Reading {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// The next message: its name, its id and its data. `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = message.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().to_owned()
                };
                let data = serde_json::from_str(&field("data: ")).expect("JSON");
                let found = (field("event: "), field("id: "), data);
                self.text = rest.to_owned();
                return Some(found);
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame());
            let frame = frame
                .await
                .expect("the stream is not silent")?
                .expect("the stream does not break");
            let bytes = frame.into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }
}

#[tokio::test]
async fn a_watch_sees_what_it_watches_and_goes_on_where_it_was() {
    let site = Site::new();
    site.put("p/a", "1").await;
    site.put("q", "x").await;
    let batch = json!({"commands": [
        {"kv_put": {"key": "p/b", "value": "2"}}, {"kv_put": {"key": "q", "value": "y"}}, {"kv_delete": {"key": "p/a"}},
    ]});
    site.json("POST", "/v1/batch", &batch).await.ok();
    let mut watch = Reading::of(site.raw("GET", "/v1/kv/watch?prefix=p/&after=0", &[], "").await);
    let (name, id, data) = watch.next().await.expect("a message");
    assert_eq!((name.as_str(), id.as_str()), ("change", "1"));
    assert_eq!(
        data,
        json!({"revision": 1, "events": [{"event": "put", "key": "p/a", "value": "1"}]})
    );
    let (_, id, data) = watch.next().await.expect("a message");
    assert_eq!(id, "3");
    let together = json!([{"event": "put", "key": "p/b", "value": "2"}, {"event": "deleted", "key": "p/a"}]);
    assert_eq!(data["events"], together, "what happened at once arrives at once");

    // What happens while it is open.
    let (next, ()) = tokio::join!(watch.next(), async {
        site.put("p/c", "3").await;
    });
    assert_eq!(next.expect("a message").2["events"][0]["key"], "p/c");

    let headers = [("last-event-id", "3")];
    let mut resumed = Reading::of(
        site.raw("GET", "/v1/kv/watch?prefix=p/&after=0", &headers, "")
            .await,
    );
    assert_eq!(resumed.next().await.expect("a message").1, "4");
    let bad = site
        .send("GET", "/v1/kv/watch", &[("last-event-id", "x")], "")
        .await;
    bad.problem(400, "header_invalid", &["Last-Event-ID"]);
}

#[tokio::test]
async fn events_begin_now_unless_said_otherwise_and_filter_by_area() {
    let site = Site::new();
    site.put("a", "1").await;
    let mut now = Reading::of(site.raw("GET", "/v1/events", &[], "").await);
    let mut services = Reading::of(site.raw("GET", "/v1/events?after=0&area=catalog", &[], "").await);
    site.put("a", "2").await;
    let spec = json!({"address": "10.0.0.1", "port": 1});
    site.json("PUT", "/v1/services/s/instances/i", &spec).await.ok();
    let (name, id, data) = now.next().await.expect("a message");
    assert_eq!(
        (name.as_str(), id.as_str(), &data["actor"]),
        ("revision", "2", &json!("http"))
    );
    let (_, id, data) = services.next().await.expect("a message");
    assert_eq!(
        (id.as_str(), &data["events"][0]["event"]),
        ("3", &json!("registered"))
    );
}

#[tokio::test]
async fn an_idle_stream_says_how_far_it_has_come() {
    let limits = Limits {
        progress_ms: 20,
        ..Limits::default()
    };
    let site = Site::with(limits);
    site.put("a", "1").await;
    let mut watch = Reading::of(site.raw("GET", "/v1/kv/watch?prefix=z&after=0", &[], "").await);
    let (name, id, data) = watch.next().await.expect("a message");
    assert_eq!(
        (name.as_str(), id.as_str(), data),
        ("progress", "1", json!({"revision": 1}))
    );
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_node() {
    let limits = Limits {
        streams: 1,
        ..Limits::default()
    };
    let site = Site::with(limits);
    let mut first = Reading::of(site.raw("GET", "/v1/events", &[], "").await);
    site.get("/v1/events")
        .await
        .problem(429, "streams_exhausted", &["1 streams"]);
    site.services.shutdown.cancel();
    assert_eq!(first.next().await, None);
    drop(first);
    assert_eq!(site.raw("GET", "/v1/events", &[], "").await.status(), 200);
}

#[tokio::test]
async fn a_slow_stream_that_is_overtaken_by_compaction_ends_with_the_reason() {
    use onward_statemachine::ports::{Proposal, Proposer};
    use onward_statemachine::{Actor, Command, system};
    let site = Site::new();
    for _ in 0..200 {
        site.put("a", "1").await;
    }
    let mut slow = Reading::of(site.raw("GET", "/v1/events?after=0", &[], "").await);
    slow.next().await.expect("a message");
    let compact = system::Command::CompactJournal { below: Revision(190) };
    let proposal = Proposal::new(Actor::new("test"), Command::System(compact));
    site.node.propose(proposal, 1_000).await.expect("compacts");
    let mut last = None;
    while let Some(message) = slow.next().await {
        last = Some(message);
    }
    let (name, _, data) = last.expect("a message");
    assert_eq!(
        (name.as_str(), &data["floor"], &data["code"]),
        ("compacted", &json!(190), &json!("compacted"))
    );
}

/// A node that counts how often its state is read.
struct Counted {
    node: Arc<SingleNode>,
    reads: AtomicUsize,
}

impl Reader for Counted {
    fn barrier(&self, freshness: Freshness) -> BoxFuture<'_, Result<Stamp, ReadError>> {
        self.node.barrier(freshness)
    }
    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        self.reads.fetch_add(1, Relaxed);
        self.node.with_view(read);
    }
    fn stamp(&self) -> Stamp {
        self.node.stamp()
    }
    fn past(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Past>, PastError>> {
        self.node.past(at)
    }
    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision> {
        self.node.changed(after)
    }
}

#[tokio::test]
async fn a_stream_rests_after_entries_that_carry_no_command() {
    let node = Arc::new(SingleNode::new());
    let reader = Arc::new(Counted {
        node: node.clone(),
        reads: AtomicUsize::new(0),
    });
    node.apply_blank();
    let mut services = Services::new(node.clone(), reader.clone(), node.clone(), node.clone());
    services.limits.progress_ms = 100;
    let request = Request::builder()
        .uri("/v1/events?after=0")
        .body(Body::empty())
        .expect("a request");
    let response = router(services)
        .oneshot(request)
        .await
        .expect("the router never fails");
    let mut idle = Reading::of(response);
    assert_eq!(idle.next().await.expect("a message").0, "progress");
    let reads = reader.reads.load(Relaxed);
    assert!(reads < 10, "{reads} reads while nothing happened");
}
