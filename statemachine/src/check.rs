//! The cross-area checker: walks every rule that holds between rows. Runs after every step of scripts, simulations
//! and fault tests; a clean state has no violations.
//!
//! Each area walks its own rules in `pub(crate) fn check(view, violations)`, and is called here. A rule over two areas
//! is walked by the one that depends on the other.

use crate::store::{Fault, Order, View};
use crate::{deployments, dump, machines, objects, services};
use std::ops::ControlFlow;

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The area whose rule it is.
    pub area: &'static str,
    /// Which rule, and which rows break it.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(area: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Violation { area, what }
    }
}

/// Walks all rules.
pub fn check(view: &dyn View) -> Result<Vec<Violation>, Fault> {
    let mut violations = Vec::new();
    every_row_decodes(view, &mut violations)?;
    for check in [
        services::kv::check,
        services::catalog::check,
        objects::check,
        machines::ipam::check,
        machines::registry::check,
        machines::netboot::check,
        deployments::apps::check,
        deployments::builds::check,
        deployments::releases::check,
        deployments::instances::check,
    ] {
        check(view, &mut violations)?;
    }
    Ok(violations)
}

/// Every row belongs to a table and decodes as its row.
fn every_row_decodes(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    view.scan(&[], &[], Order::Ascending, &mut |key, value| {
        if let Err(fault) = dump::row(key, value) {
            violations.push(Violation::new("store", format!("row {key:02x?}: {fault}")));
        }
        ControlFlow::Continue(())
    })
}
