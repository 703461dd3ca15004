use super::types::*;
use crate::check::Violation;
use crate::machines::registry;
use crate::store::{Fault, View};

/// The plan, if there is one.
pub fn plan(view: &dyn View) -> Result<Option<StoredPlan>, Fault> {
    PLAN.get(view, &())
}

/// The slots of a rack: the plan's, or without one every index that there can be.
pub fn slots(view: &dyn View) -> Result<Slots, Fault> {
    let without_plan = Slots {
        boot: 0,
        last: registry::INDEX_MAX,
    };
    Ok(plan(view)?.map_or(without_plan, |stored| stored.plan.slots()))
}

/// The stored plan can be used.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    if let Some(Err(error)) = plan(view)?.map(|stored| stored.plan.check()) {
        violations.push(Violation::new("ipam", error.to_string()));
    }
    Ok(())
}
