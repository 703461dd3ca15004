//! Services and their instances.

use super::{Time, time};
use onward_statemachine::Revision;
use onward_statemachine::services::catalog;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use utoipa::ToSchema;

/// What is declared of a service instance, but its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ServiceInstanceSpec)]
pub struct Spec {
    /// Where it is: the address of one host.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// What the port is called in DNS (`_http._tcp`), where it is not called as the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// By which clients choose among instances.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Its share among instances of the same priority.
    #[serde(default = "weight", skip_serializing_if = "is_weight")]
    pub weight: u16,
    /// The lowest is used first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u16,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// It becomes critical when it is not renewed for so long, in ms; without it, it passes until it is told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// It is deregistered when it was critical for so long, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deregister_after_ms: Option<u64>,
}

const WEIGHT_DEFAULT: u16 = 1;

fn weight() -> u16 {
    WEIGHT_DEFAULT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_weight(weight: &u16) -> bool {
    *weight == WEIGHT_DEFAULT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(priority: &u16) -> bool {
    *priority == 0
}

impl From<Spec> for catalog::Spec {
    fn from(spec: Spec) -> Self {
        catalog::Spec {
            address: spec.address,
            port: spec.port,
            port_name: spec.port_name,
            tags: spec.tags,
            weight: spec.weight,
            priority: spec.priority,
            metadata: spec.metadata,
            ttl_ms: spec.ttl_ms,
            deregister_after_ms: spec.deregister_after_ms,
        }
    }
}

impl From<catalog::Spec> for Spec {
    fn from(spec: catalog::Spec) -> Self {
        Spec {
            address: spec.address,
            port: spec.port,
            port_name: spec.port_name,
            tags: spec.tags,
            weight: spec.weight,
            priority: spec.priority,
            metadata: spec.metadata,
            ttl_ms: spec.ttl_ms,
            deregister_after_ms: spec.deregister_after_ms,
        }
    }
}

/// Registers one instance, or registers it as something else than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Of which service.
    pub service: String,
    /// Its name in the service.
    pub instance: String,
    /// What it is.
    pub spec: Spec,
    /// Only if the instance's `modified` is this; 0 for "does not exist".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<Registration> for catalog::Registration {
    fn from(registration: Registration) -> Self {
        catalog::Registration {
            id: catalog::Id::new(registration.service, registration.instance),
            spec: registration.spec.into(),
            expect: registration.expect_revision.map(Revision),
        }
    }
}

/// Registers instances of services: all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisterServices)]
pub struct Register {
    /// Which.
    pub registrations: Vec<Registration>,
}

impl From<Register> for catalog::Command {
    fn from(register: Register) -> Self {
        catalog::Command::Register {
            registrations: register.registrations.into_iter().map(Into::into).collect(),
        }
    }
}

/// Names one instance of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ServiceInstanceId)]
pub struct Id {
    /// Of which service.
    pub service: String,
    /// Its name in the service.
    pub instance: String,
    /// Only if the instance's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<Id> for catalog::Id {
    fn from(id: Id) -> Self {
        catalog::Id::new(id.service, id.instance)
    }
}

/// Whether an instance is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ServiceHealth)]
pub enum Health {
    /// It is.
    Passing,
    /// It is not, or did not renew in time.
    Critical,
}

impl From<catalog::Health> for Health {
    fn from(health: catalog::Health) -> Self {
        match health {
            catalog::Health::Passing => Health::Passing,
            catalog::Health::Critical => Health::Critical,
        }
    }
}

impl From<Health> for catalog::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Passing => catalog::Health::Passing,
            Health::Critical => catalog::Health::Critical,
        }
    }
}

/// Says whether an instance is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetHealth {
    /// Whether it is.
    pub health: Health,
}

/// Takes an instance out of service, or puts it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMaintenance {
    /// Whether it is out of service.
    pub on: bool,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How many instances are registered.
    pub instances: u32,
    /// How many of them clients are sent to.
    pub serving: u32,
    /// The revision at which it got its first instance.
    pub created: u64,
    /// The revision at which any of its instances last changed.
    pub modified: u64,
}

impl From<(String, catalog::Service)> for Service {
    fn from((name, service): (String, catalog::Service)) -> Self {
        Service {
            name,
            instances: service.instances,
            serving: service.serving,
            created: service.created.0,
            modified: service.modified.0,
        }
    }
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ServiceInstance)]
pub struct Instance {
    /// Of which service.
    pub service: String,
    /// Its name in the service.
    pub instance: String,
    /// What was registered.
    pub spec: Spec,
    /// Whether it is well.
    pub health: Health,
    /// Whether an operator took it out of service.
    pub maintenance: bool,
    /// Whether clients are sent to it.
    pub serving: bool,
    /// When it last said that it lives.
    pub renewed: Time,
    /// When it becomes critical, or is deregistered, unless it renews.
    pub deadline: Option<Time>,
    /// The revision at which it was first registered.
    pub created: u64,
    /// The revision at which it was last registered or changed by hand: what `If-Match` compares with.
    pub modified: u64,
    /// The revision at which its health last changed.
    pub health_since: u64,
}

impl From<(catalog::Id, catalog::Instance)> for Instance {
    fn from((id, instance): (catalog::Id, catalog::Instance)) -> Self {
        Instance {
            service: id.service,
            instance: id.instance,
            health: instance.health.into(),
            maintenance: instance.maintenance,
            serving: instance.serves(),
            renewed: time(instance.renewed),
            deadline: instance.deadline.map(time),
            created: instance.created.0,
            modified: instance.modified.0,
            health_since: instance.health_since.0,
            spec: instance.spec.into(),
        }
    }
}

/// Why an instance changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody demanded it.
    Asked,
    /// It renewed.
    Renewed,
    /// It did not renew in time.
    Expired,
}

impl From<catalog::Cause> for Cause {
    fn from(cause: catalog::Cause) -> Self {
        match cause {
            catalog::Cause::Asked => Cause::Asked,
            catalog::Cause::Renewed => Cause::Renewed,
            catalog::Cause::Expired => Cause::Expired,
        }
    }
}

/// What happened to an instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = ServiceEvent)]
pub enum Event {
    /// It was registered, or registered as something else than before.
    Registered {
        /// Of which service.
        service: String,
        /// Which instance.
        instance: String,
        /// What it is now.
        spec: Spec,
    },
    /// It said that it lives.
    Renewed {
        /// Of which service.
        service: String,
        /// Which instance.
        instance: String,
    },
    /// It became passing or critical.
    HealthChanged {
        /// Of which service.
        service: String,
        /// Which instance.
        instance: String,
        /// What it became.
        health: Health,
        /// Why.
        cause: Cause,
    },
    /// An operator took it out of service, or put it back.
    MaintenanceSet {
        /// Of which service.
        service: String,
        /// Which instance.
        instance: String,
        /// Whether it is out of service now.
        on: bool,
    },
    /// It is gone.
    Deregistered {
        /// Of which service.
        service: String,
        /// Which instance.
        instance: String,
        /// Why.
        cause: Cause,
    },
}

impl From<catalog::Event> for Event {
    fn from(event: catalog::Event) -> Self {
        let catalog::Id { service, instance } = event.id().clone();
        match event {
            catalog::Event::Registered { spec, .. } => Event::Registered {
                service,
                instance,
                spec: spec.into(),
            },
            catalog::Event::Renewed { .. } => Event::Renewed { service, instance },
            catalog::Event::HealthChanged { health, cause, .. } => Event::HealthChanged {
                service,
                instance,
                health: health.into(),
                cause: cause.into(),
            },
            catalog::Event::MaintenanceSet { on, .. } => Event::MaintenanceSet {
                service,
                instance,
                on,
            },
            catalog::Event::Deregistered { cause, .. } => Event::Deregistered {
                service,
                instance,
                cause: cause.into(),
            },
        }
    }
}
