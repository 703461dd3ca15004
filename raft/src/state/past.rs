//! Earlier states: copies of the store, folded to a revision, for as long as somebody reads them.
//!
//! A copy begins at the nearest place from which the events lead on: another copy, an older snapshot that was kept, or
//! the base. It shares its immutable files with where it began, and takes only what folding writes.
//!
//! # Bounds
//! - Copies: [`COPIES_MAX`] that wait for their next reader, each with little memory of its own, deleted
//!   [`IDLE_MAX`] after the last one. One is made at a time, and none waits while the disk is short.
//! - Older snapshots: [`KEPT_MAX`], spread over the history, and together no more bytes that nobody else needs than the
//!   newest snapshot has (or [`KEPT_BYTES_MIN`]). They make the past near; without them it is only further away, so
//!   none is kept while the disk is short.
//! - The base grows by [`PIECE_BYTES`] at most before the journal lets go of the events that are in it, and by
//!   [`PIECE_BYTES_SHORT`] while the disk is short.
//! - Everything under `history/` is thrown away at start.

use super::snapshot::{SnapshotHandle, lay_out};
use super::{State, snapshot};
use crate::fault::die;
use crate::files::Files;
use crate::host::{Host, Stores};
use crate::log::stored::other;
use crate::runtime::new_uuid;
use crate::state::database::StateDisk;
use crate::types::revision_of;
use onward_statemachine::ports::Past;
use onward_statemachine::{Changes, Fault, Revision, View, history, system};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The copies that wait for their next reader.
const COPIES_MAX: usize = 4;
/// How long a copy waits for its next reader.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(300);
/// The older snapshots that are kept.
const KEPT_MAX: usize = 4;
/// The bytes that older snapshots may take for themselves in any case.
const KEPT_BYTES_MIN: u64 = 256 << 20;
/// The revisions of one step of a fold.
pub(crate) const STEP_RECORDS: usize = 2048;
/// The bytes of events that are folded into the base before the journal lets go of them: for so long both have them.
/// Letting go writes what is left of the files of the journal again that it cuts, so it is not done after each step.
const PIECE_BYTES: u64 = 512 << 20;
/// The same while the disk is short.
const PIECE_BYTES_SHORT: u64 = 64 << 20;

/// The earlier states of a node.
pub(crate) struct Pasts {
    root: PathBuf,
    files: Arc<dyn Files>,
    stores: Arc<dyn Stores>,
    /// Older snapshots, the oldest first.
    kept: Mutex<Vec<SnapshotHandle>>,
    copies: Mutex<Vec<Waiting>>,
    /// Whether the disk is short.
    short: AtomicBool,
    /// The bytes of events that were folded into the base and are in the journal yet.
    uncut: AtomicU64,
}

/// A copy and when it was last asked for.
struct Waiting {
    copy: Arc<Copy>,
    used: Instant,
}

/// A store folded to a revision.
pub(crate) struct Copy {
    revision: Revision,
    /// Whether the state is the base of the store, and not what its own entries made.
    in_base: bool,
    /// How far the journal of the store itself reaches.
    reach: Revision,
    files: Arc<dyn Files>,
    path: PathBuf,
    disk: Option<Arc<dyn StateDisk>>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        drop(self.disk.take());
        if let Err(error) = self.files.remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a copy of an earlier state could not be deleted");
        }
    }
}

impl Copy {
    fn disk(&self) -> &dyn StateDisk {
        self.disk.as_deref().expect("taken only when dropped")
    }

    fn view(&self, read: &mut dyn FnMut(&dyn View)) {
        let in_base = self.in_base;
        self.disk().view(&mut |view| {
            if in_base {
                read(&history::Base(view));
            } else {
                read(view);
            }
        });
    }

    fn put(&self, changes: Changes) -> io::Result<()> {
        let changes = if self.in_base {
            history::to_base(changes)
        } else {
            changes
        };
        self.disk().put(changes)
    }
}

impl Past for Copy {
    fn with_view(&self, read: &mut dyn FnMut(&dyn View) -> Result<(), Fault>) {
        self.view(&mut |view| {
            if let Err(fault) = read(view) {
                die("reading an earlier state", fault);
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn revision_of_snapshot(snapshot: &SnapshotHandle) -> io::Result<Revision> {
    Ok(revision_of(snapshot.manifest.meta()?.last_log_id.as_ref()))
}

impl Pasts {
    /// Begins anew in `root`, with these older snapshots, the oldest first.
    pub(super) fn open(root: &Path, host: &Host, kept: Vec<SnapshotHandle>) -> io::Result<Self> {
        if host.files.exists(root) {
            host.files.remove_dir(root)?;
        }
        host.files.create_dir(root)?;
        Ok(Pasts {
            root: root.to_owned(),
            files: host.files.clone(),
            stores: host.stores.clone(),
            kept: Mutex::new(kept),
            copies: Mutex::default(),
            short: AtomicBool::new(false),
            uncut: AtomicU64::new(0),
        })
    }

    /// Takes over a snapshot that is no longer the newest.
    pub(super) fn keep(&self, older: SnapshotHandle, newest: &SnapshotHandle) -> io::Result<()> {
        let mut kept = lock(&self.kept);
        if self.short.load(Relaxed) {
            older.retire();
            return Ok(());
        }
        kept.push(older);
        drop(kept);
        self.thin(newest)
    }

    /// Lets go of older snapshots that are more than there is room for.
    pub(super) fn thin(&self, newest: &SnapshotHandle) -> io::Result<()> {
        let mut kept = lock(&self.kept);
        while kept.len() > KEPT_MAX {
            let closest = closest(&kept, newest)?;
            kept.remove(closest).retire();
        }
        let room = newest.manifest.bytes().max(KEPT_BYTES_MIN);
        while bytes_beside(&kept, newest) > room {
            kept.remove(0).retire();
        }
        Ok(())
    }

    /// While the disk is `short`, keeps nothing that only makes the past near.
    pub(crate) fn spare(&self, short: bool) {
        self.short.store(short, Relaxed);
        if short {
            lock(&self.kept).drain(..).for_each(|snapshot| snapshot.retire());
            self.let_go(Duration::ZERO);
        }
    }

    /// Lets go of older snapshots that the base has passed.
    pub(super) fn forget_below(&self, base: Revision) -> io::Result<()> {
        let mut kept = lock(&self.kept);
        while let Some(oldest) = kept.first()
            && revision_of_snapshot(oldest)? < base
        {
            kept.remove(0).retire();
        }
        Ok(())
    }

    /// The copy of exactly this revision.
    pub(crate) fn find(&self, at: Revision) -> Option<Arc<dyn Past>> {
        let mut copies = lock(&self.copies);
        let found = copies.iter_mut().find(|waiting| waiting.copy.revision == at)?;
        found.used = Instant::now();
        Some(found.copy.clone())
    }

    /// Lets go of copies that nobody has asked for lately; with no time at all, of every one.
    pub(crate) fn let_go(&self, idle: Duration) {
        lock(&self.copies).retain(|waiting| waiting.used.elapsed() < idle);
    }

    /// Has a copy wait for its next reader.
    fn admit(&self, copy: Arc<Copy>) {
        if self.short.load(Relaxed) {
            return;
        }
        let mut copies = lock(&self.copies);
        while copies.len() >= COPIES_MAX {
            let Some(longest) = longest_unused(&copies) else {
                break;
            };
            copies.remove(longest);
        }
        copies.push(Waiting {
            copy,
            used: Instant::now(),
        });
    }

    /// The latest copy that is not after `at`. Where there is no room for another one and nobody reads it, it is the
    /// caller's, to be folded on.
    fn nearest_copy(&self, at: Revision) -> Option<Result<Copy, Arc<Copy>>> {
        let mut copies = lock(&self.copies);
        let near = copies
            .iter()
            .enumerate()
            .filter(|(_, waiting)| waiting.copy.revision <= at);
        let (place, _) = near.max_by_key(|(_, waiting)| waiting.copy.revision)?;
        if copies.len() < COPIES_MAX {
            return Some(Err(copies[place].copy.clone()));
        }
        Some(Arc::try_unwrap(copies.remove(place).copy).inspect_err(|shared| {
            copies.push(Waiting {
                copy: shared.clone(),
                used: Instant::now(),
            });
        }))
    }

    fn nearest_kept(&self, at: Revision) -> io::Result<Option<SnapshotHandle>> {
        for snapshot in lock(&self.kept).iter().rev() {
            if revision_of_snapshot(snapshot)? <= at {
                return Ok(Some(snapshot.clone()));
            }
        }
        Ok(None)
    }

    /// The bytes of events after which the journal is cut behind the base.
    fn piece_bytes(&self) -> u64 {
        if self.short.load(Relaxed) {
            PIECE_BYTES_SHORT
        } else {
            PIECE_BYTES
        }
    }

    fn fresh_path(&self) -> PathBuf {
        self.root.join(new_uuid().to_string())
    }

    /// Opens the store in `path` as a copy that nothing was folded into yet.
    fn open_copy(&self, path: PathBuf, in_base: bool) -> io::Result<Copy> {
        let disk = self.stores.open_past(&path)?;
        let reach = revision_of(disk.standing()?.applied.as_ref());
        let mut copy = Copy {
            revision: Revision(0),
            in_base,
            reach,
            files: self.files.clone(),
            path,
            disk: Some(disk),
        };
        let mut stands = Ok(system::Clock::default());
        copy.view(&mut |view| stands = system::clock(view));
        copy.revision = stands.map_err(other)?.revision;
        Ok(copy)
    }
}

fn longest_unused(copies: &[Waiting]) -> Option<usize> {
    let copies = copies.iter().enumerate();
    copies
        .min_by_key(|(_, waiting)| waiting.used)
        .map(|(place, _)| place)
}

/// The place of the snapshot whose loss makes the smallest gap.
fn closest(kept: &[SnapshotHandle], newest: &SnapshotHandle) -> io::Result<usize> {
    let mut stands = vec![0];
    for snapshot in kept.iter().chain([newest]) {
        stands.push(revision_of_snapshot(snapshot)?.0);
    }
    let gaps = stands
        .windows(3)
        .map(|around| around[2].saturating_sub(around[0]));
    let smallest = gaps.enumerate().min_by_key(|(_, gap)| *gap);
    Ok(smallest.map_or(0, |(place, _)| place))
}

/// The bytes of files that only these snapshots have.
fn bytes_beside(kept: &[SnapshotHandle], newest: &SnapshotHandle) -> u64 {
    fn name(file: &snapshot::SnapshotFile) -> (&str, u64, u32) {
        (&file.name, file.bytes, file.crc)
    }
    let shared: BTreeSet<_> = newest.manifest.files.iter().map(name).collect();
    let files = kept.iter().flat_map(|snapshot| &snapshot.manifest.files);
    let own: BTreeSet<_> = files.map(name).filter(|file| !shared.contains(file)).collect();
    own.iter().map(|(_, bytes, _)| bytes).sum()
}

/// How far the making of a copy came.
pub(crate) enum Made {
    /// It is there.
    Whole(Arc<dyn Past>),
    /// It is not made: nobody wants it any more, or the base has passed it.
    Stopped,
}

impl State {
    /// The revision of the base.
    pub(crate) fn base(&self) -> Revision {
        self.read(history::base_revision)
    }

    /// Makes a copy as of `at`, which was within the history when it was asked for. To be called by one at a time.
    pub(crate) fn make_past(&self, at: Revision, go_on: impl Fn() -> bool) -> io::Result<Made> {
        if let Some(copy) = self.pasts.find(at) {
            return Ok(Made::Whole(copy));
        }
        loop {
            if !go_on() {
                return Ok(Made::Stopped);
            }
            let mut copy = self.begin_past(at)?;
            if copy.revision > at {
                return Ok(Made::Stopped);
            }
            let began = (copy.revision, Instant::now());
            while copy.revision < at {
                if !go_on() {
                    return Ok(Made::Stopped);
                }
                match self.fold_step(&copy, at)? {
                    Some(folded) => {
                        copy.put(folded.changes)?;
                        copy.revision = folded.reached;
                    }
                    // The base has passed where the copy stands. The next one begins there.
                    None => break,
                }
            }
            if copy.revision == at {
                tracing::debug!(from = %began.0, to = %at, took = ?began.1.elapsed(), "an earlier state is there");
                let copy = Arc::new(copy);
                self.pasts.admit(copy.clone());
                return Ok(Made::Whole(copy));
            }
        }
    }

    /// One step towards `at`; `None` where the events that come next are nowhere any more.
    fn fold_step(&self, copy: &Copy, at: Revision) -> io::Result<Option<history::Folded>> {
        let mut folded = Ok(None);
        if copy.in_base && copy.reach >= at {
            copy.disk().view(&mut |view| {
                folded = history::fold(&history::Base(view), view, at, STEP_RECORDS).map(Some);
            });
            return folded.map_err(other);
        }
        let generation = self.generation();
        generation.disk().view(&mut |live| {
            folded = history::base_revision(live).and_then(|base| {
                let mut folded = Ok(None);
                if base <= copy.revision {
                    copy.view(&mut |past| folded = history::fold(past, live, at, STEP_RECORDS).map(Some));
                }
                folded
            });
        });
        folded.map_err(other)
    }

    /// A copy as near before `at` as there is one.
    fn begin_past(&self, at: Revision) -> io::Result<Copy> {
        let base = self.base();
        self.pasts.forget_below(base)?;
        let newest = self.current_snapshot().clone();
        let newest = match newest {
            Some(newest) => Some((revision_of_snapshot(&newest)?, newest)),
            None => None,
        };
        let kept = match &newest {
            Some((revision, newest)) if (base..=at).contains(revision) => Some(newest.clone()),
            _ => self.pasts.nearest_kept(at)?,
        };
        let kept = match kept {
            Some(snapshot) => Some((revision_of_snapshot(&snapshot)?, snapshot)),
            None => None,
        };
        let from = kept.as_ref().map_or(base, |(revision, _)| *revision).max(base);
        match self.pasts.nearest_copy(at) {
            Some(Ok(copy)) if copy.revision >= from => return Ok(copy),
            Some(Err(copy)) if copy.revision >= from => {
                let path = self.pasts.fresh_path();
                copy.disk().checkpoint(&path)?;
                return self.pasts.open_copy(path, copy.in_base);
            }
            // One that was taken out for nothing was the longest way off anyway.
            Some(_) | None => {}
        }
        if let Some((_, snapshot)) = kept {
            let path = self.pasts.fresh_path();
            lay_out(&snapshot, &path)?;
            let copy = self.pasts.open_copy(path, false)?;
            // Behind its last command there may be entries without one, and the base among those.
            if copy.revision >= base {
                return Ok(copy);
            }
        }
        let path = self.pasts.fresh_path();
        match newest {
            Some((revision, newest)) if revision >= at => lay_out(&newest, &path)?,
            _ => {
                self.generation().disk().checkpoint(&path)?;
            }
        }
        self.pasts.open_copy(path, true)
    }

    /// Whether the base is behind the floor of the journal.
    pub(crate) fn base_is_behind(&self) -> bool {
        self.read(|view| Ok(history::base_revision(view)? < history::oldest(view)?))
    }

    /// Moves the base one step towards the floor of the journal; whether there is more to do. The journal below the
    /// floor is let go of piece by piece, as it is in the base.
    pub(crate) fn advance_base(&self) -> io::Result<bool> {
        let generation = self.generation();
        let disk = generation.disk();
        let mut step = Ok(None);
        disk.view(&mut |view| {
            step = history::oldest(view).and_then(|to| {
                let from = history::base_revision(view)?;
                if from >= to {
                    return Ok(None);
                }
                history::fold(&history::Base(view), view, to, STEP_RECORDS).map(|folded| Some((folded, to)))
            });
        });
        let Some((folded, to)) = step.unwrap_or_else(|fault| die("folding the journal", fault)) else {
            return Ok(false);
        };
        let bytes = folded.bytes as u64;
        disk.put(history::to_base(folded.changes))?;
        let uncut = self.pasts.uncut.fetch_add(bytes, Relaxed) + bytes;
        if folded.reached >= to || uncut >= self.pasts.piece_bytes() {
            self.cut_journal()?;
        }
        if folded.reached >= to {
            tracing::info!(base = %to, "the events up to the floor of the journal are folded, and let go of");
        }
        Ok(true)
    }

    /// Lets go of the journal that is in the base.
    pub(crate) fn cut_journal(&self) -> io::Result<()> {
        let generation = self.generation();
        let mut base = Ok(Revision(0));
        generation
            .disk()
            .view(&mut |view| base = history::base_revision(view));
        let base = base.map_err(other)?;
        if base > Revision(0) {
            generation.disk().cut_journal(Revision(base.0 + 1))?;
            self.pasts.uncut.store(0, Relaxed);
            self.pasts.forget_below(base)?;
        }
        Ok(())
    }
}
