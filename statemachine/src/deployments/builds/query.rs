use super::types::*;
use crate::deployments::apps::Name;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::ops::ControlFlow;

/// A build of an app.
pub fn get(view: &dyn View, app: &Name, number: Number) -> Result<Option<Build>, Fault> {
    BUILDS.get(view, &(app.clone(), number))
}

/// The last build of an app.
pub fn newest(view: &dyn View, app: &Name) -> Result<Option<(Number, Build)>, Fault> {
    let last = BUILDS.last(view, &Range::within(app))?;
    Ok(last.map(|((_, number), build)| (number, build)))
}

/// Where a listing goes on: before this number.
pub type Cursor = Number;

/// One page of builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Newest first.
    pub builds: Vec<(Number, Build)>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
}

/// The builds of an app before `after`, newest first, at most `limit`.
pub fn list(view: &dyn View, app: &Name, after: Option<Cursor>, limit: usize) -> Result<Listing, Fault> {
    let mut listing = Listing {
        builds: Vec::new(),
        next: None,
    };
    let mut range = Range::within(app);
    if let Some(after) = after {
        range = range.below(&(app.clone(), after));
    }
    BUILDS.scan(view, &range, Order::Descending, |(_, number), build| {
        if listing.builds.len() == limit {
            listing.next = listing.builds.last().map(|(number, _)| *number);
            return Ok(ControlFlow::Break(()));
        }
        listing.builds.push((number, build));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(listing)
}

/// The newest build of these inputs, unless it failed.
pub(super) fn of_inputs(view: &dyn View, app: &Name, inputs: &Inputs) -> Result<Option<Number>, Fault> {
    let mut found = None;
    BUILDS.scan(
        view,
        &Range::within(app),
        Order::Descending,
        |(_, number), build| {
            if build.inputs != *inputs {
                return Ok(ControlFlow::Continue(()));
            }
            if !matches!(build.state, State::Failed { .. }) {
                found = Some(number);
            }
            Ok(ControlFlow::Break(()))
        },
    )?;
    Ok(found)
}
