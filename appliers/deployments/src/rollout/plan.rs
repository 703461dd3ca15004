//! What is to be done next: a pure function of what the log desires and what this node observes.
//!
//! Planning knows nothing of what is under way: an action stays planned until what it does has reached the log, and one
//! that is no longer planned is no longer wanted.

use crate::driver::{InstanceId, Status};
use onward_statemachine::deployments::apps::Name;
use onward_statemachine::deployments::instances::{
    Instance, Ordinal, Rollout, RolloutNumber, Serving, State, Step,
};
use onward_statemachine::{Millis, NodeId};
use std::collections::BTreeMap;

/// A node that was out of contact for longer than this, in ms, is given up.
pub(crate) const LOST_AFTER_MS: u64 = 15_000;

/// What the log says of an app.
#[derive(Debug, Clone, Default)]
pub(crate) struct App {
    /// Whether it is declared, and should run.
    pub(crate) running: bool,
    /// Whether it is to go.
    pub(crate) deleting: bool,
    pub(crate) serving: Serving,
    /// The rollout that is not finished.
    pub(crate) rollout: Option<(RolloutNumber, Rollout)>,
    /// Instances that have not ended.
    pub(crate) live: Vec<(InstanceId, Instance)>,
    /// Where the build of the rollout was made.
    pub(crate) built_on: Option<NodeId>,
}

/// All that the log desires.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    pub(crate) apps: BTreeMap<Name, App>,
}

/// What the log has of an instance that this node found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is to run, or to be stopped in its own time.
    Live,
    /// It has ended, and is remembered.
    Ended,
    /// Nothing.
    Unknown,
}

/// What this node sees.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) node: NodeId,
    pub(crate) now: Millis,
    /// Whether this node leads, and so decides for those who cannot.
    pub(crate) leads: bool,
    /// The members, and how long they have been out of contact with the leader, in ms.
    pub(crate) contacts: BTreeMap<NodeId, u64>,
    /// What has become of the live instances of this node.
    pub(crate) statuses: BTreeMap<InstanceId, Status>,
    /// What was found on this node, against a state that is confirmed to be the latest.
    pub(crate) found: Vec<(InstanceId, Known, Status)>,
}

impl Observed {
    fn in_contact(&self, node: NodeId) -> bool {
        self.contacts
            .get(&node)
            .is_some_and(|silent_ms| *silent_ms <= LOST_AFTER_MS)
    }
}

/// One step on the world or the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Action {
    /// Give a rollout to a node.
    Assign {
        app: Name,
        rollout: RolloutNumber,
        node: NodeId,
        instead_of: Option<NodeId>,
    },
    /// Have the present release run anew.
    Restart {
        app: Name,
        replaces: Option<Ordinal>,
        reason: String,
    },
    /// Have everything of a stopped app stopped.
    Halt { app: Name },
    /// Give up an instance whose node is out of contact.
    Lose { id: InstanceId, node: NodeId },
    /// Let go of a deleted app of which nothing runs.
    Forget { app: Name },
    /// Do the step that a rollout is at.
    Work {
        app: Name,
        rollout: RolloutNumber,
        step: Step,
        attempt: u32,
    },
    /// Stop an instance once its requests are through.
    Drain { id: InstanceId },
    /// Report that an instance is gone.
    ReportExit { id: InstanceId, reason: String },
    /// End what the log does not have, and forget it if it never will again.
    Remove { id: InstanceId, forget: bool },
}

/// The actions, and when to look again even if nothing changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake_at: Option<Millis>,
}

/// Plans.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for (name, app) in &desired.apps {
        if observed.leads {
            lead(&mut plan, desired, observed, name, app);
        }
        work(&mut plan, observed, name, app);
    }
    for (id, known, status) in &observed.found {
        let running = matches!(status, Status::Running(_));
        match known {
            Known::Unknown => plan.actions.push(Action::Remove {
                id: id.clone(),
                forget: true,
            }),
            Known::Ended if running => plan.actions.push(Action::Remove {
                id: id.clone(),
                forget: false,
            }),
            Known::Ended | Known::Live => {}
        }
    }
    plan
}

/// What the leader decides about an app.
fn lead(plan: &mut Plan, desired: &Desired, observed: &Observed, name: &Name, app: &App) {
    let lost = |node: NodeId| !observed.in_contact(node);
    for (id, instance) in &app.live {
        // What serves is replaced first: its process may well be alive on a node that is not.
        let given_up = match instance.state {
            State::Draining => true,
            State::Starting | State::Healthy => app.rollout.is_none(),
            State::Active | State::Stopped | State::Lost => false,
        };
        if given_up && lost(instance.node) {
            plan.actions.push(Action::Lose {
                id: id.clone(),
                node: instance.node,
            });
        }
    }
    if !app.running {
        if app.serving.active.is_some() || app.rollout.is_some() {
            plan.actions.push(Action::Halt { app: name.clone() });
        } else if app.deleting && app.live.is_empty() {
            plan.actions.push(Action::Forget { app: name.clone() });
        }
        return;
    }
    if let Some((number, rollout)) = &app.rollout {
        let unassigned = rollout.node.is_none_or(lost);
        if unassigned && rollout.step != Step::Draining {
            if rollout.node.is_none() && observed.now < rollout.next_attempt_at {
                wake(plan, rollout.next_attempt_at);
            } else if let Some(node) = choose(desired, observed, app) {
                plan.actions.push(Action::Assign {
                    app: name.clone(),
                    rollout: *number,
                    node,
                    instead_of: rollout.node,
                });
            }
        }
        return;
    }
    let restart = match &app.serving.active {
        None if app.serving.release.is_some() => Some((None, "no instance serves".to_owned())),
        Some(active) if lost(active.node) => Some((
            Some(active.ordinal),
            format!("node {} is out of contact", active.node),
        )),
        _ => None,
    };
    if let Some((replaces, reason)) = restart
        && choose(desired, observed, app).is_some()
    {
        plan.actions.push(Action::Restart {
            app: name.clone(),
            replaces,
            reason,
        });
    }
}

/// The node for a rollout: where the app runs or was built, since its files are there; else the one with the fewest
/// instances, this one first among equals.
fn choose(desired: &Desired, observed: &Observed, app: &App) -> Option<NodeId> {
    let active = app.serving.active.as_ref().map(|active| active.node);
    let near = [active, app.built_on].into_iter().flatten();
    if let Some(node) = near.into_iter().find(|node| observed.in_contact(*node)) {
        return Some(node);
    }
    let load = |node: NodeId| {
        let live = desired.apps.values().flat_map(|app| &app.live);
        let running = live.filter(|(_, instance)| instance.node == node).count();
        let rollouts = desired.apps.values().filter_map(|app| app.rollout.as_ref());
        running
            + rollouts
                .filter(|(_, rollout)| rollout.node == Some(node) && rollout.instance.is_none())
                .count()
    };
    let candidates = observed
        .contacts
        .keys()
        .copied()
        .filter(|node| observed.in_contact(*node));
    candidates.min_by_key(|node| (load(*node), *node != observed.node, *node))
}

/// What this node does for an app.
fn work(plan: &mut Plan, observed: &Observed, name: &Name, app: &App) {
    if let Some((number, rollout)) = &app.rollout
        && rollout.node == Some(observed.node)
        && matches!(
            rollout.step,
            Step::Fetching | Step::Building | Step::Starting | Step::Checking | Step::Switching
        )
    {
        if observed.now < rollout.next_attempt_at {
            wake(plan, rollout.next_attempt_at);
        } else {
            plan.actions.push(Action::Work {
                app: name.clone(),
                rollout: *number,
                step: rollout.step,
                attempt: rollout.attempt,
            });
        }
    }
    for (id, instance) in app
        .live
        .iter()
        .filter(|(_, instance)| instance.node == observed.node)
    {
        match (instance.state, observed.statuses.get(id)) {
            (State::Draining, _) => plan.actions.push(Action::Drain { id: id.clone() }),
            (State::Active, Some(Status::Exited { reason })) => plan.actions.push(Action::ReportExit {
                id: id.clone(),
                reason: reason.clone(),
            }),
            (State::Active, Some(Status::Absent)) => plan.actions.push(Action::ReportExit {
                id: id.clone(),
                reason: "its node knows nothing of it any more".to_owned(),
            }),
            // The rollout's own steps look after what does not serve yet.
            _ => {}
        }
    }
}

fn wake(plan: &mut Plan, at: Millis) {
    plan.wake_at = Some(plan.wake_at.map_or(at, |before| before.min(at)));
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
