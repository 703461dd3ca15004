//! What can be done to a node is done to it, and shows.
//!
//! The binary is the one beside this program, which a build of the workspace puts there, or what `ONWARD_BINARY` names.

use super::*;
use std::time::Instant;

/// How long anything may take that has to happen. It bounds a hang and measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(POLL).await;
    }
}

fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("ONWARD_BINARY") {
        return named.into();
    }
    let me = std::env::current_exe().expect("this program has a path");
    let built = me
        .ancestors()
        .nth(2)
        .expect("target/debug/deps/...")
        .join("onward");
    assert!(
        built.exists(),
        "these tests run the real binary: `cargo build -p onward` first, or name one with ONWARD_BINARY"
    );
    built
}

/// A cluster in a directory that goes away with it; `None` where the machine does not allow it, which is said.
pub(crate) async fn cluster(
    isolation: Isolation,
    nodes: u64,
    fittings: Fittings,
) -> Option<(tempfile::TempDir, Cluster)> {
    let (best, obstacle) = Isolation::best();
    if isolation == Isolation::Namespaces && best != isolation {
        eprintln!("skipped: {}", obstacle.unwrap_or_default());
        return None;
    }
    if fittings.clocks
        && let Err(error) = clock::library()
    {
        eprintln!("skipped: {error}");
        return None;
    }
    if fittings.disks.is_some()
        && let Err(reason) = disk::usable()
    {
        eprintln!("skipped: {reason}");
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        binary: binary(),
        other_binary: Some(binary()),
        nodes,
        dir: dir.path().join("nodes"),
        isolation,
        fittings,
    };
    Some((dir, Cluster::start(options).await.expect("starts")))
}

/// A node that does not lead.
async fn follower(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await.expect("all serve");
    let mut others = cluster.ids().into_iter().filter(|id| *id != leader);
    others.next().expect("more than one")
}

async fn kill_pause_stop_and_start(cluster: &Cluster) {
    let leader = cluster.leader().await.expect("all serve");
    cluster.pause(leader).await.expect("pauses");
    assert!(!cluster.answers(leader).await, "a paused node does not answer");
    eventually("the others go on", async || {
        cluster.leader().await.is_some_and(|other| other != leader)
    })
    .await;
    cluster.resume(leader).await.expect("resumes");
    eventually("it answers again", async || cluster.answers(leader).await).await;

    let follower = follower(cluster).await;
    cluster.kill(follower).await.expect("kills");
    assert!(!cluster.is_up(follower).await.expect("asks"));
    assert!(!cluster.answers(follower).await);
    assert!(cluster.kill(follower).await.is_err(), "it is dead already");
    assert!(cluster.fallen().await.expect("asks").is_empty(), "it was told to");
    cluster.start_node(follower).await.expect("starts");
    assert!(cluster.start_node(follower).await.is_err(), "it runs already");

    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
    cluster.stop_node(follower).await.expect("stops");
    cluster.start_node(follower).await.expect("starts");
    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
    cluster.kill_at_once(&cluster.ids()).await.expect("kills all");
    for id in cluster.ids() {
        assert!(!cluster.is_up(id).await.expect("asks"));
        cluster.start_node(id).await.expect("starts");
    }
    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
}

#[tokio::test]
async fn nodes_in_namespaces_are_killed_paused_stopped_and_started() {
    if let Some((_dir, cluster)) = cluster(Isolation::Namespaces, 3, Fittings::default()).await {
        kill_pause_stop_and_start(&cluster).await;
    }
}

#[tokio::test]
async fn nodes_on_loopback_are_killed_paused_stopped_and_started() {
    let (_dir, cluster) = cluster(Isolation::Loopback, 3, Fittings::default())
        .await
        .expect("loopback needs nothing");
    kill_pause_stop_and_start(&cluster).await;
}

#[tokio::test]
async fn a_clock_that_is_set_shows_in_what_the_node_answers() {
    let fittings = Fittings {
        clocks: true,
        ..Fittings::default()
    };
    let Some((_dir, cluster)) = cluster(Isolation::Loopback, 3, fittings).await else {
        return;
    };
    let follower = follower(&cluster).await;
    let skew = Skew {
        ahead_ms: 3_600_000,
        rate: 1.0,
    };
    cluster.set_clock(follower, skew).await.expect("sets");
    let ahead = cluster.clock_ahead_ms(follower).await.expect("follows");
    assert!((3_590_000..3_610_000).contains(&ahead), "{ahead}");
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let healthz = format!("{}/healthz", cluster.node(follower).http);
    eventually("the node dates its answers an hour ahead", async || {
        let answer = http.get(&healthz).send().await.expect("answers");
        let date = answer.headers()["date"].to_str().expect("text").to_owned();
        let date = chrono::DateTime::parse_from_rfc2822(&date).expect("a date");
        let ahead = date.to_utc() - chrono::Utc::now();
        (3_590..3_610).contains(&ahead.num_seconds())
    })
    .await;
    cluster.set_clock(follower, Skew::default()).await.expect("sets");
    let ahead = cluster.clock_ahead_ms(follower).await.expect("follows");
    assert!(ahead.abs() < 10_000, "{ahead}");
    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
}

#[tokio::test]
async fn a_wiped_node_is_replaced_by_a_new_member() {
    let Some((_dir, cluster)) = cluster(Isolation::Namespaces, 3, Fittings::default()).await else {
        return;
    };
    let follower = follower(&cluster).await;
    assert!(cluster.replace(follower).await.is_err(), "it runs");
    cluster.kill(follower).await.expect("kills");
    cluster.replace(follower).await.expect("replaces");
    eventually("the new member votes and the old one is gone", async || {
        cluster.is_settled(follower).await
    })
    .await;
    eventually("it is one of three, under a new id", async || {
        let status = cluster.status(follower).await.expect("answers");
        status.node > 3 && status.members.len() == 3
    })
    .await;
    // It comes back by its own identity.
    cluster.kill(follower).await.expect("kills");
    cluster.start_node(follower).await.expect("starts");
    cluster.wait_until_ready(PATIENCE).await.expect("all serve");
    assert!(cluster.is_settled(follower).await);
}

/// Bytes that do not compress.
fn noise(count: usize) -> Vec<u8> {
    let ids = std::iter::repeat_with(uuid::Uuid::new_v4);
    ids.flat_map(uuid::Uuid::into_bytes).take(count).collect()
}

/// A process that is killed with unread bytes ends its streams by a packet that is sent once. Where that is lost, nothing
/// ever tells the other end, unless it asks.
#[tokio::test]
async fn a_follower_that_dies_unheard_while_it_takes_a_snapshot_is_caught_up() {
    let fittings = Fittings {
        snapshots: true,
        disks: Some(1),
        ..Fittings::default()
    };
    let Some((_dir, cluster)) = cluster(Isolation::Namespaces, 3, fittings).await else {
        return;
    };
    let leader = cluster.leader().await.expect("all serve");
    let follower = follower(&cluster).await;
    let disk = cluster.disk(follower).await.expect("it is fitted with one");
    let network = cluster.network();
    for (from, to) in [(leader, follower), (follower, leader)] {
        network.cut(from, to).await.expect("cuts");
    }
    let lacks = cluster.status(follower).await.expect("answers").applied;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut written = 0;
    eventually("the log that it lacks is gone", async || {
        written += 1;
        let put = http
            .put(format!("{}/v1/kv/key-{written}", cluster.node(leader).http))
            .header("content-type", "application/octet-stream")
            .body(noise(256));
        let put = put.send().await.expect("answers");
        assert!(put.status().is_success(), "{}", put.status());
        let status = cluster.status(leader).await.expect("answers");
        status.first_log > lacks + 1
    })
    .await;

    let faults = disk.faults();
    disk.set(Faults {
        write_delay: Duration::from_secs(3),
        ..faults
    });
    for (from, to) in [(leader, follower), (follower, leader)] {
        network.mend(from, to).await.expect("mends");
    }
    let log = cluster.node(follower).dir.join("onward.log");
    eventually("a snapshot is on its way", async || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("receiving a snapshot"))
    })
    .await;
    // Until all of it has arrived: more than is read at once, and no more than the socket holds beside that.
    tokio::time::sleep(Duration::from_secs(1)).await;
    network.cut(follower, leader).await.expect("cuts");
    disk.set(faults);
    cluster.kill(follower).await.expect("kills");
    network.mend(follower, leader).await.expect("mends");

    let wanted = cluster.status(leader).await.expect("answers").applied;
    cluster.start_node(follower).await.expect("starts");
    eventually("it has what the others have", async || {
        let status = cluster.status(follower).await;
        status.is_ok_and(|status| status.applied >= wanted)
    })
    .await;
}
