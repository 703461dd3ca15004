//! `/v1/machines`, `/v1/address-plan`, `/v1/boot-templates`.

use crate::answer::{Answer, page};
use crate::app::App;
use crate::cursor::List as Cursors;
use crate::params::{List, Page, Read, query};
use crate::problem::{NOT_FOUND, QUERY_INVALID};
use crate::request::{Call, Conditional, Fresh, Json, LargeJson, MaybeJson, Params, Path};
use crate::routes::{Routes, op};
use crate::wire::machines::{Labels, Machine, Placement, Placements, Reason, Register, Spec, StateChange};
use crate::wire::{Invalid, ipam as plan_wire, netboot as template_wire};
use axum::extract::State;
use onward_statemachine::machines::registry::{self, Command, Listing, Selector, SelectorError, Serial};
use onward_statemachine::machines::{ipam, netboot};
use onward_statemachine::{Command as Demand, Reply};

const MACHINES: Cursors = Cursors("machines");
const TEMPLATES: Cursors = Cursors("boot templates");

pub(super) fn routes(routes: Routes) -> Routes {
    let routes = routes
        .tag("machines")
        .get(
            "/v1/machines",
            list,
            op("machine_list", "Lists machines")
                .query::<Which>()
                .list::<Machine>(),
        )
        .post(
            "/v1/machines",
            register,
            op("machine_register", "Registers machines: all of them or none")
                .writes()
                .body::<Register>()
                .answer::<Placements>(),
        )
        .get(
            "/v1/machines/{serial}",
            get,
            op("machine_get", "Reads a machine")
                .query::<Read>()
                .answer::<Machine>(),
        )
        .put(
            "/v1/machines/{serial}",
            declare,
            op("machine_declare", "Has this machine, and has it so")
                .writes_if_match()
                .body::<Spec>()
                .done(),
        )
        .delete(
            "/v1/machines/{serial}",
            delete,
            op("machine_delete", "Forgets a retired machine")
                .writes_if_match()
                .done(),
        )
        .post(
            "/v1/machines/{serial}/labels",
            set_labels,
            op("machine_set_labels", "Sets and removes labels")
                .writes_if_match()
                .body::<Labels>()
                .done(),
        )
        .post(
            "/v1/machines/{serial}/state",
            set_state,
            op("machine_set_state", "Takes a machine to a state of its life")
                .writes_if_match()
                .body::<StateChange>()
                .done(),
        )
        .post(
            "/v1/machines/{serial}/retire",
            retire,
            op("machine_retire", "Takes a machine out of service")
                .writes_if_match()
                .body::<Reason>()
                .done(),
        );
    boot_routes(plan_routes(routes))
}

fn plan_routes(routes: Routes) -> Routes {
    let path = "/v1/address-plan";
    let get = op("address_plan_get", "Reads the address plan").query::<Read>();
    let set = op("address_plan_set", "Sets the address plan").writes_if_match();
    routes
        .get(path, plan, get.answer::<plan_wire::StoredPlan>())
        .put(path, set_plan, set.body::<plan_wire::AddressPlan>().done())
        .delete(
            path,
            clear_plan,
            op("address_plan_clear", "Has no address plan")
                .writes_if_match()
                .done(),
        )
}

fn boot_routes(routes: Routes) -> Routes {
    let path = "/v1/boot-templates/{name}";
    let get = op("boot_template_get", "Reads a boot template with its body").query::<Read>();
    let set = op(
        "boot_template_set",
        "Has a boot template, new or in place of the one with the name",
    );
    routes
        .get(
            "/v1/boot-templates",
            templates,
            op("boot_template_list", "Lists boot templates, without their bodies")
                .query::<List>()
                .list::<template_wire::Template>(),
        )
        .get(path, template, get.answer::<template_wire::Template>())
        .put(
            path,
            set_template,
            set.writes_if_match().body::<template_wire::Spec>().done(),
        )
        .delete(
            path,
            delete_template,
            op("boot_template_delete", "Deletes a boot template")
                .writes_if_match()
                .done(),
        )
}

query! {
    /// Which machines.
    Which {
        /// over labels and fields, as `role=worker,zone in (a, b),!broken`
        selector: Option<String>,
        /// over `index`, `rack`, `role`, `serial` and `state` alone, as `state!=retired`
        fields: Option<String>,
        /// the one with this hardware address
        mac: Option<String>,
        /// the one with this address, its own or its BMC's
        address: Option<String>,
        /// How fresh.
        fresh: Fresh,
        /// Which page.
        page: Page,
    }
}

async fn list(State(app): State<App>, Params(which): Params<Which>) -> Answer {
    let bad = |name: &str, error: SelectorError| {
        QUERY_INVALID.because(format!("query parameter `{name}`: {error}"))
    };
    let selector = Selector::parse(which.selector.as_deref().unwrap_or_default());
    let fields = Selector::parse_fields(which.fields.as_deref().unwrap_or_default());
    let selector = selector
        .map_err(|error| bad("selector", error))?
        .and(fields.map_err(|error| bad("fields", error))?);
    let mac = which.mac.map(|mac| mac.parse()).transpose();
    let mac = mac.map_err(|error: registry::MacAddressError| {
        QUERY_INVALID.because(format!("query parameter `mac`: {error}"))
    })?;
    let address = which.address.map(|address| {
        address.parse().map_err(|_| {
            QUERY_INVALID.because(format!(
                "query parameter `address` is `{address}`; it takes an IP address"
            ))
        })
    });
    let address = address.transpose()?;
    let after = MACHINES.text(which.page.cursor.as_deref())?.map(Serial);
    let limit = which.page.limit;
    let listing = app
        .read(which.fresh, |view| {
            let one = match (mac, address) {
                (None, None) => return registry::list(view, &selector, after.as_ref(), limit),
                (Some(mac), None) => registry::by_mac(view, mac)?,
                (None, Some(address)) => registry::by_address(view, address)?,
                (Some(mac), Some(address)) => {
                    registry::by_mac(view, mac)?.filter(|machine| has_address(machine, address))
                }
            };
            let machines = one
                .filter(|machine| selector.matches(machine))
                .into_iter()
                .collect();
            Ok(Listing { machines, next: None })
        })
        .await?;
    listing
        .map(|listing| {
            let next = listing.next.map(|serial| MACHINES.cursor(serial.0.as_bytes()));
            page(listing.machines, next, Machine::from)
        })
        .answer()
}

fn has_address(machine: &registry::Machine, address: std::net::IpAddr) -> bool {
    let bmc = machine.bmc.as_ref().and_then(|bmc| bmc.address);
    bmc == Some(address) || machine.addresses.iter().any(|own| address == own.ip)
}

async fn get(State(app): State<App>, Path(serial): Path<String>, Params(read): Params<Read>) -> Answer {
    let serial = Serial(serial);
    let found = app.read(read.fresh, |view| registry::get(view, &serial)).await?;
    let found = found.or_else(|| NOT_FOUND.because(format!("there is no machine `{serial}`")))?;
    found.map(Machine::from).answer()
}

async fn register(State(app): State<App>, call: Call, LargeJson(register): LargeJson<Register>) -> Answer {
    let done = app.propose(call, Demand::Registry(register.try_into()?)).await?;
    match &done.reply {
        Reply::Registry(registry::Reply::Registered(placements)) => {
            let placements = placements.iter().cloned().map(Placement::from).collect();
            done.answer_with(&Placements { placements })
        }
        _ => done.answer(),
    }
}

async fn declare(
    State(app): State<App>,
    Path(serial): Path<String>,
    Conditional { call, expect }: Conditional,
    Json(spec): Json<Spec>,
) -> Answer {
    same_name("serial", &serial, &spec.serial)?;
    let machine = spec.try_into()?;
    app.propose(call, Demand::Registry(Command::Declare { machine, expect }))
        .await?
        .answer()
}

/// The body of a declaration names the object again, and must not name another one.
fn same_name(field: &str, path: &str, body: &str) -> Result<(), Invalid> {
    if path == body {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!("is `{body}` in the body and `{path}` in the path"),
    ))
}

async fn delete(
    State(app): State<App>,
    Path(serial): Path<String>,
    Conditional { call, expect }: Conditional,
) -> Answer {
    let serial = Serial(serial);
    app.propose(call, Demand::Registry(Command::Delete { serial, expect }))
        .await?
        .answer()
}

async fn set_labels(
    State(app): State<App>,
    Path(serial): Path<String>,
    Conditional { call, expect }: Conditional,
    Json(Labels { set, remove }): Json<Labels>,
) -> Answer {
    let command = Command::SetLabels {
        serial: Serial(serial),
        set,
        remove,
        expect,
    };
    app.propose(call, Demand::Registry(command)).await?.answer()
}

async fn set_state(
    State(app): State<App>,
    Path(serial): Path<String>,
    Conditional { call, expect }: Conditional,
    Json(StateChange { state, reason }): Json<StateChange>,
) -> Answer {
    let state = state.parse();
    let command = Command::SetState {
        serial: Serial(serial),
        state: state.map_err(|error: registry::StateError| Invalid::new("state", error.to_string()))?,
        reason,
        expect,
    };
    app.propose(call, Demand::Registry(command)).await?.answer()
}

async fn retire(
    State(app): State<App>,
    Path(serial): Path<String>,
    Conditional { call, expect }: Conditional,
    MaybeJson(Reason { reason }): MaybeJson<Reason>,
) -> Answer {
    let command = Command::Retire {
        serial: Serial(serial),
        reason,
        expect,
    };
    app.propose(call, Demand::Registry(command)).await?.answer()
}

async fn plan(State(app): State<App>, Params(read): Params<Read>) -> Answer {
    let found = app.read(read.fresh, ipam::plan).await?;
    let found = found.or_else(|| NOT_FOUND.because("there is no address plan"))?;
    found.map(plan_wire::StoredPlan::from).answer()
}

async fn set_plan(
    State(app): State<App>,
    Conditional { call, expect }: Conditional,
    Json(plan): Json<plan_wire::AddressPlan>,
) -> Answer {
    let plan = plan.try_into()?;
    app.propose(call, Demand::Ipam(ipam::Command::SetPlan { plan, expect }))
        .await?
        .answer()
}

async fn clear_plan(State(app): State<App>, Conditional { call, expect }: Conditional) -> Answer {
    app.propose(call, Demand::Ipam(ipam::Command::ClearPlan { expect }))
        .await?
        .answer()
}

async fn templates(State(app): State<App>, Params(List { fresh, page: which }): Params<List>) -> Answer {
    let after = TEMPLATES.text(which.cursor.as_deref())?;
    let listing = app
        .read(fresh, |view| netboot::list(view, after.as_ref(), which.limit))
        .await?;
    listing
        .map(|listing| {
            let next = listing.next.map(|name| TEMPLATES.cursor(name.as_bytes()));
            page(listing.templates, next, |template| {
                template_wire::Template::from((template, None))
            })
        })
        .answer()
}

async fn template(State(app): State<App>, Path(name): Path<String>, Params(read): Params<Read>) -> Answer {
    let found = app
        .read(read.fresh, |view| match netboot::get(view, &name)? {
            Some(template) => Ok(Some((template, netboot::body(view, &name)?))),
            None => Ok(None),
        })
        .await?;
    let found = found.or_else(|| NOT_FOUND.because(format!("there is no boot template `{name}`")))?;
    found.map(template_wire::Template::from).answer()
}

async fn set_template(
    State(app): State<App>,
    Path(name): Path<String>,
    Conditional { call, expect }: Conditional,
    Json(spec): Json<template_wire::Spec>,
) -> Answer {
    same_name("name", &name, &spec.name)?;
    let command = template_wire::set(spec, expect)?;
    app.propose(call, Demand::Netboot(command)).await?.answer()
}

async fn delete_template(
    State(app): State<App>,
    Path(name): Path<String>,
    Conditional { call, expect }: Conditional,
) -> Answer {
    app.propose(
        call,
        Demand::Netboot(netboot::Command::DeleteTemplate { name, expect }),
    )
    .await?
    .answer()
}
