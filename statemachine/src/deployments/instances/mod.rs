//! Rollouts, and the instances that they run.
//!
//! A rollout brings one release of an app into service, step by step: queued, fetching, building, starting, checking,
//! switching, draining, done. It is the only thing that ever starts an instance: a deploy, a rollback and the restart
//! of what crashed or sits on a lost node all are rollouts. An app has at most one that is not finished; asking for
//! another one supersedes it.
//!
//! A rollout is assigned to a node. Whoever works on it reports each step under a [`Fence`] (step, attempt, node), so
//! that a report that is late or repeated, after a crash or a change of assignment, changes nothing. A step that fails
//! is tried again with a growing delay; after [`ATTEMPTS_MAX`] attempts the rollout has failed, and what served before
//! it still does. A restart is tried for ever, since nothing else serves.
//!
//! An instance of the log is an intention first: its row is there before its process is, and goes to draining before
//! the process is stopped. The switch is one event: the new instance is the active one and the old one is draining,
//! in one revision.
//!
//! Owns the `rollouts`, `instances`, `failures` and `serving` tables.
//!
//! Limits: [`ATTEMPTS_MAX`], [`FAILURES_KEPT_MAX`], [`ROLLOUTS_KEPT_MAX`], [`ENDED_KEPT_MAX`], [`TRAIL_MAX`],
//! [`REASON_BYTES_MAX`].

mod check;
mod command;
mod event;
mod query;
mod report;
mod request;
mod types;

pub(crate) use check::check;
pub use command::{Command, Fence, Progress, Refusal, decide};
pub use event::Event;
pub(crate) use event::evolve;
pub use query::{
    Failures, InstanceCursor, Instances, Rollouts, Routing, ServingCursor, ServingPage, Target, failures,
    instance, instances, rollout, rollouts, routing, serving, serving_page,
};
pub(crate) use types::TABLES;
pub use types::*;
