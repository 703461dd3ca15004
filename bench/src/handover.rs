//! Another node leads: how long writes stand still when leadership is handed over by request, when the leader is asked
//! to stop, and when it is killed; and, to hold it against, when nothing happens.

use crate::client::Client;
use crate::load;
use crate::system::{Kind, Programs, System};
use crate::values::Values;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const NODES: usize = 3;
const WRITERS: usize = 16;
/// How long a writer waits for one answer, and after how long it gives a write up.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
const WRITE_DEADLINE: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long a node may take to be back.
const BACK_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// How long it is calm before the next change.
const CALM: Duration = Duration::from_millis(500);

/// What happened how often, and what it cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handover {
    /// What happened.
    pub what: String,
    /// The longest time without an acknowledged write around each, in ms, in order of length.
    pub still_ms: Vec<u64>,
    /// Writes that did not succeed at a client that retries.
    pub failed: u64,
    /// The median must be below this.
    pub bar_ms: Option<u64>,
}

impl Handover {
    /// The median of the longest times without an acknowledged write, in ms.
    pub fn median_ms(&self) -> u64 {
        self.still_ms.get(self.still_ms.len() / 2).copied().unwrap_or(0)
    }
}

/// How another node comes to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nothing,
    Transfer,
    Signal(Signal),
}

/// What is measured: in which way, under which name, for how long it is watched, below what the median must stay.
const WAYS: [(Way, &str, u64, Option<u64>); 4] = [
    (Way::Nothing, "nothing", 1_000, None),
    (Way::Transfer, "`cluster transfer`", 1_000, Some(50)),
    (
        Way::Signal(Signal::SIGTERM),
        "SIGTERM of the leader",
        1_000,
        Some(50),
    ),
    (
        Way::Signal(Signal::SIGKILL),
        "SIGKILL of the leader",
        4_000,
        Some(1_000),
    ),
];

/// Measures all of it, each `rounds` times, on one cluster.
pub async fn measure(programs: &Programs, dir: &Path, rounds: u32) -> Result<Vec<Handover>> {
    let mut system = System::start(Kind::Onward, NODES, programs, dir).await?;
    let writes = Writes::start(&system.endpoints);
    let mut measured = Vec::new();
    for (way, what, watch_ms, bar_ms) in WAYS {
        let failed = writes.failed();
        let mut still_ms = Vec::new();
        for _ in 0..rounds {
            tokio::time::sleep(CALM).await;
            let began = Instant::now();
            let stopped = bring_about(way, &system).await?;
            tokio::time::sleep_until((began + Duration::from_millis(watch_ms)).into()).await;
            still_ms.push(writes.longest_gap(began, Instant::now()).as_millis() as u64);
            if let Some(index) = stopped {
                system.start_again(index, programs)?;
                wait_until_ready(system.endpoints[index]).await?;
            }
        }
        still_ms.sort_unstable();
        let handover = Handover {
            what: what.to_owned(),
            failed: writes.failed() - failed,
            bar_ms,
            still_ms,
        };
        crate::progress(format_args!(
            "{what}: writes stood still for {:?} ms",
            handover.still_ms
        ));
        measured.push(handover);
    }
    Ok(measured)
}

/// Has another node lead; says which one has ended over it.
async fn bring_about(way: Way, system: &System) -> Result<Option<usize>> {
    match way {
        Way::Nothing => Ok(None),
        Way::Transfer => {
            let mut client = Client::connect(Kind::Onward, system.endpoints[0]).await?;
            let body = Bytes::from_static(b"{}");
            let path = "/v1/cluster/transfer";
            client.send(Method::POST, path, "application/json", body).await?;
            Ok(None)
        }
        Way::Signal(signal) => {
            let leader = leader(&system.endpoints).await?;
            system.signal(leader, signal)?;
            Ok(Some(leader))
        }
    }
}

/// The place of the leader among the endpoints.
async fn leader(endpoints: &[SocketAddr]) -> Result<usize> {
    let deadline = Instant::now() + BACK_DEADLINE;
    loop {
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Ok(status) = get(*endpoint, "/v1/cluster").await
                && status["role"] == "leader"
            {
                return Ok(index);
            }
        }
        ensure!(Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(POLL).await;
    }
}

async fn wait_until_ready(endpoint: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + BACK_DEADLINE;
    while let Err(error) = get(endpoint, "/readyz").await {
        if Instant::now() > deadline {
            return Err(error.context("a node is not back in time"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn get(endpoint: SocketAddr, path: &str) -> Result<serde_json::Value> {
    let asked = async {
        let mut client = Client::connect(Kind::Onward, endpoint).await?;
        let body = client
            .send(Method::GET, path, "application/json", Bytes::new())
            .await?;
        serde_json::from_slice(&body).context("an answer that is not JSON")
    };
    tokio::time::timeout(ANSWER_DEADLINE, asked).await?
}

/// Writers that retry on the next node, and when their writes were acknowledged.
struct Writes {
    seen: Arc<Seen>,
    _writers: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    acknowledged_at: Mutex<Vec<Instant>>,
    failed: AtomicU64,
}

impl Writes {
    fn start(endpoints: &[SocketAddr]) -> Self {
        let seen = Arc::new(Seen::default());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(writer, endpoints.to_vec(), seen.clone()));
        }
        Writes {
            seen,
            _writers: writers,
        }
    }

    fn failed(&self) -> u64 {
        self.seen.failed.load(Relaxed)
    }

    /// The longest time without an acknowledgement between `from` and `to`. What was before is forgotten.
    fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let mut times = {
            let mut times = self
                .seen
                .acknowledged_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *times)
        };
        times.retain(|at| (from..to).contains(at));
        times.extend([from, to]);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }
}

async fn write(writer: usize, endpoints: Vec<SocketAddr>, seen: Arc<Seen>) {
    let values = Values::new(load::VALUE_BYTES);
    let mut place = writer;
    let mut client = None;
    for number in 0_u64.. {
        let value = values.of(number);
        let key = format!("handover-{writer}-{number}");
        let deadline = Instant::now() + WRITE_DEADLINE;
        loop {
            let endpoint = endpoints[place % endpoints.len()];
            let put = async {
                let mut connected = match client.take() {
                    Some(client) => client,
                    None => Client::connect(Kind::Onward, endpoint).await?,
                };
                connected.put(&key, &value).await?;
                anyhow::Ok(connected)
            };
            match tokio::time::timeout(ANSWER_DEADLINE, put).await {
                Ok(Ok(connected)) => {
                    client = Some(connected);
                    let mut times = seen
                        .acknowledged_at
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    times.push(Instant::now());
                    break;
                }
                _ if Instant::now() > deadline => {
                    seen.failed.fetch_add(1, Relaxed);
                    break;
                }
                _ => place += 1,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
