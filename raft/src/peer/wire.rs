//! What the frames carry. These types are only on the wire, between nodes of one protocol version, never on disk.

use super::frame;
use crate::log::record;
use crate::member::Reservation;
use crate::state::snapshot::Manifest;
use crate::trust::Lives;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use bytes::{Buf, Bytes};
use onward_statemachine::codec::{self, DecodeError};
use onward_statemachine::membership::ChangeRefusal;
use onward_statemachine::{NodeId, Outcome, Revision};
use openraft::raft::AppendEntriesRequest;
use serde::{Deserialize, Serialize};
use std::io;
use uuid::Uuid;

/// Kinds of frames.
pub(crate) mod kind {
    /// An answer to the request of the same id.
    pub(crate) const ANSWER: u8 = 0;
    /// The request of the same id failed; the body says why.
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const APPEND: u8 = 2;
    pub(crate) const VOTE: u8 = 3;
    pub(crate) const PRE_VOTE: u8 = 4;
    pub(crate) const TRANSFER: u8 = 5;
    pub(crate) const PROPOSE: u8 = 6;
    pub(crate) const READ_INDEX: u8 = 7;
    pub(crate) const MEMBER: u8 = 8;
    pub(crate) const SNAPSHOT_BEGIN: u8 = 9;
    /// Bytes of the file whose place in the manifest is the frame's id.
    pub(crate) const SNAPSHOT_BYTES: u8 = 10;
    pub(crate) const SNAPSHOT_END: u8 = 11;
    pub(crate) const FOUND: u8 = 12;
    /// What does your clock show? Nobody who does not know this kind is hurt by it: it fails.
    pub(crate) const CLOCK: u8 = 13;
    /// What a member says of itself; answered with what the leader knows of all.
    pub(crate) const REPORT: u8 = 15;
}

/// The answer to a forwarded proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proposed {
    Done(Outcome),
    /// Not appended here.
    NotLeader,
    /// Appended, and then lost sight of.
    Unknown,
    Overloaded {
        in_flight: u64,
    },
    TooLarge {
        bytes: u64,
    },
    Poisonous(String),
    ShuttingDown,
    NoRoom {
        node: NodeId,
        free_bytes: u64,
        reserve_bytes: u64,
    },
}

/// A request about who belongs to the cluster. Each is one bounded step, and repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MemberRequest {
    /// An operator asks: let in the node that will run at this peer address, as a learner.
    Admit {
        peer: String,
        /// Empty; only nodes of earlier releases asked in this way themselves.
        http: String,
        /// The name of the cluster that it is meant for.
        cluster: String,
        /// Whose place it takes.
        replaces: Option<NodeId>,
    },
    /// Give a learner its vote, if it has caught up, and let go of the one that it replaces.
    Promote {
        id: NodeId,
        /// The cluster that it was let in to.
        cluster: Uuid,
        replaces: Option<NodeId>,
    },
    /// Let go of a member.
    Remove { id: NodeId },
    /// Hand leadership over from this node, to a certain one or to the best.
    Transfer { from: NodeId, to: Option<NodeId> },
    /// Is there a log of this node, as far as the leader knows? `Done` means yes.
    Known { id: NodeId },
    /// Is this node a member, as far as the one that is asked has applied? Anyone of the same cluster may answer.
    Standing { id: NodeId, cluster: Uuid },
    /// Give the node at this peer address an id to ask with.
    Reserve {
        peer: String,
        /// The name of the cluster that it is meant for.
        cluster: String,
    },
    /// Let in the node that has written down that it reserved this, as a learner.
    Enter {
        reserved: Reservation,
        peer: String,
        /// Its API.
        http: String,
        /// Whose place it takes.
        replaces: Option<NodeId>,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MemberAnswer {
    /// The node may start under this id.
    Admitted {
        id: NodeId,
        cluster_id: Uuid,
        cluster_name: String,
        /// A revision at which it was a member.
        revision: Revision,
        /// The peer address of the leader.
        through: String,
        /// The voter that was at its address, and has to make way.
        replaces: Option<NodeId>,
    },
    Done,
    NotLeader,
    Failed(String),
    Refused(ChangeRefusal),
    /// It may have been done, or may yet be.
    Unknown,
    /// The learner has not caught up.
    Following {
        lag: Option<u64>,
    },
    /// Who asks for a vote is no member.
    NotMember,
    Leads {
        id: NodeId,
    },
    /// As of the membership of this revision.
    Standing {
        revision: Revision,
        member: bool,
    },
    Reserved(Reservation),
    /// What was reserved is worth nothing any more, and never will be: reserve again.
    Outdated,
}

/// What initial members say to each other before their cluster is formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FoundRequest {
    /// Has this member no log yet?
    Fresh { cluster: Uuid, member: NodeId },
    /// No initial member had, at one time: each said so in the life that is named.
    Founded {
        cluster: Uuid,
        member: NodeId,
        lives: Lives,
    },
}

/// What is answered to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FoundAnswer {
    /// It has no log, in this life of its data directory.
    Fresh {
        life: Uuid,
    },
    HasLog,
    /// It is taken for a founding member.
    Founded,
    /// It was another life that was fresh.
    OtherLife,
    /// Another node was meant.
    Stranger {
        node: NodeId,
        cluster: Uuid,
    },
    Failed(String),
    /// It has no log, and need not have one: it was founded, and has acknowledged nothing since.
    Empty,
}

/// The head of a snapshot transfer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotBegin {
    pub(crate) vote: Vote,
    pub(crate) manifest: Manifest,
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev_log_id: Option<LogId>,
    leader_commit: Option<LogId>,
    entries: u64,
}

/// A frame of an append request: its head, then each entry as the record that the log stores.
pub(crate) fn encode_append(id: u64, request: &AppendEntriesRequest<TypeConfig>) -> Vec<u8> {
    let head = codec::encode(&AppendHead {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
        entries: request.entries.len() as u64,
    });
    let entry_bytes: usize = request.entries.iter().map(|entry| 4 + record::size(entry)).sum();
    let mut bytes = frame::begin(kind::APPEND, id, 4 + head.len() + entry_bytes);
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    for entry in &request.entries {
        let at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        record::encode(entry, &mut bytes);
        let length = (bytes.len() - at - 4) as u32;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    frame::finish(&mut bytes);
    bytes
}

/// Reads what [`encode_append`] wrote. Entries share the frame's bytes.
pub(crate) fn decode_append(mut body: Bytes) -> io::Result<AppendEntriesRequest<TypeConfig>> {
    let head: AppendHead = decode(&take(&mut body)?)?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..head.entries {
        entries.push(record::decode(take(&mut body)?)?);
    }
    Ok(AppendEntriesRequest {
        vote: head.vote,
        prev_log_id: head.prev_log_id,
        entries,
        leader_commit: head.leader_commit,
    })
}

fn take(body: &mut Bytes) -> io::Result<Bytes> {
    if body.len() >= 4 {
        let length = body.get_u32_le() as usize;
        if length <= body.len() {
            return Ok(body.split_to(length));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "an append request is cut short",
    ))
}

/// Decodes a message.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    codec::decode(bytes).map_err(|error: DecodeError| io::Error::new(io::ErrorKind::InvalidData, error))
}
