//! What the leader does: one bounded step for each request, from where the membership stands.

use super::RETRY_PAUSE;
use super::roll::Roll;
use crate::engine::{Engine, Leadership};
use crate::peer::wire::{MemberAnswer, MemberRequest};
use crate::types::{PeerNode, TypeConfig, revision_of};
use onward_statemachine::NodeId;
use onward_statemachine::membership::ChangeRefusal;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Instant as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long a change of the membership may take to be committed.
const COMMIT_DEADLINE: Duration = Duration::from_secs(5);
/// How often a voter is asked to take over.
const TRANSFER_TRIES: usize = 4;
/// How often it is looked whether voters change with nobody to see it through.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

type Changes = ChangeMembers<u64, PeerNode>;
pub(super) type Step<T> = Result<T, MemberAnswer>;

const EARLIER_RELEASE: &str =
    "the node asks to be let in as an earlier release does: start it with the release that the members run";

impl From<ChangeRefusal> for MemberAnswer {
    fn from(refusal: ChangeRefusal) -> Self {
        MemberAnswer::Refused(refusal)
    }
}

impl Engine {
    /// Carries a request out here, on the leader.
    pub(crate) async fn change_members_here(self: &Arc<Self>, request: MemberRequest) -> MemberAnswer {
        if !self.leads() {
            return MemberAnswer::NotLeader;
        }
        let asked = format!("{request:?}");
        let done = match request {
            MemberRequest::Admit { http, .. } if !http.is_empty() => {
                Err(MemberAnswer::Failed(EARLIER_RELEASE.to_owned()))
            }
            MemberRequest::Admit {
                peer,
                cluster,
                replaces,
                ..
            } => self.admit(peer, &cluster, replaces).await,
            MemberRequest::Reserve { peer, cluster } => self.reserve(&peer, &cluster).await,
            MemberRequest::Enter {
                reserved,
                peer,
                http,
                replaces,
            } => self.enter(&reserved, PeerNode { peer, http }, replaces).await,
            MemberRequest::Promote { cluster, .. } if cluster != self.cluster_id() => {
                Err(self.stranger(cluster))
            }
            MemberRequest::Promote { id, replaces, .. } => {
                self.promote(id.0, replaces.map(|gone| gone.0)).await
            }
            MemberRequest::Remove { id } => self.remove(id.0).await,
            MemberRequest::Transfer { from, to } => self.transfer(from.0, to.map(|to| to.0)).await,
            MemberRequest::Known { id } if self.knows_log_of(id) => Ok(MemberAnswer::Done),
            MemberRequest::Known { id } => Err(MemberAnswer::Failed(format!("no log of node {id} is known"))),
            MemberRequest::Standing { id, cluster } => Ok(self.tell_standing(id, cluster)),
        };
        match &done {
            Ok(MemberAnswer::Following { .. } | MemberAnswer::Standing { .. })
            | Err(MemberAnswer::NotLeader) => {
                tracing::debug!(asked, answer = ?done, "a membership request");
            }
            Ok(answer) => tracing::info!(asked, ?answer, "a membership request is carried out"),
            Err(answer) => tracing::info!(asked, ?answer, "a membership request is not carried out"),
        }
        done.unwrap_or_else(|answer| answer)
    }

    /// Gives a learner its vote once it has caught up, in the place of `gone`.
    async fn promote(self: &Arc<Self>, id: u64, gone: Option<u64>) -> Step<MemberAnswer> {
        let roll = self.roll();
        if !roll.nodes.contains_key(&id) {
            return Err(MemberAnswer::NotMember);
        }
        let gone = gone.filter(|gone| *gone != id && roll.nodes.contains_key(gone));
        if roll.votes(id) && gone.is_none() && !roll.is_joint() {
            return Ok(MemberAnswer::Done);
        }
        if !roll.votes(id) && !self.catches_up(id).await {
            let lag = self.lag_of(id);
            return Ok(MemberAnswer::Following { lag });
        }
        if gone == Some(self.id()) {
            return self.resign().await;
        }
        let _alone = self.changing.lock().await;
        let wanted = self.judged(|roll| roll.with(id, gone)).await?;
        self.change(ChangeMembers::ReplaceAllVoters(wanted)).await?;
        Ok(MemberAnswer::Done)
    }

    /// Whether a learner gets all that the log has now before an election could be due.
    async fn catches_up(&self, id: u64) -> bool {
        let mut metrics = self.raft.metrics();
        let target = metrics.borrow_watched().last_log_index;
        let reached = async {
            loop {
                let matched = {
                    let metrics = metrics.borrow_watched();
                    metrics
                        .replication
                        .as_ref()
                        .and_then(|known| *known.get(&id)?)
                        .map(|matched| matched.index)
                };
                if matched.is_some() && matched >= target {
                    return true;
                }
                if metrics.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(self.timings.lease(), reached)
            .await
            .unwrap_or(false)
    }

    fn lag_of(&self, id: u64) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = (*metrics.replication.as_ref()?.get(&id)?)?;
        Some(metrics.last_log_index?.saturating_sub(matched.index))
    }

    /// Whether entries are known to have been in the log of `id`.
    fn knows_log_of(&self, id: NodeId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|known| known.get(&id.0));
        matched.is_some_and(|matched| matched.is_some())
    }

    /// Lets go of a member.
    async fn remove(self: &Arc<Self>, id: u64) -> Step<MemberAnswer> {
        let alone = self.changing.lock().await;
        let roll = self.roll();
        if !roll.nodes.contains_key(&id) {
            // One that was a member once is gone already, as was asked for.
            let never = id == 0 || id > self.highest_id();
            return if never {
                Err(roll.not_member(id).into())
            } else {
                Ok(MemberAnswer::Done)
            };
        }
        if !roll.votes(id) {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])))
                .await?;
            return Ok(MemberAnswer::Done);
        }
        let wanted = self.judged(|roll| roll.without(id)).await?;
        if id == self.id() {
            drop(alone);
            return self.resign().await;
        }
        // An initial member's id is known from the membership alone, and is not to be given out again.
        if self.last_id() < id {
            self.allocate(self.highest_id()).await?;
        }
        self.change(ChangeMembers::ReplaceAllVoters(wanted)).await?;
        Ok(MemberAnswer::Done)
    }

    /// Hands over, so that another leader does what was asked: one that leaves should not lead.
    async fn resign(self: &Arc<Self>) -> Step<MemberAnswer> {
        let heir = self.judged(|roll| roll.heir(None)).await?;
        match self.transfer_to(heir).await {
            Ok(()) => Err(MemberAnswer::NotLeader),
            Err(_) => Err(ChangeRefusal::NotTakenOver { id: NodeId(heir) }.into()),
        }
    }

    /// Hands leadership over, unless `from` has done so already.
    async fn transfer(self: &Arc<Self>, from: u64, to: Option<u64>) -> Step<MemberAnswer> {
        let me = self.id();
        if to == Some(me) || (from != me && to.is_none()) {
            return Ok(MemberAnswer::Leads { id: NodeId(me) });
        }
        let heir = self.judged(|roll| roll.heir(to)).await?;
        match self.transfer_to(heir).await {
            Ok(()) => Ok(MemberAnswer::Leads { id: NodeId(heir) }),
            Err(_) => Err(ChangeRefusal::NotTakenOver { id: NodeId(heir) }.into()),
        }
    }

    /// On the leader, the other voters, best first.
    pub(crate) fn heirs(&self) -> Vec<u64> {
        if self.leads() {
            self.roll().heirs()
        } else {
            Vec::new()
        }
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
                true = moved => {
                    self.rounds.handed_over();
                    return Ok(());
                }
                () = declined => {}
                () = tokio::time::sleep(self.timings.lease() * 2) => {}
            }
        }
        Err(format!("node {to} did not take over in time"))
    }

    /// Stays until the next leader has committed something, which goes faster with this node than without, though not for
    /// long.
    pub(crate) async fn see_heir_through(&self) {
        let mut metrics = self.raft.metrics();
        let committed = async {
            loop {
                let through = {
                    let metrics = metrics.borrow_watched();
                    let committed = metrics.cluster_committed.max(metrics.local_committed);
                    committed.is_some_and(|committed| committed.leader_id.term == metrics.current_term)
                };
                if through || metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(self.timings.lease(), committed)
            .await
            .is_err()
        {
            tracing::debug!("the next leader has not committed anything yet");
        }
    }

    /// Who belongs to the cluster, and who was well lately, as this leader knows it.
    pub(super) fn roll(&self) -> Roll {
        self.roll_since(self.timings.lease() * 2)
    }

    /// The same, with those as answering who answered what was sent within so long.
    fn roll_since(&self, age_max: Duration) -> Roll {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let answers = |id: &u64| {
            let heard = metrics.heartbeat.as_ref().and_then(|known| *known.get(id)?);
            heard.is_some_and(|heard| heard.into_inner().elapsed() < age_max)
        };
        let matched = |id: &u64| {
            let known = metrics.replication.as_ref().and_then(|known| *known.get(id)?);
            known.map(|matched| matched.index)
        };
        Roll {
            me: self.id(),
            revision: revision_of(metrics.membership_config.log_id().as_ref()).0,
            nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
            voters: membership.get_joint_config().clone(),
            answering: membership
                .nodes()
                .map(|(id, _)| *id)
                .filter(|id| *id == self.id() || answers(id))
                .collect(),
            matched: membership.nodes().map(|(id, _)| (*id, matched(id))).collect(),
            target: metrics.last_log_index.unwrap_or(0),
        }
    }

    /// Judges by the rules, and by who answers from now on: what was heard before says little of a node that has just died,
    /// and a change that needs it would block everything. So would one that needs a node which lacks much of the log, so that
    /// it is waited for a little who gets all that there is now.
    async fn judged<T>(&self, judge: impl Fn(&Roll) -> Result<T, ChangeRefusal>) -> Step<T> {
        let began = Instant::now();
        let until = began + self.timings.lease() * 3;
        // What comes meanwhile is not asked for: under load there is always something on its way.
        let target = self.roll().target;
        loop {
            let roll = Roll {
                target,
                ..self.roll_since(began.elapsed())
            };
            let refusal = match judge(&roll) {
                Ok(fine) => return Ok(fine),
                Err(refusal) => refusal,
            };
            if !self.leads() {
                return Err(MemberAnswer::NotLeader);
            }
            let passing = matches!(
                refusal,
                ChangeRefusal::QuorumLost { .. }
                    | ChangeRefusal::Behind { .. }
                    | ChangeRefusal::Silent { .. }
                    | ChangeRefusal::NoHeir { .. }
                    | ChangeRefusal::Voting
            );
            if !passing || Instant::now() >= until {
                return Err(refusal.into());
            }
            // Whoever is there answers it.
            let asked = self.raft.trigger().heartbeat().await;
            asked.map_err(|error| MemberAnswer::Failed(error.to_string()))?;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Changes the membership; returns once it is committed.
    pub(super) async fn change(&self, changes: Changes) -> Step<()> {
        let change = self.raft.change_membership(changes, false);
        match tokio::time::timeout(COMMIT_DEADLINE, change).await {
            Ok(changed) => committed(changed),
            Err(_) => Err(MemberAnswer::Unknown),
        }
    }

    /// Sees a change of the voters through whose leader died in the middle. Until then, a majority of both the old
    /// voters and the new ones would be needed for everything.
    pub(crate) async fn settle_voters(self: Arc<Self>) {
        let waits = || tokio::time::sleep(SETTLE_INTERVAL);
        while self.token().run_until_cancelled(waits()).await.is_some() {
            if !self.leads() || !self.roll().is_joint() {
                continue;
            }
            // One that is under way here is none of those.
            let _alone = self.changing.lock().await;
            if self.leads() && self.roll().is_joint() {
                let settled = self.change(ChangeMembers::AddVoterIds(BTreeSet::new())).await;
                tracing::info!(?settled, "saw a change of the voters through");
            }
        }
    }

    /// A node of another cluster took this one for one of its own.
    fn stranger(&self, cluster: Uuid) -> MemberAnswer {
        let ours = self.cluster_id();
        MemberAnswer::Failed(format!("this is a member of cluster {ours}, not of {cluster}"))
    }

    /// Answers a node that asks whether it still belongs.
    pub(crate) fn tell_standing(&self, id: NodeId, cluster: Uuid) -> MemberAnswer {
        if cluster == self.cluster_id() {
            self.standing_of(id)
        } else {
            self.stranger(cluster)
        }
    }

    /// Whether `id` belongs to the cluster, as of the last change that this node has applied.
    pub(crate) fn standing_of(&self, id: NodeId) -> MemberAnswer {
        match self.state.membership() {
            Ok(applied) => MemberAnswer::Standing {
                revision: revision_of(applied.log_id().as_ref()),
                member: applied.membership().get_node(&id.0).is_some(),
            },
            Err(error) => MemberAnswer::Failed(error.to_string()),
        }
    }
}

/// What the engine below makes of a change.
fn committed(
    changed: Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
) -> Step<()> {
    let error = match changed {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    Err(match &error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MemberAnswer::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(
            _,
        ))) => ChangeRefusal::Voting.into(),
        _ => MemberAnswer::Failed(error.to_string()),
    })
}
