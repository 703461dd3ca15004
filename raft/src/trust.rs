//! Whether this node's log can be trusted to hold all that the node ever acknowledged.

use crate::files::Files;
use crate::runtime::new_uuid;
use crate::types::{LogId, Vote};
use onward_statemachine::Revision;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use uuid::Uuid;

/// What a node that begins without a log may not do: vote. It may once one of two things is known:
/// - it has all that a leader had committed in its own term, which covers everything before it;
/// - when the cluster was founded, no initial member had a log, so that there was nothing to forget ([`crate::found`]).
///
/// A file in the data directory remembers that neither is known yet, and names this life of the directory: a member
/// that is wiped begins another. A node that starts with a log has nothing to prove: the durable watermark saw to that.
pub(crate) struct Trust {
    /// The revision to be applied first; [`Trust::UNKNOWN`] until a leader told, 0 where there is nothing to wait for.
    target: AtomicU64,
    life: Uuid,
    files: Arc<dyn Files>,
    note: PathBuf,
}

impl Trust {
    const UNKNOWN: u64 = u64::MAX;

    const NOTE: &str = "catching-up";

    /// Reads whether the node in `dir` may vote.
    pub(crate) fn of(files: Arc<dyn Files>, dir: &Path) -> io::Result<Self> {
        let note = dir.join(Self::NOTE);
        let life = files
            .read_text(&note)?
            .map(|text| Uuid::parse_str(text.trim()).unwrap_or_else(|_| new_uuid()));
        Ok(Trust {
            target: AtomicU64::new(if life.is_some() { Self::UNKNOWN } else { 0 }),
            life: life.unwrap_or_default(),
            files,
            note,
        })
    }

    /// Notes, before anything else is written, that the node in `dir` begins without a log.
    pub(crate) fn begin(files: &dyn Files, dir: &Path) -> io::Result<()> {
        let life = format!("{}\n", new_uuid());
        files.create(&dir.join(Self::NOTE), life.as_bytes())?;
        files.sync_dir(dir)
    }

    /// This life of the data directory; nil where it has nothing to prove.
    pub(crate) fn life(&self) -> Uuid {
        self.life
    }

    /// No initial member had a log in the life that each of them named: in `life`, this one. Says whether it is.
    pub(crate) fn found(&self, life: Uuid) -> io::Result<bool> {
        if self.settled() {
            return Ok(true);
        }
        if life != self.life {
            return Ok(false);
        }
        self.forget()?;
        Ok(true)
    }

    /// Forgets the note once the node has caught up.
    pub(crate) fn settle(&self, applied: Revision) {
        if self.settled() || !self.may_vote(applied) {
            return;
        }
        if let Err(error) = self.forget() {
            tracing::warn!(path = %self.note.display(), %error, "the note cannot be deleted");
        }
    }

    fn forget(&self) -> io::Result<()> {
        match self.files.remove_file(&self.note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(dir) = self.note.parent() {
            self.files.sync_dir(dir)?;
        }
        self.target.store(0, Relaxed);
        Ok(())
    }

    /// The file that remembers that the node may not vote.
    pub(crate) fn note(&self) -> &Path {
        &self.note
    }

    /// Whether there is nothing to wait for.
    pub(crate) fn settled(&self) -> bool {
        self.target.load(Relaxed) == 0
    }

    /// A leader with this vote has this committed.
    pub(crate) fn learn(&self, vote: &Vote, committed: Option<&LogId>) {
        if self.target.load(Relaxed) == Self::UNKNOWN
            && let Some(committed) = committed
            && committed.leader_id == vote.leader_id
        {
            self.target.store(committed.index, Relaxed);
        }
    }

    /// Whether this node, which has applied `applied`, may vote.
    pub(crate) fn may_vote(&self, applied: Revision) -> bool {
        applied.0 >= self.target.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;
    use crate::types::LeaderId;

    fn of(dir: &Path) -> Trust {
        Trust::of(Arc::new(Disk), dir).expect("reads")
    }

    #[test]
    fn a_voter_without_its_log_votes_only_once_it_has_caught_up() {
        let dir = tempfile::tempdir().expect("temp dir");
        let id = |term, index| LogId::new(LeaderId { term, node_id: 1 }, index);
        assert!(
            of(dir.path()).may_vote(Revision(0)),
            "nothing says that it began without"
        );
        Trust::begin(&Disk, dir.path()).expect("notes");
        let trust = of(dir.path());
        assert!(!trust.may_vote(Revision(0)));
        let leader = Vote::new_committed(2, 1);
        // What a leader commits of an earlier term may be less than what was acknowledged.
        trust.learn(&leader, Some(&id(1, 5)));
        assert!(!trust.may_vote(Revision(5)));
        trust.learn(&leader, Some(&id(2, 9)));
        trust.settle(Revision(8));
        assert!(!trust.may_vote(Revision(8)));
        // A restart does not make it forget.
        let trust = of(dir.path());
        assert!(!trust.may_vote(Revision(9)));
        trust.learn(&leader, Some(&id(2, 9)));
        assert!(trust.may_vote(Revision(9)));
        trust.settle(Revision(9));
        assert!(of(dir.path()).may_vote(Revision(0)));
    }

    #[test]
    fn founding_frees_the_life_that_was_asked_and_no_other() {
        let dir = tempfile::tempdir().expect("temp dir");
        Trust::begin(&Disk, dir.path()).expect("notes");
        let asked = of(dir.path()).life();
        assert_eq!(of(dir.path()).life(), asked, "a restart is the same life");
        // Wiped meanwhile: another life, which may have forgotten what the first acknowledged.
        Trust::begin(&Disk, dir.path()).expect("notes");
        let trust = of(dir.path());
        assert!(!trust.found(asked).expect("reads"));
        assert!(!trust.may_vote(Revision(0)));
        assert!(trust.found(trust.life()).expect("deletes"));
        assert!(trust.may_vote(Revision(0)));
        assert!(of(dir.path()).settled(), "for good");
    }
}
