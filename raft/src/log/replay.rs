//! Reads the segments of a log when it is opened.

use super::disk::{Pen, segment_path};
use super::index::{Index, Place, Segment};
use super::segment::{Content, Frames};
use super::stored::invalid;
use crate::files::{Files, Open};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What the files of a directory come to.
pub(super) struct Replay {
    pub(super) files: Arc<dyn Files>,
    pub(super) index: Index,
    pub(super) pen: Pen,
    /// What the last segment holds of the log.
    last: Vec<u8>,
    /// Segments that hold only purged entries.
    left: Vec<u64>,
}

impl Replay {
    pub(super) fn of(files: &Arc<dyn Files>, dir: &Path) -> io::Result<Self> {
        let mut replay = Replay {
            files: files.clone(),
            index: Index::default(),
            pen: Pen::default(),
            last: Vec::new(),
            left: Vec::new(),
        };
        let mut numbers: Vec<u64> = Vec::new();
        for listed in files.list(dir)? {
            match listed.name.rsplit_once('.') {
                Some((number, "log")) => numbers.push(number.parse().map_err(invalid)?),
                Some((_, "spare")) => replay.pen.spares.push(dir.join(&listed.name)),
                _ => {}
            }
        }
        numbers.sort_unstable();
        for (place, number) in numbers.iter().enumerate() {
            replay.segment(dir, *number, place + 1 == numbers.len())?;
        }
        let (index, purged) = (&replay.index, replay.pen.standing.purged);
        if purged.is_none()
            && let Some(first) = index.segments.front()
            && first.number > 1
        {
            let number = first.number - 1;
            return Err(invalid(format!("segment {number} of the log is missing")));
        }
        let begin = purged.map_or(index.first, |id| id.index + 1);
        if index.first > begin {
            let end = index.first - 1;
            return Err(invalid(format!(
                "entries {begin} to {end} are missing from the log"
            )));
        }
        Ok(replay)
    }

    /// Takes in a segment. Its head says how much of the one before it there has to be.
    fn segment(&mut self, dir: &Path, number: u64, is_last: bool) -> io::Result<()> {
        let path = segment_path(dir, number);
        let bytes = self.files.read(&path)?;
        let mut frames = Frames::new(number, &bytes);
        let head = match frames.next().transpose()? {
            Some((_, Content::Head(head))) => head,
            // It was begun, and nothing was written to it; the next one takes its place.
            _ if is_last => return Ok(()),
            _ => {
                return Err(invalid(format!(
                    "segment {number} of the log is damaged at its beginning"
                )));
            }
        };
        let Pen {
            number: before, end, ..
        } = self.pen;
        if number != before + 1 {
            // Segments go from the front, but not every file system keeps that order in a crash: what is before a gap was
            // to go as well. Whether that was so is seen once all is read.
            let left = self.index.segments.drain(..);
            self.left.extend(left.map(|segment| segment.number));
            self.index = Index::default();
        } else if end != head.before {
            return Err(invalid(format!(
                "segment {before} of the log is damaged at byte {end} of {}",
                head.before
            )));
        }
        self.pen.standing = head.standing;
        self.index.segments.push_back(Segment {
            number,
            file: self.files.open(&path, Open::Read)?.into(),
            highest: None,
        });
        for frame in &mut frames {
            match frame? {
                (at, Content::Entry(index, record)) => {
                    let place = Place {
                        segment: number,
                        at: at as u64,
                        bytes: record.len(),
                    };
                    self.index.append(index, place)?;
                }
                (_, Content::Note(write)) => {
                    self.pen.standing.take(&write);
                    self.index.take(&write);
                }
                (at, Content::Head(_)) => {
                    return Err(invalid(format!(
                        "segment {number} of the log has a head at byte {at}"
                    )));
                }
            }
        }
        self.pen.number = number;
        self.pen.end = frames.end() as u64;
        self.last = bytes;
        self.last.truncate(self.pen.end as usize);
        Ok(())
    }

    /// Makes what was read durable, and clears away what a crash left behind.
    pub(super) fn settle(&mut self, dir: &Path) -> io::Result<()> {
        for left in self.left.drain(..) {
            self.files.remove_file(&segment_path(dir, left))?;
        }
        if self.pen.number > 0 {
            let file = self
                .files
                .open(&segment_path(dir, self.pen.number), Open::Write)?;
            file.write_at(&self.last, 0)?;
            file.sync()?;
        }
        self.files.sync_dir(dir)
    }
}
