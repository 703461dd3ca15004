use crate::dump::Describe;
use crate::ids::{Actor, Generation, Millis, Revision};
use crate::keys::{self, Key};
use crate::machines::ipam;
use crate::store::Fault;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest serial, in bytes.
pub const SERIAL_BYTES_MAX: usize = 64;
/// The most labels of a machine.
pub const LABELS_MAX: usize = 64;
/// The most network interfaces of a machine.
pub const MACS_MAX: usize = 16;
/// The most machines that one command registers.
pub const REGISTER_MAX: usize = 4096;
/// The longest reason of a state change, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// The longest name of a kind of BMC, in bytes.
pub const BMC_KIND_BYTES_MAX: usize = 63;
/// The highest index in a rack where no address plan sets a lower one.
pub const INDEX_MAX: u32 = 4095;
/// The role that has the first slot of a rack to itself.
pub const ROLE_BOOT: &str = "boot";

/// An SMBIOS serial: printable ASCII, 1 to [`SERIAL_BYTES_MAX`] bytes, no space at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial(pub String);

impl Serial {
    /// A serial from text, unchecked: `decide` checks what enters the state.
    pub fn new(text: impl Into<String>) -> Self {
        Serial(text.into())
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_default())
    }
}

/// The hardware address of a network interface (EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether it can name one interface: not a group address, not all zero.
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is not a hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a hardware address: write six bytes in hexadecimal, as 52:54:00:12:34:56, 52-54-00-12-34-56, \
     5254.0012.3456 or 525400123456"
)]
pub struct MacAddressError {
    /// What was given, cut where it is long.
    pub text: String,
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    /// Reads the common notations: pairs with `:` or `-`, Cisco's groups of four with `.`, or bare digits.
    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let error = || MacAddressError {
            text: text.chars().take(32).collect(),
        };
        let group = match text.len() {
            17 if text.contains(':') => Some((b':', 2)),
            17 => Some((b'-', 2)),
            14 => Some((b'.', 4)),
            12 => None,
            _ => return Err(error()),
        };
        let mut digits = Vec::with_capacity(12);
        for (place, byte) in text.bytes().enumerate() {
            match group {
                Some((separator, width)) if place % (width + 1) == width => {
                    if byte != separator {
                        return Err(error());
                    }
                }
                _ => digits.push(char::from(byte).to_digit(16).ok_or_else(error)? as u8),
            }
        }
        let mut bytes = [0; 6];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(MacAddress(bytes))
    }
}

/// As the standard library does it for IP addresses: text where people read, six bytes in the log.
impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            Ok(MacAddress(Deserialize::deserialize(deserializer)?))
        }
    }
}

impl Key for MacAddress {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        Ok(MacAddress(keys::take_array(bytes)?))
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

/// Label keys and values, in the syntax of [`crate::check_label_key`] and [`crate::check_label_value`]. No key is one of
/// [`super::FIELDS`], so that a selector can name fields and labels alike.
pub type Labels = BTreeMap<String, String>;

/// What is declared of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its identity.
    pub serial: Serial,
    /// The number of its rack.
    pub rack: u32,
    /// Its index in the rack; given out where it is `None`.
    pub index: Option<u32>,
    /// What it is for, in the syntax of a label value, not empty.
    pub role: String,
    /// Anything else worth selecting by.
    pub labels: Labels,
    /// Its network interfaces.
    pub macs: Vec<MacAddress>,
    /// Its management controller, if it has one.
    pub bmc: Option<BmcSpec>,
}

/// What is declared of a management controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcSpec {
    /// What it speaks, as `redfish` or `iDRAC-9`.
    pub kind: String,
    /// Its address; computed from the address plan where it is `None`.
    pub address: Option<IpAddr>,
}

/// The management controller of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// What it speaks.
    pub kind: String,
    /// Its address, unless none was declared and there is no plan for such addresses.
    pub address: Option<IpAddr>,
    /// Whether the address comes from the plan and not from the declaration.
    pub planned: bool,
}

/// Where in its life a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Registered, or sent back to be set up again.
    Uninitialized,
    /// In service.
    Healthy,
    /// Up, but something is wrong with it.
    Unhealthy,
    /// Not answering.
    Unreachable,
    /// Being updated.
    Updating,
    /// Being emptied, to leave service.
    Retiring,
    /// Out of service.
    Retired,
}

impl State {
    /// All of them.
    pub const ALL: [State; 7] = [
        State::Uninitialized,
        State::Healthy,
        State::Unhealthy,
        State::Unreachable,
        State::Updating,
        State::Retiring,
        State::Retired,
    ];

    /// The name that people write.
    pub fn name(self) -> &'static str {
        match self {
            State::Uninitialized => "uninitialized",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
            State::Unreachable => "unreachable",
            State::Updating => "updating",
            State::Retiring => "retiring",
            State::Retired => "retired",
        }
    }

    /// The states that may follow this one: sabakan's table (docs/lifecycle.md of cybozu-go/sabakan).
    pub fn successors(self) -> &'static [State] {
        use State::*;
        match self {
            Uninitialized => &[Healthy, Retiring],
            Healthy => &[Unhealthy, Unreachable, Updating, Retiring],
            Unhealthy => &[Healthy, Unreachable, Updating, Retiring],
            Unreachable => &[Healthy, Unhealthy, Updating, Retiring],
            Updating => &[Uninitialized],
            Retiring => &[Retired],
            Retired => &[Uninitialized],
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a state of a machine: it is one of uninitialized, healthy, unhealthy, unreachable, updating, \
     retiring, retired"
)]
pub struct StateError {
    /// What was given, cut where it is long.
    pub text: String,
}

impl FromStr for State {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        let found = State::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| StateError {
            text: text.chars().take(32).collect(),
        })
    }
}

/// The state of a machine and how it came into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Since when, on log time.
    pub since: Millis,
    /// The state before; `None` for a machine that was only registered.
    pub from: Option<State>,
    /// Why, in the words of who set it.
    pub reason: String,
    /// Who set it.
    pub by: Actor,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its identity.
    pub serial: Serial,
    /// The number of its rack.
    pub rack: u32,
    /// Its index in the rack.
    pub index: u32,
    /// What it is for.
    pub role: String,
    /// Its labels.
    pub labels: Labels,
    /// Its network interfaces, as declared.
    pub macs: Vec<MacAddress>,
    /// Its management controller.
    pub bmc: Option<Bmc>,
    /// Its addresses by the plan of the time; empty where there was none.
    pub addresses: Vec<ipam::Address>,
    /// Where in its life it is.
    pub status: Status,
    /// When it was registered, on log time.
    pub registered_at: Millis,
    /// Counts what was declared: role, labels, hardware addresses, BMC.
    pub generation: Generation,
    /// When it was registered.
    pub created: Revision,
    /// When anything about it last changed.
    pub modified: Revision,
}

impl Machine {
    /// What would have to be declared to get this machine back as it is.
    pub fn spec(&self) -> Spec {
        Spec {
            serial: self.serial.clone(),
            rack: self.rack,
            index: Some(self.index),
            role: self.role.clone(),
            labels: self.labels.clone(),
            macs: self.macs.clone(),
            bmc: self.bmc.as_ref().map(|bmc| BmcSpec {
                kind: bmc.kind.clone(),
                address: bmc.address.filter(|_| !bmc.planned),
            }),
        }
    }

    /// Every address that is this machine's alone: its own and its BMC's.
    pub(super) fn all_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let bmc = self.bmc.as_ref().and_then(|bmc| bmc.address);
        self.addresses.iter().map(|own| own.ip.into()).chain(bmc)
    }
}

/// What registering tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Where the machines were put, in the order of the command.
    Registered(Vec<Placement>),
}

/// Where a machine was put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Which machine.
    pub serial: Serial,
    /// Its rack.
    pub rack: u32,
    /// Its index in the rack.
    pub index: u32,
    /// Its addresses.
    pub addresses: Vec<ipam::Address>,
    /// The address of its BMC.
    pub bmc_address: Option<IpAddr>,
}

pub(super) const MACHINES: Table<String, Machine> = Table::new(keys::MACHINES, "machines");
pub(super) const MACS: Table<MacAddress, Serial> = Table::new(keys::MACHINE_MACS, "machine_macs");
pub(super) const SLOTS: Table<(u32, u32), Serial> = Table::new(keys::MACHINE_SLOTS, "machine_slots");
pub(super) const ADDRESSES: Table<IpAddr, Serial> = Table::new(keys::MACHINE_ADDRESSES, "machine_addresses");
/// By the serial in lower case, and then by the serial itself: two machines may differ in case alone.
pub(super) const NAMES: Table<(String, String), ()> = Table::new(keys::MACHINE_NAMES, "machine_names");

/// This area's tables.
pub(crate) const TABLES: &[&dyn Describe] = &[&MACHINES, &MACS, &SLOTS, &ADDRESSES, &NAMES];

/// The key of a machine among the names.
pub(super) fn name_key(serial: &Serial) -> (String, String) {
    (serial.0.to_ascii_lowercase(), serial.0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_in_every_common_notation() {
        let mac = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        for text in [
            "52:54:00:12:34:ab",
            "52:54:00:12:34:AB",
            "52-54-00-12-34-ab",
            "5254.0012.34ab",
            "5254001234AB",
        ] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        for text in [
            "",
            "52:54:00:12:34",
            "52:54-00:12:34:ab",
            "5254.0012:34ab",
            "52:54:00:12:34:ag",
            "52540012 4ab",
            "é2:54:00:12:34:a",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:12:34:ab");
    }

    #[test]
    fn group_and_zero_hardware_addresses_name_no_interface() {
        assert!(!MacAddress([0; 6]).is_unicast());
        assert!(!MacAddress([0xff; 6]).is_unicast());
        assert!(!MacAddress([1, 0, 0x5e, 0, 0, 1]).is_unicast());
        assert!(MacAddress([2, 0, 0, 0, 0, 1]).is_unicast());
    }

    #[test]
    fn states_are_read_as_they_are_written() {
        for state in State::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        assert!("Healthy".parse::<State>().is_err());
    }
}
