//! Where each entry of the log is.

use super::disk::Write;
use super::record;
use super::segment::FRAME_BYTES;
use super::stored::invalid;
use crate::files::File;
use crate::types::Entry;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Where the record of an entry is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// Where it begins in the file.
    pub(super) at: u64,
    /// How long it is.
    pub(super) bytes: usize,
}

impl Place {
    /// Whether this record is the one that was written behind `other`.
    fn follows(&self, other: &Place) -> bool {
        self.segment == other.segment && self.at == other.at + (other.bytes + FRAME_BYTES) as u64
    }
}

/// A file of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<dyn File>,
    /// The highest index that it has or had an entry of.
    pub(super) highest: Option<u64>,
}

/// Where everything is. Readers and the one writer share it.
#[derive(Default)]
pub(super) struct Index {
    /// In the order of their numbers, without a gap.
    pub(super) segments: VecDeque<Segment>,
    /// The index of the first place.
    pub(super) first: u64,
    places: VecDeque<Place>,
}

impl Index {
    /// The index behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// The entry `index` is at `place`, in the last segment.
    pub(super) fn append(&mut self, index: u64, place: Place) -> io::Result<()> {
        let end = self.end();
        if self.places.is_empty() {
            self.first = index;
        } else if index != end {
            return Err(invalid(format!(
                "entry {index} comes where entry {end} should be"
            )));
        }
        self.places.push_back(place);
        if let Some(segment) = self.segments.back_mut() {
            segment.highest = segment.highest.max(Some(index));
        }
        Ok(())
    }

    /// Takes in what `write` says of entries that are there.
    pub(super) fn take(&mut self, write: &Write) {
        match write {
            Write::TruncateFrom(from) => {
                self.places.truncate(from.saturating_sub(self.first) as usize);
            }
            Write::Purge(upto) => {
                let count = (upto.index + 1).saturating_sub(self.first) as usize;
                self.places.drain(..count.min(self.places.len()));
                self.first = self.first.max(upto.index + 1);
            }
            Write::Append(_) | Write::Vote(_) | Write::Committed(_) => {}
        }
    }

    /// The first index behind all but the last `count` of the segments that end before `index`; 0 where there are no more.
    pub(super) fn start_of_last(&self, count: usize, index: u64) -> u64 {
        let ends = self.segments.iter().rev().filter_map(|segment| segment.highest);
        let before = ends.filter(|highest| *highest < index).nth(count);
        before.map_or(0, |highest| highest + 1)
    }

    fn file(&self, number: u64) -> Option<&Arc<dyn File>> {
        let first = self.segments.front()?.number;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.segments.get(at).map(|segment| &segment.file)
    }

    /// The records of `from..to` in pieces that stand together, in all about `bytes_max`, though never none.
    pub(super) fn pieces(&self, from: u64, to: u64, bytes_max: usize) -> Vec<Piece> {
        let from = from.clamp(self.first, self.end());
        let to = to.clamp(from, self.end());
        let at = |index: u64| (index - self.first) as usize;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut bytes = 0;
        for (index, place) in (from..to).zip(self.places.range(at(from)..at(to))) {
            bytes += place.bytes;
            if bytes > bytes_max && !pieces.is_empty() {
                break;
            }
            match pieces.last_mut() {
                Some(piece) if piece.places.last().is_some_and(|last| place.follows(last)) => {
                    piece.places.push(*place);
                }
                _ => pieces.extend(self.file(place.segment).map(|file| Piece {
                    file: file.clone(),
                    first: index,
                    places: vec![*place],
                })),
            }
        }
        pieces
    }
}

/// Records that stand together in one file.
pub(super) struct Piece {
    file: Arc<dyn File>,
    first: u64,
    places: Vec<Place>,
}

impl Piece {
    /// Reads them at once; the entries share the bytes.
    pub(super) fn read(&self, entries: &mut Vec<Entry>) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.places.first(), self.places.last()) else {
            return Ok(());
        };
        let mut bytes = vec![0; (last.at - first.at) as usize + last.bytes];
        let mut filled = 0;
        while filled < bytes.len() {
            match self
                .file
                .read_at(&mut bytes[filled..], first.at + filled as u64)?
            {
                0 => return Err(invalid(format!("entry {} is cut off", self.first))),
                count => filled += count,
            }
        }
        let bytes = Bytes::from(bytes);
        for (index, place) in (self.first..).zip(&self.places) {
            let at = (place.at - first.at) as usize;
            let entry = record::decode(bytes.slice(at..at + place.bytes))
                .map_err(|error| invalid(format!("entry {index}: {error}")))?;
            if entry.log_id.index != index {
                let found = entry.log_id.index;
                return Err(invalid(format!("entry {found} is where entry {index} should be")));
            }
            entries.push(entry);
        }
        Ok(())
    }
}
