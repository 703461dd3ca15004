//! The disk under the log: numbered [segments](super::segment) in one directory, written one behind the other.
//!
//! # Why not a database
//! Entries are written once, in order, read seldom, and forgotten from the front. A database would write each of them to its
//! own log and then to a table, and search for keys that are places in a file (docs/decisions/0011-segments.md).
//!
//! # Files
//! - `NUMBER.log`, without a gap. Only the last is written to, and only at its end. Opening a log ends its last segment:
//!   nothing is ever written behind what a crash may have torn.
//! - `NUMBER.spare`: a segment that held only purged entries. The next one takes its file, for writing over what a
//!   file holds needs no commit of the file system's journal. Where there is none, the file grows by zeros ahead of
//!   what is written, so that most syncs are of written blocks, too.
//!
//! # What a crash takes
//! Of what was not synced, all from some frame on. What comes back was read from the page cache, which a sync that failed
//! leaves unwritten and clean: so the last segment is written over itself and synced before anything relies on it.
//! Damage in a segment that is not the last is an error, for that was synced as a whole; in the last it looks like the
//! end, and the [watermark](super::watermark) tells.

use super::index::{Index, Place, Segment};
use super::replay::Replay;
use super::segment::{FRAME_BYTES, Framer, Head, Standing};
use super::stored::other;
use crate::files::{File, Files, Open};
use crate::types::{Entry, LogId, Vote};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One write. A sequence of them lands in order; a crash keeps a prefix of what was not synced yet.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Entries behind the last one.
    Append(Vec<Entry>),
    /// The vote.
    Vote(Vote),
    /// The last entry known to be committed.
    Committed(Option<LogId>),
    /// Forget all entries from this index on.
    TruncateFrom(u64),
    /// Forget all entries up to this one.
    Purge(LogId),
}

/// What a log holds when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The first index of a log that was never purged.
    pub(crate) first: u64,
    pub(crate) last: Option<LogId>,
}

/// A log to read.
pub(crate) trait ReadLog {
    /// What is there.
    fn recover(&self) -> io::Result<Recovered>;
    /// The entries `from..to` that are there, in order; stops after `bytes_max`, though never before the first entry.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>>;
}

/// The sizes of a log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// From this size on nothing is added to a segment, in bytes.
    pub(crate) segment_bytes: u64,
    /// By how much a file grows ahead of what is written to it.
    pub(crate) ahead_bytes: u64,
    /// How many files are kept for the segments to come.
    pub(crate) spares: usize,
    /// How many whole segments behind a snapshot may be kept for members that lag.
    pub(crate) kept: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            segment_bytes: 32 << 20,
            ahead_bytes: 1 << 20,
            spares: 4,
            kept: 4,
        }
    }
}

/// What a large batch leaves of the buffer that it was put together in.
const BUFFER_BYTES_MAX: usize = 4 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What only the writer knows.
#[derive(Default)]
pub(super) struct Pen {
    pub(super) standing: Standing,
    /// The number of the last segment; 0 before the first.
    pub(super) number: u64,
    /// How much of it is part of the log, in bytes.
    pub(super) end: u64,
    /// The last segment, if it is written to.
    open: Option<OpenSegment>,
    /// Files for the segments to come.
    pub(super) spares: Vec<PathBuf>,
    buffer: Vec<u8>,
}

struct OpenSegment {
    file: Arc<dyn File>,
    framer: Framer,
    /// The length of its file.
    length: u64,
    /// Whether all of it is synced.
    synced: bool,
}

impl OpenSegment {
    /// Writes `bytes`, which it may lengthen by zeros.
    fn write(&mut self, bytes: &mut Vec<u8>, at: u64, sizes: &Sizes) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        if end > self.length {
            // For a large write growing costs little beside the writing itself.
            let ahead = sizes.ahead_bytes.min(sizes.segment_bytes.saturating_sub(end));
            if (bytes.len() as u64) < ahead / 4 {
                bytes.resize(bytes.len() + ahead as usize, 0);
            }
            self.length = at + bytes.len() as u64;
        }
        self.synced = false;
        self.file.write_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.file.sync()?;
            self.synced = true;
        }
        Ok(())
    }
}

/// The log's directory.
pub(crate) struct LogDisk {
    files: Arc<dyn Files>,
    dir: PathBuf,
    sizes: Sizes,
    index: Mutex<Index>,
    pen: Mutex<Pen>,
}

impl LogDisk {
    /// Opens or creates the log in `dir`.
    ///
    /// # Errors
    /// Of kind [`InvalidData`](io::ErrorKind::InvalidData) where something is damaged or gone that was synced.
    pub(crate) fn open(files: &Arc<dyn Files>, dir: &Path, sizes: Sizes) -> io::Result<Self> {
        files.create_dir(dir)?;
        files.sync_dir(dir.parent().unwrap_or(dir))?;
        let mut replay = Replay::of(files, dir)?;
        replay.settle(dir)?;
        Ok(LogDisk::over(replay, dir, sizes))
    }

    /// Opens the log in `dir` for reading, and leaves what is there as it is.
    ///
    /// # Errors
    /// As [`LogDisk::open`].
    pub(crate) fn open_frozen(files: &Arc<dyn Files>, dir: &Path) -> io::Result<Self> {
        Ok(LogDisk::over(Replay::of(files, dir)?, dir, Sizes::default()))
    }

    fn over(replay: Replay, dir: &Path, sizes: Sizes) -> Self {
        LogDisk {
            files: replay.files,
            dir: dir.to_owned(),
            sizes,
            index: Mutex::new(replay.index),
            pen: Mutex::new(replay.pen),
        }
    }

    /// Where the entries `from..to` are.
    #[cfg(test)]
    pub(super) fn pieces(&self, from: u64, to: u64) -> Vec<super::index::Piece> {
        lock(&self.index).pieces(from, to, usize::MAX)
    }

    /// Writes all of `writes` in order; with `sync`, they and all before them are durable at return.
    pub(crate) fn write(&self, writes: &[Write], sync: bool) -> io::Result<()> {
        let pen = &mut *lock(&self.pen);
        if pen.open.is_none() || pen.end >= self.sizes.segment_bytes {
            self.turn(pen)?;
        }
        let Some(open) = &mut pen.open else {
            return Err(other("the log has no segment that is written to"));
        };
        pen.buffer.clear();
        let mut places = Vec::new();
        for write in writes {
            match write {
                Write::Append(entries) => {
                    for entry in entries {
                        let start = pen.buffer.len() + FRAME_BYTES;
                        open.framer.entry(&mut pen.buffer, entry);
                        places.push(Place {
                            segment: pen.number,
                            at: pen.end + start as u64,
                            bytes: pen.buffer.len() - start,
                        });
                    }
                }
                write => open.framer.note(&mut pen.buffer, write),
            }
        }
        let end = pen.end + pen.buffer.len() as u64;
        open.write(&mut pen.buffer, pen.end, &self.sizes)?;
        pen.end = end;
        pen.buffer.clear();
        pen.buffer.shrink_to(BUFFER_BYTES_MAX);
        if sync {
            open.sync()?;
        }
        self.note(pen, writes, places)
    }

    /// Takes in what was written.
    fn note(&self, pen: &mut Pen, writes: &[Write], places: Vec<Place>) -> io::Result<()> {
        let mut places = places.into_iter();
        let mut index = lock(&self.index);
        let mut purged = false;
        for write in writes {
            pen.standing.take(write);
            index.take(write);
            if let Write::Append(entries) = write {
                for (entry, place) in entries.iter().zip(&mut places) {
                    index.append(entry.log_id.index, place)?;
                }
            }
            purged |= matches!(write, Write::Purge(_));
        }
        drop(index);
        if purged { self.retire(pen) } else { Ok(()) }
    }

    /// Where the last few whole segments before the entry `index` begin: [`Sizes::kept`] of them.
    pub(crate) fn start_of_kept(&self, index: u64) -> u64 {
        lock(&self.index).start_of_last(self.sizes.kept, index)
    }

    /// Makes everything written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        lock(&self.pen).open.as_mut().map_or(Ok(()), OpenSegment::sync)
    }

    /// Lets go of the room that nothing is kept in.
    pub(crate) fn reclaim(&self) -> io::Result<()> {
        let pen = &mut *lock(&self.pen);
        self.retire(pen)?;
        for spare in pen.spares.drain(..) {
            self.files.remove_file(&spare)?;
        }
        Ok(())
    }

    /// Ends the last segment and begins the next.
    fn turn(&self, pen: &mut Pen) -> io::Result<()> {
        if let Some(open) = &mut pen.open {
            open.sync()?;
        }
        let number = pen.number + 1;
        let path = segment_path(&self.dir, number);
        // One that a crash cut off before it had a head.
        if self.files.exists(&path) {
            self.files.remove_file(&path)?;
        }
        if let Some(spare) = pen.spares.pop() {
            self.files.rename(&spare, &path)?;
        }
        let file: Arc<dyn File> = self.files.open(&path, Open::Write)?.into();
        // A spare keeps what it held until its new name is durable: under the old one that may still be looked for.
        self.files.sync_dir(&self.dir)?;
        let mut open = OpenSegment {
            length: file.length()?,
            framer: Framer::new(number),
            file: file.clone(),
            synced: true,
        };
        let head = Head {
            before: pen.end,
            standing: pen.standing,
        };
        let mut bytes = Vec::new();
        open.framer.head(&mut bytes, &head);
        let end = bytes.len() as u64;
        open.write(&mut bytes, 0, &self.sizes)?;
        open.sync()?;
        lock(&self.index).segments.push_back(Segment {
            number,
            file,
            highest: None,
        });
        pen.open = Some(open);
        pen.number = number;
        pen.end = end;
        Ok(())
    }

    /// Makes spare files of the segments that hold only purged entries.
    fn retire(&self, pen: &mut Pen) -> io::Result<()> {
        let Some(purged) = pen.standing.purged else {
            return Ok(());
        };
        let retired = {
            let segments = &mut lock(&self.index).segments;
            let last = segments.len().saturating_sub(1);
            let count = segments
                .iter()
                .take(last)
                .take_while(|segment| segment.highest <= Some(purged.index))
                .count();
            segments.drain(..count).collect::<Vec<_>>()
        };
        if retired.is_empty() {
            return Ok(());
        }
        // What says that they are purged must not be behind the files that are gone.
        if let Some(open) = &mut pen.open {
            open.sync()?;
        }
        for mut segment in retired {
            let path = segment_path(&self.dir, segment.number);
            let unread = Arc::get_mut(&mut segment.file).is_some();
            if unread && pen.spares.len() < self.sizes.spares {
                let spare = path.with_extension("spare");
                self.files.rename(&path, &spare)?;
                pen.spares.push(spare);
            } else {
                self.files.remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl ReadLog for LogDisk {
    fn recover(&self) -> io::Result<Recovered> {
        let Standing {
            vote,
            committed,
            purged,
        } = lock(&self.pen).standing;
        let (first, end) = {
            let index = lock(&self.index);
            (index.first, index.end())
        };
        let last = self.read(end.saturating_sub(1), end, usize::MAX)?;
        let last = last.last().map(|entry| entry.log_id).max(purged);
        Ok(Recovered {
            vote,
            committed,
            purged,
            first,
            last,
        })
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        // The pieces hold on to their files, which therefore are not written over meanwhile.
        let pieces = lock(&self.index).pieces(from, to, bytes_max);
        let mut entries = Vec::new();
        for piece in pieces {
            piece.read(&mut entries)?;
        }
        Ok(entries)
    }
}

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.log"))
}
