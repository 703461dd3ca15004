//! The address plan.

use super::Invalid;
use ipnet::Ipv4Net;
use onward_statemachine::Revision;
use onward_statemachine::machines::ipam;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use utoipa::ToSchema;

/// How addresses follow from a machine's rack and index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressPlan {
    /// The index of the `boot` machine of each rack; the others are counted from the one after it. At least 1.
    pub index_offset: u32,
    /// The most machines in a rack besides the `boot` machine. At least 1.
    pub machines_per_rack_max: u32,
    /// How many addresses a machine has.
    pub addresses_per_machine: u32,
    /// Where the machines' own addresses come from.
    pub machines: Pool,
    /// Where the addresses of their BMCs come from; without it, only declared BMC addresses are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmcs: Option<Pool>,
}

/// Addresses, cut into one block of `2^range_bits` for each rack (and each address of a machine).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// All of them, as `10.69.0.0/20`.
    pub cidr: String,
    /// How many addresses into the pool the first block begins.
    #[serde(default)]
    pub offset: u32,
    /// The size of a block as a power of two.
    pub range_bits: u8,
    /// The size of the subnet that a machine is told it is in.
    pub mask_bits: u8,
    /// Where in its subnet the gateway is.
    pub gateway_offset: u32,
}

fn pool(field: &str, pool: &Pool) -> Result<ipam::Pool, Invalid> {
    let cidr: Ipv4Net = pool.cidr.parse().map_err(|_| {
        Invalid::new(
            format!("{field}.cidr"),
            format!("`{}` is not an IPv4 network; write it as 10.69.0.0/20", pool.cidr),
        )
    })?;
    Ok(ipam::Pool {
        cidr,
        offset: pool.offset,
        range_bits: pool.range_bits,
        mask_bits: pool.mask_bits,
        gateway_offset: pool.gateway_offset,
    })
}

impl From<ipam::Pool> for Pool {
    fn from(pool: ipam::Pool) -> Self {
        Pool {
            cidr: pool.cidr.to_string(),
            offset: pool.offset,
            range_bits: pool.range_bits,
            mask_bits: pool.mask_bits,
            gateway_offset: pool.gateway_offset,
        }
    }
}

impl TryFrom<AddressPlan> for ipam::AddressPlan {
    type Error = Invalid;
    fn try_from(plan: AddressPlan) -> Result<Self, Invalid> {
        Ok(ipam::AddressPlan {
            index_offset: plan.index_offset,
            machines_per_rack_max: plan.machines_per_rack_max,
            addresses_per_machine: plan.addresses_per_machine,
            machines: pool("machines", &plan.machines)?,
            bmcs: plan.bmcs.map(|bmcs| pool("bmcs", &bmcs)).transpose()?,
        })
    }
}

impl From<ipam::AddressPlan> for AddressPlan {
    fn from(plan: ipam::AddressPlan) -> Self {
        AddressPlan {
            index_offset: plan.index_offset,
            machines_per_rack_max: plan.machines_per_rack_max,
            addresses_per_machine: plan.addresses_per_machine,
            machines: plan.machines.into(),
            bmcs: plan.bmcs.map(Pool::from),
        }
    }
}

/// The plan in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredPlan {
    /// The plan.
    pub plan: AddressPlan,
    /// The revision at which there first was one.
    pub created: u64,
    /// The revision at which it was last set: what `If-Match` compares with.
    pub modified: u64,
}

impl From<ipam::StoredPlan> for StoredPlan {
    fn from(stored: ipam::StoredPlan) -> Self {
        StoredPlan {
            plan: stored.plan.into(),
            created: stored.created.0,
            modified: stored.modified.0,
        }
    }
}

/// An address with what its machine must know to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Address {
    /// The address.
    #[schema(value_type = String)]
    pub ip: Ipv4Addr,
    /// The size of its subnet.
    pub mask_bits: u8,
    /// The same as a mask.
    #[schema(value_type = String)]
    pub netmask: Ipv4Addr,
    /// The gateway of its subnet.
    #[schema(value_type = String)]
    pub gateway: Ipv4Addr,
}

impl From<ipam::Address> for Address {
    fn from(address: ipam::Address) -> Self {
        Address {
            ip: address.ip,
            mask_bits: address.mask_bits,
            netmask: address.netmask(),
            gateway: address.gateway,
        }
    }
}

/// Makes this the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetAddressPlan)]
pub struct SetPlan {
    /// The whole of it.
    pub plan: AddressPlan,
    /// Only if the plan's `modified` is this; 0 for "there is none".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_revision: Option<u64>,
}

impl TryFrom<SetPlan> for ipam::Command {
    type Error = Invalid;
    fn try_from(set: SetPlan) -> Result<Self, Invalid> {
        Ok(ipam::Command::SetPlan {
            plan: set.plan.try_into()?,
            expect: set.expect_revision.map(Revision),
        })
    }
}

/// What happened to the address plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[schema(as = AddressPlanEvent)]
pub enum Event {
    /// There is a plan.
    PlanSet {
        /// The whole of it.
        plan: AddressPlan,
    },
    /// There is no plan any more.
    PlanCleared {},
}

impl From<ipam::Event> for Event {
    fn from(event: ipam::Event) -> Self {
        match event {
            ipam::Event::PlanSet { plan } => Event::PlanSet { plan: plan.into() },
            ipam::Event::PlanCleared => Event::PlanCleared {},
        }
    }
}
