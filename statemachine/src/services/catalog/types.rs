use crate::dump::Describe;
use crate::ids::{Millis, Revision};
use crate::keys;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// The most instances of one service.
pub const SERVICE_INSTANCES_MAX: usize = 4096;
/// The most instances that one command names.
pub const BULK_MAX: usize = 4096;
/// The most tags of an instance.
pub const TAGS_MAX: usize = 32;
/// The longest tag, in bytes: one string of a DNS TXT record (RFC 1035 section 3.3).
pub const TAG_BYTES_MAX: usize = 255;
/// The most pairs of metadata of an instance.
pub const METADATA_PAIRS_MAX: usize = 64;
/// The longest value in the metadata, in bytes.
pub const METADATA_VALUE_BYTES_MAX: usize = 512;
/// The longest name of a port, in bytes (RFC 6335 section 5.1).
pub const PORT_NAME_BYTES_MAX: usize = 15;
/// The shortest TTL, in ms.
pub const TTL_MS_MIN: u64 = 1000;
/// The longest TTL, in ms: a day.
pub const TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The longest that a critical instance waits to be deregistered, in ms: thirty days.
pub const DEREGISTER_AFTER_MS_MAX: u64 = 30 * TTL_MS_MAX;

/// Which instance of which service. Both are DNS labels, for they are served as such.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// The service's name.
    pub service: String,
    /// The instance's, unique within the service.
    pub instance: String,
}

impl Id {
    /// The instance `instance` of `service`.
    pub fn new(service: impl Into<String>, instance: impl Into<String>) -> Self {
        Id {
            service: service.into(),
            instance: instance.into(),
        }
    }

    pub(super) fn key(&self) -> (String, String) {
        (self.service.clone(), self.instance.clone())
    }
}

impl From<(String, String)> for Id {
    fn from((service, instance): (String, String)) -> Self {
        Id { service, instance }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.instance)
    }
}

/// What an instance is, in the words of whoever registers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Where it is reached.
    pub address: IpAddr,
    /// On which port, not 0.
    pub port: u16,
    /// What the port is called in SRV names (`_http._tcp`), besides its number.
    pub port_name: Option<String>,
    /// What distinguishes it from its siblings.
    pub tags: BTreeSet<String>,
    /// Its share of the load among instances of one priority (RFC 2782).
    pub weight: u16,
    /// Lower ones are tried first (RFC 2782).
    pub priority: u16,
    /// Anything else worth knowing.
    pub metadata: BTreeMap<String, String>,
    /// How long it passes without renewing, in ms; `None` for as long as nobody says otherwise.
    pub ttl_ms: Option<u64>,
    /// How long it may be critical before it is deregistered, in ms; `None` for ever.
    pub deregister_after_ms: Option<u64>,
}

/// Whether an instance answers, as far as was last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Health {
    /// It does.
    Passing,
    /// It does not.
    Critical,
}

/// A registered instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// What it is.
    pub spec: Spec,
    /// Whether it answers.
    pub health: Health,
    /// Whether an operator took it out of service. Registering again does not put it back.
    pub maintenance: bool,
    /// When it was last registered or renewed, in log time.
    pub renewed: Millis,
    /// When it becomes critical (passing) or is deregistered (critical), unless it renews; `None` for never.
    pub deadline: Option<Millis>,
    /// When it was registered first.
    pub created: Revision,
    /// When what it is last changed: its spec or its maintenance.
    pub modified: Revision,
    /// When its health last changed.
    pub health_since: Revision,
}

impl Instance {
    /// Whether clients are sent to it.
    pub fn serves(&self) -> bool {
        self.health == Health::Passing && !self.maintenance
    }

    /// When the answer to "where does this name lead" last changed because of it.
    pub fn changed(&self) -> Revision {
        self.modified.max(self.health_since)
    }
}

/// A service: the sum of its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// How many instances it has; never 0.
    pub instances: u32,
    /// How many of them serve.
    pub serving: u32,
    /// When its first instance was registered.
    pub created: Revision,
    /// When one of its instances last came, went, or changed otherwise than by renewing.
    pub modified: Revision,
}

/// An instance and the deadline that it was seen to have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Due {
    /// The deadline.
    pub deadline: Millis,
    /// Whose.
    pub id: Id,
}

/// An instance to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Which.
    pub id: Id,
    /// What it is.
    pub spec: Spec,
    /// Only if its modified revision is this; 0 for "does not exist".
    pub expect: Option<Revision>,
}

pub(super) const INSTANCES: Table<(String, String), Instance> =
    Table::new(keys::SERVICE_INSTANCES, "service_instances");
pub(super) const DEADLINES: Table<(u64, String, String), ()> =
    Table::new(keys::SERVICE_DEADLINES, "service_deadlines");
pub(super) const SERVICES: Table<String, Service> = Table::new(keys::SERVICES, "services");

/// This area's tables.
pub(crate) const TABLES: &[&dyn Describe] = &[&INSTANCES, &DEADLINES, &SERVICES];
