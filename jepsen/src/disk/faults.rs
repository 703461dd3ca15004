//! The words for faults: what can be asked for, what happened, what was lost.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What a disk does wrong from now on; the default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Syncs of files and directories fail with EIO. What a file's sync should have written counts as clean from then
    /// on, as on Linux: readers still see it, a later sync succeeds without writing it, a power cut takes it.
    pub sync_errors: Errors,
    /// Reads of files fail with EIO.
    pub read_errors: Errors,
    /// Writes to files fail with EIO, and write nothing.
    pub write_errors: Errors,
    /// Syncs succeed and do nothing: what no honest disk does. It proves that the harness would notice.
    pub lying_sync: bool,
    /// Bytes left on the disk, from this call on; `None`: as many as the backing disk has. Writing over what is there
    /// takes none, removing and cutting give back.
    pub space_left: Option<u64>,
    /// How much longer each sync takes.
    pub sync_delay: Duration,
    /// How much longer each read takes.
    pub read_delay: Duration,
    /// How much longer each write takes.
    pub write_delay: Duration,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Errors {
    /// None.
    #[default]
    Never,
    /// The next so many.
    Next(u32),
    /// All.
    Always,
}

impl Errors {
    /// Whether the call that is asked for fails.
    pub(super) fn strike(&mut self) -> bool {
        match self {
            Errors::Never | Errors::Next(0) => false,
            Errors::Next(left) => {
                *left -= 1;
                true
            }
            Errors::Always => true,
        }
    }
}

/// What a power cut leaves of what was not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Nothing.
    All,
    /// Some changes of directories, and of each file some pages of 4 KiB, or all up to one of them.
    Pages,
    /// As [`Loss::Pages`], by sectors of 512 bytes: writes are torn.
    Sectors,
}

/// What a power cut took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Files that still are, with how many unsynced bytes each lost.
    pub files: Vec<(PathBuf, u64)>,
    /// All unsynced bytes that were lost, those of files that are gone with their name too.
    pub bytes: u64,
    /// Changes of directories that were taken back, for people: `log/000012.log not created`.
    pub names: Vec<String>,
}

/// A bit that was flipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// The file, from the root of the disk.
    pub file: PathBuf,
    /// The byte.
    pub offset: u64,
    /// The bit in it, 0 to 7.
    pub bit: u8,
}

/// How often what happened since the disk was mounted, faults above all: proof that they did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Reads that were served.
    pub reads: u64,
    /// Writes that were served.
    pub writes: u64,
    /// Syncs of files and directories that did their work.
    pub syncs: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Syncs that lied.
    pub lying_syncs: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Writes that failed with EIO.
    pub failed_writes: u64,
    /// Calls that found the disk full.
    pub full: u64,
    /// Calls that were delayed.
    pub delayed: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Unsynced bytes that power cuts took.
    pub lost_bytes: u64,
    /// Changes of directories that power cuts took back.
    pub lost_names: u64,
    /// Bits that were flipped.
    pub flips: u64,
}
