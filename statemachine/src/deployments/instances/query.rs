use super::types::*;
use crate::deployments::apps::{self, Name, Route};
use crate::deployments::releases;
use crate::ids::Revision;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A rollout of an app.
pub fn rollout(view: &dyn View, app: &Name, number: RolloutNumber) -> Result<Option<Rollout>, Fault> {
    ROLLOUTS.get(view, &(app.clone(), number))
}

/// One page of rollouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollouts {
    /// Newest first.
    pub rollouts: Vec<(RolloutNumber, Rollout)>,
    /// Where to go on, if there is more: before this one.
    pub next: Option<RolloutNumber>,
}

/// The rollouts of an app before `after`, newest first, at most `limit`.
pub fn rollouts(
    view: &dyn View,
    app: &Name,
    after: Option<RolloutNumber>,
    limit: usize,
) -> Result<Rollouts, Fault> {
    let mut page = Rollouts {
        rollouts: Vec::new(),
        next: None,
    };
    let mut range = Range::within(app);
    if let Some(after) = after {
        range = range.below(&(app.clone(), after));
    }
    ROLLOUTS.scan(view, &range, Order::Descending, |(_, number), row| {
        if page.rollouts.len() == limit {
            page.next = page.rollouts.last().map(|(number, _)| *number);
            return Ok(ControlFlow::Break(()));
        }
        page.rollouts.push((number, row));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// One page of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// With their numbers, newest first.
    pub failures: Vec<(u64, Failure)>,
    /// Where to go on, if there is more: before this one.
    pub next: Option<u64>,
}

/// The failures of an app before `after`, newest first, at most `limit`.
pub fn failures(view: &dyn View, app: &Name, after: Option<u64>, limit: usize) -> Result<Failures, Fault> {
    let mut page = Failures {
        failures: Vec::new(),
        next: None,
    };
    let mut range = Range::within(app);
    if let Some(after) = after {
        range = range.below(&(app.clone(), after));
    }
    FAILURES.scan(view, &range, Order::Descending, |(_, number), row| {
        if page.failures.len() == limit {
            page.next = page.failures.last().map(|(number, _)| *number);
            return Ok(ControlFlow::Break(()));
        }
        page.failures.push((number, row));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// An instance of an app.
pub fn instance(
    view: &dyn View,
    app: &Name,
    release: releases::Number,
    ordinal: Ordinal,
) -> Result<Option<Instance>, Fault> {
    INSTANCES.get(view, &(app.clone(), release, ordinal))
}

/// Where a listing of instances goes on: after this one.
pub type InstanceCursor = (Name, releases::Number, Ordinal);

/// One page of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instances {
    /// In order of app, release and ordinal.
    pub instances: Vec<(InstanceCursor, Instance)>,
    /// Where to go on, if there is more.
    pub next: Option<InstanceCursor>,
}

/// The instances of an app, or of all apps, after `after`, at most `limit`; those that ended are among them for a
/// while.
pub fn instances(
    view: &dyn View,
    app: Option<&Name>,
    after: Option<&InstanceCursor>,
    limit: usize,
) -> Result<Instances, Fault> {
    let mut range = app.map_or(Range::all(), Range::within);
    if let Some(after) = after {
        range = range.after(after);
    }
    let mut instances = INSTANCES.list(view, &range, limit.saturating_add(1))?;
    let more = instances.len() > limit;
    instances.truncate(limit);
    let next = instances.last().filter(|_| more).map(|(key, _)| key.clone());
    Ok(Instances { instances, next })
}

/// What of an app is under way and what serves; `None` before its first rollout.
pub fn serving(view: &dyn View, app: &Name) -> Result<Option<Serving>, Fault> {
    SERVING.get(view, app)
}

/// Where a listing of what serves goes on: after this app.
pub type ServingCursor = Name;

/// One page of what serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingPage {
    /// In order of app.
    pub apps: Vec<(Name, Serving)>,
    /// Where to go on, if there is more.
    pub next: Option<ServingCursor>,
}

/// What is under way and what serves, of the apps after `after`, at most `limit`.
pub fn serving_page(
    view: &dyn View,
    after: Option<&ServingCursor>,
    limit: usize,
) -> Result<ServingPage, Fault> {
    let range = after.map_or(Range::all(), |after| Range::all().after(after));
    let mut apps = SERVING.list(view, &range, limit.saturating_add(1))?;
    let more = apps.len() > limit;
    apps.truncate(limit);
    let next = apps.last().filter(|_| more).map(|(name, _)| name.clone());
    Ok(ServingPage { apps, next })
}

/// Where requests go: the whole table, for an ingress to keep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// The last change to deployments that it shows.
    pub revision: Revision,
    /// Every route that is declared, or served by a release that had it.
    pub routes: BTreeMap<Route, Target>,
    /// The active instance of every app that has one.
    pub active: BTreeMap<Name, Active>,
}

/// What a route leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whose route it is.
    pub app: Name,
    /// Whether the app's active release has the route; one that was declared since waits for a deploy.
    pub released: bool,
}

/// The routing table as of this view. Its size is that of all routes, so it is for keeping, not for each request.
pub fn routing(view: &dyn View) -> Result<Routing, Fault> {
    let mut routing = Routing {
        revision: crate::deployments::changed(view)?,
        ..Routing::default()
    };
    for (route, app) in apps::routes(view)? {
        let released = false;
        routing.routes.insert(route, Target { app, released });
    }
    SERVING.scan(view, &Range::all(), Order::Ascending, |app, serving| {
        let Some(active) = serving.active else {
            return Ok(ControlFlow::Continue(()));
        };
        for route in &active.routes {
            let target = routing.routes.entry(route.clone()).or_insert(Target {
                app: app.clone(),
                released: true,
            });
            target.released |= target.app == app;
        }
        routing.active.insert(app, active);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(routing)
}
