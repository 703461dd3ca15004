//! What a running node counts, and what `/metrics` shows of it. Nothing here is state, and nothing here reads a clock:
//! whoever counts a time has measured it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that `/metrics` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Prometheus name, `onward_` first and the unit last.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Label name and value pairs.
    pub labels: Vec<(&'static str, String)>,
    /// How it moves, and where it stands: whole units, in the unit that the name ends in.
    pub reading: Reading,
}

impl Metric {
    /// A number without labels.
    pub fn new(name: &'static str, help: &'static str, reading: Reading) -> Self {
        Metric {
            name,
            help,
            labels: Vec::new(),
            reading,
        }
    }

    /// The same number for one of several.
    pub fn labelled(mut self, label: &'static str, value: &impl ToString) -> Self {
        self.labels.push((label, value.to_string()));
        self
    }
}

/// How a metric moves, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// Only up.
    Counter(u64),
    /// Up and down.
    Gauge(u64),
    /// How many took how long. The name ends in `_seconds`.
    Times(Box<Times>),
}

impl Reading {
    /// Where it stands; of times, how many.
    pub fn number(&self) -> u64 {
        match self {
            Reading::Counter(value) | Reading::Gauge(value) => *value,
            Reading::Times(times) => times.number(),
        }
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in µs. One more holds what took longer.
pub const BOUNDS_US: [u64; 16] = [
    10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS_US.len() + 1;

/// How many took how long. Counting is two additions to atomics: no lock, no allocation.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total_us: AtomicU64,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn count(&self, took: Duration) {
        self.count_many(took, 1);
    }

    /// Counts `number` that took so long each.
    pub fn count_many(&self, took: Duration, number: u64) {
        let us = took.as_micros() as u64;
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(number, Relaxed);
        self.total_us.fetch_add(us.saturating_mul(number), Relaxed);
    }

    /// What was counted so far.
    pub fn times(&self) -> Times {
        Times {
            buckets: std::array::from_fn(|at| self.buckets[at].load(Relaxed)),
            total_us: self.total_us.load(Relaxed),
        }
    }
}

/// What a [`Histogram`] counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// One for each of [`BOUNDS_US`], and one for all that took longer.
    pub buckets: [u64; BUCKETS],
    /// The sum of all times, in µs.
    pub total_us: u64,
}

impl Times {
    /// How many were counted.
    pub fn number(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl From<Times> for Reading {
    fn from(times: Times) -> Self {
        Reading::Times(Box::new(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_under_the_first_bound_that_holds_it() {
        let histogram = Histogram::default();
        histogram.count(Duration::from_micros(10));
        histogram.count_many(Duration::from_micros(11), 3);
        histogram.count(Duration::from_secs(11));
        let times = histogram.times();
        assert_eq!(
            (times.buckets[0], times.buckets[1], times.buckets[BUCKETS - 1]),
            (1, 3, 1)
        );
        assert_eq!((times.number(), times.total_us), (5, 10 + 33 + 11_000_000));
    }
}
