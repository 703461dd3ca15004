//! The durable watermark: a small file beside the log that remembers how far the log was durable.
//!
//! The log is read up to the first frame of its last segment that is not intact, and what follows is dropped. A voter that
//! forgets entries it acknowledged breaks Raft: a majority may then elect a leader without them. So the watermark says
//! "the log reached at least here, with this vote", and a node whose recovered log ends below it refuses to start.
//!
//! # What it guarantees
//! It is written only after the log was synced, so it never claims more than was durable: no false alarm. It is written
//! at most every [`WRITE_INTERVAL`] and synced at most every [`SYNC_INTERVAL`] (and with every vote, and at shutdown),
//! so that the hot path keeps to one fsync: after a crash of the process it is behind by the first interval at most,
//! after a power loss by the second, and loss of anything acknowledged before that is noticed. What it cannot notice is
//! the loss of only the last entries within that interval.
//!
//! A truncation legitimately shortens the log; the watermark is lowered, durably, before the log is.
//!
//! Two slots are written in turn, each with a sequence number and a checksum, so that a torn write leaves the other.

use crate::files::{File, Files, Open};
use crate::types::{LeaderId, LogId, Vote};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) const WRITE_INTERVAL: Duration = Duration::from_millis(20);
pub(crate) const SYNC_INTERVAL: Duration = Duration::from_secs(1);

const MAGIC: &[u8; 4] = b"OWM1";
const SLOT_BYTES: usize = 4096;
const USED_BYTES: usize = 4 + 8 + 1 + 3 * 8 + 1 + 2 * 8 + 1 + 4;

/// How far the log was durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) last: Option<LogId>,
    pub(crate) vote: Option<Vote>,
}

/// The file and what was last written to it.
pub(crate) struct Watermark {
    file: Box<dyn File>,
    sequence: u64,
    mark: Mark,
    written: Mark,
    written_at: Instant,
    synced: Mark,
    synced_at: Instant,
}

impl Watermark {
    /// Opens or creates the file and reads the newer of its intact slots.
    pub(crate) fn open(files: &dyn Files, path: &Path) -> io::Result<Self> {
        let file = files.open(path, Open::Write)?;
        let mut newest = None;
        if file.length()? == 0 {
            file.write_at(&[0; 2 * SLOT_BYTES], 0)?;
            file.sync()?;
            if let Some(parent) = path.parent() {
                files.sync_dir(parent)?;
            }
        } else {
            for slot in 0..2 {
                let mut bytes = [0; USED_BYTES];
                if file.read_at(&mut bytes, slot * SLOT_BYTES as u64)? == USED_BYTES
                    && let Some(found) = decode(&bytes)
                    && newest.is_none_or(|(sequence, _)| found.0 > sequence)
                {
                    newest = Some(found);
                }
            }
        }
        let (sequence, mark) = newest.unwrap_or_default();
        let now = Instant::now();
        Ok(Watermark {
            file,
            sequence,
            mark,
            written: mark,
            written_at: now,
            synced: mark,
            synced_at: now,
        })
    }

    /// What the file says.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// The log is durable up to `mark`; written when it is time.
    pub(crate) fn advance(&mut self, mark: Mark, now: Instant) -> io::Result<()> {
        let voted = mark.vote != self.mark.vote;
        self.mark = mark;
        if voted {
            return self.sync();
        }
        if self.written != mark && now.duration_since(self.written_at) >= WRITE_INTERVAL {
            self.write(now)?;
        }
        if self.synced != self.written && now.duration_since(self.synced_at) >= SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(())
    }

    /// The log is about to be cut after `last`.
    pub(crate) fn lower(&mut self, last: Option<LogId>) -> io::Result<()> {
        let known = [self.mark, self.written, self.synced];
        if known.iter().all(|mark| mark.last <= last) {
            return Ok(());
        }
        self.mark.last = last;
        self.sync()
    }

    /// Makes the last mark durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if self.written != self.mark {
            self.write(now)?;
        }
        if self.synced != self.written {
            self.file.sync()?;
            self.synced = self.written;
            self.synced_at = now;
        }
        Ok(())
    }

    /// When [`Watermark::advance`] has something left to do though nothing is appended.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.written != self.mark {
            Some(self.written_at + WRITE_INTERVAL)
        } else if self.synced != self.written {
            Some(self.synced_at + SYNC_INTERVAL)
        } else {
            None
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        self.sequence += 1;
        let slot = self.sequence % 2;
        self.file
            .write_at(&encode(self.sequence, &self.mark), slot * SLOT_BYTES as u64)?;
        self.written = self.mark;
        self.written_at = now;
        Ok(())
    }
}

fn encode(sequence: u64, mark: &Mark) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USED_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.push(mark.last.is_some().into());
    let last = mark
        .last
        .map_or([0; 3], |id| [id.leader_id.term, id.leader_id.node_id, id.index]);
    for number in last {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.push(mark.vote.is_some().into());
    let vote = mark.vote.unwrap_or(Vote::new(0, 0));
    for number in [vote.leader_id.term, vote.leader_id.node_id] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.push(vote.committed.into());
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; USED_BYTES]) -> Option<(u64, Mark)> {
    let (body, checksum) = bytes.split_at(USED_BYTES - 4);
    let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("8 bytes"));
    if !body.starts_with(MAGIC) || crc32fast::hash(body).to_le_bytes() != checksum {
        return None;
    }
    let leader = |at| LeaderId {
        term: number(at),
        node_id: number(at + 8),
    };
    let last = (body[12] != 0).then(|| LogId::new(leader(13), number(29)));
    let vote = (body[37] != 0).then(|| Vote {
        leader_id: leader(38),
        committed: body[54] != 0,
    });
    Some((number(4), Mark { last, vote }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    fn mark(index: u64) -> Mark {
        Mark {
            last: Some(LogId::new(LeaderId { term: 1, node_id: 2 }, index)),
            vote: Some(Vote::new_committed(1, 2)),
        }
    }

    #[test]
    fn returns_what_was_synced_and_survives_a_torn_slot() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("watermark");
        let mut watermark = Watermark::open(&Disk, &path).expect("opens");
        assert_eq!(watermark.mark(), Mark::default());
        for index in [3, 9] {
            watermark.mark = mark(index);
            watermark.sync().expect("syncs");
        }
        let newest = watermark.sequence % 2;
        drop(watermark);
        assert_eq!(Watermark::open(&Disk, &path).expect("opens").mark(), mark(9));
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        file.write_all_at(&[0xff; 20], newest * SLOT_BYTES as u64)
            .expect("writes");
        assert_eq!(Watermark::open(&Disk, &path).expect("opens").mark(), mark(3));
    }

    #[test]
    fn a_vote_is_synced_at_once_and_a_truncation_lowers() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("watermark");
        let mut watermark = Watermark::open(&Disk, &path).expect("opens");
        watermark.advance(mark(5), Instant::now()).expect("writes");
        assert_eq!(Watermark::open(&Disk, &path).expect("opens").mark(), mark(5));
        watermark.lower(mark(4).last).expect("lowers");
        assert_eq!(Watermark::open(&Disk, &path).expect("opens").mark(), mark(4));
        assert_eq!(watermark.due(), None);
    }
}
