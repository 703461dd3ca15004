//! A disk that fills up: writes are refused before it is full, reads and deletes go on, and what was deleted makes room
//! for writes again, without anybody's help. On a real small file system: a tmpfs in a mount namespace of its own.

use crate::support::{Cluster, ONWARD, eventually};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The size of the disk, and what is kept free on it: more than the databases may yet write out of their memory, and
/// than compactions write before they let go of what they read.
const DISK_MIB: u64 = 2600;
const RESERVE_MIB: u64 = 800;
const VALUE_BYTES: usize = 256 << 10;
/// Refused for so long, it is not the node that makes room any more: it lets go of what it can every 2 s.
const FOR_GOOD: Duration = Duration::from_secs(15);

/// How long compacting may take: between two pieces the node waits until the files of the one before are free.
const COMPACTED_AFTER: Duration = Duration::from_secs(240);

/// Bytes that do not compress.
fn value(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    while bytes.len() < VALUE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The node of a cluster of one, started anew on a small disk of its own.
fn on_a_small_disk(cluster: &Cluster) -> Node {
    let node = cluster.node(1);
    cluster.kill(1);
    let file = node.dir.join("onward.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let mut table: toml::Table = text.parse().expect("TOML");
    let mut set = |section: &str, key: &str, value: u64| {
        let value = i64::try_from(value).expect("small");
        let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
        section
            .as_table_mut()
            .expect("a table")
            .insert(key.to_owned(), value.into());
    };
    set("disk", "reserve_mib", RESERVE_MIB);
    set("peer", "snapshot_entries", 200);
    set("peer", "snapshot_keep_entries", 10);
    std::fs::write(&file, toml::to_string(&table).expect("TOML")).expect("writable");
    let data = node.dir.join("data");
    std::fs::remove_dir_all(&data).expect("its old data");
    std::fs::create_dir(&data).expect("a mount point");
    let log = std::fs::File::create(node.dir.join("onward.log")).expect("a log");
    let script =
        "mount -t tmpfs -o size=\"$1\"m none \"$2\" && exec \"$0\" serve --config \"$3\" --exit-with-parent";
    let child = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, ONWARD])
        .arg(DISK_MIB.to_string())
        .args([&data, &file])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("unshare runs");
    let process = Node(child);
    eventually("the node is ready", || {
        let ready = cluster.http.get(format!("{}/readyz", node.http)).send();
        ready.is_ok_and(|answer| answer.status().is_success())
    });
    process
}

/// The revision that an answer names.
fn revision(answer: &reqwest::blocking::Response) -> u64 {
    let header = answer.headers().get("onward-revision").expect("a revision");
    header.to_str().expect("text").parse().expect("a number")
}

/// A compaction keeps a copy of all rows, more than is free: the node lets go of events as fast as the copy grows.
/// Earlier revisions, which need a copy of the database, are not put together, neither the `first` one nor any other.
fn compacts_in_the_room_that_there_is(cluster: &Cluster, process: &mut Node, first: Option<u64>) {
    let node = cluster.node(1);
    let read = |query: &str| {
        let url = format!("{}/v1/kv/room%2F0{query}", node.http);
        let read = cluster.http.get(url).header("Accept", "application/json");
        read.send().expect("the node answers")
    };
    let past = read(&format!("?at={}", first.expect("something was written")));
    assert_eq!(past.status().as_u16(), 503);
    let problem: serde_json::Value = past.json().expect("a problem document");
    assert_eq!(problem["code"], "history_not_ready");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("nearly full"), "{detail}");

    let head = revision(&read("")).to_string();
    cluster.ok(&["event", "compact", "--to", &head, "--yes"]);
    let began = Instant::now();
    let is_compacted = || {
        let log = std::fs::read_to_string(node.dir.join("onward.log")).expect("a log");
        log.contains("the events up to the floor of the journal are folded")
    };
    while !is_compacted() {
        assert!(process.0.try_wait().expect("a child").is_none(), "the node ended");
        assert!(began.elapsed() < COMPACTED_AFTER, "the journal is not compacted");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_disk_that_fills_up_takes_no_writes_and_gets_over_it() {
    let cluster = Cluster::start(1);
    let mut process = on_a_small_disk(&cluster);
    let node = cluster.node(1);
    let url = |number: u64| format!("{}/v1/kv/room%2F{number}", node.http);
    let put = |number| {
        let put = cluster
            .http
            .put(url(number))
            .header("Content-Type", "application/octet-stream");
        put.body(value(number)).send().expect("the node answers")
    };
    // What the node can let go of by itself makes room once or twice; then there is none left.
    let mut written = 0;
    let mut first = None;
    let mut refused_since: Option<Instant> = None;
    while refused_since.is_none_or(|since| since.elapsed() < FOR_GOOD) {
        let answer = put(written);
        if answer.status().is_success() {
            first = first.or_else(|| Some(revision(&answer)));
            written += 1;
            refused_since = None;
            let bytes = written * VALUE_BYTES as u64;
            assert!(bytes < DISK_MIB << 20, "the disk never filled up");
            continue;
        }
        refused_since.get_or_insert_with(Instant::now);
        assert_eq!(answer.status().as_u16(), 507);
        assert!(answer.headers().contains_key("retry-after"));
        let problem: serde_json::Value = answer.json().expect("a problem document");
        assert_eq!(problem["code"], "disk_nearly_full");
        std::thread::sleep(Duration::from_millis(200));
    }

    // Before it was full: the reserve is still there, nearly.
    let free = cluster.metric(node, "onward_raft_disk_free_bytes");
    assert!(free > 0.0, "{free}");
    assert_eq!(cluster.metric(node, "onward_raft_writes_refused"), 1.0);
    let status = cluster.status(node).expect("a status");
    assert_eq!(status["members"][0]["disk"]["nearly_full"], true, "{status}");
    assert!(
        status["alarms"].to_string().contains("writes are refused"),
        "{status}"
    );
    let shown = cluster.ok(&["cluster", "status"]);
    assert!(
        shown.contains("alarm") && shown.contains("nearly full"),
        "{shown}"
    );

    compacts_in_the_room_that_there_is(&cluster, &mut process, first);

    // Everything that was acknowledged is read, and may go.
    for number in 0..written {
        let read = cluster
            .http
            .get(url(number))
            .header("Accept", "application/octet-stream");
        let read = read.send().expect("the node answers");
        assert_eq!(read.status().as_u16(), 200);
        assert!(
            read.bytes().expect("a body") == value(number),
            "{number} is what was written"
        );
    }
    for number in 0..written {
        let deleted = cluster.http.delete(url(number)).send().expect("the node answers");
        assert!(deleted.status().is_success(), "{}", deleted.status());
    }
    eventually("there is room again", || put(written).status().is_success());
    eventually("and the status says so", || {
        let status = cluster.status(node).expect("a status");
        status["alarms"].as_array().is_some_and(Vec::is_empty)
    });
    assert!(
        process.0.try_wait().expect("a child").is_none(),
        "it was the same process all the time"
    );
}
