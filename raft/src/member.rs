//! Who belongs to the cluster: adding, replacing and removing members, handing leadership over.
//!
//! A new member gets an id that no node ever had, follows as a learner until it has caught up, and only then votes. A
//! node whose data is gone comes back as a new member that replaces the old one: an id belongs to one log for ever.

use crate::engine::{Engine, Leadership};
use crate::peer::frame::Lane;
use crate::peer::wire::{MemberAnswer, MemberRequest, kind};
use crate::types::PeerNode;
use onward_statemachine::ports::{Proposal, Proposer};
use onward_statemachine::{Actor, Command, NodeId, Outcome, Reply, codec, system};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a change of the membership may take, a snapshot for the new member included.
const CHANGE_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// How long a leader is looked for.
const LEADER_DEADLINE: Duration = Duration::from_secs(15);
/// How often a voter is asked to take over.
const TRANSFER_TRIES: usize = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const ALLOCATE_DEADLINE_MS: u64 = 10_000;

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Nobody leads, or the leader cannot be reached.
    #[error("no leader is known: a majority of the members must be up and reach each other")]
    NoLeader,
    /// The leader could not do it.
    #[error("{0}")]
    Failed(String),
}

impl Engine {
    /// Carries a request out on whoever leads.
    pub(crate) async fn change_members(self: &Arc<Self>, request: MemberRequest) -> MemberAnswer {
        let until = Instant::now() + LEADER_DEADLINE;
        loop {
            let answer = match self.leader() {
                Some((leader, _)) if leader == self.id() => self.change_members_here(request.clone()).await,
                Some((leader, node)) => {
                    let channel = self.peers.channel(leader, &node, Lane::Forward);
                    let body = codec::encode(&request);
                    match channel.call(kind::MEMBER, &body, CHANGE_DEADLINE).await {
                        Ok(body) => codec::decode(&body)
                            .unwrap_or_else(|error| MemberAnswer::Failed(error.to_string())),
                        Err(error) => {
                            tracing::debug!(leader, %error, "a membership request did not reach the leader");
                            MemberAnswer::NotLeader
                        }
                    }
                }
                None => MemberAnswer::NotLeader,
            };
            if answer != MemberAnswer::NotLeader || Instant::now() >= until {
                return answer;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Carries a request out here, on the leader. Repeating one is harmless.
    pub(crate) async fn change_members_here(self: &Arc<Self>, request: MemberRequest) -> MemberAnswer {
        if !self.leads() {
            return MemberAnswer::NotLeader;
        }
        tracing::info!(?request, "changing the membership");
        let done = match request {
            MemberRequest::Allocate => return self.allocate().await,
            MemberRequest::Promote {
                id,
                peer,
                http,
                replaces,
            } => self.promote(id, PeerNode { peer, http }, replaces).await,
            MemberRequest::Remove { id } => self.remove(id).await,
            MemberRequest::Transfer { to } => self.transfer_to(to.0).await,
            MemberRequest::Known { id } if self.knows_log_of(id) => Ok(()),
            MemberRequest::Known { id } => Err(format!("no log of node {id} is known")),
        };
        match done {
            Ok(()) => MemberAnswer::Done,
            Err(reason) => {
                tracing::warn!(%reason, "the membership was not changed");
                MemberAnswer::Failed(reason)
            }
        }
    }

    async fn allocate(self: &Arc<Self>) -> MemberAnswer {
        let highest = self.members().into_iter().max().unwrap_or(self.id());
        let command = Command::System(system::Command::AllocateNodeId {
            above: NodeId(highest),
        });
        let proposal = Proposal::new(Actor::new("raft:membership"), command);
        let proposer = crate::propose::NodeProposer(self.clone());
        match proposer.propose(proposal, ALLOCATE_DEADLINE_MS).await {
            Ok(Outcome::Accepted {
                reply: Reply::System(system::Reply::NodeId(id)),
                ..
            }) => MemberAnswer::Allocated {
                id,
                cluster_id: self.cluster_id(),
                cluster_name: self.identity.cluster_name.clone(),
            },
            Ok(outcome) => MemberAnswer::Failed(format!("no node id was given out: {outcome:?}")),
            Err(error) => MemberAnswer::Failed(error.to_string()),
        }
    }

    async fn promote(&self, id: NodeId, node: PeerNode, replaces: Option<NodeId>) -> Result<(), String> {
        let voters = self.voters();
        let gone = replaces.filter(|gone| self.members().contains(&gone.0));
        if voters.contains(&id.0) && gone.is_none() {
            return Ok(());
        }
        if !voters.contains(&id.0) {
            let learner = self.raft.add_learner(id.0, node, true);
            in_time(learner).await?;
        }
        let mut wanted = voters;
        wanted.insert(id.0);
        if let Some(gone) = gone {
            wanted.remove(&gone.0);
        }
        in_time(
            self.raft
                .change_membership(ChangeMembers::ReplaceAllVoters(wanted), false),
        )
        .await
    }

    /// Whether entries are known to have been in the log of `id`.
    fn knows_log_of(&self, id: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|known| known.get(&id.0));
        matched.is_some_and(|matched| matched.is_some())
    }

    async fn remove(&self, id: NodeId) -> Result<(), String> {
        let mut voters = self.voters();
        if voters.remove(&id.0) {
            if voters.is_empty() {
                return Err(format!("node {id} is the only voter and cannot be removed"));
            }
            in_time(
                self.raft
                    .change_membership(ChangeMembers::ReplaceAllVoters(voters), false),
            )
            .await?;
        }
        if self.members().contains(&id.0) {
            let learner = ChangeMembers::RemoveNodes(BTreeSet::from([id.0]));
            in_time(self.raft.change_membership(learner, false)).await?;
        }
        Ok(())
    }

    /// Hands leadership over and waits until this node no longer leads.
    pub(crate) async fn transfer_to(&self, to: u64) -> Result<(), String> {
        if to == self.id() {
            return Ok(());
        }
        if !self.voters().contains(&to) {
            return Err(format!("node {to} is not a voter"));
        }
        let me = self.id();
        let mut leadership = self.watch_leadership();
        // One that has not caught up declines, and is asked again.
        for _ in 0..TRANSFER_TRIES {
            let declined = self.peers.declined.notified();
            let transferred = self.raft.trigger().transfer_leader(to).await;
            transferred.map_err(|error| error.to_string())?;
            let elsewhere = |now: &Leadership| now.leader.as_ref().is_some_and(|leader| leader.0 != me);
            let moved = async { leadership.wait_for(elsewhere).await.is_ok() };
            let declined = async {
                declined.await;
                tokio::time::sleep(RETRY_PAUSE).await;
            };
            tokio::select! {
                biased;
                true = moved => return Ok(()),
                () = declined => {}
                () = tokio::time::sleep(self.timings.lease() * 2) => {}
            }
        }
        Err(format!("node {to} did not take over in time"))
    }

    /// All voters.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// All members.
    pub(crate) fn members(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.nodes().map(|(id, _)| *id).collect()
    }
}

async fn in_time<T, E: std::fmt::Display>(change: impl Future<Output = Result<T, E>>) -> Result<(), String> {
    match tokio::time::timeout(CHANGE_DEADLINE, change).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the change did not finish in time".to_owned()),
    }
}

/// What a request came to, for a caller in this process.
pub(crate) fn outcome_of(answer: MemberAnswer) -> Result<(), MemberError> {
    match answer {
        MemberAnswer::Done | MemberAnswer::Allocated { .. } => Ok(()),
        MemberAnswer::NotLeader => Err(MemberError::NoLeader),
        MemberAnswer::Failed(reason) => Err(MemberError::Failed(reason)),
    }
}
