//! What nodes say of themselves.

use anyhow::Context;
use serde::Deserialize;
use std::time::Duration;

/// How long a node may take to answer. One that is paused takes for ever.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a node may take to change the cluster, or to say that it was not to be seen.
const CHANGE_PATIENCE: Duration = Duration::from_secs(12);

/// The cluster as one node sees it: what matters here of `GET /v1/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Its id among the members.
    pub node: u64,
    /// Whether it leads, follows, stands for election or learns.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// Whether it is in touch with a majority, or with a leader.
    pub healthy: bool,
    /// The last entry that it applied.
    pub applied: u64,
    /// The last entry of its newest snapshot.
    pub snapshot: u64,
    /// The first entry that is still in its log.
    pub first_log: u64,
    /// All members.
    pub members: Vec<Member>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    #[serde(default)]
    pub peer_address: String,
    /// Whether it votes.
    pub voter: bool,
}

impl Status {
    /// Whether `member` votes.
    pub fn votes(&self, member: u64) -> bool {
        self.members.iter().any(|known| known.id == member && known.voter)
    }
}

/// A request to change the cluster.
pub(super) struct Change {
    pub(super) method: reqwest::Method,
    pub(super) url: String,
    pub(super) body: Option<serde_json::Value>,
}

/// What came of a request to change the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<T> {
    /// It was done.
    Done(T),
    /// It was not done, because of this.
    Refused(String),
    /// It may have been done, or may yet be.
    Lost(String),
}

/// Asks nodes.
#[derive(Debug, Clone)]
pub(super) struct Ask(reqwest::Client);

impl Ask {
    pub(super) fn new() -> anyhow::Result<Ask> {
        // A connection to a node that was killed is of no use, and no proxy of the environment knows these addresses.
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Ask(client))
    }

    /// Whether `path` is answered with a success.
    pub(super) async fn succeeds(&self, http: &str, path: &str) -> bool {
        let asked = self.0.get(format!("{http}{path}")).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Makes a request that changes the cluster.
    pub(super) async fn change(&self, request: Change) -> Asked<serde_json::Value> {
        let Change { method, url, body } = request;
        let mut request = self.0.request(method, url).timeout(CHANGE_PATIENCE);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answered = match request.send().await {
            Ok(answered) => answered,
            Err(error) if error.is_connect() => return Asked::Refused(error.to_string()),
            Err(error) => return Asked::Lost(error.to_string()),
        };
        let status = answered.status();
        match answered.json::<serde_json::Value>().await {
            Ok(body) if status.is_success() => Asked::Done(body),
            Ok(problem) if status != reqwest::StatusCode::GATEWAY_TIMEOUT => {
                Asked::Refused(problem["detail"].as_str().unwrap_or_default().to_owned())
            }
            Ok(problem) => Asked::Lost(problem["detail"].to_string()),
            Err(error) => Asked::Lost(error.to_string()),
        }
    }

    /// How the node sees the cluster.
    pub(super) async fn status(&self, http: &str) -> anyhow::Result<Status> {
        let answer = self.0.get(format!("{http}/v1/cluster")).send().await?;
        let status = answer.error_for_status()?.json().await;
        status.context("a node answers what is no status")
    }
}
