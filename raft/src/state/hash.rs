//! The hash of the state beside the state, and what it was at the last marks ([`crate::agreement`]).

use super::database::{Standing, StateDisk};
use crate::types::LogId;
use onward_statemachine::digest::StateHash;
use onward_statemachine::system::Mark;
use onward_statemachine::{Fault, Revision, codec};
use serde::{Deserialize, Serialize};
use std::io;
use tokio::time::Instant;

/// So many marks are remembered: a majority agrees on one before the next few are set, or not at all.
const MARKS_MAX: usize = 16;

/// The hash of a state and its last marks, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) hash: StateHash,
    marks: Vec<Mark>,
}

/// As it is stored: with the entry that it is of, since a release that keeps no hash may have applied more.
#[derive(Serialize, Deserialize)]
struct Stored {
    index: u64,
    kept: Kept,
}

impl Kept {
    /// A hash without marks.
    pub(crate) fn of(hash: StateHash) -> Self {
        let marks = Vec::new();
        Kept { hash, marks }
    }

    pub(crate) fn encode(&self, applied: &LogId) -> Vec<u8> {
        codec::encode(&Stored {
            index: applied.index,
            kept: self.clone(),
        })
    }

    /// Reads what [`Kept::encode`] wrote; `None` where the state has moved on since.
    pub(crate) fn decode(bytes: &[u8], applied: Option<LogId>) -> io::Result<Option<Kept>> {
        let stored: Stored = codec::decode(bytes).map_err(crate::log::stored::invalid)?;
        let same = applied.is_some_and(|applied| applied.index == stored.index);
        Ok(same.then_some(stored.kept))
    }

    /// Takes the hash at this revision, whose entry is the last that was applied.
    pub(crate) fn mark(&mut self, at: Revision) {
        let hash = self.hash.mark();
        if self.marks.len() == MARKS_MAX {
            self.marks.remove(0);
        }
        self.marks.push(Mark { at, hash });
    }

    /// The last mark.
    pub(crate) fn last_mark(&self) -> Option<Mark> {
        self.marks.last().copied()
    }

    /// What this node had at a mark, while it remembers that.
    pub(crate) fn mark_at(&self, at: Revision) -> Option<Mark> {
        self.marks.iter().find(|own| own.at == at).copied()
    }
}

/// Where a state stands, with its hash: computed from all of its rows, once, where nobody has kept it.
pub(crate) fn standing(disk: &dyn StateDisk) -> io::Result<Standing> {
    let mut standing = disk.standing()?;
    if standing.kept.is_none() {
        let begun = Instant::now();
        let mut scanned = Err(Fault::invariant("the store did not call back"));
        disk.view(&mut |view| scanned = StateHash::scan(view));
        let hash = scanned.map_err(io::Error::other)?;
        if standing.applied.is_some() {
            tracing::info!(took = ?begun.elapsed(), "the hash of the state was computed from all of its rows");
        }
        standing.kept = Some(Kept::of(hash));
    }
    Ok(standing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;

    fn id(index: u64) -> LogId {
        let leader = LeaderId { term: 1, node_id: 1 };
        LogId::new(leader, index)
    }

    #[test]
    fn a_hash_is_of_one_revision() {
        let mut kept = Kept::default();
        kept.mark(Revision(7));
        let stored = kept.encode(&id(7));
        let read = |applied| Kept::decode(&stored, applied).expect("decodes");
        assert_eq!(read(Some(id(7))), Some(kept));
        assert_eq!(read(Some(id(8))), None, "another release went on from there");
        assert_eq!(read(None), None);
    }

    #[test]
    fn the_last_marks_are_remembered() {
        let mut kept = Kept::default();
        for revision in 1..=20 {
            kept.mark(Revision(revision));
        }
        assert_eq!(kept.mark_at(Revision(20)), kept.last_mark());
        assert!(kept.mark_at(Revision(5)).is_some());
        assert_eq!(kept.mark_at(Revision(4)), None);
    }
}
