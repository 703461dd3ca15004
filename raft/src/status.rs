//! What a node tells about itself and the cluster.

use crate::engine::Engine;
use crate::types::revision_of;
use onward_statemachine::ports::{Cluster, ClusterStatus, Member, Metric, MetricKind, Role};
use onward_statemachine::{NodeId, Revision, system};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, ServerState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The cluster as one node sees it.
pub(crate) struct NodeCluster(pub(crate) Arc<Engine>);

impl Cluster for NodeCluster {
    fn status(&self) -> ClusterStatus {
        let engine = &self.0;
        let metrics = engine.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Follower | ServerState::Shutdown => Role::Follower,
        };
        let members = membership.nodes().map(|(id, node)| {
            let myself = *id == engine.id();
            let matched = metrics.replication.as_ref().and_then(|known| known.get(id));
            let heard = metrics.heartbeat.as_ref().and_then(|known| known.get(id));
            Member {
                id: NodeId(*id),
                peer_address: node.peer.clone(),
                http_url: node.http.clone(),
                voter: voters.contains(id),
                matched: if myself {
                    metrics.last_log_index.map(Revision)
                } else {
                    matched.map(|matched| revision_of(matched.as_ref()))
                },
                last_contact_ms: if myself {
                    Some(0)
                } else {
                    heard
                        .copied()
                        .flatten()
                        .map(|heard| heard.into_inner().elapsed().as_millis() as u64)
                },
            }
        });
        let acked = metrics
            .last_quorum_acked
            .map(|acked| acked.into_inner().elapsed());
        let healthy = match role {
            Role::Leader => voters.len() == 1 || acked.is_some_and(|age| age < engine.timings.lease() * 2),
            _ => engine.leader().is_some() && engine.age_ms() < engine.timings.election_max_ms * 2,
        };
        ClusterStatus {
            cluster_id: engine.cluster_id(),
            node: engine.identity.node,
            role,
            leader: engine.leader().map(|(id, _)| NodeId(id)),
            term: metrics.current_term,
            last_log: Revision(metrics.last_log_index.unwrap_or(0)),
            committed: revision_of(metrics.cluster_committed.max(metrics.local_committed).as_ref()),
            applied: engine.state.applied(),
            snapshot: revision_of(metrics.snapshot.as_ref()),
            first_log: Revision(engine.log.first_index()),
            log_time: engine.state.read(|view| Ok(system::clock(view)?.now)),
            members: members.collect(),
            healthy,
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let status = self.status();
        let mut all = self.counted();
        all.extend(self.standing(&status));
        for member in &status.members {
            let labels = vec![("node", member.id.to_string())];
            if let Some(matched) = member.matched {
                all.push(Metric {
                    name: "onward_raft_peer_lag_entries",
                    help: "Entries that a member lacks, as the leader knows.",
                    kind: MetricKind::Gauge,
                    labels: labels.clone(),
                    value: status.last_log.0.saturating_sub(matched.0),
                });
            }
            if let Some(value) = member.last_contact_ms {
                all.push(Metric {
                    name: "onward_raft_peer_last_contact_ms",
                    help: "How long ago a member last answered the leader.",
                    kind: MetricKind::Gauge,
                    labels,
                    value,
                });
            }
        }
        all
    }
}

fn plain(name: &'static str, help: &'static str, kind: MetricKind, value: u64) -> Metric {
    Metric {
        name,
        help,
        kind,
        labels: Vec::new(),
        value,
    }
}

impl NodeCluster {
    fn counted(&self) -> Vec<Metric> {
        let counters = &self.0.counters;
        let rows = [
            (
                "onward_raft_log_syncs_total",
                "Syncs of the log.",
                &counters.log_syncs,
            ),
            (
                "onward_raft_log_synced_entries_total",
                "Entries made durable.",
                &counters.log_synced_entries,
            ),
            (
                "onward_raft_log_synced_bytes_total",
                "Bytes of entries made durable.",
                &counters.log_synced_bytes,
            ),
            (
                "onward_raft_applied_entries_total",
                "Entries applied.",
                &counters.applied_entries,
            ),
            (
                "onward_raft_apply_batches_total",
                "Write batches of applied entries.",
                &counters.apply_batches,
            ),
            (
                "onward_raft_snapshots_built_total",
                "Snapshots built.",
                &counters.snapshots_built,
            ),
            (
                "onward_raft_snapshots_sent_total",
                "Snapshots sent to peers.",
                &counters.snapshots_sent,
            ),
            (
                "onward_raft_snapshots_installed_total",
                "Snapshots installed.",
                &counters.snapshots_installed,
            ),
            (
                "onward_raft_proposals_total",
                "Proposals made on this node.",
                &counters.proposals,
            ),
            (
                "onward_raft_proposals_overloaded_total",
                "Proposals turned away.",
                &counters.proposals_overloaded,
            ),
            (
                "onward_raft_proposals_forwarded_total",
                "Proposals sent to the leader.",
                &counters.proposals_forwarded,
            ),
            (
                "onward_raft_proposals_for_peers_total",
                "Proposals taken from peers.",
                &counters.proposals_served_for_peers,
            ),
            (
                "onward_raft_read_rounds_total",
                "Rounds of reads asked of the leader.",
                &counters.read_rounds,
            ),
            (
                "onward_raft_leader_changes_total",
                "Leaders seen.",
                &counters.leader_changes,
            ),
            (
                "onward_raft_peer_connections_total",
                "Connections opened to peers.",
                &counters.peer_connections,
            ),
            (
                "onward_raft_peer_refusals_total",
                "Peer connections refused.",
                &counters.peer_refusals,
            ),
        ];
        rows.into_iter()
            .map(|(name, help, counter)| plain(name, help, MetricKind::Counter, counter.load(Relaxed)))
            .collect()
    }

    fn standing(&self, status: &ClusterStatus) -> Vec<Metric> {
        let in_flight = self.0.counters.proposals_in_flight.load(Relaxed) as u64;
        let rows = [
            (
                "onward_raft_proposals_in_flight",
                "Proposals under way.",
                in_flight,
            ),
            ("onward_raft_term", "The term.", status.term),
            (
                "onward_raft_is_leader",
                "1 on the leader.",
                u64::from(status.role == Role::Leader),
            ),
            (
                "onward_raft_healthy",
                "1 where a majority is in touch.",
                u64::from(status.healthy),
            ),
            (
                "onward_raft_last_log_revision",
                "The last entry of the log.",
                status.last_log.0,
            ),
            (
                "onward_raft_committed_revision",
                "The last committed entry.",
                status.committed.0,
            ),
            (
                "onward_raft_applied_revision",
                "The last applied entry.",
                status.applied.0,
            ),
            (
                "onward_raft_snapshot_revision",
                "The last entry of the newest snapshot.",
                status.snapshot.0,
            ),
            (
                "onward_raft_first_log_revision",
                "The first entry still in the log.",
                status.first_log.0,
            ),
            (
                "onward_raft_leader_age_ms",
                "How long ago a leader was heard.",
                self.0.age_ms(),
            ),
        ];
        rows.into_iter()
            .map(|(name, help, value)| plain(name, help, MetricKind::Gauge, value))
            .chain([plain(
                "onward_raft_clock_offset_ms",
                "How far this machine's clock is from that of most members, whether ahead or behind.",
                MetricKind::Gauge,
                self.0.clock.offset_ms().unsigned_abs(),
            )])
            .collect()
    }
}
