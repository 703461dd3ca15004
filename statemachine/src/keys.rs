//! Every table's one-byte prefix, and the order-preserving encoding of the keys behind it.
//!
//! Prefixes are append-only: a retired one stays listed and is never given to another table.

use crate::store::Fault;
use std::net::IpAddr;

/// `sys`: single rows of the machinery itself (see [`crate::system`]).
pub const SYSTEM: u8 = 0x01;
/// Journal: revision -> the events of that revision.
pub const JOURNAL: u8 = 0x02;
/// Duplicate replies: command id -> outcome.
pub const REPLIES: u8 = 0x03;
/// Marks in the journal: revision -> how much of it lies before.
pub const JOURNAL_MARKS: u8 = 0x04;

/// Machines by serial.
pub const MACHINES: u8 = 0x10;
/// Serial by NIC hardware address.
pub const MACHINE_MACS: u8 = 0x11;
/// Serial by (rack, index in rack).
pub const MACHINE_SLOTS: u8 = 0x12;
/// The address plan.
pub const ADDRESS_PLAN: u8 = 0x13;
/// Boot templates by name.
pub const BOOT_TEMPLATES: u8 = 0x14;
/// Serial by machine or BMC address.
pub const MACHINE_ADDRESSES: u8 = 0x15;
/// Bodies of boot templates by name.
pub const BOOT_TEMPLATE_BODIES: u8 = 0x16;
/// Machines by the lower case of their serials, as DNS asks for them.
pub const MACHINE_NAMES: u8 = 0x17;

/// Service instances by (service, instance).
pub const SERVICE_INSTANCES: u8 = 0x20;
/// Instances by the deadline of their TTL.
pub const SERVICE_DEADLINES: u8 = 0x21;
/// Key-value pairs.
pub const KV: u8 = 0x22;
/// Services by name: the sum of their instances.
pub const SERVICES: u8 = 0x23;

/// Object revisions by (oid, tid, newest first).
pub const OBJECTS: u8 = 0x30;
/// Object transactions by tid.
pub const OBJECT_TRANSACTIONS: u8 = 0x31;
/// Object bytes by (oid, tid); kept apart so that large values never sit between small rows.
pub const OBJECT_BYTES: u8 = 0x32;
/// What a transaction wrote, by tid; kept apart so that listing transactions stays cheap.
pub const OBJECT_WRITES: u8 = 0x33;
/// The last tid and the last oid, one row.
pub const OBJECT_HEAD: u8 = 0x34;

/// Apps by name.
pub const APPS: u8 = 0x40;
/// Builds by (app, number).
pub const BUILDS: u8 = 0x41;
/// Releases by (app, number).
pub const RELEASES: u8 = 0x42;
/// Rollouts by (app, number).
pub const ROLLOUTS: u8 = 0x43;
/// Failures of an app's steps by (app, sequence).
pub const FAILURES: u8 = 0x44;
/// Instances by (app, release, ordinal).
pub const INSTANCES: u8 = 0x45;
/// App by (host, path prefix) of its routes.
pub const ROUTES: u8 = 0x46;
/// What of an app is under way and what serves, by app.
pub const SERVING: u8 = 0x47;
/// The revision of the last change to deployments, one row.
pub const DEPLOYMENTS_CHANGED: u8 = 0x48;

/// The base (see [`crate::history`]): this byte before the keys of an earlier state.
pub const BASE: u8 = 0x7f;

/// A key whose encoded bytes sort as the value does, and which can stand before other keys in a tuple.
pub trait Key: Sized {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Takes one value off the front of `bytes`.
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault>;
    /// The key as text for people, the parts of a tuple separated by `/`.
    fn text(&self) -> String;
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Fault> {
    match bytes.split_at_checked(count) {
        Some((head, tail)) => {
            *bytes = tail;
            Ok(head)
        }
        None => Err(Fault::corrupt("a key ends early")),
    }
}

/// As many bytes off the front as the array has.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Fault> {
    let head = take(bytes, N)?;
    Ok(head.try_into().expect("take returned the size asked for"))
}

macro_rules! integer_keys {
    ($($type:ty),*) => {$(
        impl Key for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
                Ok(<$type>::from_be_bytes(take_array(bytes)?))
            }
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integer_keys!(u8, u16, u32, u64, u128);

impl Key for () {
    fn encode(&self, _out: &mut Vec<u8>) {}
    fn decode(_bytes: &mut &[u8]) -> Result<Self, Fault> {
        Ok(())
    }
    fn text(&self) -> String {
        String::new()
    }
}

/// The family before the bytes: IPv4 addresses sort before IPv6 ones, and each as numbers do.
impl Key for IpAddr {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            IpAddr::V4(address) => {
                out.push(4);
                out.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                out.push(6);
                out.extend_from_slice(&address.octets());
            }
        }
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        match take_array(bytes)? {
            [4] => Ok(take_array::<4>(bytes)?.into()),
            [6] => Ok(take_array::<16>(bytes)?.into()),
            [family] => Err(Fault::corrupt(format!("a key has an address of family {family}"))),
        }
    }
    fn text(&self) -> String {
        self.to_string()
    }
}

/// Bytes are terminated by `00 00`, and a zero inside is written `00 ff`, so that a prefix sorts first.
impl Key for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        let mut value = Vec::new();
        loop {
            match take(bytes, 1)?[0] {
                0 => match take(bytes, 1)?[0] {
                    0 => return Ok(value),
                    0xff => value.push(0),
                    _ => return Err(Fault::corrupt("a byte-string key has a bad escape")),
                },
                byte => value.push(byte),
            }
        }
    }
    fn text(&self) -> String {
        self.escape_ascii().to_string()
    }
}

impl Key for String {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        String::from_utf8(Vec::<u8>::decode(bytes)?).map_err(|_| Fault::corrupt("a text key is not UTF-8"))
    }
    fn text(&self) -> String {
        self.escape_debug().to_string()
    }
}

fn encode_bytes(value: &[u8], out: &mut Vec<u8>) {
    encode_bytes_prefix(value, out);
    out.extend_from_slice(&[0, 0]);
}

/// The encoding of `value` without its terminator: a bound that every byte string beginning with it shares.
pub fn encode_bytes_prefix(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        Ok((A::decode(bytes)?, B::decode(bytes)?))
    }
    fn text(&self) -> String {
        format!("{}/{}", self.0.text(), self.1.text())
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
        self.2.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Result<Self, Fault> {
        Ok((A::decode(bytes)?, B::decode(bytes)?, C::decode(bytes)?))
    }
    fn text(&self) -> String {
        format!("{}/{}/{}", self.0.text(), self.1.text(), self.2.text())
    }
}

/// The smallest byte string greater than every string that begins with `prefix`; empty where there is none.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut bound = prefix.to_vec();
    while let Some(last) = bound.pop() {
        if last < u8::MAX {
            bound.push(last + 1);
            return bound;
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of<K: Key>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn order_is_preserved_and_keys_return(
            a in any::<(Vec<u8>, u32)>(), b in any::<(Vec<u8>, u32)>(), text in any::<String>(),
        ) {
            prop_assert_eq!(bytes_of(&a).cmp(&bytes_of(&b)), a.cmp(&b));
            let encoded = bytes_of(&(text.clone(), a.clone()));
            let mut rest = &encoded[..];
            prop_assert_eq!(<(String, (Vec<u8>, u32))>::decode(&mut rest).expect("decodes"), (text, a));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn prefix_bound_skips_full_bytes() {
        assert_eq!(after_prefix(&[1, 0xff]), [2]);
        assert_eq!(after_prefix(&[0xff]), [] as [u8; 0]);
    }
}
