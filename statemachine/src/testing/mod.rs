//! One node in memory behind the three ports, for the tests of those who use them: every proposal is applied at once,
//! and everything is deterministic. Built only with the feature `testing`.
//!
//! Never in a product build: it has no log, no durability and no peers.
//!
//! Beside it, commands out of bytes: [`generate`].

pub mod generate;

use crate::apply::{ENVELOPE_BYTES_MAX, apply_envelope};
use crate::command::{Envelope, Outcome};
use crate::ids::{CommandId, Millis, NodeId, Revision};
use crate::membership::{Change, ChangeError, ChangeRefusal, Changed};
use crate::ports::{
    Backup, BackupError, BackupPieces, Backups, BoxFuture, Cluster, ClusterStatus, Freshness, Member, Metric,
    Past, PastError, Proposal, ProposeError, Proposer, ReadError, Reader, Reading, Role, Stamp,
};
use crate::store::{Fault, MemoryStore, View};
use crate::txn::Txn;
use crate::{codec, history, system};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A node in memory that orders and applies whatever is proposed to it. Implements [`Proposer`], [`Reader`] and
/// [`Cluster`].
#[derive(Debug, Default)]
pub struct SingleNode {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    store: MemoryStore,
    applied: u64,
    now: u64,
    ids: u64,
    /// What the next proposals end with instead of an outcome, first one first.
    failures: Vec<ProposeError>,
    /// What every barrier but a local one ends with.
    unreadable: Option<ReadError>,
    waiting: Vec<Waker>,
}

impl SingleNode {
    /// A node with nothing in it, at log time 0.
    pub fn new() -> Self {
        SingleNode::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the clock that stamps the next proposals.
    pub fn set_now(&self, now: Millis) {
        self.state().now = now.0;
    }

    /// Lets the next proposal end with `error`: `Unknown` after it was applied, all else before.
    pub fn fail_next(&self, error: ProposeError) {
        self.state().failures.push(error);
    }

    /// Lets every barrier but a local one end with `error`, until `None`.
    pub fn fail_barriers(&self, error: Option<ReadError>) {
        self.state().unreadable = error;
    }

    /// Applies an entry that carries no command, as a change of the membership does.
    pub fn apply_blank(&self) {
        let mut state = self.state();
        state.applied += 1;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    fn run(&self, proposal: Proposal) -> Result<Outcome, ProposeError> {
        let mut state = self.state();
        let failure = (!state.failures.is_empty()).then(|| state.failures.remove(0));
        if let Some(failure) = &failure
            && !matches!(failure, ProposeError::Unknown(_))
        {
            return Err(failure.clone());
        }
        state.ids += 1;
        let counter = state.ids.to_be_bytes();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&counter);
        let fresh = uuid::Builder::from_unix_timestamp_millis(state.now, &random).into_uuid();
        let envelope = Envelope {
            command_id: proposal.command_id.unwrap_or(CommandId(fresh)),
            actor: proposal.actor,
            proposed_at: Millis(state.now),
            command: proposal.command,
        };
        let command_id = envelope.command_id;
        let bytes = codec::encode(&envelope).len();
        if bytes > ENVELOPE_BYTES_MAX {
            let max = ENVELOPE_BYTES_MAX;
            return Err(ProposeError::TooLarge { bytes, max });
        }
        let revision = Revision(state.applied + 1);
        let mut txn = Txn::new(&state.store);
        let outcome = apply_envelope(&mut txn, revision, envelope)
            .map_err(|fault| ProposeError::Poisonous(fault.to_string()))?;
        let changes = txn.into_changes();
        state.store.write(changes);
        state.applied = revision.0;
        state.waiting.drain(..).for_each(Waker::wake);
        match failure {
            Some(_) => Err(ProposeError::Unknown(command_id)),
            None => Ok(outcome),
        }
    }
}

impl Proposer for SingleNode {
    fn propose(&self, proposal: Proposal, _deadline_ms: u64) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        Box::pin(async move { self.run(proposal) })
    }

    fn now(&self) -> Millis {
        Millis(self.state().now)
    }
}

impl Reader for SingleNode {
    fn barrier(&self, freshness: Freshness) -> BoxFuture<'_, Result<Stamp, ReadError>> {
        let stamp = self.stamp();
        let unreadable = self.state().unreadable.clone();
        Box::pin(async move {
            match (freshness, unreadable) {
                (Freshness::Local, _) => Ok(stamp),
                (_, Some(error)) => Err(error),
                (Freshness::AtLeast(wanted), None) if wanted > stamp.applied => Err(ReadError::NotApplied {
                    wanted,
                    applied: stamp.applied,
                }),
                _ => Ok(stamp),
            }
        })
    }

    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        if let Err(fault) = read(&self.state().store) {
            panic!("the node stops: {fault}");
        }
    }

    fn stamp(&self) -> Stamp {
        let applied = Revision(self.state().applied);
        Stamp { applied, age_ms: 0 }
    }

    fn past(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Past>, PastError>> {
        let state = self.state();
        let past = past(&state.store, at, Revision(state.applied));
        drop(state);
        Box::pin(async move { past })
    }

    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision> {
        Box::pin(std::future::poll_fn(move |task| {
            let mut state = self.state();
            if state.applied > after.0 {
                return Poll::Ready(Revision(state.applied));
            }
            state.waiting.push(task.waker().clone());
            Poll::Pending
        }))
    }
}

/// The state as of `at`, folded from what `view` has: the [`Reader::past`] of readers in tests.
///
/// # Panics
/// Where `view` is broken.
pub fn past(view: &dyn View, at: Revision, head: Revision) -> Result<Arc<dyn Past>, PastError> {
    history::check(view, at, head).expect("the store is sound")?;
    let past = history::in_memory(view, at).expect("the store is sound");
    Ok(Arc::new(Folded(past)))
}

struct Folded(MemoryStore);

impl Past for Folded {
    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        if let Err(fault) = read(&self.0) {
            panic!("the node stops: {fault}");
        }
    }
}

impl Cluster for SingleNode {
    fn status(&self) -> ClusterStatus {
        let state = self.state();
        let applied = Revision(state.applied);
        let log_time = system::clock(&state.store).map_or(Millis(0), |clock| clock.now);
        ClusterStatus {
            cluster_id: uuid::Uuid::nil(),
            node: NodeId(1),
            role: Role::Leader,
            leader: state.unreadable.is_none().then_some(NodeId(1)),
            term: 1,
            last_log: applied,
            committed: applied,
            applied,
            snapshot: Revision(0),
            first_log: Revision(1),
            log_time,
            members: vec![Member {
                id: NodeId(1),
                peer_address: "127.0.0.1:7401".to_owned(),
                http_url: "http://127.0.0.1:7400".to_owned(),
                voter: true,
                matched: Some(applied),
                last_contact_ms: Some(0),
                disk: None,
                feature_level_max: Some(system::FEATURE_LEVEL_MAX),
            }],
            healthy: state.unreadable.is_none(),
            under_way: None,
            agreed: Revision(0),
            oldest: Revision(0),
            journal_bytes: None,
            alarms: Vec::new(),
            feature_level: system::gate(&state.store).map_or(1, |gate| gate.feature_level),
            feature_level_max: system::FEATURE_LEVEL_MAX,
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let applied = Reading::Gauge(self.state().applied);
        vec![Metric::new(
            "onward_applied_revision",
            "The last entry that was applied.",
            applied,
        )]
    }

    /// As the leader of a cluster of one would answer. Nobody ever starts a node that is added.
    fn change(&self, change: Change, _deadline_ms: u64) -> BoxFuture<'_, Result<Changed, ChangeError>> {
        let me = NodeId(1);
        Box::pin(std::future::ready(match change {
            Change::Add {
                replaces: Some(id), ..
            }
            | Change::Remove { id }
            | Change::Transfer { to: Some(id) }
                if id != me =>
            {
                let members = vec![me];
                Err(ChangeRefusal::NotMember { id, members }.into())
            }
            Change::Add { .. } => Ok(Changed::Admitted {
                id: NodeId(2),
                through: "127.0.0.1:7401".to_owned(),
                cluster_name: "test".to_owned(),
            }),
            Change::Remove { id } => Err(ChangeRefusal::LastVoter { id }.into()),
            Change::Transfer { to: Some(id) } => Ok(Changed::Leads { id }),
            Change::Transfer { to: None } => Err(ChangeRefusal::NoHeir { id: me }.into()),
        }))
    }
}

/// A backup in memory, in pieces of a few bytes.
struct Pieces(std::vec::IntoIter<u8>);

impl BackupPieces for Pieces {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Vec<u8>, String>>> {
        let piece: Vec<u8> = self.0.by_ref().take(100).collect();
        Box::pin(std::future::ready((!piece.is_empty()).then_some(Ok(piece))))
    }
}

impl Backups for SingleNode {
    fn take(&self, _patience_ms: u64) -> BoxFuture<'_, Result<Backup, BackupError>> {
        let state = self.state();
        let header = crate::backup::Header {
            cluster_id: uuid::Uuid::from_u128(1),
            cluster_name: "single".to_owned(),
            node: 1,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            revision: state.applied,
            term: 1,
            feature_level: 1,
            log_time_ms: state.now,
            taken_at_ms: state.now,
            journal_floor: 0,
            node_max: 1,
        };
        let mut bytes = Vec::new();
        let mut writer = crate::backup::Writer::new(&header, &mut bytes);
        for (key, value) in state.store.rows() {
            writer.row(key, value, &mut bytes);
        }
        writer.end(&mut bytes);
        let pieces = Box::new(Pieces(bytes.into_iter()));
        Box::pin(std::future::ready(Ok(Backup { header, pieces })))
    }
}
