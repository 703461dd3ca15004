//! The numbers of the engine as `/metrics` shows them. All of them are there from the start, at 0 where nothing has
//! happened: who watches a number must find it before it moves. What a leader knows of the others is there while it leads:
//! how long each has been silent from the start, how far it lags once it has answered this leader.

use crate::engine::Engine;
use crate::room::Stage;
use onward_statemachine::ports::{ClusterStatus, Metric, Reading, Role};
use std::sync::atomic::Ordering::Relaxed;

/// All numbers, those of one name side by side.
pub(crate) fn of(engine: &Engine, status: &ClusterStatus) -> Vec<Metric> {
    let mut all = counted(engine);
    all.extend(standing(engine, status));
    all.extend(timed(engine));
    all.extend(peers(status));
    all
}

/// What only grows.
fn counted(engine: &Engine) -> Vec<Metric> {
    let counters = &engine.counters;
    let rows = [
        (
            "onward_raft_log_syncs_total",
            "Syncs of the log.",
            &counters.log_syncs,
        ),
        (
            "onward_raft_log_synced_entries_total",
            "Entries made durable; by the syncs: entries a sync.",
            &counters.log_synced_entries,
        ),
        (
            "onward_raft_log_synced_bytes_total",
            "Bytes of entries made durable; by the syncs: bytes a sync.",
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
            "onward_raft_backups_streamed_total",
            "Backups that this node streamed to their end, asked for or on schedule.",
            &counters.backups_streamed,
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
            "onward_raft_proposals_without_room_total",
            "Proposals refused because the disk is nearly full.",
            &counters.proposals_without_room,
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
            "onward_raft_reads_overloaded_total",
            "Reads turned away.",
            &counters.reads_overloaded,
        ),
        (
            "onward_raft_leader_changes_total",
            "Leaders seen.",
            &counters.leader_changes,
        ),
        (
            "onward_raft_elections_total",
            "Elections that this node stood in.",
            counters.elections(),
        ),
        (
            "onward_raft_elections_won_total",
            "Times that this node became the leader.",
            &counters.elections_won,
        ),
        (
            "onward_raft_state_hash_checks_total",
            "Marks at which this node had the state of the majority.",
            &counters.hash_checks,
        ),
        (
            "onward_raft_state_hash_odd_members_total",
            "Members that this node, as the leader, found with another state than the majority's.",
            &counters.hash_odd_members,
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
        .map(|(name, help, counter)| Metric::new(name, help, Reading::Counter(counter.load(Relaxed))))
        .collect()
}

/// What goes up and down.
fn standing(engine: &Engine, status: &ClusterStatus) -> Vec<Metric> {
    let counters = &engine.counters;
    let room = engine.room.own();
    let rows = [
        (
            "onward_raft_proposals_in_flight",
            "Proposals under way.",
            counters.proposals_in_flight.load(Relaxed) as u64,
        ),
        (
            "onward_raft_submissions_in_flight",
            "Proposals in this node's log, its own and its peers', that wait to be applied.",
            counters.submissions_in_flight.load(Relaxed) as u64,
        ),
        (
            "onward_raft_in_flight_bytes",
            "Bytes of commands that wait to be applied, or to be answered by the leader.",
            counters.bytes_in_flight.load(Relaxed) as u64,
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
            "onward_raft_snapshot_bytes",
            "The size of the newest snapshot.",
            engine.state.snapshot_bytes(),
        ),
        (
            "onward_raft_first_log_revision",
            "The first entry still in the log.",
            status.first_log.0,
        ),
        (
            "onward_raft_leader_age_ms",
            "How long ago a leader was heard.",
            engine.age_ms(),
        ),
        (
            "onward_raft_disk_free_bytes",
            "What is free on the disk of this node's data.",
            room.map_or(0, |room| room.free_bytes),
        ),
        (
            "onward_raft_disk_total_bytes",
            "The size of that disk; 0 where it cannot be measured.",
            room.map_or(0, |room| room.total_bytes),
        ),
        (
            "onward_raft_disk_reserve_bytes",
            "What is kept free: with less, writes that add are refused.",
            room.map_or(0, |room| room.reserve_bytes),
        ),
        (
            "onward_raft_disk_nearly_full",
            "1 where less than the reserve is free.",
            u64::from(room.is_some_and(|room| room.stage > Stage::Enough)),
        ),
        (
            "onward_raft_writes_refused",
            "1 on a leader that refuses writes for lack of room on the disks.",
            u64::from(engine.room.shortage().is_some()),
        ),
        (
            "onward_raft_state_hash_agreed_revision",
            "The last mark at which this node had the state of the majority.",
            counters.hash_agreed_revision.load(Relaxed),
        ),
        (
            "onward_raft_state_hash_disputed",
            "1 on a leader whose members hold different states without a majority for one.",
            counters.hash_disputed.load(Relaxed),
        ),
        (
            "onward_raft_feature_level",
            "The feature level that is in force.",
            u64::from(status.feature_level),
        ),
        (
            "onward_raft_feature_level_max",
            "The highest feature level that this node's release knows.",
            u64::from(status.feature_level_max),
        ),
        (
            "onward_raft_clock_offset_ms",
            "How far this machine's clock is from that of most members, whether ahead or behind.",
            engine.clock.offset_ms().unsigned_abs(),
        ),
    ];
    rows.into_iter()
        .map(|(name, help, value)| Metric::new(name, help, Reading::Gauge(value)))
        .collect()
}

/// What takes time.
fn timed(engine: &Engine) -> Vec<Metric> {
    let counters = &engine.counters;
    let steps = counters.steps.all().into_iter().map(|(step, histogram)| {
        Metric::new(
            "onward_raft_write_step_seconds",
            "How long writes take for each step of their way through this node; `reply`, on the leader, until its own caller \
             goes on or the outcome is written to the connection of the node that forwarded it (docs/operations.md).",
            histogram.times().into(),
        )
        .labelled("step", &step)
    });
    let rows = [
        (
            "onward_raft_proposal_seconds",
            "From a proposal made on this node to its outcome.",
            &counters.proposing,
        ),
        (
            "onward_raft_log_sync_seconds",
            "One write and sync of the log each.",
            &counters.log_sync,
        ),
        (
            "onward_raft_apply_batch_seconds",
            "One batch of applied entries each.",
            &counters.apply_batch,
        ),
        (
            "onward_raft_snapshot_build_seconds",
            "One snapshot each.",
            &counters.snapshot_build,
        ),
    ];
    let rows = rows.map(|(name, help, histogram)| Metric::new(name, help, histogram.times().into()));
    steps.chain(rows).collect()
}

/// What the leader knows of the members.
fn peers(status: &ClusterStatus) -> Vec<Metric> {
    let lag = status.members.iter().filter_map(|member| {
        let matched = member.matched?;
        let lag = Metric::new(
            "onward_raft_peer_lag_entries",
            "Entries that a member lacks, once it has answered this leader.",
            Reading::Gauge(status.last_log.0.saturating_sub(matched.0)),
        );
        Some(lag.labelled("node", &member.id))
    });
    let contact = status.members.iter().filter_map(|member| {
        let contact = Metric::new(
            "onward_raft_peer_last_contact_ms",
            "How long ago a member last answered the leader; where it never has, how long the leader has waited for it.",
            Reading::Gauge(member.last_contact_ms?),
        );
        Some(contact.labelled("node", &member.id))
    });
    lag.chain(contact).collect()
}
