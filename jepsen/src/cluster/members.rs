//! What is asked of the cluster about its members: to let one go, to let one in, to hand over.

use super::Cluster;
use super::ask::{Asked, Change};
use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

impl Cluster {
    /// Asks some node that runs, but not this one, to change the cluster.
    async fn ask_for(
        &self,
        but: Option<u64>,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> Asked<serde_json::Value> {
        for id in self.ids() {
            if Some(id) != but && self.is_running(id).await.unwrap_or(false) {
                let url = format!("{}{path}", self.node(id).http);
                return self.ask.change(Change { method, url, body }).await;
            }
        }
        Asked::Refused("nobody runs who could be asked".to_owned())
    }

    /// Who serves in a place, by its id in the cluster, as it says itself.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn member_in(&self, id: u64) -> anyhow::Result<u64> {
        Ok(self.status(id).await?.node)
    }

    /// Hands leadership over: to whom is in this place, or to the best. Who leads then, by its id in the cluster.
    ///
    /// # Errors
    /// Where who is in that place does not say who it is.
    pub async fn transfer(&self, to: Option<u64>) -> anyhow::Result<Asked<u64>> {
        let to = match to {
            Some(place) => Some(self.member_in(place).await?),
            None => None,
        };
        let asked = self
            .ask_for(
                None,
                Method::POST,
                "/v1/cluster/transfer",
                Some(json!({"to": to})),
            )
            .await;
        Ok(match asked {
            Asked::Done(leader) => Asked::Done(leader["leader"].as_u64().unwrap_or_default()),
            Asked::Refused(why) => Asked::Refused(why),
            Asked::Lost(why) => Asked::Lost(why),
        })
    }

    /// Lets go of the member in a place, whose id in the cluster that is.
    pub async fn remove(&self, id: u64, member: u64) -> Asked<()> {
        let path = format!("/v1/cluster/members/{member}");
        match self.ask_for(Some(id), Method::DELETE, &path, None).await {
            Asked::Done(_) => Asked::Done(()),
            Asked::Refused(why) => Asked::Refused(why),
            Asked::Lost(why) => Asked::Lost(why),
        }
    }

    /// Whether the leader counts who is in a place among the members; `None` where nobody says.
    pub async fn is_member(&self, member: u64) -> Option<bool> {
        let known = self.status(self.leader().await?).await.ok()?;
        Some(known.members.iter().any(|known| known.id == member))
    }

    /// Wipes a node that does not run and is no member, and starts it as a new one.
    ///
    /// # Errors
    /// Where it runs, no other node does, or it cannot be started.
    pub async fn join_anew(&self, id: u64) -> anyhow::Result<()> {
        ensure!(
            !self.is_up(id).await?,
            "node {id} runs: its disk is not wiped under it"
        );
        self.begin_anew(id, None).await
    }
}
