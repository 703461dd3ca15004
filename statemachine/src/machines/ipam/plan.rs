//! The arithmetic of the plan, and what makes a plan sound.

use super::types::*;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Why a plan cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PlanError {
    /// A number outside its range.
    #[error("{field} of the address plan is {value}; it takes {min} to {max}")]
    Range {
        /// Which number.
        field: String,
        /// What was given.
        value: u32,
        /// The least it may be.
        min: u32,
        /// The most it may be.
        max: u32,
    },
    /// A pool that is written with an address inside it.
    #[error("the pool {cidr} of the address plan has host bits: write {network}")]
    HostBits {
        /// What was given.
        cidr: ipnet::Ipv4Net,
        /// What was meant.
        network: ipnet::Ipv4Net,
    },
    /// A block that cannot hold a rack.
    #[error(
        "a block of the pool {cidr} has {block} addresses; index {last}, the last of a rack, does not fit"
    )]
    BlockTooSmall {
        /// Which pool.
        cidr: ipnet::Ipv4Net,
        /// Addresses in a block.
        block: u32,
        /// The last index of a rack.
        last: u32,
    },
    /// A pool without room for one rack.
    #[error("the pool {cidr} of the address plan has no room for one rack: that takes {needed} addresses")]
    PoolTooSmall {
        /// Which pool.
        cidr: ipnet::Ipv4Net,
        /// Offset and blocks of the first rack.
        needed: u64,
    },
    /// Pools that share addresses.
    #[error("the pools {machines} and {bmcs} of the address plan overlap")]
    Overlap {
        /// Of the machines.
        machines: ipnet::Ipv4Net,
        /// Of the BMCs.
        bmcs: ipnet::Ipv4Net,
    },
    /// A gateway that a machine could be given.
    #[error(
        "the gateway {gateway} of the pool {cidr} would also be the address of a machine, at index {index}"
    )]
    GatewayTaken {
        /// Which pool.
        cidr: ipnet::Ipv4Net,
        /// The gateway.
        gateway: Ipv4Addr,
        /// The index whose address it would be.
        index: u32,
    },
}

impl AddressPlan {
    /// The indices that the machines of a rack can have.
    pub fn slots(&self) -> Slots {
        Slots {
            boot: self.index_offset,
            last: self.index_offset + self.machines_per_rack_max,
        }
    }

    /// How many racks have addresses in every pool, counted from rack 0.
    pub fn racks(&self) -> u32 {
        let machines = self.machines.racks(self.addresses_per_machine);
        let bmcs = self.bmcs.as_ref().map_or(u32::MAX, |pool| pool.racks(1));
        machines.min(bmcs)
    }

    /// The addresses of the machine at `index` of `rack`; `None` outside the racks and slots of the plan.
    pub fn addresses(&self, rack: u32, index: u32) -> Option<Vec<Address>> {
        let count = self.addresses_per_machine;
        self.holds(rack, index).then(|| {
            (0..count)
                .map(|nth| self.machines.address(rack, count, index, nth))
                .collect()
        })
    }

    /// The address of the BMC of the machine at `index` of `rack`; `None` outside the plan, or without a pool for it.
    pub fn bmc_address(&self, rack: u32, index: u32) -> Option<Address> {
        let pool = self.bmcs.as_ref()?;
        self.holds(rack, index).then(|| pool.address(rack, 1, index, 0))
    }

    fn holds(&self, rack: u32, index: u32) -> bool {
        let Slots { boot, last } = self.slots();
        rack < self.racks() && (boot..=last).contains(&index)
    }

    /// Whether it can be used.
    pub fn check(&self) -> Result<(), PlanError> {
        let indices = (1 << RANGE_BITS_MAX) - 1;
        in_range("index_offset", self.index_offset, 1, indices)?;
        in_range("machines_per_rack_max", self.machines_per_rack_max, 1, indices)?;
        let addresses = self.addresses_per_machine;
        in_range("addresses_per_machine", addresses, 1, ADDRESSES_PER_MACHINE_MAX)?;
        let slots = self.slots();
        self.machines.check("machines", slots, addresses)?;
        let Some(bmcs) = &self.bmcs else { return Ok(()) };
        bmcs.check("bmcs", slots, 1)?;
        let (machines, bmcs) = (self.machines.cidr, bmcs.cidr);
        if machines.contains(&bmcs) || bmcs.contains(&machines) {
            return Err(PlanError::Overlap { machines, bmcs });
        }
        Ok(())
    }
}

fn in_range(field: &str, value: u32, min: u32, max: u32) -> Result<(), PlanError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(PlanError::Range {
        field: field.to_owned(),
        value,
        min,
        max,
    })
}

impl Pool {
    /// Addresses in the whole pool.
    fn size(&self) -> u64 {
        1 << (32 - u32::from(self.cidr.prefix_len()))
    }

    /// Addresses that one rack takes.
    fn rack_size(&self, blocks: u32) -> u64 {
        u64::from(blocks) << self.range_bits
    }

    fn racks(&self, blocks: u32) -> u32 {
        let racks = self.size().saturating_sub(self.offset.into()) / self.rack_size(blocks);
        u32::try_from(racks).unwrap_or(u32::MAX)
    }

    /// The address number `nth` at `index` of `rack`, which must be in the pool.
    fn address(&self, rack: u32, blocks: u32, index: u32, nth: u32) -> Address {
        let first = u32::from(self.cidr.network()) + self.offset;
        let block = (rack * blocks + nth) << self.range_bits;
        let ip = first + block + index;
        let mask = u32::MAX << (32 - u32::from(self.mask_bits));
        Address {
            ip: ip.into(),
            mask_bits: self.mask_bits,
            gateway: ((ip & mask) + self.gateway_offset).into(),
        }
    }

    fn check(&self, name: &str, slots: Slots, blocks: u32) -> Result<(), PlanError> {
        let Pool { cidr, .. } = *self;
        if cidr != cidr.trunc() {
            let network = cidr.trunc();
            return Err(PlanError::HostBits { cidr, network });
        }
        let field = |part: &str| format!("{name}.{part}");
        let (mask_min, mask_max) = (u32::from(*MASK_BITS.start()), u32::from(*MASK_BITS.end()));
        in_range(
            &field("range_bits"),
            self.range_bits.into(),
            1,
            RANGE_BITS_MAX.into(),
        )?;
        in_range(&field("mask_bits"), self.mask_bits.into(), mask_min, mask_max)?;
        let subnet = 1 << (32 - u32::from(self.mask_bits));
        in_range(&field("gateway_offset"), self.gateway_offset, 1, subnet - 2)?;
        let block = 1 << self.range_bits;
        if slots.last >= block {
            let last = slots.last;
            return Err(PlanError::BlockTooSmall { cidr, block, last });
        }
        if self.racks(blocks) == 0 {
            let needed = u64::from(self.offset) + self.rack_size(blocks);
            return Err(PlanError::PoolTooSmall { cidr, needed });
        }
        self.check_gateways(slots, blocks)
    }

    /// No gateway is at an index that machines are given.
    ///
    /// Blocks and subnets are powers of two, so gateways have the same places in every rack, or, where subnets are the
    /// larger, all the same place in a block: the first rack's, and those one step further, stand for all.
    fn check_gateways(&self, slots: Slots, blocks: u32) -> Result<(), PlanError> {
        let first = u64::from(u32::from(self.cidr.network())) + u64::from(self.offset);
        let end = first + self.rack_size(blocks) * u64::from(self.racks(blocks));
        let block = 1_u64 << self.range_bits;
        let step = block.max(1 << (32 - u32::from(self.mask_bits)));
        for nth in 0..blocks {
            for at in slots.boot..=slots.last {
                let gateway = u64::from(u32::from(self.address(0, blocks, at, nth).gateway));
                for gateway in [gateway, gateway + step] {
                    if !(first..end).contains(&gateway) {
                        continue;
                    }
                    let index = ((gateway - first) % block) as u32;
                    if (slots.boot..=slots.last).contains(&index) {
                        return Err(PlanError::GatewayTaken {
                            cidr: self.cidr,
                            gateway: (gateway as u32).into(),
                            index,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The plan of sabakan's documentation, on which the vectors rest.
    fn plan() -> AddressPlan {
        AddressPlan {
            index_offset: 3,
            machines_per_rack_max: 28,
            addresses_per_machine: 3,
            machines: Pool {
                cidr: "10.69.0.0/16".parse().unwrap(),
                offset: 0,
                range_bits: 6,
                mask_bits: 26,
                gateway_offset: 1,
            },
            bmcs: Some(Pool {
                cidr: "10.72.16.0/20".parse().unwrap(),
                offset: 256,
                range_bits: 5,
                mask_bits: 20,
                gateway_offset: 1,
            }),
        }
    }

    fn ips(rack: u32, index: u32) -> Vec<String> {
        let addresses = plan().addresses(rack, index).unwrap();
        addresses.iter().map(|address| address.ip.to_string()).collect()
    }

    #[test]
    fn addresses_are_those_of_sabakan() {
        assert_eq!(ips(0, 4), ["10.69.0.4", "10.69.0.68", "10.69.0.132"]);
        assert_eq!(ips(1, 5), ["10.69.0.197", "10.69.1.5", "10.69.1.69"]);
        let bmc = |rack, index| plan().bmc_address(rack, index).unwrap();
        assert_eq!(bmc(0, 4).ip.to_string(), "10.72.17.4");
        assert_eq!(bmc(1, 5).ip.to_string(), "10.72.17.37");
        assert_eq!(bmc(1, 5).gateway.to_string(), "10.72.16.1");
        let second = plan().addresses(1, 5).unwrap()[1];
        assert_eq!(second.gateway.to_string(), "10.69.1.1");
        assert_eq!(second.netmask().to_string(), "255.255.255.192");
    }

    #[test]
    fn no_two_slots_share_an_address_and_none_leaves_its_pool() {
        let plan = plan();
        let mut seen = BTreeSet::new();
        assert_eq!(plan.racks(), 120);
        for rack in 0..plan.racks() {
            for index in 3..=31 {
                for address in plan.addresses(rack, index).unwrap() {
                    assert!(plan.machines.cidr.contains(&address.ip) && seen.insert(address.ip));
                }
                let bmc = plan.bmc_address(rack, index).unwrap();
                assert!(plan.bmcs.as_ref().unwrap().cidr.contains(&bmc.ip) && seen.insert(bmc.ip));
            }
        }
        assert_eq!(plan.addresses(plan.racks(), 4), None);
        assert_eq!(plan.addresses(0, 2), None);
        assert_eq!(plan.addresses(0, 32), None);
    }

    fn broken(change: impl FnOnce(&mut AddressPlan)) -> PlanError {
        let mut plan = plan();
        change(&mut plan);
        plan.check().expect_err("the plan is broken")
    }

    #[test]
    fn unsound_plans_are_found_out() {
        assert_eq!(plan().check(), Ok(()));
        let field = |error| match error {
            PlanError::Range { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(broken(|plan| plan.index_offset = 0)), "index_offset");
        assert_eq!(
            field(broken(|plan| plan.machines_per_rack_max = 0)),
            "machines_per_rack_max"
        );
        assert_eq!(
            field(broken(|plan| plan.addresses_per_machine = 9)),
            "addresses_per_machine"
        );
        assert_eq!(
            field(broken(|plan| plan.machines.range_bits = 13)),
            "machines.range_bits"
        );
        assert_eq!(
            field(broken(|plan| plan.machines.mask_bits = 31)),
            "machines.mask_bits"
        );
        assert_eq!(
            field(broken(|plan| plan.machines.gateway_offset = 63)),
            "machines.gateway_offset"
        );
        let host_bits = broken(|plan| plan.machines.cidr = "10.69.0.1/16".parse().unwrap());
        assert!(host_bits.to_string().ends_with("write 10.69.0.0/16"));
        assert!(matches!(
            broken(|plan| plan.machines_per_rack_max = 61),
            PlanError::BlockTooSmall { .. }
        ));
        assert!(matches!(
            broken(|plan| plan.machines.offset = 1 << 16),
            PlanError::PoolTooSmall { .. }
        ));
        let overlap = broken(|plan| plan.bmcs.as_mut().unwrap().cidr = "10.69.16.0/20".parse().unwrap());
        assert!(matches!(overlap, PlanError::Overlap { .. }));
        assert!(matches!(
            broken(|plan| plan.machines.gateway_offset = 4),
            PlanError::GatewayTaken { index: 4, .. }
        ));
    }

    #[test]
    fn gateways_before_the_first_block_collide_only_if_a_later_one_does() {
        let mut plan = plan();
        plan.index_offset = 1;
        plan.machines_per_rack_max = 2;
        plan.machines.gateway_offset = 60;
        let bmcs = plan.bmcs.as_mut().unwrap();
        (bmcs.offset, bmcs.range_bits, bmcs.mask_bits, bmcs.gateway_offset) = (16, 2, 24, 1);
        // 10.72.16.1 is nobody's, but 10.72.17.1 would be.
        bmcs.cidr = "10.72.16.0/24".parse().unwrap();
        plan.check().unwrap();
        plan.bmcs.as_mut().unwrap().cidr = "10.72.16.0/23".parse().unwrap();
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains("the gateway 10.72.17.1"), "{error}");
    }

    #[test]
    fn the_largest_pool_does_not_overflow() {
        let mut plan = plan();
        plan.bmcs = None;
        plan.machines.cidr = "0.0.0.0/0".parse().unwrap();
        plan.machines.offset = u32::MAX;
        assert!(matches!(plan.check(), Err(PlanError::PoolTooSmall { .. })));
        plan.machines.offset = 0;
        plan.check().unwrap();
        let last = plan.addresses(plan.racks() - 1, 31).unwrap()[2];
        assert!(last.ip > "255.255.255.0".parse::<Ipv4Addr>().unwrap());
    }
}
