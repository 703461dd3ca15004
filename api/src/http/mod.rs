//! The routes, by area. Every one is declared in a table ([`Routes`]) with its entry in the OpenAPI document.

mod backup;
mod catalog;
mod cluster;
mod deployments;
mod events;
mod history;
mod kv;
mod machines;
mod manifest;
mod members;
mod objects;

use crate::app::{App, Services};
use crate::metrics::Metrics;
use crate::problem::{METHOD_NOT_ALLOWED, Problem, ROUTE_NOT_FOUND};
use crate::routes::Routes;
use axum::Router;
use axum::extract::State;
use http::{Method, Uri};
use std::sync::atomic::Ordering::Relaxed;

/// The API of one node. To learn the peer's address for the journal, serve it with
/// `into_make_service_with_connect_info::<SocketAddr>()`.
pub fn router(services: Services) -> Router {
    let routes = routes();
    let metrics = Metrics {
        routes: routes.stats.clone(),
        ..Metrics::default()
    };
    let app = App::new(services, metrics);
    routes
        .into_router()
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

/// Every route of the API.
pub(crate) fn routes() -> Routes {
    let areas = [
        kv::routes,
        events::routes,
        history::routes,
        machines::routes,
        catalog::routes,
        objects::routes,
        deployments::routes,
        manifest::routes,
        cluster::routes,
        members::routes,
        backup::routes,
    ];
    areas.into_iter().fold(Routes::new(), |routes, area| area(routes))
}

async fn no_route(State(app): State<App>, uri: Uri) -> Problem {
    app.metrics.unrouted.fetch_add(1, Relaxed);
    let path = uri.path();
    ROUTE_NOT_FOUND.because(format!(
        "nothing is served at `{path}`; /v1/openapi.json lists every route"
    ))
}

async fn no_method(State(app): State<App>, method: Method, uri: Uri) -> Problem {
    app.metrics.unrouted.fetch_add(1, Relaxed);
    let path = uri.path();
    METHOD_NOT_ALLOWED.because(format!(
        "`{path}` does not take {method}; the header `Allow` says what it takes"
    ))
}
