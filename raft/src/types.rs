//! The types that openraft is instantiated with.
//!
//! The leader id is openraft's *advanced* one: (term, node), ordered by both, so that two candidates of one term do not
//! block each other, which a term with a single vote would. A log id is therefore (term, node, index), and all three are
//! in every record of the log.

use crate::runtime::Runtime;
use bytes::Bytes;
use onward_statemachine::{Outcome, Revision};
use openraft::impls::{BoxedErrorSource, InlineBatch, leader_id_adv};
use openraft::raft::responder::Responder;
use openraft::{OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::time::Instant;

/// The one instantiation of openraft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Payload;
    type R = Applied;
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type EntryPayload = openraft::EntryPayload<Payload, u64, PeerNode>;
pub(crate) type Entry = openraft::Entry<LeaderId, EntryPayload>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, PeerNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, PeerNode>;

/// The bytes of an encoded envelope, and when they passed through this process: that part is no part of the entry.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    #[serde(skip)]
    pub(crate) passed: Passed,
}

/// When an entry passed the steps of its way through this process. Nothing of it is known of an entry from the disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Passed {
    /// It was handed to consensus: on the leader only.
    pub(crate) proposed: Option<Instant>,
    /// It has its place in the log, in RAM.
    pub(crate) appended: Option<Instant>,
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        let passed = Passed::default();
        Payload { bytes, passed }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// What an applied entry came to; `None` where it carried no command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied(pub(crate) Option<Outcome>);

/// Where a member is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerNode {
    /// `host:port` of its peer transport.
    pub(crate) peer: String,
    /// `http://host:port` of its API.
    pub(crate) http: String,
}

/// Calls back with a result; with `None` when openraft let go of it without one, which is when it stops.
pub(crate) struct Reply<T>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T> Reply<T> {
    pub(crate) fn new(callback: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Reply(Some(Box::new(callback)))
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Reply<T> {
    fn on_complete(mut self, result: T) {
        if let Some(callback) = self.0.take() {
            callback(Some(result));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback(None);
        }
    }
}

/// The revision of a log id; 0 before everything.
pub(crate) fn revision_of(id: Option<&LogId>) -> Revision {
    Revision(id.map_or(0, |id| id.index))
}
