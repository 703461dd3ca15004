//! Clients of a simulation: what they ask, of whom, and how often again.

mod lists;
mod watcher;

use super::site::{Archive, Seat, Site, lock};
use super::swarm::chance;
use crate::checker::{append, watch};
use onward_raft::sim::World;
use onward_statemachine::ports::{Freshness, Proposal, ProposeError, ReadError};
use onward_statemachine::services::{catalog, kv};
use onward_statemachine::testing::generate;
use onward_statemachine::{Actor, Command, CommandId, Outcome, Revision, View, journal, system};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The most often that a command is proposed.
const TRIES: usize = 5;

/// How often a node is asked that was stopped for a while, and the longest pause between: about an election in all.
const PROBES: usize = 24;
const PROBE_PAUSE_MAX: Duration = Duration::from_millis(20);

/// What was asked.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Command {
        id: CommandId,
        command: Command,
    },
    /// Several keys, at one revision.
    Read {
        keys: Vec<kv::Key>,
        freshness: Freshness,
    },
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// It may have been done, or may yet be.
    Unknown(String),
    /// It was certainly not done, and never will be.
    Nothing(String),
    Answered(Outcome),
    /// The revision of the state that was read, and what was there of each key.
    Read(Revision, Vec<Option<kv::Pair>>),
}

pub(super) use watcher::Watcher;

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) process: u64,
    pub(super) node: u64,
    pub(super) invoked_ns: u64,
    pub(super) ended_ns: u64,
    pub(super) asked: Asked,
    pub(super) fate: Fate,
}

/// What clients asked and were told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// In order of their ends.
    pub(super) ops: Vec<Op>,
    /// The transactions over lists that are among them.
    pub(super) txns: Vec<append::Txn>,
    /// What those were sent who followed the journal.
    pub(super) watches: Vec<watch::Watch>,
}

/// What all clients share.
#[derive(Default)]
pub(super) struct Ledger {
    told: Mutex<Told>,
    processes: Mutex<u64>,
    stop: AtomicBool,
    /// Clients ask for nothing new.
    quiet: AtomicBool,
    /// How far those go who follow the journal, once that is known.
    end: Mutex<Option<u64>>,
}

impl Ledger {
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Has clients ask for nothing new, or lets them.
    pub(super) fn keep_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Relaxed);
    }

    /// Lets those who follow the journal go as far as here, and no further.
    pub(super) fn end_at(&self, revision: Revision) {
        *lock(&self.end) = Some(revision.0);
    }

    fn end(&self) -> Option<u64> {
        *lock(&self.end)
    }

    pub(super) fn take(&self) -> Told {
        std::mem::take(&mut lock(&self.told))
    }

    fn new_process(&self) -> u64 {
        let mut processes = lock(&self.processes);
        *processes += 1;
        *processes
    }
}

/// A client.
pub(super) struct Client {
    site: Arc<Site>,
    ledger: Arc<Ledger>,
    rng: ChaCha8Rng,
    process: u64,
    written: u64,
    /// The newest revision that it was told of.
    newest: Revision,
}

impl Client {
    pub(super) fn new(site: Arc<Site>, ledger: Arc<Ledger>, number: u64) -> Self {
        Client {
            rng: chance(site.plan.seed, 100 + number),
            process: ledger.new_process(),
            site,
            ledger,
            written: 0,
            newest: Revision(0),
        }
    }

    /// Asks one thing after the other until it is stopped.
    pub(super) async fn run(mut self) {
        while !self.ledger.stop.load(Relaxed) {
            let think = self.rng.random_range(Duration::ZERO..=self.site.plan.think_max);
            tokio::time::sleep(think).await;
            let seat = self.pick().filter(|_| !self.ledger.quiet.load(Relaxed));
            let Some(seat) = seat else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            if self.rng.random_range(0..100) < self.site.plan.reads {
                let (key, freshness) = (self.key(), self.freshness());
                self.read(&seat, vec![key], freshness).await;
            } else if self.rng.random_range(0..100) < self.site.plan.transactions {
                self.transaction(&seat).await;
            } else {
                let command = self.command(&seat).await;
                self.propose(&seat, command).await;
            }
        }
    }

    /// Reads from one node, time and again for a while.
    pub(super) async fn probe(mut self, seat: Arc<Seat>) {
        for _ in 0..PROBES {
            tokio::time::sleep(self.rng.random_range(Duration::ZERO..=PROBE_PAUSE_MAX)).await;
            let key = self.key();
            self.read(&seat, vec![key], Freshness::Linearizable).await;
        }
    }

    /// Reads all that clients share from every node, for the last time.
    pub(super) async fn read_all(mut self) {
        for seat in self.site.seats() {
            let keys = (0..self.site.plan.keys).map(shared).collect();
            self.read(&seat, keys, Freshness::Linearizable).await;
            if self.site.plan.transactions > 0 {
                self.read_lists(&seat).await;
            }
        }
    }

    fn pick(&mut self) -> Option<Arc<Seat>> {
        let running = self.site.running();
        running.choose(&mut self.rng).map(|(seat, _)| seat.clone())
    }

    fn key(&mut self) -> kv::Key {
        shared(self.rng.random_range(0..self.site.plan.keys))
    }

    /// A value that nobody else writes.
    fn value(&mut self) -> Vec<u8> {
        self.written += 1;
        let mut value = format!("{}.{}", self.process, self.written).into_bytes();
        if self.rng.random_ratio(1, 50) {
            value.resize(3_000, b' ');
        }
        value
    }

    async fn command(&mut self, seat: &Arc<Seat>) -> Command {
        if self.site.plan.compacts
            && self.rng.random_ratio(1, 30)
            && let Some(compaction) = self.compaction(seat).await
        {
            return compaction;
        }
        if self.rng.random_range(0..100) < self.site.plan.any_area {
            return self.any_command(seat).await;
        }
        let (key, value) = (self.key(), self.value());
        match self.rng.random_range(0..10) {
            0..6 => Command::Kv(kv::Command::Put {
                key,
                value,
                expect: None,
            }),
            6..9 => {
                let known = self.look(seat, &key).await;
                Command::Kv(kv::Command::Put {
                    key,
                    value,
                    expect: Some(known),
                })
            }
            _ => {
                let puts = [key, self.key()].map(|key| {
                    let value = self.value();
                    Command::Kv(kv::Command::Put {
                        key,
                        value,
                        expect: None,
                    })
                });
                Command::Batch(puts.to_vec())
            }
        }
    }

    /// The revision of the last change of `key`, as far as this node has it.
    async fn look(&mut self, seat: &Arc<Seat>, key: &kv::Key) -> Revision {
        let Fate::Read(_, pairs) = self.read(seat, vec![key.clone()], Freshness::Local).await else {
            return Revision(0);
        };
        pairs[0].as_ref().map_or(Revision(0), |pair| pair.modified)
    }

    /// Has the journal compacted below some revision, when all before it was put into the archive.
    async fn compaction(&mut self, seat: &Seat) -> Option<Command> {
        let ports = seat.ports()?;
        let last = |archive: &Archive| archive.keys().next_back().copied();
        let after = last(&self.site.archive()).unwrap_or(Revision(0));
        let all = |view: &dyn View| journal::read(view, after, usize::MAX, usize::MAX, |_| true);
        match seat.machine.run(async { ports.reader.read(all) }).await? {
            Ok(page) => self.site.archive().extend(page.records),
            Err(compacted) => self
                .site
                .complain(format!("what nobody had compacted: {compacted}")),
        }
        let (first, last) = {
            let archive = self.site.archive();
            (*archive.keys().next()?, last(&archive)?)
        };
        let below = Revision(self.rng.random_range(first.0 + 1..=last.0 + 1));
        Some(Command::System(system::Command::CompactJournal { below }))
    }

    /// A command of any area, made up from chance, or the expiry of what is due.
    async fn any_command(&mut self, seat: &Arc<Seat>) -> Command {
        if self.rng.random_ratio(1, 8)
            && let Some(ports) = seat.ports()
        {
            let look = async {
                ports.reader.read(|view| {
                    let now = system::clock(view)?.now;
                    catalog::due(view, now, None, 10)
                })
            };
            if let Some(due) = seat.machine.run(look).await.filter(|due| !due.is_empty()) {
                return Command::Catalog(catalog::Command::Expire { due });
            }
        }
        loop {
            let mut bytes = [0; 40];
            self.rng.fill_bytes(&mut bytes);
            match generate::command(&bytes) {
                // The machinery's own commands are proposed by the machinery.
                None | Some(Command::System(_)) => {}
                Some(command) => return command,
            }
        }
    }

    async fn propose(&mut self, first: &Arc<Seat>, command: Command) -> Fate {
        let id = command_id(&self.site.world, &mut self.rng);
        let mut op = Op {
            process: self.process,
            node: first.machine.id(),
            invoked_ns: self.site.now_ns(),
            ended_ns: 0,
            asked: Asked::Command {
                id,
                command: command.clone(),
            },
            fate: Fate::Unknown("never asked".to_owned()),
        };
        let proposal = Proposal {
            command_id: Some(id),
            actor: Actor::new("client"),
            command,
        };
        let mut seat = first.clone();
        let mut unsure = false;
        for _ in 0..TRIES {
            match self.try_once(&seat, &proposal).await {
                Ok(outcome) => {
                    op.fate = Fate::Answered(outcome);
                    break;
                }
                Err((reason, maybe_done)) => {
                    unsure |= maybe_done;
                    op.fate = if unsure {
                        Fate::Unknown(reason)
                    } else {
                        Fate::Nothing(reason)
                    };
                }
            }
            if self.rng.random_bool(0.3) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Some(other) = self.pick() {
                seat = other;
            }
        }
        let fate = self.end(op);
        if let Fate::Answered(outcome) = &fate {
            self.ask_again(&proposal, outcome).await;
        }
        fate
    }

    /// One try: its outcome, or why there is none and whether it may have been done all the same.
    async fn try_once(&self, seat: &Seat, proposal: &Proposal) -> Result<Outcome, (String, bool)> {
        let ports = seat
            .ports()
            .ok_or_else(|| ("the node is down".to_owned(), false))?;
        let deadline_ms = u64::try_from(self.site.plan.deadline.as_millis()).unwrap_or(u64::MAX);
        let asked = ports.proposer.propose(proposal.clone(), deadline_ms);
        match seat.machine.run(asked).await {
            None => Err(("the node ended".to_owned(), true)),
            Some(Ok(outcome)) => Ok(outcome),
            Some(Err(error)) => {
                if let ProposeError::Poisonous(_) = &error {
                    self.site.complain(format!("{error}: {:?}", proposal.command));
                }
                let maybe_done = matches!(error, ProposeError::Unknown(_));
                Err((error.to_string(), maybe_done))
            }
        }
    }

    /// Now and then asks for the same again elsewhere: the answer is the same.
    async fn ask_again(&mut self, proposal: &Proposal, first: &Outcome) {
        if !self.rng.random_ratio(1, 10) {
            return;
        }
        if let Some(seat) = self.pick()
            && let Ok(again) = self.try_once(&seat, proposal).await
            && again != *first
        {
            let what = format!(
                "{:?} was answered {first:?}, and then {again:?}",
                proposal.command
            );
            self.site.complain(what);
        }
    }

    fn freshness(&mut self) -> Freshness {
        match self.rng.random_range(0..10) {
            0..7 => Freshness::Linearizable,
            7..9 => Freshness::AtLeast(self.newest),
            _ => Freshness::Local,
        }
    }

    async fn read(&mut self, seat: &Arc<Seat>, keys: Vec<kv::Key>, freshness: Freshness) -> Fate {
        let mut op = Op {
            process: self.process,
            node: seat.machine.id(),
            invoked_ns: self.site.now_ns(),
            ended_ns: 0,
            asked: Asked::Read {
                keys: keys.clone(),
                freshness,
            },
            fate: Fate::Nothing("the node ended".to_owned()),
        };
        if let Some(ports) = seat.ports() {
            let look = |view: &dyn View| {
                let pairs = keys.iter().map(|key| kv::get(view, key));
                Ok((system::clock(view)?.revision, pairs.collect::<Result<_, _>>()?))
            };
            let read = async {
                ports.reader.barrier(freshness).await?;
                Ok::<_, ReadError>(ports.reader.read(look))
            };
            match seat.machine.run(read).await {
                Some(Ok((revision, pairs))) => op.fate = Fate::Read(revision, pairs),
                Some(Err(error)) => op.fate = Fate::Nothing(error.to_string()),
                None => {}
            }
        }
        self.end(op)
    }

    /// Writes down what came of an operation.
    fn end(&mut self, mut op: Op) -> Fate {
        op.ended_ns = self.site.now_ns();
        match &op.fate {
            Fate::Answered(outcome) => self.newest = self.newest.max(outcome.revision()),
            Fate::Read(revision, _) => self.newest = self.newest.max(*revision),
            Fate::Unknown(_) => self.process = self.ledger.new_process(),
            Fate::Nothing(_) => {}
        }
        self.site.world.note(|| {
            let Op {
                process, node, asked, ..
            } = &op;
            format!("client {process} at n{node}: {asked:?}: {:?}", op.fate)
        });
        let fate = op.fate.clone();
        lock(&self.ledger.told).ops.push(op);
        fate
    }
}

/// Whether clients share a key, of which each value is written once.
pub(super) fn is_shared(key: &kv::Key) -> bool {
    key.0.starts_with(b"r/")
}

/// A key that clients share.
fn shared(number: u64) -> kv::Key {
    kv::Key(format!("r/{number}").into_bytes())
}

/// A fresh command id, as a client with a right clock makes it.
pub(super) fn command_id(world: &World, rng: &mut ChaCha8Rng) -> CommandId {
    let mut random = [0; 10];
    rng.fill_bytes(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(world.now_ms(), &random);
    CommandId(id.into_uuid())
}
