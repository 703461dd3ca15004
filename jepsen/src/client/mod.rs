//! One client of the cluster: plain HTTP with deadlines, and an honest word on what came of each demand.
//!
//! It is not Onward's own client library, which tries again and moves on by itself: a bug in there must not hide one in
//! the cluster. A client asks one node; that it could not be served there is for its owner to see, who may then
//! [move on](Client::move_on).

mod dns;
mod stream;

pub use stream::{Message, Stream};

use crate::cluster::Node;
use crate::history::Outcome;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a client waits for an answer. The server gives up on a write after 10 s.
pub const DEADLINE: Duration = Duration::from_secs(4);
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// A node, as clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: u64,
    /// Where its HTTP API is, without a slash at the end.
    pub http: String,
    /// Where its DNS server is.
    pub dns: SocketAddr,
    /// Where its ingress is.
    pub ingress: SocketAddr,
}

impl From<&Node> for Target {
    fn from(node: &Node) -> Self {
        Target {
            id: node.id,
            http: node.http.clone(),
            dns: node.dns,
            ingress: node.ingress,
        }
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Sees every write that was acknowledged before it began.
    Linearizable,
    /// Sees this revision at least.
    AtLeast(u64),
    /// Whatever the node has.
    Local,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    nodes: Arc<[Target]>,
    at: usize,
    actor: String,
    /// How long it waits for an answer.
    pub deadline: Duration,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What that means for the demand.
    pub outcome: Outcome,
    /// The HTTP status; `None` where no answer came.
    pub status: Option<u16>,
    /// The body; null where none came.
    pub body: Value,
    /// The revision that it carries.
    pub revision: Option<u64>,
    /// The problem's code, or what the transport said.
    pub error: Option<String>,
}

impl Client {
    /// A client that calls itself `actor`, and begins with the node at `place`.
    ///
    /// # Errors
    /// Where the HTTP client cannot be built.
    pub fn new(nodes: Arc<[Target]>, place: usize, actor: impl Into<String>) -> anyhow::Result<Self> {
        anyhow::ensure!(!nodes.is_empty(), "a client needs a node");
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE)
            .build()?;
        Ok(Client {
            http,
            at: place % nodes.len(),
            nodes,
            actor: actor.into(),
            deadline: DEADLINE,
        })
    }

    /// The node that it asks.
    pub fn node(&self) -> &Target {
        &self.nodes[self.at]
    }

    /// All nodes.
    pub fn nodes(&self) -> &Arc<[Target]> {
        &self.nodes
    }

    /// Asks the next node from now on.
    pub fn move_on(&mut self) {
        self.at = (self.at + 1) % self.nodes.len();
    }

    /// Asks the node at `place` from now on, whatever its id is.
    pub fn move_to(&mut self, place: usize) {
        self.at = place % self.nodes.len();
    }

    /// Reads.
    pub fn get(&self, path: &str, level: Level) -> Request {
        let request = self.request(Method::GET, path);
        match level {
            Level::Linearizable => request,
            Level::AtLeast(revision) => request.query("at_least", &revision),
            Level::Local => request.query("consistency", &"local"),
        }
    }

    /// Writes, as the demand `command`.
    pub fn write(&self, method: Method, path: &str, command: Uuid) -> Request {
        let mut request = self.request(method, path);
        request.writes = true;
        request.http = request
            .http
            .header("idempotency-key", command.to_string())
            .header("onward-actor", &self.actor);
        request
    }

    fn request(&self, method: Method, path: &str) -> Request {
        let url = format!("{}{path}", self.node().http);
        Request {
            http: self.http.request(method, url).timeout(self.deadline),
            writes: false,
        }
    }

    /// Follows a stream of server-sent events.
    ///
    /// # Errors
    /// The answer, where it is none.
    pub async fn stream(&self, path: &str) -> Result<Stream, Answer> {
        let url = format!("{}{path}", self.node().http);
        // No deadline over the whole: whoever reads has one for each message.
        let opened = tokio::time::timeout(self.deadline, self.http.get(url).send()).await;
        match opened {
            Ok(Ok(response)) if response.status().is_success() => Ok(Stream::new(response)),
            Ok(Ok(response)) => {
                let status = response.status();
                let body = response.json().await.unwrap_or_default();
                Err(Answer::answered(status, body, false))
            }
            Ok(Err(error)) => Err(Answer::transport(&error, false)),
            Err(_) => Err(Answer::none("the stream did not open in time", false)),
        }
    }

    /// The addresses that the node's DNS server has for `name`, in order.
    ///
    /// # Errors
    /// Where no answer came, or one that says that it failed.
    pub async fn resolve(&self, name: &str) -> anyhow::Result<Vec<std::net::IpAddr>> {
        dns::resolve(self.node().dns, name, self.deadline).await
    }
}

/// A request before it is sent.
#[derive(Debug)]
#[must_use]
pub struct Request {
    http: reqwest::RequestBuilder,
    writes: bool,
}

impl Request {
    /// With a query parameter.
    pub fn query(mut self, name: &str, value: &impl ToString) -> Self {
        self.http = self.http.query(&[(name, value.to_string())]);
        self
    }

    /// With a JSON body.
    pub fn json(mut self, body: &Value) -> Self {
        self.http = self.http.json(body);
        self
    }

    /// Only if the object was last modified at this revision; 0 for "does not exist".
    pub fn if_match(mut self, revision: u64) -> Self {
        self.http = self.http.header("if-match", revision.to_string());
        self
    }

    /// Sends it, once, and takes what comes as bytes; the revision is in a header then.
    pub async fn download(self) -> (Answer, Vec<u8>) {
        let response = match self.http.send().await {
            Ok(response) => response,
            Err(error) => return (Answer::transport(&error, self.writes), Vec::new()),
        };
        let status = response.status();
        let revision = response.headers().get("onward-revision");
        let revision = revision.and_then(|value| value.to_str().ok()?.parse().ok());
        match response.bytes().await {
            Ok(bytes) if status.is_success() => {
                let answer = Answer {
                    status: Some(status.as_u16()),
                    ..Answer::ok(Value::Null, revision)
                };
                (answer, bytes.to_vec())
            }
            Ok(bytes) => {
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                (Answer::answered(status, body, self.writes), Vec::new())
            }
            Err(error) => (Answer::transport(&error, self.writes), Vec::new()),
        }
    }

    /// Sends it, once.
    pub async fn send(self) -> Answer {
        let Request { http, writes } = self;
        let response = match http.send().await {
            Ok(response) => response,
            Err(error) => return Answer::transport(&error, writes),
        };
        let status = response.status();
        match response.bytes().await {
            Ok(bytes) => {
                let body = serde_json::from_slice(&bytes).unwrap_or_default();
                Answer::answered(status, body, writes)
            }
            Err(error) => Answer::transport(&error, writes),
        }
    }
}

impl Answer {
    /// The answer to a demand that was served.
    pub fn ok(body: Value, revision: Option<u64>) -> Self {
        Answer {
            outcome: Outcome::Ok,
            status: None,
            body,
            revision,
            error: None,
        }
    }

    /// Of a demand that `why` came in between: unknown where it writes.
    pub fn none(why: impl Into<String>, writes: bool) -> Self {
        Answer {
            // A read that is not answered changed nothing, so it never took place.
            outcome: if writes { Outcome::Info } else { Outcome::Fail },
            status: None,
            body: Value::Null,
            revision: None,
            error: Some(why.into()),
        }
    }

    /// What the transport says. A connection that never stood carried nothing.
    fn transport(error: &reqwest::Error, writes: bool) -> Self {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            why = inner.to_string();
            source = inner.source();
        }
        let unsent = error.is_connect() || error.is_builder();
        Answer::none(why, writes && !unsent)
    }

    /// What an HTTP answer says. Only a problem document with a known meaning tells that a write was not done: 4xx are
    /// refusals, of the log or of the edge before it; 429, 503 and 507 say that nothing was done (docs/api.md).
    fn answered(status: StatusCode, body: Value, writes: bool) -> Self {
        let code = body["code"].as_str().map(str::to_owned);
        let outcome = match (status, code.as_deref()) {
            (status, _) if status.is_success() => Outcome::Ok,
            _ if !writes => Outcome::Fail,
            (status, Some(_)) if status.is_client_error() => Outcome::Fail,
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE, Some(_))
            | (_, Some("command_poisonous")) => Outcome::Fail,
            _ => Outcome::Info,
        };
        let error =
            (outcome != Outcome::Ok).then(|| code.unwrap_or_else(|| format!("status {}", status.as_u16())));
        Answer {
            outcome,
            status: Some(status.as_u16()),
            revision: body["revision"].as_u64(),
            body,
            error,
        }
    }

    /// Whether the problem is this one.
    pub fn is(&self, code: &str) -> bool {
        self.error.as_deref() == Some(code)
    }

    /// Whether it took place.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// Reads of what does not exist take place too: their value is null.
    pub fn or_missing(mut self) -> Self {
        if self.is("not_found") {
            self.outcome = Outcome::Ok;
            self.body = Value::Null;
            self.error = None;
        }
        self
    }

    /// With what the workload makes of the body, where the demand took place.
    pub fn map(mut self, value: impl FnOnce(&Value) -> Value) -> Self {
        self.body = match self.outcome {
            Outcome::Ok => value(&self.body),
            Outcome::Fail | Outcome::Info => Value::Null,
        };
        self
    }

    /// Whether the node itself is why it did not take place, so that another one may do better.
    pub fn blames_node(&self) -> bool {
        !self.is_ok() && self.status.is_none_or(|status| status >= 500)
    }
}

#[cfg(test)]
mod tests;
