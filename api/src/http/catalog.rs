//! `/v1/services`: services and their instances.

use crate::answer::{Answer, page};
use crate::app::App;
use crate::cursor::List as Cursors;
use crate::params::{List, Many, Page, Read, query};
use crate::problem::NOT_FOUND;
use crate::request::{Call, Conditional, Fresh, Json, LargeJson, Params, Path};
use crate::routes::{Routes, op};
use crate::wire::catalog::{Instance, Register, Service, SetHealth, SetMaintenance, Spec};
use axum::extract::State;
use onward_statemachine::Command as Demand;
use onward_statemachine::services::catalog::{self, Command, Filter, Id, Registration};

const SERVICES: Cursors = Cursors("services");
const INSTANCES: Cursors = Cursors("service instances");

pub(super) fn routes(routes: Routes) -> Routes {
    let path = "/v1/services/{service}/instances/{instance}";
    routes
        .tag("services")
        .get(
            "/v1/services",
            services,
            op("service_list", "Lists services")
                .query::<List>()
                .list::<Service>(),
        )
        .post(
            "/v1/services",
            register_all,
            op(
                "service_register_all",
                "Registers instances of services: all of them or none",
            )
            .writes()
            .body::<Register>()
            .done(),
        )
        .get(
            "/v1/services/{service}",
            service,
            op("service_summary", "Reads a service")
                .query::<Read>()
                .answer::<Service>(),
        )
        .get(
            "/v1/services/{service}/instances",
            instances,
            op("service_instances", "Lists the instances of a service")
                .query::<Which>()
                .list::<Instance>(),
        )
        .get(
            path,
            instance,
            op("service_get", "Reads an instance of a service")
                .query::<Read>()
                .answer::<Instance>(),
        )
        .put(
            path,
            register,
            op(
                "service_register",
                "Registers an instance, or registers it as something else than before",
            )
            .writes_if_match()
            .body::<Spec>()
            .done(),
        )
        .delete(
            path,
            deregister,
            op("service_deregister", "Deregisters an instance")
                .writes_if_match()
                .done(),
        )
        .post(
            "/v1/services/{service}/instances/{instance}/renew",
            renew,
            op("service_renew", "Says that an instance lives").writes().done(),
        )
        .post(
            "/v1/services/{service}/instances/{instance}/health",
            set_health,
            op("service_set_health", "Says whether an instance is well")
                .writes()
                .body::<SetHealth>()
                .done(),
        )
        .post(
            "/v1/services/{service}/instances/{instance}/maintenance",
            set_maintenance,
            op(
                "service_set_maintenance",
                "Takes an instance out of service, or puts it back",
            )
            .writes_if_match()
            .body::<SetMaintenance>()
            .done(),
        )
}

query! {
    /// Which instances.
    Which {
        /// only those that clients are sent to
        serving: Option<bool>,
        /// only those with this tag; may be there several times, and all must fit
        tag: Many<String>,
        /// How fresh.
        fresh: Fresh,
        /// Which page.
        page: Page,
    }
}

async fn services(State(app): State<App>, Params(List { fresh, page: which }): Params<List>) -> Answer {
    let after = SERVICES.text(which.cursor.as_deref())?;
    let listing = app
        .read(fresh, |view| {
            catalog::services(view, after.as_deref(), which.limit)
        })
        .await?;
    listing
        .map(|listing| {
            let next = listing.next.map(|name| SERVICES.cursor(name.as_bytes()));
            page(listing.services, next, Service::from)
        })
        .answer()
}

async fn service(State(app): State<App>, Path(name): Path<String>, Params(read): Params<Read>) -> Answer {
    let found = app.read(read.fresh, |view| catalog::service(view, &name)).await?;
    let found = found.or_else(|| NOT_FOUND.because(format!("service `{name}` has no instance")))?;
    found.map(|row| Service::from((name, row))).answer()
}

async fn instances(
    State(app): State<App>,
    Path(service): Path<String>,
    Params(which): Params<Which>,
) -> Answer {
    let after = INSTANCES.text(which.page.cursor.as_deref())?;
    let filter = Filter {
        serving: which.serving.unwrap_or(false),
        tags: which.tag.0,
    };
    let limit = which.page.limit;
    let listing = app
        .read(which.fresh, |view| {
            let listing = catalog::instances(view, &service, &filter, after.as_deref(), limit)?;
            let exists = catalog::service(view, &service)?.is_some();
            Ok(exists.then_some(listing))
        })
        .await?;
    let listing = listing.or_else(|| NOT_FOUND.because(format!("service `{service}` has no instance")))?;
    listing
        .map(|listing| {
            let next = listing.next.map(|id| INSTANCES.cursor(id.instance.as_bytes()));
            page(listing.instances, next, Instance::from)
        })
        .answer()
}

async fn instance(
    State(app): State<App>,
    Path((service, instance)): Path<(String, String)>,
    Params(read): Params<Read>,
) -> Answer {
    let id = Id::new(service, instance);
    let found = app.read(read.fresh, |view| catalog::get(view, &id)).await?;
    let found = found.or_else(|| NOT_FOUND.because(format!("service instance `{id}` is not registered")))?;
    found.map(|row| Instance::from((id, row))).answer()
}

async fn register_all(
    State(app): State<App>,
    call: Call,
    LargeJson(register): LargeJson<Register>,
) -> Answer {
    app.propose(call, Demand::Catalog(register.into()))
        .await?
        .answer()
}

async fn register(
    State(app): State<App>,
    Path((service, instance)): Path<(String, String)>,
    Conditional { call, expect }: Conditional,
    Json(spec): Json<Spec>,
) -> Answer {
    let registration = Registration {
        id: Id::new(service, instance),
        spec: spec.into(),
        expect,
    };
    let registrations = vec![registration];
    app.propose(call, Demand::Catalog(Command::Register { registrations }))
        .await?
        .answer()
}

async fn deregister(
    State(app): State<App>,
    Path((service, instance)): Path<(String, String)>,
    Conditional { call, expect }: Conditional,
) -> Answer {
    let id = Id::new(service, instance);
    app.propose(call, Demand::Catalog(Command::Deregister { id, expect }))
        .await?
        .answer()
}

async fn renew(
    State(app): State<App>,
    Path((service, instance)): Path<(String, String)>,
    call: Call,
) -> Answer {
    let id = Id::new(service, instance);
    app.propose(call, Demand::Catalog(Command::Renew { id }))
        .await?
        .answer()
}

async fn set_health(
    State(app): State<App>,
    Path((service, instance)): Path<(String, String)>,
    call: Call,
    Json(SetHealth { health }): Json<SetHealth>,
) -> Answer {
    let id = Id::new(service, instance);
    let health = health.into();
    app.propose(call, Demand::Catalog(Command::SetHealth { id, health }))
        .await?
        .answer()
}

async fn set_maintenance(
    State(app): State<App>,
    Path((service, instance)): Path<(String, String)>,
    Conditional { call, expect }: Conditional,
    Json(SetMaintenance { on }): Json<SetMaintenance>,
) -> Answer {
    let id = Id::new(service, instance);
    app.propose(call, Demand::Catalog(Command::SetMaintenance { id, on, expect }))
        .await?
        .answer()
}
