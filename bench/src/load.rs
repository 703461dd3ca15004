//! The load: a closed loop. Each client has one request under way at a time.

use crate::client::Client;
use crate::system::{Kind, System};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The size of a value, in bytes.
pub const VALUE_BYTES: usize = 256;

/// How many keys are there to be read.
const READ_KEYS: u64 = 10_000;
/// How many puts a batch holds.
pub const BATCH_PUTS: u64 = 100;

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
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
    /// Ahead of the measurement.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
}

/// What one or more runs came to.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// What was answered in a second, one number a run: puts, however many a request holds, or reads.
    pub rates: Vec<u64>,
    /// How long each request took, in microseconds.
    latencies_us: Vec<u32>,
    /// Puts or reads that were answered.
    units: u64,
    /// CPU time of all servers in the measured time.
    cpu: Duration,
}

impl Sample {
    /// Adds another run.
    pub fn add(&mut self, other: Sample) {
        self.rates.extend(other.rates);
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable();
        self.cpu += other.cpu;
        self.units += other.units;
    }

    /// The median of the runs.
    pub fn rate(&self) -> u64 {
        let mut rates = self.rates.clone();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied().unwrap_or(0)
    }

    /// The latency that `thousandths` of all requests stay under, in ms.
    pub fn latency_ms(&self, thousandths: usize) -> f64 {
        let index =
            (self.latencies_us.len() * thousandths / 1000).min(self.latencies_us.len().saturating_sub(1));
        f64::from(self.latencies_us.get(index).copied().unwrap_or(0)) / 1000.0
    }

    /// What a put or a read costs all servers together, in microseconds of CPU time.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_micros() as f64 / self.units.max(1) as f64
    }
}

/// Loads the system once. `run` tells the keys of this run from those of others.
pub async fn run(system: &System, load: Load, run: u32) -> Result<Sample> {
    let endpoints = endpoints(system, load.work).await?;
    let nodes = endpoints.len();
    if load.work.unit() == "reads" {
        fill(system).await?;
    }
    let mut clients: Vec<Client> = Vec::with_capacity(load.clients);
    for index in 0..load.clients {
        let shared = match system.kind {
            Kind::EtcdShared if index >= nodes => clients[index - nodes].share(),
            _ => None,
        };
        clients.push(match shared {
            Some(client) => client,
            None => Client::connect(system.kind, endpoints[index % nodes]).await?,
        });
    }
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.measured;
    let mut tasks = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        let name = format!("bench-{run}-{:?}-{}-{index}", load.work, load.clients);
        tasks.spawn(work_until(client, load.work, name, begin, end));
    }
    sleep_until(begin).await;
    let cpu_before = system.cpu_time()?;
    sleep_until(end).await;
    let cpu = system.cpu_time()?.saturating_sub(cpu_before);
    let mut latencies_us = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies_us.extend(done??);
    }
    latencies_us.sort_unstable();
    let units = latencies_us.len() as u64 * load.work.units();
    let rate = (units as f64 / load.measured.as_secs_f64()) as u64;
    Ok(Sample {
        rates: vec![rate],
        latencies_us,
        units,
        cpu,
    })
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
    let value = value();
    for first in (0..READ_KEYS).step_by(BATCH_PUTS as usize) {
        let keys: Vec<String> = (first..first + BATCH_PUTS).map(read_key).collect();
        client.put_all(&keys, &value).await?;
    }
    Ok(())
}

/// Asks for one thing after the other; the latencies of what was answered between `begin` and `end`.
async fn work_until(
    mut client: Client,
    work: Work,
    prefix: String,
    begin: Instant,
    end: Instant,
) -> Result<Vec<u32>> {
    let value = value();
    // Every client reads in an order of its own.
    let stride = 1 + 2 * (prefix.bytes().map(u64::from).sum::<u64>() % 1000);
    let mut latencies_us = Vec::new();
    for sequence in 0_u64.. {
        let started = Instant::now();
        if started >= end {
            break;
        }
        match work {
            Work::Put => client.put(&format!("{prefix}-{sequence}"), &value).await?,
            Work::Batch => {
                let keys: Vec<String> = (0..BATCH_PUTS)
                    .map(|put| format!("{prefix}-{sequence}-{put}"))
                    .collect();
                client.put_all(&keys, &value).await?;
            }
            Work::ReadLeader | Work::ReadFollowers => client.get(&read_key(sequence * stride)).await?,
        }
        let done = Instant::now();
        if done >= begin && done < end {
            latencies_us.push(u32::try_from((done - started).as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok(latencies_us)
}

/// A value that does not compress to nothing.
pub fn value() -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Letters, so that every protocol may carry it as text.
        b'a' + ((state >> 33) % 26) as u8
    };
    (0..VALUE_BYTES).map(|_| next()).collect()
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
        };
        let mut sample = Sample::default();
        for (rate, latencies) in [(30, 200..300), (10, 0..100), (20, 100..200)] {
            sample.add(run(rate, latencies));
        }
        assert_eq!(sample.rate(), 20);
        assert_eq!(sample.latency_ms(500), 0.150);
        assert_eq!(sample.latency_ms(990), 0.297);
        assert_eq!(sample.cpu_us(), 10.0);
    }
}
