//! The parts of a data directory, and what they say of each other.

use super::{Look, VerifyError, log};
use crate::identity;
use crate::node::StartError;
use crate::state::database::StateDisk;
use crate::state::snapshot::SnapshotDir;
use crate::types::revision_of;
use onward_statemachine::{MemoryStore, Revision};
use std::path::Path;
use std::sync::Arc;

impl Look<'_> {
    pub(super) fn directory(&mut self, dir: &Path) -> Result<(), VerifyError> {
        let files = self.host.files.clone();
        let failed = |error| VerifyError::Io {
            path: dir.to_owned(),
            error,
        };
        let path = || dir.to_owned();
        let lock = dir.join("LOCK");
        let _held = match files.exists(&lock) {
            true => Some(
                files
                    .lock(&lock)
                    .map_err(failed)?
                    .ok_or_else(|| VerifyError::InUse { path: path() })?,
            ),
            false => None,
        };
        match identity::read(&*files, dir) {
            Ok(None) => return Err(VerifyError::Neither { path: path() }),
            Ok(Some(identity)) => {
                self.verdict.cluster = Some((identity.cluster_id, identity.cluster_name));
                self.verdict.node = Some(identity.node.0);
                self.looked("identity", 1, 0, "decoded");
            }
            Err(error @ StartError::HalfRestored { .. }) => {
                self.find("restoring", &error);
                return Ok(());
            }
            Err(error) => self.find("identity", &error),
        }
        let log = self.log(dir);
        let snapshot = self.snapshot(dir);
        let state = self.open_state(dir);
        if let Some(state) = state.as_deref() {
            let hash = self.state("state", state);
            self.against_log(state, snapshot.as_deref(), log.as_ref(), hash);
        }
        Ok(())
    }

    /// The newest snapshot: its manifest, its files, its rows.
    fn snapshot(&mut self, dir: &Path) -> Option<Arc<dyn StateDisk>> {
        (self.progress)("the snapshot");
        let root = dir.join("snap");
        let files = self.host.files.clone();
        if !files.exists(&root) {
            return None;
        }
        let listed = match files.list(&root) {
            Ok(listed) => listed,
            Err(error) => {
                self.find("snap", &error);
                return None;
            }
        };
        let whole = listed
            .into_iter()
            .filter(|entry| entry.name.starts_with(|c: char| c.is_ascii_digit()));
        let mut newest: Option<SnapshotDir> = None;
        for entry in whole {
            let place = format!("snap/{}", entry.name);
            match SnapshotDir::open(files.clone(), root.join(&entry.name)) {
                Ok(found) => {
                    self.snapshot_files(&place, &found);
                    let index = |of: &SnapshotDir| of.manifest.meta().ok().and_then(|meta| meta.last_log_id);
                    if newest.as_ref().is_none_or(|known| index(known) < index(&found)) {
                        newest = Some(found);
                    }
                }
                Err(error) => self.find(place, &error),
            }
        }
        let newest = newest?;
        let place = format!("snap/{}", newest.path.file_name()?.to_string_lossy());
        match self.host.stores.open_frozen(&newest.path) {
            Ok(disk) => {
                self.rows(&place, &*disk);
                Some(disk)
            }
            Err(error) => {
                self.find(place, &error);
                None
            }
        }
    }

    fn snapshot_files(&mut self, place: &str, found: &SnapshotDir) {
        for file in &found.manifest.files {
            let checked = found.checked(file);
            if let Err(error) = checked {
                self.find(format!("{place}/{}", file.name), &error);
            }
        }
        let (items, bytes) = (found.manifest.files.len() as u64, found.manifest.bytes());
        self.looked(place, items, bytes, "the checksum of each file");
    }

    fn open_state(&mut self, dir: &Path) -> Option<Arc<dyn StateDisk>> {
        let states = dir.join("state");
        let current = self.host.files.read_text(&states.join("CURRENT"));
        let opened = match current {
            Ok(Some(number)) => self.host.stores.open_frozen(&states.join(number.trim())),
            Ok(None) => {
                self.find("state", &"nothing says which generation is in force");
                return None;
            }
            Err(error) => Err(error),
        };
        opened.map_err(|error| self.find("state", &error)).ok()
    }

    /// Whether the log makes of the snapshot what the state is.
    fn against_log(
        &mut self,
        state: &dyn StateDisk,
        snapshot: Option<&dyn StateDisk>,
        log: Option<&log::Opened>,
        hash: Option<u64>,
    ) {
        (self.progress)("what the log makes of the snapshot");
        let (Some((log, recovered)), Some(hash)) = (log, hash) else {
            return;
        };
        let applied = |disk: &dyn StateDisk| disk.standing().map(|standing| standing.applied);
        let at = |disk: &dyn StateDisk| applied(disk).map(|id| revision_of(id.as_ref()));
        let begin = match snapshot.map(at) {
            Some(Ok(begin)) => begin,
            Some(Err(error)) => return self.find("snapshot", &error),
            None => Revision(0),
        };
        let end = match at(state) {
            Ok(end) => end,
            Err(error) => return self.find("state", &error),
        };
        let sound = self.verdict.findings.is_empty();
        if sound && applied(state).is_ok_and(|applied| applied > recovered.last) {
            return self.not_compared(
                "log on snapshot",
                format!(
                    "the state is at revision {end}, and the log ends at {}, as a power loss may leave it, so the state was \
                     not compared with what the log makes of the snapshot; when the node starts, it takes a snapshot of the \
                     state and goes on behind it",
                    crate::log::name(recovered.last)
                ),
            );
        }
        let purged = revision_of(recovered.purged.as_ref());
        if purged > end {
            return self.find(
                "log",
                &format!("it begins after revision {purged}, and the state ends at {end}"),
            );
        }
        if purged > begin {
            return self.find(
                "log",
                &format!("it begins after revision {purged}, and the snapshot ends at {begin}"),
            );
        }
        let (empty, bytes_max) = (MemoryStore::default(), self.replay_bytes_max);
        let replayed = match snapshot {
            Some(disk) => disk.read(|view| log::replay(view, &**log, (begin, end), bytes_max)),
            None => log::replay(&empty, &**log, (begin, end), bytes_max),
        };
        match replayed {
            Ok(Some((entries, found))) if found == hash => {
                self.looked("log on snapshot", entries, 0, "applied anew: the same state hash");
            }
            Ok(Some((entries, found))) => self.find(
                "state",
                &format!(
                    "its hash is {hash:016x}, and {entries} entries of the log applied to the snapshot at revision {begin} \
                     come to {found:016x}"
                ),
            ),
            Ok(None) => self.not_compared(
                "log on snapshot",
                format!(
                    "the entries after revision {begin} up to {end} have more than the {} MiB that are applied in memory, so \
                     the state was not compared with what they make of the snapshot",
                    bytes_max >> 20
                ),
            ),
            Err(fault) => self.find("log", &format!("it cannot be applied to the snapshot: {fault}")),
        }
    }
}
