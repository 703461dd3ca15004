//! What always holds of builds.

use super::types::*;
use crate::check::Violation;
use crate::deployments::apps;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Builds are of apps that exist, say when they were where they are, and are no more than are kept.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("builds", what));
    let mut counts = BTreeMap::new();
    BUILDS.scan(view, &Range::all(), Order::Ascending, |(app, number), build| {
        if apps::get(view, &app)?.is_none() {
            broken(format!("build {number} is of app `{app}`, which does not exist"));
        }
        let (started, finished) = match build.state {
            State::Queued => (false, false),
            State::Running { .. } => (true, false),
            State::Succeeded { .. } | State::Failed { .. } => (true, true),
        };
        let consistent = build.started_at.is_some() == started
            && build.finished_at.is_some() == finished
            && (build.attempt > 0) == started
            && build.inputs.commit.is_valid();
        if !consistent {
            broken(format!(
                "build {number} of app `{app}` contradicts itself: {build:?}"
            ));
        }
        *counts.entry(app).or_insert(0) += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    for (app, count) in counts {
        if count > KEPT_MAX {
            broken(format!("app `{app}` has {count} builds"));
        }
    }
    Ok(())
}
