//! The journal on the wire: every event of every area.

use super::{Time, apps, catalog, ipam, kv, machines, netboot, objects, rollouts, time};
use onward_statemachine::journal::Record;
use onward_statemachine::{self as log, Revision, system};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// All that happened in one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = JournalEntry)]
pub struct Entry {
    /// When: the `after` to go on with.
    pub revision: u64,
    /// Log time.
    pub at: Time,
    /// Who demanded it.
    pub actor: String,
    /// Which demand it was.
    pub command_id: Uuid,
    /// In order.
    pub events: Vec<Event>,
}

impl From<(Revision, Record)> for Entry {
    fn from((revision, record): (Revision, Record)) -> Self {
        Entry {
            revision: revision.0,
            at: time(record.at),
            actor: record.actor.to_string(),
            command_id: record.command_id.0,
            events: record.events.into_iter().map(Event::from).collect(),
        }
    }
}

/// A page of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JournalPage {
    /// In order of revision.
    pub items: Vec<Entry>,
    /// The `after` of the next page: everything up to here was looked at.
    pub next_after: u64,
    /// With `newest`: the `before` of the page before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
    /// Whether the end of the journal was reached; with `newest`, its beginning.
    pub complete: bool,
}

/// Something that happened: `area` and `event` say what, the other fields are that event's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "area", rename_all = "snake_case")]
pub enum Event {
    /// To the machinery itself.
    System(SystemEvent),
    /// To a key-value pair.
    Kv(kv::Event),
    /// To an instance of a service.
    Catalog(catalog::Event),
    /// To a machine.
    Machines(machines::Event),
    /// To the address plan.
    AddressPlan(ipam::Event),
    /// To a boot template.
    BootTemplates(netboot::Event),
    /// To objects.
    Objects(objects::Event),
    /// To an app.
    Apps(apps::Event),
    /// To a build.
    Builds(rollouts::BuildEvent),
    /// To a release.
    Releases(rollouts::ReleaseEvent),
    /// To a rollout or an instance.
    Rollouts(rollouts::RolloutEvent),
}

impl Event {
    /// The names of the areas, as `area` has them.
    pub const AREAS: [&'static str; 11] = [
        "system",
        "kv",
        "catalog",
        "machines",
        "address_plan",
        "boot_templates",
        "objects",
        "apps",
        "builds",
        "releases",
        "rollouts",
    ];

    /// The name of the area that an event belongs to.
    pub(crate) fn area(event: &log::Event) -> &'static str {
        match event {
            log::Event::System(_) => "system",
            log::Event::Kv(_) => "kv",
            log::Event::Catalog(_) => "catalog",
            log::Event::Registry(_) => "machines",
            log::Event::Ipam(_) => "address_plan",
            log::Event::Netboot(_) => "boot_templates",
            log::Event::Objects(_) => "objects",
            log::Event::Apps(_) => "apps",
            log::Event::Builds(_) => "builds",
            log::Event::Releases(_) => "releases",
            log::Event::Instances(_) => "rollouts",
        }
    }
}

impl From<log::Event> for Event {
    fn from(event: log::Event) -> Self {
        match event {
            log::Event::System(event) => Event::System(event.into()),
            log::Event::Kv(event) => Event::Kv(event.into()),
            log::Event::Catalog(event) => Event::Catalog(event.into()),
            log::Event::Registry(event) => Event::Machines(event.into()),
            log::Event::Ipam(event) => Event::AddressPlan(event.into()),
            log::Event::Netboot(event) => Event::BootTemplates(event.into()),
            log::Event::Objects(event) => Event::Objects(event.into()),
            log::Event::Apps(event) => Event::Apps(event.into()),
            log::Event::Builds(event) => Event::Builds(event.into()),
            log::Event::Releases(event) => Event::Releases(event.into()),
            log::Event::Instances(event) => Event::Rollouts(event.into()),
        }
    }
}

/// What happened to the machinery itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SystemEvent {
    /// Behaviour up to a level is in force.
    FeatureLevelRaised {
        /// The new level.
        level: u32,
    },
    /// Earlier events may be gone.
    JournalCompacted {
        /// The first revision that is kept.
        below: u64,
    },
    /// A node id was given out.
    NodeIdAllocated {
        /// Which.
        node: u64,
    },
    /// So much of the journal is kept.
    RetentionSet {
        /// Events at least this young, in ms.
        age_ms: Option<u64>,
        /// About this many bytes of them.
        bytes: Option<u64>,
    },
}

impl From<system::Event> for SystemEvent {
    fn from(event: system::Event) -> Self {
        match event {
            system::Event::FeatureLevelRaised { level } => SystemEvent::FeatureLevelRaised { level },
            system::Event::JournalCompacted { below } => SystemEvent::JournalCompacted { below: below.0 },
            system::Event::NodeIdAllocated { id } => SystemEvent::NodeIdAllocated { node: id.0 },
            system::Event::RetentionSet { retention } => SystemEvent::RetentionSet {
                age_ms: retention.age_ms,
                bytes: retention.bytes,
            },
        }
    }
}
