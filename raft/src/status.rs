//! What a node tells about itself and the cluster.

use crate::alarms;
use crate::engine::Engine;
use crate::metrics;
use crate::room::{Measured, Stage};
use crate::types::{PeerNode, TypeConfig, revision_of};
use onward_statemachine::membership::{Change, ChangeError, Changed, JoinStep, UnderWay};
use onward_statemachine::ports::{BoxFuture, Cluster, ClusterStatus, Disk, Member, Metric, Role};
use onward_statemachine::{NodeId, Revision, history, retention, system};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The cluster as one node sees it.
pub(crate) struct NodeCluster(pub(crate) Arc<Engine>);

impl Cluster for NodeCluster {
    fn status(&self) -> ClusterStatus {
        let engine = &self.0;
        // Before who belongs to the cluster, which is then at least as new: a member that was let in by then is among them.
        let applied = engine.state.applied();
        let metrics = engine.raft.metrics();
        let mut metrics = metrics.borrow_watched().clone();
        if let Ok(known) = engine.state.membership()
            && known.log_id() > metrics.membership_config.log_id()
        {
            metrics.membership_config = Arc::new(known);
        }
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let role = match metrics.state {
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Follower | ServerState::Shutdown => Role::Follower,
        };
        let acked = metrics
            .last_quorum_acked
            .map(|acked| acked.into_inner().elapsed());
        let healthy = match role {
            Role::Leader => voters.len() == 1 || acked.is_some_and(|age| age < engine.timings.lease() * 2),
            _ => engine.leader().is_some() && engine.age_ms() < engine.timings.election_max_ms * 2,
        };
        let (log_time, gate, oldest, journal) = engine.state.read(|view| {
            let now = system::clock(view)?.now;
            Ok((
                now,
                system::gate(view)?,
                history::oldest(view)?,
                retention::size(view)?,
            ))
        });
        let mut status = ClusterStatus {
            alarms: Vec::new(),
            agreed: Revision(engine.counters.hash_agreed_revision.load(Relaxed)),
            cluster_id: engine.cluster_id(),
            node: engine.identity.node,
            role,
            leader: engine.leader().map(|(id, _)| NodeId(id)),
            term: metrics.current_term,
            last_log: Revision(metrics.last_log_index.unwrap_or(0)),
            committed: revision_of(metrics.cluster_committed.max(metrics.local_committed).as_ref()),
            applied,
            snapshot: revision_of(metrics.snapshot.as_ref()),
            first_log: Revision(engine.log.first_index()),
            log_time,
            oldest,
            journal_bytes: journal.map(|size| size.kept()),
            members: members(engine, &metrics, &voters),
            healthy,
            under_way: under_way(engine, &metrics),
            feature_level: gate.feature_level,
            feature_level_max: system::FEATURE_LEVEL_MAX,
        };
        status.alarms = alarms::of(engine, &status);
        status
    }

    fn change(&self, change: Change, deadline_ms: u64) -> BoxFuture<'_, Result<Changed, ChangeError>> {
        Box::pin(self.0.make_change(change, deadline_ms))
    }

    fn metrics(&self) -> Vec<Metric> {
        metrics::of(&self.0, &self.status())
    }
}

/// All members, as far as this node knows: how far the others are, the leader does.
fn members(engine: &Engine, metrics: &RaftMetrics<TypeConfig>, voters: &BTreeSet<u64>) -> Vec<Member> {
    let reports = engine.reports.fresh();
    let leads = metrics.state == ServerState::Leader;
    let member = |(id, node): (&u64, &PeerNode)| {
        let myself = *id == engine.id();
        let report = reports.get(id);
        let heard = metrics.heartbeat.as_ref().and_then(|known| *known.get(id)?);
        let silent = heard.map(|heard| heard.into_inner().elapsed());
        // One that never answered this leader was expected to, unless its place is kept for it.
        let expected = leads && !node.http.is_empty();
        let silent =
            silent.or_else(|| expected.then(|| engine.expected.for_how_long(metrics.current_term, *id)));
        Member {
            id: NodeId(*id),
            peer_address: node.peer.clone(),
            http_url: node.http.clone(),
            voter: voters.contains(id),
            matched: if myself {
                metrics.last_log_index.map(Revision)
            } else {
                matched(metrics, *id)
            },
            last_contact_ms: if myself {
                Some(0)
            } else {
                silent.map(|silent| silent.as_millis() as u64)
            },
            disk: report.and_then(|report| report.room).map(disk),
            feature_level_max: report.map(|report| report.feature_level_max),
        }
    };
    metrics
        .membership_config
        .membership()
        .nodes()
        .map(member)
        .collect()
}

/// Up to where a member is known to have the log of this leader; of one that has not answered it yet that is not known.
fn matched(metrics: &RaftMetrics<TypeConfig>, id: u64) -> Option<Revision> {
    let known = metrics.replication.as_ref()?.get(&id)?;
    known.as_ref().map(|matched| Revision(matched.index))
}

fn disk(measured: Measured) -> Disk {
    let Measured {
        free_bytes,
        total_bytes,
        reserve_bytes,
        stage,
    } = measured;
    Disk {
        free_bytes,
        total_bytes,
        reserve_bytes,
        nearly_full: stage > Stage::Enough,
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
            let last = metrics.last_log_index.unwrap_or(0);
            JoinStep::CatchingUp {
                lag: matched(metrics, id).map(|matched| last.saturating_sub(matched.0)),
            }
        }
    };
    Some(UnderWay::Joining { id: NodeId(id), step })
}
