//! Proposing: from a command to its outcome, from any node.
//!
//! On the leader a proposal costs one message to openraft and one wake-up back; openraft itself merges all proposals
//! that wait into one append. Elsewhere it is forwarded to the leader over one pipelined connection. A proposal is
//! tried again under the same id until its deadline, over as many leaders as there are: duplicates are recognised when
//! they are applied, so it is done once.

use crate::clock::Clock;
use crate::counters::Counters;
use crate::engine::Engine;
use crate::fault::die;
use crate::peer::channel::CallError;
use crate::peer::frame::Lane;
use crate::peer::wire::{Proposed, kind};
use crate::room::Shortage;
use crate::runtime::new_uuid;
use crate::state::Reads;
use crate::types::{Payload, PeerNode, Reply, TypeConfig};
use bytes::Bytes;
use onward_statemachine::apply::{self, ENVELOPE_BYTES_MAX};
use onward_statemachine::ports::{BoxFuture, Proposal, ProposeError, Proposer};
use onward_statemachine::{CommandId, Envelope, Fault, Millis, NodeId, Outcome, codec, foresight};
use openraft::errors::ClientWriteError;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

/// Between two tries while nobody leads or the leader cannot be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// What an overloaded node tells its callers.
const RETRY_AFTER_MS: u64 = 50;
/// The same of a cluster that is short of disk.
const ROOM_RETRY_AFTER_MS: u64 = 10_000;

/// One proposal under way; ends when it is dropped.
struct InFlight {
    counters: Arc<Counters>,
    count: fn(&Counters) -> &AtomicUsize,
}

impl InFlight {
    fn begin(
        counters: &Arc<Counters>,
        count: fn(&Counters) -> &AtomicUsize,
        max: usize,
    ) -> Result<Self, usize> {
        let before = count(counters).fetch_add(1, Relaxed);
        let guard = InFlight {
            counters: counters.clone(),
            count,
        };
        if before < max { Ok(guard) } else { Err(before) }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.count)(&self.counters).fetch_sub(1, Relaxed);
    }
}

/// The bytes of one command under way; let go of when it is dropped.
struct Held {
    counters: Arc<Counters>,
    bytes: usize,
}

impl Held {
    /// Holds so many bytes, unless there are too many already. One command alone is always taken.
    fn take(counters: &Arc<Counters>, bytes: usize, max: usize) -> Option<Self> {
        let before = counters.bytes_in_flight.fetch_add(bytes, Relaxed);
        let held = Held {
            counters: counters.clone(),
            bytes,
        };
        (before == 0 || before + bytes <= max).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.bytes_in_flight.fetch_sub(self.bytes, Relaxed);
    }
}

/// What one try came to.
enum Tried {
    Ended(Result<Outcome, ProposeError>),
    /// It did not get anywhere.
    Nowhere,
    /// It may have been done, or may yet be.
    LostSight,
}

impl Engine {
    /// Puts a stamped proposal into the log of this node, which should lead. `answer` is called once, whatever happens.
    pub(crate) async fn submit(
        &self,
        mut envelope: Envelope,
        answer: impl FnOnce(Proposed) + Send + 'static,
    ) {
        if self.closing.is_cancelled() {
            return answer(Proposed::ShuttingDown);
        }
        // One that does not know the time yet does not lead yet.
        if !self.leads() || !self.clock.is_ready() {
            return answer(Proposed::NotLeader);
        }
        if let Some(Shortage { node, measured }) = self.room.refuses(&envelope.command) {
            self.counters.proposals_without_room.fetch_add(1, Relaxed);
            return answer(Proposed::NoRoom {
                node: NodeId(node),
                free_bytes: measured.free_bytes,
                reserve_bytes: measured.reserve_bytes,
            });
        }
        // Twice the bound of one node, so that a busy leader does not turn away its peers.
        let guard = match InFlight::begin(&self.counters, Counters::submitted, self.limits.in_flight_max * 2)
        {
            Ok(guard) => guard,
            Err(in_flight) => {
                self.counters.proposals_overloaded.fetch_add(1, Relaxed);
                tracing::debug!(in_flight, "turned away");
                let in_flight = in_flight as u64;
                return answer(Proposed::Overloaded { in_flight });
            }
        };
        envelope.proposed_at = self.clock.now();
        let bytes = codec::encode(&envelope);
        if bytes.len() > ENVELOPE_BYTES_MAX {
            let bytes = bytes.len() as u64;
            return answer(Proposed::TooLarge { bytes });
        }
        let Some(held) = Held::take(&self.counters, bytes.len(), self.limits.in_flight_bytes_max) else {
            self.counters.proposals_overloaded.fetch_add(1, Relaxed);
            let in_flight = self.counters.submissions_in_flight.load(Relaxed) as u64;
            return answer(Proposed::Overloaded { in_flight });
        };
        let rehearsed = self.state.try_read(|view| {
            let reads = Reads::ahead(view, foresight::of_command(&envelope.command).collect())?;
            apply::rehearse(&reads, &envelope)
        });
        match rehearsed {
            Ok(()) => {}
            Err(fault @ Fault::Store(_)) => die("reading the state", fault),
            Err(fault) => {
                tracing::error!(command_id = %envelope.command_id, %fault, "a proposal would break every node");
                return answer(Proposed::Poisonous(fault.to_string()));
            }
        }
        let reply = Reply::new(
            move |written: Option<openraft::raft::ClientWriteResult<TypeConfig>>| {
                drop((guard, held));
                answer(match written {
                    Some(Ok(written)) => match written.data.0 {
                        Some(outcome) => Proposed::Done(outcome),
                        None => Proposed::Unknown,
                    },
                    // Rejected before it was appended.
                    Some(Err(ClientWriteError::ForwardToLeader(_))) => Proposed::NotLeader,
                    Some(Err(_)) | None => Proposed::Unknown,
                });
            },
        );
        tracing::debug!(command_id = %envelope.command_id, bytes = bytes.len(), "handed to consensus");
        let mut payload = Payload::from(Bytes::from(bytes));
        payload.passed.proposed = Some(Instant::now());
        // When openraft has stopped, it drops the reply, which answers.
        drop(self.raft.client_write_ff(payload, Some(reply)).await);
    }

    /// An id of now: by the time that the members agree on, which is what its age is measured by.
    fn new_command_id(&self) -> CommandId {
        let mut bytes = new_uuid().into_bytes();
        bytes[..6].copy_from_slice(&self.clock.now().0.to_be_bytes()[2..]);
        CommandId(Uuid::from_bytes(bytes))
    }

    async fn propose_here(&self, envelope: &Envelope, until: Instant) -> Tried {
        let (answer, answered) = oneshot::channel();
        self.submit(envelope.clone(), |proposed| {
            drop(answer.send((proposed, Instant::now())));
        })
        .await;
        match tokio::time::timeout_at(until, answered).await {
            Ok(Ok((proposed, at))) => {
                if matches!(proposed, Proposed::Done(_)) {
                    self.counters.steps.reply.count(at.elapsed());
                }
                tried(proposed)
            }
            Ok(Err(_)) | Err(_) => Tried::LostSight,
        }
    }

    async fn propose_at(&self, leader: u64, node: &PeerNode, envelope: &Bytes, until: Instant) -> Tried {
        self.counters.proposals_forwarded.fetch_add(1, Relaxed);
        tracing::debug!(leader, "forwarded");
        let channel = self.peers.channel(leader, node, Lane::Forward);
        let left = until.saturating_duration_since(Instant::now());
        let mut leadership = self.watch_leadership();
        let moved = leadership.wait_for(|now| now.leader.as_ref().map(|now| now.0) != Some(leader));
        let called = tokio::select! {
            biased;
            called = channel.call(kind::PROPOSE, envelope, left) => called,
            // Another one leads: a leader that hangs is not waited for.
            _ = moved => return Tried::LostSight,
        };
        match called {
            Ok(body) => match codec::decode::<Proposed>(&body) {
                Ok(proposed) => tried(proposed),
                Err(error) => {
                    tracing::error!(leader, %error, "the leader's answer does not decode");
                    Tried::LostSight
                }
            },
            Err(CallError::NotSent(_)) => Tried::Nowhere,
            Err(CallError::Lost | CallError::Timeout) => Tried::LostSight,
            Err(CallError::Failed(reason)) => Tried::Ended(Err(ProposeError::Poisonous(reason))),
        }
    }

    /// Follows one proposal to its end, under a span that names its command on this node.
    pub(crate) async fn propose_timed(
        &self,
        mut proposal: Proposal,
        deadline_ms: u64,
    ) -> Result<Outcome, ProposeError> {
        let begun = Instant::now();
        let id = *proposal.command_id.get_or_insert_with(|| self.new_command_id());
        let span = tracing::debug_span!("propose", command_id = %id);
        if !span.is_disabled() {
            // The span of the request, which could not know an id that was made here.
            tracing::Span::current().record("command_id", tracing::field::display(id));
        }
        let result = self
            .propose_until_done(proposal, id, begun + Duration::from_millis(deadline_ms))
            .instrument(span.clone())
            .await;
        let took = begun.elapsed();
        self.counters.proposing.count(took);
        span.in_scope(|| match &result {
            Ok(outcome) => tracing::debug!(revision = %outcome.revision(), ?took, "has its outcome"),
            Err(error) => tracing::debug!(%error, ?took, "has no outcome"),
        });
        result
    }

    /// Counts a proposal that is turned away.
    fn overloaded(&self) -> ProposeError {
        self.counters.proposals_overloaded.fetch_add(1, Relaxed);
        ProposeError::Overloaded {
            in_flight: self.counters.proposals_in_flight.load(Relaxed),
            retry_after_ms: RETRY_AFTER_MS,
        }
    }

    async fn propose_until_done(
        &self,
        proposal: Proposal,
        id: CommandId,
        until: Instant,
    ) -> Result<Outcome, ProposeError> {
        if self.closing.is_cancelled() {
            return Err(ProposeError::ShuttingDown);
        }
        self.counters.proposals.fetch_add(1, Relaxed);
        let _guard = InFlight::begin(&self.counters, Counters::in_flight, self.limits.in_flight_max)
            .map_err(|_| self.overloaded())?;
        let envelope = Envelope {
            command_id: id,
            actor: proposal.actor,
            // The leader stamps the time.
            proposed_at: Millis(0),
            command: proposal.command,
        };
        let mut encoded: Option<Bytes> = None;
        let mut lost_sight = false;
        let mut leadership = self.watch_leadership();
        loop {
            leadership.mark_unchanged();
            let tried = match self.leader() {
                Some((leader, _)) if leader == self.id() => self.propose_here(&envelope, until).await,
                Some((leader, node)) => {
                    let bytes = encoded.get_or_insert_with(|| codec::encode(&envelope).into());
                    if bytes.len() > ENVELOPE_BYTES_MAX {
                        Tried::Ended(Err(too_large(bytes.len())))
                    } else {
                        match Held::take(&self.counters, bytes.len(), self.limits.in_flight_bytes_max) {
                            Some(_held) => self.propose_at(leader, &node, bytes, until).await,
                            None => Tried::Ended(Err(self.overloaded())),
                        }
                    }
                }
                None => Tried::Nowhere,
            };
            match tried {
                Tried::Ended(Ok(outcome)) => return Ok(outcome),
                // What a later try says of itself does not hold for an earlier one.
                Tried::Ended(Err(_)) if lost_sight => return Err(ProposeError::Unknown(id)),
                Tried::Ended(Err(error)) => return Err(error),
                Tried::Nowhere => {}
                Tried::LostSight => lost_sight = true,
            }
            let ended = if lost_sight {
                ProposeError::Unknown(id)
            } else {
                ProposeError::NoLeader
            };
            if Instant::now() + RETRY_PAUSE >= until {
                return Err(ended);
            }
            tokio::select! {
                biased;
                _ = leadership.changed() => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = self.closing.cancelled() => {
                    return Err(if lost_sight { ended } else { ProposeError::ShuttingDown });
                }
            }
        }
    }
}

fn too_large(bytes: usize) -> ProposeError {
    ProposeError::TooLarge {
        bytes,
        max: ENVELOPE_BYTES_MAX,
    }
}

fn tried(proposed: Proposed) -> Tried {
    Tried::Ended(match proposed {
        Proposed::Done(outcome) => Ok(outcome),
        Proposed::NotLeader | Proposed::ShuttingDown => return Tried::Nowhere,
        Proposed::Unknown => return Tried::LostSight,
        Proposed::Overloaded { in_flight } => Err(ProposeError::Overloaded {
            in_flight: in_flight as usize,
            retry_after_ms: RETRY_AFTER_MS,
        }),
        Proposed::TooLarge { bytes } => Err(too_large(bytes as usize)),
        Proposed::NoRoom {
            node,
            free_bytes,
            reserve_bytes,
        } => Err(ProposeError::DiskNearlyFull {
            node,
            free_bytes,
            reserve_bytes,
            retry_after_ms: ROOM_RETRY_AFTER_MS,
        }),
        Proposed::Poisonous(why) => Err(ProposeError::Poisonous(why)),
    })
}

/// The proposer of a node.
pub(crate) struct NodeProposer(pub(crate) Arc<Engine>);

impl Proposer for NodeProposer {
    fn propose(&self, proposal: Proposal, deadline_ms: u64) -> BoxFuture<'_, Result<Outcome, ProposeError>> {
        Box::pin(self.0.propose_timed(proposal, deadline_ms))
    }

    fn now(&self) -> Millis {
        self.0.clock.now()
    }
}
