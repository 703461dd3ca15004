//! The load: a closed loop. Each client has one request under way at a time.

use crate::client::Client;
use crate::metrics::{LogCount, LogWork, Metrics};
use crate::system::{Kind, System};
use crate::values::{Values, spread, stored_key};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The size of a value where none is told, in bytes.
pub const VALUE_BYTES: usize = 256;

/// How many keys are there to be read.
const READ_KEYS: u64 = 10_000;
/// How many puts a batch holds.
pub const BATCH_PUTS: u64 = 100;

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A durable put each.
    Put,
    /// A transaction of 100 puts each.
    Batch,
    /// A linearizable read each, of the leader.
    ReadLeader,
    /// A linearizable read each, of the followers.
    ReadFollowers,
}

impl Work {
    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Work::Put | Work::Batch => "puts",
            Work::ReadLeader | Work::ReadFollowers => "reads",
        }
    }

    /// How much of it one request is.
    fn units(self) -> u64 {
        if self == Work::Batch { BATCH_PUTS } else { 1 }
    }
}

/// How to load a system.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// What clients ask for.
    pub work: Work,
    /// Clients at a time, spread evenly over the nodes.
    pub clients: usize,
    /// The size of each value, in bytes.
    pub value_bytes: usize,
    /// Which keys are put.
    pub keys: Keys,
    /// Ahead of the measurement.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
}

/// Which keys are put.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// New ones, counted by each client; this number tells one run from the others.
    New(u32),
    /// Any of so many that are stored.
    Stored(u64),
}

/// What one or more runs came to.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// What was answered in a second, one number a run: puts, however many a request holds, or reads.
    rates: Vec<u64>,
    /// How long each request took, in microseconds.
    latencies_us: Vec<u32>,
    /// Puts or reads that were answered.
    units: u64,
    /// CPU time of all servers in the measured time.
    cpu: Duration,
    /// What the leader's log did for it, of ours.
    log: LogCount,
}

/// What runs came to, for the report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What was answered in a second, one number a run.
    pub rates: Vec<u64>,
    /// Half of all requests took less, in ms.
    pub p50_ms: f64,
    /// 99 % of all requests took less, in ms.
    pub p99_ms: f64,
    /// What one put or read costs all servers together, in microseconds of CPU time.
    pub cpu_us: f64,
    /// What the leader's log did for it; of ours alone, and of puts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogWork>,
}

impl Summary {
    /// The median of the runs.
    pub fn rate(&self) -> u64 {
        let mut rates = self.rates.clone();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied().unwrap_or(0)
    }
}

impl Sample {
    /// Adds another run.
    pub fn add(&mut self, other: Sample) {
        self.rates.extend(other.rates);
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable();
        self.cpu += other.cpu;
        self.units += other.units;
        self.log.add(&other.log);
    }

    /// What it comes to.
    pub fn summary(&self) -> Summary {
        Summary {
            rates: self.rates.clone(),
            p50_ms: self.latency_ms(500),
            p99_ms: self.latency_ms(990),
            cpu_us: (self.cpu_us() * 10.0).round() / 10.0,
            log: self.log.work(),
        }
    }

    /// The latency that `thousandths` of all requests stay under, in ms.
    fn latency_ms(&self, thousandths: usize) -> f64 {
        let index =
            (self.latencies_us.len() * thousandths / 1000).min(self.latencies_us.len().saturating_sub(1));
        f64::from(self.latencies_us.get(index).copied().unwrap_or(0)) / 1000.0
    }

    /// What a put or a read costs all servers together, in microseconds of CPU time.
    fn cpu_us(&self) -> f64 {
        self.cpu.as_micros() as f64 / self.units.max(1) as f64
    }
}

/// Loads the system once.
pub async fn run(system: &System, load: Load) -> Result<Sample> {
    let endpoints = endpoints(system, load.work).await?;
    if load.work.unit() == "reads" {
        fill(system).await?;
    }
    let clients = connect(system.kind, &endpoints, load.clients).await?;
    let mut log = Log::of(system, load.work).await?;
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.measured;
    let values = Values::new(load.value_bytes);
    let mut tasks = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let name = Name::of(&load, index);
        let worker = Worker {
            client,
            work: load.work,
            name,
            values: values.clone(),
            // Clients read in an order of their own, and write values of their own.
            number: spread(index as u64 + 1) >> 8,
        };
        tasks.spawn(worker.work(begin, end));
    }
    sleep_until(begin).await;
    let cpu_before = system.cpu_time()?;
    let log_before = log.read().await?;
    sleep_until(end).await;
    let cpu = system.cpu_time()?.saturating_sub(cpu_before);
    let log_after = log.read().await?;
    let mut latencies_us = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies_us.extend(done??);
    }
    latencies_us.sort_unstable();
    let units = latencies_us.len() as u64 * load.work.units();
    let rate = (units as f64 / load.measured.as_secs_f64()) as u64;
    let log = match (log_before, log_after) {
        (Some(before), Some(after)) => after.log_since(&before, load.measured)?,
        _ => LogCount::default(),
    };
    Ok(Sample {
        rates: vec![rate],
        latencies_us,
        units,
        cpu,
        log,
    })
}

async fn connect(kind: Kind, endpoints: &[SocketAddr], count: usize) -> Result<Vec<Client>> {
    let nodes = endpoints.len();
    let mut clients: Vec<Client> = Vec::with_capacity(count);
    for index in 0..count {
        let shared = index.checked_sub(nodes).and_then(|first| clients[first].share());
        clients.push(match shared {
            Some(client) => client,
            None => Client::connect(kind, endpoints[index % nodes]).await?,
        });
    }
    Ok(clients)
}

/// The log of the leader of ours, whose counters are read where puts are measured.
struct Log(Option<Client>);

impl Log {
    async fn of(system: &System, work: Work) -> Result<Self> {
        if !system.kind.is_ours() || work.unit() != "puts" {
            return Ok(Log(None));
        }
        for endpoint in &system.endpoints {
            let mut client = Client::connect(system.kind, *endpoint).await?;
            if client.leads().await? {
                return Ok(Log(Some(client)));
            }
        }
        Ok(Log(None))
    }

    async fn read(&mut self) -> Result<Option<Metrics>> {
        match &mut self.0 {
            Some(client) => Metrics::of(client).await.map(Some),
            None => Ok(None),
        }
    }
}

/// What a client calls its keys.
enum Name {
    New(String),
    Stored(u64),
}

impl Name {
    fn of(load: &Load, client: usize) -> Name {
        match load.keys {
            Keys::New(run) => Name::New(format!("bench-{run}-{:?}-{}-{client}", load.work, load.clients)),
            Keys::Stored(count) => Name::Stored(count),
        }
    }

    /// The key of a client's request; `number` differs from request to request of all clients.
    fn key(&self, sequence: u64, number: u64) -> String {
        match self {
            Name::New(prefix) => format!("{prefix}-{sequence}"),
            Name::Stored(count) => stored_key((spread(number) >> 16) % count),
        }
    }
}

/// The nodes that are asked.
async fn endpoints(system: &System, work: Work) -> Result<Vec<SocketAddr>> {
    let of_leader = match work {
        Work::Put | Work::Batch => return Ok(system.endpoints.clone()),
        Work::ReadLeader => true,
        Work::ReadFollowers => false,
    };
    let mut wanted = Vec::new();
    for endpoint in &system.endpoints {
        let mut client = Client::connect(system.kind, *endpoint).await?;
        if client.leads().await? == of_leader {
            wanted.push(*endpoint);
        }
    }
    ensure!(!wanted.is_empty(), "no node to read from");
    Ok(wanted)
}

fn read_key(number: u64) -> String {
    format!("read-{:05}", number % READ_KEYS)
}

/// Writes what is read.
async fn fill(system: &System) -> Result<()> {
    let endpoint = system.endpoints.first().context("a system without nodes")?;
    let mut client = Client::connect(system.kind, *endpoint).await?;
    let values = Values::new(VALUE_BYTES);
    for first in (0..READ_KEYS).step_by(BATCH_PUTS as usize) {
        let numbers = first..first + BATCH_PUTS;
        let pairs: Vec<(String, Bytes)> = numbers
            .map(|number| (read_key(number), values.of(number)))
            .collect();
        client.put_all(&pairs).await?;
    }
    Ok(())
}

/// One client at work.
struct Worker {
    client: Client,
    work: Work,
    name: Name,
    values: Values,
    /// Where its numbers begin.
    number: u64,
}

impl Worker {
    /// Asks for one thing after the other; the latencies of what was answered between `begin` and `end`.
    async fn work(mut self, begin: Instant, end: Instant) -> Result<Vec<u32>> {
        let mut latencies_us = Vec::new();
        for sequence in 0_u64.. {
            let started = Instant::now();
            if started >= end {
                break;
            }
            self.ask(sequence).await?;
            let done = Instant::now();
            if done >= begin && done < end {
                latencies_us.push(u32::try_from((done - started).as_micros()).unwrap_or(u32::MAX));
            }
        }
        Ok(latencies_us)
    }

    async fn ask(&mut self, sequence: u64) -> Result<()> {
        match self.work {
            Work::Put => {
                let (key, value) = self.pair(sequence);
                self.client.put(&key, &value).await
            }
            Work::Batch => {
                let puts = sequence * BATCH_PUTS..(sequence + 1) * BATCH_PUTS;
                let pairs: Vec<_> = puts.map(|put| self.pair(put)).collect();
                self.client.put_all(&pairs).await
            }
            Work::ReadLeader | Work::ReadFollowers => {
                let stride = 1 + 2 * (self.number % 1000);
                self.client.get(&read_key(sequence.wrapping_mul(stride))).await
            }
        }
    }

    fn pair(&self, sequence: u64) -> (String, Bytes) {
        let number = self.number.wrapping_add(sequence);
        (self.name.key(sequence, number), self.values.of(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_medians_are_of_all_runs() {
        let run = |rate, latencies: std::ops::Range<u32>| Sample {
            rates: vec![rate],
            latencies_us: latencies.collect(),
            units: 100,
            cpu: Duration::from_millis(1),
            log: LogCount::default(),
        };
        let mut sample = Sample::default();
        for (rate, latencies) in [(30, 200..300), (10, 0..100), (20, 100..200)] {
            sample.add(run(rate, latencies));
        }
        let summary = sample.summary();
        assert_eq!(summary.rate(), 20);
        assert_eq!(
            (summary.p50_ms, summary.p99_ms, summary.cpu_us),
            (0.150, 0.297, 10.0)
        );
        assert_eq!(summary.log, None);
    }
}
