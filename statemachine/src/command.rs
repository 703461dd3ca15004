//! What the log carries and what comes of it: the closed enums over all areas.
//!
//! Variants are append-only: their numbers are in every log ever written.

use crate::ids::{Actor, CommandId, Millis, Revision};
use crate::store::Fault;
use crate::{deployments, machines, objects, services, system};
use serde::{Deserialize, Serialize};

/// A command with its stamps: the payload of a log entry. Nothing after the stamping reads a clock or a random source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Which demand this is, across retries.
    pub command_id: CommandId,
    /// Who demands it.
    pub actor: Actor,
    /// The clock of the leader that proposed it.
    pub proposed_at: Millis,
    /// What is demanded.
    pub command: Command,
}

/// A demand that may be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// All of these or none, in one revision, over any mix of areas. Batches do not nest.
    Batch(Vec<Command>),
    /// The machinery itself.
    System(system::Command),
    /// Key-value pairs.
    Kv(services::kv::Command),
    /// Service instances.
    Catalog(services::catalog::Command),
    /// Machines.
    Registry(machines::registry::Command),
    /// The address plan.
    Ipam(machines::ipam::Command),
    /// Boot templates.
    Netboot(machines::netboot::Command),
    /// Object transactions.
    Objects(objects::Command),
    /// Apps.
    Apps(deployments::apps::Command),
    /// Builds.
    Builds(deployments::builds::Command),
    /// Releases.
    Releases(deployments::releases::Command),
    /// Rollouts and the instances that they run.
    Instances(deployments::instances::Command),
}

/// A past-tense fact at (revision, ordinal).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The machinery itself.
    System(system::Event),
    /// Key-value pairs.
    Kv(services::kv::Event),
    /// Service instances.
    Catalog(services::catalog::Event),
    /// Machines.
    Registry(machines::registry::Event),
    /// The address plan.
    Ipam(machines::ipam::Event),
    /// Boot templates.
    Netboot(machines::netboot::Event),
    /// Object transactions.
    Objects(objects::Event),
    /// Apps.
    Apps(deployments::apps::Event),
    /// Builds.
    Builds(deployments::builds::Event),
    /// Releases.
    Releases(deployments::releases::Event),
    /// Rollouts and instances.
    Instances(deployments::instances::Event),
}

/// A deterministic no: the same on every node, kept for duplicates, answered to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// One command of a batch was refused, and so all of it was.
    #[error("command {index} of the batch: {refusal}")]
    Batch {
        /// Which command, from 0.
        index: usize,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// The machinery itself.
    #[error(transparent)]
    System(system::Refusal),
    /// Key-value pairs.
    #[error(transparent)]
    Kv(services::kv::Refusal),
    /// Service instances.
    #[error(transparent)]
    Catalog(services::catalog::Refusal),
    /// Machines.
    #[error(transparent)]
    Registry(machines::registry::Refusal),
    /// The address plan.
    #[error(transparent)]
    Ipam(machines::ipam::Refusal),
    /// Boot templates.
    #[error(transparent)]
    Netboot(machines::netboot::Refusal),
    /// Object transactions.
    #[error(transparent)]
    Objects(objects::Refusal),
    /// Apps.
    #[error(transparent)]
    Apps(deployments::apps::Refusal),
    /// Builds.
    #[error(transparent)]
    Builds(deployments::builds::Refusal),
    /// Releases.
    #[error(transparent)]
    Releases(deployments::releases::Refusal),
    /// Rollouts and instances.
    #[error(transparent)]
    Instances(deployments::instances::Refusal),
}

/// What an accepted command tells its caller beyond the revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing.
    None,
    /// One for each command of a batch.
    Batch(Vec<Reply>),
    /// The machinery itself.
    System(system::Reply),
    /// What a KV transaction read and did.
    Kv(services::kv::Reply),
    /// Indices and addresses that machines were given.
    Registry(machines::registry::Reply),
    /// The tid of an object transaction.
    Objects(objects::Reply),
    /// The number of a build.
    Builds(deployments::builds::Reply),
    /// The number of a release.
    Releases(deployments::releases::Reply),
    /// The number of a rollout.
    Instances(deployments::instances::Reply),
}

/// What a committed entry came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The command was done at this revision (for a duplicate: the first one's).
    Accepted {
        /// When.
        revision: Revision,
        /// What the caller learns.
        reply: Reply,
    },
    /// The command was refused, deciding on the state at this revision.
    Refused {
        /// When.
        revision: Revision,
        /// Why.
        refusal: Refusal,
    },
}

impl Outcome {
    /// The revision that the outcome was decided at.
    pub fn revision(&self) -> Revision {
        match self {
            Outcome::Accepted { revision, .. } | Outcome::Refused { revision, .. } => *revision,
        }
    }
}

/// What `decide` and `evolve` know besides the state.
#[derive(Debug, Clone)]
pub struct Context {
    /// The revision being made.
    pub revision: Revision,
    /// Log time.
    pub now: Millis,
    /// Who demands it.
    pub actor: Actor,
}

/// What `decide` accepted: the events to evolve, and what the caller learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<E> {
    /// In order.
    pub events: Vec<E>,
    /// For the caller.
    pub reply: Reply,
}

impl<E> Accepted<E> {
    /// These events, and nothing to tell but the revision.
    pub fn events(events: Vec<E>) -> Self {
        Accepted {
            events,
            reply: Reply::None,
        }
    }
    /// One event, and nothing to tell but the revision.
    pub fn event(event: E) -> Self {
        Accepted::events(vec![event])
    }
    /// Nothing to change: what was demanded is so already.
    pub fn unchanged() -> Self {
        Accepted::events(Vec::new())
    }
}

/// How `decide` ends early: with a refusal, or with a fault of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop<R> {
    /// Replicated truth.
    Refuse(R),
    /// This node is broken.
    Fault(Fault),
}

impl<R> From<Fault> for Stop<R> {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

impl<R> Stop<R> {
    /// The same stop, its refusal wrapped into the enum over all areas.
    pub(crate) fn map<S>(self, wrap: impl FnOnce(R) -> S) -> Stop<S> {
        match self {
            Stop::Refuse(refusal) => Stop::Refuse(wrap(refusal)),
            Stop::Fault(fault) => Stop::Fault(fault),
        }
    }
}

/// The result of a `decide`.
pub type Decision<E, R> = Result<Accepted<E>, Stop<R>>;
