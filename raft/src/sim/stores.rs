//! The database of a node in RAM over the simulated file system.
//!
//! It keeps the promises of the real one and no more: it reaches its files when it is flushed, now and then by itself;
//! what was not flushed is gone with the process.

use super::process::Process;
use crate::files::Files;
use crate::host::Stores;
use crate::log::stored::invalid;
use crate::state::database::{Batch, Standing, StateDisk, Table, decode_membership, encode_membership};
use crate::state::hash::Kept;
use crate::types::LogId;
use onward_statemachine::{Changes, MemoryStore, Order, Revision, View, codec, journal};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::MachineFiles;

/// The state flushes by itself after one in so many writes.
const FLUSH_ONE_IN: u32 = 64;
/// One in so many writes would have to wait.
const STALL_ONE_IN: u32 = 32;

/// The database of a process on a simulated machine.
pub(crate) struct SimulatedStores(Arc<Process>);

impl SimulatedStores {
    pub(crate) fn new(process: Arc<Process>) -> Self {
        SimulatedStores(process)
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(MachineFiles::new(self.0.clone()))
    }
}

impl Stores for SimulatedStores {
    fn open_state(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>> {
        let process = self.0.clone();
        Ok(Arc::new(SimulatedState::open(process, self.files(), path)?))
    }

    fn open_frozen(&self, path: &Path) -> io::Result<Arc<dyn StateDisk>> {
        self.open_state(path)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The head of a state's files.
#[derive(Serialize, Deserialize)]
struct Head {
    /// Which file has the rows.
    number: u64,
    applied: Option<LogId>,
    membership: Vec<u8>,
    kept: Option<Kept>,
}

const HEAD: &str = "HEAD";

fn rows_name(number: u64) -> String {
    format!("{number:06}.sst")
}

#[derive(Default)]
struct Rows {
    store: MemoryStore,
    standing: Standing,
    flushed: u64,
}

/// A state.
struct SimulatedState {
    process: Arc<Process>,
    files: Arc<dyn Files>,
    path: PathBuf,
    rows: Mutex<Rows>,
}

impl SimulatedState {
    fn open(process: Arc<Process>, files: Arc<dyn Files>, path: &Path) -> io::Result<Self> {
        let mut rows = Rows::default();
        if files.exists(&path.join(HEAD)) {
            let head: Head = codec::decode(&files.read(&path.join(HEAD))?).map_err(invalid)?;
            let bytes = files.read(&path.join(rows_name(head.number)))?;
            let stored: Vec<(Vec<u8>, Vec<u8>)> = codec::decode(&bytes).map_err(invalid)?;
            let stored = stored.into_iter().map(|(key, value)| (key, Some(value)));
            rows.store.write(stored.collect());
            rows.flushed = head.number;
            rows.standing = Standing {
                applied: head.applied,
                membership: decode_membership(&head.membership)?,
                kept: head.kept,
            };
        }
        files.create_dir(path)?;
        files.sync_dir(path.parent().unwrap_or(path))?;
        Ok(SimulatedState {
            process,
            files,
            path: path.to_owned(),
            rows: Mutex::new(rows),
        })
    }

    fn flush_rows(&self, rows: &mut Rows) -> io::Result<()> {
        let stored: Vec<(&[u8], &[u8])> = rows.store.rows().collect();
        let number = rows.flushed + 1;
        self.files
            .create(&self.path.join(rows_name(number)), &codec::encode(&stored))?;
        self.files.sync_dir(&self.path)?;
        let head = Head {
            number,
            applied: rows.standing.applied,
            membership: encode_membership(&rows.standing.membership),
            kept: rows.standing.kept.clone(),
        };
        self.files.replace(&self.path.join(HEAD), &codec::encode(&head))?;
        let old = self.path.join(rows_name(rows.flushed));
        if self.files.exists(&old) {
            self.files.remove_file(&old)?;
        }
        rows.flushed = number;
        Ok(())
    }
}

impl StateDisk for SimulatedState {
    fn standing(&self) -> io::Result<Standing> {
        Ok(lock(&self.rows).standing.clone())
    }

    fn view(&self, read: &mut dyn FnMut(&dyn View)) {
        read(&lock(&self.rows).store);
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let rows = &mut *lock(&self.rows);
        rows.store.write(batch.changes);
        rows.standing.applied = Some(batch.applied);
        rows.standing.kept = batch.kept;
        if let Some(membership) = batch.membership {
            rows.standing.membership = membership;
        }
        let world = &self.process.machine.world;
        if world.random(|rng| rng.random_ratio(1, FLUSH_ONE_IN)) {
            self.flush_rows(rows)?;
        }
        Ok(())
    }

    fn try_write(&self, batch: Batch) -> io::Result<Option<Batch>> {
        let world = &self.process.machine.world;
        if world.random(|rng| rng.random_ratio(1, STALL_ONE_IN)) {
            return Ok(Some(batch));
        }
        self.write(batch).map(|()| None)
    }

    fn put(&self, changes: Changes) -> io::Result<()> {
        lock(&self.rows).store.write(changes);
        Ok(())
    }

    fn cut_journal(&self, floor: Revision) -> io::Result<()> {
        let rows = &mut *lock(&self.rows);
        let (from, to) = journal::range_below(floor);
        let mut gone = Changes::new();
        rows.store
            .scan(&from, &to, Order::Ascending, &mut |key, _| {
                gone.insert(key.to_vec(), None);
                ControlFlow::Continue(())
            })
            .map_err(io::Error::other)?;
        rows.store.write(gone);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flush_rows(&mut lock(&self.rows))
    }

    fn tables_version(&self) -> u64 {
        0
    }

    fn tables(&self) -> io::Result<Vec<Table>> {
        Ok(Vec::new())
    }

    fn uncache_journal(&self) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint(&self, path: &Path) -> io::Result<Standing> {
        let rows = &mut *lock(&self.rows);
        self.flush_rows(rows)?;
        self.files.create_dir(path)?;
        let name = rows_name(rows.flushed);
        self.files.hard_link(&self.path.join(&name), &path.join(&name))?;
        self.files.copy(&self.path.join(HEAD), &path.join(HEAD))?;
        Ok(rows.standing.clone())
    }
}
