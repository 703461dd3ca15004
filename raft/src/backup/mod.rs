//! Backups: the state of a node as one file, a new cluster out of such a file, and a look at every byte of either.
//!
//! - [`take`]: copies the state of a running node and streams it, in memory that does not grow with the state.
//! - [`restore`]: makes the data directory of the first member of a new cluster.
//! - [`verify`]: reads a file or the directory of a stopped node, and says what is wrong with it.
//!
//! The format is [`onward_statemachine::backup`].

pub(crate) mod restore;
mod settle;
pub(crate) mod take;
pub(crate) mod verify;

use crate::state::database::{Batch, StateDisk};
use crate::types::{LeaderId, LogId};
use onward_statemachine::Changes;
use onward_statemachine::backup::{self, Damage, Header, Part, Reader, Summary};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// How much of a file is read at once.
const READ_BYTES: usize = 1 << 20;
/// Rows are written when they have come to this size.
const BATCH_BYTES: usize = 8 << 20;

/// Why a backup file is not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
    /// What is in it cannot be written.
    #[error(transparent)]
    Write(io::Error),
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// Writes the rows of a backup file into an empty state. `begins` hears what it is of and may refuse it, `progress` how
/// many rows are written.
fn load<E: From<LoadError>>(
    path: &Path,
    disk: &dyn StateDisk,
    begins: &mut dyn FnMut(&Header) -> Result<(), E>,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, E> {
    let mut file = File::open(path).map_err(LoadError::Read)?;
    let mut piece = vec![0; READ_BYTES];
    let mut reader = Reader::new();
    let mut rows = Rows::default();
    loop {
        let count = file.read(&mut piece).map_err(LoadError::Read)?;
        if count == 0 {
            break;
        }
        reader.feed(&piece[..count]);
        while let Some(part) = reader.next_part().map_err(LoadError::Damage)? {
            match part {
                Part::Header(header) => {
                    begins(&header)?;
                    rows.applied = Some(applied_of(&header));
                }
                Part::Rows(some) => {
                    rows.take(some, disk).map_err(LoadError::Write)?;
                    progress(reader.rows());
                }
                Part::Trailer(_) => rows.land(disk).map_err(LoadError::Write)?,
            }
        }
    }
    Ok(reader.finish().map_err(LoadError::Damage)?)
}

/// The last entry that is in a backup.
fn applied_of(header: &Header) -> LogId {
    let (term, node_id) = (header.term, header.node);
    LogId::new(LeaderId { term, node_id }, header.revision)
}

/// Rows on their way into a state.
#[derive(Default)]
struct Rows {
    changes: Changes,
    bytes: usize,
    applied: Option<LogId>,
}

impl Rows {
    fn take(&mut self, rows: Vec<backup::Row>, disk: &dyn StateDisk) -> io::Result<()> {
        for (key, value) in rows {
            self.bytes += key.len() + value.len();
            self.changes.insert(key, Some(value));
        }
        match self.bytes >= BATCH_BYTES {
            true => self.land(disk),
            false => Ok(()),
        }
    }

    fn land(&mut self, disk: &dyn StateDisk) -> io::Result<()> {
        let Some(applied) = self.applied else {
            return Ok(());
        };
        self.bytes = 0;
        disk.write(Batch {
            changes: std::mem::take(&mut self.changes),
            applied,
            membership: None,
            kept: None,
        })
    }
}
