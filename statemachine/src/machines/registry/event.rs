use super::types::*;
use crate::command::Context;
use crate::ids::Generation;
use crate::machines::ipam;
use crate::store::Fault;
use crate::txn::Txn;
use serde::{Deserialize, Serialize};

/// What happened to machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A machine was registered, and put into a slot.
    Registered {
        /// Which.
        serial: Serial,
        /// Its rack.
        rack: u32,
        /// Its index in the rack.
        index: u32,
        /// What it is for.
        role: String,
        /// Its labels.
        labels: Labels,
        /// Its network interfaces.
        macs: Vec<MacAddress>,
        /// Its management controller.
        bmc: Option<Bmc>,
        /// Its addresses.
        addresses: Vec<ipam::Address>,
    },
    /// Something else was declared of a machine.
    Redeclared {
        /// Which.
        serial: Serial,
        /// What it is for from now on.
        role: String,
        /// All its labels.
        labels: Labels,
        /// All its network interfaces.
        macs: Vec<MacAddress>,
        /// Its management controller.
        bmc: Option<Bmc>,
    },
    /// The labels of a machine changed.
    Relabelled {
        /// Which.
        serial: Serial,
        /// All its labels from now on.
        labels: Labels,
    },
    /// A machine went from one state to another.
    StateChanged {
        /// Which.
        serial: Serial,
        /// The state that it left.
        from: State,
        /// The state that it is in.
        to: State,
        /// Why.
        reason: String,
    },
    /// A machine was deleted; its slot, addresses and hardware addresses are free.
    Deleted {
        /// Which.
        serial: Serial,
    },
}

impl Event {
    /// The machine that it happened to.
    pub fn serial(&self) -> &Serial {
        match self {
            Event::Registered { serial, .. }
            | Event::Redeclared { serial, .. }
            | Event::Relabelled { serial, .. }
            | Event::StateChanged { serial, .. }
            | Event::Deleted { serial } => serial,
        }
    }
}

pub(crate) fn evolve(txn: &mut Txn<'_>, ctx: &Context, event: &Event) -> Result<(), Fault> {
    if let Event::Registered {
        serial,
        rack,
        index,
        role,
        labels,
        macs,
        bmc,
        addresses,
    } = event
    {
        let machine = Machine {
            serial: serial.clone(),
            rack: *rack,
            index: *index,
            role: role.clone(),
            labels: labels.clone(),
            macs: macs.clone(),
            bmc: bmc.clone(),
            addresses: addresses.clone(),
            status: Status {
                state: State::Uninitialized,
                since: ctx.now,
                from: None,
                reason: "registered".to_owned(),
                by: ctx.actor.clone(),
            },
            registered_at: ctx.now,
            generation: Generation(1),
            created: ctx.revision,
            modified: ctx.revision,
        };
        insert(txn, &machine);
        return Ok(());
    }
    let mut machine = MACHINES.expect(txn, &event.serial().0)?;
    remove(txn, &machine);
    match event {
        Event::Registered { .. } => unreachable!("returned above"),
        Event::Deleted { .. } => return Ok(()),
        Event::Redeclared {
            role,
            labels,
            macs,
            bmc,
            ..
        } => {
            machine.role.clone_from(role);
            machine.labels.clone_from(labels);
            machine.macs.clone_from(macs);
            machine.bmc.clone_from(bmc);
            machine.generation = machine.generation.next();
        }
        Event::Relabelled { labels, .. } => {
            machine.labels.clone_from(labels);
            machine.generation = machine.generation.next();
        }
        Event::StateChanged { from, to, reason, .. } => {
            machine.status = Status {
                state: *to,
                since: ctx.now,
                from: Some(*from),
                reason: reason.clone(),
                by: ctx.actor.clone(),
            };
        }
    }
    machine.modified = ctx.revision;
    insert(txn, &machine);
    Ok(())
}

/// Writes a machine and its index rows.
fn insert(txn: &mut Txn<'_>, machine: &Machine) {
    let serial = &machine.serial;
    MACHINES.put(txn, &serial.0, machine);
    NAMES.put(txn, &name_key(serial), &());
    SLOTS.put(txn, &(machine.rack, machine.index), serial);
    for mac in &machine.macs {
        MACS.put(txn, mac, serial);
    }
    for address in machine.all_addresses() {
        ADDRESSES.put(txn, &address, serial);
    }
}

/// Takes a machine and its index rows away.
fn remove(txn: &mut Txn<'_>, machine: &Machine) {
    MACHINES.delete(txn, &machine.serial.0);
    NAMES.delete(txn, &name_key(&machine.serial));
    SLOTS.delete(txn, &(machine.rack, machine.index));
    for mac in &machine.macs {
        MACS.delete(txn, mac);
    }
    for address in machine.all_addresses() {
        ADDRESSES.delete(txn, &address);
    }
}
