//! The history of a node: reading earlier states, moving the base behind the floor of the journal, and, on the leader,
//! what retention asks for.
//!
//! The floor moves in the log, the same for all. What follows from it on disk each node does in its own time: it folds
//! the events below the floor into the base, and only then lets go of them. On a disk that is nearly full it puts that
//! off until there is room for it ([`crate::room`]), and puts no earlier states together.

use crate::clock::Clock;
use crate::engine::Engine;
use crate::fault::die;
use crate::runtime::blocking;
use crate::state::past::{IDLE_MAX, Made};
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::ports::{Past, PastError, Proposal};
use onward_statemachine::{Actor, Command, Outcome, Revision, history, retention, system};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

/// How long a read waits for an earlier state that has to be put together.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// What a read is told that waited so long, or found too many others waiting.
const RETRY_AFTER_MS: u64 = 1000;
/// The earlier states that are waited for at a time.
const WAITING_MAX: usize = 64;
/// How often it is looked whether there is room to move the base.
const PUT_OFF_INTERVAL: Duration = Duration::from_secs(1);
/// How often copies are looked at that nobody reads.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);
/// How often the leader looks whether retention asks for something.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);
/// How long a compaction may take to be agreed on.
const PROPOSE_MS: u64 = 5000;

/// Who waits for earlier states.
#[derive(Default)]
pub(crate) struct Queue {
    /// One is put together at a time.
    making: Arc<Mutex<()>>,
    waiting: AtomicUsize,
}

impl Engine {
    /// The state as of `at`.
    pub(crate) async fn past(self: &Arc<Self>, at: Revision) -> Result<Arc<dyn Past>, PastError> {
        let head = self.state.applied();
        self.state.read(|view| history::check(view, at, head))?;
        let not_ready = PastError::NotReady {
            at,
            retry_after_ms: RETRY_AFTER_MS,
        };
        let to = if mutant::on(Mutant::PastOffByOne) {
            Revision(at.0.saturating_sub(1)).max(self.state.base())
        } else {
            at
        };
        if let Some(past) = self.state.pasts.find(to) {
            return Ok(past);
        }
        if let Some(own) = self.room.own_shortage() {
            return Err(PastError::NoRoom {
                at,
                free_bytes: own.free_bytes,
                reserve_bytes: own.reserve_bytes,
                retry_after_ms: RETRY_AFTER_MS,
            });
        }
        if self.queue.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            self.queue.waiting.fetch_sub(1, Relaxed);
            return Err(not_ready);
        }
        let (sender, made) = oneshot::channel();
        let engine = self.clone();
        self.tasks().spawn(async move {
            let made = engine.make_past(to).await;
            engine.queue.waiting.fetch_sub(1, Relaxed);
            // One who gave up asks again and finds it.
            drop(sender.send(made));
        });
        match tokio::time::timeout(WAIT_MAX, made).await {
            Ok(Ok(Some(past))) => Ok(past),
            Ok(Ok(None) | Err(_)) if self.closing.is_cancelled() => Err(PastError::ShuttingDown),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(not_ready),
        }
    }

    async fn make_past(self: &Arc<Self>, at: Revision) -> Option<Arc<dyn Past>> {
        let making = self.queue.making.clone();
        let _alone = self.closing.run_until_cancelled(making.lock()).await?;
        let engine = self.clone();
        // Room may have run out meanwhile, and may do so while it is made.
        let goes_on = move || !engine.closing.is_cancelled() && engine.room.own_shortage().is_none();
        if !goes_on() {
            return None;
        }
        let state = self.state.clone();
        match blocking(move || state.make_past(at, goes_on)).await {
            Ok(Ok(Made::Whole(past))) => Some(past),
            Ok(Ok(Made::Stopped)) => None,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%at, %error, "an earlier state could not be put together");
                None
            }
        }
    }

    /// Moves the base behind the floor of the journal, and lets go of copies that nobody reads, until the engine stops.
    pub(crate) async fn keep_history(self: Arc<Self>) {
        let mut floor = self.state.watch_floor();
        let work = async {
            let engine = self.clone();
            // A crash may have come between the folding of events and letting go of them.
            settle(blocking(move || engine.state.cut_journal()).await);
            let mut told = false;
            loop {
                floor.mark_unchanged();
                let pause = self.move_base(&mut told).await;
                let engine = self.clone();
                // Closing a database and deleting it takes a while.
                drop(blocking(move || engine.state.pasts.let_go(IDLE_MAX)).await);
                tokio::select! {
                    _ = floor.changed() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        };
        self.closing.run_until_cancelled(work).await;
        self.state.pasts.let_go(Duration::ZERO);
    }

    /// Moves the base up to the floor of the journal, or as far as there is room for that; says when to look again. That
    /// it is put off is `told` once.
    async fn move_base(self: &Arc<Self>, told: &mut bool) -> Duration {
        while self.room.lets_base_move() {
            if !self.advance_base().await {
                *told = false;
                return TIDY_INTERVAL;
            }
        }
        if !self.state.base_is_behind() {
            return TIDY_INTERVAL;
        }
        if !std::mem::replace(told, true) {
            tracing::warn!(
                base = %self.state.base(),
                "the journal was compacted, but this node lets go of its part later: the disk is nearly full; enlarge \
                 it, or delete what is not needed"
            );
        }
        PUT_OFF_INTERVAL
    }

    /// One step; then as long a rest, for those who wait for an answer go first.
    async fn advance_base(self: &Arc<Self>) -> bool {
        let (engine, began) = (self.clone(), Instant::now());
        let more = settle(blocking(move || engine.state.advance_base()).await);
        if more {
            tokio::time::sleep(began.elapsed()).await;
        }
        more
    }

    /// Proposes what retention asks for, while this node leads, until the engine stops.
    pub(crate) async fn keep_retention(self: Arc<Self>) {
        let actor = Actor::new("raft:journal");
        let work = async {
            loop {
                tokio::time::sleep(RETENTION_INTERVAL).await;
                if !self.leads() {
                    continue;
                }
                let wall = self.clock.now();
                let due = self
                    .state
                    .read(|view| retention::due(view, wall.max(system::clock(view)?.now)));
                let Some(below) = due else { continue };
                let command = Command::System(system::Command::Retain { below });
                let proposal = Proposal::new(actor.clone(), command);
                match self.propose_timed(proposal, PROPOSE_MS).await {
                    Ok(Outcome::Accepted { revision, .. }) => {
                        tracing::info!(%below, %revision, "the journal was compacted, as its retention asks");
                    }
                    // The settings or the journal moved on; the next look sees it.
                    Ok(Outcome::Refused { refusal, .. }) => {
                        tracing::debug!(%below, %refusal, "the journal is kept after all");
                    }
                    Err(error) => tracing::debug!(%below, %error, "compacting the journal is put off"),
                }
            }
        };
        self.closing.run_until_cancelled(work).await;
    }
}

/// What a write of this node's own state came to; a failed one stops the node.
fn settle<T>(done: std::io::Result<std::io::Result<T>>) -> T {
    match done {
        Ok(Ok(value)) => value,
        Ok(Err(error)) | Err(error) => die("moving the base of the journal", error),
    }
}
