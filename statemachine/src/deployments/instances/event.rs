use super::types::*;
use crate::command::Context;
use crate::deployments::apps::{Commit, Name};
use crate::deployments::{builds, releases};
use crate::ids::{Generation, Millis, NodeId};
use crate::store::Fault;
use crate::table::Range;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to rollouts and instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A rollout was asked for.
    Queued {
        /// Which app.
        app: Name,
        /// Its number.
        rollout: RolloutNumber,
        /// What for.
        kind: Kind,
        /// The generation of the app.
        generation: Generation,
        /// The release, where that is known from the start.
        release: Option<releases::Number>,
        /// Its commit.
        commit: Option<Commit>,
        /// Its build.
        build: Option<builds::Number>,
        /// When it begins at the earliest.
        not_before: Millis,
    },
    /// A node works on a rollout.
    Assigned {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// Which node.
        node: NodeId,
    },
    /// The source is there.
    Fetched {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// What the ref meant.
        commit: Commit,
        /// The build of it.
        build: builds::Number,
    },
    /// The release is there, and an instance of it is to be started.
    Placed {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// What it runs.
        release: releases::Number,
        /// Which instance.
        ordinal: Ordinal,
        /// Where.
        node: NodeId,
    },
    /// The process of the instance was started.
    Started {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// The process.
        process: Process,
    },
    /// The instance answered its health check.
    Checked {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
    },
    /// The routes lead to the instance.
    Switched {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
    },
    /// A rollout is done.
    Finished {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
    },
    /// The step that a rollout is at failed.
    Failed {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// Why.
        reason: String,
        /// When it is tried again; `None` when it is not, and the rollout has failed.
        next_attempt_at: Option<Millis>,
    },
    /// A rollout is no longer wanted.
    Superseded {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// Why.
        reason: String,
    },
    /// An instance is to finish its requests and stop.
    Draining {
        /// Of which app.
        app: Name,
        /// Of which release.
        release: releases::Number,
        /// Which.
        ordinal: Ordinal,
    },
    /// An instance is gone.
    Ended {
        /// Of which app.
        app: Name,
        /// Of which release.
        release: releases::Number,
        /// Which.
        ordinal: Ordinal,
        /// How.
        ending: Ending,
        /// The same for people.
        reason: String,
        /// When the app may be restarted, if the instance served: then this was a crash.
        restart_at: Option<Millis>,
    },
    /// Rollouts, failures and instances of an app were forgotten.
    Forgotten {
        /// Which app.
        app: Name,
    },
}

impl Event {
    /// The app that it is about.
    pub fn app(&self) -> &Name {
        match self {
            Event::Queued { app, .. }
            | Event::Assigned { app, .. }
            | Event::Fetched { app, .. }
            | Event::Placed { app, .. }
            | Event::Started { app, .. }
            | Event::Checked { app, .. }
            | Event::Switched { app, .. }
            | Event::Finished { app, .. }
            | Event::Failed { app, .. }
            | Event::Superseded { app, .. }
            | Event::Draining { app, .. }
            | Event::Ended { app, .. }
            | Event::Forgotten { app } => app,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    crate::deployments::touch(txn, ctx);
    match event {
        Event::Queued { .. } => queued(txn, ctx, event),
        Event::Assigned { app, rollout, node } => change(txn, ctx, app, *rollout, |row| {
            row.node = Some(*node);
            row.attempt += 1;
            row.instance = None;
            enter(row, ctx, Step::Fetching);
        }),
        Event::Fetched {
            app,
            rollout,
            commit,
            build,
        } => change(txn, ctx, app, *rollout, |row| {
            row.commit = Some(commit.clone());
            row.build = Some(*build);
            enter(row, ctx, Step::Building);
        }),
        Event::Placed {
            app,
            rollout,
            release,
            ordinal,
            node,
        } => placed(txn, ctx, (app, *release, *ordinal), *rollout, *node),
        Event::Started {
            app,
            rollout,
            process,
        } => {
            change_current(txn, ctx, app, *rollout, |row| row.process = Some(process.clone()))?;
            change(txn, ctx, app, *rollout, |row| enter(row, ctx, Step::Checking))
        }
        Event::Checked { app, rollout } => {
            change_current(txn, ctx, app, *rollout, |row| row.state = State::Healthy)?;
            change(txn, ctx, app, *rollout, |row| enter(row, ctx, Step::Switching))
        }
        Event::Switched { app, rollout } => switched(txn, ctx, app, *rollout),
        Event::Finished { app, rollout } => {
            change(txn, ctx, app, *rollout, |row| enter(row, ctx, Step::Done))?;
            change_serving(txn, app, |serving| serving.rollout = None)
        }
        Event::Failed {
            app,
            rollout,
            reason,
            next_attempt_at,
        } => failed(txn, ctx, (app, *rollout), reason, *next_attempt_at),
        Event::Superseded { app, rollout, reason } => {
            change(txn, ctx, app, *rollout, |row| {
                row.reason = Some(reason.clone());
                enter(row, ctx, Step::Superseded);
            })?;
            change_serving(txn, app, |serving| serving.rollout = None)
        }
        Event::Draining {
            app,
            release,
            ordinal,
        } => {
            change_instance(txn, ctx, (app, *release, *ordinal), |row| {
                row.state = State::Draining;
                row.draining_from = Some(ctx.now);
            })?;
            change_serving(txn, app, |serving| {
                serving.active.take_if(|active| active.ordinal == *ordinal);
            })
        }
        Event::Ended { .. } => ended(txn, ctx, event),
        Event::Forgotten { app } => forgotten(txn, app),
    }
}

fn queued(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    let Event::Queued {
        app,
        rollout: number,
        kind,
        generation,
        release,
        commit,
        build,
        not_before,
    } = event
    else {
        return Err(Fault::invariant("only a queued rollout can be queued"));
    };
    let mut rollout = Rollout {
        kind: kind.clone(),
        generation: *generation,
        commit: commit.clone(),
        build: *build,
        release: *release,
        instance: None,
        step: Step::Queued,
        attempt: 0,
        failures: 0,
        node: None,
        next_attempt_at: *not_before,
        trail: Vec::new(),
        reason: None,
        requested_by: ctx.actor.clone(),
        requested_at: ctx.now,
        created: ctx.revision,
        modified: ctx.revision,
    };
    enter(&mut rollout, ctx, Step::Queued);
    ROLLOUTS.put(txn, &(app.clone(), *number), &rollout);
    if let Some(old) = number.0.checked_sub(ROLLOUTS_KEPT_MAX) {
        ROLLOUTS.delete(txn, &(app.clone(), RolloutNumber(old)));
    }
    let mut serving = SERVING.get(txn, app)?.unwrap_or_default();
    serving.rollout = Some(*number);
    serving.last_rollout = *number;
    SERVING.put(txn, app, &serving);
    Ok(())
}

fn placed(
    txn: &mut Txn<'_>,
    ctx: &Context,
    (app, release, ordinal): (&Name, releases::Number, Ordinal),
    number: RolloutNumber,
    node: NodeId,
) -> Result<(), Fault> {
    let instance = Instance {
        rollout: number,
        node,
        state: State::Starting,
        process: None,
        placed_at: ctx.now,
        active_from: None,
        draining_from: None,
        ended_at: None,
        reason: None,
        created: ctx.revision,
        modified: ctx.revision,
    };
    INSTANCES.put(txn, &(app.clone(), release, ordinal), &instance);
    change_serving(txn, app, |serving| {
        serving.last_ordinal = ordinal;
        serving.live.push((release, ordinal));
    })?;
    change(txn, ctx, app, number, |row| {
        row.release = Some(release);
        row.instance = Some(ordinal);
        if let Kind::Deploy { spec, .. } = &mut row.kind {
            *spec = None;
        }
        enter(row, ctx, Step::Starting);
    })
}

fn switched(txn: &mut Txn<'_>, ctx: &Context, app: &Name, number: RolloutNumber) -> Result<(), Fault> {
    let rollout = ROLLOUTS.expect(txn, &(app.clone(), number))?;
    let (release, ordinal) = current(&rollout)?;
    let instance = INSTANCES.expect(txn, &(app.clone(), release, ordinal))?;
    let process = instance.process.ok_or_else(|| {
        Fault::invariant(format!(
            "instance {ordinal} of app {app} is healthy without a process"
        ))
    })?;
    let spec = releases::get(txn, app, release)?
        .ok_or_else(|| Fault::invariant(format!("release {release} of app {app} runs and is not kept")))?
        .spec;
    change_instance(txn, ctx, (app, release, ordinal), |row| {
        row.state = State::Active;
        row.active_from = Some(ctx.now);
    })?;
    change_serving(txn, app, |serving| {
        serving.active = Some(Active {
            release,
            ordinal,
            node: instance.node,
            address: process.address,
            port: process.port,
            protocol: spec.protocol,
            routes: spec.routes,
            since: ctx.revision,
        });
        // Another release starts with a clean record; a restart of the same one does not.
        if serving.release != Some(release) {
            serving.crashes = 0;
        }
        serving.release = Some(release);
        serving.good.insert(release);
        if serving.good.len() > GOOD_KEPT_MAX {
            serving.good.pop_first();
        }
    })?;
    change(txn, ctx, app, number, |row| enter(row, ctx, Step::Draining))
}

fn failed(
    txn: &mut Txn<'_>,
    ctx: &Context,
    (app, number): (&Name, RolloutNumber),
    reason: &str,
    next_attempt_at: Option<Millis>,
) -> Result<(), Fault> {
    let rollout = ROLLOUTS.expect(txn, &(app.clone(), number))?;
    let failure = Failure {
        rollout: number,
        step: Some(rollout.step),
        attempt: rollout.attempt,
        node: rollout.node,
        reason: reason.to_owned(),
        at: ctx.now,
        next_attempt_at,
    };
    record(txn, app, &failure)?;
    change(txn, ctx, app, number, |row| {
        row.reason = Some(reason.to_owned());
        row.failures = row.failures.saturating_add(1);
        row.instance = None;
        match next_attempt_at {
            None => enter(row, ctx, Step::Failed),
            Some(at) => {
                row.next_attempt_at = at;
                row.attempt += 1;
                // From starting on, the next attempt begins with another instance: an event of its own.
                if matches!(row.step, Step::Fetching | Step::Building) {
                    enter(row, ctx, Step::Fetching);
                }
            }
        }
    })?;
    if next_attempt_at.is_none() {
        change_serving(txn, app, |serving| serving.rollout = None)?;
    }
    Ok(())
}

fn ended(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    let Event::Ended {
        app,
        release,
        ordinal,
        ending,
        reason,
        restart_at,
    } = event
    else {
        return Err(Fault::invariant("only an ended instance can end"));
    };
    let key = (*release, *ordinal);
    change_instance(txn, ctx, (app, *release, *ordinal), |row| {
        row.state = match ending {
            Ending::Lost => State::Lost,
            Ending::Stopped | Ending::Exited => State::Stopped,
        };
        row.ended_at = Some(ctx.now);
        row.reason = Some(reason.clone());
    })?;
    let instance = INSTANCES.expect(txn, &(app.clone(), *release, *ordinal))?;
    let mut crashes = 0;
    change_serving(txn, app, |serving| {
        serving.active.take_if(|active| active.ordinal == *ordinal);
        serving.live.retain(|live| *live != key);
        serving.ended.push(key);
        if let Some(at) = restart_at {
            let served_ms = ctx.now.since(instance.active_from.unwrap_or(ctx.now));
            let before = if served_ms < CRASH_WINDOW_MS {
                serving.crashes
            } else {
                0
            };
            serving.crashes = before.saturating_add(1);
            serving.restart_at = *at;
            crashes = serving.crashes;
        }
    })?;
    forget_ended(txn, app)?;
    if restart_at.is_some() {
        let failure = Failure {
            rollout: instance.rollout,
            step: None,
            attempt: crashes,
            node: Some(instance.node),
            reason: reason.clone(),
            at: ctx.now,
            next_attempt_at: *restart_at,
        };
        record(txn, app, &failure)?;
    }
    Ok(())
}

/// Lets go of the rows of instances that ended long ago.
fn forget_ended(txn: &mut Txn<'_>, app: &Name) -> Result<(), Fault> {
    let mut serving = SERVING.expect(txn, app)?;
    while serving.ended.len() > ENDED_KEPT_MAX {
        let (release, ordinal) = serving.ended.remove(0);
        INSTANCES.delete(txn, &(app.clone(), release, ordinal));
    }
    SERVING.put(txn, app, &serving);
    Ok(())
}

/// Keeps a failure, and lets go of the one that is [`FAILURES_KEPT_MAX`] older.
fn record(txn: &mut Txn<'_>, app: &Name, failure: &Failure) -> Result<(), Fault> {
    let mut serving = SERVING.expect(txn, app)?;
    serving.last_failure += 1;
    FAILURES.put(txn, &(app.clone(), serving.last_failure), failure);
    if let Some(old) = serving.last_failure.checked_sub(FAILURES_KEPT_MAX) {
        FAILURES.delete(txn, &(app.clone(), old));
    }
    SERVING.put(txn, app, &serving);
    Ok(())
}

fn forgotten(txn: &mut Txn<'_>, app: &Name) -> Result<(), Fault> {
    let range = Range::within(app);
    for (key, _) in ROLLOUTS.list(txn, &range, usize::MAX)? {
        ROLLOUTS.delete(txn, &key);
    }
    for (key, _) in INSTANCES.list(txn, &range, usize::MAX)? {
        INSTANCES.delete(txn, &key);
    }
    for (key, _) in FAILURES.list(txn, &range, usize::MAX)? {
        FAILURES.delete(txn, &key);
    }
    SERVING.delete(txn, app);
    Ok(())
}

/// Comes to a step, and records it.
fn enter(row: &mut Rollout, ctx: &Context, step: Step) {
    row.step = step;
    if row.trail.len() == TRAIL_MAX {
        row.trail.remove(0);
    }
    row.trail.push(Passage {
        step,
        attempt: row.attempt,
        node: row.node,
        at: ctx.now,
    });
}

fn change(
    txn: &mut Txn<'_>,
    ctx: &Context,
    app: &Name,
    number: RolloutNumber,
    with: impl FnOnce(&mut Rollout),
) -> Result<(), Fault> {
    let key = (app.clone(), number);
    let mut row = ROLLOUTS.expect(txn, &key)?;
    with(&mut row);
    row.modified = ctx.revision;
    ROLLOUTS.put(txn, &key, &row);
    Ok(())
}

fn change_serving(txn: &mut Txn<'_>, app: &Name, with: impl FnOnce(&mut Serving)) -> Result<(), Fault> {
    let mut row = SERVING.expect(txn, app)?;
    with(&mut row);
    SERVING.put(txn, app, &row);
    Ok(())
}

fn current(rollout: &Rollout) -> Result<(releases::Number, Ordinal), Fault> {
    rollout
        .release
        .zip(rollout.instance)
        .ok_or_else(|| Fault::invariant(format!("a rollout at {} has no instance", rollout.step)))
}

fn change_current(
    txn: &mut Txn<'_>,
    ctx: &Context,
    app: &Name,
    number: RolloutNumber,
    with: impl FnOnce(&mut Instance),
) -> Result<(), Fault> {
    let rollout = ROLLOUTS.expect(txn, &(app.clone(), number))?;
    let (release, ordinal) = current(&rollout)?;
    change_instance(txn, ctx, (app, release, ordinal), with)
}

fn change_instance(
    txn: &mut Txn<'_>,
    ctx: &Context,
    (app, release, ordinal): (&Name, releases::Number, Ordinal),
    with: impl FnOnce(&mut Instance),
) -> Result<(), Fault> {
    let key = (app.clone(), release, ordinal);
    let mut row = INSTANCES.expect(txn, &key)?;
    with(&mut row);
    row.modified = ctx.revision;
    INSTANCES.put(txn, &key, &row);
    Ok(())
}
