//! Load: writers that retry, as every client should, and remember what was acknowledged.

use super::Cluster;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often a write is tried, each time on the next node, before it counts as failed.
const TRIES: usize = 400;
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// Writers that put numbered keys, each under one id until it is acknowledged, on any node that answers.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<std::thread::JoinHandle<Written>>,
    acknowledged_at: Arc<Mutex<Vec<Instant>>>,
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Written {
    /// Keys, each with itself as its value.
    pub acknowledged: Vec<String>,
    /// Keys that were tried [`TRIES`] times in vain, or were given up when the load was stopped.
    pub failed: Vec<String>,
}

impl Load {
    /// Starts to write below `load/`.
    pub fn start(cluster: &Cluster, writers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged_at = Arc::new(Mutex::new(Vec::new()));
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.http.clone()).collect();
        let writers = (0..writers)
            .map(|writer| {
                let (stop, urls, http) = (Arc::clone(&stop), urls.clone(), cluster.http.clone());
                let times = Arc::clone(&acknowledged_at);
                std::thread::spawn(move || write(writer, &stop, &urls, &http, &times))
            })
            .collect();
        Load {
            stop,
            writers,
            acknowledged_at,
        }
    }

    /// When writes were acknowledged so far.
    pub fn acknowledged_at(&self) -> Vec<Instant> {
        let mut times = self.acknowledged_at.lock().expect("no writer panicked").clone();
        times.sort_unstable();
        times
    }

    /// Stops writing; a write that is under way is seen through.
    pub fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Written::default();
        for writer in self.writers {
            let written = writer.join().expect("a writer");
            all.acknowledged.extend(written.acknowledged);
            all.failed.extend(written.failed);
        }
        all
    }
}

fn write(
    writer: usize,
    stop: &AtomicBool,
    urls: &[String],
    http: &reqwest::blocking::Client,
    times: &Mutex<Vec<Instant>>,
) -> Written {
    let mut written = Written::default();
    let mut turn = writer;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("load/{writer}/{number}");
        let id = Uuid::now_v7();
        // The same id each time, on the next node each time: done once however often it is sent.
        let done = (0..TRIES).any(|_| {
            turn += 1;
            let url = format!("{}/v1/kv/{key}", urls[turn % urls.len()]);
            let put = http.put(url).header("Idempotency-Key", id.to_string());
            let put = put
                .header("Content-Type", "application/octet-stream")
                .body(key.clone());
            let done = put.send().is_ok_and(|answer| answer.status().is_success());
            if !done {
                std::thread::sleep(RETRY_PAUSE);
            }
            done
        });
        if done {
            times.lock().expect("no writer panicked").push(Instant::now());
            written.acknowledged.push(key);
        } else {
            written.failed.push(key);
        }
    }
    written
}

/// All acknowledged keys are there, put exactly once, with their own value.
pub fn check_acknowledged(found: &BTreeMap<String, (u64, String)>, acknowledged: &[String]) {
    assert!(!acknowledged.is_empty(), "the load did something");
    for key in acknowledged {
        assert_eq!(found.get(key), Some(&(1, key.clone())), "{key} was acknowledged");
    }
}
