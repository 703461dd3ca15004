//! More than a node takes: what is over the limit is turned away at once, says when to come back, and is not done.

use crate::support::{Cluster, PATIENCE};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// A node that takes two proposals at a time, asked by many at once.
#[test]
fn what_is_over_the_limit_is_turned_away_and_not_done() {
    let cluster = Cluster::start(1);
    let node = cluster.node(1);
    let file = node.dir.join("onward.toml");
    let mut table: toml::Table = std::fs::read_to_string(&file)
        .expect("a configuration")
        .parse()
        .expect("TOML");
    table["peer"]
        .as_table_mut()
        .expect("a table")
        .insert("proposals_max".to_owned(), 2.into());
    std::fs::write(&file, toml::to_string(&table).expect("TOML")).expect("writable");
    cluster.kill(1);
    cluster.wait_for_files(1);
    let _revived = cluster.revive(1);

    let (turned_away, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let until = Instant::now() + PATIENCE;
    let acknowledged: Vec<(String, bool)> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|client| {
                let (cluster, turned_away, done) = (&cluster, &turned_away, &done);
                scope.spawn(move || {
                    let mut puts = Vec::new();
                    for number in 0.. {
                        if done.load(Ordering::Relaxed) || Instant::now() > until {
                            break;
                        }
                        let key = format!("overload/{client}/{number}");
                        let put = cluster.http.put(format!("{}/v1/kv/{key}", cluster.node(1).http));
                        let put = put.header("Content-Type", "application/octet-stream").body("x");
                        let answer = put.send().expect("an overloaded node answers");
                        let status = answer.status().as_u16();
                        if status == 429 {
                            let wait = answer
                                .headers()
                                .get("retry-after")
                                .expect("it says when to come back");
                            assert!(
                                wait.to_str().is_ok_and(|wait| wait.parse::<u64>().is_ok()),
                                "{wait:?}"
                            );
                            let problem: serde_json::Value = answer.json().expect("a problem document");
                            assert_eq!(problem["code"], "overloaded");
                            if turned_away.fetch_add(1, Ordering::Relaxed) > 100 {
                                done.store(true, Ordering::Relaxed);
                            }
                        } else {
                            assert_eq!(status, 200, "{}", answer.text().unwrap_or_default());
                        }
                        puts.push((key, status == 200));
                    }
                    puts
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect()
    });
    assert!(
        turned_away.into_inner() > 100,
        "32 clients at once are more than two proposals"
    );
    let there = cluster.pairs(1, "overload/", "linearizable");
    for (key, acknowledged) in acknowledged {
        assert_eq!(
            there.contains_key(&key),
            acknowledged,
            "{key}: what was turned away is not done, what was done is there"
        );
    }
}
