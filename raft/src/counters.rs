//! Numbers that the engine counts as it goes, read by `metrics()`.

use onward_statemachine::ports::Histogram;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) log_syncs: AtomicU64,
    pub(crate) log_synced_entries: AtomicU64,
    pub(crate) log_synced_bytes: AtomicU64,
    pub(crate) apply_batches: AtomicU64,
    pub(crate) applied_entries: AtomicU64,
    pub(crate) snapshots_built: AtomicU64,
    pub(crate) snapshots_sent: AtomicU64,
    pub(crate) snapshots_installed: AtomicU64,
    pub(crate) backups_streamed: AtomicU64,
    pub(crate) proposals_in_flight: AtomicUsize,
    pub(crate) submissions_in_flight: AtomicUsize,
    /// Bytes of commands that wait to be applied, or to be answered by the leader.
    pub(crate) bytes_in_flight: AtomicUsize,
    pub(crate) proposals: AtomicU64,
    pub(crate) proposals_overloaded: AtomicU64,
    pub(crate) proposals_without_room: AtomicU64,
    pub(crate) proposals_forwarded: AtomicU64,
    pub(crate) proposals_served_for_peers: AtomicU64,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) reads_overloaded: AtomicU64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) peer_refusals: AtomicU64,
    pub(crate) peer_connections: AtomicU64,
    /// Elections that this node stood in, and the term of the last one.
    elections: AtomicU64,
    stood_in: AtomicU64,
    pub(crate) elections_won: AtomicU64,
    pub(crate) hash_checks: AtomicU64,
    pub(crate) hash_agreed_revision: AtomicU64,
    pub(crate) hash_odd_members: AtomicU64,
    pub(crate) hash_disputed: AtomicU64,
    pub(crate) steps: Steps,
    /// From the proposal of a caller of this node to its outcome.
    pub(crate) proposing: Histogram,
    /// One sync of the log each, with the write before it.
    pub(crate) log_sync: Histogram,
    /// One write batch of applied entries each.
    pub(crate) apply_batch: Histogram,
    pub(crate) snapshot_build: Histogram,
}

/// How long writes take for each step of their way through this node, each write counted once in each step that it takes
/// here: the first and the last on the leader only.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// From being handed to consensus to a place in the log, in RAM.
    pub(crate) queue: Histogram,
    /// From there until the log's writer takes it up: the rest of the sync before.
    pub(crate) append: Histogram,
    /// Written and synced, with all that was taken up together.
    pub(crate) sync: Histogram,
    /// From its place in the log until it is on a majority, as far as this node knows, and its turn to be applied has
    /// come. On the leader its own append and sync go on at the same time.
    pub(crate) replicate: Histogram,
    /// Decided, evolved and written, with all that was applied together.
    pub(crate) apply: Histogram,
    /// From there until the one who proposed it goes on, if it is a caller of this node; or until its outcome is written to
    /// the connection of the node that forwarded it.
    pub(crate) reply: Histogram,
}

impl Steps {
    /// Each step with its name, in their order.
    pub(crate) fn all(&self) -> [(&'static str, &Histogram); 6] {
        [
            ("queue", &self.queue),
            ("append", &self.append),
            ("sync", &self.sync),
            ("replicate", &self.replicate),
            ("apply", &self.apply),
            ("reply", &self.reply),
        ]
    }
}

impl Counters {
    /// Proposals of this node's own callers.
    pub(crate) fn in_flight(&self) -> &AtomicUsize {
        &self.proposals_in_flight
    }

    /// Notes that this node asks for votes in `term`: of each peer, so several times for one election.
    pub(crate) fn stand(&self, term: u64) {
        if self.stood_in.fetch_max(term, Relaxed) < term {
            self.elections.fetch_add(1, Relaxed);
        }
    }

    /// Elections that this node stood in.
    pub(crate) fn elections(&self) -> &AtomicU64 {
        &self.elections
    }

    /// Proposals that were put into this node's log and wait to be applied.
    pub(crate) fn submitted(&self) -> &AtomicUsize {
        &self.submissions_in_flight
    }
}
