//! A node that lost its disk comes back by snapshot while writes go on: how fast, and what the writers see of it.

use crate::client::Client;
use crate::fill::{self, Bulk};
use crate::load;
use crate::metrics::Metrics;
use crate::system::{Kind, Programs, System};
use crate::values::Values;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hyper::Method;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Puts a second while it is measured: a part of what three nodes take, so that latencies are not those of a queue.
const PUTS_PER_SECOND: u64 = 2_000;
const WRITERS: usize = 16;
/// The state is stored in so many entries at least, more than lie between two snapshots: behind a snapshot the log is
/// purged, and a node that lacks what is gone needs the snapshot.
const ENTRIES: u64 = 220_000;
const LOADERS: u64 = 64;
/// How long a node may take to be back, and how often it is looked at.
const BACK_DEADLINE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);
const SETTLE: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rejoin {
    /// Pairs that were stored.
    pub keys: u64,
    /// How often a node lost its disk and came back.
    #[serde(default = "once")]
    pub returns: u32,
    /// What was sent of snapshots, for all returns together.
    pub snapshot_mib: f64,
    /// From the start of the wiped node until the snapshot was installed, all returns together.
    pub installed_after_ms: u64,
    /// From its start until it was a voter that has caught up, all returns together.
    pub voter_after_ms: u64,
    /// Puts that were due each second, before and meanwhile.
    pub puts_per_second: u64,
    /// Before each return, with all three nodes: half of all puts took less, 99 % took less.
    pub quiet_ms: (f64, f64),
    /// The same from its start until it was a voter, of all returns.
    pub meanwhile_ms: (f64, f64),
}

fn once() -> u32 {
    1
}

impl Rejoin {
    /// How fast it came back, from its start until the snapshot was installed.
    pub fn mib_per_second(&self) -> f64 {
        self.snapshot_mib * 1000.0 / self.installed_after_ms.max(1) as f64
    }

    /// The p99 meanwhile in terms of the quiet one.
    pub fn p99_ratio(&self) -> f64 {
        self.meanwhile_ms.1 / self.quiet_ms.1.max(0.001)
    }
}

/// Stores so many pairs in three nodes, then takes the disk of a follower away and has it come back, so often, after a
/// quiet time each. A return takes seconds, in which one wait for the disk is more than 1 % of all puts: hence several.
pub async fn measure(
    programs: &Programs,
    dir: &Path,
    keys: u64,
    returns: u32,
    quiet: Duration,
) -> Result<Rejoin> {
    let mut system = System::start(Kind::Onward, 3, programs, dir).await?;
    crate::progress(format_args!("rejoin: storing {keys} keys"));
    let values = Values::new(load::VALUE_BYTES);
    ensure!(keys >= ENTRIES, "so few keys are replayed from the log");
    let bulk = Bulk {
        puts: keys / ENTRIES,
        loaders: LOADERS,
    };
    fill::store(&system, 0..keys, &values, bulk).await?;
    system.settle(SETTLE).await?;
    let leader = leader(&system).await?;
    wait_for_purge(system.endpoints[leader]).await?;
    let lost = (leader + 1) % system.endpoints.len();
    let staying: Vec<SocketAddr> = (0..system.endpoints.len())
        .filter(|index| *index != lost)
        .map(|index| system.endpoints[index])
        .collect();
    let pace = Pace::start(&staying, &values).await?;
    let (mut before, mut meanwhile) = (Vec::new(), Vec::new());
    let mut rejoin = Rejoin {
        keys,
        returns,
        snapshot_mib: 0.0,
        installed_after_ms: 0,
        voter_after_ms: 0,
        puts_per_second: PUTS_PER_SECOND,
        quiet_ms: (0.0, 0.0),
        meanwhile_ms: (0.0, 0.0),
    };
    for _ in 0..returns {
        // What the last return left to do is no part of the quiet.
        tokio::time::sleep(quiet).await;
        let quiet_from = Instant::now();
        tokio::time::sleep(quiet).await;
        before.push(quiet_from..Instant::now());
        system.signal(lost, Signal::SIGKILL)?;
        system.replace(lost, leader, programs)?;
        let started = Instant::now();
        let (installed, bytes) = wait_for_snapshot(system.endpoints[lost], started).await?;
        system.peers[lost].1 = wait_for_vote(system.endpoints[leader], &system.peers[lost], started).await?;
        let voter = Instant::now();
        meanwhile.push(started..voter);
        rejoin.snapshot_mib += (bytes / f64::from(1 << 20) * 10.0).round() / 10.0;
        rejoin.installed_after_ms += (installed - started).as_millis() as u64;
        rejoin.voter_after_ms += (voter - started).as_millis() as u64;
    }
    let puts = pace.stop().await?;
    rejoin.quiet_ms = within(&puts, &before);
    rejoin.meanwhile_ms = within(&puts, &meanwhile);
    crate::progress(format_args!("{:.0} MiB/s: {rejoin:?}", rejoin.mib_per_second()));
    Ok(rejoin)
}

async fn leader(system: &System) -> Result<usize> {
    for (index, endpoint) in system.endpoints.iter().enumerate() {
        if Client::connect(Kind::Onward, *endpoint).await?.leads().await? {
            return Ok(index);
        }
    }
    bail!("nobody leads")
}

/// The snapshot is the only way to what the log no longer has.
async fn wait_for_purge(leader: SocketAddr) -> Result<()> {
    let mut client = Client::connect(Kind::Onward, leader).await?;
    let began = Instant::now();
    while Metrics::of(&mut client)
        .await?
        .number("onward_raft_first_log_revision")?
        <= 1.0
    {
        ensure!(began.elapsed() < SETTLE, "the log is not purged");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// When the node had installed a snapshot, and how long that is.
async fn wait_for_snapshot(node: SocketAddr, started: Instant) -> Result<(Instant, f64)> {
    loop {
        let asked = async {
            let mut client = Client::connect(Kind::Onward, node).await?;
            loop {
                let metrics = Metrics::of(&mut client).await?;
                if metrics.number("onward_raft_snapshots_installed_total")? >= 1.0 {
                    let bytes = metrics.number("onward_raft_snapshot_bytes")?;
                    return anyhow::Ok((Instant::now(), bytes));
                }
                ensure!(started.elapsed() < BACK_DEADLINE, "it got no snapshot");
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(BACK_DEADLINE, asked).await? {
            Ok(found) => return Ok(found),
            Err(error) if started.elapsed() > BACK_DEADLINE => {
                return Err(error.context("the wiped node is not back in time"));
            }
            // It does not listen yet.
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Another node at this peer's address takes its place as a voter once it has all that the leader has: its id.
async fn wait_for_vote(leader: SocketAddr, (address, lost): &(String, u64), started: Instant) -> Result<u64> {
    let mut client = Client::connect(Kind::Onward, leader).await?;
    loop {
        let body = client
            .send(Method::GET, "/v1/cluster", "application/json", Bytes::new())
            .await?;
        let status: serde_json::Value = serde_json::from_slice(&body)?;
        let members = status["members"].as_array().into_iter().flatten();
        let mut voters =
            members.filter(|member| member["peer_address"] == **address && member["voter"] == true);
        if let Some(id) = voters.find_map(|member| member["id"].as_u64().filter(|id| id != lost)) {
            return Ok(id);
        }
        ensure!(
            started.elapsed() < BACK_DEADLINE,
            "the wiped node does not vote in time"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Puts on a timetable, whatever becomes of those before.
struct Pace {
    stop: Arc<AtomicBool>,
    writers: JoinSet<Result<Vec<(Instant, Duration)>>>,
}

impl Pace {
    async fn start(endpoints: &[SocketAddr], values: &Values) -> Result<Pace> {
        let stop = Arc::new(AtomicBool::new(false));
        let tickets = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        let begin = Instant::now();
        for writer in 0..WRITERS {
            let client = Client::connect(Kind::Onward, endpoints[writer % endpoints.len()]).await?;
            let (stop, tickets, values) = (stop.clone(), tickets.clone(), values.clone());
            writers.spawn(async move { write(client, begin, &stop, &tickets, &values).await });
        }
        Ok(Pace { stop, writers })
    }

    /// All puts: when each was due, and how long it took from then.
    async fn stop(mut self) -> Result<Vec<(Instant, Duration)>> {
        self.stop.store(true, Relaxed);
        let mut puts = Vec::new();
        while let Some(written) = self.writers.join_next().await {
            puts.extend(written?.context("a write failed while the node came back")?);
        }
        Ok(puts)
    }
}

async fn write(
    mut client: Client,
    begin: Instant,
    stop: &AtomicBool,
    tickets: &AtomicU64,
    values: &Values,
) -> Result<Vec<(Instant, Duration)>> {
    let mut puts = Vec::new();
    while !stop.load(Relaxed) {
        let ticket = tickets.fetch_add(1, Relaxed);
        let mut due = begin + Duration::from_micros(ticket * 1_000_000 / PUTS_PER_SECOND);
        if due > Instant::now() {
            sleep_until(due).await;
            // A timer wakes a little late, which is not the server's doing.
            due = Instant::now();
        }
        client
            .put(&format!("rejoin-{ticket}"), &values.of(ticket))
            .await?;
        puts.push((due, due.elapsed()));
    }
    Ok(puts)
}

/// The median and the p99 of what was due in one of these times, in ms.
fn within(puts: &[(Instant, Duration)], times: &[Range<Instant>]) -> (f64, f64) {
    let mut took: Vec<u64> = puts
        .iter()
        .filter(|(due, _)| times.iter().any(|time| time.contains(due)))
        .map(|(_, took)| took.as_micros() as u64)
        .collect();
    took.sort_unstable();
    let under = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or(0) as f64 / 1000.0;
    (under(50), under(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_due_in_time_counts() {
        let from = Instant::now();
        let at = |ms| from + Duration::from_millis(ms);
        let put = |due_ms, took_ms| (at(due_ms), Duration::from_millis(took_ms));
        let mut puts: Vec<_> = (0..100).map(|place| put(place, place + 1)).collect();
        puts.push(put(500, 9_000));
        assert_eq!(within(&puts, &[from..at(100)]), (51.0, 100.0));
        assert_eq!(within(&puts, &[from..at(50), at(50)..at(100)]), (51.0, 100.0));
        assert_eq!(within(&puts, &[at(100)..at(100)]), (0.0, 0.0));
    }
}
