use super::types::*;
use crate::store::{Fault, View};
use crate::table::Range;

/// The app of this name.
pub fn get(view: &dyn View, name: &Name) -> Result<Option<App>, Fault> {
    APPS.get(view, name)
}

/// Where a listing goes on: after this name.
pub type Cursor = Name;

/// One page of apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In order of name.
    pub apps: Vec<(Name, App)>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
}

/// The apps after `after`, at most `limit`.
pub fn list(view: &dyn View, after: Option<&Cursor>, limit: usize) -> Result<Listing, Fault> {
    let range = after.map_or(Range::all(), |after| Range::all().after(after));
    let mut apps = APPS.list(view, &range, limit.saturating_add(1))?;
    let more = apps.len() > limit;
    apps.truncate(limit);
    let next = apps.last().filter(|_| more).map(|(name, _)| name.clone());
    Ok(Listing { apps, next })
}

/// The app that a route is declared for.
pub fn route_owner(view: &dyn View, route: &Route) -> Result<Option<Name>, Fault> {
    ROUTES.get(view, &(route.host.clone(), route.path.clone()))
}

/// Every declared route and its app.
pub(crate) fn routes(view: &dyn View) -> Result<Vec<(Route, Name)>, Fault> {
    let rows = ROUTES.list(view, &Range::all(), usize::MAX)?;
    let routes = rows
        .into_iter()
        .map(|((host, path), app)| (Route { host, path }, app));
    Ok(routes.collect())
}
