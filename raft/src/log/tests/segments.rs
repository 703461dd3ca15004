//! The files under the log: what comes back is what was written, or what came before some write of it.

use super::{entry, id};
use crate::files::{Disk, Files};
use crate::log::disk::{LogDisk, ReadLog, Recovered, Sizes, Write};
use crate::types::{Entry, Vote};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// So small that a few entries fill a segment.
const SIZES: Sizes = Sizes {
    segment_bytes: 1000,
    ahead_bytes: 300,
    spares: 2,
    kept: 2,
};

fn files() -> Arc<dyn Files> {
    Arc::new(Disk)
}

fn open(dir: &Path) -> io::Result<LogDisk> {
    LogDisk::open(&files(), &dir.join("log"), SIZES)
}

/// What a log comes to.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    recovered: Recovered,
}

impl Model {
    fn take(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => {
                self.entries
                    .extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
            }
            Write::Vote(vote) => self.recovered.vote = Some(*vote),
            Write::Committed(committed) => self.recovered.committed = *committed,
            Write::TruncateFrom(from) => drop(self.entries.split_off(from)),
            Write::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.recovered.purged = Some(*upto);
            }
        }
        let last = self.entries.values().next_back().map(|entry| entry.log_id);
        self.recovered.last = last.max(self.recovered.purged);
    }

    fn of(disk: &LogDisk) -> io::Result<Self> {
        let recovered = Recovered {
            first: 0,
            ..disk.recover()?
        };
        let entries = disk.read(0, u64::MAX, usize::MAX)?;
        let entries = entries
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect();
        Ok(Model { entries, recovered })
    }

    /// The index behind the last entry.
    fn end(&self) -> u64 {
        self.recovered.last.map_or(1, |id| id.index + 1)
    }

    fn begin(&self) -> u64 {
        self.recovered.purged.map_or(1, |id| id.index + 1)
    }
}

/// A step of a script; the numbers choose among what is possible then.
#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Vote,
    Committed,
    Truncate(u64),
    Purge(u64),
    Reclaim,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..8_u64).prop_map(Step::Append),
        1 => Just(Step::Vote),
        1 => Just(Step::Committed),
        1 => (0..8_u64).prop_map(Step::Truncate),
        2 => (0..30_u64).prop_map(Step::Purge),
        1 => Just(Step::Reclaim),
        2 => Just(Step::Reopen),
    ]
}

/// The write that `step` stands for, at the place `term` of a script.
fn write(step: &Step, term: u64, model: &Model) -> Option<Write> {
    let (begin, end) = (model.begin(), model.end());
    match step {
        Step::Append(count) => Some(Write::Append(
            (end..end + count).map(|index| entry(term, index)).collect(),
        )),
        Step::Vote => Some(Write::Vote(Vote::new(term, 1))),
        Step::Committed => Some(Write::Committed(model.recovered.last)),
        Step::Truncate(count) => Some(Write::TruncateFrom(end.saturating_sub(*count).max(begin))),
        Step::Purge(count) => {
            let at = model.entries.values().nth(*count as usize);
            // As a snapshot does that is ahead of the log.
            let upto = at.map_or(id(term, end + 3), |entry| entry.log_id);
            Some(Write::Purge(upto))
        }
        Step::Reclaim | Step::Reopen => None,
    }
}

/// Runs a script: what the log comes to after each write.
fn run(dir: &Path, steps: &[Step]) -> Result<Vec<Model>, TestCaseError> {
    let failed = |error: io::Error| TestCaseError::fail(error.to_string());
    let mut disk = open(dir).map_err(failed)?;
    let mut model = Model::default();
    let mut models = vec![model.clone()];
    for (term, step) in (1..).zip(steps) {
        match write(step, term, &model) {
            Some(write) => {
                model.take(&write);
                models.push(model.clone());
                disk.write(&[write], term % 2 == 0).map_err(failed)?;
            }
            None if matches!(step, Step::Reclaim) => disk.reclaim().map_err(failed)?,
            None => {
                drop(disk);
                disk = open(dir).map_err(failed)?;
            }
        }
        prop_assert_eq!(&Model::of(&disk).map_err(failed)?, &model);
        let behind = disk.read(model.end() + 5, u64::MAX, 1).map_err(failed)?;
        prop_assert_eq!(behind, Vec::new());
    }
    Ok(models)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_what_was_written_to_it(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir()?;
        run(dir.path(), &steps)?;
    }

    #[test]
    fn a_torn_end_is_a_log_of_before(
        steps in prop::collection::vec(step(), 1..40),
        keep in 0.0..1.0_f64,
        rubbish in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = tempfile::tempdir()?;
        let models = run(dir.path(), &steps)?;
        let Some(last) = segments(dir.path()).pop() else { return Ok(()) };
        let mut bytes = fs::read(&last)?;
        bytes.truncate((bytes.len() as f64 * keep) as usize);
        bytes.extend_from_slice(&rubbish);
        fs::write(&last, bytes)?;
        let disk = match open(dir.path()) {
            // What says that the segments before are purged was synced before they went.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                prop_assert!(steps.iter().any(|step| matches!(step, Step::Purge(_))), "{}", error);
                return Ok(());
            }
            opened => opened?,
        };
        let torn = Model::of(&disk)?;
        let before = torn.entries.values().next_back().map(|entry| entry.log_id);
        // A batch may be cut between two entries; each of them is one that was written.
        for model in &models {
            if before.is_some_and(|id| model.entries.get(&id.index).is_some_and(|entry| entry.log_id == id)) {
                for (index, entry) in torn.entries.range(model.begin()..) {
                    prop_assert_eq!(model.entries.get(index), Some(entry));
                }
                return Ok(());
            }
        }
        prop_assert_eq!(before, None);
    }
}

fn named(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let listed = Disk.list(&dir.join("log")).expect("lists");
    let paths = listed.into_iter().map(|listed| dir.join("log").join(listed.name));
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    named(dir, "log")
}

/// A directory with the entries 1 to 40 in several segments.
fn filled() -> (TempDir, LogDisk) {
    let dir = tempfile::tempdir().expect("temp dir");
    let disk = open(dir.path()).expect("opens");
    for index in 1..=40 {
        disk.write(&[Write::Append(vec![entry(1, index)])], true)
            .expect("writes");
    }
    (dir, disk)
}

fn indices(disk: &LogDisk) -> Vec<u64> {
    let entries = disk.read(0, u64::MAX, usize::MAX).expect("reads");
    entries.iter().map(|entry| entry.log_id.index).collect()
}

#[test]
fn the_last_segments_before_an_entry_are_kept() {
    let dir = TempDir::new().expect("temp dir");
    let disk = open(dir.path()).expect("opens");
    let mut begins = Vec::new();
    for index in 1..=60 {
        disk.write(&[Write::Append(vec![entry(1, index)])], false)
            .expect("writes");
        if disk.pieces(index.max(2) - 1, index + 1).len() > 1 {
            begins.push(index);
        }
    }
    assert!(begins.len() > 4, "too few segments: {begins:?}");
    // Of the segments that end before it, the last two are kept, and the one that it is in.
    assert_eq!(disk.start_of_kept(begins[4]), begins[2]);
    assert_eq!(disk.start_of_kept(begins[4] - 1), begins[1]);
    assert_eq!(disk.start_of_kept(begins[1]), 0, "there are no more");
}

#[test]
fn purged_segments_become_the_next_ones_and_what_they_held_does_not_come_back() {
    let (dir, disk) = filled();
    let count = segments(dir.path()).len();
    assert!(count >= 5, "{count} segments");
    disk.write(&[Write::Purge(id(1, 38))], true).expect("purges");
    assert_eq!(named(dir.path(), "spare").len(), SIZES.spares);
    assert!(segments(dir.path()).len() <= 2);
    // The spares were written full; now they are begun, and left.
    for index in 41..=48 {
        disk.write(&[Write::Append(vec![entry(2, index)])], true)
            .expect("writes");
    }
    assert!(named(dir.path(), "spare").len() < SIZES.spares);
    assert_eq!(indices(&disk), (39..=48).collect::<Vec<_>>());
    drop(disk);
    let disk = open(dir.path()).expect("opens");
    assert_eq!(indices(&disk), (39..=48).collect::<Vec<_>>());
    assert_eq!(disk.recover().expect("recovers").purged, Some(id(1, 38)));
    disk.reclaim().expect("reclaims");
    assert_eq!(named(dir.path(), "spare"), Vec::<PathBuf>::new());
}

#[test]
fn what_is_read_meanwhile_is_not_written_over() {
    let (dir, disk) = filled();
    let pieces = disk.pieces(1, 40);
    disk.write(&[Write::Purge(id(1, 39))], true).expect("purges");
    for index in 41..=80 {
        disk.write(&[Write::Append(vec![entry(2, index)])], true)
            .expect("writes");
    }
    let mut entries = Vec::new();
    for piece in pieces {
        piece.read(&mut entries).expect("reads");
    }
    assert_eq!(entries, (1..40).map(|index| entry(1, index)).collect::<Vec<_>>());
    drop(dir);
}

/// Why the log is not opened.
fn refused(dir: &Path) -> String {
    match open(dir) {
        Ok(disk) => panic!("the log was opened: {:?}", disk.recover()),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            error.to_string()
        }
    }
}

#[test]
fn damage_before_the_last_segment_is_named() {
    for at in [3, 20, 500] {
        let (dir, disk) = filled();
        drop(disk);
        let second = &segments(dir.path())[1];
        let mut bytes = fs::read(second).expect("reads");
        bytes[at] ^= 1;
        fs::write(second, bytes).expect("writes");
        let error = refused(dir.path());
        assert!(
            error.starts_with("segment 2 of the log is damaged at "),
            "{error}"
        );
    }
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    for (gone, expected) in [
        (0, "segment 1 of the log is missing"),
        (2, "segment 3 of the log is missing"),
    ] {
        let (dir, disk) = filled();
        drop(disk);
        fs::remove_file(&segments(dir.path())[gone]).expect("removes");
        assert_eq!(refused(dir.path()), expected);
    }
    let (dir, disk) = filled();
    disk.write(&[Write::Purge(id(1, 9))], true).expect("purges");
    let count = segments(dir.path()).len();
    drop(disk);
    fs::remove_file(&segments(dir.path())[0]).expect("removes");
    assert_eq!(segments(dir.path()).len() + 1, count);
    let error = refused(dir.path());
    assert!(error.ends_with("are missing from the log"), "{error}");
}

#[test]
fn purged_segments_that_a_crash_brings_back_go_again() {
    let (dir, disk) = filled();
    let before: Vec<_> = segments(dir.path())
        .into_iter()
        .map(|path| (fs::read(&path).expect("reads"), path))
        .collect();
    disk.write(&[Write::Purge(id(1, 30))], true).expect("purges");
    drop(disk);
    // Not all of them, and not the last ones.
    for (bytes, path) in &before[..2] {
        assert!(!path.exists());
        fs::write(path, bytes).expect("writes");
    }
    let disk = open(dir.path()).expect("opens");
    assert_eq!(indices(&disk), (31..=40).collect::<Vec<_>>());
    assert!(!before[0].1.exists() && !before[1].1.exists());
    // All of them: as if nothing had gone.
    let first = segments(dir.path()).remove(0);
    for (bytes, path) in before.iter().take_while(|(_, path)| *path < first) {
        fs::write(path, bytes).expect("writes");
    }
    drop(disk);
    let disk = open(dir.path()).expect("opens");
    assert_eq!(indices(&disk), (31..=40).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_was_only_begun_is_begun_again() {
    let (dir, disk) = filled();
    disk.write(&[Write::Purge(id(1, 38))], true).expect("purges");
    drop(disk);
    let (spare, last) = (
        named(dir.path(), "spare").remove(0),
        segments(dir.path()).pop().expect("one"),
    );
    let number: u64 = last
        .file_stem()
        .and_then(|stem| stem.to_str()?.parse().ok())
        .expect("a number");
    for bytes in [fs::read(&spare).expect("reads"), Vec::new(), vec![0; 300]] {
        let begun = last.with_file_name(format!("{:010}.log", number + 1));
        fs::write(&begun, bytes).expect("writes");
        let disk = open(dir.path()).expect("opens");
        assert_eq!(indices(&disk), [39, 40]);
    }
    let disk = open(dir.path()).expect("opens");
    disk.write(&[Write::Append(vec![entry(2, 41)])], true)
        .expect("writes");
    drop(disk);
    assert_eq!(indices(&open(dir.path()).expect("opens")), [39, 40, 41]);
}

#[test]
fn bytes_are_pinned() {
    let dir = tempfile::tempdir().expect("temp dir");
    let disk = open(dir.path()).expect("opens");
    let writes = [
        Write::Append(vec![entry(3, 2)]),
        Write::Vote(Vote::new_committed(3, 1)),
        Write::Committed(Some(id(3, 2))),
        Write::TruncateFrom(9),
        Write::Purge(id(3, 1)),
    ];
    disk.write(&writes, true).expect("writes");
    let bytes = fs::read(&segments(dir.path())[0]).expect("reads");
    let mut at = 0;
    let mut kinds = Vec::new();
    while bytes[at..at + 4] != [0; 4] {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")) as usize;
        let body = &bytes[at + 9..at + 9 + length];
        kinds.push((
            bytes[at + 8],
            if length < 100 { body.to_vec() } else { Vec::new() },
        ));
        at += 9 + length;
    }
    let expected = [
        (1, vec![1, 0, 0, 0, 0]),
        (2, Vec::new()),
        (3, vec![1, 3, 1, 1]),
        (4, vec![1, 3, 1, 2]),
        (5, vec![9, 0, 0, 0, 0, 0, 0, 0]),
        (6, vec![1, 3, 1, 1]),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(
        bytes[4..8],
        crc32fast::hash(&[1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 1, 0, 0, 0, 0]).to_le_bytes()
    );
}
