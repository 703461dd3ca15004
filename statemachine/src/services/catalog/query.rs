use super::types::*;
use crate::ids::Millis;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::ops::ControlFlow;

/// The instance `id`.
pub fn get(view: &dyn View, id: &Id) -> Result<Option<Instance>, Fault> {
    INSTANCES.get(view, &id.key())
}

/// The summary of the service `name`; `None` where it has no instance.
pub fn service(view: &dyn View, name: &str) -> Result<Option<Service>, Fault> {
    SERVICES.get(view, &name.to_owned())
}

/// One page of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceListing {
    /// By name.
    pub services: Vec<(String, Service)>,
    /// Where to go on, if there is more.
    pub next: Option<String>,
}

/// The services after `after`, at most `limit`.
pub fn services(view: &dyn View, after: Option<&str>, limit: usize) -> Result<ServiceListing, Fault> {
    let range = match after {
        Some(after) => Range::all().after(&after.to_owned()),
        None => Range::all(),
    };
    let mut services = SERVICES.list(view, &range, limit.saturating_add(1))?;
    let more = services.len() > limit;
    services.truncate(limit);
    let next = services.last().filter(|_| more).map(|(name, _)| name.clone());
    Ok(ServiceListing { services, next })
}

/// Which instances of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that clients are sent to.
    pub serving: bool,
    /// Only those that carry all of these tags.
    pub tags: Vec<String>,
}

impl Filter {
    /// Whether `instance` is one of them.
    pub fn matches(&self, instance: &Instance) -> bool {
        (!self.serving || instance.serves()) && self.tags.iter().all(|tag| instance.spec.tags.contains(tag))
    }
}

/// One page of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceListing {
    /// By service and instance.
    pub instances: Vec<(Id, Instance)>,
    /// Where to go on, if there may be more.
    pub next: Option<Id>,
}

/// The instances of `service` after the instance `after` that pass `filter`, at most `limit`. Looks at no more than
/// [`SERVICE_INSTANCES_MAX`] rows.
pub fn instances(
    view: &dyn View,
    service: &str,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<InstanceListing, Fault> {
    let service = service.to_owned();
    let mut range = Range::within(&service);
    if let Some(after) = after {
        range = range.after(&(service, after.to_owned()));
    }
    page(view, &range, limit, |instance| filter.matches(instance))
}

/// The instances of all services after `after`, at most `limit`.
pub fn all(view: &dyn View, after: Option<&Id>, limit: usize) -> Result<InstanceListing, Fault> {
    let range = match after {
        Some(after) => Range::all().after(&after.key()),
        None => Range::all(),
    };
    page(view, &range, limit, |_| true)
}

fn page(
    view: &dyn View,
    range: &Range,
    limit: usize,
    wanted: impl Fn(&Instance) -> bool,
) -> Result<InstanceListing, Fault> {
    let mut instances: Vec<(Id, Instance)> = Vec::new();
    let mut next = None;
    INSTANCES.scan(view, range, Order::Ascending, |key, instance| {
        if !wanted(&instance) {
            return Ok(ControlFlow::Continue(()));
        }
        if instances.len() == limit {
            next = instances.last().map(|(id, _)| id.clone());
            return Ok(ControlFlow::Break(()));
        }
        instances.push((Id::from(key), instance));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(InstanceListing { instances, next })
}

/// The deadlines up to and including `until`, after `after`, earliest first, at most `limit`.
pub fn due(view: &dyn View, until: Millis, after: Option<&Due>, limit: usize) -> Result<Vec<Due>, Fault> {
    let mut range = Range::all();
    if until.0 < u64::MAX {
        range = range.below(&(until.0 + 1));
    }
    if let Some(Due { deadline, id }) = after {
        range = range.after(&(deadline.0, id.service.clone(), id.instance.clone()));
    }
    let rows = DEADLINES.list(view, &range, limit)?;
    let due = |((deadline, service, instance), ())| Due {
        deadline: Millis(deadline),
        id: Id { service, instance },
    };
    Ok(rows.into_iter().map(due).collect())
}
