//! What a node of ours counts, read from its `/metrics`.

use crate::client::Client;
use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const SYNC_BUCKET: &str = "onward_raft_log_sync_seconds_bucket{le=\"";

/// What stood there at a moment.
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Asks a node of ours.
    pub async fn of(client: &mut Client) -> Result<Self> {
        let page = client
            .send(Method::GET, "/metrics", "text/plain", Bytes::new())
            .await?;
        Ok(Metrics::parse(&String::from_utf8_lossy(&page)))
    }

    fn parse(page: &str) -> Self {
        let reading = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Metrics(
            page.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(reading)
                .collect(),
        )
    }

    /// One number, by its name with its labels.
    pub fn number(&self, name: &str) -> Result<f64> {
        let number = self.0.get(name).copied();
        number.with_context(|| format!("the node shows no `{name}`"))
    }

    /// What the log was asked to do so far.
    fn log(&self) -> Result<LogCount> {
        let buckets = self
            .0
            .iter()
            .filter_map(|(name, count)| {
                let bound = name.strip_prefix(SYNC_BUCKET)?.strip_suffix("\"}")?;
                Some((bound.parse::<f64>().ok()?, *count))
            })
            .map(|(bound_s, count)| ((bound_s * 1e6).round() as u64, count))
            .collect();
        Ok(LogCount {
            time: Duration::ZERO,
            syncs: self.number("onward_raft_log_syncs_total")?,
            entries: self.number("onward_raft_log_synced_entries_total")?,
            bytes: self.number("onward_raft_log_synced_bytes_total")?,
            seconds: self.number("onward_raft_log_sync_seconds_sum")?,
            buckets,
        })
    }

    /// What the log was asked to do from `before` to now.
    pub fn log_since(&self, before: &Metrics, time: Duration) -> Result<LogCount> {
        let (mut now, before) = (self.log()?, before.log()?);
        now.merge(&before, -1.0);
        Ok(LogCount { time, ..now })
    }
}

/// What a log was asked to do.
#[derive(Debug, Clone, Default)]
pub struct LogCount {
    time: Duration,
    syncs: f64,
    entries: f64,
    bytes: f64,
    /// All syncs together took so long.
    seconds: f64,
    /// By upper bound in microseconds: how many syncs took no longer.
    buckets: BTreeMap<u64, f64>,
}

impl LogCount {
    /// Adds what was counted elsewhere, or takes it off.
    fn merge(&mut self, other: &LogCount, sign: f64) {
        self.syncs += sign * other.syncs;
        self.entries += sign * other.entries;
        self.bytes += sign * other.bytes;
        self.seconds += sign * other.seconds;
        for (bound, count) in &other.buckets {
            *self.buckets.entry(*bound).or_default() += sign * count;
        }
    }

    /// Adds another run.
    pub fn add(&mut self, other: &LogCount) {
        self.time += other.time;
        self.merge(other, 1.0);
    }

    /// What it comes to; `None` where nothing was synced.
    pub fn work(&self) -> Option<LogWork> {
        if self.syncs < 1.0 {
            return None;
        }
        let under = |share: f64| {
            let found = self
                .buckets
                .iter()
                .find(|(_, count)| **count >= share * self.syncs);
            found.map(|(bound, _)| *bound)
        };
        Some(LogWork {
            syncs_per_second: (self.syncs / self.time.as_secs_f64().max(0.001)).round(),
            entries_per_sync: tenths(self.entries / self.syncs),
            bytes_per_sync: (self.bytes / self.syncs).round(),
            mean_us: (self.seconds / self.syncs * 1e6).round(),
            p99_under_us: under(0.99),
        })
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// How a log was synced under a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogWork {
    /// Syncs each second.
    pub syncs_per_second: f64,
    /// Entries made durable by each.
    pub entries_per_sync: f64,
    /// Bytes of entries made durable by each.
    pub bytes_per_sync: f64,
    /// How long one takes on average, with the write before it.
    pub mean_us: f64,
    /// The bound of the node's histogram that 99 % stay under; `None` above all bounds.
    pub p99_under_us: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(syncs: u32, entries: u32, fast: u32, sum: f64) -> Metrics {
        Metrics::parse(&format!(
            "# HELP onward_raft_log_syncs_total Syncs of the log.\n\
             onward_raft_log_syncs_total {syncs}\n\
             onward_raft_log_synced_entries_total {entries}\n\
             onward_raft_log_synced_bytes_total {}\n\
             onward_raft_log_sync_seconds_bucket{{le=\"0.0001\"}} {fast}\n\
             onward_raft_log_sync_seconds_bucket{{le=\"0.00025\"}} {syncs}\n\
             onward_raft_log_sync_seconds_bucket{{le=\"+Inf\"}} {syncs}\n\
             onward_raft_log_sync_seconds_sum {sum}\n",
            entries * 300,
        ))
    }

    #[test]
    fn what_a_log_does_is_what_its_counters_gain() {
        let (before, after) = (page(100, 200, 100, 1.0), page(300, 1200, 200, 1.04));
        let mut count = LogCount::default();
        count.add(
            &after
                .log_since(&before, Duration::from_secs(2))
                .expect("all is shown"),
        );
        let work = count.work().expect("there were syncs");
        let expected = LogWork {
            syncs_per_second: 100.0,
            entries_per_sync: 5.0,
            bytes_per_sync: 1500.0,
            mean_us: 200.0,
            p99_under_us: Some(250),
        };
        assert_eq!(work, expected);
        assert_eq!(LogCount::default().work(), None);
    }

    #[test]
    fn a_counter_that_is_not_there_is_missed() {
        assert!(Metrics::parse("up 1\n").log().is_err());
    }
}
