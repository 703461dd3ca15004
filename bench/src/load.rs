//! The load: a closed loop. Each client has one put under way at a time.

use crate::client::Client;
use crate::system::{Kind, System};
use anyhow::Result;
use bytes::Bytes;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// The size of a value, in bytes.
pub const VALUE_BYTES: usize = 256;

/// How to load a system.
#[derive(Debug, Clone, Copy)]
pub struct Load {
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
    /// Acknowledged writes a second, one number a run.
    pub rates: Vec<u64>,
    /// How long each acknowledged write took, in microseconds.
    latencies_us: Vec<u32>,
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
    }

    /// The median of the runs, in writes a second.
    pub fn rate(&self) -> u64 {
        let mut rates = self.rates.clone();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied().unwrap_or(0)
    }

    /// The latency that `thousandths` of all writes stay under, in ms.
    pub fn latency_ms(&self, thousandths: usize) -> f64 {
        let index =
            (self.latencies_us.len() * thousandths / 1000).min(self.latencies_us.len().saturating_sub(1));
        f64::from(self.latencies_us.get(index).copied().unwrap_or(0)) / 1000.0
    }

    /// What a write costs all servers together, in microseconds of CPU time.
    pub fn cpu_us_per_write(&self) -> u128 {
        self.cpu.as_micros() / (self.latencies_us.len() as u128).max(1)
    }
}

/// Loads the system once. `run` tells the keys of this run from those of others.
pub async fn run(system: &System, load: Load, run: u32) -> Result<Sample> {
    let nodes = system.endpoints.len();
    let mut clients: Vec<Client> = Vec::with_capacity(load.clients);
    for index in 0..load.clients {
        let shared = match system.kind {
            Kind::EtcdShared if index >= nodes => clients[index - nodes].share(),
            _ => None,
        };
        clients.push(match shared {
            Some(client) => client,
            None => Client::connect(system.kind, system.endpoints[index % nodes]).await?,
        });
    }
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.measured;
    let mut tasks = JoinSet::new();
    for (index, client) in clients.into_iter().enumerate() {
        tasks.spawn(put_until(
            client,
            format!("bench-{run}-{}-{index}", load.clients),
            begin,
            end,
        ));
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
    let rate = (latencies_us.len() as f64 / load.measured.as_secs_f64()) as u64;
    Ok(Sample {
        rates: vec![rate],
        latencies_us,
        cpu,
    })
}

/// Puts one key after the other; the latencies of those that were acknowledged between `begin` and `end`.
async fn put_until(mut client: Client, prefix: String, begin: Instant, end: Instant) -> Result<Vec<u32>> {
    let value = value();
    let mut latencies_us = Vec::new();
    for sequence in 0_u64.. {
        let started = Instant::now();
        if started >= end {
            break;
        }
        client.put(&format!("{prefix}-{sequence}"), &value).await?;
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
            cpu: Duration::from_millis(1),
        };
        let mut sample = Sample::default();
        for (rate, latencies) in [(30, 200..300), (10, 0..100), (20, 100..200)] {
            sample.add(run(rate, latencies));
        }
        assert_eq!(sample.rate(), 20);
        assert_eq!(sample.latency_ms(500), 0.150);
        assert_eq!(sample.latency_ms(990), 0.297);
        assert_eq!(sample.cpu_us_per_write(), 10);
    }
}
