//! The seams between the state machine and those who use it: how to propose, how to read, what the cluster looks
//! like. Declared here, implemented in `raft/`, used by `api/` and `appliers/`; nothing here awaits.

use crate::command::{Command, Outcome};
use crate::ids::{Actor, CommandId, Millis, NodeId, Revision};
use crate::membership::{Change, ChangeError, Changed, UnderWay};
pub use crate::metric::{BOUNDS_US, Histogram, Metric, Reading, Times};
use crate::store::{Fault, View};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A boxed future, so that the traits stay usable as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A demand on its way to the log. The leader adds the time.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The identity of the demand across retries; `None` lets the proposer make one.
    pub command_id: Option<CommandId>,
    /// Who demands it.
    pub actor: Actor,
    /// What is demanded.
    pub command: Command,
}

impl Proposal {
    /// A demand under a fresh id.
    pub fn new(actor: Actor, command: Command) -> Self {
        Proposal {
            command_id: None,
            actor,
            command,
        }
    }
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was sent: no leader is known or reachable. Trying again is safe.
    #[error("no leader is known: a majority of the members must be up and reach each other")]
    NoLeader,
    /// Nothing was done: too many proposals are under way. Trying again is safe.
    #[error("{in_flight} proposals are under way, which is the limit; try again in {retry_after_ms} ms")]
    Overloaded {
        /// Proposals under way.
        in_flight: usize,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Nothing was done: the disk of the leader is nearly full, or so many are that the others are no majority, and the
    /// command adds to them.
    #[error(
        "the disk of node {node} is nearly full: {} MiB are free, and {} MiB are kept in reserve. Deletes are taken, and \
         so is everything again once there is room: delete what is not needed, or enlarge the disk",
        free_bytes >> 20, reserve_bytes >> 20
    )]
    DiskNearlyFull {
        /// Whose disk.
        node: NodeId,
        /// What is free on it.
        free_bytes: u64,
        /// What is kept in reserve.
        reserve_bytes: u64,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Nothing was done: the encoded command is larger than the log takes.
    #[error("the command encodes to {bytes} bytes; the most is {max}")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Nothing was done: the command would break every node.
    #[error("the command was rejected before it reached the log: {0}")]
    Poisonous(String),
    /// It may have been done, or may yet be. Only proposing again under the same id tells.
    #[error("the outcome of command {0} is unknown; propose it again under the same id to learn it")]
    Unknown(CommandId),
    /// This node is going down. Nothing was done.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// Puts demands into the log, from any node.
pub trait Proposer: Send + Sync + 'static {
    /// Proposes and waits for the outcome. Retries under the same id across leader changes until `deadline_ms`.
    fn propose(&self, proposal: Proposal, deadline_ms: u64) -> BoxFuture<'_, Result<Outcome, ProposeError>>;

    /// The clock that proposals are stamped with, which log time follows. Who waits for a deadline of the log asks it,
    /// and not the machine's own, which may be wrong.
    fn now(&self) -> Millis;
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Sees every write that was acknowledged anywhere before the read began.
    Linearizable,
    /// Sees at least this revision.
    AtLeast(Revision),
    /// Whatever this node has applied.
    Local,
}

/// Why a read cannot be as fresh as was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader could confirm the read index.
    #[error("no leader confirmed the read; `local` reads are still answered")]
    NoLeader,
    /// The revision did not arrive in time.
    #[error("revision {wanted} was not applied here in time; this node is at {applied}")]
    NotApplied {
        /// Asked for.
        wanted: Revision,
        /// Where this node is.
        applied: Revision,
    },
    /// As many reads as a node takes wait to be fresh enough.
    #[error(
        "{waiting} reads wait on this node to be fresh enough, which is the limit; ask again in {retry_after_ms} ms, or \
         ask another node"
    )]
    Overloaded {
        /// How many wait.
        waiting: usize,
        /// When to ask again.
        retry_after_ms: u64,
    },
    /// This node is going down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// Why an earlier state cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// The journal was compacted past it.
    #[error("revision {at} is no longer kept: history begins at revision {oldest}")]
    Compacted {
        /// Asked for.
        at: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// It has not come yet.
    #[error("revision {at} is not there yet: the last one is {head}")]
    Future {
        /// Asked for.
        at: Revision,
        /// The last one that this node has applied.
        head: Revision,
    },
    /// It takes longer than a read may wait, or others wait for theirs. It may be there when asked again.
    #[error("the state as of revision {at} is not put together yet; ask again in {retry_after_ms} ms")]
    NotReady {
        /// Asked for.
        at: Revision,
        /// When to ask again.
        retry_after_ms: u64,
    },
    /// Putting it together takes room, and the disk of this node has none to spare.
    #[error(
        "the state as of revision {at} is not put together while the disk of this node is nearly full: {} MiB are free, \
         and {} MiB are kept in reserve. Ask another node, or enlarge the disk",
        free_bytes >> 20, reserve_bytes >> 20
    )]
    NoRoom {
        /// Asked for.
        at: Revision,
        /// What is free on the disk.
        free_bytes: u64,
        /// What is kept in reserve.
        reserve_bytes: u64,
        /// When to ask again.
        retry_after_ms: u64,
    },
    /// This node is going down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// An earlier state. It is kept for as long as somebody holds it.
pub trait Past: Send + Sync + 'static {
    /// Calls `read` with a view of the state as of that revision. A fault stops the node and does not return.
    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>);
}

impl dyn Past {
    /// Reads one value out of it.
    pub fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, Fault>) -> T {
        once(read, |read| self.with_view(read))
    }
}

/// Calls `read` through `with_view`, which calls its argument once.
fn once<T>(
    read: impl FnOnce(&dyn View) -> Result<T, Fault>,
    with_view: impl FnOnce(&mut dyn FnMut(&dyn View) -> Result<(), Fault>),
) -> T {
    let mut read = Some(read);
    let mut value = None;
    with_view(&mut |view| {
        if let Some(read) = read.take() {
            value = Some(read(view)?);
        }
        Ok(())
    });
    value.expect("with_view calls its closure once, and stops the node on a fault")
}

/// Where the state that a read saw stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The last entry that this node applied.
    pub applied: Revision,
    /// How long ago this node last heard from a leader, in ms; 0 on the leader itself.
    pub age_ms: u64,
}

/// Reads this node's replica.
pub trait Reader: Send + Sync + 'static {
    /// Waits until the local state is as fresh as asked.
    fn barrier(&self, freshness: Freshness) -> BoxFuture<'_, Result<Stamp, ReadError>>;

    /// Calls `read` with a consistent view of what this node has applied. A fault stops the node and does not return.
    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>);

    /// The last applied revision and its age.
    fn stamp(&self) -> Stamp;

    /// The state as of the revision `at`, which this node must have applied.
    fn past(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Past>, PastError>>;

    /// Resolves once this node has applied something after `after`.
    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision>;
}

impl dyn Reader {
    /// Reads one value out of a consistent view.
    pub fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, Fault>) -> T {
        once(read, |read| self.with_view(read))
    }
}

/// How this node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A member, as the node that is asked sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which node.
    pub id: NodeId,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where its HTTP API is, `http://host:port`.
    pub http_url: String,
    /// Whether it votes.
    pub voter: bool,
    /// The last entry that it is known to have; only the leader knows it of others, once they have answered it.
    pub matched: Option<Revision>,
    /// When it last answered, in ms ago; only the leader knows it of others. Of one that has not answered this leader, for
    /// how long it might have; `None` where its place is kept and it has not come.
    pub last_contact_ms: Option<u64>,
    /// Its disk, as it last reported it.
    pub disk: Option<Disk>,
    /// The highest feature level that its release knows, as it last reported it.
    pub feature_level_max: Option<u32>,
}

/// The disk that a member keeps its data on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// What is free.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
    /// What is kept free.
    pub reserve_bytes: u64,
    /// Whether there is less.
    pub nearly_full: bool,
}

/// The cluster, as the node that is asked sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The identity of the cluster.
    pub cluster_id: uuid::Uuid,
    /// The node that was asked.
    pub node: NodeId,
    /// How it takes part.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log: Revision,
    /// The last entry known to be on a majority.
    pub committed: Revision,
    /// The last entry applied.
    pub applied: Revision,
    /// The last entry of its newest snapshot.
    pub snapshot: Revision,
    /// The first entry that is still in its log.
    pub first_log: Revision,
    /// Log time as of the last applied entry.
    pub log_time: Millis,
    /// All members.
    pub members: Vec<Member>,
    /// Whether a majority answered lately (on the leader) or a leader is known (elsewhere).
    pub healthy: bool,
    /// What is changing about who belongs to it.
    pub under_way: Option<UnderWay>,
    /// The last revision at which this node was found to have the state of the majority; 0 before the first.
    pub agreed: Revision,
    /// The oldest revision whose state can be read, and after which the events are kept.
    pub oldest: Revision,
    /// How large the events that are kept are; `None` while nobody measures.
    pub journal_bytes: Option<u64>,
    /// What is wrong, for people, the worst first.
    pub alarms: Vec<String>,
    /// The feature level that is in force, as of the last applied entry.
    pub feature_level: u32,
    /// The highest that this node's release knows.
    pub feature_level_max: u32,
}

/// Looks at the cluster from this node, and changes who belongs to it.
pub trait Cluster: Send + Sync + 'static {
    /// What it looks like.
    fn status(&self) -> ClusterStatus;
    /// Numbers of the engine.
    fn metrics(&self) -> Vec<Metric>;
    /// Has the leader make a change, whoever leads, within `deadline_ms`.
    fn change(&self, change: Change, deadline_ms: u64) -> BoxFuture<'_, Result<Changed, ChangeError>>;
}

/// Why a backup does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// As many as this node takes at a time are under way.
    #[error("{max} backups of this node are under way, which is the limit; try again when one has ended")]
    Busy {
        /// The limit.
        max: usize,
    },
    /// The replica could not be copied.
    #[error("the state of this node could not be copied: {0}")]
    Failed(String),
}

/// A backup under way, in the format of [`crate::backup`]. Dropping it ends it.
pub trait BackupPieces: Send + 'static {
    /// The next bytes; `None` after the last or where whoever reads was given up, an error where it broke off.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Vec<u8>, String>>>;
}

/// A backup that has begun.
pub struct Backup {
    /// What it is of.
    pub header: crate::backup::Header,
    /// Its bytes.
    pub pieces: Box<dyn BackupPieces>,
}

/// Takes backups of this node's replica, while it serves.
pub trait Backups: Send + Sync + 'static {
    /// Begins a backup of what this node has applied by now. Whoever does not take a piece for `patience_ms` is given up:
    /// until then the backup has one of the few places, and keeps files that the state may have let go of.
    fn take(&self, patience_ms: u64) -> BoxFuture<'_, Result<Backup, BackupError>>;
}

/// A backup that was stored on schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledBackup {
    /// What it is called at the destination.
    pub name: String,
    /// What it is of.
    pub revision: Revision,
    /// The clock of the cluster when it was taken.
    pub taken_at: Millis,
    /// How long ago that was, in ms; at least as long as this node has known of it.
    pub age_ms: u64,
}

/// Where scheduled backups stand, as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// Where they go, without any secret.
    pub destination: String,
    /// How long after one the next is taken, in ms.
    pub interval_ms: u64,
    /// How many are kept.
    pub keep: usize,
    /// How many were there when this node last looked.
    pub kept: usize,
    /// The newest of them.
    pub newest: Option<ScheduledBackup>,
    /// Whether this node is taking one.
    pub running: bool,
    /// How many this node took since it started.
    pub taken: u64,
    /// How many it could not take.
    pub failures: u64,
    /// Why it could not, the last time, unless it could since.
    pub error: Option<String>,
    /// The age of the newest, in ms; where there is none, how long this node has kept to the schedule.
    pub last_success_age_ms: u64,
}

/// Looks at the scheduled backups.
pub trait Schedule: Send + Sync + 'static {
    /// Where they stand.
    fn status(&self) -> ScheduleStatus;
}
