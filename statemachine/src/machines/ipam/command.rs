use super::types::*;
use super::{Event, PlanError, query};
use crate::command::{Accepted, Context, Decision, Stop};
use crate::ids::Revision;
use crate::machines::registry;
use crate::store::View;
use serde::{Deserialize, Serialize};

/// Demands on the address plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Make this the plan.
    SetPlan {
        /// The whole of it.
        plan: AddressPlan,
        /// Only if the plan's modified revision is this; 0 for "there is none".
        expect: Option<Revision>,
    },
    /// Have no plan: machines are registered without addresses.
    ClearPlan {
        /// Only if the plan's modified revision is this.
        expect: Option<Revision>,
    },
}

/// Why a demand on the address plan is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It cannot be used.
    #[error(transparent)]
    Unsound(PlanError),
    /// It would renumber machines.
    #[error(
        "the address plan is fixed while machines are registered, since their addresses follow from it: retire and \
         delete them first"
    )]
    InUse,
    /// A compare-and-set lost.
    #[error("the address plan was last modified at revision {actual}, not at {expected}")]
    RevisionMismatch {
        /// What the caller had read.
        expected: Revision,
        /// What is there; 0 where nothing is.
        actual: Revision,
    },
}

/// Decides a demand on the address plan.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    let current = query::plan(view)?;
    let (Command::SetPlan { expect, .. } | Command::ClearPlan { expect }) = command;
    let actual = current.as_ref().map_or(Revision(0), |stored| stored.modified);
    if let Some(expected) = expect.filter(|expected| *expected != actual) {
        return Err(Stop::Refuse(Refusal::RevisionMismatch { expected, actual }));
    }
    let (wanted, event) = match command {
        Command::SetPlan { plan, .. } => {
            plan.check()
                .map_err(|error| Stop::Refuse(Refusal::Unsound(error)))?;
            (Some(plan), Event::PlanSet { plan: plan.clone() })
        }
        Command::ClearPlan { .. } => (None, Event::PlanCleared),
    };
    if wanted == current.as_ref().map(|stored| &stored.plan) {
        return Ok(Accepted::unchanged());
    }
    if registry::exists_any(view)? {
        return Err(Stop::Refuse(Refusal::InUse));
    }
    Ok(Accepted::event(event))
}
