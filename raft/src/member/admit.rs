//! How the leader lets nodes in: those that ask themselves, and those that an operator keeps a place for.

use super::reservation::Reservation;
use super::roll::{Entry, Place, Roll};
use super::steps::Step;
use crate::engine::Engine;
use crate::peer::wire::MemberAnswer;
use crate::types::{PeerNode, revision_of};
use onward_statemachine::membership::ChangeRefusal;
use onward_statemachine::ports::{Proposal, Proposer};
use onward_statemachine::{Actor, Command, NodeId, Outcome, Reply, Revision, system};
use openraft::ChangeMembers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ALLOCATE_DEADLINE_MS: u64 = 3_000;

impl Engine {
    /// Lets in a node that an operator speaks for, and that has yet to come.
    pub(super) async fn admit(
        self: &Arc<Self>,
        peer: String,
        cluster: &str,
        replaces: Option<NodeId>,
    ) -> Step<MemberAnswer> {
        self.meant(cluster)?;
        let _alone = self.changing.lock().await;
        let roll = self.settled_roll()?;
        let id = match roll.place(&peer, replaces.map(|gone| gone.0))? {
            Place::Kept(id) => id,
            Place::New => {
                let id = self.allocate(self.highest_id()).await?;
                let http = String::new();
                let node = PeerNode {
                    peer: peer.clone(),
                    http,
                };
                self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, node)])))
                    .await?;
                id
            }
        };
        Ok(self.admitted(&roll, id, &peer))
    }

    /// Gives the node at an address an id to ask with: that of the place that is kept for it, or one that no node ever had.
    pub(super) async fn reserve(self: &Arc<Self>, peer: &str, cluster: &str) -> Step<MemberAnswer> {
        self.meant(cluster)?;
        // A place that was claimed through an earlier leader is not to be taken for free: its node may have had a log since.
        let led = self.read_index_here().await;
        led.map_err(|_| MemberAnswer::NotLeader)?;
        let roll = self.settled_roll()?;
        let id = match roll.kept_at(peer) {
            Some(id) => id,
            None => self.allocate(self.highest_id()).await?,
        };
        Ok(MemberAnswer::Reserved(Reservation {
            id: NodeId(id),
            cluster: self.cluster_id(),
            as_of: Revision(roll.revision),
        }))
    }

    /// Lets in a node that has reserved an id.
    pub(super) async fn enter(
        self: &Arc<Self>,
        reserved: &Reservation,
        node: PeerNode,
        replaces: Option<NodeId>,
    ) -> Step<MemberAnswer> {
        if reserved.cluster != self.cluster_id() {
            return Ok(MemberAnswer::Outdated);
        }
        let _alone = self.changing.lock().await;
        let roll = self.settled_roll()?;
        let (id, peer) = (reserved.id.0, node.peer.clone());
        match roll.entry(reserved, &peer, replaces.map(|gone| gone.0))? {
            Entry::Outdated => return Ok(MemberAnswer::Outdated),
            Entry::Standing => {}
            Entry::Claim => {
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])))
                    .await?;
            }
            Entry::New { former } => {
                let forget = former.map(|former| ChangeMembers::RemoveNodes(BTreeSet::from([former])));
                let add = ChangeMembers::AddNodes(BTreeMap::from([(id, node)]));
                self.change(ChangeMembers::Batch(forget.into_iter().chain([add]).collect()))
                    .await?;
            }
        }
        Ok(self.admitted(&roll, id, &peer))
    }

    /// That `id` is let in at an address.
    fn admitted(&self, roll: &Roll, id: u64, peer: &str) -> MemberAnswer {
        let here = roll.nodes.get(&self.id()).cloned();
        MemberAnswer::Admitted {
            id: NodeId(id),
            cluster_id: self.cluster_id(),
            cluster_name: self.identity.cluster_name.clone(),
            // At or after the entry that let it in.
            revision: self.state.applied(),
            through: here.map(|node| node.peer).unwrap_or_default(),
            replaces: roll.voter_at(peer).filter(|there| *there != id).map(NodeId),
        }
    }

    /// Refuses what is meant for a cluster of another name.
    fn meant(&self, wanted: &str) -> Step<()> {
        let name = self.identity.cluster_name.clone();
        if wanted == name {
            return Ok(());
        }
        let wanted = wanted.to_owned();
        Err(ChangeRefusal::OtherCluster { name, wanted }.into())
    }

    /// Who belongs to the cluster once nothing of it is uncommitted: what is, may never have been.
    fn settled_roll(&self) -> Step<Roll> {
        let roll = self.roll();
        match self.state.membership() {
            Ok(applied) if revision_of(applied.log_id().as_ref()).0 == roll.revision => Ok(roll),
            Ok(_) => Err(MemberAnswer::Unknown),
            Err(error) => Err(MemberAnswer::Failed(error.to_string())),
        }
    }

    /// Gives out an id above all that were ever given out.
    pub(super) async fn allocate(self: &Arc<Self>, above: u64) -> Step<u64> {
        let command = Command::System(system::Command::AllocateNodeId { above: NodeId(above) });
        let proposal = Proposal::new(Actor::new("raft:membership"), command);
        let proposer = crate::propose::NodeProposer(self.clone());
        match proposer.propose(proposal, ALLOCATE_DEADLINE_MS).await {
            Ok(Outcome::Accepted {
                reply: Reply::System(system::Reply::NodeId(id)),
                ..
            }) => Ok(id.0),
            Ok(outcome) => {
                let reason = format!("no node id was given out: {outcome:?}");
                Err(MemberAnswer::Failed(reason))
            }
            // Nothing is lost with an id that nobody took.
            Err(_) => Err(MemberAnswer::NotLeader),
        }
    }

    /// The highest id that is known to have been taken.
    pub(super) fn highest_id(&self) -> u64 {
        let members = self.members().into_iter().map(|(id, _)| id);
        members.max().unwrap_or(0).max(self.last_id())
    }

    pub(super) fn last_id(&self) -> u64 {
        self.state.read(|view| system::last_node_id(view)).0
    }
}
