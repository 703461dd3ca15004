//! Snapshots on disk: `snap/<index>-<term>/`, a checkpoint of the state database with a manifest of its files.
//!
//! A snapshot comes to be under a temporary name (`building-*`, `incoming-*`), is synced file by file, and only then
//! renamed; before it is deleted it loses that name again (`retired-*`): a directory with a final name is whole. What a
//! crash leaves under a temporary name is deleted at start.

use super::database::{Standing, decode_membership, encode_membership};
use crate::files::{File, Files, Open};
use crate::log::stored::{decode_log_id, encode_log_id, invalid};
use crate::types::SnapshotMeta;
use onward_statemachine::codec;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The format of snapshot directories that this build writes and reads.
pub(crate) const FORMAT: u32 = 1;
const MANIFEST: &str = "snapshot.manifest";
/// What is read of a file at once.
const PIECE_BYTES: usize = 1 << 20;

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// What a snapshot is of and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    last_log_id: Option<Vec<u8>>,
    membership: Vec<u8>,
    pub(crate) files: Vec<SnapshotFile>,
}

impl Manifest {
    pub(crate) fn new(standing: &Standing, files: Vec<SnapshotFile>) -> Self {
        Manifest {
            format: FORMAT,
            last_log_id: standing.applied.as_ref().map(encode_log_id),
            membership: encode_membership(&standing.membership),
            files,
        }
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        let last_log_id = self.last_log_id.as_deref().map(decode_log_id).transpose()?;
        Ok(SnapshotMeta {
            last_log_id,
            last_membership: decode_membership(&self.membership)?,
        })
    }

    /// Refuses formats and file names that this build would not write.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.format != FORMAT {
            return Err(invalid(format!(
                "the snapshot has format {}; this build reads {FORMAT}",
                self.format
            )));
        }
        let plain =
            |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
        match self.files.iter().find(|file| !plain(&file.name)) {
            Some(file) => Err(invalid(format!(
                "`{}` is not a name of a snapshot file",
                file.name
            ))),
            None => Ok(()),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A whole snapshot on disk. Those who use it share it; the last one deletes it if a newer one has taken its place.
pub(crate) struct SnapshotDir {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    retired: AtomicBool,
}

impl SnapshotDir {
    /// Opens a directory with a final name.
    pub(crate) fn open(files: Arc<dyn Files>, path: PathBuf) -> io::Result<Self> {
        let stored = files.read(&path.join(MANIFEST))?;
        let (checksum, body) = stored
            .split_at_checked(4)
            .ok_or_else(|| invalid("the snapshot manifest is cut short"))?;
        if crc32fast::hash(body).to_le_bytes() != checksum {
            return Err(invalid("the snapshot manifest does not match its checksum"));
        }
        let manifest: Manifest = codec::decode(body).map_err(invalid)?;
        manifest.check()?;
        Ok(SnapshotDir {
            files,
            path,
            manifest,
            retired: AtomicBool::new(false),
        })
    }

    /// Whether a file of it has the size and the checksum of the manifest.
    pub(crate) fn checked(&self, listed: &SnapshotFile) -> io::Result<()> {
        let file = self.files.open(&self.path.join(&listed.name), Open::Read)?;
        let found = Listing::new(file, listed.name.clone()).whole()?;
        if found.bytes != listed.bytes {
            return Err(invalid(format!(
                "it has {} bytes, and the manifest says {}",
                found.bytes, listed.bytes
            )));
        }
        if found.crc != listed.crc {
            return Err(invalid("its checksum does not match the manifest"));
        }
        Ok(())
    }

    /// Takes the final name away first, durably: what a crash leaves of a directory that is being deleted is not whole.
    fn delete(&self) -> io::Result<()> {
        let root = self.path.parent().unwrap_or(&self.path);
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let doomed = root.join(format!("retired-{name}"));
        self.files.rename(&self.path, &doomed)?;
        self.files.sync_dir(root)?;
        self.files.remove_dir(&doomed)
    }

    /// Deletes the directory once nobody uses it.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl fmt::Debug for SnapshotDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotDir").field("path", &self.path).finish()
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire)
            && let Err(error) = self.delete()
        {
            tracing::warn!(path = %self.path.display(), %error, "an old snapshot could not be deleted");
        }
    }
}

/// A snapshot handed to or by openraft.
pub(crate) type SnapshotHandle = Arc<SnapshotDir>;

/// The final name of a snapshot.
pub(crate) fn name_of(meta: &SnapshotMeta) -> String {
    meta.last_log_id.map_or_else(
        || "0-0".to_owned(),
        |id| format!("{}-{}", id.index, id.leader_id.term),
    )
}

/// All whole snapshots of `root`, the newest last; what is not whole is deleted.
pub(crate) fn open_all(files: &Arc<dyn Files>, root: &Path) -> io::Result<Vec<SnapshotHandle>> {
    files.create_dir(root)?;
    let mut found = Vec::new();
    for listed in files.list(root)? {
        let path = root.join(&listed.name);
        if listed.name.starts_with(|c: char| c.is_ascii_digit()) {
            found.push(Arc::new(SnapshotDir::open(files.clone(), path)?));
        } else {
            files.remove_dir(&path)?;
        }
    }
    let mut keyed = Vec::with_capacity(found.len());
    for snapshot in found {
        keyed.push((snapshot.manifest.meta()?.last_log_id, snapshot));
    }
    keyed.sort_by_key(|(id, _)| *id);
    Ok(keyed.into_iter().map(|(_, snapshot)| snapshot).collect())
}

/// Writes the manifest into `temporary`, syncs the directory and gives it its final name in `root`.
pub(crate) fn seal(
    files: &Arc<dyn Files>,
    temporary: &Path,
    root: &Path,
    manifest: &Manifest,
) -> io::Result<SnapshotDir> {
    let body = codec::encode(manifest);
    let stored = [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat();
    files.create(&temporary.join(MANIFEST), &stored)?;
    files.sync_dir(temporary)?;
    let path = root.join(name_of(&manifest.meta()?));
    if files.exists(&path) {
        // The same state under the same name; the older directory may be in use, so it stays.
        files.remove_dir(temporary)?;
    } else {
        files.rename(temporary, &path)?;
        files.sync_dir(root)?;
    }
    SnapshotDir::open(files.clone(), path)
}

/// Lays the files of a snapshot out in `path`, a new directory, for a database that writes there.
pub(crate) fn lay_out(snapshot: &SnapshotDir, path: &Path) -> io::Result<()> {
    let files = &*snapshot.files;
    files.create_dir(path)?;
    for file in &snapshot.manifest.files {
        let (from, to) = (snapshot.path.join(&file.name), path.join(&file.name));
        // The immutable files are shared; the few that the database rewrites are copied.
        if file.name.ends_with(".sst") || file.name.ends_with(".blob") {
            files.hard_link(&from, &to)?;
        } else {
            files.copy(&from, &to)?;
        }
    }
    files.sync_dir(path)
}

/// Lists, checksums and syncs the files of a checkpoint. Checksums of files that `known` lists are taken from there:
/// the files of a database are immutable and their names never recur.
pub(crate) fn list_files(
    files: &dyn Files,
    path: &Path,
    known: &[SnapshotFile],
) -> io::Result<Vec<SnapshotFile>> {
    let mut found = Vec::new();
    for listed in files.list(path)? {
        let name = listed.name;
        let file = files.open(&path.join(&name), Open::Read)?;
        let bytes = file.length()?;
        let immutable = name.ends_with(".sst") || name.ends_with(".blob");
        let same = known
            .iter()
            .find(|file| immutable && file.name == name && file.bytes == bytes);
        found.push(match same {
            Some(file) => file.clone(),
            None => {
                file.sync()?;
                Listing::new(file, name).whole()?
            }
        });
    }
    Ok(found)
}

/// A file that is read piece by piece, for its length and its checksum.
pub(crate) struct Listing {
    file: Box<dyn File>,
    name: String,
    piece: Vec<u8>,
    bytes: u64,
    hasher: crc32fast::Hasher,
}

impl Listing {
    pub(crate) fn new(file: Box<dyn File>, name: String) -> Self {
        Listing {
            file,
            name,
            piece: vec![0; PIECE_BYTES],
            bytes: 0,
            hasher: crc32fast::Hasher::new(),
        }
    }

    /// Reads the next piece. Whether there was one.
    pub(crate) fn read_on(&mut self) -> io::Result<bool> {
        let count = self.file.read_at(&mut self.piece, self.bytes)?;
        self.hasher.update(&self.piece[..count]);
        self.bytes += count as u64;
        Ok(count > 0)
    }

    /// Reads what is left.
    pub(crate) fn whole(mut self) -> io::Result<SnapshotFile> {
        while self.read_on()? {}
        Ok(SnapshotFile {
            name: self.name,
            bytes: self.bytes,
            crc: self.hasher.finalize(),
        })
    }
}
