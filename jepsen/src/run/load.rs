//! The clients of a run: each a task that asks, waits and writes down, one operation at a time.

use super::recorder::Recorder;
use crate::client::{Client, Target};
use crate::history::Outcome;
use crate::workload::{Seat, Workload};
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What clients are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Ask; a client whose node does not serve goes elsewhere.
    Roam,
    /// Ask, each at the node that it began with: every node must serve again.
    Home,
    /// Ask no more.
    Stop,
}

/// How often a client goes to another node without a reason.
const MOVE_ODDS: f64 = 0.02;
/// How often a client leaves a node that does not serve. Those who stay are the ones who would see a stale read.
const LEAVE_ODDS: f64 = 0.5;

/// What clients share.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) workload: Arc<dyn Workload>,
    pub(super) nodes: Arc<[Target]>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) clients: u64,
    pub(super) seed: u64,
    /// Operations a second, of all clients together.
    pub(super) rate: f64,
}

impl Load {
    /// Starts all clients. A task that ends with an error is a failure of the harness.
    pub(super) fn start(&self) -> JoinSet<anyhow::Result<()>> {
        let mut tasks = JoinSet::new();
        for client in 0..self.clients {
            tasks.spawn(self.clone().run(client));
        }
        tasks
    }

    async fn run(mut self, number: u64) -> anyhow::Result<()> {
        let seat = Seat {
            seed: self.seed,
            client: number,
            clients: self.clients,
        };
        let mut script = self.workload.script(seat);
        // Where it goes and when is drawn apart from what it asks, which must not depend on how the cluster fares.
        let mut rng = Seat {
            client: number + self.clients,
            ..seat
        }
        .rng();
        let home = usize::try_from(number)?;
        let mut client = Client::new(Arc::clone(&self.nodes), home, format!("client-{number}"))?;
        let mut process = number;
        let mean = Duration::from_secs_f64(self.clients as f64 / self.rate);
        loop {
            let pause = mean.mul_f64(2.0 * rng.random::<f64>());
            tokio::select! {
                changed = self.phase.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(pause) => {}
            }
            match *self.phase.borrow() {
                Phase::Stop => return Ok(()),
                Phase::Home => client.move_to(home),
                Phase::Roam if rng.random_bool(MOVE_ODDS) => client.move_on(),
                Phase::Roam => {}
            }
            let demand = script.next();
            let command = Uuid::now_v7();
            let node = client.node().id;
            self.recorder
                .invoke(process, node, &demand, demand.writes.then_some(command));
            let answer = script.invoke(&mut client, &demand, command).await;
            self.recorder.complete(process, node, &demand, &answer);
            script.learn(&demand, &answer);
            if answer.outcome == Outcome::Info {
                process += self.clients;
            }
            if answer.blames_node() && rng.random_bool(LEAVE_ODDS) {
                client.move_on();
            }
        }
    }
}
