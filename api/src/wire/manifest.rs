//! Manifests: many objects over all domains, declared at once.

use super::{Invalid, Problem, apps, catalog, ipam, join_bytes, machines, netboot};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Many objects, each a map with `kind` and the fields of its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The objects, in any order; none twice.
    #[schema(value_type = Vec<Declaration>)]
    pub objects: Vec<Value>,
    /// Only if none of these objects was modified after this revision: that of the plan that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Declaration {
    /// The address plan.
    AddressPlan(ipam::AddressPlan),
    /// A machine.
    Machine(machines::Spec),
    /// A boot template.
    BootTemplate(netboot::Spec),
    /// An instance of a service.
    #[serde(alias = "service")]
    ServiceInstance(ServiceInstance),
    /// A key-value pair.
    Kv(Pair),
    /// An app.
    App(App),
}

/// The kinds of objects, as `kind` has them, in the order in which they are applied: what others lean on comes first.
pub const KINDS: [&str; 6] = [
    "address_plan",
    "machine",
    "boot_template",
    "service_instance",
    "kv",
    "app",
];

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ManifestServiceInstance)]
pub struct ServiceInstance {
    /// Of which service.
    pub service: String,
    /// Its name in the service.
    pub instance: String,
    /// What it is.
    pub spec: catalog::Spec,
}

/// A key-value pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ManifestPair)]
pub struct Pair {
    /// The key, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The value, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ManifestApp)]
pub struct App {
    /// Its name.
    pub name: String,
    /// All that is declared of it.
    pub spec: apps::Spec,
}

impl Declaration {
    /// Its kind and its name, by which no other object of a manifest is called.
    pub fn id(&self) -> Result<(&'static str, String), Invalid> {
        Ok(match self {
            Declaration::AddressPlan(_) => ("address_plan", String::new()),
            Declaration::Machine(machine) => ("machine", machine.serial.clone()),
            Declaration::BootTemplate(template) => ("boot_template", template.name.clone()),
            Declaration::ServiceInstance(ServiceInstance {
                service, instance, ..
            }) => ("service_instance", format!("{service}/{instance}")),
            Declaration::Kv(pair) => {
                let key = join_bytes("key", pair.key.clone(), pair.key_base64.clone())?;
                ("kv", key.escape_ascii().to_string())
            }
            Declaration::App(app) => ("app", app.name.clone()),
        })
    }
}

/// What applying a manifest would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// One for each object, in the order in which they are applied.
    pub steps: Vec<Step>,
    /// How many objects would come into being.
    pub create: u64,
    /// How many objects would change.
    pub update: u64,
    /// How many objects are so already.
    pub unchanged: u64,
    /// Why the log would refuse it now, if it would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Problem>,
}

/// What applying a manifest would do to one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// What would be done.
    pub action: Action,
    /// The kind of the object.
    pub kind: String,
    /// Its name; empty for the address plan.
    pub name: String,
    /// The object as it is, if there is one and it would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Declaration>)]
    pub before: Option<Value>,
    /// The object as it would be, if it would change or come into being.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Declaration>)]
    pub after: Option<Value>,
    /// The fields that would change, as `labels.zone`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Difference>,
}

/// What would be done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It comes into being.
    Create,
    /// It changes.
    Update,
    /// It is so already.
    Unchanged,
}

/// A field that would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Where: `labels.zone`, `routes[0].host`.
    pub field: String,
    /// What is there, or null.
    #[schema(value_type = Object)]
    pub from: Value,
    /// What would be there, or null.
    #[schema(value_type = Object)]
    pub to: Value,
}

/// Objects as a manifest declares them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Exported {
    /// The objects.
    #[schema(value_type = Vec<Declaration>)]
    pub objects: Vec<Value>,
}
