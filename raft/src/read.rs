//! Reading: how a node makes sure that its replica is fresh enough.
//!
//! A linearizable read takes the leader's commit index, once the leader has made sure that it still leads, and waits
//! until that is applied here. The leader is sure while a majority answered it within half of its lease, and otherwise asks a
//! round of heartbeats. An answer may be a quarter of the lease older than it is taken for ([`crate::peer::network`]), so
//! clocks may run apart by a quarter without harm. Other nodes ask the leader; all reads that wait share one round.
//!
//! No more than so many wait on a node: while nobody leads, or the leader does not answer, each of them would wait for seconds,
//! and more would come all the time.

use crate::engine::Engine;
use crate::peer::frame::Lane;
use crate::peer::wire::kind;
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::ports::{BoxFuture, Freshness, Past, PastError, ReadError, Reader, Stamp};
use onward_statemachine::{Fault, Revision, View, codec};
use openraft::raft::linearizable_read::LinearizerOption;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The longest that a read waits to be fresh.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// Between two tries while nobody leads.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// When a read is to come again that found too many waiting.
const OVERLOADED_RETRY_MS: u64 = 500;

/// Reads that wait for the next round to the leader.
#[derive(Default)]
pub(crate) struct Rounds {
    waiting: Mutex<Waiting>,
    /// The reads that wait to be fresh enough, for whichever reason.
    admitted: AtomicUsize,
    /// Whether reads do without, which they never may: a planted bug.
    skipped: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    running: bool,
    readers: Vec<oneshot::Sender<Option<u64>>>,
}

/// A read that waits, counted as long as it does.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Rounds {
    /// Lets one more read wait; `None` where `max` of them do.
    fn admit(&self, max: usize) -> Option<Waits<'_>> {
        let before = self.admitted.fetch_add(1, Relaxed);
        let waits = Waits(&self.admitted);
        (before < max).then_some(waits)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this node, which led, handed over.
    pub(crate) fn handed_over(&self) {
        if mutant::on(Mutant::HandoverKeepsReads) {
            self.skipped.store(true, Relaxed);
        }
    }

    fn are_skipped(&self) -> bool {
        mutant::on(Mutant::StaleRead)
            || (mutant::on(Mutant::HandoverKeepsReads) && self.skipped.load(Relaxed))
    }
}

impl Engine {
    /// The index that a read which begins now must see; this node must lead.
    pub(crate) async fn read_index_here(&self) -> Result<u64, String> {
        let option = LinearizerOption::new(Some(self.timings.lease() / 2), true)
            .with_wait_timeout(Duration::from_millis(self.timings.election_max_ms));
        let linearizer = self.raft.get_read_linearizer(option).await;
        linearizer
            .map(|linearizer| linearizer.read_log_id().index())
            .map_err(|error| error.to_string())
    }

    /// The same from any node; `None` where no leader confirmed it this time.
    async fn read_index(self: &Arc<Self>) -> Option<u64> {
        if self.leads() {
            return self.read_index_here().await.ok();
        }
        let (reader, read) = oneshot::channel();
        let idle = {
            let mut waiting = self.rounds.lock();
            waiting.readers.push(reader);
            !std::mem::replace(&mut waiting.running, true)
        };
        if idle {
            self.tasks().spawn(self.clone().run_rounds());
        }
        read.await.ok().flatten()
    }

    /// Asks the leader, round after round, as long as reads wait. A read that comes during a round joins the next one:
    /// this one may have been answered before the read began.
    async fn run_rounds(self: Arc<Self>) {
        loop {
            let readers = {
                let mut waiting = self.rounds.lock();
                waiting.running = !waiting.readers.is_empty();
                std::mem::take(&mut waiting.readers)
            };
            if readers.is_empty() {
                return;
            }
            let index = self.ask_leader().await;
            for reader in readers {
                // One who gave up no longer cares.
                let _ = reader.send(index);
            }
        }
    }

    async fn ask_leader(&self) -> Option<u64> {
        let (leader, node) = self.leader()?;
        self.counters.read_rounds.fetch_add(1, Relaxed);
        let channel = self.peers.channel(leader, &node, Lane::Forward);
        let deadline = self.peers.rpc_deadline;
        let answer = self
            .token()
            .run_until_cancelled(channel.call(kind::READ_INDEX, &[], deadline))
            .await?;
        match answer {
            Ok(body) => codec::decode(&body).ok(),
            Err(error) => {
                tracing::debug!(leader, %error, "the leader did not confirm a read");
                None
            }
        }
    }

    /// Whether a read that asks for this needs not wait.
    fn is_fresh(&self, freshness: Freshness) -> bool {
        match freshness {
            Freshness::Local => true,
            Freshness::AtLeast(revision) => self.state.applied() >= revision,
            Freshness::Linearizable => self.rounds.are_skipped(),
        }
    }

    fn admit_read(&self) -> Result<Waits<'_>, ReadError> {
        let max = self.limits.reads_waiting_max;
        self.rounds.admit(max).ok_or_else(|| {
            self.counters.reads_overloaded.fetch_add(1, Relaxed);
            ReadError::Overloaded {
                waiting: max,
                retry_after_ms: OVERLOADED_RETRY_MS,
            }
        })
    }

    async fn linearize(self: &Arc<Self>) -> Result<Revision, ReadError> {
        let until = Instant::now() + READ_DEADLINE;
        let mut leadership = self.watch_leadership();
        loop {
            leadership.mark_unchanged();
            let asked = self
                .closing
                .run_until_cancelled(tokio::time::timeout_at(until, self.read_index()));
            match asked.await {
                None => return Err(ReadError::ShuttingDown),
                Some(Ok(Some(index))) => return Ok(Revision(index)),
                Some(Ok(None)) => {}
                Some(Err(_)) => return Err(ReadError::NoLeader),
            }
            tokio::select! {
                biased;
                _ = leadership.changed() => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = tokio::time::sleep_until(until) => return Err(ReadError::NoLeader),
            }
        }
    }

    async fn wait_applied(&self, wanted: Revision) -> Result<(), ReadError> {
        if self.state.applied() >= wanted {
            return Ok(());
        }
        let mut applied = self.state.watch_applied();
        let waiting = tokio::time::timeout(READ_DEADLINE, applied.wait_for(|now| *now >= wanted));
        match self.closing.run_until_cancelled(waiting).await {
            None => Err(ReadError::ShuttingDown),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) => Err(ReadError::NotApplied {
                wanted,
                applied: self.state.applied(),
            }),
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            applied: self.state.applied(),
            age_ms: self.age_ms(),
        }
    }
}

/// The reader of a node.
pub(crate) struct NodeReader(pub(crate) Arc<Engine>);

impl Reader for NodeReader {
    fn barrier(&self, freshness: Freshness) -> BoxFuture<'_, Result<Stamp, ReadError>> {
        Box::pin(async move {
            if !self.0.is_fresh(freshness) {
                let _waits = self.0.admit_read()?;
                let wanted = match freshness {
                    Freshness::AtLeast(revision) => revision,
                    Freshness::Linearizable | Freshness::Local => self.0.linearize().await?,
                };
                self.0.wait_applied(wanted).await?;
            }
            Ok(self.0.stamp())
        })
    }

    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        self.0.state.read(|view| read(view));
    }

    fn stamp(&self) -> Stamp {
        self.0.stamp()
    }

    fn past(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Past>, PastError>> {
        Box::pin(self.0.past(at))
    }

    fn changed(&self, after: Revision) -> BoxFuture<'_, Revision> {
        Box::pin(async move {
            let mut applied = self.0.state.watch_applied();
            let reached = applied.wait_for(|now| *now > after).await.map(|now| *now);
            match reached {
                Ok(now) => now,
                // The sender lives as long as the state, which this reader holds.
                Err(_) => std::future::pending().await,
            }
        })
    }
}
