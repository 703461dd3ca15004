//! Verifying: every checksum of a backup file or of a stopped node's directory, every row and every entry decoded, the
//! state hash computed anew, the rules between rows walked.
//!
//! Of a directory, what the parts say of each other is compared as well: the log with its durable watermark, its entries
//! with each other, and the state with what the log makes of the newest snapshot, entry by entry.
//!
//! Nothing is changed. The rows of a backup file are put into a database in a temporary directory, since the rules
//! between rows need them in any order.

mod directory;
mod log;
mod rows;
#[cfg(test)]
mod tests;

use super::{LoadError, load};
use crate::host::Host;
use crate::state::database::RocksState;
use onward_statemachine::backup::Header;
use onward_statemachine::system;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The findings of one kind that are told one by one.
const FINDINGS_MAX: usize = 20;
/// The bytes of entries that are applied to a snapshot in memory. A node takes one before its log has come to so much, unless
/// one had to wait.
const REPLAY_BYTES_MAX: usize = 512 << 20;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The part: a file, a directory, a table, an entry.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

/// A part that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Which.
    pub part: String,
    /// How many rows, entries or files it has.
    pub items: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// What was done with them.
    pub how: String,
}

/// What a look at all of it came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The cluster's id and name, as far as they could be read.
    pub cluster: Option<(Uuid, String)>,
    /// The node.
    pub node: Option<u64>,
    /// Where the state stands.
    pub revision: Option<u64>,
    /// Its hash.
    pub state_hash: Option<u64>,
    /// What was looked at.
    pub looked: Vec<Looked>,
    /// What could not be looked at, and why: it may be sound, and nobody knows.
    pub not_compared: Vec<Finding>,
    /// What is wrong; nothing where all that was looked at is well.
    pub findings: Vec<Finding>,
}

/// Why nothing could be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A running process has it.
    #[error("data directory {path} is in use by a running process: stop it first", path = .path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// There is nothing of Onward's.
    #[error("{path} is neither a backup nor the data directory of a node", path = .path.display())]
    Neither {
        /// Which.
        path: PathBuf,
    },
    /// It could not be read at all.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Looks at a backup file or at the data directory of a stopped node. `scratch` is an empty directory for the rows of a
/// file, which the caller deletes; `progress` hears what is looked at next.
///
/// # Errors
/// Where nothing could be looked at. What is wrong with it is no error: that is in the verdict.
pub fn verify(path: &Path, scratch: &Path, progress: &mut dyn FnMut(&str)) -> Result<Verdict, VerifyError> {
    verify_with(path, scratch, REPLAY_BYTES_MAX, progress)
}

/// As [`verify`], with so many bytes of entries applied in memory at most.
fn verify_with(
    path: &Path,
    scratch: &Path,
    replay_bytes_max: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<Verdict, VerifyError> {
    let failed = |error| VerifyError::Io {
        path: path.to_owned(),
        error,
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let mut look = Look {
        host: Host::machine(),
        verdict: Verdict::default(),
        replay_bytes_max,
        progress,
    };
    match metadata.is_dir() {
        true => look.directory(path)?,
        false => look.file(path, scratch).map_err(failed)?,
    }
    Ok(look.verdict)
}

struct Look<'p> {
    host: Host,
    verdict: Verdict,
    replay_bytes_max: usize,
    progress: &'p mut dyn FnMut(&str),
}

impl Look<'_> {
    fn find(&mut self, place: impl Into<String>, what: &dyn Display) {
        self.verdict.findings.push(Finding {
            place: place.into(),
            what: what.to_string(),
        });
    }

    fn not_compared(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.verdict.not_compared.push(Finding {
            place: place.into(),
            what: why.into(),
        });
    }

    fn looked(&mut self, part: impl Into<String>, items: u64, bytes: u64, how: impl Into<String>) {
        self.verdict.looked.push(Looked {
            part: part.into(),
            items,
            bytes,
            how: how.into(),
        });
    }

    fn file(&mut self, path: &Path, scratch: &Path) -> io::Result<()> {
        (self.progress)("the frames of the backup");
        let disk = RocksState::open(&scratch.join("rows"))?;
        let mut header = None;
        let mut begins = |of: &Header| {
            header = Some(of.clone());
            Ok::<_, LoadError>(())
        };
        let read = load(path, &disk, &mut begins, &mut |_| {});
        if let Some(header) = header {
            self.is_of(&header);
        }
        let summary = match read {
            Ok(summary) => summary,
            Err(LoadError::Read(error) | LoadError::Write(error)) => return Err(error),
            Err(LoadError::Damage(damage)) => {
                self.find(path.display().to_string(), &damage);
                return Ok(());
            }
        };
        let how = format!(
            "checksums, order, state hash {} as written",
            summary.trailer.state_hash
        );
        self.looked("backup", summary.trailer.rows, summary.bytes, how);
        self.state("rows", &disk);
        Ok(())
    }

    fn is_of(&mut self, header: &Header) {
        self.verdict.cluster = Some((header.cluster_id, header.cluster_name.clone()));
        self.verdict.node = Some(header.node);
        if header.feature_level > system::FEATURE_LEVEL_MAX {
            let (level, known) = (header.feature_level, system::FEATURE_LEVEL_MAX);
            let what = format!(
                "feature level {level} is beyond {known}, the highest that this release knows: verify with {} or later",
                header.release
            );
            self.find("header", &what);
        }
    }
}
