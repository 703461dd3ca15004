//! Changes of who belongs to the cluster and of who leads it.

use onward_statemachine::NodeId;
use onward_statemachine::membership::{Changed, JoinStep, UnderWay as PortUnderWay};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A node that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// Where its peers will reach it, `host:port`: what the node will have as its `peer.advertise`, or `peer.listen`.
    pub peer_address: String,
}

/// A node that may start. It follows as a learner first, and votes once it has caught up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdmittedMember {
    /// Its id. A node that asks from this address gets it once; one that has lost its data since gets another.
    pub node: u64,
    /// Where its peers will reach it.
    pub peer_address: String,
    /// The peer address of a member that it can join through.
    pub join: String,
    /// The member whose place it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
    /// What starts it, with a directory to be chosen.
    pub command: String,
}

/// Who should lead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Which voter; the one who has most of the log where it is not said.
    #[serde(default)]
    pub to: Option<u64>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Leader {
    /// Which node.
    pub leader: u64,
}

/// What is changing about who belongs to the cluster. Members change one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum UnderWay {
    /// A node may start, and was not seen yet.
    Awaited {
        /// Which.
        node: u64,
    },
    /// A node receives a snapshot from the node that was asked.
    Snapshot {
        /// Which.
        node: u64,
        /// So much of it was sent.
        sent_bytes: u64,
        /// So much it is.
        total_bytes: u64,
    },
    /// A node follows the log, and votes once it has caught up.
    CatchingUp {
        /// Which.
        node: u64,
        /// How many entries it lacks; only the leader knows.
        lag: Option<u64>,
    },
    /// The voters change.
    Voting {
        /// Who voted.
        from: Vec<u64>,
        /// Who will vote.
        to: Vec<u64>,
    },
}

impl From<PortUnderWay> for UnderWay {
    fn from(under_way: PortUnderWay) -> Self {
        let ids = |ids: Vec<NodeId>| ids.into_iter().map(|id| id.0).collect();
        match under_way {
            PortUnderWay::Joining { id, step } => match step {
                JoinStep::Awaited => UnderWay::Awaited { node: id.0 },
                JoinStep::Snapshot {
                    sent_bytes,
                    total_bytes,
                } => UnderWay::Snapshot {
                    node: id.0,
                    sent_bytes,
                    total_bytes,
                },
                JoinStep::CatchingUp { lag } => UnderWay::CatchingUp { node: id.0, lag },
            },
            PortUnderWay::Voting { from, to } => UnderWay::Voting {
                from: ids(from),
                to: ids(to),
            },
        }
    }
}

impl AdmittedMember {
    /// What is answered to a change that let a node in at this address.
    pub(crate) fn of(changed: Changed, peer_address: String, replaces: Option<u64>) -> Option<Self> {
        let Changed::Admitted {
            id,
            through,
            cluster_name,
        } = changed
        else {
            return None;
        };
        let mut command =
            format!("onward serve --cluster {cluster_name} --data-dir DIR --peer-listen {peer_address}");
        // The API is found next to the peers, as it is by default.
        if let Some((host, port)) = peer_address.rsplit_once(':')
            && let Some(port) = port.parse::<u16>().ok().and_then(|port| port.checked_sub(1))
        {
            command.push_str(&format!(" --http-listen {host}:{port}"));
        }
        command.push_str(&format!(" --join {through}"));
        if let Some(gone) = replaces {
            command.push_str(&format!(" --replaces {gone}"));
        }
        Some(AdmittedMember {
            node: id.0,
            peer_address,
            join: through,
            replaces,
            command,
        })
    }
}
