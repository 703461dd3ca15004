//! What always holds of machines.

use super::command::check_spec;
use super::types::*;
use crate::check::Violation;
use crate::command::Stop;
use crate::machines::ipam;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Machines keep the rules of what can be declared, have the addresses of their slot, and are indexed exactly once.
pub(crate) fn check(view: &dyn View, violations: &mut Vec<Violation>) -> Result<(), Fault> {
    let mut broken = |what: String| violations.push(Violation::new("registry", what));
    let plan = ipam::plan(view)?.map(|stored| stored.plan);
    let mut names = BTreeSet::new();
    let mut slots = BTreeMap::new();
    let mut macs = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    MACHINES.scan(view, &Range::all(), Order::Ascending, |key, machine| {
        let serial = &machine.serial;
        if serial.0 != key || machine.created > machine.modified {
            broken(format!("machine `{key}` contradicts itself: {machine:?}"));
        }
        match check_spec(&machine.spec()) {
            Ok(()) => {}
            Err(Stop::Refuse(refusal)) => broken(refusal.to_string()),
            Err(Stop::Fault(fault)) => return Err(fault),
        }
        let status = &machine.status;
        if status
            .from
            .is_some_and(|from| !from.successors().contains(&status.state))
        {
            broken(format!(
                "machine `{serial}` came to its state against the rule: {status:?}"
            ));
        }
        let planned = plan
            .as_ref()
            .map(|plan| plan.addresses(machine.rack, machine.index));
        if planned.unwrap_or(Some(Vec::new())).as_ref() != Some(&machine.addresses) {
            broken(format!(
                "machine `{serial}` has other addresses than the plan gives it"
            ));
        }
        names.insert(name_key(serial));
        let slot = (machine.rack, machine.index);
        let twice = slots.insert(slot, serial.clone()).is_some()
            | machine
                .macs
                .iter()
                .any(|mac| macs.insert(*mac, serial.clone()).is_some())
            | machine
                .all_addresses()
                .any(|address| addresses.insert(address, serial.clone()).is_some());
        if twice {
            broken(format!(
                "machine `{serial}` has a slot or an address of another one"
            ));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let listed = NAMES.list(view, &Range::all(), usize::MAX)?;
    let same_names = listed.into_iter().map(|(name, ())| name).eq(names);
    let same = SLOTS.list(view, &Range::all(), usize::MAX)?.into_iter().eq(slots)
        && MACS.list(view, &Range::all(), usize::MAX)?.into_iter().eq(macs)
        && ADDRESSES
            .list(view, &Range::all(), usize::MAX)?
            .into_iter()
            .eq(addresses);
    if !same || !same_names {
        broken(
            "the indexes of names, slots, hardware addresses and addresses are not those of the machines"
                .to_owned(),
        );
    }
    Ok(())
}
