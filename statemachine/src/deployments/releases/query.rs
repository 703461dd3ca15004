use super::types::*;
use crate::deployments::apps::Name;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::ops::ControlFlow;

/// A release of an app.
pub fn get(view: &dyn View, app: &Name, number: Number) -> Result<Option<Release>, Fault> {
    RELEASES.get(view, &(app.clone(), number))
}

/// The last release of an app.
pub fn newest(view: &dyn View, app: &Name) -> Result<Option<(Number, Release)>, Fault> {
    let last = RELEASES.last(view, &Range::within(app))?;
    Ok(last.map(|((_, number), release)| (number, release)))
}

/// Where a listing goes on: before this number.
pub type Cursor = Number;

/// One page of releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Newest first.
    pub releases: Vec<(Number, Release)>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
}

/// The releases of an app before `after`, newest first, at most `limit`.
pub fn list(view: &dyn View, app: &Name, after: Option<Cursor>, limit: usize) -> Result<Listing, Fault> {
    let mut listing = Listing {
        releases: Vec::new(),
        next: None,
    };
    let mut range = Range::within(app);
    if let Some(after) = after {
        range = range.below(&(app.clone(), after));
    }
    RELEASES.scan(view, &range, Order::Descending, |(_, number), release| {
        if listing.releases.len() == limit {
            listing.next = listing.releases.last().map(|(number, _)| *number);
            return Ok(ControlFlow::Break(()));
        }
        listing.releases.push((number, release));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(listing)
}
