//! What a client says that it was told.

use crate::history::TimeNs;
use serde_json::Value;
use uuid::Uuid;

/// What one call comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// When it was asked.
    pub invoked_ns: TimeNs,
    /// When it was answered.
    pub completed_ns: TimeNs,
    /// What was said.
    pub said: Said,
}

/// What was said.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// This command was done.
    Wrote {
        /// Which.
        command: Uuid,
        /// The revision that it made.
        revision: u64,
        /// Events that it must have caused, in order, among others maybe: each with at least these members, as
        /// `{"area": "kv", "event": "put", "key": "a", "value": "1"}`. With none, it may have changed nothing.
        events: Vec<Value>,
        /// What it demanded and what it was answered, where a naive model can tell what that must have been.
        answer: Option<Demand>,
    },
    /// This was read.
    Read {
        /// What was promised of it.
        level: Level,
        /// The revision of the state that it saw.
        revision: u64,
        /// What was asked, each with the answer: the body of the response; null where there was no such thing.
        answers: Vec<(Query, Value)>,
    },
    /// This command may have been done, may be yet, or never.
    Unknown {
        /// Which.
        command: Uuid,
    },
    /// This command was not done, and never will be.
    Failed {
        /// Which.
        command: Uuid,
    },
}

/// How fresh a read was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It sees all that was acknowledged before it began.
    Linearizable,
    /// It sees this revision.
    AtLeast(u64),
    /// It sees some state of the past.
    Local,
}

/// A write whose answer depends on what was there.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    /// `POST /v1/kv/txn`: the body, and the body of the answer.
    KvTxn(Value, Value),
    /// `DELETE /v1/kv/{key}` or `?prefix=`: what was named, and how many keys went.
    KvDelete(Keys, u64),
    /// `POST /v1/objects/transactions`: the body, and the tid that was answered.
    ObjectsCommit(Value, String),
    /// `POST /v1/machines/{serial}/state`: the machine, and the state that it is to be taken to.
    MachineState(String, String),
}

/// Keys that a deletion names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// This one.
    One(String),
    /// All that begin so.
    Prefix(String),
}

/// What a read asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// `GET /v1/kv/{key}`: a pair.
    KvGet(String),
    /// `GET /v1/kv?prefix=`: all pairs, all pages together.
    KvList(String),
    /// `GET /v1/services/{service}/instances/{instance}`.
    Instance(String, String),
    /// `GET /v1/services/{service}/instances`: all of them.
    Instances(String),
    /// `GET /v1/machines/{serial}`.
    Machine(String),
    /// `GET /v1/machines`: all of them.
    Machines,
    /// `GET /v1/objects/{oid}`: the current serial and size are judged; the journal does not have the bytes.
    Object(String),
    /// `GET /v1/apps/{app}`.
    App(String),
}
