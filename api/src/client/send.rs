//! Sending a request until somebody answers it.

use super::{Client, Consistency, Error, Paging};
use crate::wire::{Problem, Stamped};
use http::{Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The longest time that one server has for one try.
const ATTEMPT_MAX: Duration = Duration::from_secs(12);
/// How long to wait before all servers are tried again: at first, and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A request, ready to be sent any number of times.
pub(super) struct Call {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<(&'static str, Vec<u8>)>,
    if_match: Option<u64>,
    accept: Option<&'static str>,
    /// The id of a write.
    command_id: Option<Uuid>,
    /// How long one server has for one try.
    attempt_max: Duration,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Call {
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            if_match: None,
            accept: None,
            command_id: None,
            attempt_max: ATTEMPT_MAX,
        }
    }

    /// One that a server may take long for: nobody else is asked before the deadline.
    pub(super) fn long(mut self) -> Self {
        self.attempt_max = Duration::MAX;
        self
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Call::new(Method::GET, path)
    }

    /// A write.
    pub(super) fn write(method: Method, path: impl Into<String>) -> Self {
        let mut call = Call::new(method, path);
        call.command_id = Some(Uuid::now_v7());
        call
    }

    /// A question that needs a body.
    pub(super) fn ask(path: impl Into<String>) -> Self {
        Call::new(Method::POST, path)
    }

    pub(super) fn json<T: Serialize + ?Sized>(mut self, body: &T) -> Self {
        let body = serde_json::to_vec(body).expect("wire types are maps with text keys");
        self.body = Some(("application/json", body));
        self
    }

    pub(super) fn bytes(mut self, body: Vec<u8>) -> Self {
        self.body = Some(("application/octet-stream", body));
        self
    }

    pub(super) fn if_match(mut self, expect: Option<u64>) -> Self {
        self.if_match = expect;
        self
    }

    pub(super) fn accept(mut self, kind: &'static str) -> Self {
        self.accept = Some(kind);
        self
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn maybe(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value.to_string()),
            None => self,
        }
    }

    pub(super) fn page(self, page: Paging) -> Self {
        self.maybe("limit", page.limit).maybe("cursor", page.cursor)
    }
}

/// How one try at one server ended.
pub(super) enum Tried {
    /// With an answer, which is final.
    Answered(Vec<u8>),
    /// With a no, which is final.
    Refused(Box<Problem>),
    /// With nothing done there; worth trying again after a while.
    NotDone { reason: String, retry_after: Duration },
    /// With nothing known.
    Lost { reason: String },
    /// With an answer that means nothing.
    Unreadable { reason: String },
}

impl Client {
    /// A read in the freshness of this client, as of its revision.
    pub(super) async fn read<T: DeserializeOwned>(&self, call: Call) -> Result<Stamped<T>, Error> {
        let call = call.maybe("at", self.at);
        self.decode(self.fresh(call)).await
    }

    /// A read of what has no past, in the freshness of this client.
    pub(super) async fn read_present<T: DeserializeOwned>(&self, call: Call) -> Result<Stamped<T>, Error> {
        self.call(self.fresh(call)).await
    }

    pub(super) fn fresh(&self, call: Call) -> Call {
        match self.consistency {
            Consistency::Linearizable => call,
            Consistency::Local => call.query("consistency", "local"),
            Consistency::AtLeast(revision) => call.query("at_least", revision.to_string()),
        }
    }

    /// Sends a call that is of the present and reads the JSON of its answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        self.only_now()?;
        self.decode(call).await
    }

    /// Refuses what has no past to a client that reads one.
    pub(super) fn only_now(&self) -> Result<(), Error> {
        match self.at {
            None => Ok(()),
            Some(at) => Err(Error::Usage(format!(
                "this cannot be done as of revision {at}: only what reads the state can"
            ))),
        }
    }

    async fn decode<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let (server, body) = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Unreadable {
            server,
            reason: error.to_string(),
        })
    }

    /// Sends a call to one server after another until one answers or the deadline passes.
    pub(super) async fn send(&self, call: Call) -> Result<(String, Vec<u8>), Error> {
        let deadline = Instant::now() + self.deadline;
        let mut lost = false;
        let mut why = String::from("the deadline is 0");
        let mut backoff = BACKOFF_MIN;
        loop {
            let first = self.preferred.load(Relaxed);
            let mut pause = backoff;
            for place in 0..self.servers.len() {
                let index = (first + place) % self.servers.len();
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                match self.attempt(&call, index, left.min(call.attempt_max)).await {
                    Tried::Answered(body) => {
                        self.preferred.store(index, Relaxed);
                        return Ok((self.servers[index].to_string(), body));
                    }
                    Tried::Refused(problem) => return Err(Error::Refused(problem)),
                    Tried::NotDone { reason, retry_after } => {
                        pause = pause.max(retry_after);
                        why = reason;
                    }
                    Tried::Lost { reason } => {
                        lost = true;
                        why = reason;
                    }
                    // Another server may be what this one is not; but the write may have been done.
                    Tried::Unreadable { reason } if call.command_id.is_none() => {
                        let server = self.servers[index].to_string();
                        return Err(Error::Unreadable { server, reason });
                    }
                    Tried::Unreadable { reason } => {
                        lost = true;
                        why = reason;
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left <= pause {
                return Err(match call.command_id.filter(|_| lost) {
                    Some(command_id) => Error::OutcomeUnknown {
                        command_id,
                        reason: why,
                    },
                    None => Error::Unreachable(why),
                });
            }
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(&self, call: &Call, index: usize, timeout: Duration) -> Tried {
        let server = &self.servers[index];
        let request = self.request(call, index).timeout(timeout);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Tried::NotDone {
                    reason: format!("{server}: {}", innermost(&error)),
                    retry_after: Duration::ZERO,
                };
            }
            Err(error) => {
                let reason = format!("{server}: {}", innermost(&error));
                return Tried::Lost { reason };
            }
        };
        let status = response.status();
        let ours = response.headers().contains_key("onward-revision");
        let body = match response.bytes().await {
            Ok(body) => body.to_vec(),
            Err(error) => {
                let reason = format!("{server}: {}", innermost(&error));
                return Tried::Lost { reason };
            }
        };
        if status.is_success() {
            return Tried::Answered(body);
        }
        judge(server.as_str(), status, ours, &body)
    }

    pub(super) fn request(&self, call: &Call, index: usize) -> reqwest::RequestBuilder {
        let mut url = self.servers[index].clone();
        // Whatever the server's URL says after its port is a prefix of a proxy in front of it.
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{}", call.path));
        let mut request = self.http.request(call.method.clone(), url).query(&call.query);
        if let Some((kind, body)) = &call.body {
            request = request.header(header::CONTENT_TYPE, *kind).body(body.clone());
        }
        if let Some(expect) = call.if_match {
            request = request.header(header::IF_MATCH, expect);
        }
        if let Some(kind) = call.accept {
            request = request.header(header::ACCEPT, kind);
        }
        if let Some(actor) = self.actor.as_ref().filter(|_| call.command_id.is_some()) {
            request = request.header("onward-actor", actor);
        }
        if let Some(id) = call.command_id {
            request = request.header("idempotency-key", id.to_string());
        }
        request
    }
}

/// What an answer that is not a success means. What is `ours` carries a revision: it says no for a reason, if only as
/// the text that firmware can show.
pub(super) fn judge(server: &str, status: StatusCode, ours: bool, body: &[u8]) -> Tried {
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
        let busy = matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        if ours && busy {
            let reason = format!("{server}: {}", plain(status, body).detail);
            let retry_after = Duration::ZERO;
            return Tried::NotDone { reason, retry_after };
        }
        if ours && status.is_client_error() {
            return Tried::Refused(Box::new(plain(status, body)));
        }
        let reason = format!("{server} answered {status} without a problem document");
        return Tried::Unreadable { reason };
    };
    let reason = format!("{server}: {}", problem.detail);
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Tried::NotDone {
            reason,
            retry_after: Duration::from_millis(problem.retry_after_ms.unwrap_or(0).min(5_000)),
        },
        StatusCode::GATEWAY_TIMEOUT => Tried::Lost { reason },
        _ => Tried::Refused(Box::new(problem)),
    }
}

/// A no in plain text as a problem.
fn plain(status: StatusCode, text: &[u8]) -> Problem {
    let title = status.canonical_reason().unwrap_or("no");
    Problem {
        kind: "about:blank".to_owned(),
        title: title.to_owned(),
        status: status.as_u16(),
        code: title.to_ascii_lowercase().replace(' ', "_"),
        detail: String::from_utf8_lossy(text).trim().to_owned(),
        revision: None,
        command_id: None,
        command_index: None,
        retry_after_ms: None,
        floor: None,
    }
}

/// The words of the error at the bottom, which says what happened; those above it say where.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
