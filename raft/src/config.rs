//! What a node is told when it starts, and how openraft is set up from it.

use onward_statemachine::NodeId;
use openraft::{SnapshotPolicy as RaftSnapshotPolicy, StepDownPolicy};
use std::net::TcpListener;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that a node needs to start.
#[derive(Debug)]
pub struct Config {
    /// Where all of it lives; created when it is not there.
    pub data_dir: PathBuf,
    /// The name of the cluster; all members have the same.
    pub cluster_name: String,
    /// Which of `initial_members` this node is. `None` for a node that joins, and for one whose directory knows.
    pub node_id: Option<NodeId>,
    /// How a fresh node joins a running cluster. Ignored once it has an identity and a log.
    pub join: Option<Join>,
    /// Where to listen for peers, `host:port`.
    pub peer_listen: String,
    /// A socket that listens already and takes the place of `peer_listen`: from a service manager, or a test.
    pub peer_listener: Option<TcpListener>,
    /// Where peers reach this node, `host:port`; the listening address when `None`.
    pub peer_advertise: Option<String>,
    /// Where this node's API is reached, `http://host:port`.
    pub http_url: String,
    /// The members that form the cluster, the same list on each of them; empty on a node that joins.
    pub initial_members: Vec<InitialMember>,
    /// Heartbeats and elections.
    pub timings: Timings,
    /// When the log is compacted.
    pub snapshots: SnapshotPolicy,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// The defaults around what has none.
    pub fn new(data_dir: impl Into<PathBuf>, cluster_name: impl Into<String>) -> Self {
        Config {
            data_dir: data_dir.into(),
            cluster_name: cluster_name.into(),
            node_id: None,
            join: None,
            peer_listen: "127.0.0.1:7401".to_owned(),
            peer_listener: None,
            peer_advertise: None,
            http_url: "http://127.0.0.1:7400".to_owned(),
            initial_members: Vec::new(),
            timings: Timings::default(),
            snapshots: SnapshotPolicy::default(),
            limits: Limits::default(),
        }
    }
}

/// One of the members that form a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its id.
    pub id: NodeId,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where its API is, `http://host:port`.
    pub http_url: String,
}

/// How a fresh node joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The peer address of any member, `host:port`.
    pub peer_address: String,
    /// The member whose place it takes, which is removed: a wiped node comes back under a new id.
    pub replaces: Option<NodeId>,
}

/// Heartbeats and elections.
///
/// A follower stands for election `election_max_ms + (election_min_ms..election_max_ms)` after it last heard from a
/// leader: by the defaults nobody disturbs a leader that is silent for less than 750 ms, and the first of two followers
/// stands after 830 ms in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// The shortest election timeout.
    pub election_min_ms: u64,
    /// The longest election timeout; also the leader lease.
    pub election_max_ms: u64,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            heartbeat_ms: 150,
            election_min_ms: 250,
            election_max_ms: 500,
        }
    }
}

impl Timings {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }

    /// How long a peer may take to answer before its connection is given up.
    pub(crate) fn rpc_deadline(&self) -> Duration {
        Duration::from_millis((self.election_max_ms * 3).max(1_000))
    }
}

/// When a snapshot is taken and how much of the log stays behind it for members that lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// After this many entries.
    pub entries: u64,
    /// Or after this many bytes of them.
    pub log_bytes: u64,
    /// Entries kept in the log though the snapshot has them; of more than 10,000 those that are in its last few segments.
    pub keep_entries: u64,
    /// How fast one is sent, so that writes are served meanwhile; `None` is as fast as it goes.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        SnapshotPolicy {
            entries: 100_000,
            log_bytes: 512 << 20,
            keep_entries: 250_000,
            bytes_per_second: NonZeroU64::new(128 << 20),
        }
    }
}

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most proposals under way on this node, its own and those that peers forwarded to it each.
    pub in_flight_max: usize,
    /// The most bytes of commands under way on this node: they wait in RAM until they are applied, or answered by the
    /// leader.
    pub in_flight_bytes_max: usize,
    /// The most reads that wait on this node to be fresh enough. As many as connections to its API, so that nobody who has
    /// a connection of its own is turned away.
    pub reads_waiting_max: usize,
    /// How much of the disk is kept free, in bytes: with less than that, writes that add are refused. `None` is a
    /// twentieth of the disk, at least 1280 MiB, at most 2 GiB and a quarter of the disk; 0 refuses nothing.
    pub disk_reserve_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            in_flight_max: 8192,
            in_flight_bytes_max: 256 << 20,
            reads_waiting_max: 16_384,
            disk_reserve_bytes: None,
        }
    }
}

/// The longest that a snapshot may take to be sent and installed.
pub(crate) const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// openraft's options, each one that matters set here and none left to a default that may change.
pub(crate) fn raft_config(
    config: &Config,
    may_lead: bool,
) -> Result<Arc<openraft::Config>, openraft::ConfigError> {
    let Timings {
        heartbeat_ms,
        election_min_ms,
        election_max_ms,
    } = config.timings;
    let raft = openraft::Config {
        cluster_name: config.cluster_name.clone(),
        enable_elect: may_lead,
        heartbeat_interval: heartbeat_ms,
        // Under load an acknowledged append is proof of life enough.
        heartbeat_min_interval: Some(heartbeat_ms / 3),
        election_timeout_min: election_min_ms,
        election_timeout_max: election_max_ms,
        // A node that cannot win does not disturb a leader that is well.
        enable_pre_vote: Some(true),
        // A leader that lost its majority falls silent, so that those who hear it may elect another.
        quorum_loss_probe_interval: Some(election_max_ms * 2),
        install_snapshot_timeout: SNAPSHOT_DEADLINE.as_millis() as u64,
        snapshot_policy: RaftSnapshotPolicy::LogsSinceLast(config.snapshots.entries.max(1)),
        // What is purged, and when, is for `crate::purge` to say.
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: config
            .snapshots
            .entries
            .saturating_add(config.snapshots.keep_entries)
            .saturating_add(1),
        // The log store bounds a message by bytes.
        max_payload_entries: 4096,
        max_append_entries: Some(4096),
        api_batch_capacity: 4096,
        // What a restarted node has applied may lag what it acknowledged, so it must be elected before it leads again.
        enable_leader_restore: Some(false),
        removed_leader_step_down: StepDownPolicy::After(heartbeat_ms),
        allow_log_reversion: Some(false),
        backoff: "50ms 100ms ...500ms".to_owned(),
        ..openraft::Config::default()
    };
    raft.validate().map(Arc::new)
}
