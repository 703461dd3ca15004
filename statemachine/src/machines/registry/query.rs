use super::selector::Selector;
use super::types::*;
use crate::store::{Fault, Order, View};
use crate::table::Range;
use std::net::IpAddr;
use std::ops::ControlFlow;

/// The most machines that one page looks at, however few of them match.
const SCAN_MACHINES_MAX: usize = 10_000;

/// The machine with this serial.
pub fn get(view: &dyn View, serial: &Serial) -> Result<Option<Machine>, Fault> {
    MACHINES.get(view, &serial.0)
}

/// The machine whose serial this is in lower case; of several, the first in order of serial.
pub fn by_name(view: &dyn View, name: &str) -> Result<Option<Machine>, Fault> {
    let names = NAMES.list(view, &Range::within(&name.to_owned()), 1)?;
    follow(
        view,
        names.into_iter().next().map(|((_, serial), ())| Serial(serial)),
    )
}

/// The machine that has this hardware address.
pub fn by_mac(view: &dyn View, mac: MacAddress) -> Result<Option<Machine>, Fault> {
    follow(view, MACS.get(view, &mac)?)
}

/// The machine whose own or whose BMC's address this is.
pub fn by_address(view: &dyn View, address: IpAddr) -> Result<Option<Machine>, Fault> {
    follow(view, ADDRESSES.get(view, &address)?)
}

fn follow(view: &dyn View, serial: Option<Serial>) -> Result<Option<Machine>, Fault> {
    serial.map(|serial| MACHINES.expect(view, &serial.0)).transpose()
}

/// Where a listing goes on: after this serial.
pub type Cursor = Serial;

/// One page of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// In order of serial.
    pub machines: Vec<Machine>,
    /// Where to go on, if there is more to look at: a page may be short, even empty, and not be the last.
    pub next: Option<Cursor>,
}

/// The machines that `selector` chooses, after `after`: at most `limit`.
pub fn list(
    view: &dyn View,
    selector: &Selector,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Listing, Fault> {
    let mut listing = Listing {
        machines: Vec::new(),
        next: None,
    };
    if let Some(serial) = selector.serial() {
        if limit > 0 && after.is_none_or(|after| *after < serial) {
            let machine = get(view, &serial)?.filter(|machine| selector.matches(machine));
            listing.machines.extend(machine);
        }
        return Ok(listing);
    }
    let mut range = Range::all();
    if let Some(after) = after {
        range = range.after(&after.0);
    }
    let mut seen = 0;
    let mut last = after.cloned();
    MACHINES.scan(view, &range, Order::Ascending, |_, machine| {
        if listing.machines.len() == limit || seen == SCAN_MACHINES_MAX {
            listing.next = last.take();
            return Ok(ControlFlow::Break(()));
        }
        seen += 1;
        last = Some(machine.serial.clone());
        if selector.matches(&machine) {
            listing.machines.push(machine);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(listing)
}

/// Whether there is any machine.
pub(crate) fn exists_any(view: &dyn View) -> Result<bool, Fault> {
    Ok(!MACHINES.list(view, &Range::all(), 1)?.is_empty())
}

/// The indices in use in `rack`.
pub(super) fn indices(view: &dyn View, rack: u32) -> Result<Vec<(u32, Serial)>, Fault> {
    let mut indices = Vec::new();
    let range = Range::within(&rack);
    SLOTS.scan(view, &range, Order::Ascending, |(_, index), serial| {
        indices.push((index, serial));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(indices)
}

/// Whose hardware address it is.
pub(super) fn mac_owner(view: &dyn View, mac: MacAddress) -> Result<Option<Serial>, Fault> {
    MACS.get(view, &mac)
}

/// Whose address it is.
pub(super) fn address_owner(view: &dyn View, address: IpAddr) -> Result<Option<Serial>, Fault> {
    ADDRESSES.get(view, &address)
}
