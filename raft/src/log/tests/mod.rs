mod former;
mod segments;

use super::*;
use crate::host::Host;
use crate::log::disk::{Sizes, Write};
use crate::state::{State, StateStore};
use crate::testing::copy_as_of_now;
use crate::types::{EntryPayload, LeaderId, Payload};
use bytes::Bytes;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, StorageError};
use std::fs;
use tempfile::TempDir;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, node_id: 1 }, index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(Payload::from(Bytes::from(vec![index as u8; 100]))),
    }
}

fn open(dir: &Path) -> Result<LogStore, OpenError> {
    LogStore::open(dir, &Host::machine(), Arc::new(Counters::default()))
}

/// Appends and waits until it is durable.
async fn append(log: &mut LogStore, entries: Vec<Entry>) {
    let (done, durable) = TypeConfig::oneshot();
    let callback = IOFlushed::signal(done);
    log.append(entries, callback).await.expect("appends");
    durable.await.expect("completes").expect("is durable");
}

async fn indices_of(log: &mut LogStore) -> Vec<u64> {
    let entries = log.try_get_log_entries(..).await.expect("reads");
    entries.iter().map(|entry| entry.log_id.index).collect()
}

struct RealStores;

impl StoreBuilder<TypeConfig, LogStore, StateStore, TempDir> for RealStores {
    async fn build(&self) -> Result<(TempDir, LogStore, StateStore), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("temp dir");
        let counters = Arc::new(Counters::default());
        let log = LogStore::open(dir.path(), &Host::machine(), counters.clone()).expect("opens");
        let state = State::open(dir.path(), &Host::machine(), counters).expect("opens");
        Ok((dir, log, StateStore::new(state).expect("opens")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openraft_conformance() {
    Suite::test_all(RealStores).await.expect("conforms");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("temp dir");
    {
        let mut log = open(dir.path()).expect("opens");
        log.save_vote(&Vote::new_committed(3, 1)).await.expect("votes");
        append(&mut log, (1..=50).map(|index| entry(3, index)).collect()).await;
        log.truncate_after(Some(id(3, 40))).await.expect("truncates");
        append(&mut log, vec![entry(4, 41)]).await;
        log.purge(id(3, 10)).await.expect("purges");
        log.save_committed(Some(id(3, 39))).await.expect("saves");
        assert_eq!(indices_of(&mut log).await, (11..=41).collect::<Vec<_>>());
    }
    let mut log = open(dir.path()).expect("opens");
    assert_eq!(indices_of(&mut log).await, (11..=41).collect::<Vec<_>>());
    let state = log.get_log_state().await.expect("reads");
    assert_eq!(state.last_purged_log_id, Some(id(3, 10)));
    assert_eq!(state.last_log_id, Some(id(4, 41)));
    assert_eq!(
        log.read_vote().await.expect("reads"),
        Some(Vote::new_committed(3, 1))
    );
    assert_eq!(log.read_committed().await.expect("reads"), Some(id(3, 39)));
    let entries = log.try_get_log_entries(40..42).await.expect("reads");
    assert_eq!(entries, vec![entry(3, 40), entry(4, 41)]);
    assert_eq!(log.first_index(), 11);
}

#[tokio::test]
async fn entries_are_readable_before_they_are_durable_and_limits_leave_a_prefix() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    let large = |index| Entry {
        log_id: id(1, index),
        payload: EntryPayload::Normal(Payload::from(Bytes::from(vec![0; READ_BYTES_MAX / 2]))),
    };
    let callback = IOFlushed::noop();
    log.append((1..=9).map(large), callback).await.expect("appends");
    let first = log.limited_get_log_entries(1, 10).await.expect("reads");
    assert_eq!(first.len(), 1, "two of them are over the limit");
    assert_eq!(indices_of(&mut log).await.len(), 9);
    log.end().await.expect("closes");
    // From the disk, where the cache does not help.
    drop(log);
    let mut log = open(dir.path()).expect("opens");
    let first = log.limited_get_log_entries(3, 10).await.expect("reads");
    assert_eq!(first.first().map(|entry| entry.log_id), Some(id(1, 3)));
    assert_eq!(first.len(), 1);
}

/// A log as a crash leaves it: a copy of the directory while the log is open.
async fn crashed(entries: u64) -> TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    let copy = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    log.save_vote(&Vote::new_committed(1, 1)).await.expect("votes");
    for index in 1..=entries {
        append(&mut log, vec![entry(1, index)]).await;
    }
    copy_as_of_now(dir.path(), copy.path());
    copy
}

#[tokio::test]
async fn a_crash_keeps_everything_acknowledged() {
    let dir = crashed(20).await;
    let mut log = open(dir.path()).expect("opens");
    assert_eq!(indices_of(&mut log).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_torn_tail_that_was_never_acknowledged_is_cut() {
    let dir = crashed(20).await;
    let last = segments::segments(dir.path()).pop().expect("there is a segment");
    let mut bytes = fs::read(&last).expect("reads");
    // What a write leaves that was under way: garbage behind the last record.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    bytes.truncate(end);
    bytes.extend_from_slice(&[0x5a; 40]);
    fs::write(&last, bytes).expect("writes");
    let mut log = open(dir.path()).expect("opens");
    assert_eq!(indices_of(&mut log).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_log_that_forgot_what_it_acknowledged_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let early = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    append(&mut log, vec![entry(1, 1)]).await;
    copy_as_of_now(&dir.path().join("log"), &early.path().join("log"));
    append(&mut log, (2..=9).map(|index| entry(1, index)).collect()).await;
    log.end().await.expect("closes");
    drop(log);
    // An old copy of the database beside a newer watermark: what losing synced writes looks like.
    fs::copy(dir.path().join("watermark"), early.path().join("watermark")).expect("copies");
    let refused = open(early.path());
    let Err(OpenError::Forgot(message)) = refused else {
        panic!("a forgetful log was opened");
    };
    assert!(message.contains("durable up to 9"), "{message}");
    assert!(message.contains("onward serve --join HOST:PORT"), "{message}");
}

#[tokio::test]
async fn a_forgotten_vote_is_refused_and_a_truncation_is_not() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    append(&mut log, (1..=9).map(|index| entry(1, index)).collect()).await;
    log.save_vote(&Vote::new(2, 1)).await.expect("votes");
    log.truncate_after(Some(id(1, 4))).await.expect("truncates");
    log.end().await.expect("closes");
    drop(log);
    let mut log = open(dir.path()).expect("a shorter log is what the watermark says");
    assert_eq!(indices_of(&mut log).await, (1..=4).collect::<Vec<_>>());
    log.end().await.expect("closes");
    drop(log);
    let disk =
        LogDisk::open(&Host::machine().files, &dir.path().join("log"), Sizes::default()).expect("opens");
    disk.write(&[Write::Vote(Vote::new(1, 1))], true).expect("writes");
    drop(disk);
    assert!(matches!(open(dir.path()), Err(OpenError::Forgot(message)) if message.contains("vote")));
}

/// Entries are committed by a majority of others before they are written here, and the note of it may be written first.
#[tokio::test]
async fn what_is_committed_and_was_not_written_yet_is_not_recovered_as_committed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    append(&mut log, (1..=3).map(|index| entry(1, index)).collect()).await;
    log.end().await.expect("closes");
    let told = [Write::Committed(Some(id(1, 9)))];
    log.shared.disk.write(&told, true).expect("writes");
    drop(log);
    let mut log = open(dir.path()).expect("opens");
    assert_eq!(log.read_committed().await.expect("reads"), Some(id(1, 3)));
    assert_eq!(indices_of(&mut log).await, [1, 2, 3]);
    log.end().await.expect("closes");
    // Of a later leader, whose entries may have other places than the last ones here.
    let told = [Write::Committed(Some(id(2, 3)))];
    log.shared.disk.write(&told, true).expect("writes");
    drop(log);
    let mut log = open(dir.path()).expect("opens");
    assert_eq!(log.read_committed().await.expect("reads"), None);
}

/// A note that comes while its entries are in the queue waits for them.
#[tokio::test]
async fn what_is_committed_is_noted_behind_its_entries() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    append(&mut log, (1..=3).map(|index| entry(1, index)).collect()).await;
    log.save_committed(Some(id(2, 3))).await.expect("notes");
    log.save_vote(&Vote::new(2, 1)).await.expect("votes");
    let recovered = log.shared.disk.recover().expect("recovers");
    assert_eq!(recovered.committed, None, "entry 3 there is another one");
    log.truncate_after(Some(id(1, 2))).await.expect("truncates");
    append(&mut log, vec![entry(2, 3)]).await;
    let recovered = log.shared.disk.recover().expect("recovers");
    assert_eq!(recovered.committed, Some(id(2, 3)));
}

#[tokio::test]
async fn a_log_that_ends_otherwise_than_the_state_is_cut() {
    let indices = |from, to| (from..=to).collect::<Vec<u64>>();
    for (applied, left) in [
        (None, indices(1, 9)),
        (Some(id(1, 9)), indices(1, 9)),
        (Some(id(2, 10)), indices(1, 9)),
        (Some(id(2, 9)), indices(1, 8)),
        (Some(id(2, 4)), indices(1, 3)),
        (Some(id(2, 1)), vec![]),
    ] {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut log = open(dir.path()).expect("opens");
        append(&mut log, (1..=9).map(|index| entry(1, index)).collect()).await;
        log.follow(applied).expect("reads");
        assert_eq!(indices_of(&mut log).await, left, "{applied:?}");
        log.end().await.expect("closes");
        drop(log);
        let mut log = open(dir.path()).expect("opens");
        assert_eq!(indices_of(&mut log).await, left, "{applied:?}");
        log.end().await.expect("closes");
    }
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_never_an_entry() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut log = open(dir.path()).expect("opens");
    append(&mut log, (1..=3).map(|index| entry(1, index)).collect()).await;
    log.end().await.expect("closes");
    drop(log);
    let segment = segments::segments(dir.path()).pop().expect("there is a segment");
    let mut bytes = fs::read(&segment).expect("reads");
    // One bit of the payload of entry 2.
    let at = bytes.windows(100).position(|window| window == [2; 100]);
    bytes[at.expect("is there") + 50] ^= 1;
    fs::write(&segment, bytes).expect("writes");
    let mut log = {
        let watched = dir.path().join("watermark");
        let refused = open(dir.path());
        assert!(matches!(refused, Err(OpenError::Forgot(message)) if message.contains("ends at 1")));
        // Without the watermark nothing tells it from an end.
        fs::remove_file(watched).expect("removes");
        open(dir.path()).expect("opens")
    };
    assert_eq!(indices_of(&mut log).await, [1]);
}
