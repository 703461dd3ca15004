//! The simulator: a whole site in one thread, in simulated time, from one seed.
//!
//! A seed is a [`swarm::Plan`]: how large the site is, how fast its parts are, what clients ask, which faults there are.
//! A run has two phases. In the first, clients and faults go on together: whatever happens, nothing may be wrong. Then all is
//! healed, every node must serve again soon, for nothing may be stuck, and is asked for every shared key once more. What
//! clients were told is judged by what the nodes have then ([`judge`]).
//!
//! The same seed gives the same run, byte for byte, as long as the code is the same.

mod client;
mod command;
mod judge;
mod nemesis;
mod record;
mod site;
pub mod swarm;
#[cfg(test)]
mod tests;

use crate::history::Record;
use crate::verdict::{Finding, Kind, Verdict, overall};
use client::{Client, Fate, Ledger, Told, Watcher};
use futures::future::join_all;
use judge::Final;
use onward_raft::sim::World;
use onward_statemachine::ports::{Freshness, Proposal};
use onward_statemachine::services::kv;
use onward_statemachine::{Actor, Command, Revision, system};
use site::{Seat, Site, until};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use swarm::{Plan, chance};

pub use command::Options;

/// How soon after the healing every node serves.
const RECOVERY: Duration = Duration::from_secs(20);
/// How soon a machine does that joins: what it asked before the healing is given up after a while of its own.
const JOINED: Duration = Duration::from_secs(80);
/// How long nodes may take to stand where the others do.
const CATCH_UP: Duration = Duration::from_secs(20);

/// What a seed came to.
pub struct Ran {
    /// What it stood for.
    pub plan: Plan,
    /// What it shows.
    pub verdicts: Vec<Verdict>,
    /// What clients asked, what they were told, and the faults meanwhile.
    pub history: Vec<Record>,
    /// How often each kind of fault struck.
    pub struck: BTreeMap<swarm::Kind, u64>,
    /// How many operations there were.
    pub ops: usize,
    /// How many of them were answered.
    pub answered: usize,
    /// How long it took, in simulated time.
    pub simulated: Duration,
    /// Everything that happened, if it was traced.
    pub trace: Vec<String>,
}

impl Ran {
    /// What it comes to.
    pub fn finding(&self) -> Finding {
        overall(&self.verdicts)
    }
}

/// What happened in a run.
struct Played {
    told: Told,
    finals: Vec<Final>,
    /// What of it was judged meanwhile.
    verdicts: Vec<Verdict>,
    struck: nemesis::Struck,
    /// Faults.
    records: Vec<Record>,
}

/// Runs what `seed` stands for.
pub fn run(seed: u64, traced: bool) -> Ran {
    World::run(seed, traced, async |world| {
        let plan = Plan::of(seed);
        world.note(|| format!("{plan:?}"));
        let Played {
            told,
            finals,
            mut verdicts,
            struck,
            records,
        } = play(&world, plan.clone()).await;
        verdicts.extend(judge::judge(&told, &finals));
        for verdict in &verdicts {
            world.note(|| format!("{verdict:?}"));
        }
        let answered = |op: &&client::Op| matches!(op.fate, Fate::Answered(_) | Fate::Read(..));
        Ran {
            plan,
            verdicts,
            history: record::history(&told.ops, records),
            struck,
            ops: told.ops.len(),
            answered: told.ops.iter().filter(answered).count(),
            simulated: world.elapsed(),
            trace: world.take_trace(),
        }
    })
}

/// Plays it through: clients and faults, then the healing, then last looks.
async fn play(world: &World, plan: Plan) -> Played {
    let site = Site::new(world.clone(), plan.clone());
    site.start_all();
    let ledger = Arc::new(Ledger::default());
    let clients: Vec<_> = (0..plan.clients)
        .map(|number| tokio::spawn(Client::new(site.clone(), ledger.clone(), number).run()))
        .collect();
    let watchers: Vec<_> = (0..plan.watchers)
        .map(|number| tokio::spawn(Watcher::new(site.clone(), ledger.clone(), number).run()))
        .collect();
    let struck = nemesis::run(site.clone(), ledger.clone()).await;
    let mut verdicts = vec![recover(&site).await];
    ledger.stop();
    for client in clients {
        if let Err(error) = client.await {
            site.complain(format!("a client of the simulation broke: {error}"));
        }
    }
    Client::new(site.clone(), ledger.clone(), plan.clients)
        .read_all()
        .await;
    ledger.end_at(newest(&site).await);
    for watcher in watchers {
        match tokio::time::timeout(CATCH_UP, watcher).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => site.complain(format!("a watcher broke: {error}")),
            Err(_) => site.complain("a watcher does not come to the end of the journal".to_owned()),
        }
    }
    let finals = finals(&site, &mut verdicts).await;
    verdicts.push(same_state(&site));
    verdicts.push(no_complaints(&site));
    Played {
        told: ledger.take(),
        finals,
        verdicts,
        struck,
        records: site.take_records(),
    }
}

/// Whether no node was stopped because its state was not that of the majority.
fn same_state(site: &Site) -> Verdict {
    let odd = |seat: &Arc<Seat>| {
        let cause = seat.machine.cause()?;
        let found = cause.contains("is not that of the majority");
        found.then(|| format!("machine {}: {cause}", seat.machine.id()))
    };
    let found: Vec<String> = site.seats().iter().filter_map(odd).collect();
    let (finding, summary) = match found.first() {
        None => (
            Finding::Pass,
            "no node was found to have another state".to_owned(),
        ),
        Some(first) => (Finding::Fail, first.clone()),
    };
    let mut verdict = Verdict::new(Kind::Property, "state-hash", finding, summary);
    verdict.details = found;
    verdict
}

fn no_complaints(site: &Site) -> Verdict {
    let complaints = site.complaints();
    let (finding, summary) = match complaints.first() {
        None => (Finding::Pass, "nothing broke".to_owned()),
        Some(first) => (Finding::Fail, first.clone()),
    };
    let mut verdict = Verdict::new(Kind::Property, "soundness", finding, summary);
    verdict.details = complaints;
    verdict
}

/// Heals everything and waits until each node takes a write and reads it back.
async fn recover(site: &Arc<Site>) -> Verdict {
    site.world.note(|| "everything is healed".to_owned());
    site.heal();
    let healed = site.world.elapsed();
    let mut stuck = Vec::new();
    let seats = site.seats();
    let serving = seats.iter().map(|seat| {
        let limit = if seat.joins() { JOINED } else { RECOVERY };
        tokio::time::timeout(limit, serves(site, seat))
    });
    for (served, seat) in join_all(serving).await.iter().zip(&seats) {
        if served.is_err() {
            stuck.push(describe(seat).await);
        }
    }
    let took_ms = (site.world.elapsed() - healed).as_millis();
    let (finding, summary) = match stuck.first() {
        None => (Finding::Pass, format!("all nodes serve after {took_ms} ms")),
        Some(first) => (Finding::Fail, format!("not within {} s: {first}", took_ms / 1000)),
    };
    let mut verdict = Verdict::new(Kind::Liveness, "recovery", finding, summary);
    verdict.details = stuck;
    verdict
}

/// Returns once a write and a linearizable read through this node took place.
async fn serves(site: &Arc<Site>, seat: &Arc<Seat>) {
    let mut rng = chance(site.plan.seed, 2 + seat.machine.id());
    loop {
        site.start(seat);
        if let Some(ports) = seat.ports() {
            let proposal = Proposal {
                command_id: Some(client::command_id(&site.world, &mut rng)),
                actor: Actor::new("raft:simulator"),
                command: Command::Kv(kv::Command::Put {
                    key: kv::Key(b"healed".to_vec()),
                    value: seat.machine.id().to_string().into_bytes(),
                    expect: None,
                }),
            };
            let work = async {
                let written = ports.proposer.propose(proposal, 2_000).await.is_ok();
                written && ports.reader.barrier(Freshness::Linearizable).await.is_ok()
            };
            if seat.machine.run(work).await == Some(true) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a node looks like that does not serve.
async fn describe(seat: &Seat) -> String {
    let id = seat.machine.id();
    let Some(ports) = seat.ports() else {
        return format!(
            "machine {id} runs no node: {}",
            seat.machine.cause().unwrap_or_default()
        );
    };
    let status = seat.machine.run(async { ports.cluster.status() }).await;
    format!("machine {id}: {status:?}")
}

/// The newest revision that any node has.
async fn newest(site: &Site) -> Revision {
    let mut newest = Revision(0);
    for (seat, ports) in site.running() {
        let look = async { ports.reader.read(|view| Ok(system::clock(view)?.revision)) };
        newest = newest.max(seat.machine.run(look).await.unwrap_or_default());
    }
    newest
}

/// Waits until all nodes stand at the same revision, and takes what they have.
async fn finals(site: &Arc<Site>, verdicts: &mut Vec<Verdict>) -> Vec<Final> {
    let seats = site.seats();
    let level = until(CATCH_UP, || {
        let applied: Vec<_> = seats
            .iter()
            .map(|seat| seat.ports().map(|ports| ports.reader.stamp().applied))
            .collect();
        applied.iter().all(|one| one.is_some() && *one == applied[0])
    });
    if !level.await {
        let mut verdict = Verdict::new(
            Kind::Liveness,
            "level",
            Finding::Fail,
            "not all nodes came to the same revision",
        );
        for seat in &seats {
            verdict.details.push(describe(seat).await);
        }
        verdicts.push(verdict);
    }
    let mut finals = Vec::new();
    for seat in seats {
        let Some(ports) = seat.ports() else { continue };
        let id = seat.machine.id();
        let look = async { ports.reader.read(|view| Final::of(id, view, &site.archive())) };
        finals.extend(seat.machine.run(look).await);
    }
    finals
}
