//! What appliers report: deciding where a rollout goes from there.

use super::command::{Fence, Progress, Refusal, refuse};
use super::types::*;
use super::{Event, query};
use crate::command::{Accepted, Context, Decision, Stop};
use crate::deployments::apps::Name;
use crate::deployments::{builds, releases};
use crate::ids::NodeId;
use crate::store::{Fault, View};

/// The rollout of a report, if it is where the report says.
fn fenced(view: &dyn View, fence: &Fence) -> Result<Rollout, Stop<Refusal>> {
    let rollout = existing(view, &fence.app, fence.rollout)?;
    if rollout.step == fence.step
        && rollout.attempt == fence.attempt
        && rollout.node == Some(fence.node)
        && !rollout.step.is_end()
    {
        return Ok(rollout);
    }
    stale(&fence.app, fence.rollout, &rollout)
}

fn existing(view: &dyn View, app: &Name, number: RolloutNumber) -> Result<Rollout, Stop<Refusal>> {
    match query::rollout(view, app, number)? {
        Some(rollout) => Ok(rollout),
        None => refuse(Refusal::NotFound {
            app: app.clone(),
            rollout: number,
        }),
    }
}

fn stale<T>(app: &Name, number: RolloutNumber, rollout: &Rollout) -> Result<T, Stop<Refusal>> {
    refuse(Refusal::Stale {
        app: app.clone(),
        rollout: number,
        step: rollout.step,
        attempt: rollout.attempt,
    })
}

pub(super) fn assign(
    view: &dyn View,
    app: &Name,
    number: RolloutNumber,
    node: NodeId,
    instead_of: Option<NodeId>,
) -> Decision<Event, Refusal> {
    let rollout = existing(view, app, number)?;
    if rollout.step.is_end() || rollout.step == Step::Draining || rollout.node != instead_of {
        return stale(app, number, &rollout);
    }
    if rollout.node == Some(node) {
        return Ok(Accepted::unchanged());
    }
    let mut events = Vec::new();
    if let (Some(release), Some(ordinal), Some(lost)) = (rollout.release, rollout.instance, rollout.node) {
        events.push(Event::Ended {
            app: app.clone(),
            release,
            ordinal,
            ending: Ending::Lost,
            reason: format!("node {lost} was out of contact"),
            restart_at: None,
        });
    }
    events.push(Event::Assigned {
        app: app.clone(),
        rollout: number,
        node,
    });
    Ok(Accepted::events(events))
}

pub(super) fn advance(view: &dyn View, fence: &Fence, progress: &Progress) -> Decision<Event, Refusal> {
    let rollout = fenced(view, fence)?;
    let out_of_place = || {
        refuse(Refusal::OutOfPlace {
            app: fence.app.clone(),
            rollout: fence.rollout,
            step: rollout.step,
        })
    };
    let (app, number) = (fence.app.clone(), fence.rollout);
    match (rollout.step, progress) {
        (Step::Fetching, Progress::Fetched { commit, build }) => {
            let built = builds::get(view, &app, *build)?.map(|row| row.inputs.commit);
            let known = rollout.commit.as_ref().is_none_or(|known| known == commit);
            // The build of an old release may be forgotten by now; its inputs are in the release.
            if !known || built.is_some_and(|built| built != *commit) {
                return out_of_place();
            }
            Ok(Accepted::event(Event::Fetched {
                app,
                rollout: number,
                commit: commit.clone(),
                build: *build,
            }))
        }
        (Step::Building | Step::Fetching, Progress::Built { release }) => {
            let made = releases::get(view, &app, *release)?;
            let matches = match rollout.release {
                Some(known) => known == *release && made.is_some(),
                None => rollout.step == Step::Building && made.is_some_and(|row| row.rollout == number),
            };
            if !matches {
                return out_of_place();
            }
            Ok(Accepted::event(placed(view, &app, number, *release, fence.node)?))
        }
        (Step::Starting, Progress::Started { process }) => Ok(Accepted::event(Event::Started {
            app,
            rollout: number,
            process: process.clone(),
        })),
        (Step::Checking, Progress::Checked) => Ok(Accepted::event(Event::Checked { app, rollout: number })),
        (Step::Switching, Progress::Switched) => switch(view, app, number, &rollout),
        _ => out_of_place(),
    }
}

/// The switch: one instance is active from here on, the one before it drains. Where nothing drains, that is the end.
fn switch(view: &dyn View, app: Name, number: RolloutNumber, rollout: &Rollout) -> Decision<Event, Refusal> {
    let row = current_instance(view, &app, rollout)?;
    if row.is_none_or(|row| row.state != State::Healthy) {
        let step = rollout.step;
        let rollout = number;
        return refuse(Refusal::OutOfPlace { app, rollout, step });
    }
    let serving = SERVING.expect(view, &app)?;
    let mut events = Vec::new();
    let mut drains = draining(view, &app, &serving)?;
    if let Some(active) = serving.active {
        drains = true;
        events.push(Event::Draining {
            app: app.clone(),
            release: active.release,
            ordinal: active.ordinal,
        });
    }
    events.push(Event::Switched {
        app: app.clone(),
        rollout: number,
    });
    if !drains {
        events.push(Event::Finished { app, rollout: number });
    }
    Ok(Accepted::events(events))
}

/// Whether an instance of the app is still to stop.
fn draining(view: &dyn View, app: &Name, serving: &Serving) -> Result<bool, Fault> {
    for (release, ordinal) in &serving.live {
        let row = INSTANCES.expect(view, &(app.clone(), *release, *ordinal))?;
        if row.state == State::Draining {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn fail(
    view: &dyn View,
    ctx: &Context,
    fence: &Fence,
    reason: &str,
    permanent: bool,
) -> Decision<Event, Refusal> {
    let rollout = fenced(view, fence)?;
    let (app, number) = (fence.app.clone(), fence.rollout);
    if rollout.step == Step::Draining {
        let step = rollout.step;
        let rollout = number;
        return refuse(Refusal::OutOfPlace { app, rollout, step });
    }
    let failures = rollout.failures.saturating_add(1);
    let again = match rollout.kind {
        Kind::Restart { .. } => true,
        Kind::Deploy { .. } | Kind::Rollback => !permanent && failures < ATTEMPTS_MAX,
    };
    let mut events = let_go(view, &app, &rollout)?;
    events.push(Event::Failed {
        app: app.clone(),
        rollout: number,
        reason: bounded(reason, REASON_BYTES_MAX),
        next_attempt_at: again.then(|| ctx.now.plus(backoff_ms(failures))),
    });
    if let (true, Step::Starting | Step::Checking | Step::Switching, Some(release)) =
        (again, rollout.step, rollout.release)
    {
        events.push(placed(view, &app, number, release, fence.node)?);
    }
    Ok(Accepted::events(events))
}

pub(super) fn ended(
    view: &dyn View,
    ctx: &Context,
    (app, release, ordinal): (&Name, releases::Number, Ordinal),
    node: NodeId,
    ending: &Ending,
    reason: &str,
) -> Decision<Event, Refusal> {
    let row = query::instance(view, app, release, ordinal)?;
    let Some(row) = row.filter(|row| row.node == node) else {
        return refuse(Refusal::InstanceNotFound {
            app: app.clone(),
            release,
            ordinal,
            node,
        });
    };
    if row.state.is_end() {
        return Ok(Accepted::unchanged());
    }
    if row.state == State::Active && *ending == Ending::Lost {
        let app = app.clone();
        return refuse(Refusal::StillActive { app, ordinal });
    }
    let serving = SERVING.expect(view, app)?;
    let restart_at = (row.state == State::Active).then(|| {
        let served_ms = ctx.now.since(row.active_from.unwrap_or(ctx.now));
        let crashes = if served_ms < CRASH_WINDOW_MS {
            serving.crashes
        } else {
            0
        };
        ctx.now.plus(backoff_ms(crashes.saturating_add(1)))
    });
    let mut events = vec![Event::Ended {
        app: app.clone(),
        release,
        ordinal,
        ending: ending.clone(),
        reason: bounded(reason, REASON_BYTES_MAX),
        restart_at,
    }];
    let rest = Serving {
        live: serving
            .live
            .iter()
            .copied()
            .filter(|live| *live != (release, ordinal))
            .collect(),
        ..serving
    };
    if let Some(number) = rest.rollout
        && ROLLOUTS.expect(view, &(app.clone(), number))?.step == Step::Draining
        && !draining(view, app, &rest)?
    {
        events.push(Event::Finished {
            app: app.clone(),
            rollout: number,
        });
    }
    Ok(Accepted::events(events))
}

/// A new instance for a rollout.
fn placed(
    view: &dyn View,
    app: &Name,
    rollout: RolloutNumber,
    release: releases::Number,
    node: NodeId,
) -> Result<Event, Fault> {
    Ok(Event::Placed {
        app: app.clone(),
        rollout,
        release,
        ordinal: SERVING.expect(view, app)?.last_ordinal.next(),
        node,
    })
}

/// Has the instance of a rollout stopped that is not going to be active.
pub(super) fn let_go(view: &dyn View, app: &Name, rollout: &Rollout) -> Result<Vec<Event>, Fault> {
    let row = current_instance(view, app, rollout)?;
    Ok(match (row, rollout.release, rollout.instance) {
        (Some(row), Some(release), Some(ordinal)) if !row.state.is_end() => vec![Event::Draining {
            app: app.clone(),
            release,
            ordinal,
        }],
        _ => Vec::new(),
    })
}

fn current_instance(view: &dyn View, app: &Name, rollout: &Rollout) -> Result<Option<Instance>, Fault> {
    match (rollout.release, rollout.instance) {
        (Some(release), Some(ordinal)) => query::instance(view, app, release, ordinal),
        _ => Ok(None),
    }
}
