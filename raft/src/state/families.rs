//! The column families of the `state/` database: which keys each has, and how each is kept.

use onward_statemachine::keys;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType,
    DEFAULT_COLUMN_FAMILY_NAME, Options,
};
use std::hash::{BuildHasher, Hasher, RandomState};

pub(super) const ROWS: &str = "rows";
pub(super) const JOURNAL: &str = "journal";
pub(super) const REPLIES: &str = "replies";
pub(super) const OBJECT_BYTES: &str = "object_bytes";
pub(super) const RAFT: &str = "raft";
pub(super) const FAMILIES: [&str; 5] = [ROWS, JOURNAL, REPLIES, OBJECT_BYTES, RAFT];

/// Values from this size on live in blob files, out of the way of compaction; not those of the journal, which is not
/// written again.
const BLOB_BYTES_MIN: u64 = 4 << 10;
/// Files in which half of so many rows in a row are deletions, or of all, are compacted early.
const DELETIONS_WINDOW: usize = 4096;
/// What one compaction reads, at most, below the first level: it writes as much before it lets go of anything, and the
/// disk's reserve has to hold that.
const COMPACTION_BYTES_MAX: u64 = 256 << 20;
/// By level. What was written lately is soon written again, by the next compaction: there compressing costs more than the
/// room is worth. Not of the journal, whose files never overlap: where all levels are compressed alike, each goes down from
/// level to level without being written again.
const COMPRESSION: [DBCompressionType; 7] = {
    use DBCompressionType::{Lz4, None};
    [None, None, Lz4, Lz4, Lz4, Lz4, Lz4]
};
/// Once no snapshot needs them any more, RocksDB writes the files of the last level again, without what snapshots kept: not
/// before they are so old, when most were written again anyhow, and never those of the journal, in which nothing is
/// overwritten. At once, which is its default, it would write each file twice.
const REWRITE_AFTER_SECONDS: u32 = 600;
/// How much of a memtable its filter takes.
const MEMTABLE_FILTER_SHARE: f64 = 0.02;
/// What is written to one family before it is flushed.
const WRITE_BUFFER_BYTES: usize = 64 << 20;
/// So much less, at random: what nodes write is the same, and where they flush at different times, a majority is quick.
const WRITE_BUFFER_SPREAD: usize = WRITE_BUFFER_BYTES / 3;

/// The column families of keys.
pub(super) struct Families<'a> {
    pub(super) rows: &'a ColumnFamily,
    pub(super) journal: &'a ColumnFamily,
    pub(super) replies: &'a ColumnFamily,
    pub(super) object_bytes: &'a ColumnFamily,
}

impl<'a> Families<'a> {
    /// That of keys that begin so. The bytes of objects in the base are with those of the present.
    pub(super) fn of(&self, key: &[u8]) -> &'a ColumnFamily {
        match key {
            [keys::JOURNAL, ..] => self.journal,
            [keys::REPLIES, ..] => self.replies,
            [keys::OBJECT_BYTES, ..] | [keys::BASE, keys::OBJECT_BYTES, ..] => self.object_bytes,
            _ => self.rows,
        }
    }
}

/// Where one column family ends and another begins, in the order of keys.
pub(super) const EDGES: [&[u8]; 7] = [
    &[keys::JOURNAL],
    &[keys::REPLIES],
    &[keys::REPLIES + 1],
    &[keys::OBJECT_BYTES],
    &[keys::OBJECT_BYTES + 1],
    &[keys::BASE, keys::OBJECT_BYTES],
    &[keys::BASE, keys::OBJECT_BYTES + 1],
];

/// All families over one cache: the default one, too, which holds nothing, and would have a cache of its own.
pub(super) fn families(cache: &Cache) -> impl Iterator<Item = ColumnFamilyDescriptor> + '_ {
    let random = RandomState::new().build_hasher().finish() as usize;
    let write_buffer_bytes = WRITE_BUFFER_BYTES - random % WRITE_BUFFER_SPREAD;
    let names = FAMILIES.into_iter().chain([DEFAULT_COLUMN_FAMILY_NAME]);
    names.map(move |name| ColumnFamilyDescriptor::new(name, family_options(name, write_buffer_bytes, cache)))
}

fn family_options(name: &str, write_buffer_bytes: usize, cache: &Cache) -> Options {
    let rewrite_after = if name == JOURNAL {
        u32::MAX
    } else {
        REWRITE_AFTER_SECONDS
    };
    let mut options = Options::default()
        .get_options_from_string(format!("bottommost_file_compaction_delay={rewrite_after}"))
        .expect("RocksDB has this option");
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    // The journal is read in order.
    if name != JOURNAL {
        blocks.set_bloom_filter(10.0, false);
    }
    blocks.set_cache_index_and_filter_blocks(true);
    // Each look for what is not there asks the filters of all of them.
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    options.set_block_based_table_factory(&blocks);
    if name == JOURNAL {
        options.set_compression_type(DBCompressionType::Lz4);
    } else {
        options.set_compression_per_level(&COMPRESSION);
    }
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(4);
    options.set_max_compaction_bytes(COMPACTION_BYTES_MAX);
    // Where much was deleted, the room comes back without anybody asking for it.
    options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_WINDOW / 2, 0.5);
    if name == ROWS || name == REPLIES {
        // Most looks are for what is not there: the row of a new key, the reply to a new command. A filter in front of
        // each memtable answers them without a search.
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_SHARE);
    }
    if name == OBJECT_BYTES || name == ROWS {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(BLOB_BYTES_MIN);
        options.set_blob_compression_type(DBCompressionType::Lz4);
        options.set_enable_blob_gc(true);
    }
    options
}
