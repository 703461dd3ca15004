//! More than a cluster takes: what is over the limit is turned away at once, says when to come back, and is not done;
//! what was acknowledged is there. How much of the peak is left is for `make bench`, which measures it.

use crate::support::{Cluster, PATIENCE, Process};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Starts a node anew that takes so many proposals at a time.
fn limit(cluster: &Cluster, id: u64, proposals_max: i64) -> Process {
    let file = cluster.node(id).dir.join("onward.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let mut table: toml::Table = text.parse().expect("TOML");
    let peer = table["peer"].as_table_mut().expect("a table");
    peer.insert("proposals_max".to_owned(), proposals_max.into());
    std::fs::write(&file, toml::to_string(&table).expect("TOML")).expect("writable");
    cluster.kill(id);
    cluster.revive(id)
}

/// What became of a write, as its client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    NotDone,
    Unknown,
}

/// One write: a key that nobody else writes, to one of the nodes.
fn put(cluster: &Cluster, client: usize, key: &str) -> Told {
    let node = &cluster.nodes[client % cluster.nodes.len()];
    let put = cluster.http.put(format!("{}/v1/kv/{key}", node.http));
    let put = put.header("Content-Type", "application/octet-stream").body("x");
    let answer = put.send().expect("an overloaded node answers");
    let status = answer.status().as_u16();
    match status {
        200 => Told::Done,
        504 => Told::Unknown,
        429 | 503 => {
            let wait = answer
                .headers()
                .get("retry-after")
                .expect("it says when to come back");
            let seconds = wait.to_str().ok().and_then(|wait| wait.parse::<u64>().ok());
            assert!(seconds.is_some(), "{wait:?}");
            let problem: serde_json::Value = answer.json().expect("a problem document");
            assert!(status == 503 || problem["code"] == "overloaded", "{problem}");
            Told::NotDone
        }
        _ => panic!("{status}: {}", answer.text().unwrap_or_default()),
    }
}

/// Many clients at once, until so many writes were turned away and as many were done; then all of it is looked at.
fn press(cluster: &Cluster, clients: usize, enough: usize) {
    let (turned_away, acknowledged) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    let until = Instant::now() + PATIENCE;
    let puts: Vec<(String, Told)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..clients)
            .map(|client| {
                let (turned_away, acknowledged, done) = (&turned_away, &acknowledged, &done);
                scope.spawn(move || {
                    let mut puts = Vec::new();
                    for number in 0.. {
                        if done.load(Ordering::Relaxed) || Instant::now() > until {
                            break;
                        }
                        let key = format!("overload/{client}/{number}");
                        let told = put(cluster, client, &key);
                        match told {
                            Told::Done => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Told::NotDone => turned_away.fetch_add(1, Ordering::Relaxed),
                            Told::Unknown => 0,
                        };
                        let both = [turned_away, acknowledged];
                        if both.iter().all(|count| count.load(Ordering::Relaxed) > enough) {
                            done.store(true, Ordering::Relaxed);
                        }
                        puts.push((key, told));
                    }
                    puts
                })
            })
            .collect();
        let writers = writers.into_iter();
        writers
            .flat_map(|writer| writer.join().expect("a client"))
            .collect()
    });
    assert!(
        done.into_inner(),
        "{turned_away:?} turned away, {acknowledged:?} done"
    );
    let there = cluster.pairs(1, "overload/", "linearizable");
    for (key, told) in puts {
        match told {
            Told::Done => assert!(
                there.contains_key(&key),
                "{key} was acknowledged and is not there"
            ),
            Told::NotDone => assert!(!there.contains_key(&key), "{key} was turned away and was done"),
            Told::Unknown => {}
        }
    }
}

/// A node that takes two proposals at a time, asked by many at once.
#[test]
fn what_is_over_the_limit_is_turned_away_and_not_done() {
    let cluster = Cluster::start(1);
    let _revived = limit(&cluster, 1, 2);
    press(&cluster, 32, 100);
}

/// Three nodes that take six at a time each, asked four times that, through all of them.
#[test]
fn at_four_times_the_load_every_acknowledged_write_is_there() {
    let cluster = Cluster::start(3);
    let _limited: Vec<Process> = (1..=3).map(|id| limit(&cluster, id, 6)).collect();
    press(&cluster, 72, 500);
}
