//! Changes of who belongs to the cluster and of who leads it, as the ports speak of them.
//!
//! Nothing here enters the log: the engine has entries of its own for it. What is serialized travels between nodes only.

use crate::ids::NodeId;
use serde::{Deserialize, Serialize};

/// A change that is asked for. Asking again for what is done already is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Let the node that will run at an address join: it follows as a learner, and votes once it has caught up.
    Add {
        /// Where its peers will reach it, `host:port`.
        peer_address: String,
        /// The member that leaves in the same step in which it gets its vote.
        replaces: Option<NodeId>,
    },
    /// Let go of a member, for good: its id is never given out again.
    Remove {
        /// Which.
        id: NodeId,
    },
    /// Make another voter the leader.
    Transfer {
        /// Which; who has most of the log where it is not said.
        to: Option<NodeId>,
    },
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A node may start at the address that was named.
    Admitted {
        /// Its id.
        id: NodeId,
        /// The peer address of a member that it can join through.
        through: String,
        /// The name of the cluster.
        cluster_name: String,
    },
    /// The node is no member.
    Removed {
        /// Which.
        id: NodeId,
    },
    /// This node leads.
    Leads {
        /// Which.
        id: NodeId,
    },
}

/// Why a change was not made, though there is a leader. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ChangeRefusal {
    /// There is no such member.
    #[error("node {id} is not a member; the members are {}", listed(.members))]
    NotMember {
        /// Asked for.
        id: NodeId,
        /// All there are.
        members: Vec<NodeId>,
    },
    /// A cluster without voters is none.
    #[error("node {id} is the only voter, and nothing can be written without one: add another node first")]
    LastVoter {
        /// Which.
        id: NodeId,
    },
    /// No majority would be left.
    #[error(
        "the voters would be {}, and of these {} do not answer: no majority would be left and nothing could be written any \
         more. Start them again, or remove or replace them first",
        listed(.voters), listed(.silent)
    )]
    QuorumLost {
        /// Who would vote.
        voters: Vec<NodeId>,
        /// Who of them does not answer the leader.
        silent: Vec<NodeId>,
    },
    /// A node is on its way to a vote.
    #[error(
        "node {id} is being added, and members change one at a time: wait until it votes (`onward cluster status` shows how \
         far it is), or give it up with `onward cluster remove {id}`"
    )]
    Joining {
        /// Which.
        id: NodeId,
    },
    /// The voters are changing.
    #[error("the voters are changing this moment, and members change one at a time: try again")]
    Voting,
    /// One address belongs to one member.
    #[error(
        "node {id} is at {address} already, and one address belongs to one member. If its disk is lost, replace it: with \
         `onward cluster replace {id} {address}`, or by starting the new node with `--replaces {id}`"
    )]
    AddressTaken {
        /// Asked for.
        address: String,
        /// Whose it is.
        id: NodeId,
    },
    /// The node belongs to another cluster.
    #[error("this is cluster `{name}`, and the node was started for cluster `{wanted}`")]
    OtherCluster {
        /// The name of this one.
        name: String,
        /// The name of the other.
        wanted: String,
    },
    /// A learner cannot lead.
    #[error("node {id} has no vote yet and cannot lead: wait until it has caught up")]
    NotVoter {
        /// Which.
        id: NodeId,
    },
    /// Nobody is there who could lead.
    #[error("nobody could take over from node {id}: no other voter answers")]
    NoHeir {
        /// Who leads.
        id: NodeId,
    },
    /// Who should lead does not answer.
    #[error(
        "node {id} does not answer the leader and cannot take over: look whether it runs, or name another voter"
    )]
    Silent {
        /// Which.
        id: NodeId,
    },
    /// Who should lead did not come to it.
    #[error("node {id} did not take over in time; `onward cluster status` says who leads")]
    NotTakenOver {
        /// Which.
        id: NodeId,
    },
    /// A majority would be left that answers, though not one that has caught up: writes would wait for it.
    #[error(
        "the voters would be {}, and no majority of them has caught up: {}. Nothing could be written until one has: wait for \
         it (`onward cluster status` shows the lag), or replace the member that is behind first",
        listed(.voters), missing(.behind, .silent)
    )]
    Behind {
        /// Who would vote.
        voters: Vec<NodeId>,
        /// Who of them lacks entries of the leader's log, and how many, where that is known.
        behind: Vec<(NodeId, Option<u64>)>,
        /// Who of them does not answer the leader.
        silent: Vec<NodeId>,
    },
}

/// Why a change has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing was changed.
    #[error(transparent)]
    Refused(#[from] ChangeRefusal),
    /// Nobody leads, or the leader cannot be reached.
    #[error("no leader is known: a majority of the members must be up and reach each other")]
    NoLeader,
    /// It may have been done, or may yet be.
    #[error(
        "{0}; it may have been done or may yet be: `onward cluster status` shows it, and asking again is harmless"
    )]
    Unknown(String),
}

/// What is changing about who belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderWay {
    /// A node is on its way to a vote.
    Joining {
        /// Which.
        id: NodeId,
        /// How far it is.
        step: JoinStep,
    },
    /// The voters change: a majority of either set is needed.
    Voting {
        /// Who voted.
        from: Vec<NodeId>,
        /// Who will vote.
        to: Vec<NodeId>,
    },
}

/// How far a node is on its way to a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinStep {
    /// It was never started.
    Awaited,
    /// It receives a snapshot from the node that is asked.
    Snapshot {
        /// So much of it was sent.
        sent_bytes: u64,
        /// So much it is.
        total_bytes: u64,
    },
    /// It follows the log, and lacks so many entries, where that is known.
    CatchingUp {
        /// Entries.
        lag: Option<u64>,
    },
}

fn listed(ids: &[NodeId]) -> String {
    let ids: Vec<String> = ids.iter().map(NodeId::to_string).collect();
    ids.join(", ")
}

/// Why these are not counted on.
fn missing(behind: &[(NodeId, Option<u64>)], silent: &[NodeId]) -> String {
    let behind = behind.iter().map(|(id, lag)| match lag {
        Some(lag) => format!("node {id} is {lag} entries behind"),
        None => format!("node {id} is behind, by how much is not known yet"),
    });
    let silent = silent.iter().map(|id| format!("node {id} does not answer"));
    let all: Vec<String> = behind.chain(silent).collect();
    all.join("; ")
}
