//! What is found in the directories of nodes that ran, sound and damaged.

use super::*;
use crate::config::{Config, InitialMember, SnapshotPolicy};
use crate::node::Node;
use crate::testing::copy_as_of_now;
use onward_statemachine::ports::Proposal;
use onward_statemachine::services::kv;
use onward_statemachine::{Actor, Command, NodeId, Outcome};
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

async fn put(node: &Node, key: &str, value: &str) {
    let command = Command::Kv(kv::Command::Put {
        key: kv::Key(key.as_bytes().to_vec()),
        value: value.as_bytes().to_vec(),
        expect: None,
    });
    let proposal = Proposal::new(Actor::new("test"), command);
    let outcome = node.proposer().propose(proposal, 30_000).await;
    assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
}

/// The directory of a node that has a snapshot and entries behind it, in which `rounds` keys have this value.
async fn stopped(value: &str, rounds: usize) -> TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut config = Config::new(dir.path(), "test");
    config.node_id = Some(NodeId(1));
    config.initial_members = vec![InitialMember {
        id: NodeId(1),
        peer_address: listener.local_addr().expect("bound").to_string(),
        http_url: "http://127.0.0.1:7001".to_owned(),
    }];
    config.peer_listener = Some(listener);
    config.snapshots = SnapshotPolicy {
        entries: 20,
        ..SnapshotPolicy::default()
    };
    let node = Node::start(config).await.expect("starts");
    for round in 0..30 {
        put(&node, &format!("before-{round}"), value).await;
    }
    let end = Instant::now() + DEADLINE;
    let level = || {
        let reader = node.reader();
        reader.read(|view| Ok(system::gate(view)?.feature_level))
    };
    while node.cluster().status().snapshot.0 == 0 || level() < system::FEATURE_LEVEL_MAX {
        assert!(Instant::now() < end, "no snapshot, or no feature level");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for round in 0..rounds {
        put(&node, &format!("behind-{round}"), value).await;
    }
    node.shutdown().await;
    dir
}

fn verified(dir: &Path, replay_bytes_max: usize) -> Verdict {
    let scratch = tempfile::tempdir().expect("temp dir");
    verify_with(dir, scratch.path(), replay_bytes_max, &mut |_| {}).expect("can be looked at")
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

/// Flips a bit of a file, of which other directories may have a name, too: theirs stays as it is.
fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("readable");
    bytes[at] ^= 1;
    fs::remove_file(path).expect("removable");
    fs::write(path, bytes).expect("writable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_compared_is_said() {
    let dir = stopped("value", 5).await;
    let all = verified(dir.path(), REPLAY_BYTES_MAX);
    assert_eq!((&all.findings, &all.not_compared), (&vec![], &vec![]));
    assert!(all.looked.iter().any(|looked| looked.part == "log on snapshot"));

    let part = verified(dir.path(), 10);
    assert_eq!(part.findings, []);
    assert_eq!(part.not_compared.len(), 1, "{part:?}");
    let told = &part.not_compared[0];
    assert_eq!(told.place, "log on snapshot");
    assert!(told.what.contains("was not compared"), "{told:?}");
    assert!(!part.looked.iter().any(|looked| looked.part == "log on snapshot"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_entry_of_the_log_is_found() {
    let needle = b"a value that is found again";
    let dir = stopped("a value that is found again", 5).await;
    let place = |bytes: &[u8]| bytes.windows(needle.len()).position(|window| window == needle);
    let (segment, at) = files(&dir.path().join("log"))
        .into_iter()
        .find_map(|path| {
            let at = place(&fs::read(&path).expect("readable"))?;
            Some((path, at))
        })
        .expect("the log has it");
    damage(&segment, at);
    let verdict = verified(dir.path(), REPLAY_BYTES_MAX);
    let found = verdict
        .findings
        .iter()
        .any(|finding| finding.place.starts_with("log"));
    assert!(found, "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_of_a_snapshot_is_found() {
    let dir = stopped("value", 5).await;
    let table = files(&dir.path().join("snap"))
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .expect("a snapshot has tables");
    damage(&table, 20);
    let verdict = verified(dir.path(), REPLAY_BYTES_MAX);
    let name = table.file_name().expect("a name").to_string_lossy();
    let of_file = |finding: &&Finding| finding.place.starts_with("snap/") && finding.place.ends_with(&*name);
    assert!(
        verdict.findings.iter().find(of_file).is_some(),
        "{name}: {verdict:?}"
    );
    // The state has the same tables under names of its own.
    let of_state = |finding: &&Finding| finding.place.starts_with("state");
    assert_eq!(verdict.findings.iter().find(of_state), None);
}

/// Rows that are whole, decode, keep every rule and have the hash that was kept with them: only the log tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_log_does_not_make_are_found() {
    let (one, other) = (stopped("this", 5).await, stopped("that", 8).await);
    fs::remove_dir_all(other.path().join("state")).expect("removable");
    copy_as_of_now(&one.path().join("state"), &other.path().join("state"));
    let verdict = verified(other.path(), REPLAY_BYTES_MAX);
    assert_eq!(verdict.findings.len(), 1, "{verdict:?}");
    let finding = &verdict.findings[0];
    assert_eq!(finding.place, "state");
    assert!(finding.what.contains("applied to the snapshot"), "{finding:?}");
}

/// As a power loss leaves it that takes the end of the log, which a flush of the state had kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_ahead_of_its_log_is_no_damage() {
    let (behind, ahead) = (stopped("value", 5).await, stopped("value", 8).await);
    fs::remove_dir_all(behind.path().join("state")).expect("removable");
    copy_as_of_now(&ahead.path().join("state"), &behind.path().join("state"));
    let verdict = verified(behind.path(), REPLAY_BYTES_MAX);
    assert_eq!(verdict.findings, []);
    assert_eq!(verdict.not_compared.len(), 1, "{verdict:?}");
    let told = &verdict.not_compared[0].what;
    assert!(told.contains("as a power loss may leave it"), "{told}");
}
