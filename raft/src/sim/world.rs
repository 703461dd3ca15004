//! What all machines of a simulation share: chance, time, the network, and what was noted.

use super::logs::Logs;
use super::machine::{Machine, MachineState};
use super::net::Network;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// The time at which every simulation begins, in ms since 1970.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// A simulated site. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    random: Mutex<ChaCha8Rng>,
    began: Instant,
    trace: Mutex<Option<Vec<String>>>,
    complaints: Mutex<Vec<String>>,
    pulse: Mutex<Pulse>,
    network: Network,
    machines: Mutex<Vec<Weak<MachineState>>>,
}

/// Whether time goes on.
#[derive(Default)]
struct Pulse {
    polls: u64,
    at: Duration,
}

/// So many polls of tasks while no time passes are a loop that does not end.
const POLLS_MAX: u64 = 200_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// Runs `body` in a world of its own, in simulated time, to its end. With `traced`, everything that is noted is kept.
    ///
    /// # Panics
    /// Where it is called within another runtime.
    pub fn run<T>(seed: u64, traced: bool, body: impl AsyncFnOnce(World) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread takes nothing that can be lacking");
        let logs = traced.then(|| tracing::subscriber::set_default(Logs));
        let result = runtime.block_on(async {
            let world = World(Arc::new(Shared {
                random: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
                began: Instant::now(),
                trace: Mutex::new(traced.then(Vec::new)),
                complaints: Mutex::default(),
                pulse: Mutex::default(),
                network: Network::default(),
                machines: Mutex::default(),
            }));
            let result = body(world.clone()).await;
            world.end();
            result
        });
        drop(runtime);
        drop(logs);
        result
    }

    /// A new machine, powered on, with an empty disk. It is reached at [`Machine::address`].
    pub fn machine(&self, id: u64) -> Machine {
        let machine = Arc::new(MachineState::new(self.clone(), id));
        lock(&self.0.machines).push(Arc::downgrade(&machine));
        Machine::from(machine)
    }

    /// Machines and their processes know each other: without this, nothing of a world would ever be given back.
    fn end(&self) {
        for machine in lock(&self.0.machines).drain(..) {
            if let Some(machine) = machine.upgrade() {
                machine.forget_process();
            }
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// What a clock shows that is right, in ms since 1970.
    pub fn now_ms(&self) -> u64 {
        EPOCH_MS + self.elapsed().as_millis() as u64
    }

    /// Notes something in the trace, if there is one.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = lock(&self.0.trace).as_mut() {
            let now = self.elapsed();
            trace.push(format!("{:>12.6} {}", now.as_secs_f64(), what()));
        }
    }

    /// Takes the trace.
    pub fn take_trace(&self) -> Vec<String> {
        lock(&self.0.trace).take().unwrap_or_default()
    }

    /// Notes that something happened which must not: a task of a node panicked.
    pub(crate) fn complain(&self, what: String) {
        self.note(|| what.clone());
        lock(&self.0.complaints).push(what);
    }

    /// What happened that must not.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.0.complaints).clone()
    }

    /// Counts a poll of a task; says whether tasks are polled over and over while no time passes.
    pub(crate) fn spins(&self) -> bool {
        let mut pulse = lock(&self.0.pulse);
        pulse.polls += 1;
        if pulse.polls.is_multiple_of(1024) {
            let now = self.elapsed();
            if now != pulse.at {
                *pulse = Pulse { polls: 0, at: now };
            }
        }
        pulse.polls > POLLS_MAX
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut lock(&self.0.random))
    }

    pub(crate) fn network(&self) -> &Network {
        &self.0.network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, InitialMember};
    use onward_statemachine::NodeId;

    #[test]
    fn nothing_is_left_of_a_world() {
        let left = World::run(1, false, async |world| {
            let machines: Vec<Machine> = (1..=2).map(|id| world.machine(id)).collect();
            let member = |machine: &Machine| InitialMember {
                id: NodeId(machine.id()),
                peer_address: machine.address(),
                http_url: String::new(),
            };
            let mut nodes = Vec::new();
            for machine in &machines {
                let mut config = Config::new("/data", "simulated");
                config.node_id = Some(NodeId(machine.id()));
                config.peer_listen = machine.address();
                config.initial_members = machines.iter().map(member).collect();
                nodes.push(machine.start(config).await.expect("goes on").expect("starts"));
            }
            while nodes[0].cluster().status().leader.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            machines[1].pause();
            Arc::downgrade(&world.0)
        });
        assert!(left.upgrade().is_none());
    }
}
