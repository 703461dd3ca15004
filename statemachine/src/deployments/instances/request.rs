//! What users ask for: deciding which rollout there is to be.

use super::command::{Refusal, refuse};
use super::types::*;
use super::{Event, query};
use crate::command::{self, Accepted, Decision, Stop};
use crate::deployments::apps::{self, App, Name};
use crate::deployments::releases::{self, Release};
use crate::ids::Millis;
use crate::store::View;

pub(super) fn deploy(view: &dyn View, name: &Name, reference: Option<&str>) -> Decision<Event, Refusal> {
    let app = running(view, name)?;
    let reference = reference.unwrap_or(&app.spec.source.reference);
    apps::check_reference(reference).map_err(|refusal| Stop::Refuse(Refusal::Reference(refusal)))?;
    let kind = Kind::Deploy {
        reference: reference.to_owned(),
        spec: Some(Box::new(app.spec.clone())),
    };
    queue(view, name, &app, kind, None, Millis(0))
}

pub(super) fn rollback(
    view: &dyn View,
    name: &Name,
    release: Option<releases::Number>,
) -> Decision<Event, Refusal> {
    let app = running(view, name)?;
    let serving = query::serving(view, name)?.unwrap_or_default();
    let earlier = || serving.good.range(..serving.release?).next_back().copied();
    let Some(number) = release.or_else(earlier) else {
        return refuse(Refusal::NoEarlierRelease { app: name.clone() });
    };
    let release = existing_release(view, name, number)?;
    for route in &release.spec.routes {
        if let Some(owner) = apps::route_owner(view, route)?.filter(|owner| owner != name) {
            return refuse(Refusal::RouteTaken {
                app: name.clone(),
                release: number,
                route: route.clone(),
                owner,
            });
        }
    }
    queue(
        view,
        name,
        &app,
        Kind::Rollback,
        Some((number, release)),
        Millis(0),
    )
}

pub(super) fn restart(
    view: &dyn View,
    name: &Name,
    replaces: Option<Ordinal>,
    reason: &str,
) -> Decision<Event, Refusal> {
    let app = running(view, name)?;
    let serving = query::serving(view, name)?.unwrap_or_default();
    if let Some(rollout) = serving.rollout {
        let app = name.clone();
        return refuse(Refusal::Busy { app, rollout });
    }
    if serving.active.as_ref().map(|active| active.ordinal) != replaces {
        return refuse(Refusal::NotActive { app: name.clone() });
    }
    let Some(number) = serving.release else {
        return refuse(Refusal::NoRelease { app: name.clone() });
    };
    let release = existing_release(view, name, number)?;
    let kind = Kind::Restart {
        reason: bounded(reason, REASON_BYTES_MAX),
    };
    queue(
        view,
        name,
        &app,
        kind,
        Some((number, release)),
        serving.restart_at,
    )
}

/// Queues a rollout, after ending the one that is not finished.
fn queue(
    view: &dyn View,
    name: &Name,
    app: &App,
    kind: Kind,
    release: Option<(releases::Number, Release)>,
    not_before: Millis,
) -> Decision<Event, Refusal> {
    let serving = query::serving(view, name)?.unwrap_or_default();
    let number = serving.last_rollout.next();
    let mut events = Vec::new();
    if let Some(unfinished) = serving.rollout {
        events.extend(end_unfinished(
            view,
            name,
            unfinished,
            &format!("superseded by rollout {number}"),
        )?);
    }
    events.push(Event::Queued {
        app: name.clone(),
        rollout: number,
        kind,
        generation: app.generation,
        release: release.as_ref().map(|(number, _)| *number),
        commit: release.as_ref().map(|(_, release)| release.commit.clone()),
        build: release.map(|(_, release)| release.build),
        not_before,
    });
    let reply = command::Reply::Instances(Reply::Rollout(number));
    Ok(Accepted { events, reply })
}

/// Ends a rollout for which there is no more need. One that has switched already has done what it was for.
fn end_unfinished(
    view: &dyn View,
    app: &Name,
    number: RolloutNumber,
    reason: &str,
) -> Result<Vec<Event>, Stop<Refusal>> {
    let rollout = ROLLOUTS.expect(view, &(app.clone(), number))?;
    if rollout.step == Step::Draining {
        return Ok(vec![Event::Finished {
            app: app.clone(),
            rollout: number,
        }]);
    }
    let mut events = super::report::let_go(view, app, &rollout)?;
    events.push(Event::Superseded {
        app: app.clone(),
        rollout: number,
        reason: reason.to_owned(),
    });
    Ok(events)
}

pub(super) fn halt(view: &dyn View, name: &Name) -> Decision<Event, Refusal> {
    let Some(app) = apps::get(view, name)? else {
        return refuse(Refusal::AppNotFound { app: name.clone() });
    };
    if app.running {
        return refuse(Refusal::AppRunning { app: name.clone() });
    }
    let serving = query::serving(view, name)?.unwrap_or_default();
    let mut events = Vec::new();
    if let Some(unfinished) = serving.rollout {
        events.extend(end_unfinished(view, name, unfinished, "the app was stopped")?);
    }
    if let Some(active) = serving.active {
        events.push(Event::Draining {
            app: name.clone(),
            release: active.release,
            ordinal: active.ordinal,
        });
    }
    Ok(Accepted::events(events))
}

pub(super) fn forget(view: &dyn View, name: &Name) -> Decision<Event, Refusal> {
    let deleting = apps::get(view, name)?.is_some_and(|app| app.deleting);
    let serving = query::serving(view, name)?;
    let idle = serving
        .as_ref()
        .is_none_or(|serving| serving.live.is_empty() && serving.rollout.is_none());
    if !deleting || !idle {
        return refuse(Refusal::Kept { app: name.clone() });
    }
    Ok(match serving {
        Some(_) => Accepted::event(Event::Forgotten { app: name.clone() }),
        None => Accepted::unchanged(),
    })
}

fn running(view: &dyn View, name: &Name) -> Result<App, Stop<Refusal>> {
    match apps::get(view, name)? {
        None => refuse(Refusal::AppNotFound { app: name.clone() }),
        Some(app) if !app.running || app.deleting => refuse(Refusal::AppStopped { app: name.clone() }),
        Some(app) => Ok(app),
    }
}

fn existing_release(view: &dyn View, app: &Name, number: releases::Number) -> Result<Release, Stop<Refusal>> {
    match releases::get(view, app, number)? {
        Some(release) => Ok(release),
        None => refuse(Refusal::ReleaseNotFound {
            app: app.clone(),
            release: number,
        }),
    }
}
