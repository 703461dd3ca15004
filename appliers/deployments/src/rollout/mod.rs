//! The loop that rolls deployments forward on this node: plan, act, report, whenever something changed here or in the
//! log.
//!
//! It holds nothing that matters: what it knows it reads from the log and finds on the machine, so that a node that was
//! killed in any step goes on from there. Every action may be done twice; reports are fenced, and instances are started
//! at most once by the driver.

mod act;
mod observe;
mod plan;

pub(crate) use act::Worker;

use observe::Observer;
use onward_statemachine::Millis;
use onward_statemachine::deployments;
use plan::Action;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often processes are looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(500);
/// How often the driver tends its files.
const TEND: Duration = Duration::from_secs(30);
/// How long an action waits that could not reach the log.
const AGAIN: Duration = Duration::from_millis(500);

/// Actions under way, and those that wait for another try.
#[derive(Default)]
struct Running {
    tasks: JoinSet<(Action, bool)>,
    handles: HashMap<Action, AbortHandle>,
    waiting: HashMap<Action, Instant>,
}

impl Running {
    /// Starts what is planned and is not under way; ends what is not planned any more.
    fn match_to(&mut self, worker: &Arc<Worker>, actions: Vec<Action>) {
        let wanted: HashSet<&Action> = actions.iter().collect();
        self.handles.retain(|action, handle| {
            let keep = wanted.contains(action);
            if !keep {
                handle.abort();
            }
            keep
        });
        self.waiting
            .retain(|action, until| wanted.contains(action) && *until > Instant::now());
        for action in actions {
            if self.handles.contains_key(&action) || self.waiting.contains_key(&action) {
                continue;
            }
            let worker = Arc::clone(worker);
            let task = action.clone();
            let handle = self.tasks.spawn(async move {
                let done = match worker.act(&task).await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::warn!(action = ?task, %error, "an action has to be tried again");
                        false
                    }
                };
                (task, done)
            });
            self.handles.insert(action, handle);
        }
    }

    /// Takes note of one action that has ended.
    fn ended(&mut self, ended: Result<(Action, bool), tokio::task::JoinError>) {
        match ended {
            Ok((action, done)) => {
                self.handles.remove(&action);
                if !done {
                    self.waiting.insert(action, Instant::now() + AGAIN);
                }
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(%error, "an action panicked");
                let ended = self.handles.iter().find(|(_, handle)| handle.is_finished());
                if let Some(action) = ended.map(|(action, _)| action.clone()) {
                    self.handles.remove(&action);
                    self.waiting.insert(action, Instant::now() + AGAIN);
                }
            }
        }
    }
}

/// Rolls forward until `token` is cancelled. Instances go on running.
pub(crate) async fn run(worker: Arc<Worker>, token: CancellationToken) {
    worker.clean();
    let mut observer = Observer::default();
    let mut running = Running::default();
    let mut tended = Instant::now();
    loop {
        let stamp = worker.reader.stamp().applied;
        let (desired, observed) = observer.observe(&worker).await;
        let plan = plan::plan(desired, &observed);
        let wake = next_wake(plan.wake_at, observed.now);
        running.match_to(&worker, plan.actions);
        if tended.elapsed() > TEND {
            tended = Instant::now();
            worker.driver.tend();
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(wake) => {}
            Some(ended) = running.tasks.join_next() => running.ended(ended),
            () = deployments_changed(&worker, stamp, observer.seen()) => {}
        }
    }
}

fn next_wake(at: Option<Millis>, now: Millis) -> Duration {
    at.map_or(TICK, |at| TICK.min(Duration::from_millis(at.since(now).max(1))))
}

/// Resolves when the log says something new about deployments.
async fn deployments_changed(
    worker: &Worker,
    mut after: onward_statemachine::Revision,
    seen: Option<onward_statemachine::Revision>,
) {
    loop {
        after = worker.reader.changed(after).await;
        if Some(worker.reader.read(deployments::changed)) != seen {
            return;
        }
        tokio::time::sleep(crate::BREATH).await;
    }
}
