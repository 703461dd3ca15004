//! The format of backup files: the whole state of one replica at one revision, in rows.
//!
//! ```text
//! file    = magic "ONWARDBK" | version u32 | frame*
//! frame   = kind u8 | length u32 | crc32 u32 | body
//! kind 1  = header, the first frame and no other: JSON, see [`Header`]
//! kind 2  = rows: (key length u32 | value length u32 | key | value)*, keys strictly ascending over the whole file
//! kind 3  = trailer, the last frame and no other: JSON, see [`Trailer`]; nothing follows it
//! ```
//! Integers are little endian. The checksum covers the number of the frame (u64, from 0), its kind, its length and its
//! body, so that a frame that is damaged, missing, repeated or out of place is told; a file that ends before its trailer
//! was cut. The trailer counts the rows and has the hash of the state that they make up
//! ([`state_hash`](crate::hash::state_hash)). All of it finds damage, not forgery.
//!
//! Rows are those of the store, byte for byte, with the journal and the replies to duplicates among them. What belongs to
//! one node alone is not there: its identity, its log, its vote, the membership.
//!
//! Fields of the header and the trailer are only ever added; who does not know one overlooks it. The version is raised
//! when an older reader would misunderstand a file.
//!
//! Nothing here reads or writes a file: [`Writer`] fills a buffer, [`Reader`] is fed with pieces of any length.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Damage, Part, Reader, Row, Summary};
pub use write::Writer;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What every backup file begins with.
pub const MAGIC: [u8; 8] = *b"ONWARDBK";
/// The version of the format that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;

const PREFIX_BYTES: usize = MAGIC.len() + 4;
const FRAME_HEAD_BYTES: usize = 1 + 4 + 4;
const ROW_HEAD_BYTES: usize = 4 + 4;
/// A frame of rows is closed when it has come to this size. A larger row has one to itself.
const FRAME_BYTES: usize = 256 << 10;
/// The largest frame: far above the largest row, and small enough that damage does not exhaust the memory.
const FRAME_BYTES_MAX: usize = 64 << 20;

mod kind {
    pub(super) const HEADER: u8 = 1;
    pub(super) const ROWS: u8 = 2;
    pub(super) const TRAILER: u8 = 3;
}

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster.
    pub cluster_id: Uuid,
    /// Its name.
    pub cluster_name: String,
    /// The node whose replica it is.
    pub node: u64,
    /// The release of Onward that wrote it.
    pub release: String,
    /// The last entry of the log that is in it.
    pub revision: u64,
    /// The term of that entry.
    pub term: u64,
    /// The feature level in force.
    pub feature_level: u32,
    /// Log time, in ms since 1970 UTC.
    pub log_time_ms: u64,
    /// The clock of the cluster when it began, in ms since 1970 UTC.
    pub taken_at_ms: u64,
    /// The first revision that the journal reaches back to.
    pub journal_floor: u64,
    /// The highest id that a node of the cluster ever had, as far as its membership tells.
    pub node_max: u64,
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// How many rows there are.
    pub rows: u64,
    /// The hash of the state, 16 hexadecimal digits.
    pub state_hash: String,
}

fn checksum(number: u64, kind: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(&(body.len() as u32).to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}
