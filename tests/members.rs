//! Members come, go and hand over while clients write, and nothing that was acknowledged is lost, whoever dies.

use crate::support::load::{Load, check_acknowledged};
use crate::support::{Cluster, Node, ONWARD, PATIENCE, Process, eventually, signal};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The members as the leader knows them: id, whether it votes.
fn members(cluster: &Cluster) -> Vec<(u64, bool)> {
    let status = leader_status(cluster);
    let members = status["members"].as_array().expect("members");
    let voter = |member: &Value| member["voter"] == true;
    members
        .iter()
        .map(|member| (member["id"].as_u64().expect("an id"), voter(member)))
        .collect()
}

fn voters(cluster: &Cluster) -> Vec<u64> {
    let members = members(cluster).into_iter();
    members.filter(|(_, voter)| *voter).map(|(id, _)| id).collect()
}

/// What a node says that leads.
fn leader_status(cluster: &Cluster) -> Value {
    let mut found = None;
    eventually("somebody leads", || {
        let mut said = cluster.nodes.iter().filter_map(|node| cluster.status(node));
        found = said.find(|status| status["role"] == "leader");
        found.is_some()
    });
    found.expect("found above")
}

/// The id under which a node takes part, once it says so.
fn id_of(cluster: &Cluster, node: &Node) -> u64 {
    let mut id = None;
    eventually("the node says who it is", || {
        id = cluster.status(node).and_then(|status| status["node"].as_u64());
        id.is_some()
    });
    id.expect("found above")
}

fn until_it_votes(cluster: &Cluster, id: u64) {
    eventually("the node votes, and nothing else changes", || {
        let status = leader_status(cluster);
        status["under_way"].is_null() && voters(cluster).contains(&id)
    });
}

/// Runs a command that must be refused, and returns why.
fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.cli(arguments);
    let why = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {why}");
    why
}

/// Whether a process has ended; one that `onward dev` has not waited for yet has, too.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

fn log_of(node: &Node) -> String {
    std::fs::read_to_string(node.dir.join("onward.log")).unwrap_or_default()
}

/// Waits until a node that was let go of has ended by itself and said why, and sees that it does not come back.
fn stays_away(cluster: &Cluster, node: &Node) {
    eventually("the node ends by itself", || has_ended(node.pid));
    let log = log_of(node);
    assert!(
        log.contains("this node was removed from the cluster and stops"),
        "it says why: {log}"
    );
    let again = cluster.spawn(node, &[]).ended();
    assert_eq!(again.code(), Some(1), "it does not start again");
    let log = log_of(node);
    let last = log.lines().last().expect("it says why");
    assert!(
        last.contains("was removed from cluster `dev`") && last.contains("--join"),
        "{last}"
    );
}

#[test]
fn three_become_five_and_three_again_under_load() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 8);
    let (prepared, uninvited) = (cluster.newcomer(4), cluster.newcomer(5));
    // One is let in before it runs, by a command that waits for it; the other just comes, and waits for its turn.
    let adding = Command::new(ONWARD)
        .env("ONWARD_SERVER", cluster.servers())
        .args(["cluster", "add", &prepared.peer])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the CLI runs");
    eventually("it is waited for", || {
        leader_status(&cluster)["under_way"]["step"] == "awaited"
    });
    assert!(
        cluster
            .ok(&["cluster", "status"])
            .contains("may start, and was not seen yet")
    );
    let through = cluster.nodes[0].peer.clone();
    let five = cluster.spawn(&uninvited, &["--join", &through]);
    eventually("the other waits for its turn", || {
        log_of(&uninvited).contains("waiting to join")
    });
    let four = cluster.spawn(&prepared, &["--join", &through]);
    let added = adding.wait_with_output().expect("the CLI ends");
    let said = String::from_utf8(added.stderr).expect("UTF-8");
    assert!(added.status.success(), "{said}");
    assert!(
        said.contains("--join 127.0.0.1:") && said.contains("node 4 votes; "),
        "{said}"
    );
    assert_eq!(
        id_of(&cluster, &prepared),
        4,
        "it got the place that was kept for it"
    );
    eventually("all five vote", || voters(&cluster).len() == 5);
    until_it_votes(&cluster, id_of(&cluster, &uninvited));

    // The leader goes, and another one of the first three.
    let leader = cluster.leader();
    cluster.nodes.extend([prepared, uninvited]);
    let follower = (1..=3).find(|id| *id != leader).expect("there are three");
    let leader = if leader > 3 { 1 + follower % 3 } else { leader };
    for gone in [leader, follower] {
        cluster.ok(&["cluster", "remove", &gone.to_string(), "--yes"]);
        assert!(!members(&cluster).iter().any(|(id, _)| *id == gone));
        stays_away(&cluster, cluster.node(gone));
        // Asked for again, it is still so; one that never was there never was.
        cluster.ok(&["cluster", "remove", &gone.to_string(), "--yes"]);
    }
    let never = refused(&cluster, &["cluster", "remove", "77", "--yes"]);
    assert!(never.contains("node 77 is not a member"), "{never}");
    assert_eq!(voters(&cluster).len(), 3);
    let written = load.stop();
    assert_eq!(
        written.failed,
        Vec::<String>::new(),
        "no write fails at a client that retries"
    );
    cluster
        .nodes
        .retain(|node| node.id != leader && node.id != follower);
    for node in &cluster.nodes {
        check_acknowledged(
            &cluster.pairs(node.id, "load/", "linearizable"),
            &written.acknowledged,
        );
    }
    drop((four, five));
}

#[test]
fn what_would_cost_the_majority_or_overlap_is_refused_and_says_what_to_do() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [one, other] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    let (one, other) = (one.clone(), other.clone());
    let taken = refused(&cluster, &["cluster", "add", &one.peer]);
    assert!(
        taken.contains(&format!("onward cluster replace {} {}", one.id, one.peer)),
        "{taken}"
    );
    let unknown = refused(&cluster, &["cluster", "replace", "9", "127.0.0.1:9"]);
    assert!(unknown.contains("node 9 is not a member"), "{unknown}");
    let malformed = cluster.cli(&["cluster", "add", "127.0.0.1"]);
    assert_eq!(malformed.status.code(), Some(2));

    // One at a time; what is under way can be given up.
    let awaited = cluster.ok(&["cluster", "add", "127.0.0.1:9", "--no-wait", "-o", "json"]);
    let awaited: Value = serde_json::from_str(&awaited).expect("JSON");
    let id = awaited["node"].to_string();
    let again = cluster.ok(&["cluster", "add", "127.0.0.1:9", "--no-wait", "-o", "json"]);
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again["node"], awaited["node"], "asking again is harmless");
    let status = leader_status(&cluster);
    let mut members_seen = status["members"].as_array().expect("members").iter();
    let place = members_seen.find(|member| member["id"] == awaited["node"]);
    let place = place.expect("a place is kept");
    assert!(
        place["last_contact_ms"].is_null() && place["lag"].is_null(),
        "nobody waits for an answer from where nobody is yet: {place}"
    );
    let give_up = format!("onward cluster remove {id}");
    for overlapping in [
        &["cluster", "add", "127.0.0.1:10", "--no-wait"][..],
        &["cluster", "remove", &one.id.to_string(), "--yes"],
    ] {
        let busy = refused(&cluster, overlapping);
        assert!(
            busy.contains("one at a time") && busy.contains(&give_up),
            "{busy}"
        );
    }
    let learner = refused(&cluster, &["cluster", "transfer", "--to", &id]);
    assert!(learner.contains("has no vote yet"), "{learner}");
    cluster.ok(&["cluster", "remove", &id, "--yes"]);
    assert_eq!(members(&cluster).len(), 3);

    // With one of three gone, the other two are needed.
    cluster.kill(one.id);
    let needed = refused(&cluster, &["cluster", "remove", &other.id.to_string(), "--yes"]);
    assert!(
        needed.contains("no majority would be left") && needed.contains("Start them again"),
        "{needed}"
    );
    let silent = refused(&cluster, &["cluster", "transfer", "--to", &one.id.to_string()]);
    assert!(
        silent.contains(&format!("node {} does not answer", one.id)),
        "{silent}"
    );
    let problem = cluster
        .http
        .delete(format!("{}/v1/cluster/members/{}", other.http, other.id));
    let problem: Value = problem.send().expect("answers").json().expect("JSON");
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&409.into(), &"member_quorum_lost".into())
    );
    // The dead one may go, and then there are two, of which none may fail.
    cluster.ok(&["cluster", "remove", &one.id.to_string(), "--yes"]);
    assert_eq!(voters(&cluster).len(), 2);

    let alone = Cluster::start(1);
    let last = refused(&alone, &["cluster", "remove", "1", "--yes"]);
    assert!(
        last.contains("only voter") && last.contains("add another node first"),
        "{last}"
    );
    let nobody = refused(&alone, &["cluster", "transfer"]);
    assert!(nobody.contains("no other voter answers"), "{nobody}");
}

#[test]
fn a_node_that_is_replaced_where_it_lives_goes_in_one_step() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    let leader = cluster.leader();
    let newcomer = cluster.newcomer(4);
    let gone = leader.to_string();
    let prepared = cluster.ok(&["cluster", "replace", &gone, &newcomer.peer, "--no-wait"]);
    assert!(prepared.contains(&format!("--replaces {gone}")), "{prepared}");
    let through = cluster.others(leader)[0].peer.clone();
    let joined = cluster.spawn(&newcomer, &["--join", &through, "--replaces", &gone]);
    until_it_votes_without(&cluster, leader);
    let id = id_of(&cluster, &newcomer);
    assert!(voters(&cluster).contains(&id));
    stays_away(&cluster, cluster.node(leader));
    let written = load.stop();
    assert_eq!(written.failed, Vec::<String>::new());
    for node in cluster.others(leader) {
        check_acknowledged(
            &cluster.pairs(node.id, "load/", "linearizable"),
            &written.acknowledged,
        );
    }
    drop(joined);
}

/// Waits until `gone` is no member, three others vote, and nothing is under way.
fn until_it_votes_without(cluster: &Cluster, gone: u64) {
    eventually("another has taken its place", || {
        let status = leader_status(cluster);
        let voters = voters(cluster);
        status["under_way"].is_null() && voters.len() == 3 && !voters.contains(&gone)
    });
}

/// Stops a node's clockwork as soon as it knows who it is: in the middle of its way to a vote.
fn catch_joining(node: &Node, joining: &Process) {
    let identity = node.dir.join("data").join("identity");
    let deadline = Instant::now() + PATIENCE;
    while !identity.exists() {
        assert!(Instant::now() < deadline, "the node is not let in");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(joining.id(), Signal::SIGSTOP);
}

#[test]
fn a_leader_that_is_killed_in_the_middle_of_an_addition_and_of_a_replacement_stops_neither() {
    let mut cluster = Cluster::start(3);
    let load = Load::start(&cluster, 4);
    let through = cluster.others(cluster.leader())[0].peer.clone();
    let (added, replacement) = (cluster.newcomer(4), cluster.newcomer(5));
    let adding = cluster.spawn(&added, &["--join", &through]);
    catch_joining(&added, &adding);
    let first = cluster.leader();
    let [second, lost] = cluster.others(first)[..] else {
        panic!("three nodes")
    };
    let (second, lost) = (second.id, lost.id);
    cluster.kill(first);
    signal(adding.id(), Signal::SIGCONT);
    until_it_votes(&cluster, id_of(&cluster, &added));
    let revived = cluster.revive(first);

    // The same for a replacement, under a leader that was there from the beginning.
    let (through, gone) = (cluster.node(first).peer.clone(), lost.to_string());
    let replacing = cluster.spawn(&replacement, &["--join", &through, "--replaces", &gone]);
    catch_joining(&replacement, &replacing);
    eventually("the second leads", || {
        cluster.ok(&["cluster", "transfer", "--to", &second.to_string()]);
        leader_status(&cluster)["node"] == second
    });
    cluster.kill(second);
    signal(replacing.id(), Signal::SIGCONT);
    let id = id_of(&cluster, &replacement);
    // Whoever leads now: the old ones may be gone or dead.
    cluster.nodes.extend([added, replacement]);
    until_it_votes(&cluster, id);
    assert!(!members(&cluster).iter().any(|(id, _)| *id == lost));
    let written = load.stop();
    assert_eq!(written.failed, Vec::<String>::new());
    check_acknowledged(
        &cluster.pairs(first, "load/", "linearizable"),
        &written.acknowledged,
    );
    drop((adding, revived, replacing));
}

#[test]
fn a_node_that_is_given_up_on_its_way_stops_and_one_that_lost_its_disk_takes_its_own_place() {
    let mut cluster = Cluster::start(3);
    let through = cluster.nodes[0].peer.clone();
    let (newcomer, joining, id) = (4..14)
        .find_map(|turn| {
            let newcomer = cluster.newcomer(turn);
            let mut joining = cluster.spawn(&newcomer, &["--join", &through]);
            catch_joining(&newcomer, &joining);
            if let Some(id) = leader_status(&cluster)["under_way"]["node"].as_u64() {
                return Some((newcomer, joining, id));
            }
            // It was faster than this test, and has its vote already: another one is let in.
            signal(joining.id(), Signal::SIGCONT);
            let id = id_of(&cluster, &newcomer);
            until_it_votes(&cluster, id);
            cluster.ok(&["cluster", "remove", &id.to_string(), "--yes"]);
            joining.ended();
            None
        })
        .expect("one of ten is caught on its way");
    cluster.ok(&["cluster", "remove", &id.to_string(), "--yes"]);
    signal(joining.id(), Signal::SIGCONT);
    stays_away(
        &cluster,
        &Node {
            pid: joining.id(),
            ..newcomer
        },
    );
    assert_eq!(voters(&cluster).len(), 3);

    // A follower without its disk, where somebody has prepared its replacement: it is not told whom it replaces.
    let leader = cluster.leader();
    let lost = cluster.others(leader)[0].clone();
    cluster.kill(lost.id);
    let through = cluster.node(leader).peer.clone();
    std::fs::remove_dir_all(lost.dir.join("data")).expect("the lost directory");
    let refused = cluster.spawn(&lost, &["--join", &through]).ended();
    assert_eq!(refused.code(), Some(1));
    assert!(log_of(&lost).contains(&format!("onward cluster replace {} {}", lost.id, lost.peer)));
    cluster.ok(&[
        "cluster",
        "replace",
        &lost.id.to_string(),
        &lost.peer,
        "--no-wait",
    ]);
    let again = cluster.spawn(&lost, &["--join", &through]);
    cluster.nodes.retain(|node| node.id != lost.id);
    until_it_votes_without(&cluster, lost.id);
    assert!(voters(&cluster).contains(&id_of(&cluster, &lost)));
    drop((joining, again));
}

/// A configuration with which a member that lacks more than a few entries is sent a snapshot.
fn keeping_little_log(config: &str) -> String {
    let config = config.replace("snapshot_entries = 200000", "snapshot_entries = 100");
    config.replace("snapshot_keep_entries = 250000", "snapshot_keep_entries = 10")
}

/// Writes so many MiB that a snapshot takes a while: a value of one MiB again and again.
fn fill(cluster: &Cluster, through: u64, value: &[u8], times: usize) {
    for number in 0..times {
        let url = format!("{}/v1/kv/bulk/{number}", cluster.node(through).http);
        let put = cluster
            .http
            .put(url)
            .header("Content-Type", "application/octet-stream");
        let answer = put.body(value.to_vec()).send().expect("answers");
        assert!(answer.status().is_success());
    }
}

#[test]
fn a_voter_is_not_removed_while_another_lacks_so_much_that_writes_would_wait_for_it() {
    let cluster = Cluster::start(3).restart_with(|config| {
        keeping_little_log(config).replace("snapshot_mib_per_second = 128", "snapshot_mib_per_second = 1")
    });
    let leader = cluster.leader();
    let [late, other] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    cluster.kill(late.id);
    // At one MiB a second it lasts far longer than the leader waits: these bytes do not compress.
    let bytes = std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes());
    let value: Vec<u8> = bytes.take(1 << 16).flatten().collect();
    fill(&cluster, leader, &value, 12);
    fill_until_the_log_is_cut(&cluster);
    let revived = cluster.spawn(late, &[]);
    eventually("it answers the leader, and gets the snapshot", || incoming(late));
    let remove = ["cluster", "remove", &other.id.to_string(), "--yes"];
    let behind = |why: &str| {
        why.contains(&format!("node {} is ", late.id))
            && why.contains("behind")
            && why.contains("wait for it")
    };
    let needed = refused(&cluster, &remove);
    assert!(behind(&needed) && !needed.contains("does not answer"), "{needed}");
    assert!(incoming(late), "it was refused because of the snapshot");
    cluster.ok(&["kv", "put", "meanwhile", "written"]);
    assert_eq!(voters(&cluster).len(), 3);
    // Nothing else keeps the other from going, and nothing waits once it may.
    eventually("it has caught up, and the other goes", || {
        let asked = cluster.cli(&remove);
        let why = String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.success() || behind(&why), "{why}");
        asked.status.success()
    });
    assert_eq!(voters(&cluster).len(), 2);
    cluster.ok(&["kv", "put", "afterwards", "written"]);
    drop(revived);
}

#[test]
fn a_node_that_is_killed_in_the_middle_of_its_snapshot_goes_on_when_it_is_back() {
    let cluster = Cluster::start(3).restart_with(keeping_little_log);
    // So many entries that the log alone is not enough.
    fill(&cluster, 1, "v".repeat(1 << 20).as_bytes(), 48);
    let written = fill_until_the_log_is_cut(&cluster);
    let (joiner, id) = (4..9)
        .find_map(|turn| killed_in_its_snapshot(&cluster, turn))
        .expect("one of five is killed in the middle of its snapshot");
    // The flags that it was started with first are not needed any more.
    let again = cluster.spawn(&joiner, &[]);
    until_it_votes(&cluster, id);
    assert_eq!(id_of(&cluster, &joiner), id, "it is the same node");
    assert!(!incoming(&joiner), "what was left of the first snapshot is gone");
    check_acknowledged(&cluster.pairs_at(&joiner, "load/", "linearizable"), &written);
    drop(again);
}

/// Whether a snapshot comes in at a node, and is not whole.
fn incoming(node: &Node) -> bool {
    let entries = std::fs::read_dir(node.dir.join("data").join("snap"));
    let of_one = |name: std::ffi::OsString| name.to_string_lossy().starts_with("incoming-");
    entries.is_ok_and(|entries| entries.flatten().any(|entry| of_one(entry.file_name())))
}

/// Lets a node join and kills it while a snapshot comes in; its id, or nothing where it was faster than this test.
fn killed_in_its_snapshot(cluster: &Cluster, turn: u64) -> Option<(Node, u64)> {
    let joiner = cluster.newcomer(turn);
    let joining = cluster.spawn(&joiner, &["--join", &cluster.nodes[0].peer]);
    let deadline = Instant::now() + PATIENCE;
    while !incoming(&joiner) {
        assert!(Instant::now() < deadline, "no snapshot comes in");
        std::thread::sleep(Duration::from_micros(200));
    }
    joining.kill();
    let (id, voter) = *members(cluster).last().expect("members");
    if incoming(&joiner) {
        assert!(!voter, "node {id} votes before it has the state");
        return Some((joiner, id));
    }
    let again = cluster.spawn(&joiner, &[]);
    until_it_votes(cluster, id);
    cluster.ok(&["cluster", "remove", &id.to_string(), "--yes"]);
    drop(again);
    None
}

/// Writes until no member keeps the log from its beginning.
fn fill_until_the_log_is_cut(cluster: &Cluster) -> Vec<String> {
    let load = Load::start(cluster, 8);
    eventually("the log is cut", || {
        leader_status(cluster)["first_log"]
            .as_u64()
            .is_some_and(|first| first > 60)
    });
    load.stop().acknowledged
}

/// The longest time without an acknowledged write in the second after `began`, and when it was.
fn longest_gap(load: &Load, began: Instant) -> (Duration, Duration) {
    let watched = Duration::from_secs(1);
    std::thread::sleep((began + watched).saturating_duration_since(Instant::now()));
    let times = load.acknowledged_at();
    let before = times.iter().rev().find(|at| **at <= began).copied();
    let during = times
        .into_iter()
        .filter(|at| *at > began && *at < began + watched);
    let times: Vec<Instant> = before.into_iter().chain(during).collect();
    let gaps = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0], pair[0].saturating_duration_since(began)));
    gaps.max().unwrap_or((watched, Duration::ZERO))
}

/// How long writes stand still is printed (`cargo nextest run --no-capture`), and decides nothing.
#[test]
fn a_leader_hands_over_without_a_failed_write() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 8);
    eventually("the load runs", || load.acknowledged_at().len() > 200);
    let quiet = [0; 2].map(|_| longest_gap(&load, Instant::now()));
    let mut transferred = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader();
        let heir = cluster.others(leader)[round % 2].id;
        let began = Instant::now();
        let said = cluster.ok(&["cluster", "transfer", "--to", &heir.to_string(), "-o", "json"]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["leader"], heir);
        transferred.push(longest_gap(&load, began));
    }
    let mut stopped = Vec::new();
    let mut revived = Vec::new();
    for _ in 0..3 {
        // A node that has just come back makes its clients wait until it knows the leader.
        let before = load.acknowledged_at().len();
        eventually("writes go on", || load.acknowledged_at().len() > before + 200);
        let leader = cluster.leader();
        let pid = revived
            .iter()
            .rev()
            .find(|(id, _): &&(u64, Process)| *id == leader)
            .map_or(cluster.node(leader).pid, |(_, process)| process.id());
        let began = Instant::now();
        signal(pid, Signal::SIGTERM);
        eventually("the leader stops", || has_ended(pid));
        stopped.push(longest_gap(&load, began));
        assert_ne!(cluster.leader(), leader);
        revived.push((leader, cluster.revive(leader)));
    }
    let written = load.stop();
    for (what, mut gaps) in [
        ("nothing happens", quiet.to_vec()),
        ("transfer", transferred),
        ("SIGTERM", stopped),
    ] {
        gaps.sort_unstable();
        eprintln!("{what}: writes stood still for at most (and when): {gaps:?}");
    }
    assert_eq!(
        written.failed,
        Vec::<String>::new(),
        "no write fails at a client that retries"
    );
    for node in &cluster.nodes {
        check_acknowledged(
            &cluster.pairs(node.id, "load/", "linearizable"),
            &written.acknowledged,
        );
    }
}
