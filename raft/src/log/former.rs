//! The log of earlier builds, a RocksDB database: read for [`verify`](crate::verify), and made into segments when a node
//! starts.
//!
//! The new log is made beside the old one and takes its place once it is complete and durable; whatever a crash
//! leaves of that is cleared away, or finished, at the next start.

use super::disk::{LogDisk, ReadLog, Recovered, Sizes, Write};
use super::record;
use super::stored::{StoredVote, decode_log_id, invalid, other};
use crate::files::Files;
use crate::state::database::quiet;
use crate::types::{Entry, LogId};
use bytes::Bytes;
use onward_statemachine::codec;
use rocksdb::{ColumnFamily, DB, DEFAULT_COLUMN_FAMILY_NAME, Direction, IteratorMode, Options};
use std::io;
use std::path::Path;
use std::sync::Arc;

const LOG: &str = "log";
const META: &str = "meta";

/// How much is copied at a time.
const COPY_BYTES: usize = 4 << 20;

/// Converts the log in the data directory `dir`, if it is one of earlier builds.
pub(super) fn convert(files: &Arc<dyn Files>, dir: &Path, sizes: Sizes) -> io::Result<()> {
    let [log, new, old] = ["log", "log.new", "log.old"].map(|name| dir.join(name));
    if is_former(&**files, &log) {
        if files.exists(&new) {
            files.remove_dir(&new)?;
        }
        tracing::info!(path = %log.display(), "the log is made into segments");
        copy(&FormerLog::open(&log)?, &LogDisk::open(files, &new, sizes)?)?;
        files.rename(&log, &old)?;
        files.sync_dir(dir)?;
    }
    if files.exists(&old) {
        if files.exists(&new) {
            files.rename(&new, &log)?;
            files.sync_dir(dir)?;
        }
        files.remove_dir(&old)?;
    }
    Ok(())
}

/// Whether `log` is a log of earlier builds.
pub(crate) fn is_former(files: &dyn Files, log: &Path) -> bool {
    files.exists(&log.join("CURRENT"))
}

fn copy(from: &FormerLog, to: &LogDisk) -> io::Result<()> {
    let recovered = from.recover()?;
    let mut writes: Vec<Write> = recovered.purged.map(Write::Purge).into_iter().collect();
    let mut at = recovered.purged.map_or(0, |id| id.index + 1);
    loop {
        let entries = from.read(at, u64::MAX, COPY_BYTES)?;
        let Some(last) = entries.last() else { break };
        at = last.log_id.index + 1;
        writes.push(Write::Append(entries));
        to.write(&writes, false)?;
        writes.clear();
    }
    writes.push(Write::Committed(recovered.committed));
    writes.extend(recovered.vote.map(Write::Vote));
    to.write(&writes, true)
}

/// A log of earlier builds, for reading.
pub(crate) struct FormerLog(DB);

impl FormerLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = Options::default();
        options.set_paranoid_checks(true);
        options.set_info_logger(quiet());
        let families = [DEFAULT_COLUMN_FAMILY_NAME, LOG, META];
        let db = DB::open_cf_for_read_only(&options, path, families, false).map_err(other)?;
        Ok(FormerLog(db))
    }

    fn family(&self, name: &str) -> io::Result<&ColumnFamily> {
        let family = self.0.cf_handle(name);
        family.ok_or_else(|| invalid(format!("there is no column family {name}")))
    }

    fn meta(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.get_cf(self.family(META)?, key).map_err(other)
    }

    fn id(&self, key: &str) -> io::Result<Option<LogId>> {
        self.meta(key)?.map(|bytes| decode_log_id(&bytes)).transpose()
    }
}

impl ReadLog for FormerLog {
    fn recover(&self) -> io::Result<Recovered> {
        let vote = match self.meta("vote")? {
            Some(bytes) => Some(codec::decode::<StoredVote>(&bytes).map_err(invalid)?.into()),
            None => None,
        };
        let id_at = |from| -> io::Result<Option<LogId>> {
            let row = self.0.iterator_cf(self.family(LOG)?, from).next().transpose();
            let record = row.map_err(other)?.map(|(_, record)| record);
            Ok(record.map(|record| record::log_id(&record)).transpose()?)
        };
        let purged = self.id("purged")?;
        // Behind a purge the first index is known, and a search would walk its tombstones.
        let first = match purged {
            Some(_) => 0,
            None => id_at(IteratorMode::Start)?.map_or(0, |id| id.index),
        };
        Ok(Recovered {
            vote,
            committed: self.id("committed")?,
            purged,
            first,
            last: id_at(IteratorMode::End)?.max(purged),
        })
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let first = from.to_be_bytes();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for row in self
            .0
            .iterator_cf(self.family(LOG)?, IteratorMode::From(&first, Direction::Forward))
        {
            let (key, record) = row.map_err(other)?;
            bytes += record.len();
            if key[..] >= to.to_be_bytes()[..] || (bytes > bytes_max && !entries.is_empty()) {
                break;
            }
            let entry = record::decode(Bytes::from(record))?;
            if *key != entry.log_id.index.to_be_bytes() {
                let found = entry.log_id.index;
                return Err(invalid(format!(
                    "the record of entry {found} is at key {key:02x?}"
                )));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}
