//! The client library: every route as a method, over any number of servers.
//!
//! A request goes to one server after another until one answers. Writes carry an `Idempotency-Key` that stays the same
//! over all tries, so that a write is done once however often it is sent; when no try brought an answer and one may
//! have arrived, the error is [`Error::OutcomeUnknown`] and never a plain failure. Streams come back after a broken
//! connection where they left off.
//!
//! Never retries what was refused, and never follows anything but the list of servers that it was given.

mod download;
mod error;
mod path;
mod routes;
mod send;
mod stream;

pub use download::Download;
pub use error::Error;
pub use reqwest::Url;
pub use stream::Stream;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// How fresh the reads of a client are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// They see every write that was acknowledged anywhere before.
    #[default]
    Linearizable,
    /// They see whatever the server that is asked has applied.
    Local,
    /// They see at least this revision.
    AtLeast(u64),
}

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paging {
    /// The most items; the server's default where it is missing.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
}

/// Which part of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalRange {
    /// After this revision; from the beginning of what is kept without it.
    pub after: Option<u64>,
    /// Before this revision.
    pub before: Option<u64>,
    /// The newest of these, and not the oldest.
    pub newest: bool,
    /// Only of these areas, of which there are none for all.
    pub areas: Vec<String>,
}

/// A client of a cluster. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    servers: Arc<[Url]>,
    /// The server that answered last.
    preferred: Arc<AtomicUsize>,
    actor: Option<String>,
    deadline: Duration,
    consistency: Consistency,
    at: Option<u64>,
}

/// How long a request may take over all its tries, unless said otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

impl Client {
    /// A client of the cluster behind these servers, of which one is enough and all are better.
    pub fn new(among: Vec<Url>) -> Result<Self, Error> {
        let servers = servers(among)?;
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| Error::Usage(format!("the HTTP client does not start: {error}")))?;
        Ok(Client {
            http,
            servers,
            preferred: Arc::default(),
            actor: None,
            deadline: DEADLINE_DEFAULT,
            consistency: Consistency::default(),
            at: None,
        })
    }

    /// With this deadline for a request over all its tries.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// In the name of `actor`, which the journal shows.
    #[must_use]
    pub fn with_actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// With reads as of this revision; `None` for the present. Everything but a read is refused then.
    #[must_use]
    pub fn as_of(mut self, at: Option<u64>) -> Self {
        self.at = at;
        self
    }

    /// With reads of this freshness.
    #[must_use]
    pub fn with_consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// A client of this server alone, otherwise the same.
    pub fn of(&self, server: Url) -> Result<Self, Error> {
        Ok(Client {
            servers: servers(vec![server])?,
            preferred: Arc::default(),
            ..self.clone()
        })
    }

    /// How fresh its reads are.
    pub fn consistency(&self) -> Consistency {
        self.consistency
    }
}

/// At least one, and all of them such as can be asked.
fn servers(servers: Vec<Url>) -> Result<Arc<[Url]>, Error> {
    if servers.is_empty() {
        return Err(Error::Usage("no server is given".to_owned()));
    }
    if let Some(server) = servers.iter().find(|server| server.scheme() != "http") {
        return Err(Error::Usage(format!("server `{server}` is not an `http://` URL")));
    }
    Ok(servers.into())
}
