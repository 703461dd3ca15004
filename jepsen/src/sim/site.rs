//! The site of a simulation: its machines, and the nodes on them.

use super::swarm::Plan;
use crate::history::{Edge, Fault, Record};
use axum::Router;
use onward_api::Services;
use onward_raft::sim::{Link, Machine, World};
use onward_raft::{Config, InitialMember, Join, Node, StartError};
use onward_statemachine::ports::{Backups, Cluster, Proposer, Reader};
use onward_statemachine::{NodeId, Revision, journal};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Where the data of every node is, on its own machine.
const DATA: &str = "/data";
/// How often an idle stream says how far it has come, in ms.
const PROGRESS_MS: u64 = 300;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What clients reach of a running node.
#[derive(Clone)]
pub(super) struct Ports {
    pub(super) id: NodeId,
    pub(super) proposer: Arc<dyn Proposer>,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) cluster: Arc<dyn Cluster>,
    backups: Arc<dyn Backups>,
    api: Arc<OnceLock<Router>>,
}

impl Ports {
    /// The node's HTTP API, without a network in between.
    pub(super) fn api(&self) -> Router {
        let build = || {
            let (proposer, reader) = (self.proposer.clone(), self.reader.clone());
            let mut services = Services::new(proposer, reader, self.cluster.clone(), self.backups.clone());
            services.limits.progress_ms = PROGRESS_MS;
            onward_api::router(services)
        };
        self.api.get_or_init(build).clone()
    }
}

/// A machine, and the node on it.
pub(super) struct Seat {
    pub(super) machine: Machine,
    join: Option<Join>,
    ports: Mutex<Option<Ports>>,
    node: Mutex<Option<Arc<Node>>>,
    /// A start is under way.
    starting: Mutex<bool>,
    /// It is gone for good.
    retired: Mutex<bool>,
}

impl Seat {
    /// The node's ports, while it runs.
    pub(super) fn ports(&self) -> Option<Ports> {
        let ports = lock(&self.ports).clone();
        ports.filter(|_| self.machine.is_running())
    }

    pub(super) fn node(&self) -> Option<Arc<Node>> {
        let node = lock(&self.node).clone();
        node.filter(|_| self.machine.is_running())
    }

    pub(super) fn retire(&self) {
        *lock(&self.retired) = true;
    }

    /// Whether it joins a cluster that others formed.
    pub(super) fn joins(&self) -> bool {
        self.join.is_some()
    }

    /// Shuts the node down in good order.
    pub(super) async fn shut_down(&self) {
        lock(&self.ports).take();
        let node = lock(&self.node).take();
        if let Some(node) = node.and_then(Arc::into_inner) {
            self.machine.run(node.shutdown()).await;
        }
        self.machine.kill();
    }
}

/// The site.
pub(super) struct Site {
    pub(super) world: World,
    pub(super) plan: Plan,
    seats: Mutex<Vec<Arc<Seat>>>,
    initial: Vec<InitialMember>,
    records: Mutex<Vec<Record>>,
    complaints: Mutex<Vec<String>>,
    /// What the journal said before anybody had it compacted.
    archive: Mutex<Archive>,
}

/// A part of the journal, from its beginning.
pub(super) type Archive = BTreeMap<Revision, journal::Record>;

impl Site {
    pub(super) fn new(world: World, plan: Plan) -> Arc<Self> {
        let machines: Vec<Machine> = (1..=plan.machines).map(|id| world.machine(id)).collect();
        let initial = machines
            .iter()
            .map(|machine| InitialMember {
                id: NodeId(machine.id()),
                peer_address: machine.address(),
                http_url: String::new(),
            })
            .collect();
        let site = Site {
            world,
            plan,
            seats: Mutex::default(),
            initial,
            records: Mutex::default(),
            complaints: Mutex::default(),
            archive: Mutex::default(),
        };
        for machine in machines {
            site.seat(machine, None);
        }
        Arc::new(site)
    }

    fn seat(&self, machine: Machine, join: Option<Join>) -> Arc<Seat> {
        machine.set_disk(self.plan.disk);
        for other in lock(&self.seats).iter() {
            machine.set_link(&other.machine, self.plan.link);
            other.machine.set_link(&machine, self.plan.link);
        }
        let seat = Arc::new(Seat {
            machine,
            join,
            ports: Mutex::default(),
            node: Mutex::default(),
            starting: Mutex::default(),
            retired: Mutex::default(),
        });
        lock(&self.seats).push(seat.clone());
        seat
    }

    /// A machine that takes the place of `gone`, with the help of `member`.
    pub(super) fn replacement(&self, gone: NodeId, member: &Seat) -> Arc<Seat> {
        let id = lock(&self.seats).len() as u64 + 1;
        let join = Join {
            peer_address: member.machine.address(),
            replaces: Some(gone),
        };
        self.seat(self.world.machine(id), Some(join))
    }

    /// The seats that are not gone for good.
    pub(super) fn seats(&self) -> Vec<Arc<Seat>> {
        let seats = lock(&self.seats);
        let here = seats.iter().filter(|seat| !*lock(&seat.retired));
        here.cloned().collect()
    }

    /// The ports of all nodes that run.
    pub(super) fn running(&self) -> Vec<(Arc<Seat>, Ports)> {
        let seats = self.seats().into_iter();
        seats
            .filter_map(|seat| seat.ports().map(|ports| (seat, ports)))
            .collect()
    }

    fn config(&self, seat: &Seat) -> Config {
        let mut config = Config::new(DATA, "simulated");
        config.peer_listen = seat.machine.address();
        config.timings = self.plan.timings;
        config.snapshots = self.plan.snapshots;
        config.join.clone_from(&seat.join);
        if seat.join.is_none() {
            config.node_id = Some(NodeId(seat.machine.id()));
            config.initial_members.clone_from(&self.initial);
        }
        config
    }

    /// Starts the node of a seat, if it is not running; a start may take long, so it is not waited for.
    pub(super) fn start(self: &Arc<Self>, seat: &Arc<Seat>) {
        let retired = *lock(&seat.retired);
        if retired || seat.machine.is_running() || std::mem::replace(&mut *lock(&seat.starting), true) {
            return;
        }
        // What was reached of the last process is no part of the next.
        lock(&seat.ports).take();
        lock(&seat.node).take();
        let (site, seat) = (self.clone(), seat.clone());
        tokio::spawn(async move {
            let started = seat.machine.start(site.config(&seat)).await;
            *lock(&seat.starting) = false;
            match started {
                Some(Ok(node)) => {
                    let ports = Ports {
                        id: node.id(),
                        proposer: node.proposer(),
                        reader: node.reader(),
                        cluster: node.cluster(),
                        backups: node.backups(),
                        api: Arc::default(),
                    };
                    *lock(&seat.ports) = Some(ports);
                    *lock(&seat.node) = Some(Arc::new(node));
                }
                Some(Err(error)) => site.judge_refusal(&seat, &error),
                None => {}
            }
        });
    }

    /// A node may fail to start where its disk fails or is full, or nobody lets it join; anything else is wrong.
    fn judge_refusal(&self, seat: &Seat, error: &StartError) {
        let id = seat.machine.id();
        self.world.note(|| format!("n{id} does not start: {error}"));
        let expected = match error {
            StartError::Io { .. } | StartError::Unwritable { .. } | StartError::Engine(_) => {
                let error = error.to_string();
                error.contains("input/output error") || error.contains("No space left on device")
            }
            StartError::Join { .. } => true,
            _ => false,
        };
        if !expected {
            self.complain(format!("machine {id} does not start: {error}"));
        }
    }

    /// Heals everything: disks, links, processes.
    pub(super) fn heal(self: &Arc<Self>) {
        let seats = self.seats();
        for seat in &seats {
            seat.machine.resume();
            seat.machine.set_disk(self.plan.disk);
            for other in &seats {
                seat.machine.set_link(&other.machine, self.plan.link);
            }
        }
        self.start_all();
    }

    /// Starts all nodes that do not run.
    pub(super) fn start_all(self: &Arc<Self>) {
        for seat in self.seats() {
            self.start(&seat);
        }
    }

    /// Sets how what `from` sends to `to` fares.
    pub(super) fn set_link(&self, from: &Seat, to: &Seat, link: Link) {
        from.machine.set_link(&to.machine, link);
    }

    /// Makes the links between two machines so, both ways.
    pub(super) fn set_links(&self, one: &Seat, other: &Seat, link: Link) {
        self.set_link(one, other, link);
        self.set_link(other, one, link);
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.world.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn record(&self, record: Record) {
        lock(&self.records).push(record);
    }

    pub(super) fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut lock(&self.records))
    }

    /// Notes a fault.
    pub(super) fn fault(&self, nemesis: &str, edge: Edge, what: String, nodes: Vec<u64>) {
        self.world
            .note(|| format!("fault {nemesis} {edge:?} {what} {nodes:?}"));
        self.record(Record::Fault(Fault {
            time_ns: self.now_ns(),
            nemesis: nemesis.to_owned(),
            edge,
            what,
            nodes,
        }));
    }

    /// What was kept of the journal.
    pub(super) fn archive(&self) -> MutexGuard<'_, Archive> {
        lock(&self.archive)
    }

    /// Notes that something happened which must not.
    pub(super) fn complain(&self, what: String) {
        self.world.note(|| format!("complaint: {what}"));
        lock(&self.complaints).push(what);
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        let mut all = self.world.complaints();
        all.extend(lock(&self.complaints).iter().cloned());
        all
    }
}

/// Waits until `holds` does, and says whether it did in time.
pub(super) async fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
