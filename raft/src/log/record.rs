//! The bytes of one log entry, on disk and on the wire: our own, so that no release of openraft can change them.
//!
//! ```text
//! version u8 | crc32 u32 | kind u8 | term u64 | node u64 | index u64 | payload
//! ```
//! Integers are little endian; the checksum covers everything behind it. `kind` is 0 for a blank entry, 1 for an
//! envelope, 2 for a membership (encoded by [`onward_statemachine::codec`]).

use crate::types::{Entry, EntryPayload, LeaderId, LogId, Membership, Payload, PeerNode};
use bytes::{Buf, Bytes};
use onward_statemachine::codec;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const ENVELOPE: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// What stands in front of a payload, with a checksum of the rest and of the payload.
pub(super) const HEADER_BYTES: usize = 1 + 4 + 1 + 3 * 8;
const CHECKED_FROM: usize = 5;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the record has {0} bytes, fewer than its header")]
    Short(usize),
    #[error("the record has version {0}; this build reads version {VERSION}")]
    Version(u8),
    #[error("the record's checksum does not match its bytes")]
    Checksum,
    #[error("the record has kind {0}, which this build does not know")]
    Kind(u8),
    #[error("the record's membership: {0}")]
    Membership(String),
}

impl From<RecordError> for std::io::Error {
    fn from(error: RecordError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// A membership as it is stored: voters (two sets while it changes) and where every member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredNodes {
    configs: Vec<Vec<u64>>,
    nodes: Vec<(u64, String, String)>,
}

impl From<&Membership> for StoredNodes {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config();
        StoredNodes {
            configs: configs
                .iter()
                .map(|config| config.iter().copied().collect())
                .collect(),
            nodes: membership
                .nodes()
                .map(|(id, node)| (*id, node.peer.clone(), node.http.clone()))
                .collect(),
        }
    }
}

impl TryFrom<StoredNodes> for Membership {
    type Error = RecordError;

    fn try_from(stored: StoredNodes) -> Result<Self, RecordError> {
        let configs: Vec<BTreeSet<u64>> = stored
            .configs
            .into_iter()
            .map(|config| config.into_iter().collect())
            .collect();
        let nodes: BTreeMap<u64, PeerNode> = stored
            .nodes
            .into_iter()
            .map(|(id, peer, http)| (id, PeerNode { peer, http }))
            .collect();
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|error| RecordError::Membership(error.to_string()))
    }
}

/// The encoded size of `entry`, or nearly so for a membership.
pub(crate) fn size(entry: &Entry) -> usize {
    HEADER_BYTES
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(payload) => payload.bytes.len(),
            EntryPayload::Membership(_) => 256,
        }
}

/// Appends the record of `entry` to `out`.
pub(crate) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let membership;
    let (kind, payload): (u8, &[u8]) = match &entry.payload {
        EntryPayload::Blank => (BLANK, &[]),
        EntryPayload::Normal(payload) => (ENVELOPE, &payload.bytes),
        EntryPayload::Membership(nodes) => {
            membership = codec::encode(&StoredNodes::from(nodes));
            (MEMBERSHIP, &membership)
        }
    };
    let start = out.len();
    out.reserve(HEADER_BYTES + payload.len());
    out.push(VERSION);
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    out.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&entry.log_id.leader_id.node_id.to_le_bytes());
    out.extend_from_slice(&entry.log_id.index.to_le_bytes());
    out.extend_from_slice(payload);
    let checksum = crc32fast::hash(&out[start + CHECKED_FROM..]);
    out[start + 1..start + CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
}

/// Whether `bytes` are a record that is as it was written.
pub(super) fn is_intact(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_BYTES
        && bytes[1..CHECKED_FROM] == crc32fast::hash(&bytes[CHECKED_FROM..]).to_le_bytes()
}

/// Whose record this is; its checksum is not looked at.
pub(super) fn log_id(bytes: &[u8]) -> Result<LogId, RecordError> {
    let mut header = bytes.get(..HEADER_BYTES).ok_or(RecordError::Short(bytes.len()))?;
    if header[0] != VERSION {
        return Err(RecordError::Version(header[0]));
    }
    header.advance(CHECKED_FROM + 1);
    let leader_id = LeaderId {
        term: header.get_u64_le(),
        node_id: header.get_u64_le(),
    };
    Ok(LogId::new(leader_id, header.get_u64_le()))
}

/// Reads the record that is all of `bytes`. An envelope shares the bytes instead of copying them.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Entry, RecordError> {
    if bytes.len() < HEADER_BYTES {
        return Err(RecordError::Short(bytes.len()));
    }
    if bytes[0] != VERSION {
        return Err(RecordError::Version(bytes[0]));
    }
    let checked = crc32fast::hash(&bytes[CHECKED_FROM..]);
    bytes.advance(1);
    if bytes.get_u32_le() != checked {
        return Err(RecordError::Checksum);
    }
    let kind = bytes.get_u8();
    let leader_id = LeaderId {
        term: bytes.get_u64_le(),
        node_id: bytes.get_u64_le(),
    };
    let log_id = LogId::new(leader_id, bytes.get_u64_le());
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        ENVELOPE => EntryPayload::Normal(Payload::from(bytes)),
        MEMBERSHIP => {
            let stored: StoredNodes =
                codec::decode(&bytes).map_err(|error| RecordError::Membership(error.to_string()))?;
            EntryPayload::Membership(stored.try_into()?)
        }
        kind => return Err(RecordError::Kind(kind)),
    };
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let log_id = |index| LogId::new(LeaderId { term: 3, node_id: 2 }, index);
        let nodes = BTreeMap::from([(
            2,
            PeerNode {
                peer: "p".to_owned(),
                http: "h".to_owned(),
            },
        )]);
        let membership = Membership::new(vec![BTreeSet::from([2])], nodes).expect("valid");
        vec![
            Entry {
                log_id: log_id(1),
                payload: EntryPayload::Blank,
            },
            Entry {
                log_id: log_id(2),
                payload: EntryPayload::Normal(Payload::from(Bytes::from_static(b"abc"))),
            },
            Entry {
                log_id: log_id(3),
                payload: EntryPayload::Membership(membership),
            },
        ]
    }

    #[test]
    fn records_return_and_damage_is_seen() {
        for entry in entries() {
            let mut bytes = Vec::new();
            encode(&entry, &mut bytes);
            assert_eq!(decode(bytes.clone().into()).expect("decodes"), entry);
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0x10;
                assert!(decode(damaged.into()).is_err(), "byte {at}");
            }
            assert!(decode(bytes[..bytes.len() - 1].to_vec().into()).is_err());
        }
    }

    #[test]
    fn bytes_are_pinned() {
        let mut bytes = Vec::new();
        encode(&entries()[1], &mut bytes);
        let mut expected = vec![1, 0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        expected.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c']);
        let checksum = crc32fast::hash(&expected[CHECKED_FROM..]);
        expected[1..5].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(bytes, expected);
        bytes.clear();
        encode(&entries()[2], &mut bytes);
        assert_eq!(&bytes[HEADER_BYTES..], [1, 1, 1, 2, 1, 2, 1, b'p', 1, b'h']);
    }
}
