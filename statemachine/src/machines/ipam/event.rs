use super::types::*;
use crate::command::Context;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to the address plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// There is a plan.
    PlanSet {
        /// The whole of it.
        plan: AddressPlan,
    },
    /// There is no plan any more.
    PlanCleared,
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    match event {
        Event::PlanSet { plan } => {
            let before = PLAN.get(txn, &())?;
            let stored = StoredPlan {
                plan: plan.clone(),
                created: before.map_or(ctx.revision, |stored| stored.created),
                modified: ctx.revision,
            };
            PLAN.put(txn, &(), &stored);
        }
        Event::PlanCleared => PLAN.delete(txn, &()),
    }
    Ok(())
}
