//! What always holds of apps.

use super::types::*;
use super::validate::check_spec;
use crate::check::Violation;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Apps keep the rules of what can be declared, and the index of routes has exactly theirs.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("apps", what));
    let mut routes = BTreeMap::new();
    APPS.scan(view, &Range::all(), Order::Ascending, |name, app| {
        if let Err(refusal) = check_spec(&name, &app.spec) {
            broken(format!("app `{name}`: {refusal}"));
        }
        if app.deleting && (app.running || !app.spec.routes.is_empty()) {
            broken(format!("app `{name}` is being deleted, and runs or has routes"));
        }
        if app.created > app.modified || app.generation.0 == 0 {
            broken(format!("app `{name}` contradicts itself: {app:?}"));
        }
        for route in app.spec.routes {
            if let Some(other) = routes.insert((route.host, route.path), name.clone()) {
                broken(format!("apps `{other}` and `{name}` have a route in common"));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let indexed: BTreeMap<_, _> = ROUTES
        .list(view, &Range::all(), usize::MAX)?
        .into_iter()
        .collect();
    if indexed != routes {
        broken(format!(
            "the index of routes has {indexed:?}, apps have {routes:?}"
        ));
    }
    Ok(())
}
