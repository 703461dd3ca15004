//! What always holds of instances of services.

use super::command::check_registered;
use super::types::*;
use crate::check::Violation;
use crate::command::Stop;
use crate::ids::Revision;
use crate::store::{Fault, Order, View};
use crate::system;
use crate::table::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Instances keep the rules of what can be registered, their deadlines follow from their health, and the index and the
/// summaries are those of the instances.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("catalog", what));
    let now = system::clock(view)?.now;
    let mut deadlines = BTreeSet::new();
    let mut services: BTreeMap<String, (u32, u32, Revision)> = BTreeMap::new();
    INSTANCES.scan(view, &Range::all(), Order::Ascending, |key, instance| {
        let id = Id::from(key);
        match check_registered(&id, &instance.spec) {
            Ok(()) => {}
            Err(Stop::Refuse(refusal)) => broken(refusal.to_string()),
            Err(Stop::Fault(fault)) => return Err(fault),
        }
        let spec = &instance.spec;
        let follows = match instance.health {
            Health::Passing => instance.deadline == spec.ttl_ms.map(|ms| instance.renewed.plus(ms)),
            Health::Critical => instance.deadline.is_some() == spec.deregister_after_ms.is_some(),
        };
        if !follows || instance.created > instance.changed() || instance.renewed > now {
            broken(format!("instance `{id}` contradicts itself: {instance:?}"));
        }
        deadlines.extend(instance.deadline.map(|deadline| {
            let Id { service, instance } = id.clone();
            (deadline.0, service, instance)
        }));
        let (count, serving, changed) = services.entry(id.service).or_default();
        *count += 1;
        *serving += u32::from(instance.serves());
        *changed = (*changed).max(instance.changed());
        Ok(ControlFlow::Continue(()))
    })?;
    let indexed = DEADLINES.list(view, &Range::all(), usize::MAX)?;
    if !indexed.into_iter().map(|(key, ())| key).eq(deadlines) {
        broken("the deadlines are not those of the instances".to_owned());
    }
    let listed = SERVICES.list(view, &Range::all(), usize::MAX)?;
    let same = listed.len() == services.len()
        && listed.iter().zip(&services).all(|(listed, counted)| {
            let ((name, service), (counted, (count, serving, changed))) = (listed, counted);
            (name, service.instances, service.serving) == (counted, *count, *serving)
                && service.modified >= *changed
        });
    if !same {
        broken(format!(
            "the services are {listed:?}; the instances make them {services:?}"
        ));
    }
    Ok(())
}
