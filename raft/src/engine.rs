//! What all parts of a running node share.

use crate::clock::ClusterClock;
use crate::config::{InitialMember, Limits, SnapshotPolicy, Timings};
use crate::contact::Expected;
use crate::counters::Counters;
use crate::fault::die;
use crate::history::Queue;
use crate::identity::Identity;
use crate::log::LogStore;
use crate::member::Standing;
use crate::peer::Peers;
use crate::promise::Promise;
use crate::read::Rounds;
use crate::report::Reports;
use crate::room::Room;
use crate::runtime::{Tasks, watch};
use crate::state::{State, StateStore};
use crate::trust::{Lives, Trust};
use crate::types::{PeerNode, TypeConfig};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::raft::AppendEntriesRequest;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) type Raft = openraft::Raft<TypeConfig, StateStore>;

/// How often the size of the log is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The same while this node has not caught up yet.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);

/// Who leads, as this node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    pub(crate) leader: Option<(u64, PeerNode)>,
}

/// One running node.
pub(crate) struct Engine {
    parts: Parts,
    pub(crate) rounds: Rounds,
    pub(crate) reports: Reports,
    pub(crate) expected: Expected,
    pub(crate) room: Room,
    /// Told when there is something for the leader to settle.
    pub(crate) judge: Notify,
    pub(crate) queue: Queue,
    /// Held while this leader changes the membership: one step at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// Cancelled first when the node goes down: nothing new begins.
    pub(crate) closing: CancellationToken,
    leadership: watch::Sender<Leadership>,
    started: Instant,
    /// When a leader was last heard, in ms since `started`.
    heard_ms: AtomicU64,
}

/// What an engine is made of; an engine's own.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) raft: Raft,
    pub(crate) state: Arc<State>,
    pub(crate) log: LogStore,
    pub(crate) peers: Arc<Peers>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: ClusterClock,
    pub(crate) timings: Timings,
    pub(crate) snapshots: SnapshotPolicy,
    pub(crate) limits: Limits,
    pub(crate) trust: Trust,
    pub(crate) standing: Standing,
    /// The initial members, where this node is one.
    pub(crate) founders: Vec<InitialMember>,
    pub(crate) promise: Promise,
}

impl Deref for Engine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Engine {
    pub(crate) fn new(mut parts: Parts) -> Arc<Self> {
        let me = parts.identity.node;
        if parts.standing.joins() || !parts.founders.iter().any(|member| member.id == me) {
            parts.founders.clear();
        }
        Arc::new(Engine {
            parts,
            rounds: Rounds::default(),
            reports: Reports::default(),
            expected: Expected::default(),
            room: Room::default(),
            judge: Notify::new(),
            queue: Queue::default(),
            changing: tokio::sync::Mutex::default(),
            closing: CancellationToken::new(),
            leadership: watch::Sender::default(),
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.identity.node.0
    }

    pub(crate) fn cluster_id(&self) -> Uuid {
        self.identity.cluster_id
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.peers.token
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.peers.tasks
    }

    /// Who leads now.
    pub(crate) fn leader(&self) -> Option<(u64, PeerNode)> {
        self.leadership.borrow().leader.clone()
    }

    /// The term that this node knows of.
    pub(crate) fn term(&self) -> u64 {
        self.leadership.borrow().term
    }

    /// Follows who leads.
    pub(crate) fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    pub(crate) fn leads(&self) -> bool {
        let leadership = self.leadership.borrow();
        leadership.leader.as_ref().is_some_and(|(id, _)| *id == self.id())
    }

    /// Notes an append request of `node`: a sign of life, if it is who leads.
    pub(crate) fn hear(&self, node: u64, request: &AppendEntriesRequest<TypeConfig>) {
        self.trust.learn(&request.vote, request.leader_commit.as_ref());
        self.settle();
        let leadership = self.leadership.borrow();
        if leadership.leader.as_ref().is_some_and(|(id, _)| *id == node) {
            let since = self.started.elapsed().as_millis() as u64;
            self.heard_ms.store(since, Relaxed);
        }
    }

    /// Lets the node vote and stand for election once it has caught up.
    fn settle(&self) {
        if !self.trust.settled() {
            self.trust.settle(self.state.applied());
            self.let_stand();
        }
    }

    /// Lets the node stand for election, unless it lacks what it acknowledged, or has promised not to.
    fn let_stand(&self) {
        let stands = self.trust.settled() && !self.promise.holds(Instant::now());
        self.raft.runtime_config().elect(stands);
    }

    /// Lets the node stand for election once what it promised is over.
    pub(crate) async fn keep_promise(self: Arc<Self>) {
        let over = self.token().run_until_cancelled(self.promise.is_over());
        if over.await.flatten().is_some() {
            self.let_stand();
        }
    }

    /// Takes this node for a founding member, if it was its present life that was fresh.
    pub(crate) fn found(&self, lives: &Lives) -> io::Result<bool> {
        let founded = self.trust.found(self.identity.node, lives)?;
        self.let_stand();
        Ok(founded)
    }

    /// How long ago a leader was heard, in ms; 0 on the leader.
    pub(crate) fn age_ms(&self) -> u64 {
        if self.leads() {
            return 0;
        }
        let now = self.started.elapsed().as_millis() as u64;
        now.saturating_sub(self.heard_ms.load(Relaxed))
    }

    /// Publishes who leads, until the engine stops.
    pub(crate) async fn follow_leadership(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let now = {
                let metrics = metrics.borrow_watched();
                self.expected.note(&metrics);
                let leader = metrics.current_leader.and_then(|id| {
                    let node = metrics.membership_config.get_node(&id)?;
                    Some((id, node.clone()))
                });
                Leadership {
                    term: metrics.vote.leader_id.term,
                    leader,
                }
            };
            let before = self.leadership.borrow().clone();
            if now != before {
                if now.leader.as_ref().map(|leader| leader.0) != before.leader.as_ref().map(|leader| leader.0)
                {
                    let leader = now.leader.as_ref().map(|leader| leader.0);
                    tracing::info!(node = self.id(), term = now.term, ?leader, "leader changed");
                    if leader.is_some() {
                        self.counters.leader_changes.fetch_add(1, Relaxed);
                    }
                    if leader == Some(self.id()) {
                        self.counters.elections_won.fetch_add(1, Relaxed);
                    }
                }
                self.leadership.send_replace(now);
            }
            match self.token().run_until_cancelled(metrics.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return self.stop_with_raft().await,
                None => return,
            }
        }
    }

    /// A node whose consensus broke down must not go on answering as if it had one.
    async fn stop_with_raft(&self) {
        match self.raft.is_initialized().await {
            Ok(_) | Err(Fatal::Stopped) => {}
            Err(fatal) => die("consensus", fatal),
        }
    }

    /// Takes a snapshot when the log has grown by bytes, which openraft does not count, purges what snapshots have of it,
    /// and settles whether this node has caught up.
    pub(crate) async fn watch_log(self: Arc<Self>) {
        let mut bytes_at_snapshot = self.counters.log_synced_bytes.load(Relaxed);
        let mut built = self.counters.snapshots_built.load(Relaxed);
        let mut purge_asked = 0;
        loop {
            self.settle();
            purge_asked = self.purge(purge_asked).await;
            // A cluster that was just formed depends on each of its members until they have caught up.
            let pause = if self.trust.settled() {
                WATCH_INTERVAL
            } else {
                SETTLE_INTERVAL
            };
            if self
                .token()
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
            let bytes = self.counters.log_synced_bytes.load(Relaxed);
            let built_now = self.counters.snapshots_built.load(Relaxed);
            if built_now != built {
                (built, bytes_at_snapshot) = (built_now, bytes);
            } else if bytes - bytes_at_snapshot > self.snapshots.log_bytes {
                bytes_at_snapshot = bytes;
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
        }
    }
}
