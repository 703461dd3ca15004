//! Giving machines their places: what is free in the state, and what earlier machines of the same command took.

use super::command::{Refusal, check_spec, refuse};
use super::types::*;
use super::{Event, query};
use crate::command::Stop;
use crate::machines::ipam::{self, AddressPlan, Slots};
use crate::mutant::{self, Mutant};
use crate::store::{Fault, View};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A command as it is worked through.
pub(super) struct Draft<'a> {
    view: &'a dyn View,
    plan: Option<AddressPlan>,
    slots: Slots,
    racks: BTreeMap<u32, Rack>,
    macs: BTreeMap<MacAddress, Serial>,
    addresses: BTreeMap<IpAddr, Serial>,
}

/// The slots of a rack that are taken.
struct Rack {
    taken: BTreeMap<u32, Serial>,
    /// No index from the first up to here is free.
    full_below: u32,
}

impl<'a> Draft<'a> {
    pub(super) fn new(view: &'a dyn View) -> Result<Self, Fault> {
        Ok(Draft {
            view,
            plan: ipam::plan(view)?.map(|stored| stored.plan),
            slots: ipam::slots(view)?,
            racks: BTreeMap::new(),
            macs: BTreeMap::new(),
            addresses: BTreeMap::new(),
        })
    }

    /// Finds a place for every machine. Those that say where they want to be go first, so that a machine without a
    /// wish never sits on another's.
    pub(super) fn place(mut self, specs: &[Spec]) -> Result<(Vec<Event>, Vec<Placement>), Stop<Refusal>> {
        let mut serials = BTreeSet::new();
        for spec in specs {
            check_spec(spec)?;
            if !serials.insert(&spec.serial) || query::get(self.view, &spec.serial)?.is_some() {
                let serial = spec.serial.clone();
                return refuse(Refusal::SerialTaken { serial });
            }
        }
        let mut indices = Vec::with_capacity(specs.len());
        for spec in specs {
            let wanted = spec
                .index
                .or_else(|| (spec.role == ROLE_BOOT).then_some(self.slots.boot));
            if let Some(index) = wanted {
                self.take_slot(spec, index)?;
            }
            indices.push(wanted);
        }
        let mut events = Vec::with_capacity(specs.len());
        let mut placements = Vec::with_capacity(specs.len());
        for (spec, wanted) in specs.iter().zip(indices) {
            let index = match wanted {
                Some(index) => index,
                None => self.take_lowest_slot(spec)?,
            };
            let (event, placement) = self.settle(spec, index)?;
            events.push(event);
            placements.push(placement);
        }
        Ok((events, placements))
    }

    /// What a registered machine at `index` has for a BMC, once `spec` holds.
    pub(super) fn redeclare(mut self, spec: &Spec, index: u32) -> Result<Option<Bmc>, Stop<Refusal>> {
        self.take_macs(spec)?;
        let bmc = self.bmc(spec, index);
        self.take_address(spec, bmc.as_ref().and_then(|bmc| bmc.address))?;
        Ok(bmc)
    }

    fn settle(&mut self, spec: &Spec, index: u32) -> Result<(Event, Placement), Stop<Refusal>> {
        let (serial, rack) = (spec.serial.clone(), spec.rack);
        self.take_macs(spec)?;
        let addresses = match &self.plan {
            None => Vec::new(),
            Some(plan) => match plan.addresses(rack, index) {
                Some(addresses) => addresses,
                None => {
                    let last = plan.racks() - 1;
                    return refuse(Refusal::RackOutsidePlan { serial, rack, last });
                }
            },
        };
        let bmc = self.bmc(spec, index);
        let bmc_address = bmc.as_ref().and_then(|bmc| bmc.address);
        let own = addresses.iter().map(|address| IpAddr::from(address.ip));
        for address in own.chain(bmc_address) {
            self.take_address(spec, Some(address))?;
        }
        let placement = Placement {
            serial: serial.clone(),
            rack,
            index,
            addresses: addresses.clone(),
            bmc_address,
        };
        let event = Event::Registered {
            serial,
            rack,
            index,
            role: spec.role.clone(),
            labels: spec.labels.clone(),
            macs: spec.macs.clone(),
            bmc,
            addresses,
        };
        Ok((event, placement))
    }

    fn bmc(&self, spec: &Spec, index: u32) -> Option<Bmc> {
        let declared = spec.bmc.as_ref()?;
        let planned = || self.plan.as_ref()?.bmc_address(spec.rack, index);
        let computed = declared.address.is_none().then(planned).flatten();
        Some(Bmc {
            kind: declared.kind.clone(),
            address: declared.address.or(computed.map(|address| address.ip.into())),
            planned: computed.is_some(),
        })
    }

    fn rack(&mut self, number: u32) -> Result<&mut Rack, Fault> {
        if !self.racks.contains_key(&number) {
            let mut taken = query::indices(self.view, number)?;
            if mutant::on(Mutant::IpamNotUnique) {
                taken.clear();
            }
            let rack = Rack {
                taken: taken.into_iter().collect(),
                full_below: self.slots.boot + 1,
            };
            self.racks.insert(number, rack);
        }
        Ok(self.racks.get_mut(&number).expect("it was put there"))
    }

    fn take_slot(&mut self, spec: &Spec, index: u32) -> Result<(), Stop<Refusal>> {
        let (serial, rack) = (spec.serial.clone(), spec.rack);
        let Slots { boot, last } = self.slots;
        let (first, last) = match spec.role.as_str() {
            ROLE_BOOT => (boot, boot),
            _ => (boot + 1, last),
        };
        if !(first..=last).contains(&index) {
            let role = spec.role.clone();
            return refuse(Refusal::SlotOutside {
                serial,
                role,
                index,
                first,
                last,
            });
        }
        match self.rack(rack)?.taken.entry(index) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(serial);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(slot) => refuse(Refusal::SlotTaken {
                serial,
                rack,
                index,
                owner: slot.get().clone(),
            }),
        }
    }

    fn take_lowest_slot(&mut self, spec: &Spec) -> Result<u32, Stop<Refusal>> {
        let (serial, number) = (spec.serial.clone(), spec.rack);
        let Slots { boot, last } = self.slots;
        let rack = self.rack(number)?;
        let Some(index) = (rack.full_below..=last).find(|index| !rack.taken.contains_key(index)) else {
            return refuse(Refusal::RackFull {
                serial,
                rack: number,
                capacity: last - boot,
            });
        };
        rack.full_below = index + 1;
        rack.taken.insert(index, serial);
        Ok(index)
    }

    fn take_macs(&mut self, spec: &Spec) -> Result<(), Stop<Refusal>> {
        let mut own = BTreeSet::new();
        for &mac in &spec.macs {
            let stored = query::mac_owner(self.view, mac)?.filter(|owner| *owner != spec.serial);
            let twice = (!own.insert(mac)).then(|| spec.serial.clone());
            if let Some(owner) = stored.or(twice).or_else(|| self.macs.get(&mac).cloned()) {
                let serial = spec.serial.clone();
                return refuse(Refusal::MacTaken { serial, mac, owner });
            }
            self.macs.insert(mac, spec.serial.clone());
        }
        Ok(())
    }

    fn take_address(&mut self, spec: &Spec, address: Option<IpAddr>) -> Result<(), Stop<Refusal>> {
        let Some(address) = address.filter(|_| !mutant::on(Mutant::IpamNotUnique)) else {
            return Ok(());
        };
        let serial = spec.serial.clone();
        let stored = query::address_owner(self.view, address)?;
        // A registered machine may keep its BMC's address, but not give its BMC one of its own.
        let kept = stored.as_ref() == Some(&serial) && !self.is_own(spec, address)?;
        if let Some(owner) = stored
            .filter(|_| !kept)
            .or_else(|| self.addresses.get(&address).cloned())
        {
            return refuse(Refusal::AddressTaken {
                serial,
                address,
                owner,
            });
        }
        self.addresses.insert(address, serial);
        Ok(())
    }

    /// Whether `address` is one of the machine's own in the state, not its BMC's.
    fn is_own(&self, spec: &Spec, address: IpAddr) -> Result<bool, Fault> {
        let machine = query::get(self.view, &spec.serial)?;
        Ok(machine.is_some_and(|machine| {
            machine
                .addresses
                .iter()
                .any(|own| IpAddr::from(own.ip) == address)
        }))
    }
}
