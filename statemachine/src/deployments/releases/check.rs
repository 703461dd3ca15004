//! What always holds of releases.

use super::types::*;
use crate::check::Violation;
use crate::deployments::{apps, builds, instances};
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::ops::ControlFlow;

/// Releases are of apps that exist, made by rollouts that were, from builds with the same inputs; what an app runs or
/// would run again is kept.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("releases", what));
    RELEASES.scan(view, &Range::all(), Order::Ascending, |(app, number), release| {
        let last_rollout = instances::serving(view, &app)?.map(|serving| serving.last_rollout);
        let deleting = apps::get(view, &app)?.map(|app| app.deleting);
        if deleting.is_none() || (deleting == Some(false) && last_rollout < Some(release.rollout)) {
            broken(format!(
                "release {number} of app `{app}` comes from nowhere: {release:?}"
            ));
        }
        if let Some(build) = builds::get(view, &app, release.build)?
            && (build.inputs != release.inputs() || !matches!(build.state, builds::State::Succeeded { .. }))
        {
            broken(format!(
                "release {number} of app `{app}` is not what its build made: {build:?}"
            ));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut after = None;
    loop {
        let page = instances::serving_page(view, after.as_ref(), 100)?;
        for (app, serving) in page.apps {
            let live = serving.live.iter().map(|(release, _)| *release);
            for number in live.chain(serving.release) {
                if !RELEASES.contains(view, &(app.clone(), number))? {
                    broken(format!("app `{app}` runs release {number}, which is not kept"));
                }
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
