//! Applying: from committed entries to one write batch, and openraft's handle on the state.
//!
//! Entries that wait are applied together, on one overlay, up to a bound; a mark ends its batch, because the state as of
//! exactly that entry is hashed ([`crate::agreement`]).

use super::database::{Batch, Standing};
use super::hash::{self, Kept};
use super::reads::Reads;
use super::snapshot::{Manifest, SnapshotHandle};
use super::{Snapshot, State};
use crate::counters::Counters;
use crate::fault::die;
use crate::runtime::blocking;
use crate::types::{Applied, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig};
use futures::{FutureExt, Stream, StreamExt};
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::system::{self, Mark};
use onward_statemachine::{
    Changes, Command, Envelope, Fault, Outcome, Revision, Txn, View, apply, digest, foresight, keys,
};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::Instant;

/// The most entries, and about the most bytes of them, that are applied as one batch.
const BATCH_ENTRIES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// The most bytes that are applied on the thread of consensus: some 20 ms of work, a quarter of the time between two
/// heartbeats. Each batch that another thread applies costs a tenth of what it takes.
const SHORT_BYTES_MAX: usize = 1 << 20;

/// openraft's handle on the state.
pub(crate) struct StateStore {
    pub(super) state: Arc<State>,
    pub(super) standing: Standing,
}

/// An entry on its way into the state.
struct Coming {
    id: LogId,
    bytes: usize,
    body: Body,
    responder: Option<ApplyResponder<TypeConfig>>,
}

enum Body {
    Blank,
    Command(Box<Envelope>),
    Membership(Membership),
}

impl Coming {
    /// Takes an entry apart. An envelope that does not decode is a fault.
    fn new((entry, responder): EntryResponder<TypeConfig>, counters: &Counters) -> Self {
        let id = entry.log_id;
        let (bytes, body) = match entry.payload {
            EntryPayload::Blank => (0, Body::Blank),
            EntryPayload::Membership(nodes) => (0, Body::Membership(nodes)),
            EntryPayload::Normal(payload) => {
                if let Some(appended) = payload.passed.appended {
                    counters.steps.replicate.count(appended.elapsed());
                }
                let envelope = apply::decode(Revision(id.index), &payload.bytes)
                    .unwrap_or_else(|fault| die("applying an entry", fault));
                (payload.bytes.len(), Body::Command(Box::new(envelope)))
            }
        };
        Coming {
            id,
            bytes,
            body,
            responder,
        }
    }

    /// Whether nothing may be applied together with what comes after it: the state as of this entry is hashed.
    fn is_mark(&self) -> bool {
        matches!(&self.body, Body::Command(envelope) if mark_in(envelope).is_some())
    }
}

/// What a mark says of an earlier one; `None` where it is none.
fn mark_in(envelope: &Envelope) -> Option<Option<Mark>> {
    match &envelope.command {
        Command::System(system::Command::MarkState { agreed }) => Some(*agreed),
        _ => None,
    }
}

impl StateStore {
    pub(crate) fn new(state: Arc<State>) -> io::Result<Self> {
        let standing = hash::standing(state.generation().disk())?;
        Ok(StateStore { state, standing })
    }

    /// Applies a batch. What is short is applied here; what may take long, and what the disk would have wait, is not for
    /// the thread of consensus.
    async fn apply_batch(&mut self, entries: Vec<Coming>, bytes: usize) -> io::Result<()> {
        if bytes > SHORT_BYTES_MAX {
            let mut long = StateStore {
                state: self.state.clone(),
                standing: std::mem::take(&mut self.standing),
            };
            let applied = blocking(move || {
                let (batch, landing) = long.evolve(entries);
                land(&long.state, batch);
                long.settle(landing);
                long
            });
            *self = applied.await?;
            return Ok(());
        }
        let (batch, landing) = self.evolve(entries);
        match self.state.generation().disk().try_write(batch) {
            Ok(None) => {}
            Ok(Some(batch)) => {
                let state = self.state.clone();
                blocking(move || land(&state, batch)).await?;
            }
            Err(error) => die("writing the state", error),
        }
        self.settle(landing);
        Ok(())
    }

    /// Decides and evolves a batch on one overlay.
    fn evolve(&mut self, entries: Vec<Coming>) -> (Batch, Landing) {
        let begun = Instant::now();
        let last = entries.last().expect("a batch has an entry").id;
        let mut kept = self.standing.kept.take().unwrap_or_default();
        let mut membership = None;
        let mut answers = Vec::with_capacity(entries.len());
        let mut entries = Some(entries);
        let mut result = Err(Fault::invariant("the store did not call back"));
        self.state.generation().disk().view(&mut |view| {
            let Some(entries) = entries.take() else { return };
            result = apply_all(view, entries, &mut membership, &mut answers, &mut kept);
        });
        let Evolved {
            changes,
            journal_floor,
            mark,
        } = result.unwrap_or_else(|fault| die("applying an entry", fault));
        if let Some(agreed) = mark.flatten() {
            self.state.compare(kept.mark_at(agreed.at), &agreed);
        }
        if mark.is_some() {
            kept.mark(Revision(last.index));
        }
        let batch = Batch {
            changes,
            applied: last,
            membership: membership.clone(),
            kept: Some(kept.clone()),
        };
        let landing = Landing {
            begun,
            last,
            kept,
            membership,
            journal_floor,
            is_marked: mark.is_some(),
            answers,
        };
        (batch, landing)
    }

    /// Answers what a batch that has landed was asked, and wakes those who wait for its revision.
    fn settle(&mut self, landing: Landing) {
        let Landing {
            begun,
            last,
            kept,
            membership,
            journal_floor,
            is_marked,
            answers,
        } = landing;
        self.standing.applied = Some(last);
        let mark = kept.last_mark();
        self.standing.kept = Some(kept);
        if let Some(membership) = membership {
            self.standing.membership = membership;
        }
        let counters = &self.state.counters;
        counters.apply_batches.fetch_add(1, Relaxed);
        counters.applied_entries.fetch_add(answers.len() as u64, Relaxed);
        let took = begun.elapsed();
        counters.apply_batch.count(took);
        counters.steps.apply.count_many(took, answers.len() as u64);
        for (responder, answer) in answers {
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        self.state.applied.send_replace(Revision(last.index));
        if is_marked {
            self.state.marks.send_replace(mark);
        }
        if let Some(floor) = journal_floor {
            self.state.floor.send_replace(floor);
        }
    }
}

/// Writes a batch, however long the disk has it wait.
fn land(state: &State, batch: Batch) {
    if let Err(error) = state.generation().disk().write(batch) {
        die("writing the state", error);
    }
}

type Answers = Vec<(Option<ApplyResponder<TypeConfig>>, Applied)>;

/// A batch that is about to land, and whom to tell.
struct Landing {
    begun: Instant,
    last: LogId,
    kept: Kept,
    membership: Option<StoredMembership>,
    journal_floor: Option<Revision>,
    is_marked: bool,
    answers: Answers,
}

/// What a batch of entries comes to.
struct Evolved {
    changes: Changes,
    /// The first journal revision that is kept, where it moved.
    journal_floor: Option<Revision>,
    /// Whether the last entry is a mark, and what it says of an earlier one.
    mark: Option<Option<Mark>>,
}

fn apply_all(
    view: &dyn View,
    entries: Vec<Coming>,
    membership: &mut Option<StoredMembership>,
    answers: &mut Answers,
    kept: &mut Kept,
) -> Result<Evolved, Fault> {
    let commands = entries.iter().filter_map(|entry| match &entry.body {
        Body::Command(envelope) => Some(envelope),
        Body::Blank | Body::Membership(_) => None,
    });
    let foreseen = commands.flat_map(|envelope| foresight::of_envelope(envelope));
    let reads = Reads::ahead(view, foreseen.collect())?;
    let mut txn = Txn::new(&reads);
    let floor_before = system::gate(&txn)?.journal_floor;
    let mut mark = None;
    for Coming {
        id, body, responder, ..
    } in entries
    {
        let outcome = match body {
            Body::Blank => None,
            Body::Command(envelope) => {
                let revision = Revision(id.index);
                let command_id = envelope.command_id;
                mark = mark_in(&envelope);
                let outcome = apply::apply_envelope(&mut txn, revision, *envelope)?;
                kept.hash.take_entry(&txn, command_id, &outcome, revision);
                let accepted = matches!(outcome, Outcome::Accepted { .. });
                tracing::debug!(%command_id, %revision, accepted, "applied");
                Some(outcome)
            }
            Body::Membership(nodes) => {
                *membership = Some(StoredMembership::new(Some(id), nodes));
                None
            }
        };
        answers.push((responder, Applied(outcome)));
    }
    let gate = system::gate(&txn)?;
    let mut changes = txn.into_changes();
    flip_a_bit(&mut changes);
    kept.hash.take_changes(&reads, &changes)?;
    Ok(Evolved {
        changes,
        journal_floor: (gate.journal_floor != floor_before).then_some(gate.journal_floor),
        mark: mark.filter(|_| gate.feature_level >= digest::FEATURE_LEVEL),
    })
}

/// The planted bug of a node whose state is not the others'.
fn flip_a_bit(changes: &mut Changes) {
    if !mutant::on(Mutant::StateBitFlip) || !is_struck() {
        return;
    }
    for (key, value) in changes {
        if key.first() == Some(&keys::KV)
            && let Some(value) = value
        {
            let middle = value.len() / 2;
            value[middle] ^= 1;
        }
    }
}

/// Of simulated nodes, which share a process, one has the bug.
fn is_struck() -> bool {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::sim::current_machine() {
        return machine == 2;
    }
    true
}

impl RaftStateMachine<TypeConfig> for StateStore {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.standing.applied, self.standing.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let first = Coming::new(first?, &self.state.counters);
            let mut bytes = first.bytes;
            let mut marked = first.is_mark();
            let mut batch = vec![first];
            while !marked
                && batch.len() < BATCH_ENTRIES_MAX
                && bytes < BATCH_BYTES_MAX
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                let next = Coming::new(next?, &self.state.counters);
                bytes += next.bytes;
                marked = next.is_mark();
                batch.push(next);
            }
            self.apply_batch(batch, bytes).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.state.clone())
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotHandle) -> io::Result<()> {
        let state = self.state.clone();
        if let Err(error) = blocking(move || state.install(&snapshot)).await? {
            die("installing a snapshot", error);
        }
        self.standing = hash::standing(self.state.generation().disk())?;
        let mark = self.standing.kept.as_ref().and_then(Kept::last_mark);
        self.state.marks.send_replace(mark);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let current = self.state.current_snapshot().clone();
        current
            .map(|snapshot| {
                let meta = snapshot.manifest.meta()?;
                Ok(Snapshot { meta, snapshot })
            })
            .transpose()
    }
}

/// Builds one snapshot while entries go on being applied.
pub(crate) struct Builder(Arc<State>);

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let state = self.0.clone();
        if mutant::on(Mutant::PurgeBeforeSnapshot)
            && let Some(older) = state.current_snapshot().clone()
        {
            let standing = state.generation().disk().standing()?;
            let meta = Manifest::new(&standing, Vec::new()).meta()?;
            return Ok(Snapshot {
                meta,
                snapshot: older,
            });
        }
        let built = blocking(move || state.build_snapshot()).await?;
        Ok(built.unwrap_or_else(|error| die("building a snapshot", error)))
    }
}
