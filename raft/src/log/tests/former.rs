//! Logs of earlier builds.

use super::{append, entry, id, indices_of, open};
use crate::log::record;
use crate::log::stored::encode_log_id;
use crate::types::Vote;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use rocksdb::{DB, Options};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The log of a data directory as earlier builds wrote it: 1 to 20, of which 1 to 5 are purged.
fn former() -> TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let db = DB::open_cf(&options, dir.path().join("log"), ["log", "meta"]).expect("opens");
    let (log, meta) = (
        db.cf_handle("log").expect("one"),
        db.cf_handle("meta").expect("one"),
    );
    for index in 1..=20_u64 {
        let mut bytes = Vec::new();
        record::encode(&entry(2, index), &mut bytes);
        db.put_cf(log, index.to_be_bytes(), bytes).expect("writes");
    }
    db.put_cf(meta, "vote", [1, 2, 1, 1]).expect("writes");
    db.put_cf(meta, "committed", encode_log_id(&id(2, 19)))
        .expect("writes");
    db.put_cf(meta, "purged", encode_log_id(&id(2, 5)))
        .expect("writes");
    db.delete_range_cf(log, 1_u64.to_be_bytes(), 6_u64.to_be_bytes())
        .expect("purges");
    dir
}

async fn check(dir: &Path) {
    let mut log = open(dir).expect("opens");
    assert_eq!(indices_of(&mut log).await, (6..=20).collect::<Vec<_>>());
    assert_eq!(
        log.read_vote().await.expect("reads"),
        Some(Vote::new_committed(2, 1))
    );
    assert_eq!(log.read_committed().await.expect("reads"), Some(id(2, 19)));
    let state = log.get_log_state().await.expect("reads");
    assert_eq!(state.last_purged_log_id, Some(id(2, 5)));
    append(&mut log, vec![entry(2, 21)]).await;
    log.end().await.expect("closes");
    drop(log);
    let mut log = open(dir).expect("opens");
    assert_eq!(indices_of(&mut log).await, (6..=21).collect::<Vec<_>>());
    for left in ["log.new", "log.old", "log/CURRENT"] {
        assert!(!dir.join(left).exists(), "{left} is still there");
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_build_is_converted() {
    check(former().path()).await;
}

#[tokio::test]
async fn a_conversion_that_was_cut_off_is_made_again_or_finished() {
    // While the new log was made.
    let dir = former();
    fs::create_dir(dir.path().join("log.new")).expect("creates");
    fs::write(dir.path().join("log.new/0000000001.log"), [1; 100]).expect("writes");
    check(dir.path()).await;

    // Between the two changes of names.
    let (dir, converted) = (former(), former());
    drop(open(converted.path()).expect("opens"));
    fs::rename(dir.path().join("log"), dir.path().join("log.old")).expect("renames");
    fs::rename(converted.path().join("log"), dir.path().join("log.new")).expect("renames");
    check(dir.path()).await;

    // Before the old one was cleared away.
    let (dir, converted) = (former(), former());
    drop(open(converted.path()).expect("opens"));
    fs::rename(dir.path().join("log"), dir.path().join("log.old")).expect("renames");
    fs::rename(converted.path().join("log"), dir.path().join("log")).expect("renames");
    check(dir.path()).await;
}
