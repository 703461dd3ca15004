//! Streams of the journal as server-sent events.
//!
//! One message a revision, so that what happened at once arrives at once; its id is the revision, which is what a
//! client sends back as `Last-Event-ID` (or `after`) to go on. Nothing is queued for a slow client: a stream holds a
//! position in the journal and reads on when the client has taken what it was sent. A stream that is overtaken by
//! compaction ends with a `compacted` message; one that begins behind it is answered 410. An idle stream says how far
//! it has come with `progress` messages, whose ids count as positions too.

use crate::app::App;
use crate::problem::{COMPACTED, HEADER_INVALID, Problem};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use onward_statemachine::journal::{self, Compacted, Page, Record};
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::{Event, Revision};
use serde::Serialize;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The revisions that are read, and looked at, before a chunk is sent.
const CHUNK_RECORDS: usize = 64;
const CHUNK_SCAN: usize = 4096;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Which revisions a stream lets through, and what its messages say of them.
pub(crate) trait Lens: Send + 'static {
    /// The name of its messages.
    const NAME: &'static str;
    type Message: Serialize;
    fn wants(&self, event: &Event) -> bool;
    /// The message of a revision that holds at least one wanted event.
    fn message(&self, revision: Revision, record: Record) -> Self::Message;
}

/// A stream under way.
struct Following<L> {
    app: App,
    lens: L,
    position: Revision,
    /// What this node had applied before the last read. It runs ahead of the position where entries carry no command.
    applied: Revision,
    /// Whether the end of the journal was reached, so that the next step waits.
    caught_up: bool,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

/// Answers with the journal after the position that the request names, or from now on.
pub(crate) fn follow<L: Lens>(
    app: &App,
    headers: &HeaderMap,
    after: Option<Revision>,
    lens: L,
) -> Result<Response, Problem> {
    let position = last_event_id(headers)?.or(after);
    let position = position.unwrap_or_else(|| app.services.reader.stamp().applied);
    let first = app
        .services
        .reader
        .read(|view| journal::read(view, position, 1, 1, |_| true));
    first.map_err(compacted)?;
    let following = Following {
        app: app.clone(),
        lens,
        position,
        applied: Revision(0),
        caught_up: false,
        ended: false,
        _permit: app.stream_permit()?,
    };
    app.metrics.streams.fetch_add(1, Relaxed);
    let mut response = Response::new(Body::from_stream(stream::unfold(
        following,
        |mut following| async {
            let chunk = following.next().await?;
            Some((Ok::<_, Infallible>(chunk), following))
        },
    )));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(crate::answer::REVISION, HeaderValue::from(position.0));
    Ok(response)
}

pub(crate) fn compacted(Compacted { floor, after }: Compacted) -> Problem {
    let first = Revision(floor.0.saturating_sub(1));
    COMPACTED
        .because(format!(
            "the journal was compacted: it begins at revision {floor}, and what came after {after} was asked for. Read \
             the present state again and follow from its revision, or go on with `after={first}`"
        ))
        .floor(floor)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|value| value.parse().ok());
    parsed.map(|revision| Some(Revision(revision))).ok_or_else(|| {
        HEADER_INVALID.because("`Last-Event-ID` is not a revision: send the id of the last message as it is")
    })
}

impl<L> Drop for Following<L> {
    fn drop(&mut self) {
        self.app.metrics.streams.fetch_sub(1, Relaxed);
    }
}

impl<L: Lens> Following<L> {
    /// The next bytes to send; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let progress = Duration::from_millis(self.app.services.limits.progress_ms);
        let told = tokio::time::Instant::now();
        loop {
            if self.ended {
                return None;
            }
            if self.caught_up {
                let reader = &self.app.services.reader;
                // In this order, so that a simulation repeats.
                tokio::select! {
                    biased;
                    () = self.app.services.shutdown.cancelled() => return None,
                    _ = reader.changed(self.position.max(self.applied)) => {}
                    () = tokio::time::sleep_until(told + progress) => return Some(self.progress()),
                }
            }
            let chunk = self.read();
            if !chunk.is_empty() {
                return Some(chunk);
            }
            // What was read is filtered out. Say so from time to time, so that a client that comes back need not
            // read it again.
            if told.elapsed() >= progress {
                return Some(self.progress());
            }
            tokio::task::yield_now().await;
        }
    }

    fn progress(&self) -> Bytes {
        let revision = self.position;
        Bytes::from(format!(
            "event: progress\nid: {revision}\ndata: {{\"revision\":{revision}}}\n\n"
        ))
    }

    /// The messages of the next records; empty where the filter let none through.
    fn read(&mut self) -> Bytes {
        self.applied = self.app.services.reader.stamp().applied;
        let Following {
            app, lens, position, ..
        } = &*self;
        let page = app.services.reader.read(|view| {
            let wanted = |record: &Record| record.events.iter().any(|event| lens.wants(event));
            journal::read(view, *position, CHUNK_RECORDS, CHUNK_SCAN, wanted)
        });
        let Page {
            records,
            scanned,
            complete,
        } = match page {
            Ok(page) => page,
            Err(behind) => {
                self.ended = true;
                let problem = compacted(behind).0;
                let data = serde_json::to_string(&*problem).expect("a problem is a map with text keys");
                return Bytes::from(format!("event: compacted\ndata: {data}\n\n"));
            }
        };
        let mut out = String::new();
        let sent_max = if self.caught_up && mutant::on(Mutant::LostWatch) {
            1
        } else {
            CHUNK_RECORDS
        };
        for (revision, record) in records.into_iter().take(sent_max) {
            let message = lens.message(revision, record);
            let data = serde_json::to_string(&message).expect("wire types are maps with text keys");
            write!(out, "event: {}\nid: {revision}\ndata: {data}\n\n", L::NAME)
                .expect("writing into a String cannot fail");
        }
        self.position = scanned;
        self.caught_up = complete;
        Bytes::from(out)
    }
}
