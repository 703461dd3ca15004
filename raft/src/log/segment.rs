//! The bytes of a segment, one file of the log: a run of frames, each with a checksum of its own.
//!
//! ```text
//! length u32 | checksum u32 | kind u8 | body
//! ```
//! Integers are little endian; `length` counts the body. The checksum covers the number of the segment, the length, the
//! kind and the body; of an entry only its record's head, for a [`record`] has a checksum of the rest. Since the number
//! is part of it, what a recycled file still holds of an earlier segment is never taken for a frame of this one: a
//! segment ends where the first thing comes that is no intact frame.
//!
//! The first frame is a [`Head`]: what all segments before it came to, so that they may go.

use super::disk::Write;
use super::record;
use super::stored::{StoredVote, decode_log_id, encode_log_id, invalid};
use crate::types::{Entry, LogId, Vote};
use crc32fast::Hasher;
use onward_statemachine::codec;
use serde::{Deserialize, Serialize};
use std::io;

/// What stands in front of a frame's body.
pub(super) const FRAME_BYTES: usize = 4 + 4 + 1;

/// What has not been written yet.
const NOTHING: u8 = 0;
const HEAD: u8 = 1;
const ENTRY: u8 = 2;
const VOTE: u8 = 3;
const COMMITTED: u8 = 4;
const TRUNCATE: u8 = 5;
const PURGE: u8 = 6;

/// What a log has come to beside its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
}

impl Standing {
    /// Takes in what `write` says of it.
    pub(super) fn take(&mut self, write: &Write) {
        match write {
            Write::Vote(vote) => self.vote = Some(*vote),
            Write::Committed(committed) => self.committed = *committed,
            Write::Purge(upto) => self.purged = self.purged.max(Some(*upto)),
            Write::Append(_) | Write::TruncateFrom(_) => {}
        }
    }
}

/// The first frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// How many bytes of the segment before this one are part of the log. What comes behind them is not, though it may
    /// have a checksum.
    pub(super) before: u64,
    /// What the log had come to.
    pub(super) standing: Standing,
}

#[derive(Serialize, Deserialize)]
struct StoredHead {
    before: u64,
    vote: Option<StoredVote>,
    committed: Option<Vec<u8>>,
    purged: Option<Vec<u8>>,
}

/// Appends the frames of one segment to a buffer.
pub(super) struct Framer {
    number: Hasher,
}

impl Framer {
    /// Of the segment `number`.
    pub(super) fn new(number: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&number.to_le_bytes());
        Framer { number: hasher }
    }

    /// The checksum of a frame.
    fn checksum(&self, kind: u8, body: &[u8]) -> u32 {
        let checked = match kind {
            ENTRY => body.len().min(record::HEADER_BYTES),
            _ => body.len(),
        };
        let mut hasher = self.number.clone();
        hasher.update(&(body.len() as u32).to_le_bytes());
        hasher.update(&[kind]);
        hasher.update(&body[..checked]);
        hasher.finalize()
    }

    fn frame(&self, out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME_BYTES]);
        body(out);
        let (head, body) = out[start..].split_at_mut(FRAME_BYTES);
        head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[4..8].copy_from_slice(&self.checksum(kind, body).to_le_bytes());
        head[8] = kind;
    }

    pub(super) fn head(&self, out: &mut Vec<u8>, head: &Head) {
        let stored = StoredHead {
            before: head.before,
            vote: head.standing.vote.as_ref().map(StoredVote::from),
            committed: head.standing.committed.as_ref().map(encode_log_id),
            purged: head.standing.purged.as_ref().map(encode_log_id),
        };
        self.frame(out, HEAD, |out| out.extend_from_slice(&codec::encode(&stored)));
    }

    pub(super) fn entry(&self, out: &mut Vec<u8>, entry: &Entry) {
        self.frame(out, ENTRY, |out| record::encode(entry, out));
    }

    /// Everything but entries, which go one by one.
    pub(super) fn note(&self, out: &mut Vec<u8>, write: &Write) {
        let (kind, body) = match write {
            Write::Append(_) => return,
            Write::Vote(vote) => (VOTE, codec::encode(&StoredVote::from(vote))),
            Write::Committed(id) => (COMMITTED, id.as_ref().map(encode_log_id).unwrap_or_default()),
            Write::TruncateFrom(from) => (TRUNCATE, from.to_le_bytes().to_vec()),
            Write::Purge(upto) => (PURGE, encode_log_id(upto)),
        };
        self.frame(out, kind, |out| out.extend_from_slice(&body));
    }
}

/// What a frame says.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Head(Head),
    /// The record of the entry with this index.
    Entry(u64, &'a [u8]),
    /// Everything else.
    Note(Write),
}

/// The intact frames at the beginning of a segment, each with where its body begins.
pub(super) struct Frames<'a> {
    framer: Framer,
    bytes: &'a [u8],
    end: usize,
}

impl<'a> Frames<'a> {
    /// Of the segment `number`, whose file begins with `bytes`.
    pub(super) fn new(number: u64, bytes: &'a [u8]) -> Self {
        let framer = Framer::new(number);
        Frames {
            framer,
            bytes,
            end: 0,
        }
    }

    /// Where the last frame that was looked at ends.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// The next frame's kind and body, if it is intact.
    fn body(&self) -> Option<(u8, &'a [u8])> {
        let (head, rest) = self.bytes[self.end..].split_first_chunk::<FRAME_BYTES>()?;
        let [a, b, c, d, checksum @ .., kind] = *head;
        let body = rest.get(..u32::from_le_bytes([a, b, c, d]) as usize)?;
        let intact = kind != NOTHING
            && self.framer.checksum(kind, body).to_le_bytes() == checksum
            && (kind != ENTRY || record::is_intact(body));
        intact.then_some((kind, body))
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = io::Result<(usize, Content<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, body) = self.body()?;
        let at = self.end + FRAME_BYTES;
        self.end = at + body.len();
        Some(content(kind, body).map(|content| (at, content)))
    }
}

fn content(kind: u8, body: &[u8]) -> io::Result<Content<'_>> {
    let id = |bytes: &[u8]| decode_log_id(bytes);
    let note = match kind {
        ENTRY => return Ok(Content::Entry(record::log_id(body)?.index, body)),
        HEAD => {
            let stored: StoredHead = codec::decode(body).map_err(invalid)?;
            let standing = Standing {
                vote: stored.vote.map(Vote::from),
                committed: stored.committed.as_deref().map(id).transpose()?,
                purged: stored.purged.as_deref().map(id).transpose()?,
            };
            let before = stored.before;
            return Ok(Content::Head(Head { before, standing }));
        }
        VOTE => {
            let stored: StoredVote = codec::decode(body).map_err(invalid)?;
            Write::Vote(stored.into())
        }
        COMMITTED if body.is_empty() => Write::Committed(None),
        COMMITTED => Write::Committed(Some(id(body)?)),
        TRUNCATE => Write::TruncateFrom(u64::from_le_bytes(body.try_into().map_err(invalid)?)),
        PURGE => Write::Purge(id(body)?),
        kind => {
            return Err(invalid(format!(
                "a frame has kind {kind}, which this build does not know"
            )));
        }
    };
    Ok(Content::Note(note))
}
