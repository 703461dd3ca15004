use super::draft::Draft;
use super::types::*;
use super::{Event, query};
use crate::command::{self, Accepted, Context, Decision, Stop};
use crate::ids::{NameError, Revision, check_label_key, check_label_value, check_length};
use crate::store::View;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Demands on machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Register new machines: all of them or none.
    Register {
        /// 1 to [`REGISTER_MAX`] of them.
        machines: Vec<Spec>,
    },
    /// Have this machine, and have it so: registers it where it is missing, and otherwise changes role, labels,
    /// hardware addresses and BMC to what is given. Its rack and index stay, and must be those given, if any.
    Declare {
        /// The whole of it.
        machine: Spec,
        /// Only if the machine's modified revision is this; 0 for "does not exist".
        expect: Option<Revision>,
    },
    /// Set some labels and remove others.
    SetLabels {
        /// Whose.
        serial: Serial,
        /// New or changed.
        set: Labels,
        /// Gone, whether they were there or not. A label that is also in `set` is set.
        remove: BTreeSet<String>,
        /// Only if the machine's modified revision is this.
        expect: Option<Revision>,
    },
    /// Take a machine to the next state of its life, if that may follow the one it is in.
    SetState {
        /// Whose.
        serial: Serial,
        /// The state wanted.
        state: State,
        /// Why, at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
        /// Only if the machine's modified revision is this.
        expect: Option<Revision>,
    },
    /// Take a machine out of service: to `retiring`, unless it is there or beyond.
    Retire {
        /// Which.
        serial: Serial,
        /// Why, at most [`REASON_BYTES_MAX`] bytes.
        reason: String,
        /// Only if the machine's modified revision is this.
        expect: Option<Revision>,
    },
    /// Forget a retired machine.
    Delete {
        /// Which.
        serial: Serial,
        /// Only if the machine's modified revision is this.
        expect: Option<Revision>,
    },
}

/// Why a demand on machines is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Too many machines at once, or none.
    #[error("the command registers {count} machines; it takes 1 to {REGISTER_MAX}")]
    RegisterLength {
        /// How many there were.
        count: usize,
    },
    /// A serial that is none.
    #[error(transparent)]
    Serial(NameError),
    /// A role, label, BMC kind or reason that breaks its rule.
    #[error("machine `{serial}`: {error}")]
    Field {
        /// Whose.
        serial: Serial,
        /// Which field, and the rule.
        error: NameError,
    },
    /// A label that would hide a field from selectors.
    #[error("machine `{serial}` cannot have a label `{label}`: selectors mean the field of that name")]
    LabelReserved {
        /// Whose.
        serial: Serial,
        /// The label.
        label: String,
    },
    /// More labels than a machine has room for.
    #[error("machine `{serial}` would have {count} labels; the most is {LABELS_MAX}")]
    TooManyLabels {
        /// Whose.
        serial: Serial,
        /// How many there would be.
        count: usize,
    },
    /// More interfaces than a machine has room for.
    #[error("machine `{serial}` would have {count} hardware addresses; the most is {MACS_MAX}")]
    TooManyMacs {
        /// Whose.
        serial: Serial,
        /// How many there would be.
        count: usize,
    },
    /// A hardware address that names no single interface.
    #[error("machine `{serial}`: {mac} is a group address or zero, and no interface has that")]
    MacNotUnicast {
        /// Whose.
        serial: Serial,
        /// Which.
        mac: MacAddress,
    },
    /// The serial is in use.
    #[error("machine `{serial}` is registered already, or twice in the command")]
    SerialTaken {
        /// Which.
        serial: Serial,
    },
    /// The hardware address is in use.
    #[error("hardware address {mac} of machine `{serial}` is that of machine `{owner}`")]
    MacTaken {
        /// Who wants it.
        serial: Serial,
        /// Which.
        mac: MacAddress,
        /// Who has it.
        owner: Serial,
    },
    /// The address is in use.
    #[error("address {address} of machine `{serial}` is that of machine `{owner}`")]
    AddressTaken {
        /// Who wants it.
        serial: Serial,
        /// Which.
        address: IpAddr,
        /// Who has it.
        owner: Serial,
    },
    /// The slot is in use.
    #[error("index {index} of rack {rack}, wanted by machine `{serial}`, is that of machine `{owner}`")]
    SlotTaken {
        /// Who wants it.
        serial: Serial,
        /// The rack.
        rack: u32,
        /// The index.
        index: u32,
        /// Who has it.
        owner: Serial,
    },
    /// The role does not have this slot.
    #[error("machine `{serial}` of role `{role}` cannot have index {index}: its role has {first} to {last}")]
    SlotOutside {
        /// Who wants it.
        serial: Serial,
        /// Its role.
        role: String,
        /// The index.
        index: u32,
        /// The first index of the role.
        first: u32,
        /// The last index of the role.
        last: u32,
    },
    /// No slot is left.
    #[error(
        "rack {rack} is full, so machine `{serial}` has no place: it takes {capacity} besides the boot machine"
    )]
    RackFull {
        /// Who wants one.
        serial: Serial,
        /// The rack.
        rack: u32,
        /// How many machines it takes.
        capacity: u32,
    },
    /// The plan has no addresses for the rack.
    #[error("rack {rack} of machine `{serial}` is outside the address plan, which has racks 0 to {last}")]
    RackOutsidePlan {
        /// Who is in it.
        serial: Serial,
        /// The rack.
        rack: u32,
        /// The last rack with addresses.
        last: u32,
    },
    /// No such machine.
    #[error("there is no machine `{serial}`")]
    NotFound {
        /// The serial.
        serial: Serial,
    },
    /// A compare-and-set lost.
    #[error("machine `{serial}` was last modified at revision {actual}, not at {expected}")]
    RevisionMismatch {
        /// Whose.
        serial: Serial,
        /// What the caller had read.
        expected: Revision,
        /// What is there; 0 where nothing is.
        actual: Revision,
    },
    /// Machines do not move.
    #[error(
        "machine `{serial}` is at index {index} of rack {rack} and does not move: delete it and register it again"
    )]
    Moved {
        /// Which.
        serial: Serial,
        /// The rack that it is in.
        rack: u32,
        /// The index that it has.
        index: u32,
    },
    /// The boot machine of a rack is so from its registration on.
    #[error(
        "machine `{serial}` cannot take or leave the role `{ROLE_BOOT}`, which goes with its index: delete it and \
         register it again"
    )]
    RoleFixed {
        /// Which.
        serial: Serial,
    },
    /// The state may not follow.
    #[error("machine `{serial}` is {from}, which {to} may not follow")]
    Transition {
        /// Whose.
        serial: Serial,
        /// The state that it is in.
        from: State,
        /// The state wanted.
        to: State,
    },
    /// Still in service.
    #[error("machine `{serial}` is {state}; only a retired machine is deleted")]
    NotRetired {
        /// Which.
        serial: Serial,
        /// The state that it is in.
        state: State,
    },
}

pub(super) fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on machines.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Register { machines } => register(view, machines),
        Command::Declare { machine, expect } => declare(view, machine, *expect),
        Command::SetLabels {
            serial,
            set,
            remove,
            expect,
        } => {
            let machine = find(view, serial, *expect)?;
            let mut labels = machine.labels.clone();
            labels.retain(|key, _| !remove.contains(key));
            labels.extend(set.clone());
            if labels == machine.labels {
                return Ok(Accepted::unchanged());
            }
            check_labels(serial, &labels)?;
            let serial = machine.serial;
            Ok(Accepted::event(Event::Relabelled { serial, labels }))
        }
        Command::SetState {
            serial,
            state,
            reason,
            expect,
        } => set_state(find(view, serial, *expect)?, *state, reason),
        Command::Retire {
            serial,
            reason,
            expect,
        } => {
            let machine = find(view, serial, *expect)?;
            if machine.status.state == State::Retired {
                return Ok(Accepted::unchanged());
            }
            set_state(machine, State::Retiring, reason)
        }
        Command::Delete { serial, expect } => {
            let machine = find(view, serial, *expect)?;
            let (serial, state) = (machine.serial, machine.status.state);
            if state != State::Retired {
                return refuse(Refusal::NotRetired { serial, state });
            }
            Ok(Accepted::event(Event::Deleted { serial }))
        }
    }
}

fn register(view: &dyn View, specs: &[Spec]) -> Decision<Event, Refusal> {
    let count = specs.len();
    if !(1..=REGISTER_MAX).contains(&count) {
        return refuse(Refusal::RegisterLength { count });
    }
    let (events, placements) = Draft::new(view)?.place(specs)?;
    Ok(Accepted {
        events,
        reply: command::Reply::Registry(Reply::Registered(placements)),
    })
}

fn declare(view: &dyn View, spec: &Spec, expect: Option<Revision>) -> Decision<Event, Refusal> {
    check_serial(&spec.serial)?;
    let Some(machine) = query::get(view, &spec.serial)? else {
        check_expected(&spec.serial, None, expect)?;
        return register(view, std::slice::from_ref(spec));
    };
    check_expected(&spec.serial, Some(&machine), expect)?;
    check_spec(spec)?;
    let Machine {
        serial, rack, index, ..
    } = machine.clone();
    if spec.rack != rack || spec.index.is_some_and(|wanted| wanted != index) {
        return refuse(Refusal::Moved { serial, rack, index });
    }
    if spec.role != machine.role
        && [&spec.role, &machine.role]
            .into_iter()
            .any(|role| role == ROLE_BOOT)
    {
        return refuse(Refusal::RoleFixed { serial });
    }
    let bmc = Draft::new(view)?.redeclare(spec, index)?;
    let same = spec.role == machine.role
        && spec.labels == machine.labels
        && spec.macs == machine.macs
        && bmc == machine.bmc;
    if same {
        return Ok(Accepted::unchanged());
    }
    Ok(Accepted::event(Event::Redeclared {
        serial,
        role: spec.role.clone(),
        labels: spec.labels.clone(),
        macs: spec.macs.clone(),
        bmc,
    }))
}

fn set_state(machine: Machine, to: State, reason: &str) -> Decision<Event, Refusal> {
    let (serial, from) = (machine.serial, machine.status.state);
    if from == to {
        return Ok(Accepted::unchanged());
    }
    if !from.successors().contains(&to) {
        return refuse(Refusal::Transition { serial, from, to });
    }
    if let Err(error) = check_reason(reason) {
        return refuse(Refusal::Field { serial, error });
    }
    let reason = reason.to_owned();
    Ok(Accepted::event(Event::StateChanged {
        serial,
        from,
        to,
        reason,
    }))
}

fn find(view: &dyn View, serial: &Serial, expect: Option<Revision>) -> Result<Machine, Stop<Refusal>> {
    check_serial(serial)?;
    let machine = query::get(view, serial)?;
    check_expected(serial, machine.as_ref(), expect)?;
    machine.ok_or_else(|| {
        Stop::Refuse(Refusal::NotFound {
            serial: serial.clone(),
        })
    })
}

fn check_expected(
    serial: &Serial,
    machine: Option<&Machine>,
    expect: Option<Revision>,
) -> Result<(), Stop<Refusal>> {
    let actual = machine.map_or(Revision(0), |machine| machine.modified);
    match expect.filter(|expected| *expected != actual) {
        None => Ok(()),
        Some(expected) => refuse(Refusal::RevisionMismatch {
            serial: serial.clone(),
            expected,
            actual,
        }),
    }
}

/// Whether what is declared of a machine keeps the rules that need no state.
pub(super) fn check_spec(spec: &Spec) -> Result<(), Stop<Refusal>> {
    check_serial(&spec.serial)?;
    let serial = || spec.serial.clone();
    let field = |error| {
        Stop::Refuse(Refusal::Field {
            serial: serial(),
            error,
        })
    };
    check_label_key("role", &spec.role).map_err(field)?;
    check_labels(&spec.serial, &spec.labels)?;
    let count = spec.macs.len();
    if count > MACS_MAX {
        return refuse(Refusal::TooManyMacs {
            serial: serial(),
            count,
        });
    }
    if let Some(mac) = spec.macs.iter().find(|mac| !mac.is_unicast()) {
        return refuse(Refusal::MacNotUnicast {
            serial: serial(),
            mac: *mac,
        });
    }
    match &spec.bmc {
        None => Ok(()),
        Some(bmc) => check_bmc_kind(&bmc.kind).map_err(field),
    }
}

fn check_serial(serial: &Serial) -> Result<(), Stop<Refusal>> {
    check_serial_text(&serial.0).map_err(|error| Stop::Refuse(Refusal::Serial(error)))
}

/// Whether `text` is a serial.
pub(super) fn check_serial_text(text: &str) -> Result<(), NameError> {
    check_length("serial", text, SERIAL_BYTES_MAX)?;
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if printable && text.trim() == text {
        return Ok(());
    }
    Err(NameError::Characters {
        field: "serial".to_owned(),
        value: text.escape_default().to_string(),
        rule: "printable ASCII, no space at either end".to_owned(),
    })
}

fn check_labels(serial: &Serial, labels: &Labels) -> Result<(), Stop<Refusal>> {
    let serial = || serial.clone();
    let field = |error| {
        Stop::Refuse(Refusal::Field {
            serial: serial(),
            error,
        })
    };
    let count = labels.len();
    if count > LABELS_MAX {
        return refuse(Refusal::TooManyLabels {
            serial: serial(),
            count,
        });
    }
    for (key, value) in labels {
        check_label_key("label", key).map_err(field)?;
        check_label_value(&format!("value of label `{key}`"), value).map_err(field)?;
        if super::FIELDS.contains(&key.as_str()) {
            return refuse(Refusal::LabelReserved {
                serial: serial(),
                label: key.clone(),
            });
        }
    }
    Ok(())
}

fn check_bmc_kind(kind: &str) -> Result<(), NameError> {
    check_length("kind of BMC", kind, BMC_KIND_BYTES_MAX)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b'.');
    if kind.bytes().all(allowed) {
        return Ok(());
    }
    Err(NameError::Characters {
        field: "kind of BMC".to_owned(),
        value: kind.to_owned(),
        rule: "letters, digits, `-`, `_`, `/` and `.`".to_owned(),
    })
}

fn check_reason(reason: &str) -> Result<(), NameError> {
    let length = reason.len();
    if length > REASON_BYTES_MAX {
        return Err(NameError::Length {
            field: "reason".to_owned(),
            length,
            max: REASON_BYTES_MAX,
        });
    }
    if reason.contains(char::is_control) {
        return Err(NameError::Characters {
            field: "reason".to_owned(),
            value: reason.escape_default().to_string(),
            rule: "no control characters".to_owned(),
        });
    }
    Ok(())
}
