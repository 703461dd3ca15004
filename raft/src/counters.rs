//! Numbers that the engine counts as it goes, read by `metrics()`.

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
    pub(crate) proposals_in_flight: AtomicUsize,
    pub(crate) submissions_in_flight: AtomicUsize,
    pub(crate) proposals: AtomicU64,
    pub(crate) proposals_overloaded: AtomicU64,
    pub(crate) proposals_forwarded: AtomicU64,
    pub(crate) proposals_served_for_peers: AtomicU64,
    pub(crate) read_rounds: AtomicU64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) peer_refusals: AtomicU64,
    pub(crate) peer_connections: AtomicU64,
}

impl Counters {
    /// Proposals of this node's own callers.
    pub(crate) fn in_flight(&self) -> &AtomicUsize {
        &self.proposals_in_flight
    }

    /// Proposals that were put into this node's log and wait to be applied.
    pub(crate) fn submitted(&self) -> &AtomicUsize {
        &self.submissions_in_flight
    }
}
