//! The log of a directory: each entry by itself and in its place, and what all of them come to.

use super::{FINDINGS_MAX, Look};
use crate::files::Open;
use crate::log::check_watermark;
use crate::log::disk::{LogDisk, ReadLog, Recovered};
use crate::log::former::{FormerLog, is_former};
use crate::log::watermark::Watermark;
use crate::types::{Entry, EntryPayload, LogId};
use onward_statemachine::{Envelope, Fault, Revision, Txn, View, apply, codec, hash};
use std::io;
use std::path::Path;

/// The log is read in pieces of about this size.
const LOG_BYTES: usize = 4 << 20;

/// A log, and what it held when it was opened.
pub(super) type Opened = (Box<dyn ReadLog>, Recovered);

impl Look<'_> {
    /// The log, each entry by itself and in its place.
    pub(super) fn log(&mut self, dir: &Path) -> Option<Opened> {
        (self.progress)("the log");
        let path = dir.join("log");
        if !path.exists() {
            self.find("log", &"there is none");
            return None;
        }
        let opened = self.open_log(&path).and_then(|log| Ok((log.recover()?, log)));
        let (recovered, log) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.find("log", &error);
                return None;
            }
        };
        self.watermark(dir, &*log, &recovered);
        self.entries(&*log, &recovered);
        Some((log, recovered))
    }

    fn open_log(&self, path: &Path) -> io::Result<Box<dyn ReadLog>> {
        if is_former(&*self.host.files, path) {
            return Ok(Box::new(FormerLog::open(path)?));
        }
        Ok(Box::new(LogDisk::open_frozen(&self.host.files, path)?))
    }

    fn watermark(&mut self, dir: &Path, log: &dyn ReadLog, recovered: &Recovered) {
        let path = dir.join("watermark");
        let files = &*self.host.files.clone();
        let length = |path: &Path| files.open(path, Open::Read)?.length();
        match length(&path) {
            Err(error) => return self.find("watermark", &error),
            // It would be made anew.
            Ok(0) => return,
            Ok(_) => {}
        }
        let checked = Watermark::open(files, &path)
            .map_err(|error| error.to_string())
            .and_then(|mark| check_watermark(log, recovered, mark.mark()).map_err(|error| error.to_string()));
        match checked {
            Ok(()) => self.looked("watermark", 1, 0, "the log reaches as far as it was durable"),
            Err(what) => self.find("watermark", &what),
        }
    }

    fn entries(&mut self, log: &dyn ReadLog, recovered: &Recovered) {
        let first = recovered.purged.map_or(recovered.first, |id| id.index + 1);
        let end = recovered.last.map_or(first, |id| id.index + 1);
        let (mut count, mut bytes, mut before) = (0, 0, recovered.purged);
        let mut at = first;
        let mut told = 0;
        while at < end && told < FINDINGS_MAX {
            let (entries, damage) = match log.read(at, end, LOG_BYTES) {
                Ok(entries) => (entries, None),
                // One of them is damaged: which?
                Err(_) => match log.read(at, at + 1, usize::MAX) {
                    Ok(entries) => (entries, None),
                    Err(error) => (Vec::new(), Some(error)),
                },
            };
            let from = at;
            for entry in &entries {
                count += 1;
                bytes += bytes_of(entry);
                let problem = out_of_place(entry, before.as_ref(), at).or_else(|| undecodable(entry));
                if let Some(problem) = problem {
                    told += 1;
                    self.find(format!("log entry {}", entry.log_id.index), &problem);
                }
                before = Some(entry.log_id);
                at = entry.log_id.index + 1;
            }
            if at == from {
                told += 1;
                let what = damage.map_or_else(|| "it is missing".to_owned(), |error| error.to_string());
                self.find(format!("log entry {at}"), &what);
                at += 1;
            }
        }
        if recovered.committed > recovered.last {
            self.find("log", &"it ends before what it knew to be committed");
        }
        let how = "checksums, decoded, in order without a gap";
        self.looked("log", count, bytes as u64, how);
    }
}

fn bytes_of(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

fn out_of_place(entry: &Entry, before: Option<&LogId>, at: u64) -> Option<String> {
    if entry.log_id.index != at {
        return Some(format!("it comes where entry {at} should be"));
    }
    let before = before.filter(|before| before.leader_id > entry.log_id.leader_id)?;
    let (term, earlier) = (entry.log_id.leader_id.term, before.leader_id.term);
    Some(format!(
        "its term {term} is below {earlier}, that of the entry before it"
    ))
}

fn undecodable(entry: &Entry) -> Option<String> {
    match &entry.payload {
        EntryPayload::Normal(payload) => codec::decode::<Envelope>(&payload.bytes)
            .err()
            .map(|error| error.to_string()),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

/// Applies the entries after `begin` up to `end` to `view`: how many they are, and the hash of what comes of them.
/// `None` where they have more than `bytes_max`, too many for the memory.
pub(super) fn replay(
    view: &dyn View,
    log: &dyn ReadLog,
    (begin, end): (Revision, Revision),
    bytes_max: usize,
) -> Result<Option<(u64, u64)>, Fault> {
    let mut txn = Txn::new(view);
    let (mut count, mut bytes) = (0, 0);
    let mut at = begin.0 + 1;
    while at <= end.0 {
        let entries = log.read(at, end.0 + 1, LOG_BYTES);
        let entries = entries.map_err(|error| Fault::Store(error.to_string()))?;
        let Some(last) = entries.last() else {
            return Err(Fault::Store(format!("entry {at} is missing")));
        };
        at = last.log_id.index + 1;
        for entry in entries {
            count += 1;
            bytes += bytes_of(&entry);
            if bytes > bytes_max {
                return Ok(None);
            }
            if let EntryPayload::Normal(payload) = entry.payload {
                apply::apply(&mut txn, Revision(entry.log_id.index), &payload.bytes)?;
            }
        }
    }
    Ok(Some((count, hash::state_hash(&txn)?)))
}
