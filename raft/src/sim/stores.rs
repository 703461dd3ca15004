//! The two databases of a node in RAM over the simulated file system.
//!
//! They keep the promises of the real ones and no more. The log is a file of checksummed batches, read up to the first
//! that is damaged. The state lives in RAM and reaches its files when it is flushed, now and then by itself; what was
//! not flushed is gone with the process.

use super::process::Process;
use crate::files::{File, Files, Open};
use crate::host::Stores;
use crate::log::disk::{LogDisk, Recovered, Write, invalid};
use crate::log::record;
use crate::state::database::{Batch, Standing, StateDisk, decode_membership, encode_membership};
use crate::state::hash::Kept;
use crate::types::{Entry, LogId, Vote};
use bytes::Bytes;
use onward_statemachine::{Changes, MemoryStore, Order, Revision, View, codec, journal};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::MachineFiles;

/// From this size on the log is written anew when it is purged.
const LOG_BYTES_MAX: u64 = 256 << 10;
/// The state flushes by itself after one in so many writes.
const FLUSH_ONE_IN: u32 = 64;

/// The databases of a process on a simulated machine.
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
    fn open_log(&self, path: &Path) -> io::Result<Arc<dyn LogDisk>> {
        Ok(Arc::new(SimulatedLog::open(self.files(), path)?))
    }

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

/// One of a batch of writes, as the file has it.
#[derive(Serialize, Deserialize)]
enum Stored {
    Append(Vec<Vec<u8>>),
    Vote(Vote),
    Committed(Option<LogId>),
    TruncateFrom(u64),
    Purge(LogId),
}

impl From<&Write> for Stored {
    fn from(write: &Write) -> Self {
        match write {
            Write::Append(entries) => Stored::Append(entries.iter().map(encode).collect()),
            Write::Vote(vote) => Stored::Vote(*vote),
            Write::Committed(id) => Stored::Committed(*id),
            Write::TruncateFrom(index) => Stored::TruncateFrom(*index),
            Write::Purge { upto, .. } => Stored::Purge(*upto),
        }
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::new();
    record::encode(entry, &mut bytes);
    bytes
}

/// What the batches come to.
#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, (LogId, Bytes)>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl Log {
    fn take(&mut self, stored: Stored) -> io::Result<()> {
        match stored {
            Stored::Append(records) => {
                for bytes in records.into_iter().map(Bytes::from) {
                    let id = record::decode(bytes.clone())?.log_id;
                    self.entries.insert(id.index, (id, bytes));
                }
            }
            Stored::Vote(vote) => self.vote = Some(vote),
            Stored::Committed(id) => self.committed = id,
            Stored::TruncateFrom(index) => drop(self.entries.split_off(&index)),
            Stored::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = Some(upto);
            }
        }
        Ok(())
    }

    /// The shortest batch that comes to the same.
    fn whole(&self) -> Vec<Stored> {
        let mut whole = vec![Stored::Committed(self.committed)];
        whole.extend(self.vote.map(Stored::Vote));
        whole.extend(self.purged.map(Stored::Purge));
        let records = self.entries.values().map(|(_, bytes)| bytes.to_vec());
        whole.push(Stored::Append(records.collect()));
        whole
    }
}

/// A batch as it stands in the file: its length, its checksum, itself.
fn frame(batch: &[Stored]) -> Vec<u8> {
    let body = codec::encode(&batch);
    let mut framed = (body.len() as u32).to_le_bytes().to_vec();
    framed.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    framed.extend_from_slice(&body);
    framed
}

/// The batches up to the first that is damaged.
fn unframe(mut bytes: &[u8]) -> Vec<Vec<Stored>> {
    let mut batches = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let [a, b, c, d, checksum @ ..] = *head;
        let Some((body, rest)) = rest.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize) else {
            break;
        };
        if crc32fast::hash(body).to_le_bytes() != checksum {
            break;
        }
        let Ok(batch) = codec::decode(body) else { break };
        batches.push(batch);
        bytes = rest;
    }
    batches
}

/// A log.
struct SimulatedLog {
    files: Arc<dyn Files>,
    path: PathBuf,
    open: Mutex<(Log, Box<dyn File>, u64)>,
}

impl SimulatedLog {
    fn open(files: Arc<dyn Files>, dir: &Path) -> io::Result<Self> {
        files.create_dir(dir)?;
        let path = dir.join("batches");
        let mut log = Log::default();
        if files.exists(&path) {
            for stored in unframe(&files.read(&path)?).into_iter().flatten() {
                log.take(stored)?;
            }
        }
        let framed = frame(&log.whole());
        files.replace(&path, &framed)?;
        files.sync_dir(dir.parent().unwrap_or(dir))?;
        let file = files.open(&path, Open::Write)?;
        Ok(SimulatedLog {
            files,
            path,
            open: Mutex::new((log, file, framed.len() as u64)),
        })
    }
}

impl LogDisk for SimulatedLog {
    fn recover(&self) -> io::Result<Recovered> {
        let (log, ..) = &*lock(&self.open);
        let last = log.entries.values().next_back().map(|(id, _)| *id);
        Ok(Recovered {
            vote: log.vote,
            committed: log.committed,
            purged: log.purged,
            first: log.entries.keys().next().copied().unwrap_or(0),
            last: last.max(log.purged),
        })
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (log, ..) = &*lock(&self.open);
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (_, record) in log.entries.range(from..to.max(from)).map(|(_, entry)| entry) {
            bytes += record.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(record::decode(record.clone())?);
        }
        Ok(entries)
    }

    fn write(&self, writes: &[Write], sync: bool) -> io::Result<()> {
        let (log, file, length) = &mut *lock(&self.open);
        let batch: Vec<Stored> = writes.iter().map(Stored::from).collect();
        let framed = frame(&batch);
        file.write_at(&framed, *length)?;
        *length += framed.len() as u64;
        let purges = batch.iter().any(|stored| matches!(stored, Stored::Purge(_)));
        for stored in batch {
            log.take(stored)?;
        }
        if purges && *length > LOG_BYTES_MAX {
            let framed = frame(&log.whole());
            self.files.replace(&self.path, &framed)?;
            *file = self.files.open(&self.path, Open::Write)?;
            *length = framed.len() as u64;
        }
        if sync { file.sync() } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let (_, file, _) = &*lock(&self.open);
        file.sync()
    }

    fn reclaim(&self) -> io::Result<()> {
        Ok(())
    }
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
