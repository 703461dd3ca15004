//! What always holds of rollouts and instances.

use super::types::*;
use crate::check::Violation;
use crate::deployments::apps::{self, Name};
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Every app has at most one unfinished rollout and one active instance, and its summary says what the rows say.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut names = BTreeSet::new();
    let mut broken = Vec::new();
    SERVING.scan(view, &Range::all(), Order::Ascending, |app, serving| {
        let mut of_app = Vec::new();
        if apps::get(view, &app)?.is_none() {
            of_app.push("it does not exist".to_owned());
        }
        check_rollouts(view, &app, &serving, &mut of_app)?;
        check_instances(view, &app, &serving, &mut of_app)?;
        let failures = FAILURES.list(view, &Range::within(&app), usize::MAX)?;
        if failures.len() as u64 > FAILURES_KEPT_MAX
            || failures.last().map_or(0, |((_, number), _)| *number) != serving.last_failure
        {
            of_app.push(format!(
                "{} failures, the last is said to be {}",
                failures.len(),
                serving.last_failure
            ));
        }
        broken.extend(of_app.into_iter().map(|what| format!("app `{app}`: {what}")));
        names.insert(app);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut owned = |app: &Name, what: &str| {
        if !names.contains(app) {
            broken.push(format!(
                "{what} of app `{app}`, of which nothing serves or is under way"
            ));
        }
    };
    for ((app, _), _) in ROLLOUTS.list(view, &Range::all(), usize::MAX)? {
        owned(&app, "a rollout");
    }
    for ((app, _, _), _) in INSTANCES.list(view, &Range::all(), usize::MAX)? {
        owned(&app, "an instance");
    }
    for ((app, _), _) in FAILURES.list(view, &Range::all(), usize::MAX)? {
        owned(&app, "a failure");
    }
    violations.extend(broken.into_iter().map(|what| Violation::new("instances", what)));
    Ok(())
}

fn check_rollouts(
    view: &dyn View,
    app: &Name,
    serving: &Serving,
    broken: &mut Vec<String>,
) -> Result<(), Fault> {
    let rows = ROLLOUTS.list(view, &Range::within(app), usize::MAX)?;
    if rows.len() as u64 > ROLLOUTS_KEPT_MAX
        || rows.last().map(|((_, number), _)| *number) != Some(serving.last_rollout)
    {
        broken.push(format!(
            "{} rollouts, the last is said to be {}",
            rows.len(),
            serving.last_rollout
        ));
    }
    for ((_, number), row) in rows {
        if row.step.is_end() == (serving.rollout == Some(number)) {
            broken.push(format!(
                "rollout {number} is at {}, unfinished is {:?}",
                row.step, serving.rollout
            ));
        }
        if row.trail.last().map(|passage| passage.step) != Some(row.step) || row.trail.len() > TRAIL_MAX {
            broken.push(format!(
                "rollout {number} is at {}, which its trail does not end with",
                row.step
            ));
        }
        let working = matches!(
            row.step,
            Step::Starting | Step::Checking | Step::Switching | Step::Draining
        );
        if working && (row.instance.is_none() || row.release.is_none() || row.node.is_none()) {
            broken.push(format!("rollout {number} is at {} without an instance", row.step));
        }
        if let (true, Some(release), Some(ordinal)) = (working, row.release, row.instance) {
            let instance = INSTANCES.get(view, &(app.clone(), release, ordinal))?;
            let fits = instance.is_some_and(|instance| {
                let expected = match row.step {
                    Step::Starting | Step::Checking => State::Starting,
                    Step::Switching => State::Healthy,
                    _ => State::Active,
                };
                // It may have crashed, or be stopped with its app, while its rollout is not yet told.
                instance.rollout == number
                    && (instance.state == expected || instance.state.is_end() || row.step == Step::Draining)
            });
            if !fits {
                broken.push(format!(
                    "rollout {number} is at {} and its instance is not",
                    row.step
                ));
            }
        }
    }
    Ok(())
}

fn check_instances(
    view: &dyn View,
    app: &Name,
    serving: &Serving,
    broken: &mut Vec<String>,
) -> Result<(), Fault> {
    let rows = INSTANCES.list(view, &Range::within(app), usize::MAX)?;
    let numbers = |end: bool| -> BTreeSet<_> {
        let some = rows.iter().filter(|(_, row)| row.state.is_end() == end);
        some.map(|((_, release, ordinal), _)| (*release, *ordinal))
            .collect()
    };
    let (live, ended) = (
        serving.live.iter().copied().collect(),
        serving.ended.iter().copied().collect(),
    );
    if numbers(false) != live || numbers(true) != ended || ended.len() > ENDED_KEPT_MAX {
        broken.push(format!(
            "live {live:?} and ended {ended:?} are not what the instances are"
        ));
    }
    let active: Vec<_> = rows
        .iter()
        .filter(|(_, row)| row.state == State::Active)
        .collect();
    let said = serving.active.as_ref();
    let matches = match (active.as_slice(), said) {
        ([], None) => true,
        ([((_, release, ordinal), row)], Some(said)) => {
            let process = row.process.as_ref();
            said.release == *release
                && said.ordinal == *ordinal
                && said.node == row.node
                && serving.release == Some(*release)
                && process.is_some_and(|process| process.port == said.port && process.address == said.address)
        }
        _ => false,
    };
    if !matches {
        broken.push(format!("active is {said:?}, the instances say {active:?}"));
    }
    for ((_, release, ordinal), row) in &rows {
        let consistent = row.ended_at.is_some() == row.state.is_end()
            && (row.state != State::Healthy || row.process.is_some())
            && (row.state != State::Active || row.active_from.is_some())
            && (row.state != State::Draining || row.draining_from.is_some())
            && *ordinal <= serving.last_ordinal;
        if !consistent {
            broken.push(format!(
                "instance {ordinal} of release {release} contradicts itself: {row:?}"
            ));
        }
    }
    Ok(())
}
