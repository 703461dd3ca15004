//! What a node tells about itself and the cluster.

use crate::engine::Engine;
use crate::metrics;
use crate::types::{TypeConfig, revision_of};
use onward_statemachine::membership::{Change, ChangeError, Changed, JoinStep, UnderWay};
use onward_statemachine::ports::{BoxFuture, Cluster, ClusterStatus, Member, Metric, Role};
use onward_statemachine::{NodeId, Revision, system};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};
use std::collections::BTreeSet;
use std::sync::Arc;

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
            under_way: under_way(engine, &metrics),
        }
    }

    fn change(&self, change: Change, deadline_ms: u64) -> BoxFuture<'_, Result<Changed, ChangeError>> {
        Box::pin(self.0.make_change(change, deadline_ms))
    }

    fn metrics(&self) -> Vec<Metric> {
        metrics::of(&self.0, &self.status())
    }
}

/// What is changing about who belongs to the cluster, as far as this node knows.
fn under_way(engine: &Engine, metrics: &RaftMetrics<TypeConfig>) -> Option<UnderWay> {
    let membership = metrics.membership_config.membership();
    let ids = |voters: &BTreeSet<u64>| voters.iter().copied().map(NodeId).collect();
    if let [from, .., to] = membership.get_joint_config().as_slice() {
        return Some(UnderWay::Voting {
            from: ids(from),
            to: ids(to),
        });
    }
    let id = membership.learner_ids().min()?;
    let awaited = membership.get_node(&id).is_some_and(|node| node.http.is_empty());
    let step = match engine.peers.transfer_to(id) {
        _ if awaited => JoinStep::Awaited,
        Some((sent_bytes, total_bytes)) => JoinStep::Snapshot {
            sent_bytes,
            total_bytes,
        },
        None => {
            let known = metrics.replication.as_ref().and_then(|known| known.get(&id));
            let matched = known.map(|matched| revision_of(matched.as_ref()));
            let last = metrics.last_log_index.unwrap_or(0);
            JoinStep::CatchingUp {
                lag: matched.map(|matched| last.saturating_sub(matched.0)),
            }
        }
    };
    Some(UnderWay::Joining { id: NodeId(id), step })
}
