//! What was acknowledged is there, once, whoever dies.

use crate::support::load::{Load, check_acknowledged};
use crate::support::{Cluster, Node, PATIENCE, eventually, signal};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn killing_the_leader_loses_nothing_and_does_nothing_twice() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 8);
    let leader = cluster.leader();
    eventually("the load runs", || {
        cluster.pairs(leader, "load/", "local").len() > 100
    });
    cluster.kill(leader);
    let survivors = cluster.others(leader);
    let before = cluster.pairs(survivors[0].id, "load/", "local").len();
    eventually("writes go on without the leader", || {
        cluster.pairs(survivors[0].id, "load/", "local").len() > before + 200
    });
    let revived = cluster.revive(leader);
    let acknowledged = load.stop().acknowledged;
    for node in &cluster.nodes {
        check_acknowledged(&cluster.pairs(node.id, "load/", "linearizable"), &acknowledged);
    }
    drop(revived);
}

#[test]
fn a_new_leader_says_that_the_one_before_it_is_gone() {
    let cluster = Cluster::start(3);
    cluster.ok(&["kv", "put", "site/name", "north"]);
    let dead = cluster.leader();
    cluster.kill(dead);
    let mut led = None;
    eventually("another one leads", || {
        led = cluster.others(dead).into_iter().find_map(|node| {
            let status = cluster.status(node)?;
            (status["role"] == "leader").then_some(node)
        });
        led.is_some()
    });
    let leader = led.expect("found above");
    let silent = format!("onward_raft_peer_last_contact_ms{{node=\"{dead}\"}}");
    let shown = cluster.metrics(leader);
    assert!(
        shown.contains_key(&silent),
        "it is there before it is an alarm: {shown:?}"
    );

    // It never answered this leader, which knows nothing of it.
    let alarm = format!("node {dead} has not answered for");
    let mut status = serde_json::Value::Null;
    eventually("the dead one is an alarm", || {
        status = cluster.status(leader).unwrap_or_default();
        status["alarms"].to_string().contains(&alarm)
    });
    for member in status["members"].as_array().expect("members") {
        if member["id"] == dead {
            assert!(member["last_contact_ms"].as_u64() > Some(5_000), "{member}");
            assert!(member["lag"].is_null() && member["matched"].is_null(), "{member}");
        } else {
            assert!(
                member["lag"].as_u64() < Some(3) && member["lag"].is_u64(),
                "{member}"
            );
        }
    }
    let shown = cluster.ok(&["cluster", "status"]);
    assert!(shown.contains(&alarm), "{shown}");
    let revived = cluster.revive(dead);
    eventually("it is no alarm any more", || {
        let status = cluster.status(leader).unwrap_or_default();
        status["alarms"].as_array().is_some_and(Vec::is_empty)
    });
    drop(revived);
}

#[test]
fn a_power_cut_of_all_nodes_loses_nothing() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 8);
    let leader = cluster.leader();
    eventually("the load runs", || {
        cluster.pairs(leader, "load/", "local").len() > 300
    });
    let nodes = cluster.nodes.clone();
    for node in &nodes {
        cluster.kill(node.id);
    }
    let acknowledged = load.stop().acknowledged;
    let cluster = cluster.restart();
    for node in &cluster.nodes {
        check_acknowledged(&cluster.pairs(node.id, "load/", "linearizable"), &acknowledged);
    }
}

#[test]
fn an_orderly_restart_keeps_everything() {
    let cluster = Cluster::start(3);
    cluster.ok(&["kv", "put", "site/name", "north"]);
    let cluster = cluster.restart();
    assert_eq!(cluster.ok(&["kv", "get", "site/name"]).trim_end(), "north");
    for node in &cluster.nodes {
        let log = std::fs::read_to_string(node.dir.join("onward.log")).expect("a log");
        assert!(log.contains("node stopped"), "{log}");
        assert!(!log.contains("ERROR"), "nothing went wrong: {log}");
    }
}

#[test]
fn a_minority_cannot_write_and_says_so() {
    let cluster = Cluster::start(3);
    cluster.ok(&["kv", "put", "before", "1"]);
    let survivor = cluster.others(cluster.leader())[0].clone();
    eventually("the survivor has it", || {
        cluster.pairs(survivor.id, "before", "local").len() == 1
    });
    for node in cluster.others(survivor.id) {
        cluster.kill(node.id);
    }
    let put = cluster.http.put(format!("{}/v1/kv/after", survivor.http));
    let answer = put
        .header("Content-Type", "application/octet-stream")
        .body("2")
        .send()
        .expect("it answers");
    match answer.status().as_u16() {
        503 => assert!(
            answer.headers().contains_key("retry-after"),
            "it says when to come back"
        ),
        // It was in the log before the majority was lost.
        status => assert_eq!(status, 504),
    }
    let read = cluster
        .http
        .get(format!("{}/v1/kv/before", survivor.http))
        .send()
        .expect("it answers");
    assert_eq!(
        read.status().as_u16(),
        503,
        "a linearizable read needs a majority"
    );
    assert_eq!(
        cluster.pairs(survivor.id, "before", "local").len(),
        1,
        "a local read does not"
    );
    let log = std::fs::metadata(survivor.dir.join("onward.log"))
        .expect("a log")
        .len();
    assert!(
        log < 200_000,
        "a node that is left alone does not fill its disk with {log} bytes of log"
    );
}

/// Asks for the key `x`; the answer is not waited for.
fn ask_for_x(node: &Node) -> TcpStream {
    let address = node.http.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets a timeout");
    let request = format!(
        "GET /v1/kv/x HTTP/1.1\r\nHost: {address}\r\nAccept: application/octet-stream\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("asks");
    stream
}

#[test]
fn a_leader_that_stood_still_answers_no_read_with_what_was_before() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 6);
    for round in 1..=10 {
        let old = cluster.node(cluster.leader());
        signal(old.pid, Signal::SIGSTOP);
        // What its followers answered to it is waiting for it meanwhile.
        let value = round.to_string();
        eventually("the others go on without it", || {
            cluster.others(old.id).iter().any(|node| {
                let put = cluster.http.put(format!("{}/v1/kv/x", node.http));
                let put = put.header("Content-Type", "application/octet-stream");
                let answer = put.body(value.clone()).send();
                answer.is_ok_and(|answer| answer.status() == 200)
            })
        });
        let asked: Vec<_> = (0..32).map(|_| ask_for_x(old)).collect();
        signal(old.pid, Signal::SIGCONT);
        for mut stream in asked {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            if answer.starts_with("HTTP/1.1 200") {
                let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
                assert_eq!(body, value, "a read that began after it was acknowledged");
            }
        }
    }
    let acknowledged = load.stop().acknowledged;
    check_acknowledged(&cluster.pairs(1, "load/", "linearizable"), &acknowledged);
}

#[test]
fn a_wiped_follower_comes_back_by_snapshot_in_its_place() {
    let cluster = Cluster::start(3);
    let load = Load::start(&cluster, 8);
    let leader = cluster.leader();
    eventually("the load runs", || {
        cluster.pairs(leader, "load/", "local").len() > 500
    });
    let lost = cluster.others(leader)[0].clone();
    cluster.kill(lost.id);
    let acknowledged = load.stop().acknowledged;
    let joined = cluster.replace(&lost, cluster.node(leader));
    // The new member answers at the address of the lost one, from its own replica.
    eventually("the new member has everything", || {
        let found = cluster.pairs(lost.id, "load/", "local");
        acknowledged.iter().all(|key| found.contains_key(key))
    });
    check_acknowledged(&cluster.pairs(lost.id, "load/", "linearizable"), &acknowledged);
    eventually("it is a voter in the place of the lost one", || {
        let members = cluster.status(cluster.node(leader)).expect("status")["members"].clone();
        let members = members.as_array().expect("members");
        members.len() == 3
            && members
                .iter()
                .all(|member| member["id"].as_u64() != Some(lost.id) && member["voter"] == true)
    });
    drop(joined);
}
