//! Who belongs to the cluster: adding, replacing and removing members, handing leadership over.
//!
//! # How a node comes to vote
//! It reserves an id that no node ever had ([`MemberRequest::Reserve`]) and writes it down. It is let in under that id
//! ([`MemberRequest::Enter`]), and is a learner from then on. Then it runs, follows, and asks for its vote again and again
//! ([`MemberRequest::Promote`]), which it gets once it has caught up; who is replaced goes in the same step. A node that is
//! started with `join` asks for all of that by itself. An operator may keep a place for it before, by its address
//! ([`MemberRequest::Admit`]); the first node that then asks from there claims the place.
//!
//! # What keeps it safe and boring
//! - The leader keeps nothing in mind about a change: each request is one bounded step from where the membership
//!   stands, and repeating one is harmless. So whoever dies in the middle, asking again goes on from there; and nobody
//!   waits for a leader that is silent longer than for any other request.
//! - Members change one at a time, and only to voters of whom a majority answers and has caught up ([`roll`]). There is
//!   no way to force it: what no majority agrees on is never committed, and would only block the leader.
//! - An id belongs to one log for ever. A node whose data is gone comes back under a new one; a member that was let go
//!   of stops ([`standing`]).

mod admit;
mod join;
mod reservation;
mod roll;
mod standing;
mod steps;

pub(crate) use join::{establish, form_or_join};
pub(crate) use reservation::Reservation;
pub use standing::Removal;
pub(crate) use standing::Standing;

use crate::engine::Engine;
use crate::peer::channel::CallError;
use crate::peer::frame::Lane;
use crate::peer::wire::{MemberAnswer, MemberRequest, kind};
use crate::types::PeerNode;
use onward_statemachine::codec;
use onward_statemachine::membership::{Change, ChangeError, Changed};
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one request may take at the leader, and so how long one that is silent is waited for.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// How long a request of another node is carried around until a leader takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// Carries a request out on whoever leads, trying again until `until`.
    pub(crate) async fn change_members(
        self: &Arc<Self>,
        request: MemberRequest,
        until: Instant,
    ) -> MemberAnswer {
        let mut lost_sight = false;
        loop {
            let answer = match self.leader() {
                Some((leader, _)) if leader == self.id() => self.change_members_here(request.clone()).await,
                Some((leader, node)) => self.ask_leader_to(leader, &node, &request, until).await,
                None => MemberAnswer::NotLeader,
            };
            lost_sight |= answer == MemberAnswer::Unknown;
            let done = !matches!(answer, MemberAnswer::NotLeader | MemberAnswer::Unknown);
            if done {
                return answer;
            }
            if Instant::now() + RETRY_PAUSE >= until {
                return if lost_sight { MemberAnswer::Unknown } else { answer };
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn ask_leader_to(
        self: &Arc<Self>,
        leader: u64,
        node: &PeerNode,
        request: &MemberRequest,
        until: Instant,
    ) -> MemberAnswer {
        let channel = self.peers.channel(leader, node, Lane::Forward);
        let body = codec::encode(request);
        let patience = CALL_DEADLINE.min(until.saturating_duration_since(Instant::now()));
        let mut leadership = self.watch_leadership();
        let moved = leadership.wait_for(|now| now.leader.as_ref().map(|now| now.0) != Some(leader));
        let called = tokio::select! {
            biased;
            called = channel.call(kind::MEMBER, &body, patience) => called,
            // Another one leads: one that hangs is not waited for.
            _ = moved => return MemberAnswer::Unknown,
        };
        match called {
            Ok(body) => codec::decode(&body).unwrap_or_else(|error| MemberAnswer::Failed(error.to_string())),
            Err(CallError::Failed(reason)) => MemberAnswer::Failed(reason),
            Err(error) => {
                tracing::debug!(leader, %error, "a membership request did not come back from the leader");
                match error {
                    CallError::NotSent(_) => MemberAnswer::NotLeader,
                    _ => MemberAnswer::Unknown,
                }
            }
        }
    }

    /// Has a change made that a caller of this process asks for.
    pub(crate) async fn make_change(
        self: &Arc<Self>,
        change: Change,
        deadline_ms: u64,
    ) -> Result<Changed, ChangeError> {
        let until = Instant::now() + Duration::from_millis(deadline_ms);
        let (request, what) = match change {
            Change::Add {
                peer_address,
                replaces,
            } => {
                let what = format!("the node at {peer_address} was not seen to be let in");
                let request = MemberRequest::Admit {
                    peer: peer_address,
                    http: String::new(),
                    cluster: self.identity.cluster_name.clone(),
                    replaces,
                };
                (request, what)
            }
            Change::Remove { id } => {
                let what = format!("node {id} was not seen to leave");
                (MemberRequest::Remove { id }, what)
            }
            Change::Transfer { to } => {
                let from = self.leader_until(until).await.ok_or(ChangeError::NoLeader)?;
                let what = format!("nobody was seen to take over from node {from}");
                let from = onward_statemachine::NodeId(from);
                (MemberRequest::Transfer { from, to }, what)
            }
        };
        let answered = tokio::time::timeout_at(until, self.change_members(request.clone(), until)).await;
        match answered {
            Ok(MemberAnswer::Admitted {
                id,
                cluster_name,
                through,
                ..
            }) => Ok(Changed::Admitted {
                id,
                through,
                cluster_name,
            }),
            Ok(MemberAnswer::Leads { id }) => Ok(Changed::Leads { id }),
            Ok(MemberAnswer::Done) => match request {
                MemberRequest::Remove { id } => Ok(Changed::Removed { id }),
                _ => Err(ChangeError::Unknown(what)),
            },
            Ok(MemberAnswer::Refused(refusal)) => Err(ChangeError::Refused(refusal)),
            Ok(MemberAnswer::NotLeader) => Err(ChangeError::NoLeader),
            Ok(MemberAnswer::Failed(reason)) => Err(ChangeError::Unknown(format!("{what}: {reason}"))),
            Ok(_) | Err(_) => Err(ChangeError::Unknown(what)),
        }
    }

    /// Who leads, once somebody does.
    async fn leader_until(&self, until: Instant) -> Option<u64> {
        let mut leadership = self.watch_leadership();
        let led = leadership.wait_for(|now| now.leader.is_some());
        let found = tokio::time::timeout_at(until, led).await.ok()?.ok()?;
        found.leader.as_ref().map(|leader| leader.0)
    }

    /// All voters.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// All members, with where they are.
    pub(crate) fn members(&self) -> Vec<(u64, PeerNode)> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.nodes().map(|(id, node)| (*id, node.clone())).collect()
    }
}
