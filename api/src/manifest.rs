//! Manifests: what applying one would do, doing it, and writing one that says what is there.
//!
//! Applying is one atomic batch of the declarations that differ from what is there, each on condition that its object
//! is still as the difference was taken from. Objects that the manifest does not name are left alone.

use crate::wire::manifest::{Action, App, Declaration, Difference, KINDS, Pair, Plan, ServiceInstance, Step};
use crate::wire::{
    Invalid, apps as app_wire, ipam as plan_wire, kv as kv_wire, machines as machine_wire,
    netboot as template_wire,
};
use onward_statemachine::apply::apply_envelope;
use onward_statemachine::deployments::apps;
use onward_statemachine::machines::{ipam, netboot, registry};
use onward_statemachine::services::{catalog, kv};
use onward_statemachine::{Actor, Command, CommandId, Envelope, Fault, Outcome, Revision, Txn, View, system};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The most bytes of key-value pairs that one export holds.
pub(crate) const EXPORT_BYTES_MAX: usize = 64 << 20;
/// The rows that are read at once.
const PAGE_ROWS: usize = 1000;

/// A declaration, ready to be compared and proposed.
struct Declared {
    kind: &'static str,
    name: String,
    want: Want,
}

/// What is declared, in the types of the log.
enum Want {
    AddressPlan(ipam::AddressPlan),
    Machine(registry::Spec),
    BootTemplate(netboot::Command),
    ServiceInstance(catalog::Id, catalog::Spec),
    Kv(kv::Key, Vec<u8>),
    App(apps::Name, Box<apps::Spec>),
}

/// A manifest that was understood.
pub(crate) struct Manifest(Vec<Declared>);

impl Manifest {
    /// Reads the objects of a manifest, and puts them into the order in which they are applied.
    pub(crate) fn read(objects: Vec<Value>) -> Result<Self, Invalid> {
        let mut seen = BTreeSet::new();
        let mut declared = Vec::with_capacity(objects.len());
        for (place, value) in objects.into_iter().enumerate() {
            let at = |invalid: Invalid| {
                Invalid::new(format!("objects[{place}].{}", invalid.field), invalid.reason)
            };
            let object: Declaration = serde_json::from_value(value)
                .map_err(|error| Invalid::new(format!("objects[{place}]"), error.to_string()))?;
            let (kind, name) = object.id().map_err(at)?;
            if !seen.insert((kind, name.clone())) {
                let reason = format!("{kind} `{name}` is declared twice in one manifest");
                return Err(Invalid::new(format!("objects[{place}]"), reason));
            }
            let want = want(object).map_err(at)?;
            declared.push(Declared { kind, name, want });
        }
        let rank = |declared: &Declared| KINDS.iter().position(|kind| *kind == declared.kind);
        declared.sort_by_key(rank);
        Ok(Manifest(declared))
    }
}

fn want(object: Declaration) -> Result<Want, Invalid> {
    Ok(match object {
        Declaration::AddressPlan(plan) => Want::AddressPlan(plan.try_into()?),
        Declaration::Machine(spec) => Want::Machine(spec.try_into()?),
        Declaration::BootTemplate(spec) => Want::BootTemplate(template_wire::set(spec, None)?),
        Declaration::ServiceInstance(ServiceInstance {
            service,
            instance,
            spec,
        }) => Want::ServiceInstance(catalog::Id::new(service, instance), spec.into()),
        Declaration::Kv(pair) => {
            let put = kv_wire::Put {
                key: pair.key,
                key_base64: pair.key_base64,
                value: pair.value,
                value_base64: pair.value_base64,
                expect_revision: None,
            };
            let (key, value) = put.parts()?;
            Want::Kv(key, value)
        }
        Declaration::App(app) => Want::App(apps::Name(app.name), Box::new(app.spec.into())),
    })
}

/// What a manifest comes to on some state.
pub(crate) struct Draft {
    pub plan: Plan,
    /// The declarations that differ.
    commands: Vec<Command>,
    /// The last revision at which any of the named objects was modified.
    pub modified: Revision,
}

impl Draft {
    /// The batch that makes everything so; `None` where it is so already.
    pub(crate) fn command(&self) -> Option<Command> {
        (!self.commands.is_empty()).then(|| Command::Batch(self.commands.clone()))
    }

    /// What the log would say now to the batch, tried on throw-away state.
    pub(crate) fn rehearse(&self, view: &dyn View) -> Result<Option<Outcome>, Fault> {
        let Some(command) = self.command() else {
            return Ok(None);
        };
        let clock = system::clock(view)?;
        let envelope = Envelope {
            command_id: CommandId(Uuid::now_v7()),
            actor: Actor::new("plan"),
            proposed_at: clock.now,
            command,
        };
        let revision = Revision(clock.revision.0 + 1);
        apply_envelope(&mut Txn::new(view), revision, envelope).map(Some)
    }
}

/// An object as it is.
struct Present {
    object: Declaration,
    modified: Revision,
}

/// Compares a manifest with what is there.
pub(crate) fn draft(view: &dyn View, manifest: &Manifest) -> Result<Draft, Fault> {
    let mut draft = Draft {
        plan: Plan::default(),
        commands: Vec::new(),
        modified: Revision(0),
    };
    let mut arrivals = Vec::new();
    let mut registrations = Vec::new();
    for declared in &manifest.0 {
        let present = present(view, &declared.want)?;
        let after = object(&declared.want, present.as_ref());
        let modified = present.as_ref().map_or(Revision(0), |present| present.modified);
        draft.modified = draft.modified.max(modified);
        let step = step(declared, present.map(|present| present.object), &after);
        let (count, changes) = match step.action {
            Action::Create => (&mut draft.plan.create, true),
            Action::Update => (&mut draft.plan.update, true),
            Action::Unchanged => (&mut draft.plan.unchanged, false),
        };
        *count += 1;
        let action = step.action;
        draft.plan.steps.push(step);
        if !changes {
            continue;
        }
        let expect = Some(modified);
        match &declared.want {
            // Many at once, so that a whole site fits into one batch. A machine that came meanwhile is in the way.
            Want::Machine(spec) if action == Action::Create => arrivals.push(spec.clone()),
            Want::ServiceInstance(id, spec) => registrations.push(catalog::Registration {
                id: id.clone(),
                spec: spec.clone(),
                expect,
            }),
            want => draft.commands.push(command(want, expect)),
        }
    }
    bulk(&mut draft.commands, &arrivals, &registrations);
    Ok(draft)
}

/// Adds what goes by the thousand. Registrations go after the address plan, if there is one among the commands.
fn bulk(commands: &mut Vec<Command>, arrivals: &[registry::Spec], registrations: &[catalog::Registration]) {
    let plans = usize::from(matches!(commands.first(), Some(Command::Ipam(_))));
    let machines = arrivals.chunks(registry::REGISTER_MAX).map(|machines| {
        Command::Registry(registry::Command::Register {
            machines: machines.to_vec(),
        })
    });
    let services = registrations.chunks(catalog::BULK_MAX).map(|registrations| {
        Command::Catalog(catalog::Command::Register {
            registrations: registrations.to_vec(),
        })
    });
    let bulk: Vec<_> = machines.chain(services).collect();
    commands.splice(plans..plans, bulk);
}

fn command(want: &Want, expect: Option<Revision>) -> Command {
    match want {
        Want::AddressPlan(plan) => Command::Ipam(ipam::Command::SetPlan {
            plan: plan.clone(),
            expect,
        }),
        Want::Machine(machine) => Command::Registry(registry::Command::Declare {
            machine: machine.clone(),
            expect,
        }),
        Want::BootTemplate(set) => {
            let mut set = set.clone();
            if let netboot::Command::SetTemplate { expect: fence, .. } = &mut set {
                *fence = expect;
            }
            Command::Netboot(set)
        }
        Want::ServiceInstance(id, spec) => Command::Catalog(catalog::Command::Register {
            registrations: vec![catalog::Registration {
                id: id.clone(),
                spec: spec.clone(),
                expect,
            }],
        }),
        Want::Kv(key, value) => Command::Kv(kv::Command::Put {
            key: key.clone(),
            value: value.clone(),
            expect,
        }),
        Want::App(name, spec) => Command::Apps(apps::Command::Set {
            name: name.clone(),
            spec: spec.clone(),
            expect,
        }),
    }
}

/// The declaration as the export would write it, with what it leaves to the cluster as that has it.
fn object(want: &Want, present: Option<&Present>) -> Declaration {
    match want {
        Want::AddressPlan(plan) => Declaration::AddressPlan(plan.clone().into()),
        Want::Machine(spec) => {
            let mut spec = machine_wire::Spec::from(spec.clone());
            if let Some(Declaration::Machine(machine)) = present.map(|present| &present.object) {
                spec.index = spec.index.or(machine.index);
            }
            Declaration::Machine(spec)
        }
        Want::BootTemplate(set) => match set {
            netboot::Command::SetTemplate {
                name,
                kind,
                selector,
                priority,
                body,
                ..
            } => Declaration::BootTemplate(template_wire::Spec {
                name: name.clone(),
                makes: kind.to_string(),
                selector: selector.to_string(),
                priority: *priority,
                body: body.clone(),
            }),
            netboot::Command::DeleteTemplate { .. } => {
                unreachable!("a manifest declares templates and deletes none")
            }
        },
        Want::ServiceInstance(id, spec) => service_instance(id.clone(), spec.clone()),
        Want::Kv(key, value) => pair(key.clone(), value.clone()),
        Want::App(name, spec) => Declaration::App(App {
            name: name.0.clone(),
            spec: app_wire::Spec::from(apps::Spec::clone(spec)),
        }),
    }
}

fn service_instance(id: catalog::Id, spec: catalog::Spec) -> Declaration {
    Declaration::ServiceInstance(ServiceInstance {
        service: id.service,
        instance: id.instance,
        spec: spec.into(),
    })
}

fn pair(key: kv::Key, value: Vec<u8>) -> Declaration {
    let put = kv_wire::Put::new(key.0, value);
    Declaration::Kv(Pair {
        key: put.key,
        key_base64: put.key_base64,
        value: put.value,
        value_base64: put.value_base64,
    })
}

fn template(row: netboot::Template, body: String) -> Declaration {
    Declaration::BootTemplate(template_wire::Spec {
        name: row.name,
        makes: row.kind.to_string(),
        selector: row.selector.to_string(),
        priority: row.priority,
        body,
    })
}

fn present(view: &dyn View, want: &Want) -> Result<Option<Present>, Fault> {
    Ok(match want {
        Want::AddressPlan(_) => ipam::plan(view)?.map(|stored| Present {
            modified: stored.modified,
            object: Declaration::AddressPlan(plan_wire::AddressPlan::from(stored.plan)),
        }),
        Want::Machine(spec) => registry::get(view, &spec.serial)?.map(|machine| Present {
            modified: machine.modified,
            object: Declaration::Machine(machine.spec().into()),
        }),
        Want::BootTemplate(
            netboot::Command::SetTemplate { name, .. } | netboot::Command::DeleteTemplate { name, .. },
        ) => {
            let body = netboot::body(view, name)?.unwrap_or_default();
            netboot::get(view, name)?.map(|row| Present {
                modified: row.modified,
                object: template(row, body),
            })
        }
        Want::ServiceInstance(id, _) => catalog::get(view, id)?.map(|row| Present {
            modified: row.modified,
            object: service_instance(id.clone(), row.spec),
        }),
        Want::Kv(key, _) => kv::get(view, key)?.map(|row| Present {
            modified: row.modified,
            object: pair(key.clone(), row.value),
        }),
        Want::App(name, _) => apps::get(view, name)?.map(|app| Present {
            modified: app.modified,
            object: Declaration::App(App {
                name: name.0.clone(),
                spec: app.spec.into(),
            }),
        }),
    })
}

fn step(declared: &Declared, before: Option<Declaration>, after: &Declaration) -> Step {
    let kind = declared.kind.to_owned();
    let name = declared.name.clone();
    let action = match &before {
        None => Action::Create,
        Some(before) if before == after => Action::Unchanged,
        Some(_) => Action::Update,
    };
    let shown = action != Action::Unchanged;
    let before = before.filter(|_| shown).map(|object| json(&object));
    let after = shown.then(|| json(after));
    let mut fields = Vec::new();
    if let (Some(before), Some(after)) = (&before, &after) {
        compare(String::new(), Some(before), Some(after), &mut fields);
    }
    Step {
        action,
        kind,
        name,
        before,
        after,
        fields,
    }
}

fn json(object: &Declaration) -> Value {
    serde_json::to_value(object).expect("wire types are maps with text keys")
}

/// Collects the fields that are not the same on both sides.
pub(crate) fn compare(field: String, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<Difference>) {
    match (from, to) {
        (from, to) if from == to => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            for name in names {
                let inner = match field.as_str() {
                    "" => name.clone(),
                    outer => format!("{outer}.{name}"),
                };
                compare(inner, before.get(name), after.get(name), found);
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) if before.len() == after.len() => {
            for (place, (before, after)) in before.iter().zip(after).enumerate() {
                compare(format!("{field}[{place}]"), Some(before), Some(after), found);
            }
        }
        (from, to) => found.push(Difference {
            field,
            from: from.cloned().unwrap_or_default(),
            to: to.cloned().unwrap_or_default(),
        }),
    }
}

/// There is more than one export holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

/// Everything of `kinds` as a manifest declares it; of key-value pairs, those whose keys begin with `prefix`.
pub(crate) fn export(
    view: &dyn View,
    kinds: &BTreeSet<&'static str>,
    prefix: &[u8],
) -> Result<Result<Vec<Value>, TooMuch>, Fault> {
    type Collect = fn(&dyn View, &[u8], &mut Vec<Declaration>) -> Result<Result<(), TooMuch>, Fault>;
    let collectors: BTreeMap<&str, Collect> = BTreeMap::from([
        ("address_plan", plan_objects as Collect),
        ("machine", machine_objects),
        ("boot_template", template_objects),
        ("service_instance", service_objects),
        ("kv", kv_objects),
        ("app", app_objects),
    ]);
    let mut objects = Vec::new();
    for kind in KINDS.iter().filter(|kind| kinds.contains(*kind)) {
        if let Err(too_much) = collectors[kind](view, prefix, &mut objects)? {
            return Ok(Err(too_much));
        }
    }
    Ok(Ok(objects.iter().map(json).collect()))
}

type Collected = Result<Result<(), TooMuch>, Fault>;

fn plan_objects(view: &dyn View, _prefix: &[u8], objects: &mut Vec<Declaration>) -> Collected {
    objects.extend(ipam::plan(view)?.map(|stored| Declaration::AddressPlan(stored.plan.into())));
    Ok(Ok(()))
}

fn machine_objects(view: &dyn View, _prefix: &[u8], objects: &mut Vec<Declaration>) -> Collected {
    let mut after = None;
    loop {
        let listing = registry::list(view, &registry::Selector::default(), after.as_ref(), PAGE_ROWS)?;
        objects.extend(
            listing
                .machines
                .iter()
                .map(|machine| Declaration::Machine(machine.spec().into())),
        );
        after = listing.next;
        if after.is_none() {
            return Ok(Ok(()));
        }
    }
}

fn template_objects(view: &dyn View, _prefix: &[u8], objects: &mut Vec<Declaration>) -> Collected {
    let mut after = None;
    loop {
        let listing = netboot::list(view, after.as_ref(), PAGE_ROWS)?;
        for row in listing.templates {
            let body = netboot::body(view, &row.name)?.unwrap_or_default();
            objects.push(template(row, body));
        }
        after = listing.next;
        if after.is_none() {
            return Ok(Ok(()));
        }
    }
}

fn service_objects(view: &dyn View, _prefix: &[u8], objects: &mut Vec<Declaration>) -> Collected {
    let mut after = None;
    loop {
        let listing = catalog::all(view, after.as_ref(), PAGE_ROWS)?;
        let instances = listing.instances.into_iter();
        objects.extend(instances.map(|(id, row)| service_instance(id, row.spec)));
        after = listing.next;
        if after.is_none() {
            return Ok(Ok(()));
        }
    }
}

fn kv_objects(view: &dyn View, prefix: &[u8], objects: &mut Vec<Declaration>) -> Collected {
    let mut after = None;
    let mut bytes = 0;
    loop {
        let listing = kv::range(view, prefix, after.as_ref(), PAGE_ROWS, EXPORT_BYTES_MAX)?;
        for (key, row) in listing.pairs {
            bytes += key.0.len() + row.value.len();
            if bytes > EXPORT_BYTES_MAX {
                return Ok(Err(TooMuch));
            }
            objects.push(pair(key, row.value));
        }
        after = listing.next;
        if after.is_none() {
            return Ok(Ok(()));
        }
    }
}

fn app_objects(view: &dyn View, _prefix: &[u8], objects: &mut Vec<Declaration>) -> Collected {
    let mut after = None;
    loop {
        let listing = apps::list(view, after.as_ref(), PAGE_ROWS)?;
        // An app that is being deleted is not declared any more.
        let apps = listing.apps.into_iter().filter(|(_, app)| !app.deleting);
        objects.extend(apps.map(|(name, app)| {
            Declaration::App(App {
                name: name.0,
                spec: app.spec.into(),
            })
        }));
        after = listing.next;
        if after.is_none() {
            return Ok(Ok(()));
        }
    }
}
