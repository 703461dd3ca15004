//! What `/metrics` shows: the engine's numbers, and requests and their times by route. Times go into fixed buckets of
//! atomics, so that counting costs a request nothing that it would notice.

use onward_statemachine::ports::{Metric, MetricKind};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets, in µs.
const BUCKETS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
    10_000_000,
];

/// The requests of one route.
#[derive(Debug)]
pub(crate) struct RouteStats {
    method: &'static str,
    path: &'static str,
    /// By the hundreds of the status: 1xx to 5xx.
    statuses: [AtomicU64; 5],
    /// One for each of [`BUCKETS_US`], and one for all that took longer.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    total_us: AtomicU64,
}

impl RouteStats {
    pub(crate) fn new(method: &'static str, path: &'static str) -> Self {
        RouteStats {
            method,
            path,
            statuses: Default::default(),
            buckets: Default::default(),
            total_us: AtomicU64::new(0),
        }
    }

    /// Counts one request.
    pub(crate) fn count(&self, status: http::StatusCode, took: Duration) {
        let us = took.as_micros() as u64;
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.statuses[class].fetch_add(1, Relaxed);
        self.buckets[BUCKETS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        self.total_us.fetch_add(us, Relaxed);
    }
}

/// The numbers of all routes.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub routes: Vec<Arc<RouteStats>>,
    /// Requests that no route took.
    pub unrouted: AtomicU64,
    pub streams: AtomicU64,
}

impl Metrics {
    /// The Prometheus text format 0.0.4, the engine's numbers first. Routes that nobody asked for are left out.
    pub(crate) fn render(&self, engine: &[Metric]) -> String {
        let mut out = String::new();
        self.write(&mut out, engine)
            .expect("writing into a String cannot fail");
        out
    }

    fn write(&self, out: &mut String, engine: &[Metric]) -> std::fmt::Result {
        let mut described = std::collections::BTreeSet::new();
        let mut names: Vec<_> = engine.iter().map(|metric| metric.name).collect();
        names.dedup();
        for name in names {
            // All series of one name stand together, as the format asks.
            if !described.insert(name) {
                continue;
            }
            for (place, metric) in engine.iter().filter(|metric| metric.name == name).enumerate() {
                if place == 0 {
                    let kind = match metric.kind {
                        MetricKind::Counter => "counter",
                        MetricKind::Gauge => "gauge",
                    };
                    head(out, name, metric.help, kind)?;
                }
                let labels = metric
                    .labels
                    .iter()
                    .map(|(label, value)| (*label, value.as_str()));
                series(out, name, labels, metric.value)?;
            }
        }
        self.write_http(out)
    }

    fn write_http(&self, out: &mut String) -> std::fmt::Result {
        let used = || {
            self.routes
                .iter()
                .filter(|route| route.buckets.iter().any(|count| count.load(Relaxed) > 0))
        };
        head(out, "onward_http_streams", "Streams that are open.", "gauge")?;
        series(out, "onward_http_streams", [], self.streams.load(Relaxed))?;
        let unrouted = "onward_http_unrouted_requests_total";
        head(out, unrouted, "Requests that no route took.", "counter")?;
        series(out, unrouted, [], self.unrouted.load(Relaxed))?;
        let name = "onward_http_requests_total";
        head(
            out,
            name,
            "Requests answered, by route and hundreds of the status.",
            "counter",
        )?;
        for route in used() {
            for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .into_iter()
                .zip(&route.statuses)
            {
                let count = count.load(Relaxed);
                if count > 0 {
                    let labels = [("method", route.method), ("route", route.path), ("status", class)];
                    series(out, name, labels, count)?;
                }
            }
        }
        let name = "onward_http_request_duration_seconds";
        head(
            out,
            name,
            "Time until the head of the answer, by route.",
            "histogram",
        )?;
        for route in used() {
            let labels = [("method", route.method), ("route", route.path)];
            let mut sum = 0;
            for (at, count) in route.buckets.iter().enumerate() {
                sum += count.load(Relaxed);
                let bound = BUCKETS_US.get(at).map_or("+Inf".to_owned(), |us| seconds(*us));
                let labels = labels.into_iter().chain([("le", bound.as_str())]);
                series(out, "onward_http_request_duration_seconds_bucket", labels, sum)?;
            }
            let total = seconds(route.total_us.load(Relaxed));
            series(out, "onward_http_request_duration_seconds_sum", labels, total)?;
            series(out, "onward_http_request_duration_seconds_count", labels, sum)?;
        }
        Ok(())
    }
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn series<'a>(
    out: &mut String,
    name: &str,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    value: impl std::fmt::Display,
) -> std::fmt::Result {
    let labels: Vec<_> = labels
        .into_iter()
        .map(|(label, value)| {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            format!("{label}=\"{value}\"")
        })
        .collect();
    match labels.is_empty() {
        true => writeln!(out, "{name} {value}"),
        false => writeln!(out, "{name}{{{}}} {value}", labels.join(",")),
    }
}
