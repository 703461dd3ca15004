//! A simulated machine: a disk and a clock that outlive the processes on it.

use super::files::{DiskFaults, MachineFiles, SimulatedDisk};
use super::net::{Link, MachineNet};
use super::process::{Process, Within};
use super::stores::SimulatedStores;
use super::world::World;
use crate::clock::Clock;
use crate::config::Config;
use crate::host::Host;
use crate::log::disk::Sizes;
use crate::{Node, StartError};
use onward_statemachine::Millis;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Small, so that a run comes by the end of many segments.
const LOG: Sizes = Sizes {
    segment_bytes: 32 << 10,
    ahead_bytes: 4 << 10,
    spares: 2,
    kept: 2,
};

pub(crate) struct MachineState {
    pub(crate) world: World,
    pub(crate) id: u64,
    pub(crate) disk: Arc<SimulatedDisk>,
    clock_offset_ms: AtomicI64,
    process: Mutex<Option<Arc<Process>>>,
}

impl MachineState {
    pub(crate) fn new(world: World, id: u64) -> Self {
        MachineState {
            world,
            id,
            disk: Arc::default(),
            clock_offset_ms: AtomicI64::new(0),
            process: Mutex::default(),
        }
    }

    /// Lets go of its last process.
    pub(crate) fn forget_process(&self) {
        self.process().take();
    }

    /// What its clock shows.
    pub(crate) fn now(&self) -> Millis {
        let right = self.world.now_ms();
        Millis(right.saturating_add_signed(self.clock_offset_ms.load(Relaxed)))
    }

    fn process(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for MachineState {
    fn now(&self) -> Millis {
        MachineState::now(self)
    }
}

/// The machine whose process the task that asks belongs to.
pub fn current_machine() -> Option<u64> {
    Process::current().map(|process| process.machine.id)
}

/// A simulated machine. Clones are the same one.
#[derive(Clone)]
pub struct Machine(Arc<MachineState>);

impl From<Arc<MachineState>> for Machine {
    fn from(state: Arc<MachineState>) -> Self {
        Machine(state)
    }
}

impl Machine {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Where its node listens for peers.
    pub fn address(&self) -> String {
        super::net::address_of(self.0.id)
    }

    /// Starts a node in a new process. `None` when that ended before the node had started.
    ///
    /// # Errors
    /// As [`Node::start`].
    ///
    /// # Panics
    /// Where a process runs already.
    pub async fn start(&self, config: Config) -> Option<Result<Node, StartError>> {
        assert!(!self.is_running(), "machine {} runs a node already", self.0.id);
        self.0.world.network().revive(self.0.id);
        let process = Process::new(self.0.clone());
        *self.0.process() = Some(process.clone());
        let host = Host {
            files: Arc::new(MachineFiles::new(process.clone())),
            stores: Arc::new(SimulatedStores::new(process.clone())),
            net: Arc::new(MachineNet::new(process.clone())),
            clock: self.0.clone(),
            log: LOG,
            pool: None,
        };
        self.0.world.note(|| format!("n{} starts", self.0.id));
        let started = Within::new(process.clone(), Node::start_in(config, host)).await;
        if let Some(Err(error)) = &started {
            process.end(format!("did not start: {error}"));
        }
        started
    }

    /// Runs a future within its process: `None` when that ends first, or has ended.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let process = self.0.process().clone()?;
        Within::new(process, work).await
    }

    /// Whether a process runs on it.
    pub fn is_running(&self) -> bool {
        self.0
            .process()
            .as_ref()
            .is_some_and(|process| !process.has_ended())
    }

    /// Why its last process ended.
    pub fn cause(&self) -> Option<String> {
        self.0.process().as_ref().and_then(|process| process.cause())
    }

    /// Kills the process. What it wrote is still there; its connections are closed.
    pub fn kill(&self) {
        if let Some(process) = &*self.0.process() {
            process.end("killed");
        }
    }

    /// Stops the process where it is, as SIGSTOP does: its connections stay, time goes on.
    pub fn pause(&self) {
        if let Some(process) = &*self.0.process() {
            process.stop(true);
        }
    }

    /// Lets a stopped process go on.
    pub fn resume(&self) {
        if let Some(process) = &*self.0.process() {
            process.stop(false);
        }
    }

    /// Takes the power away. What was not synced may be lost or torn; nobody is told that the connections are gone.
    pub fn power_off(&self) {
        self.0.world.network().cut_off(self.0.id);
        if let Some(process) = &*self.0.process() {
            process.end("power lost");
        }
        self.0.disk.lose_power(&self.0.world, self.0.id);
    }

    /// Empties the disk of a machine that runs nothing.
    pub fn wipe(&self) {
        self.0.disk.wipe();
    }

    /// Sets how far its clock is off, in ms.
    pub fn set_clock_offset(&self, offset_ms: i64) {
        self.0.clock_offset_ms.store(offset_ms, Relaxed);
    }

    /// Sets how its disk behaves from now on.
    pub fn set_disk(&self, faults: DiskFaults) {
        self.0.disk.set_faults(faults);
    }

    /// Sets how what it sends to another machine fares from now on.
    pub fn set_link(&self, to: &Machine, link: Link) {
        self.0.world.network().set_link(self.0.id, to.0.id, link);
    }

    /// Breaks all connections between this machine and another.
    pub fn break_connections(&self, to: &Machine) {
        self.0.world.network().break_connections(self.0.id, to.0.id);
    }
}
