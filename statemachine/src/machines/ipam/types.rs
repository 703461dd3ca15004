use crate::dump::Describe;
use crate::ids::Revision;
use crate::keys;
use crate::table::Table;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The most addresses of a machine.
pub const ADDRESSES_PER_MACHINE_MAX: u32 = 8;
/// The largest block: `2^12` addresses, as many as a rack has indices.
pub const RANGE_BITS_MAX: u8 = 12;
/// The masks that a subnet of the plan may have.
pub const MASK_BITS: std::ops::RangeInclusive<u8> = 8..=30;

/// How addresses follow from a machine's rack and index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPlan {
    /// The index of the `boot` machine of each rack; the others are counted from the one after it. At least 1.
    pub index_offset: u32,
    /// The most machines in a rack besides the `boot` machine. At least 1.
    pub machines_per_rack_max: u32,
    /// How many addresses a machine has, 1 to [`ADDRESSES_PER_MACHINE_MAX`].
    pub addresses_per_machine: u32,
    /// Where the machines' own addresses come from.
    pub machines: Pool,
    /// Where the addresses of their BMCs come from; without it, only declared BMC addresses are known.
    pub bmcs: Option<Pool>,
}

/// Addresses, cut into one block of `2^range_bits` for each rack (and each address of a machine).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them. The host part is zero.
    pub cidr: Ipv4Net,
    /// How many addresses into the pool the first block begins.
    pub offset: u32,
    /// The size of a block as a power of two, 1 to [`RANGE_BITS_MAX`].
    pub range_bits: u8,
    /// The size of the subnet that a machine is told it is in, in [`MASK_BITS`].
    pub mask_bits: u8,
    /// Where in its subnet the gateway is. At least 1.
    pub gateway_offset: u32,
}

/// An address with what its machine must know to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// The size of its subnet.
    pub mask_bits: u8,
    /// The gateway of its subnet.
    pub gateway: Ipv4Addr,
}

impl Address {
    /// The size of its subnet, as a mask.
    pub fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.mask_bits)).unwrap_or(0))
    }
}

/// The plan as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPlan {
    /// The plan.
    pub plan: AddressPlan,
    /// When there first was one.
    pub created: Revision,
    /// When it was last set.
    pub modified: Revision,
}

/// The indices that the machines of a rack can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// The index of the `boot` machine.
    pub boot: u32,
    /// The last index of the others, which begin after `boot`.
    pub last: u32,
}

pub(super) const PLAN: Table<(), StoredPlan> = Table::new(keys::ADDRESS_PLAN, "address_plan");

/// This area's tables.
pub(crate) const TABLES: &[&dyn Describe] = &[&PLAN];
