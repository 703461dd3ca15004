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
//! snap/<index>-<term>/   the newest snapshot, and a few older ones to read the past from
//! history/       earlier states, for as long as they are read
//! ```
//! Installing a snapshot hard-links its files into the next generation, opens that, and only then switches `CURRENT` by
//! rename. A crash before the rename leaves the old state, and the snapshot in `snap/`, which openraft installs again
//! at start; a crash after it leaves the new one. Generations that are not in force are deleted at start. Readers hold
//! on to the generation they began with; its directory goes when the last one is done.

mod apply;
pub(crate) mod database;
mod families;
mod frozen;
pub(crate) mod hash;
pub(crate) mod past;
#[cfg(test)]
mod past_tests;
mod reads;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use apply::StateStore;
pub(crate) use frozen::Frozen;
pub(crate) use reads::Reads;

use crate::counters::Counters;
use crate::fault::die;
use crate::files::{Files, Open};
use crate::host::{Host, Stores};
use crate::log::stored::invalid;
use crate::runtime::{new_uuid, watch};
use crate::types::{LogId, StoredMembership, revision_of};
use database::{StateDisk, Table};
use onward_statemachine::system::Mark;
use onward_statemachine::{Fault, Revision, View, system};
use past::Pasts;
use snapshot::{Listing, Manifest, SnapshotFile, SnapshotHandle};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::time::Instant;

type Snapshot =
    openraft::storage::Snapshot<crate::types::LeaderId, u64, crate::types::PeerNode, SnapshotHandle>;

/// The state of this node, shared by openraft and all readers.
pub(crate) struct State {
    root: PathBuf,
    files: Arc<dyn Files>,
    stores: Arc<dyn Stores>,
    generation: RwLock<Arc<Generation>>,
    snapshot: Mutex<Option<SnapshotHandle>>,
    /// The files of the last snapshot and newer tables, and the generation that they are of. Their checksums are those of
    /// when they were first listed: what a disk makes of them later is damage, and is not passed on as a snapshot.
    checked: Mutex<(u64, Vec<SnapshotFile>)>,
    applied: watch::Sender<Revision>,
    marks: watch::Sender<Option<Mark>>,
    /// The floor of the journal.
    floor: watch::Sender<Revision>,
    /// Earlier states.
    pub(crate) pasts: Pasts,
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
        disk.read(system::check_level).map_err(invalid)?;
        let standing = disk.standing()?;
        let applied = revision_of(standing.applied.as_ref());
        let mark = standing.kept.and_then(|kept| kept.last_mark());
        let mut snapshots = snapshot::open_all(&files, &dir.join("snap"))?;
        let newest = snapshots.pop();
        let checked = match &newest {
            // One that is not installed yet is of another database.
            Some(newest) if newest.manifest.meta()?.last_log_id <= standing.applied => {
                (number, newest.manifest.files.clone())
            }
            _ => (number, Vec::new()),
        };
        let pasts = Pasts::open(&dir.join("history"), host, snapshots)?;
        if let Some(newest) = &newest {
            pasts.thin(newest)?;
        }
        Ok(Arc::new(State {
            root: dir.to_owned(),
            generation: RwLock::new(Arc::new(Generation {
                number,
                files: files.clone(),
                path,
                disk: Some(disk),
                retired: AtomicBool::new(false),
            })),
            snapshot: Mutex::new(newest),
            checked: Mutex::new(checked),
            applied: watch::Sender::new(applied),
            marks: watch::Sender::new(mark),
            floor: watch::Sender::new(Revision(0)),
            pasts,
            files,
            stores,
            counters,
        }))
    }

    /// The last applied revision.
    pub(crate) fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// The entry that was applied last.
    pub(crate) fn applied_id(&self) -> io::Result<Option<LogId>> {
        Ok(self.generation().disk().standing()?.applied)
    }

    /// The membership that was applied last; an empty one before the first.
    pub(crate) fn membership(&self) -> io::Result<StoredMembership> {
        Ok(self.generation().disk().standing()?.membership)
    }

    /// Follows the last applied revision.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// Follows the floor of the journal; what it was before the start is not told.
    pub(crate) fn watch_floor(&self) -> watch::Receiver<Revision> {
        self.floor.subscribe()
    }

    /// The last mark that was applied, and the hash of the state there.
    pub(crate) fn last_mark(&self) -> Option<Mark> {
        *self.marks.borrow()
    }

    /// Follows the last mark.
    pub(crate) fn watch_marks(&self) -> watch::Receiver<Option<Mark>> {
        self.marks.subscribe()
    }

    /// What this node counts.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Where everything of this node is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
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

    /// Another one where tables may have come or gone.
    pub(crate) fn tables_version(&self) -> (u64, u64) {
        let generation = self.generation();
        (generation.number, generation.disk().tables_version())
    }

    /// The names of all tables.
    pub(crate) fn tables(&self) -> io::Result<BTreeSet<String>> {
        let tables = self.generation().disk().tables()?;
        Ok(tables.into_iter().map(|table| table.name).collect())
    }

    /// A table of the journal, or one of those that are `settled`, that is not listed with its checksum yet, so that the next
    /// snapshot would have to read it; and the generation that it is of.
    pub(crate) fn unlisted(&self, settled: &BTreeSet<String>) -> io::Result<Option<(u64, Listing)>> {
        let generation = self.generation();
        let tables = generation.disk().tables()?;
        let checked = self.checked();
        // A snapshot that is being installed brings another list.
        if checked.0 != generation.number {
            return Ok(None);
        }
        let is_listed = |name: &str| checked.1.iter().any(|listed| listed.name == name);
        let is_due = |table: &Table| table.of_journal || settled.contains(&table.name);
        let mut due = tables.into_iter().filter(is_due);
        let Some(Table { name, .. }) = due.find(|table| !is_listed(&table.name)) else {
            return Ok(None);
        };
        drop(checked);
        let file = self.files.open(&generation.path.join(&name), Open::Read)?;
        file.sync()?;
        Ok(Some((generation.number, Listing::new(file, name))))
    }

    /// Lists a table of a generation with its checksum.
    pub(crate) fn list(&self, generation: u64, listing: Listing) -> io::Result<()> {
        let listed = listing.whole()?;
        let mut checked = self.checked();
        if checked.0 == generation && !checked.1.iter().any(|known| known.name == listed.name) {
            checked.1.push(listed);
        }
        Ok(())
    }

    /// Has the page cache let go of the journal. Its files are listed before: a snapshot does not read them any more.
    ///
    /// It is half of what is written, is written once and seldom read: its pages would only take the place of others. And
    /// pages that are used again are quick, where a virtual machine has to be given each that it uses for the first time.
    pub(crate) fn uncache_journal(&self) -> io::Result<()> {
        self.generation().disk().uncache_journal()
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

    /// Puts a snapshot in the place of the one before, which becomes a place to start from into the past. So does this one
    /// where a later one came meanwhile: consensus counts on the latest, and installs one while another is built.
    fn keep_snapshot(&self, new: &SnapshotHandle) -> io::Result<()> {
        let mut current = self.current_snapshot();
        let reach = new.manifest.meta()?.last_log_id;
        let overtaken = match &*current {
            Some(newest) => newest.manifest.meta()?.last_log_id > reach,
            None => false,
        };
        let (older, newest) = if overtaken {
            (Some(new.clone()), current.clone())
        } else {
            (current.replace(new.clone()), Some(new.clone()))
        };
        match (older, newest) {
            (Some(older), Some(newest)) if older.path != newest.path => self.pasts.keep(older, &newest),
            _ => Ok(()),
        }
    }

    /// Takes a snapshot where the state is ahead of a log that ends at `log_end`.
    ///
    /// A leader applies what a majority of the others has made durable before its own log is, and a flush may keep that
    /// when a power loss takes the end of the log. The log then begins anew behind the state, and needs a snapshot that
    /// reaches there: without one, nobody could be brought up to where it begins.
    pub(crate) fn cover(&self, log_end: Option<LogId>) -> io::Result<()> {
        let applied = self.applied_id()?;
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
        let mut checked = self.checked();
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

    fn checked(&self) -> MutexGuard<'_, (u64, Vec<SnapshotFile>)> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(&self, handle: SnapshotHandle) -> io::Result<Snapshot> {
        self.keep_snapshot(&handle)?;
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
        snapshot::lay_out(handle, &path)?;
        let disk = self.stores.open_state(&path)?;
        disk.read(system::check_level).map_err(invalid)?;
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
        *self.checked() = (number, handle.manifest.files.clone());
        self.keep_snapshot(handle)?;
        self.counters.snapshots_installed.fetch_add(1, Relaxed);
        self.applied.send_replace(applied);
        self.floor
            .send_replace(self.read(|view| Ok(system::gate(view)?.journal_floor)));
        tracing::info!(revision = %applied, "snapshot installed");
        Ok(())
    }
}

/// Puts generation `number` in force.
pub(crate) fn point_at(files: &dyn Files, states: &Path, number: u64) -> io::Result<()> {
    files.replace(&states.join("CURRENT"), format!("{number}\n").as_bytes())
}
