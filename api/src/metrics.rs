//! What `/metrics` shows: the engine's numbers, and requests and their times by route. Times go into fixed buckets of
//! atomics, so that counting costs a request nothing that it would notice.

use onward_statemachine::ports::{BOUNDS_US, Histogram, Metric, Reading, Times};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The requests of one route.
#[derive(Debug)]
pub(crate) struct RouteStats {
    method: &'static str,
    path: &'static str,
    /// By the hundreds of the status: 1xx to 5xx.
    statuses: [AtomicU64; 5],
    times: Histogram,
}

impl RouteStats {
    pub(crate) fn new(method: &'static str, path: &'static str) -> Self {
        RouteStats {
            method,
            path,
            statuses: Default::default(),
            times: Histogram::default(),
        }
    }

    /// Counts one request.
    pub(crate) fn count(&self, status: http::StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.statuses[class].fetch_add(1, Relaxed);
        self.times.count(took);
    }

    /// The span of one request, for whoever wants to follow it through the logs. Who proposes its command records the id.
    pub(crate) fn span(&self, path: &str) -> tracing::Span {
        let command_id = tracing::field::Empty;
        tracing::debug_span!("http", method = self.method, path, command_id)
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
                    let kind = match metric.reading {
                        Reading::Counter(_) => "counter",
                        Reading::Gauge(_) => "gauge",
                        Reading::Times(_) => "histogram",
                    };
                    head(out, name, metric.help, kind)?;
                }
                let labels: Vec<_> = metric
                    .labels
                    .iter()
                    .map(|(label, value)| (*label, value.as_str()))
                    .collect();
                match &metric.reading {
                    Reading::Counter(value) | Reading::Gauge(value) => series(out, name, labels, value)?,
                    Reading::Times(times) => histogram(out, name, &labels, times)?,
                }
            }
        }
        self.write_http(out)
    }

    fn write_http(&self, out: &mut String) -> std::fmt::Result {
        let used = || {
            self.routes
                .iter()
                .filter(|route| route.statuses.iter().any(|count| count.load(Relaxed) > 0))
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
            histogram(out, name, &labels, &route.times.times())?;
        }
        Ok(())
    }
}

/// All series of one histogram.
fn histogram(out: &mut String, name: &str, labels: &[(&str, &str)], times: &Times) -> std::fmt::Result {
    let bucket = format!("{name}_bucket");
    let mut sum = 0;
    for (at, count) in times.buckets.iter().enumerate() {
        sum += count;
        let bound = BOUNDS_US.get(at).map_or("+Inf".to_owned(), |us| seconds(*us));
        let labels = labels.iter().copied().chain([("le", bound.as_str())]);
        series(out, &bucket, labels, sum)?;
    }
    let labels = labels.iter().copied();
    series(
        out,
        &format!("{name}_sum"),
        labels.clone(),
        seconds(times.total_us),
    )?;
    series(out, &format!("{name}_count"), labels, sum)
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
