use super::types::*;
use crate::check::Violation;
use crate::machines::registry::Machine;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::cmp::Reverse;
use std::ops::ControlFlow;

/// The template of this name.
pub fn get(view: &dyn View, name: &str) -> Result<Option<Template>, Fault> {
    TEMPLATES.get(view, &name.to_owned())
}

/// The body of the template of this name.
pub fn body(view: &dyn View, name: &str) -> Result<Option<String>, Fault> {
    BODIES.get(view, &name.to_owned())
}

/// Where a listing goes on: after this name.
pub type Cursor = String;

/// One page of templates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In order of name.
    pub templates: Vec<Template>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
}

/// The templates after `after`: at most `limit`.
pub fn list(view: &dyn View, after: Option<&Cursor>, limit: usize) -> Result<Listing, Fault> {
    let mut range = Range::all();
    if let Some(after) = after {
        range = range.after(after);
    }
    let mut rows = TEMPLATES.list(view, &range, limit.saturating_add(1))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|(name, _)| name.clone());
    let templates = rows.into_iter().map(|(_, template)| template).collect();
    Ok(Listing { templates, next })
}

/// The template of this kind for `machine`: see the rule at [`super`].
pub fn choose(view: &dyn View, kind: Kind, machine: &Machine) -> Result<Option<Template>, Fault> {
    let rank = |template: &Template| {
        let requirements = template.selector.requirements().len();
        (
            Reverse(template.priority),
            Reverse(requirements),
            template.name.clone(),
        )
    };
    let rows = TEMPLATES.list(view, &Range::all(), TEMPLATES_MAX)?;
    let fitting = rows.into_iter().map(|(_, template)| template);
    Ok(fitting
        .filter(|template| template.kind == kind && template.selector.matches(machine))
        .min_by_key(rank))
}

/// Whether there are as many as there can be.
pub(super) fn full(view: &dyn View) -> Result<bool, Fault> {
    Ok(TEMPLATES.list(view, &Range::all(), TEMPLATES_MAX)?.len() == TEMPLATES_MAX)
}

/// Every template has its body and every body its template; selectors choose by what machines can have.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("netboot", what));
    TEMPLATES.scan(view, &Range::all(), Order::Ascending, |name, template| {
        let length = BODIES.get(view, &name)?.map(|body| body.len() as u64);
        if length != Some(template.body_bytes) {
            broken(format!(
                "template `{name}` counts {} bytes of {length:?}",
                template.body_bytes
            ));
        }
        if let Err(error) = template.selector.check() {
            broken(format!("template `{name}`: {error}"));
        }
        if template.name != name || template.created > template.modified {
            broken(format!("template `{name}` contradicts itself: {template:?}"));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    BODIES.scan(view, &Range::all(), Order::Ascending, |name, _| {
        if !TEMPLATES.contains(view, &name)? {
            broken(format!("there is a body but no template `{name}`"));
        }
        Ok(ControlFlow::Continue(()))
    })
}
