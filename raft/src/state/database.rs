//! The `state/` database: what the log came to.
//!
//! Its write-ahead log is off: the Raft log is one already. A batch of entries lands as one write batch with the id of
//! its last entry, and all column families flush together (atomic flush), so whatever a crash leaves is the state as of
//! exactly the applied id in it; the entries behind it are applied again from the Raft log.

use super::families::{EDGES, FAMILIES, Families, JOURNAL, OBJECT_BYTES, RAFT, REPLIES, ROWS, families};
use super::hash::Kept;
use crate::log::record::StoredNodes;
use crate::log::stored::{decode_log_id, encode_log_id, invalid, other};
use crate::types::{LogId, StoredMembership};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use onward_statemachine::{Changes, Fault, Order, Revision, View, Visit, codec, journal};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    Cache, ColumnFamily, DB, ErrorKind, InfoLogger, LogLevel, Options, ReadOptions, Snapshot, WriteBatch,
    WriteOptions, properties,
};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
const HASH: &[u8] = b"hash";

/// What is written before it is flushed, of all families together.
const WRITE_BUFFERS_BYTES: usize = 192 << 20;
/// The log is on the same disk, and a sync of it waits behind whatever else is written. So files are written out as they
/// grow, and flushes and compactions go at a pace that follows how much there is to write, at most this many bytes a second
/// and at least a twentieth of it (`NewGenericRateLimiter`, `auto_tuned`). It follows by a twentieth every five seconds, so
/// the least has to be enough for the busiest node, whose writes would wait otherwise.
const SYNC_BYTES: u64 = 1 << 20;
const FLUSH_BYTES_PER_SECOND: i64 = 4 << 30;
const FLUSH_REFILL_US: i64 = 50_000;
/// How often what waits with low priority goes first: RocksDB's default.
const FLUSH_FAIRNESS: i32 = 10;
const BLOCK_CACHE_BYTES: usize = 64 << 20;
/// Of a copy that is read once, from end to end.
const FROZEN_CACHE_BYTES: usize = 8 << 20;

/// One batch of applied entries.
pub(crate) struct Batch {
    pub(crate) changes: Changes,
    pub(crate) applied: LogId,
    pub(crate) membership: Option<StoredMembership>,
    /// The hash of the state after it. Where nobody keeps it, it is computed when the state is opened to be applied to.
    pub(crate) kept: Option<Kept>,
}

/// Where a state stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// `None` where a release wrote that kept no hash.
    pub(crate) kept: Option<Kept>,
}

/// Durable storage of the state: RocksDB, or a model of it.
pub(crate) trait StateDisk: Send + Sync + 'static {
    /// Up to where entries are applied.
    fn standing(&self) -> io::Result<Standing>;
    /// Calls `read` with a view that does not change while it lasts.
    fn view(&self, read: &mut dyn FnMut(&dyn View));
    /// Lands a batch, all or nothing.
    fn write(&self, batch: Batch) -> io::Result<()>;
    /// Lands a batch as [`StateDisk::write`] does, or gives it back where that would have to wait for the disk.
    fn try_write(&self, batch: Batch) -> io::Result<Option<Batch>>;
    /// Lands changes that no entry made: rows of the base, and of states that are not this node's present one.
    fn put(&self, changes: Changes) -> io::Result<()>;
    /// Lets go of the journal below `floor`, for good.
    fn cut_journal(&self, floor: Revision) -> io::Result<()>;
    /// Makes everything written durable.
    fn flush(&self) -> io::Result<()>;
    /// Another number where tables may have come or gone.
    fn tables_version(&self) -> u64;
    /// The files with rows in order, which never change.
    fn tables(&self) -> io::Result<Vec<Table>>;
    /// Has the page cache let go of those of the journal.
    fn uncache_journal(&self) -> io::Result<()>;
    /// Flushes, writes a copy that opens by itself to `path`, which must not exist, and says where the copy stands.
    fn checkpoint(&self, path: &Path) -> io::Result<Standing>;
}

/// A file with rows in order.
pub(crate) struct Table {
    pub(crate) name: String,
    /// It holds rows of the journal, which no compaction writes again.
    pub(crate) of_journal: bool,
}

impl dyn StateDisk + '_ {
    /// Reads one value out of a view that does not change meanwhile.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut read = Some(read);
        let mut value = None;
        self.view(&mut |view| value = read.take().map(|read| read(view)));
        value.expect("a store calls back once for a view")
    }
}

#[derive(Serialize, Deserialize)]
struct MembershipRow {
    log_id: Option<Vec<u8>>,
    nodes: StoredNodes,
}

/// Encodes a membership with the id of its entry.
pub(crate) fn encode_membership(membership: &StoredMembership) -> Vec<u8> {
    codec::encode(&MembershipRow {
        log_id: membership.log_id().as_ref().map(encode_log_id),
        nodes: membership.membership().into(),
    })
}

/// Decodes what [`encode_membership`] wrote.
pub(crate) fn decode_membership(bytes: &[u8]) -> io::Result<StoredMembership> {
    let row: MembershipRow = codec::decode(bytes).map_err(invalid)?;
    let log_id = row.log_id.map(|bytes| decode_log_id(&bytes)).transpose()?;
    Ok(StoredMembership::new(log_id, row.nodes.try_into()?))
}

/// State in RocksDB.
pub(crate) struct RocksState {
    db: DB,
}

impl RocksState {
    /// Opens or creates the database.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        RocksState::open_with(path, WRITE_BUFFERS_BYTES, BLOCK_CACHE_BYTES)
    }

    /// Opens a copy that is read for a while: with little memory.
    pub(crate) fn open_past(path: &Path) -> io::Result<Self> {
        RocksState::open_with(path, 16 << 20, 8 << 20)
    }

    fn open_with(path: &Path, write_buffer_bytes: usize, cache_bytes: usize) -> io::Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(2);
        options.set_db_write_buffer_size(write_buffer_bytes);
        options.set_keep_log_file_num(4);
        options.set_bytes_per_sync(SYNC_BYTES);
        options.set_auto_tuned_ratelimiter(FLUSH_BYTES_PER_SECOND, FLUSH_REFILL_US, FLUSH_FAIRNESS);
        options.set_stats_dump_period_sec(0);
        options.set_paranoid_checks(true);
        let cache = Cache::new_lru_cache(cache_bytes);
        let db = DB::open_cf_descriptors(&options, path, families(&cache)).map_err(other)?;
        Ok(RocksState { db })
    }

    /// Opens the database for reading. Nothing in its directory changes: even its own log goes elsewhere.
    pub(crate) fn open_frozen(path: &Path) -> io::Result<Self> {
        let mut options = Options::default();
        options.set_paranoid_checks(true);
        options.set_info_logger(quiet());
        let cache = Cache::new_lru_cache(FROZEN_CACHE_BYTES);
        let db = DB::open_cf_descriptors_read_only(&options, path, families(&cache), false).map_err(other)?;
        Ok(RocksState { db })
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db
            .cf_handle(name)
            .expect("every column family is opened with the database")
    }

    /// Looked up by name once, for many keys.
    fn families(&self) -> Families<'_> {
        Families {
            rows: self.family(ROWS),
            journal: self.family(JOURNAL),
            replies: self.family(REPLIES),
            object_bytes: self.family(OBJECT_BYTES),
        }
    }

    fn rows_of(&self, changes: &Changes) -> WriteBatch {
        let families = self.families();
        let mut write = WriteBatch::default();
        for (key, value) in changes {
            let family = families.of(key);
            match value {
                Some(value) => write.put_cf(family, key, value),
                None => write.delete_cf(family, key),
            }
        }
        write
    }

    fn write_batch(&self, batch: &Batch) -> WriteBatch {
        let mut write = self.rows_of(&batch.changes);
        let raft = self.family(RAFT);
        write.put_cf(raft, APPLIED, encode_log_id(&batch.applied));
        if let Some(kept) = &batch.kept {
            write.put_cf(raft, HASH, kept.encode(&batch.applied));
        }
        if let Some(membership) = &batch.membership {
            write.put_cf(raft, MEMBERSHIP, encode_membership(membership));
        }
        write
    }

    /// Where `waits` is not, an error takes the place of waiting for flushes and compactions.
    fn land(&self, write: WriteBatch, waits: bool) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        options.set_no_slowdown(!waits);
        self.db.write_opt(write, &options)
    }
}

/// Takes what a database says of itself, and keeps nothing of it: without one it writes a file.
pub(crate) fn quiet() -> InfoLogger {
    InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {})
}

impl StateDisk for RocksState {
    fn standing(&self) -> io::Result<Standing> {
        let raft = self.family(RAFT);
        let applied = self.db.get_cf(raft, APPLIED).map_err(other)?;
        let applied = applied.map(|bytes| decode_log_id(&bytes)).transpose()?;
        let kept = self.db.get_cf(raft, HASH).map_err(other)?;
        let membership = self.db.get_cf(raft, MEMBERSHIP).map_err(other)?;
        Ok(Standing {
            applied,
            membership: membership
                .map(|bytes| decode_membership(&bytes))
                .transpose()?
                .unwrap_or_default(),
            kept: match kept {
                Some(bytes) => Kept::decode(&bytes, applied)?,
                None => None,
            },
        })
    }

    fn view(&self, read: &mut dyn FnMut(&dyn View)) {
        read(&RocksView {
            db: &self.db,
            families: self.families(),
            snapshot: self.db.snapshot(),
        });
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.land(self.write_batch(&batch), true).map_err(other)
    }

    fn try_write(&self, batch: Batch) -> io::Result<Option<Batch>> {
        match self.land(self.write_batch(&batch), false) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Some(batch)),
            Err(error) => Err(other(error)),
        }
    }

    fn put(&self, changes: Changes) -> io::Result<()> {
        self.land(self.rows_of(&changes), true).map_err(other)
    }

    fn cut_journal(&self, floor: Revision) -> io::Result<()> {
        let (from, to) = journal::range_below(floor);
        let mut write = WriteBatch::default();
        write.delete_range_cf(self.family(JOURNAL), &from, &to);
        self.land(write, true).map_err(other)?;
        // So that the disk has the room now, and reads do not step over what is gone.
        self.db
            .compact_range_cf(self.family(JOURNAL), Some(&from), Some(&to));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let families = FAMILIES.map(|name| self.family(name));
        self.db
            .flush_cfs_opt(&families, &rocksdb::FlushOptions::default())
            .map_err(other)
    }

    fn tables_version(&self) -> u64 {
        let of = |name| {
            let family = self.family(name);
            let version = self
                .db
                .property_int_value_cf(family, properties::CURRENT_SUPER_VERSION_NUMBER);
            version.ok().flatten().unwrap_or_default()
        };
        // Each only ever grows.
        FAMILIES.map(of).iter().sum()
    }

    fn tables(&self) -> io::Result<Vec<Table>> {
        let live = self.db.live_files().map_err(other)?;
        Ok(live
            .into_iter()
            .map(|file| Table {
                name: file.name.trim_start_matches('/').to_owned(),
                of_journal: file.column_family_name == JOURNAL,
            })
            .collect())
    }

    fn uncache_journal(&self) -> io::Result<()> {
        let tables = self.tables()?;
        for table in tables.iter().filter(|table| table.of_journal) {
            match std::fs::File::open(self.db.path().join(&table.name)) {
                Ok(file) => posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn checkpoint(&self, path: &Path) -> io::Result<Standing> {
        let checkpoint = Checkpoint::new(&self.db).map_err(other)?;
        checkpoint.create_checkpoint(path).map_err(other)?;
        RocksState::open_frozen(path)?.standing()
    }
}

/// A snapshot of the database as one ordered space of keys.
struct RocksView<'a> {
    db: &'a DB,
    families: Families<'a>,
    snapshot: Snapshot<'a>,
}

fn store_fault(error: rocksdb::Error) -> Fault {
    Fault::Store(error.into_string())
}

impl View for RocksView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.snapshot
            .get_cf(self.families.of(key), key)
            .map_err(store_fault)
    }

    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, Fault> {
        if let [key] = keys {
            return Ok(vec![self.get(key)?]);
        }
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        let mut values = Vec::with_capacity(keys.len());
        let family = |key: &Vec<u8>| std::ptr::from_ref(self.families.of(key));
        for alike in keys.chunk_by(|one, other| family(one) == family(other)) {
            let found = self
                .db
                .batched_multi_get_cf_opt(self.families.of(&alike[0]), alike, false, &options);
            for value in found {
                values.push(value.map_err(store_fault)?.map(|value| value.to_vec()));
            }
        }
        Ok(values)
    }

    fn scan(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<(), Fault> {
        // Tables never span column families: cut the range at the edges of those that have their own.
        let mut pieces: Vec<(&[u8], &[u8])> = Vec::new();
        let mut start = from;
        for edge in EDGES {
            if start < edge && (to.is_empty() || edge < to) {
                pieces.push((start, edge));
                start = edge;
            }
        }
        if to.is_empty() || start < to {
            pieces.push((start, to));
        }
        if order == Order::Descending {
            pieces.reverse();
        }
        for (from, to) in pieces {
            if !self.scan_piece(from, to, order, visit)? {
                break;
            }
        }
        Ok(())
    }
}

impl RocksView<'_> {
    /// Scans within one column family; `false` when `visit` ended the scan.
    fn scan_piece(&self, from: &[u8], to: &[u8], order: Order, visit: Visit<'_>) -> Result<bool, Fault> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if !to.is_empty() {
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.snapshot.raw_iterator_cf_opt(self.families.of(from), options);
        match order {
            Order::Ascending => rows.seek_to_first(),
            Order::Descending => rows.seek_to_last(),
        }
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(false);
            }
            match order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.prev(),
            }
        }
        rows.status().map_err(store_fault)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;
    use onward_statemachine::keys;
    use rocksdb::WaitForCompactOptions;

    fn batch(index: u64) -> Batch {
        let leader = LeaderId { term: 1, node_id: 1 };
        Batch {
            changes: Changes::from([(vec![keys::KV, index as u8], Some(vec![1]))]),
            applied: LogId::new(leader, index),
            membership: None,
            kept: None,
        }
    }

    /// The files of the journal: their names, and on which level each is.
    fn journal_files(state: &RocksState) -> Vec<(String, i32)> {
        let files = state.db.live_files().expect("lists files").into_iter();
        files
            .filter(|file| file.column_family_name == JOURNAL)
            .map(|file| (file.name, file.level))
            .collect()
    }

    #[test]
    fn the_journal_is_written_once() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let state = RocksState::open(&dir.path().join("state")).expect("opens");
        let mut written: Vec<String> = Vec::new();
        for revision in 1..=4_u8 {
            let row = (vec![keys::JOURNAL, revision], Some(vec![7; 100]));
            state.put(Changes::from([row])).expect("writes");
            state.flush().expect("flushes");
            written.extend(journal_files(&state).into_iter().map(|(name, _)| name));
        }
        written.sort();
        written.dedup();
        // With the fourth, the first level has too many, and some go down.
        let compacted = || state.db.wait_for_compact(&WaitForCompactOptions::default());
        compacted().expect("compacts");
        assert!(journal_files(&state).iter().any(|(_, level)| *level > 0));
        // A snapshot that is let go of is a reason to write the last level again.
        state.view(&mut |_| {});
        compacted().expect("compacts");
        let mut files: Vec<String> = journal_files(&state).into_iter().map(|(name, _)| name).collect();
        files.sort();
        assert_eq!(
            files, written,
            "the files that were flushed, and no other was written"
        );
    }

    #[test]
    fn rows_that_are_read_together_are_those_that_are_read_one_by_one() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let state = RocksState::open(&dir.path().join("state")).expect("opens");
        let key = |table: u8, number: u8| vec![table, number];
        let row = |table, number, value: &str| (key(table, number), Some(value.into()));
        let long = "long".repeat(4 << 10);
        let written = [
            row(keys::KV, 1, "flushed"),
            row(keys::KV, 2, "overwritten"),
            row(keys::KV, 3, "deleted"),
            row(keys::KV, 4, &long),
            row(keys::REPLIES, 1, "reply"),
        ];
        state.put(Changes::from(written)).expect("writes");
        state.flush().expect("flushes");
        let newer = [row(keys::KV, 2, "newer"), (key(keys::KV, 3), None)];
        state.put(Changes::from(newer)).expect("writes");
        let mut asked: Vec<_> = (0..6).map(|number| key(keys::KV, number)).collect();
        asked.extend([key(keys::REPLIES, 1), key(keys::KV, 1), key(keys::REPLIES, 9)]);
        state.view(&mut |view| {
            let later = row(keys::KV, 5, "after the view");
            state.put(Changes::from([later])).expect("writes");
            let one_by_one: Result<Vec<_>, _> = asked.iter().map(|key| view.get(key)).collect();
            let together = view.get_many(&asked).expect("reads");
            assert_eq!(together, one_by_one.expect("reads"));
            let there: Vec<_> = together.iter().map(Option::is_some).collect();
            assert_eq!(there, [false, true, true, false, true, false, true, true, false]);
        });
    }

    #[test]
    fn the_page_cache_lets_go_of_the_journal_and_of_nothing_else() {
        /// Whether a file can be read without asking the disk.
        fn is_cached(path: &Path) -> bool {
            let file = std::fs::File::open(path).expect("opens");
            let mut byte = [0];
            let mut buffers = [io::IoSliceMut::new(&mut byte)];
            match rustix::io::preadv2(&file, &mut buffers, 0, ReadWriteFlags::NOWAIT) {
                Ok(_) => true,
                Err(Errno::AGAIN) => false,
                Err(error) => panic!("reading {} failed: {error}", path.display()),
            }
        }
        use rustix::io::{Errno, ReadWriteFlags};

        let dir = tempfile::tempdir().expect("makes a directory");
        let state = RocksState::open(&dir.path().join("state")).expect("opens");
        let version = state.tables_version();
        let rows = [keys::JOURNAL, keys::KV].map(|table| (vec![table, 1], Some(vec![7; 9 << 10])));
        state.put(Changes::from(rows)).expect("writes");
        state.flush().expect("flushes");
        assert_ne!(state.tables_version(), version);
        let of = |family: &str| {
            let live = state.db.live_files().expect("lists files");
            let file = live.into_iter().find(|file| file.column_family_name == family);
            let name = file.expect("has a file").name;
            state.db.path().join(name.trim_start_matches('/'))
        };
        assert!(is_cached(&of(JOURNAL)));
        state.uncache_journal().expect("lets go");
        assert!(!is_cached(&of(JOURNAL)));
        assert!(is_cached(&of(ROWS)));
        let blobs = std::fs::read_dir(state.db.path()).expect("lists").flatten();
        let blobs = blobs.filter(|file| file.path().extension() == Some("blob".as_ref()));
        assert_eq!(blobs.count(), 1, "that of the long row, and none of the journal");
    }

    #[test]
    fn a_batch_that_would_have_to_wait_is_given_back_whole() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let state = RocksState::open(&dir.path().join("state")).expect("opens");
        assert!(state.try_write(batch(1)).expect("writes").is_none());
        state.flush().expect("flushes");

        // One file on the first level, and not one more is let in before it is compacted, which nothing begins.
        let set = |stop: &str, begin: &str| {
            let options = [
                ("level0_stop_writes_trigger", stop),
                ("level0_slowdown_writes_trigger", stop),
                ("level0_file_num_compaction_trigger", begin),
            ];
            state
                .db
                .set_options_cf(state.family(ROWS), &options)
                .expect("sets options");
        };
        set("1", "1000");
        let given_back = state.try_write(batch(2)).expect("does not fail").expect("waits");
        assert_eq!(given_back.changes, batch(2).changes);
        let applied = state.standing().expect("reads").applied;
        assert_eq!(applied, Some(batch(1).applied), "nothing of it is there");

        set("36", "4");
        state.write(given_back).expect("writes");
        let applied = state.standing().expect("reads").applied;
        assert_eq!(applied, Some(batch(2).applied));
    }
}
