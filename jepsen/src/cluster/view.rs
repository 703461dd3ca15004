//! What is to be seen of nodes.

use super::ask::Status;
use super::config::Membership;
use super::{Cluster, Node, POLL};
use anyhow::bail;
use futures::future::join_all;
use std::time::{Duration, Instant};

/// How much of a node's log is shown where it did not start.
const LOG_LINES: usize = 15;

impl Cluster {
    /// Whether the member of a node votes, and the one that it replaced is gone, as the leader sees it.
    pub async fn is_settled(&self, id: u64) -> bool {
        let Some(leader) = self.leader().await else {
            return false;
        };
        let (Ok(here), Ok(known)) = (self.status(id).await, self.status(leader).await) else {
            return false;
        };
        let mut slot = self.slot(id).await;
        if let Membership::Joins {
            replaces: Some(replaces),
            ..
        } = slot.membership
            && known.members.iter().any(|member| member.id == replaces)
        {
            return false;
        }
        slot.member = here.node;
        known.votes(here.node)
    }

    /// Who votes in a place, by its id in the cluster, as the leader sees it.
    pub async fn voter_in(&self, id: u64) -> Option<u64> {
        let front = self.network.addresses(id).front.to_string();
        let known = self.status(self.leader().await?).await.ok()?;
        let here = |member: &&super::Member| member.voter && member.peer_address == front;
        known.members.iter().find(here).map(|member| member.id)
    }

    /// How a node sees the cluster.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn status(&self, id: u64) -> anyhow::Result<Status> {
        self.ask.status(&self.node(id).http).await
    }

    /// The node that leads, as it says itself; the one of the highest term where two say so.
    pub async fn leader(&self) -> Option<u64> {
        let asked = self.ids().into_iter().map(|id| async move {
            // One that is paused would be waited for in vain.
            if !self.is_running(id).await.unwrap_or(false) {
                return None;
            }
            let status = self.status(id).await.ok()?;
            (status.role == "leader").then_some((status.term, id))
        });
        let leaders = join_all(asked).await.into_iter().flatten();
        leaders.max().map(|(_, id)| id)
    }

    /// Whether a node answers at all.
    pub async fn answers(&self, id: u64) -> bool {
        self.ask.succeeds(&self.node(id).http, "/healthz").await
    }

    /// Waits until every node serves: it knows a leader and applies entries.
    ///
    /// # Errors
    /// Where one does not in time, or its process ends.
    pub async fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        for node in &self.nodes {
            while !self.ask.succeeds(&node.http, "/readyz").await {
                let gone = !self.is_up(node.id).await?;
                if gone || Instant::now() > deadline {
                    let what = if gone { "ended" } else { "does not serve" };
                    bail!("node {} {what}:\n{}", node.id, last_words(node));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// The end of a node's log.
pub fn last_words(node: &Node) -> String {
    let text = std::fs::read_to_string(node.dir.join("onward.log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
