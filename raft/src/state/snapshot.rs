//! Snapshots on disk: `snap/<index>-<term>/`, a checkpoint of the state database with a manifest of its files.
//!
//! A snapshot comes to be under a temporary name (`building-*`, `incoming-*`), is synced file by file, and only then
//! renamed: a directory with a final name is whole. What a crash leaves under a temporary name is deleted at start.

use super::database::{Standing, decode_membership, encode_membership};
use crate::log::disk::{decode_log_id, encode_log_id, invalid};
use crate::types::SnapshotMeta;
use onward_statemachine::codec;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The format of snapshot directories that this build writes and reads.
pub(crate) const FORMAT: u32 = 1;
const MANIFEST: &str = "snapshot.manifest";

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
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    retired: AtomicBool,
}

impl SnapshotDir {
    /// Opens a directory with a final name.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let stored = fs::read(path.join(MANIFEST))?;
        let (checksum, body) = stored
            .split_at_checked(4)
            .ok_or_else(|| invalid("the snapshot manifest is cut short"))?;
        if crc32fast::hash(body).to_le_bytes() != checksum {
            return Err(invalid("the snapshot manifest does not match its checksum"));
        }
        let manifest: Manifest = codec::decode(body).map_err(invalid)?;
        manifest.check()?;
        Ok(SnapshotDir {
            path,
            manifest,
            retired: AtomicBool::new(false),
        })
    }

    /// Deletes the directory once nobody uses it.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Acquire)
            && let Err(error) = fs::remove_dir_all(&self.path)
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

/// Deletes all but the newest whole snapshot of `root`, and returns that.
pub(crate) fn open_newest(root: &Path) -> io::Result<Option<SnapshotHandle>> {
    fs::create_dir_all(root)?;
    let mut newest: Option<SnapshotDir> = None;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let temporary = path
            .file_name()
            .is_none_or(|name| !name.to_string_lossy().starts_with(|c: char| c.is_ascii_digit()));
        if temporary {
            fs::remove_dir_all(&path)?;
            continue;
        }
        let found = SnapshotDir::open(path)?;
        let id = found.manifest.meta()?.last_log_id;
        let older = match &newest {
            Some(known) if known.manifest.meta()?.last_log_id > id => found,
            _ => match newest.replace(found) {
                Some(known) => known,
                None => continue,
            },
        };
        older.retire();
    }
    Ok(newest.map(Arc::new))
}

/// Writes the manifest into `temporary`, syncs the directory and gives it its final name in `root`.
pub(crate) fn seal(temporary: &Path, root: &Path, manifest: &Manifest) -> io::Result<SnapshotDir> {
    let body = codec::encode(manifest);
    let mut file = File::create(temporary.join(MANIFEST))?;
    file.write_all(&crc32fast::hash(&body).to_le_bytes())?;
    file.write_all(&body)?;
    file.sync_all()?;
    sync_dir(temporary)?;
    let path = root.join(name_of(&manifest.meta()?));
    if path.exists() {
        // The same state under the same name; the older directory may be in use, so it stays.
        fs::remove_dir_all(temporary)?;
    } else {
        fs::rename(temporary, &path)?;
        sync_dir(root)?;
    }
    SnapshotDir::open(path)
}

/// Lists, checksums and syncs the files of a checkpoint. Checksums of files that `known` lists are taken from there:
/// the files of a database are immutable and their names never recur.
pub(crate) fn list_files(path: &Path, known: &[SnapshotFile]) -> io::Result<Vec<SnapshotFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let file = File::open(entry.path())?;
        let bytes = file.metadata()?.len();
        let immutable = name.ends_with(".sst") || name.ends_with(".blob");
        let same = known
            .iter()
            .find(|file| immutable && file.name == name && file.bytes == bytes);
        let crc = match same {
            Some(file) => file.crc,
            None => {
                file.sync_all()?;
                checksum(file)?
            }
        };
        files.push(SnapshotFile { name, bytes, crc });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn checksum(mut file: File) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
