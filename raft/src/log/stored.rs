//! How the ids and votes of consensus are stored: our own bytes, so that no release of openraft can change them.

use crate::types::{LeaderId, LogId, Vote};
use onward_statemachine::codec;
use serde::{Deserialize, Serialize};
use std::io;

#[derive(Serialize, Deserialize)]
struct StoredLogId {
    term: u64,
    node: u64,
    index: u64,
}

/// Encodes a log id as it is stored.
pub(crate) fn encode_log_id(id: &LogId) -> Vec<u8> {
    codec::encode(&StoredLogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    })
}

/// Decodes what [`encode_log_id`] wrote.
pub(crate) fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    let stored: StoredLogId = codec::decode(bytes).map_err(invalid)?;
    let leader_id = LeaderId {
        term: stored.term,
        node_id: stored.node,
    };
    Ok(LogId::new(leader_id, stored.index))
}

pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(crate) fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredVote {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        StoredVote {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<StoredVote> for Vote {
    fn from(stored: StoredVote) -> Self {
        Vote {
            leader_id: LeaderId {
                term: stored.term,
                node_id: stored.node,
            },
            committed: stored.committed,
        }
    }
}
