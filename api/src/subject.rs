//! What history is told of: objects by name, across the areas.
//!
//! A subject is written `KIND/NAME`, and its value is the JSON that its own route answers.

use crate::problem::{Problem, QUERY_INVALID};
use crate::wire;
use onward_statemachine::deployments::apps::{self, Name};
use onward_statemachine::deployments::{builds, instances, releases};
use onward_statemachine::machines::registry::{self, Serial};
use onward_statemachine::machines::{ipam, netboot};
use onward_statemachine::objects::{self, Oid};
use onward_statemachine::services::catalog::{self, Id};
use onward_statemachine::services::kv::{self, Key};
use onward_statemachine::{Event, Fault, Revision, View, retention, system};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;

/// An object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Settings,
    AddressPlan,
    Machine(Serial),
    BootTemplate(String),
    /// All instances of a service.
    Service(String),
    ServiceInstance(Id),
    Kv(Key),
    Object(Oid),
    App(Name),
    Build(Name, u64),
    Release(Name, u64),
    Rollout(Name, u64),
    Instance(Name, u64, u64),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Settings => f.write_str("settings"),
            Subject::AddressPlan => f.write_str("address_plan"),
            Subject::Machine(serial) => write!(f, "machine/{serial}"),
            Subject::BootTemplate(name) => write!(f, "boot_template/{name}"),
            Subject::Service(name) => write!(f, "service/{name}"),
            Subject::ServiceInstance(id) => write!(f, "service/{}/{}", id.service, id.instance),
            Subject::Kv(key) => write!(f, "kv/{key}"),
            Subject::Object(oid) => write!(f, "object/{oid}"),
            Subject::App(name) => write!(f, "app/{name}"),
            Subject::Build(app, number) => write!(f, "build/{app}/{number}"),
            Subject::Release(app, number) => write!(f, "release/{app}/{number}"),
            Subject::Rollout(app, number) => write!(f, "rollout/{app}/{number}"),
            Subject::Instance(app, release, ordinal) => write!(f, "instance/{app}/{release}/{ordinal}"),
        }
    }
}

/// How subjects that can be asked for are written.
const FORMS: &str = "`kv/KEY`, `machine/SERIAL`, `service/NAME`, `service/NAME/INSTANCE`, `app/NAME`, `object/OID`, \
                     `boot_template/NAME`, `address_plan` and `settings`";

impl Subject {
    /// The subject that a request names. Keys may be any bytes.
    pub(crate) fn parse(text: &[u8]) -> Result<Subject, Problem> {
        let unknown = || {
            let text = text.escape_ascii();
            QUERY_INVALID.because(format!("query parameter `object` is `{text}`; it takes {FORMS}"))
        };
        if let Some(key) = text.strip_prefix(b"kv/") {
            return Ok(Subject::Kv(Key(key.to_vec())));
        }
        let text = std::str::from_utf8(text).map_err(|_| unknown())?;
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        let nameless = matches!(kind, "settings" | "address_plan");
        if nameless != name.is_empty() {
            return Err(unknown());
        }
        Ok(match kind {
            "settings" => Subject::Settings,
            "address_plan" => Subject::AddressPlan,
            "machine" => Subject::Machine(Serial::new(name)),
            "boot_template" => Subject::BootTemplate(name.to_owned()),
            "service" => match name.split_once('/') {
                None => Subject::Service(name.to_owned()),
                Some((service, instance)) => Subject::ServiceInstance(Id::new(service, instance)),
            },
            "object" => {
                let oid = name.parse().map_err(|error: objects::ParseIdError| {
                    QUERY_INVALID.because(format!("query parameter `object`: {error}"))
                })?;
                Subject::Object(oid)
            }
            "app" => Subject::App(Name(name.to_owned())),
            _ => return Err(unknown()),
        })
    }

    /// The app, of one.
    pub(crate) fn as_app(&self) -> Option<&Name> {
        match self {
            Subject::App(name) => Some(name),
            _ => None,
        }
    }

    /// Whether `event` happened to it, or to a part of it.
    pub(crate) fn met(&self, event: &Event) -> bool {
        match (self, event) {
            (Subject::Settings, Event::System(event)) => is_setting(event),
            (Subject::AddressPlan, Event::Ipam(_)) => true,
            (Subject::Machine(serial), Event::Registry(event)) => event.serial() == serial,
            (Subject::BootTemplate(name), Event::Netboot(event)) => template(event) == name,
            (Subject::Service(name), Event::Catalog(event)) => event.id().service == *name,
            (Subject::ServiceInstance(id), Event::Catalog(event)) => event.id() == id,
            (Subject::Kv(key), Event::Kv(event)) => event.key() == key,
            (Subject::Object(oid), Event::Objects(objects::Event::Committed { writes, .. })) => {
                writes.iter().any(|write| write.oid == *oid)
            }
            (Subject::App(name), event) => app(event) == Some(name),
            _ => false,
        }
    }

    /// What `event` happened to; of apps, the app, whose parts [`parts`] finds.
    pub(crate) fn touched(event: &Event, found: &mut BTreeSet<Subject>) {
        let subject = match event {
            Event::System(event) if is_setting(event) => Subject::Settings,
            Event::System(_) => return,
            Event::Kv(event) => Subject::Kv(event.key().clone()),
            Event::Catalog(event) => Subject::ServiceInstance(event.id().clone()),
            Event::Registry(event) => Subject::Machine(event.serial().clone()),
            Event::Ipam(_) => Subject::AddressPlan,
            Event::Netboot(event) => Subject::BootTemplate(template(event).to_owned()),
            Event::Objects(objects::Event::Committed { writes, .. }) => {
                found.extend(writes.iter().map(|write| Subject::Object(write.oid)));
                return;
            }
            Event::Objects(objects::Event::OidsAllocated { .. }) => return,
            Event::Apps(_) | Event::Builds(_) | Event::Releases(_) | Event::Instances(_) => {
                match app(event) {
                    Some(app) => Subject::App(app.clone()),
                    None => return,
                }
            }
        };
        found.insert(subject);
    }

    /// Between which revisions its events are, where it is there: from its creation, and, where a row says so, up to
    /// its last change.
    pub(crate) fn life(&self, view: &dyn View) -> Result<Option<(Revision, Option<Revision>)>, Fault> {
        let whole = |created, modified| Some((created, Some(modified)));
        Ok(match self {
            Subject::Settings => Some((Revision(0), None)),
            Subject::AddressPlan => ipam::plan(view)?.and_then(|plan| whole(plan.created, plan.modified)),
            Subject::Machine(serial) => {
                registry::get(view, serial)?.and_then(|machine| whole(machine.created, machine.modified))
            }
            Subject::BootTemplate(name) => {
                netboot::get(view, name)?.and_then(|template| whole(template.created, template.modified))
            }
            Subject::Service(name) => catalog::service(view, name)?.map(|service| (service.created, None)),
            Subject::ServiceInstance(id) => catalog::get(view, id)?.map(|instance| (instance.created, None)),
            Subject::Kv(key) => kv::get(view, key)?.and_then(|pair| whole(pair.created, pair.modified)),
            // Of all its revisions, the last one says when it came.
            Subject::Object(oid) => objects::current(view, *oid)?
                .filter(|(_, record)| record.size.is_some())
                .map(|(_, record)| (Revision(0), Some(record.created))),
            Subject::App(name) => apps::get(view, name)?.map(|app| (app.created, None)),
            Subject::Build(..) | Subject::Release(..) | Subject::Rollout(..) | Subject::Instance(..) => None,
        })
    }

    /// What it is, as its own route reads it; `None` where it is not there.
    pub(crate) fn value(&self, view: &dyn View) -> Result<Option<Value>, Fault> {
        Ok(match self {
            Subject::Settings => Some(json!({
                "feature_level": system::gate(view)?.feature_level,
                "journal_retention": wire::history::Retention::from(retention::settings(view)?),
            })),
            Subject::AddressPlan => ipam::plan(view)?.map(|row| shown(&wire::ipam::StoredPlan::from(row))),
            Subject::Machine(serial) => {
                registry::get(view, serial)?.map(|row| shown(&wire::machines::Machine::from(row)))
            }
            Subject::BootTemplate(name) => match netboot::get(view, name)? {
                Some(row) => Some(shown(&wire::netboot::Template::from((
                    row,
                    netboot::body(view, name)?,
                )))),
                None => None,
            },
            Subject::Service(name) => catalog::service(view, name)?
                .map(|row| shown(&wire::catalog::Service::from((name.clone(), row)))),
            Subject::ServiceInstance(id) => {
                catalog::get(view, id)?.map(|row| shown(&wire::catalog::Instance::from((id.clone(), row))))
            }
            Subject::Kv(key) => {
                kv::get(view, key)?.map(|row| shown(&wire::kv::Pair::from((key.clone(), row))))
            }
            Subject::Object(oid) => objects::current(view, *oid)?
                .filter(|(_, record)| record.size.is_some())
                .map(|(tid, record)| shown(&wire::objects::Entry::from((*oid, tid, record)))),
            Subject::App(name) => match apps::get(view, name)? {
                Some(row) => {
                    let serving = instances::serving(view, name)?;
                    Some(shown(&wire::apps::App::from((name.clone(), row, serving))))
                }
                None => None,
            },
            Subject::Build(app, number) => {
                let number = builds::Number(*number);
                builds::get(view, app, number)?
                    .map(|row| shown(&wire::rollouts::Build::new(app, number, row)))
            }
            Subject::Release(app, number) => {
                let number = releases::Number(*number);
                releases::get(view, app, number)?
                    .map(|row| shown(&wire::rollouts::Release::new(app, number, row)))
            }
            Subject::Rollout(app, number) => {
                let number = instances::RolloutNumber(*number);
                instances::rollout(view, app, number)?
                    .map(|row| shown(&wire::rollouts::Rollout::new(app, number, row)))
            }
            Subject::Instance(app, release, ordinal) => {
                let key = (
                    app.clone(),
                    releases::Number(*release),
                    instances::Ordinal(*ordinal),
                );
                instances::instance(view, app, key.1, key.2)?
                    .map(|row| shown(&wire::rollouts::Instance::from((key, row))))
            }
        })
    }
}

/// The most of each kind that an app has.
const PARTS_MAX: usize = 10_000;

/// Builds, releases, rollouts and instances of an app.
pub(crate) fn parts(view: &dyn View, app: &Name, found: &mut BTreeSet<Subject>) -> Result<(), Fault> {
    let own = || app.clone();
    let builds = builds::list(view, app, None, PARTS_MAX)?.builds;
    found.extend(
        builds
            .into_iter()
            .map(|(number, _)| Subject::Build(own(), number.0)),
    );
    let releases = releases::list(view, app, None, PARTS_MAX)?.releases;
    found.extend(
        releases
            .into_iter()
            .map(|(number, _)| Subject::Release(own(), number.0)),
    );
    let rollouts = instances::rollouts(view, app, None, PARTS_MAX)?.rollouts;
    found.extend(
        rollouts
            .into_iter()
            .map(|(number, _)| Subject::Rollout(own(), number.0)),
    );
    let instances = instances::instances(view, Some(app), None, PARTS_MAX)?.instances;
    let instances = instances
        .into_iter()
        .map(|((app, release, ordinal), _)| Subject::Instance(app, release.0, ordinal.0));
    found.extend(instances);
    Ok(())
}

fn shown<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("wire types are maps with text keys")
}

fn is_setting(event: &system::Event) -> bool {
    matches!(
        event,
        system::Event::FeatureLevelRaised { .. } | system::Event::RetentionSet { .. }
    )
}

fn template(event: &netboot::Event) -> &str {
    match event {
        netboot::Event::TemplateSet { name, .. } | netboot::Event::TemplateDeleted { name } => name,
    }
}

fn app(event: &Event) -> Option<&Name> {
    match event {
        Event::Apps(event) => Some(event.app()),
        Event::Builds(event) => Some(event.app()),
        Event::Releases(event) => Some(event.app()),
        Event::Instances(event) => Some(event.app()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "settings",
            "address_plan",
            "machine/S 1/a",
            "boot_template/worker",
            "service/web",
            "service/web/web-1",
            "kv/site/name",
            "object/0000000000000011",
            "app/hello",
        ] {
            let subject = Subject::parse(name.as_bytes()).expect("a subject");
            assert_eq!(subject.to_string(), name);
        }
        for wrong in [
            "",
            "kv",
            "machine/",
            "settings/x",
            "object/zz",
            "build/hello/1",
            "nothing/x",
        ] {
            assert!(Subject::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
