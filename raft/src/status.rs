//! What a node tells about itself and the cluster.

use crate::engine::Engine;
use crate::metrics;
use crate::room::{Measured, Stage};
use crate::types::{TypeConfig, revision_of};
use onward_statemachine::membership::{Change, ChangeError, Changed, JoinStep, UnderWay};
use onward_statemachine::ports::{BoxFuture, Cluster, ClusterStatus, Disk, Member, Metric, Role};
use onward_statemachine::{NodeId, Revision, history, retention, system};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, RaftMetrics, ServerState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A member that has not answered the leader for so long is an alarm.
const SILENT_MS: u64 = 5_000;

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
        let reports = engine.reports.fresh();
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
                disk: reports.get(id).and_then(|report| report.room).map(disk),
            }
        });
        let acked = metrics
            .last_quorum_acked
            .map(|acked| acked.into_inner().elapsed());
        let healthy = match role {
            Role::Leader => voters.len() == 1 || acked.is_some_and(|age| age < engine.timings.lease() * 2),
            _ => engine.leader().is_some() && engine.age_ms() < engine.timings.election_max_ms * 2,
        };
        let members: Vec<Member> = members.collect();
        let (log_time, oldest, journal) = engine.state.read(|view| {
            let now = system::clock(view)?.now;
            Ok((now, history::oldest(view)?, retention::size(view)?))
        });
        ClusterStatus {
            alarms: alarms(engine, healthy, &members),
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
            members,
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

/// What an operator has to see to, the worst first.
fn alarms(engine: &Engine, healthy: bool, members: &[Member]) -> Vec<String> {
    let mut alarms = Vec::new();
    if !healthy {
        alarms.push("no majority of the members is in touch: nothing can be written".to_owned());
    }
    if engine.counters.hash_disputed.load(Relaxed) > 0 {
        alarms.push("members hold different states, and no majority tells who is right".to_owned());
    }
    if engine.room.shortage().is_some() {
        alarms.push("writes are refused, for lack of room on the disks; deletes are taken".to_owned());
    }
    for member in members {
        let id = member.id;
        if let Some(disk) = member.disk.filter(|disk| disk.nearly_full) {
            let (free, reserve) = (disk.free_bytes >> 20, disk.reserve_bytes >> 20);
            alarms.push(format!(
                "the disk of node {id} is nearly full: {free} MiB are free, {reserve} MiB are kept in reserve"
            ));
        }
        let silent = member.last_contact_ms.filter(|ms| *ms > SILENT_MS);
        if let Some(ms) = silent {
            alarms.push(format!("node {id} has not answered for {} s", ms / 1000));
        }
    }
    alarms
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
