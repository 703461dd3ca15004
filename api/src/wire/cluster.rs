//! The cluster, as the node that is asked sees it.

use super::members::UnderWay;
use super::{Time, time};
use onward_statemachine::ports::{ClusterStatus, Disk as PortDisk, Member as PortMember, Role as PortRole};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Orders the log.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

/// The cluster, as the node that is asked sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ClusterStatus)]
pub struct Status {
    /// The identity of the cluster.
    pub cluster_id: Uuid,
    /// The node that was asked.
    pub node: u64,
    /// How it takes part.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// Its term.
    pub term: u64,
    /// Whether a majority answered lately (on the leader) or a leader is known (elsewhere).
    pub healthy: bool,
    /// The last entry of its log.
    pub last_log: u64,
    /// The last entry known to be on a majority.
    pub committed: u64,
    /// The last entry that it applied.
    pub applied: u64,
    /// The last entry of its newest snapshot.
    pub snapshot: u64,
    /// The first entry that is still in its log.
    pub first_log: u64,
    /// Log time as of the last applied entry.
    pub log_time: Time,
    /// All members.
    pub members: Vec<Member>,
    /// What is changing about who belongs to the cluster.
    #[serde(default)]
    pub under_way: Option<UnderWay>,
    /// The last revision at which this node was found to have the state of the majority; 0 before the first.
    #[serde(default)]
    pub agreed: u64,
    /// The oldest revision whose state can be read, and after which the events are kept.
    #[serde(default)]
    pub oldest: u64,
    /// How large the events that are kept are, in bytes; `null` while the cluster has no feature level that measures.
    #[serde(default)]
    pub journal_bytes: Option<u64>,
    /// What is wrong, for people, the worst first.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// The feature level that is in force: what is new in a release is taken once every member knows it. 0 of a server that
    /// does not tell.
    #[serde(default)]
    pub feature_level: u32,
    /// The highest feature level that this node's release knows.
    #[serde(default)]
    pub feature_level_max: u32,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Which node.
    pub id: u64,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where its HTTP API is.
    pub http_url: String,
    /// Whether it votes.
    pub voter: bool,
    /// The last entry that it is known to have; only the leader knows it of others, once they have answered it.
    pub matched: Option<u64>,
    /// How many entries of the leader's log it lacks, where that is known.
    pub lag: Option<u64>,
    /// When it last answered, in ms ago; only the leader knows it of others. Of one that has not answered this leader, for
    /// how long it might have; `null` where its place is kept and it has not come.
    pub last_contact_ms: Option<u64>,
    /// Its disk, as it last reported it.
    #[serde(default)]
    pub disk: Option<Disk>,
    /// The highest feature level that its release knows, as it last reported it; `null` while it reports nothing.
    #[serde(default)]
    pub feature_level_max: Option<u32>,
}

/// The disk that a member keeps its data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MemberDisk)]
pub struct Disk {
    /// What is free.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
    /// What is kept free: with less, writes that add are refused.
    pub reserve_bytes: u64,
    /// Whether there is less.
    pub nearly_full: bool,
}

impl From<PortDisk> for Disk {
    fn from(disk: PortDisk) -> Self {
        Disk {
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            reserve_bytes: disk.reserve_bytes,
            nearly_full: disk.nearly_full,
        }
    }
}

/// The whole state of the node that is asked, in few digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateHash {
    /// The node; 0 from a release that did not say so.
    #[serde(default)]
    pub node: u64,
    /// 16 hexadecimal digits: the same on every node that stands at the same revision.
    pub hash: String,
}

impl StateHash {
    /// What a node came to.
    pub fn new(node: u64, hash: u64) -> Self {
        let hash = format!("{hash:016x}");
        StateHash { node, hash }
    }
}

impl From<ClusterStatus> for Status {
    fn from(status: ClusterStatus) -> Self {
        let member = |member: PortMember| Member {
            id: member.id.0,
            peer_address: member.peer_address,
            http_url: member.http_url,
            voter: member.voter,
            matched: member.matched.map(|revision| revision.0),
            lag: member
                .matched
                .map(|revision| status.last_log.0.saturating_sub(revision.0)),
            last_contact_ms: member.last_contact_ms,
            disk: member.disk.map(Disk::from),
            feature_level_max: member.feature_level_max,
        };
        Status {
            cluster_id: status.cluster_id,
            node: status.node.0,
            role: match status.role {
                PortRole::Leader => Role::Leader,
                PortRole::Follower => Role::Follower,
                PortRole::Candidate => Role::Candidate,
                PortRole::Learner => Role::Learner,
            },
            leader: status.leader.map(|id| id.0),
            term: status.term,
            healthy: status.healthy,
            last_log: status.last_log.0,
            committed: status.committed.0,
            applied: status.applied.0,
            snapshot: status.snapshot.0,
            first_log: status.first_log.0,
            log_time: time(status.log_time),
            members: status.members.into_iter().map(member).collect(),
            under_way: status.under_way.map(UnderWay::from),
            agreed: status.agreed.0,
            oldest: status.oldest.0,
            journal_bytes: status.journal_bytes,
            alarms: status.alarms,
            feature_level: status.feature_level,
            feature_level_max: status.feature_level_max,
        }
    }
}
