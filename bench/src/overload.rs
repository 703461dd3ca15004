//! More than it can take: four times the writes a second of its peak, offered on a timetable and not when there is an
//! answer, by more writers than it has room for. What is wanted: what is too much is turned away, no collapse, and every
//! write that was acknowledged is there.

use crate::client::{Client, Put};
use crate::load::{self, Keys, Load, Work};
use crate::progress;
use crate::system::{Kind, Programs, System};
use crate::values::Values;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// So many times the peak is offered.
const TIMES: u64 = 4;
/// The numbers of clients in which the peak is looked for.
const PEAK_CLIENTS: [usize; 4] = [64, 256, 1000, 3000];
/// Connections to each node over which it is offered.
const CONNECTIONS: usize = 12;
/// Writers that share a connection, with one write each under way: as many as it takes. On a node that is more than
/// `peer.proposals_max`.
const SHARERS: usize = 1000;
/// What it takes to have all writers connected.
const CONNECTED: Duration = Duration::from_secs(2);
/// A write that is so late is given up before it is sent: who offers it has gone.
const LATE: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Overload {
    /// Writes a second, at the best number of clients.
    pub peak: u64,
    /// Writes that were due, each second.
    pub offered: u64,
    /// Writes that were acknowledged, each second.
    pub acknowledged: u64,
    /// Writes that were answered 429 or 503, each second: none, and it was not too much.
    pub turned_away: u64,
    /// Writes that were acknowledged and are not there.
    pub lost: u64,
    /// What a write cost all nodes together at the peak, in microseconds of CPU time.
    #[serde(default)]
    pub peak_cpu_us: f64,
    /// The same while it was too much, with what it costs to turn the others away.
    #[serde(default)]
    pub cpu_us: f64,
}

impl Overload {
    /// What is left of the peak, in percent.
    pub fn left_percent(&self) -> u64 {
        self.acknowledged * 100 / self.peak.max(1)
    }
}

/// Loads three nodes of ours with more than they take, for so long.
pub async fn measure(
    programs: &Programs,
    dir: &Path,
    warm_up: Duration,
    measured: Duration,
) -> Result<Overload> {
    let system = System::start(Kind::OnwardShared, 3, programs, dir).await?;
    let mut peak = load::Summary::default();
    for clients in PEAK_CLIENTS {
        let load = Load {
            work: Work::Put,
            clients,
            value_bytes: load::VALUE_BYTES,
            keys: Keys::New(0),
            warm_up,
            measured,
        };
        let found = load::run(&system, load).await?.summary();
        progress(format_args!("  {clients} clients: {}/s", found.rate()));
        if found.rate() > peak.rate() {
            peak = found;
        }
    }
    ensure!(peak.rate() > 0, "nothing was written at the peak");
    let offer = Arc::new(Offer {
        tickets: AtomicU64::new(0),
        values: Values::new(load::VALUE_BYTES),
        in_time: AtomicU64::new(0),
        turned_away: AtomicU64::new(0),
        begin: Instant::now() + CONNECTED,
        a_second: TIMES * peak.rate(),
        from: warm_up,
        until: warm_up + measured,
    });
    let mut writers = JoinSet::new();
    for address in &system.endpoints {
        for _ in 0..CONNECTIONS {
            let client = Client::connect(system.kind, *address).await?;
            for _ in 0..SHARERS {
                let client = client.share().context("a connection cannot be shared")?;
                writers.spawn(offer.clone().write(client));
            }
        }
    }
    sleep_until(offer.begin + offer.from).await;
    let cpu_before = system.cpu_time()?;
    sleep_until(offer.begin + offer.until).await;
    let cpu = system.cpu_time()?.saturating_sub(cpu_before);
    let mut acknowledged = Vec::new();
    while let Some(written) = writers.join_next().await {
        acknowledged.extend(written??);
    }
    let there = written(&system).await?;
    let lost = acknowledged
        .iter()
        .filter(|ticket| !there.contains(*ticket))
        .count();
    let each_second = |count: u64| (count as f64 / measured.as_secs_f64()) as u64;
    let in_time = offer.in_time.load(Relaxed);
    let cpu_us = cpu.as_micros() as f64 / in_time.max(1) as f64;
    Ok(Overload {
        peak: peak.rate(),
        offered: offer.a_second,
        acknowledged: each_second(in_time),
        turned_away: each_second(offer.turned_away.load(Relaxed)),
        lost: lost as u64,
        peak_cpu_us: peak.cpu_us,
        cpu_us: (cpu_us * 10.0).round() / 10.0,
    })
}

/// The timetable that all connections work off.
struct Offer {
    tickets: AtomicU64,
    values: Values,
    /// Acknowledged while it was measured: what was done before, or is under way after, counts for nothing.
    in_time: AtomicU64,
    /// Turned away while it was measured.
    turned_away: AtomicU64,
    begin: Instant,
    a_second: u64,
    /// It is measured from here on, since the beginning.
    from: Duration,
    until: Duration,
}

impl Offer {
    /// What is next due, and when; those that are too late by now are given up in one step, since it is not the work of the
    /// generator that is measured.
    fn next(&self) -> (u64, Duration) {
        let given_up = self.begin.elapsed().saturating_sub(LATE);
        let given_up = (given_up.as_secs_f64() * self.a_second as f64) as u64;
        self.tickets.fetch_max(given_up, Relaxed);
        let ticket = self.tickets.fetch_add(1, Relaxed);
        (
            ticket,
            Duration::from_secs_f64(ticket as f64 / self.a_second as f64),
        )
    }

    fn count(&self, counter: &AtomicU64) {
        if (self.from..self.until).contains(&self.begin.elapsed()) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Writes what is next due, over and over; the tickets that were acknowledged.
    async fn write(self: Arc<Self>, mut client: Client) -> Result<Vec<u64>> {
        let mut acknowledged = Vec::new();
        loop {
            let (ticket, due) = self.next();
            if due >= self.until {
                return Ok(acknowledged);
            }
            if due > self.begin.elapsed() {
                sleep_until(self.begin + due).await;
            }
            let value = self.values.of(ticket);
            match client.try_put(&format!("overload-{ticket}"), &value).await? {
                Put::Done => {
                    acknowledged.push(ticket);
                    self.count(&self.in_time);
                }
                Put::TurnedAway => self.count(&self.turned_away),
            }
        }
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    key: String,
}

/// The tickets whose writes are there, read fresh.
async fn written(system: &System) -> Result<BTreeSet<u64>> {
    let mut client = Client::connect(Kind::Onward, system.endpoints[0]).await?;
    let mut tickets = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/kv?prefix=overload-&limit=5000{cursor}");
        let body = client
            .send(Method::GET, &path, "application/json", Bytes::new())
            .await?;
        let page: Page = serde_json::from_slice(&body).context("a page of keys")?;
        let numbers = page
            .items
            .iter()
            .map(|item| item.key.trim_start_matches("overload-").parse());
        for number in numbers {
            tickets.insert(number.context("a key of this run")?);
        }
        match page.next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(tickets),
        }
    }
}
