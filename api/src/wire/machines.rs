//! Machines.

use super::ipam::Address;
use super::{Invalid, Time, time};
use onward_statemachine::Revision;
use onward_statemachine::machines::registry::{self, Serial};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use utoipa::ToSchema;

/// What is declared of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MachineSpec)]
pub struct Spec {
    /// Its identity: the SMBIOS serial.
    pub serial: String,
    /// The number of its rack.
    pub rack: u32,
    /// Its index in the rack; given out where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// What it is for.
    pub role: String,
    /// Anything else worth selecting by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The hardware addresses of its network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Its management controller, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcSpec>,
}

/// What is declared of a management controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// What it speaks, as `redfish` or `iDRAC-9`.
    pub kind: String,
    /// Its address; computed from the address plan where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
}

impl TryFrom<Spec> for registry::Spec {
    type Error = Invalid;
    fn try_from(spec: Spec) -> Result<Self, Invalid> {
        let mac = |mac: &String| {
            mac.parse()
                .map_err(|error: registry::MacAddressError| Invalid::new("macs", error.to_string()))
        };
        Ok(registry::Spec {
            serial: Serial(spec.serial),
            rack: spec.rack,
            index: spec.index,
            role: spec.role,
            labels: spec.labels,
            macs: spec.macs.iter().map(mac).collect::<Result<_, _>>()?,
            bmc: spec.bmc.map(|bmc| registry::BmcSpec {
                kind: bmc.kind,
                address: bmc.address,
            }),
        })
    }
}

impl From<registry::Spec> for Spec {
    fn from(spec: registry::Spec) -> Self {
        Spec {
            serial: spec.serial.0,
            rack: spec.rack,
            index: spec.index,
            role: spec.role,
            labels: spec.labels,
            macs: texts(&spec.macs),
            bmc: spec.bmc.map(|bmc| BmcSpec {
                kind: bmc.kind,
                address: bmc.address,
            }),
        }
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Its identity: the SMBIOS serial.
    pub serial: String,
    /// The number of its rack.
    pub rack: u32,
    /// Its index in the rack.
    pub index: u32,
    /// What it is for.
    pub role: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The hardware addresses of its network interfaces.
    pub macs: Vec<String>,
    /// Its management controller.
    pub bmc: Option<Bmc>,
    /// Its addresses by the plan of the time; empty where there was none.
    pub addresses: Vec<Address>,
    /// Where in its life it is.
    pub state: String,
    /// How it came into that state.
    pub status: Status,
    /// When it was registered.
    pub registered_at: Time,
    /// Counts what was declared.
    pub generation: u64,
    /// The revision at which it was registered.
    pub created: u64,
    /// The revision at which anything about it last changed: what `If-Match` compares with.
    pub modified: u64,
}

/// The management controller of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bmc {
    /// What it speaks.
    pub kind: String,
    /// Its address, unless none was declared and the plan has none.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Whether the address comes from the plan.
    pub planned: bool,
}

/// How a machine came into its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MachineStatus)]
pub struct Status {
    /// Since when.
    pub since: Time,
    /// The state before, if there was one.
    pub from: Option<String>,
    /// Why.
    pub reason: String,
    /// Who set it.
    pub by: String,
}

impl From<registry::Bmc> for Bmc {
    fn from(bmc: registry::Bmc) -> Self {
        Bmc {
            kind: bmc.kind,
            address: bmc.address,
            planned: bmc.planned,
        }
    }
}

impl From<registry::Machine> for Machine {
    fn from(machine: registry::Machine) -> Self {
        let status = machine.status;
        Machine {
            serial: machine.serial.0,
            rack: machine.rack,
            index: machine.index,
            role: machine.role,
            labels: machine.labels,
            macs: texts(&machine.macs),
            bmc: machine.bmc.map(Bmc::from),
            addresses: machine.addresses.into_iter().map(Address::from).collect(),
            state: status.state.to_string(),
            status: Status {
                since: time(status.since),
                from: status.from.map(|state| state.to_string()),
                reason: status.reason,
                by: status.by.to_string(),
            },
            registered_at: time(machine.registered_at),
            generation: machine.generation.0,
            created: machine.created.0,
            modified: machine.modified.0,
        }
    }
}

/// Registers new machines: all of them or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisterMachines)]
pub struct Register {
    /// 1 to 4096 of them.
    pub machines: Vec<Spec>,
}

impl TryFrom<Register> for registry::Command {
    type Error = Invalid;
    fn try_from(register: Register) -> Result<Self, Invalid> {
        let machines = register.machines.into_iter().enumerate().map(|(place, spec)| {
            registry::Spec::try_from(spec).map_err(|invalid| Invalid {
                field: format!("machines[{place}].{}", invalid.field),
                ..invalid
            })
        });
        Ok(registry::Command::Register {
            machines: machines.collect::<Result<_, _>>()?,
        })
    }
}

/// Where machines were put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Placements {
    /// In the order of the request.
    pub placements: Vec<Placement>,
}

/// Where a machine was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Placement {
    /// Which machine.
    pub serial: String,
    /// Its rack.
    pub rack: u32,
    /// Its index in the rack.
    pub index: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// The address of its BMC.
    #[schema(value_type = Option<String>)]
    pub bmc_address: Option<IpAddr>,
}

impl From<registry::Placement> for Placement {
    fn from(placement: registry::Placement) -> Self {
        Placement {
            serial: placement.serial.0,
            rack: placement.rack,
            index: placement.index,
            addresses: placement.addresses.into_iter().map(Address::from).collect(),
            bmc_address: placement.bmc_address,
        }
    }
}

/// Has this machine, and has it so: registers it where it is missing, and otherwise changes role, labels, hardware
/// addresses and BMC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeclareMachine)]
pub struct Declare {
    /// The whole of it.
    pub machine: Spec,
    /// Only if the machine's `modified` is this; 0 for "does not exist".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl TryFrom<Declare> for registry::Command {
    type Error = Invalid;
    fn try_from(declare: Declare) -> Result<Self, Invalid> {
        Ok(registry::Command::Declare {
            machine: declare.machine.try_into()?,
            expect: declare.expect_revision.map(Revision),
        })
    }
}

/// Sets some labels and removes others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// New or changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Gone, whether they were there or not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
}

/// As [`Labels`], of the machine that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetMachineLabels)]
pub struct SetLabels {
    /// Whose.
    pub serial: String,
    /// New or changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Gone, whether they were there or not.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub remove: BTreeSet<String>,
    /// Only if the machine's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<SetLabels> for registry::Command {
    fn from(labels: SetLabels) -> Self {
        registry::Command::SetLabels {
            serial: Serial(labels.serial),
            set: labels.set,
            remove: labels.remove,
            expect: labels.expect_revision.map(Revision),
        }
    }
}

/// Takes a machine to a state of its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    /// `uninitialized`, `healthy`, `unhealthy`, `unreachable`, `updating`, `retiring` or `retired`.
    pub state: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// As [`StateChange`], of the machine that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetMachineState)]
pub struct SetState {
    /// Whose.
    pub serial: String,
    /// The state wanted.
    pub state: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Only if the machine's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl TryFrom<SetState> for registry::Command {
    type Error = Invalid;
    fn try_from(change: SetState) -> Result<Self, Invalid> {
        let state = change.state.parse();
        Ok(registry::Command::SetState {
            serial: Serial(change.serial),
            state: state.map_err(|error: registry::StateError| Invalid::new("state", error.to_string()))?,
            reason: change.reason,
            expect: change.expect_revision.map(Revision),
        })
    }
}

/// Why something is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// In the words of who does it.
    #[serde(default)]
    pub reason: String,
}

/// Takes a machine out of service: to `retiring`, unless it is there or beyond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetireMachine)]
pub struct Retire {
    /// Which.
    pub serial: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Only if the machine's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<Retire> for registry::Command {
    fn from(retire: Retire) -> Self {
        registry::Command::Retire {
            serial: Serial(retire.serial),
            reason: retire.reason,
            expect: retire.expect_revision.map(Revision),
        }
    }
}

/// Forgets a retired machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeleteMachine)]
pub struct Delete {
    /// Which.
    pub serial: String,
    /// Only if the machine's `modified` is this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl From<Delete> for registry::Command {
    fn from(delete: Delete) -> Self {
        registry::Command::Delete {
            serial: Serial(delete.serial),
            expect: delete.expect_revision.map(Revision),
        }
    }
}

/// What happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = MachineEvent)]
pub enum Event {
    /// A machine was registered, and put into a slot.
    Registered {
        /// Which.
        serial: String,
        /// Its rack.
        rack: u32,
        /// Its index in the rack.
        index: u32,
        /// What it is for.
        role: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// Its network interfaces.
        macs: Vec<String>,
        /// Its management controller.
        bmc: Option<Bmc>,
        /// Its addresses.
        addresses: Vec<Address>,
    },
    /// Something else was declared of a machine.
    Redeclared {
        /// Which.
        serial: String,
        /// What it is for from now on.
        role: String,
        /// All its labels.
        labels: BTreeMap<String, String>,
        /// All its network interfaces.
        macs: Vec<String>,
        /// Its management controller.
        bmc: Option<Bmc>,
    },
    /// The labels of a machine changed.
    Relabelled {
        /// Which.
        serial: String,
        /// All its labels from now on.
        labels: BTreeMap<String, String>,
    },
    /// A machine went from one state to another.
    StateChanged {
        /// Which.
        serial: String,
        /// The state that it left.
        from: String,
        /// The state that it is in.
        to: String,
        /// Why.
        reason: String,
    },
    /// A machine was deleted.
    Deleted {
        /// Which.
        serial: String,
    },
}

impl From<registry::Event> for Event {
    fn from(event: registry::Event) -> Self {
        match event {
            registry::Event::Registered {
                serial,
                rack,
                index,
                role,
                labels,
                macs,
                bmc,
                addresses,
            } => Event::Registered {
                serial: serial.0,
                rack,
                index,
                role,
                labels,
                macs: texts(&macs),
                bmc: bmc.map(Bmc::from),
                addresses: addresses.into_iter().map(Address::from).collect(),
            },
            registry::Event::Redeclared {
                serial,
                role,
                labels,
                macs,
                bmc,
            } => Event::Redeclared {
                serial: serial.0,
                role,
                labels,
                macs: texts(&macs),
                bmc: bmc.map(Bmc::from),
            },
            registry::Event::Relabelled { serial, labels } => Event::Relabelled {
                serial: serial.0,
                labels,
            },
            registry::Event::StateChanged {
                serial,
                from,
                to,
                reason,
            } => Event::StateChanged {
                serial: serial.0,
                from: from.to_string(),
                to: to.to_string(),
                reason,
            },
            registry::Event::Deleted { serial } => Event::Deleted { serial: serial.0 },
        }
    }
}
