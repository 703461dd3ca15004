//! The state store: applies committed entries, serves views, builds and installs snapshots.
//!
//! # Durability
//! Nothing is synced per batch. What a crash takes is applied again from the Raft log, which is kept for it: the log is
//! purged only up to a snapshot, and building a snapshot flushes the database first. So a restart replays the tail
//! behind the last flush, never everything.
//!
//! # Layout and installing
//! ```text
//! state/CURRENT      the generation in force
//! state/<n>/         the database of generation n
//! snap/<index>-<term>/   the newest snapshot
//! ```
//! Installing a snapshot hard-links its files into the next generation, opens that, and only then switches `CURRENT` by
//! rename. A crash before the rename leaves the old state, and the snapshot in `snap/`, which openraft installs again
//! at start; a crash after it leaves the new one. Generations that are not in force are deleted at start. Readers hold
//! on to the generation they began with; its directory goes when the last one is done.

pub(crate) mod database;
mod frozen;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use frozen::Frozen;

use crate::counters::Counters;
use crate::fault::die;
use crate::files::Files;
use crate::host::{Host, Stores};
use crate::log::disk::invalid;
use crate::runtime::{blocking, new_uuid, watch};
use crate::types::{
    Applied, Entry, EntryPayload, LogId, SnapshotMeta, StoredMembership, TypeConfig, revision_of,
};
use database::{Batch, Standing, StateDisk};
use futures::{FutureExt, Stream, StreamExt};
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::{Fault, Outcome, Revision, Txn, View, apply, system};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use snapshot::{Manifest, SnapshotFile, SnapshotHandle};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::time::Instant;

type Snapshot =
    openraft::storage::Snapshot<crate::types::LeaderId, u64, crate::types::PeerNode, SnapshotHandle>;

/// The most entries, and about the most bytes of them, that are applied as one batch.
const BATCH_ENTRIES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// The state of this node, shared by openraft and all readers.
pub(crate) struct State {
    root: PathBuf,
    files: Arc<dyn Files>,
    stores: Arc<dyn Stores>,
    generation: RwLock<Arc<Generation>>,
    snapshot: Mutex<Option<SnapshotHandle>>,
    /// The files of the last snapshot built here, and the generation that they are of: their checksums are known.
    checked: Mutex<(u64, Vec<SnapshotFile>)>,
    applied: watch::Sender<Revision>,
    counters: Arc<Counters>,
}

/// One database directory; deleted with its last user once another generation is in force.
struct Generation {
    number: u64,
    files: Arc<dyn Files>,
    path: PathBuf,
    disk: Option<Arc<dyn StateDisk>>,
    retired: AtomicBool,
}

impl Generation {
    fn disk(&self) -> &dyn StateDisk {
        self.disk.as_deref().expect("taken only when dropped")
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        drop(self.disk.take());
        if self.retired.load(Acquire)
            && let Err(error) = self.files.remove_dir(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an old generation of the state could not be deleted");
        }
    }
}

impl State {
    /// Opens the state in `dir`.
    pub(crate) fn open(dir: &Path, host: &Host, counters: Arc<Counters>) -> io::Result<Arc<Self>> {
        let (files, stores) = (host.files.clone(), host.stores.clone());
        let states = dir.join("state");
        files.create_dir(&states)?;
        let number = match files.read_text(&states.join("CURRENT"))? {
            Some(text) => text
                .trim()
                .parse()
                .map_err(|_| invalid("state/CURRENT is not a number"))?,
            None => {
                point_at(&*files, &states, 1)?;
                1
            }
        };
        for listed in files.list(&states)? {
            if listed.is_dir && listed.name != number.to_string() {
                files.remove_dir(&states.join(listed.name))?;
            }
        }
        let path = states.join(number.to_string());
        let disk = stores.open_state(&path)?;
        let applied = revision_of(disk.standing()?.applied.as_ref());
        Ok(Arc::new(State {
            root: dir.to_owned(),
            generation: RwLock::new(Arc::new(Generation {
                number,
                files: files.clone(),
                path,
                disk: Some(disk),
                retired: AtomicBool::new(false),
            })),
            snapshot: Mutex::new(snapshot::open_newest(&files, &dir.join("snap"))?),
            checked: Mutex::new((0, Vec::new())),
            applied: watch::Sender::new(applied),
            files,
            stores,
            counters,
        }))
    }

    /// The last applied revision.
    pub(crate) fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// The membership that was applied last; an empty one before the first.
    pub(crate) fn membership(&self) -> io::Result<StoredMembership> {
        Ok(self.generation().disk().standing()?.membership)
    }

    /// Follows the last applied revision.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// The file system that it is on.
    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// Where received snapshots are put together.
    pub(crate) fn snapshot_root(&self) -> PathBuf {
        self.root.join("snap")
    }

    /// Reads from a consistent view. A fault stops the process.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, Fault>) -> T {
        match self.try_read(read) {
            Ok(value) => value,
            Err(fault) => die("reading the state", fault),
        }
    }

    /// Reads from a consistent view, and leaves a fault to the caller.
    pub(crate) fn try_read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, Fault>) -> Result<T, Fault> {
        self.generation().disk().read(read)
    }

    /// Makes everything applied durable, so that a restart replays nothing.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.generation().disk().flush()
    }

    fn generation(&self) -> Arc<Generation> {
        self.generation
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn current_snapshot(&self) -> MutexGuard<'_, Option<SnapshotHandle>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size of the newest snapshot, in bytes; 0 before there is one.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        let current = self.current_snapshot();
        current.as_ref().map_or(0, |snapshot| snapshot.manifest.bytes())
    }

    fn keep_snapshot(&self, newest: &SnapshotHandle) {
        let mut current = self.current_snapshot();
        if let Some(older) = current.replace(newest.clone())
            && older.path != newest.path
        {
            older.retire();
        }
    }

    /// Takes a snapshot where the state is ahead of a log that ends at `log_end`.
    ///
    /// A leader applies what a majority of the others has made durable before its own log is, and a flush may keep that
    /// when a power loss takes the end of the log. The log then begins anew behind the state, and needs a snapshot that
    /// reaches there: without one, nobody could be brought up to where it begins.
    pub(crate) fn cover(&self, log_end: Option<LogId>) -> io::Result<()> {
        let applied = self.generation().disk().standing()?.applied;
        let newest = match &*self.current_snapshot() {
            Some(snapshot) => snapshot.manifest.meta()?.last_log_id,
            None => None,
        };
        if applied > log_end && applied > newest {
            self.build_snapshot()?;
        }
        Ok(())
    }

    fn build_snapshot(&self) -> io::Result<Snapshot> {
        let begun = Instant::now();
        let generation = self.generation();
        let root = self.snapshot_root();
        let temporary = root.join(format!("building-{}", new_uuid()));
        let standing = generation.disk().checkpoint(&temporary)?;
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.0 != generation.number {
            *checked = (generation.number, Vec::new());
        }
        let files = snapshot::list_files(&*self.files, &temporary, &checked.1)?;
        checked.1.clone_from(&files);
        drop(checked);
        let sealed = snapshot::seal(&self.files, &temporary, &root, &Manifest::new(&standing, files))?;
        self.counters.snapshots_built.fetch_add(1, Relaxed);
        self.counters.snapshot_build.count(begun.elapsed());
        self.adopt(Arc::new(sealed))
    }

    fn adopt(&self, handle: SnapshotHandle) -> io::Result<Snapshot> {
        self.keep_snapshot(&handle);
        let meta = handle.manifest.meta()?;
        tracing::info!(
            revision = %revision_of(meta.last_log_id.as_ref()),
            bytes = handle.manifest.bytes(),
            "snapshot in place"
        );
        Ok(Snapshot {
            meta,
            snapshot: handle,
        })
    }

    fn install(&self, handle: &SnapshotHandle) -> io::Result<()> {
        let states = self.root.join("state");
        let number = self.generation().number + 1;
        let path = states.join(number.to_string());
        let files = &*self.files;
        if files.exists(&path) {
            files.remove_dir(&path)?;
        }
        files.create_dir(&path)?;
        for file in &handle.manifest.files {
            let (from, to) = (handle.path.join(&file.name), path.join(&file.name));
            // The immutable files are shared; the few that the database rewrites are copied.
            if file.name.ends_with(".sst") || file.name.ends_with(".blob") {
                files.hard_link(&from, &to)?;
            } else {
                files.copy(&from, &to)?;
            }
        }
        files.sync_dir(&path)?;
        let disk = self.stores.open_state(&path)?;
        let applied = revision_of(disk.standing()?.applied.as_ref());
        point_at(files, &states, number)?;
        let next = Arc::new(Generation {
            number,
            files: self.files.clone(),
            path,
            disk: Some(disk),
            retired: AtomicBool::new(false),
        });
        let mut generation = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        generation.retired.store(true, Release);
        let old = std::mem::replace(&mut *generation, next);
        drop(generation);
        drop(old);
        self.keep_snapshot(handle);
        self.counters.snapshots_installed.fetch_add(1, Relaxed);
        self.applied.send_replace(applied);
        tracing::info!(revision = %applied, "snapshot installed");
        Ok(())
    }
}

/// Puts generation `number` in force.
pub(crate) fn point_at(files: &dyn Files, states: &Path, number: u64) -> io::Result<()> {
    files.replace(&states.join("CURRENT"), format!("{number}\n").as_bytes())
}

/// openraft's handle on the state.
pub(crate) struct StateStore {
    state: Arc<State>,
    standing: Standing,
}

impl StateStore {
    pub(crate) fn new(state: Arc<State>) -> io::Result<Self> {
        let standing = state.generation().disk().standing()?;
        Ok(StateStore { state, standing })
    }

    /// Applies a batch on one overlay, lands it, answers, and wakes those who wait for the revision.
    fn apply_batch(&mut self, entries: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>) -> io::Result<()> {
        let Some(last) = entries.last().map(|(entry, _)| entry.log_id) else {
            return Ok(());
        };
        let begun = Instant::now();
        let steps = &self.state.counters.steps;
        for (entry, _) in &entries {
            if let EntryPayload::Normal(payload) = &entry.payload
                && let Some(appended) = payload.passed.appended
            {
                steps.replicate.count(begun.saturating_duration_since(appended));
            }
        }
        let generation = self.state.generation();
        let mut membership = None;
        let mut answers = Vec::with_capacity(entries.len());
        let mut entries = Some(entries);
        let mut result = Err(Fault::invariant("the store did not call back"));
        generation.disk().view(&mut |view| {
            let Some(entries) = entries.take() else { return };
            result = apply_all(view, entries, &mut membership, &mut answers);
        });
        let (changes, journal_floor) = result.unwrap_or_else(|fault| die("applying an entry", fault));
        let batch = Batch {
            changes,
            applied: last,
            membership: membership.clone(),
            journal_floor,
        };
        if let Err(error) = generation.disk().write(batch) {
            die("writing the state", error);
        }
        self.standing.applied = Some(last);
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
        Ok(())
    }
}

type Answers = Vec<(Option<ApplyResponder<TypeConfig>>, Applied)>;

fn apply_all(
    view: &dyn View,
    entries: Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>,
    membership: &mut Option<StoredMembership>,
    answers: &mut Answers,
) -> Result<(onward_statemachine::Changes, Option<Revision>), Fault> {
    let mut txn = Txn::new(view);
    let floor_before = system::gate(&txn)?.journal_floor;
    for (entry, responder) in entries {
        let outcome = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(payload) => {
                let revision = Revision(entry.log_id.index);
                let envelope = apply::decode(revision, &payload.bytes)?;
                let command_id = envelope.command_id;
                let outcome = apply::apply_envelope(&mut txn, revision, envelope)?;
                let accepted = matches!(outcome, Outcome::Accepted { .. });
                tracing::debug!(%command_id, %revision, accepted, "applied");
                Some(outcome)
            }
            EntryPayload::Membership(nodes) => {
                *membership = Some(StoredMembership::new(Some(entry.log_id), nodes));
                None
            }
        };
        answers.push((responder, Applied(outcome)));
    }
    let floor = system::gate(&txn)?.journal_floor;
    Ok((txn.into_changes(), (floor != floor_before).then_some(floor)))
}

fn bytes_of(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
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
            let first = first?;
            let mut bytes = bytes_of(&first.0);
            let mut batch = vec![first];
            while batch.len() < BATCH_ENTRIES_MAX
                && bytes < BATCH_BYTES_MAX
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                let next = next?;
                bytes += bytes_of(&next.0);
                batch.push(next);
            }
            self.apply_batch(batch)?;
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
        self.standing = self.state.generation().disk().standing()?;
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
