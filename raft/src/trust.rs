//! Whether this node's log can be trusted to hold all that the node ever acknowledged.

use crate::files::Files;
use crate::runtime::new_uuid;
use crate::types::{LogId, Vote};
use onward_statemachine::{NodeId, Revision};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// What a node that begins without a log may not do: vote. It may once one of two things is known:
/// - it has all that a leader had committed in its own term, which covers everything before it;
/// - when the cluster was founded, no initial member had a log, so that there was nothing to forget ([`crate::found`]).
///
/// A file in the data directory remembers that neither is known yet, and names this life of the directory: a member
/// that is wiped begins another. A node that starts with a log has nothing to prove: the durable watermark saw to that.
/// Another file keeps the lives of all members in which none had a log, until all of them know it.
pub(crate) struct Trust {
    /// The revision to be applied first; [`Trust::UNKNOWN`] until a leader told, 0 where there is nothing to wait for.
    target: AtomicU64,
    life: Uuid,
    lives: Mutex<Option<Lives>>,
    files: Arc<dyn Files>,
    dir: PathBuf,
}

/// The life of each initial member; nil for one that needs not be told any more.
pub(crate) type Lives = BTreeMap<NodeId, Uuid>;

impl Trust {
    const UNKNOWN: u64 = u64::MAX;

    const NOTE: &str = "catching-up";
    const LIVES: &str = "founded";

    /// Reads whether the node in `dir` may vote.
    pub(crate) fn of(files: Arc<dyn Files>, dir: &Path) -> io::Result<Self> {
        let life = files
            .read_text(&dir.join(Self::NOTE))?
            .map(|text| Uuid::parse_str(text.trim()).unwrap_or_else(|_| new_uuid()));
        let trust = Trust {
            target: AtomicU64::new(if life.is_some() { Self::UNKNOWN } else { 0 }),
            life: life.unwrap_or_default(),
            lives: Mutex::new(read_lives(&*files, &dir.join(Self::LIVES))?),
            files,
            dir: dir.to_owned(),
        };
        // The process ended between writing the one and deleting the other.
        let told = trust
            .lives()
            .is_some_and(|lives| lives.values().any(|told| *told == trust.life));
        if told && !trust.settled() {
            trust.forget()?;
        }
        Ok(trust)
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

    /// No initial member had a log in the life that each of them named; this one is `me`. Says whether its life is that one.
    pub(crate) fn found(&self, me: NodeId, lives: &Lives) -> io::Result<bool> {
        if self.settled() {
            return Ok(true);
        }
        if lives.get(&me) != Some(&self.life) {
            return Ok(false);
        }
        let text: String = lives
            .iter()
            .map(|(id, life)| format!("{id} = {life}\n"))
            .collect();
        self.files.replace(&self.dir.join(Self::LIVES), text.as_bytes())?;
        *self.lock() = Some(lives.clone());
        self.forget()?;
        Ok(true)
    }

    /// The lives in which no initial member had a log, as long as some member may not know it.
    pub(crate) fn lives(&self) -> Option<Lives> {
        self.lock().clone()
    }

    /// All members know.
    pub(crate) fn all_told(&self) -> io::Result<()> {
        self.delete(Self::LIVES)?;
        *self.lock() = None;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lives>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the note once the node has caught up.
    pub(crate) fn settle(&self, applied: Revision) {
        if self.settled() || !self.may_vote(applied) {
            return;
        }
        if let Err(error) = self.forget() {
            tracing::warn!(path = %self.note().display(), %error, "the note cannot be deleted");
        }
    }

    fn forget(&self) -> io::Result<()> {
        self.delete(Self::NOTE)?;
        self.target.store(0, Relaxed);
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match self.files.remove_file(&self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.files.sync_dir(&self.dir),
        }
    }

    /// The file that remembers that the node may not vote.
    pub(crate) fn note(&self) -> PathBuf {
        self.dir.join(Self::NOTE)
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

fn read_lives(files: &dyn Files, path: &Path) -> io::Result<Option<Lives>> {
    let Some(text) = files.read_text(path)? else {
        return Ok(None);
    };
    let read = |line: &str| {
        let (id, life) = line.split_once(" = ")?;
        Some((NodeId(id.parse().ok()?), life.parse().ok()?))
    };
    let damaged = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("`{}` is damaged", Trust::LIVES),
        )
    };
    let lives: Option<Lives> = text.lines().map(read).collect();
    lives.map(Some).ok_or_else(damaged)
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
        let lives = |life| Lives::from([(NodeId(1), life), (NodeId(2), Uuid::from_u128(2))]);
        assert!(!trust.found(NodeId(1), &lives(asked)).expect("reads"));
        assert!(!trust.may_vote(Revision(0)));
        assert_eq!(trust.lives(), None);
        let life = trust.life();
        assert!(trust.found(NodeId(1), &lives(life)).expect("deletes"));
        assert!(trust.may_vote(Revision(0)));
        assert!(of(dir.path()).settled(), "for good");
        // It passes on what it was told, after a restart too, until all know.
        assert_eq!(of(dir.path()).lives(), Some(lives(life)));
        // A process that ended before it could vote goes on from there.
        std::fs::write(dir.path().join(Trust::NOTE), format!("{life}\n")).expect("writes");
        let trust = of(dir.path());
        assert!(trust.settled());
        trust.all_told().expect("deletes");
        assert_eq!(trust.lives(), None);
        assert_eq!(of(dir.path()).lives(), None);
    }
}
