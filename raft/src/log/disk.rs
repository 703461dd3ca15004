//! The disk under the log: a small trait, so that a model which loses, tears and delays writes can take its place, and
//! RocksDB behind it.

use super::record;
use crate::state::database::quiet;
use crate::types::{Entry, LeaderId, LogId, Vote};
use bytes::Bytes;
use onward_statemachine::codec;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    DEFAULT_COLUMN_FAMILY_NAME, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// One write. A sequence of them lands in order; a crash keeps a prefix of what was not synced yet.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// Entries behind the last one.
    Append(Vec<Entry>),
    /// The vote.
    Vote(Vote),
    /// The last entry known to be committed.
    Committed(Option<LogId>),
    /// Forget all entries from this index on.
    TruncateFrom(u64),
    /// Forget all entries from `first` up to `upto`.
    Purge { first: u64, upto: LogId },
}

/// What a log holds when it is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    /// The first index of a log that was never purged.
    pub(crate) first: u64,
    pub(crate) last: Option<LogId>,
}

/// Durable storage of log entries.
pub(crate) trait LogDisk: Send + Sync + 'static {
    /// What is there.
    fn recover(&self) -> io::Result<Recovered>;
    /// The entries `from..to` that are there, in order; stops after `bytes_max`, though never before the first entry.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>>;
    /// Writes all of `writes` in order; with `sync`, they and all before them are durable at return.
    fn write(&self, writes: &[Write], sync: bool) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;
    /// Drops the files that hold nothing but purged entries, where there are such.
    fn reclaim(&self) -> io::Result<()>;
}

const LOG: &str = "log";
const META: &str = "meta";
const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";

#[derive(Serialize, Deserialize)]
struct StoredLogId {
    term: u64,
    node: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredVote {
    term: u64,
    node: u64,
    committed: bool,
}

/// Encodes a log id for a meta row.
pub(crate) fn encode_log_id(id: &LogId) -> Vec<u8> {
    codec::encode(&StoredLogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    })
}

/// Decodes what [`encode_log_id`] wrote.
pub(crate) fn decode_log_id(bytes: &[u8]) -> io::Result<LogId> {
    let stored: StoredLogId = codec::decode(bytes).map_err(invalid)?;
    let leader_id = LeaderId {
        term: stored.term,
        node_id: stored.node,
    };
    Ok(LogId::new(leader_id, stored.index))
}

pub(crate) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(crate) fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

/// The `log/` database.
///
/// Recycled write-ahead files spare each sync the file system's journal commit, which halves its median and cuts its
/// tail; with them, RocksDB recovers to the last intact record (point in time).
pub(crate) struct RocksLog {
    db: DB,
    /// Up to where purged entries were dropped for good.
    reclaimed: AtomicU64,
}

fn options() -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_total_wal_size(128 << 20);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

/// What the tail in RAM does not have is read in order, and seldom twice.
const BLOCK_CACHE_BYTES: usize = 8 << 20;

/// One cache for all: without, each family has its own, which takes several MiB before anything is in it. The default family
/// is there whether it is used or not.
fn families() -> [ColumnFamilyDescriptor; 3] {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    let mut unused = Options::default();
    unused.set_block_based_table_factory(&blocks);
    unused.set_write_buffer_size(1 << 20);
    let mut log = Options::default();
    log.set_block_based_table_factory(&blocks);
    log.set_write_buffer_size(32 << 20);
    log.set_max_write_buffer_number(4);
    log.set_compression_type(DBCompressionType::None);
    let mut meta = Options::default();
    meta.set_block_based_table_factory(&blocks);
    meta.set_write_buffer_size(1 << 20);
    [
        ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, unused),
        ColumnFamilyDescriptor::new(LOG, log),
        ColumnFamilyDescriptor::new(META, meta),
    ]
}

impl RocksLog {
    /// Opens or creates the database.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = options();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_recycle_log_file_num(4);
        let db = DB::open_cf_descriptors(&options, path, families()).map_err(other)?;
        let reclaimed = AtomicU64::new(0);
        Ok(RocksLog { db, reclaimed })
    }

    /// Opens the database for reading, and leaves what is there as it is.
    pub(crate) fn open_frozen(path: &Path) -> io::Result<Self> {
        let mut options = options();
        options.set_info_logger(quiet());
        let db = DB::open_cf_descriptors_read_only(&options, path, families(), false).map_err(other)?;
        let reclaimed = AtomicU64::new(0);
        Ok(RocksLog { db, reclaimed })
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("every column family is opened with the database")
    }

    fn meta(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf(self.family(META), key).map_err(other)
    }

    fn decode(&self, key: &[u8], value: Bytes) -> io::Result<Entry> {
        let entry = record::decode(value)?;
        if key != entry.log_id.index.to_be_bytes() {
            return Err(invalid(format!(
                "the record of entry {} is at key {key:02x?}",
                entry.log_id.index
            )));
        }
        Ok(entry)
    }
}

impl LogDisk for RocksLog {
    fn recover(&self) -> io::Result<Recovered> {
        let vote = self
            .meta(VOTE)?
            .map(|bytes| {
                let stored: StoredVote = codec::decode(&bytes).map_err(invalid)?;
                let leader_id = LeaderId {
                    term: stored.term,
                    node_id: stored.node,
                };
                let committed = stored.committed;
                io::Result::Ok(Vote { leader_id, committed })
            })
            .transpose()?;
        let id = |key| self.meta(key)?.map(|bytes| decode_log_id(&bytes)).transpose();
        let purged = id(PURGED)?;
        let mut newest = self.db.iterator_cf(self.family(LOG), IteratorMode::End);
        let last = match newest.next().transpose().map_err(other)? {
            Some((key, value)) => Some(self.decode(&key, value.to_vec().into())?.log_id),
            None => None,
        };
        // Behind a purge the first index is known, and a search would walk its tombstones.
        let first = match purged {
            Some(_) => 0,
            None => self
                .read(0, u64::MAX, 0)?
                .first()
                .map_or(0, |entry| entry.log_id.index),
        };
        Ok(Recovered {
            first,
            vote,
            committed: id(COMMITTED)?,
            purged,
            last: last.max(purged),
        })
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_be_bytes());
        let mut rows = self.db.raw_iterator_cf_opt(self.family(LOG), options);
        rows.seek(from.to_be_bytes());
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some((key, value)) = rows.item() {
            bytes += value.len();
            if bytes > bytes_max && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(self.decode(key, Bytes::copy_from_slice(value))?);
            rows.next();
        }
        rows.status().map_err(other)?;
        Ok(entries)
    }

    fn write(&self, writes: &[Write], sync: bool) -> io::Result<()> {
        let (log, meta) = (self.family(LOG), self.family(META));
        let mut batch = WriteBatch::default();
        let mut record_bytes = Vec::new();
        for write in writes {
            match write {
                Write::Append(entries) => {
                    for entry in entries {
                        record_bytes.clear();
                        record::encode(entry, &mut record_bytes);
                        batch.put_cf(log, entry.log_id.index.to_be_bytes(), &record_bytes);
                    }
                }
                Write::Vote(vote) => {
                    let stored = StoredVote {
                        term: vote.leader_id.term,
                        node: vote.leader_id.node_id,
                        committed: vote.committed,
                    };
                    batch.put_cf(meta, VOTE, codec::encode(&stored));
                }
                Write::Committed(Some(id)) => batch.put_cf(meta, COMMITTED, encode_log_id(id)),
                Write::Committed(None) => batch.delete_cf(meta, COMMITTED),
                Write::TruncateFrom(from) => {
                    batch.delete_range_cf(log, &from.to_be_bytes()[..], &[u8::MAX; 9][..]);
                }
                Write::Purge { first, upto } => {
                    batch.put_cf(meta, PURGED, encode_log_id(upto));
                    batch.delete_range_cf(log, first.to_be_bytes(), (upto.index + 1).to_be_bytes());
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(other)
    }

    fn sync(&self) -> io::Result<()> {
        self.db.flush_wal(true).map_err(other)
    }

    fn reclaim(&self) -> io::Result<()> {
        let Some(purged) = self
            .meta(PURGED)?
            .map(|bytes| decode_log_id(&bytes))
            .transpose()?
        else {
            return Ok(());
        };
        if self.reclaimed.swap(purged.index, Relaxed) == purged.index {
            return Ok(());
        }
        // The note of what is purged must not be behind the files that are gone.
        self.sync()?;
        let log = self.family(LOG);
        self.db.flush_cf(log).map_err(other)?;
        let (from, to) = (0_u64.to_be_bytes(), (purged.index + 1).to_be_bytes());
        self.db.compact_range_cf(log, Some(from), Some(to));
        Ok(())
    }
}
