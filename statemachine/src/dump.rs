//! State as text for people: what golden scripts show and what a debugger wants to see.
//!
//! [`text`] is a relaxed JSON: names without quotes, byte strings as text. Nothing in the product parses it, and it
//! never leaves over the API.

use crate::keys::{self, Key};
use crate::store::Fault;
use crate::table::Table;
use crate::{deployments, journal, machines, objects, replies, retention, services, system};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::ser::Formatter;
use std::io::{self, Write};

/// One stored row as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: &'static str,
    /// The key, its parts separated by `/`.
    pub key: String,
    /// The row in the notation of [`text`].
    pub value: String,
}

/// A table that can say what its rows mean.
pub(crate) trait Describe: Sync {
    /// The first byte of its keys.
    fn prefix(&self) -> u8;
    /// The row at `key` (without the prefix) as text; a fault where it is none of this table's.
    fn describe(&self, key: &[u8], value: &[u8]) -> Result<Row, Fault>;
}

impl<K: Key, V: Serialize + DeserializeOwned> Describe for Table<K, V> {
    fn prefix(&self) -> u8 {
        self.prefix
    }
    fn describe(&self, mut key: &[u8], value: &[u8]) -> Result<Row, Fault> {
        let decoded = K::decode(&mut key)?;
        if !key.is_empty() {
            return Err(Fault::corrupt(format!(
                "a key of {} has trailing bytes",
                self.name
            )));
        }
        Ok(Row {
            table: self.name,
            key: decoded.text(),
            value: text(&self.row(value)?),
        })
    }
}

/// The tables of every area. An area that gains a table adds it to its own `TABLES`.
const TABLES: &[&[&dyn Describe]] = &[
    journal::TABLES,
    replies::TABLES,
    retention::TABLES,
    machines::registry::TABLES,
    machines::ipam::TABLES,
    machines::netboot::TABLES,
    services::kv::TABLES,
    services::catalog::TABLES,
    objects::TABLES,
    deployments::TABLES,
    deployments::apps::TABLES,
    deployments::builds::TABLES,
    deployments::releases::TABLES,
    deployments::instances::TABLES,
];

/// The row at `key` as text. A fault where no table owns the key, or the row does not decode.
pub fn row(key: &[u8], value: &[u8]) -> Result<Row, Fault> {
    let (&prefix, rest) = key
        .split_first()
        .ok_or_else(|| Fault::corrupt("a key is empty"))?;
    if prefix == keys::SYSTEM {
        return system::describe(rest, value);
    }
    if prefix == keys::BASE {
        return row(rest, value);
    }
    let mut tables = TABLES.iter().copied().flatten();
    match tables.find(|table| table.prefix() == prefix) {
        Some(table) => table.describe(rest, value),
        None => Err(Fault::corrupt(format!("no table has the prefix {prefix:#04x}"))),
    }
}

/// `value` in the notation of this module, on one line.
pub fn text<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut out,
            Relaxed::default(),
        ))
        .expect("writing a plain value into a Vec cannot fail");
    String::from_utf8_lossy(&out).into_owned()
}

/// JSON with the names of fields bare, a space after `:` and `,`, and byte strings as escaped text.
#[derive(Default)]
struct Relaxed {
    in_name: bool,
}

impl Formatter for Relaxed {
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.in_name = true;
        out.write_all(if first { b"" } else { b", " })
    }
    fn end_object_key<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.in_name = false;
        Ok(())
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }
    fn begin_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(if self.in_name { b"" } else { b"\"" })
    }
    fn end_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(if self.in_name { b"" } else { b"\"" })
    }
    fn write_byte_array<W: ?Sized + Write>(&mut self, out: &mut W, value: &[u8]) -> io::Result<()> {
        write!(out, "\"{}\"", value.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_well() {
        let key = services::kv::Key(b"a\x00b".to_vec());
        assert_eq!(
            text(&services::kv::Event::Deleted { key }),
            r#"{Deleted: {key: "a\x00b"}}"#
        );
    }

    #[test]
    fn no_two_tables_share_a_prefix() {
        let mut prefixes: Vec<u8> = TABLES
            .iter()
            .copied()
            .flatten()
            .map(|table| table.prefix())
            .collect();
        let count = prefixes.len();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), count);
    }
}
