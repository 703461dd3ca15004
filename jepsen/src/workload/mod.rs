//! What clients ask of the cluster, and what must hold of the answers: one file for each workload.
//!
//! A workload hands each client a [`Script`], which draws demands from a seed and from what this client was told
//! before, and judges the whole history afterwards from the [`Evidence`] alone, so that a run can be judged again.

mod append;
mod audit;
mod backup;
mod bank;
mod deploy;
mod idempotency;
mod judging;
mod lock;
mod machines;
mod register;
mod rounds;
mod services;
mod set;
mod watch;

use crate::client::{Answer, Client};
use crate::final_state::Finals;
use crate::history::{Call, Fault};
use crate::verdict::{Finding, Kind, Verdict};
use futures::future::BoxFuture;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;
use uuid::Uuid;

/// What a client is to ask next.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// Which kind of operation it is.
    pub f: &'static str,
    /// Its arguments, as the history keeps them.
    pub value: Value,
    /// Whether it writes, under a command id.
    pub writes: bool,
}

impl Demand {
    /// A demand that changes nothing.
    pub fn read(f: &'static str, value: Value) -> Self {
        Demand {
            f,
            value,
            writes: false,
        }
    }

    /// One that changes something if it `writes`.
    fn of(f: &'static str, value: Value, writes: bool) -> Self {
        Demand { f, value, writes }
    }

    /// A demand that changes something.
    pub fn write(f: &'static str, value: Value) -> Self {
        Demand {
            f,
            value,
            writes: true,
        }
    }
}

/// Which client of how many it is, and the seed of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The seed of the run.
    pub seed: u64,
    /// Which client, from 0.
    pub client: u64,
    /// How many there are.
    pub clients: u64,
}

impl Seat {
    /// The generator of this client alone.
    pub fn rng(self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.client + 1);
        rng
    }
}

/// The demands of one client, in order.
pub trait Script: Send {
    /// What to ask next.
    fn next(&mut self) -> Demand;

    /// Asks it, as the demand `command` where it writes. What it answers with is what the history keeps.
    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer>;

    /// Takes note of what came of it.
    fn learn(&mut self, demand: &Demand, answer: &Answer);
}

/// What a run left behind.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Every operation of every client.
    pub calls: &'a [Call],
    /// What each node had in the end.
    pub finals: &'a Finals,
    /// What was done to the cluster.
    pub faults: &'a [Fault],
    /// Where the run keeps its files.
    pub dir: &'a Path,
}

/// A kind of load, with its promises.
pub trait Workload: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// The kinds of operation that a run must have seen succeed.
    fn kinds(&self) -> &'static [&'static str];

    /// Whether clients can go on with it for ever at the full rate; others are asked more slowly.
    fn operations_per_second(&self) -> f64 {
        200.0
    }

    /// What every node is asked for in the end, beside its journal and its pairs: lists, read as this node has them.
    fn final_reads(&self) -> &'static [&'static str] {
        &[]
    }

    /// Writes what clients need beforehand, if anything; tried again until it succeeds, so it must bear that.
    fn setup<'a>(&'a self, _client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// The demands of one client.
    fn script(&self, seat: Seat) -> Box<dyn Script>;

    /// What the evidence shows.
    ///
    /// # Errors
    /// Where the evidence cannot be read, which is no fault of the cluster.
    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>>;
}

/// All workloads, with the words for each.
pub const NAMES: &[(&str, &str)] = &[
    ("append", "transactions over several lists at once"),
    ("audit", "changes in all domains, each in the journal once"),
    ("backup", "backups under load, each the state at its revision"),
    ("bank", "object transactions that move money, and snapshots of it"),
    (
        "deploy",
        "apps deployed, rolled back and restarted onto real processes",
    ),
    ("idempotency", "one demand sent several times, done once"),
    ("lock", "locks with a TTL and fencing tokens"),
    (
        "machines",
        "registration, claims, states and addresses of machines",
    ),
    (
        "register",
        "reads, writes and compare-and-set of single keys, at all levels",
    ),
    ("services", "registration of services, by API and DNS"),
    ("set", "a set that only grows"),
    ("watch", "streams of changes, from node to node"),
];

/// The workload of this name, for a run that keeps its files in `dir`.
///
/// # Errors
/// Where there is none.
pub fn named(name: &str, dir: &Path) -> anyhow::Result<Box<dyn Workload>> {
    Ok(match name {
        "append" => Box::new(append::Append),
        "audit" => Box::new(audit::Audit),
        "backup" => Box::new(backup::Backup::new(dir)),
        "bank" => Box::new(bank::Bank),
        "deploy" => Box::new(deploy::Deploy::new(dir)),
        "idempotency" => Box::new(idempotency::Idempotency),
        "lock" => Box::new(lock::Lock),
        "machines" => Box::new(machines::Machines),
        "register" => Box::new(register::Register),
        "services" => Box::new(services::Services),
        "set" => Box::new(set::Set),
        "watch" => Box::new(watch::Watch),
        _ => {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            anyhow::bail!("there is no workload `{name}`; there are {}", names.join(", "))
        }
    })
}

/// What a demand of a workload's own asks.
fn asked<T: DeserializeOwned>(demand: &Demand) -> T {
    serde_json::from_value(demand.value.clone()).expect("a workload asks in its own words")
}

/// What a check found wrong, as it goes through the evidence.
#[derive(Debug, Default)]
struct Complaints {
    details: Vec<String>,
    calls: Vec<u64>,
}

/// More of them say nothing new.
const COMPLAINTS_MAX: usize = 50;

impl Complaints {
    fn add(&mut self, calls: impl IntoIterator<Item = u64>, what: impl Into<String>) {
        if self.details.len() < COMPLAINTS_MAX {
            self.details.push(what.into());
            self.calls.extend(calls);
        }
    }

    /// A pass where nothing is wrong.
    fn verdict(self, check: &str, looked_at: impl Into<String>) -> Verdict {
        let (finding, summary) = match self.details.len() {
            0 => (Finding::Pass, looked_at.into()),
            COMPLAINTS_MAX => (Finding::Fail, format!("{COMPLAINTS_MAX} violations or more")),
            count => (Finding::Fail, format!("{count} violations")),
        };
        Verdict {
            details: self.details,
            calls: self.calls,
            ..Verdict::new(Kind::Property, check, finding, summary)
        }
    }
}

#[cfg(test)]
mod tests;
