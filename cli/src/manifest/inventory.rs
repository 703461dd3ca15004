//! Machines out of a CSV inventory: one a line, columns by name.
//!
//! Columns: `serial` and `rack` must be there; `index`, `role`, `macs`, `bmc_kind`, `bmc_address`, `labels` and
//! `label.NAME` may be. Lists in a cell are separated by `;` or spaces. Empty cells take the [`Defaults`].

use crate::failure::{Failure, Result};
use crate::manifest::load;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most errors that one message lists.
const ERRORS_SHOWN_MAX: usize = 10;

const COLUMNS: [&str; 8] = [
    "serial",
    "rack",
    "index",
    "role",
    "macs",
    "bmc_kind",
    "bmc_address",
    "labels",
];

/// What holds for every machine of an inventory whose line does not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) role: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) bmc_kind: Option<String>,
}

/// A machine as a line of an inventory has it. Names and addresses are as they were written: the cluster checks them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) line: u64,
    pub(crate) serial: String,
    pub(crate) rack: u32,
    pub(crate) index: Option<u32>,
    pub(crate) role: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) macs: Vec<String>,
    pub(crate) bmc: Option<Bmc>,
}

/// The management controller of a [`Machine`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bmc {
    pub(crate) kind: String,
    pub(crate) address: Option<std::net::IpAddr>,
}

/// Reads an inventory file.
pub(crate) fn read(file: &Path, defaults: &Defaults) -> Result<Vec<Machine>> {
    parse(&file.display().to_string(), &load::read(file)?, defaults)
}

/// Reads an inventory from the bytes of a file called `name`.
pub(crate) fn parse(name: &str, bytes: &[u8], defaults: &Defaults) -> Result<Vec<Machine>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(bytes);
    let headers = reader
        .headers()
        .map_err(|error| Failure::usage(format!("{name}: {error}")))?
        .clone();
    let columns = Columns::of(&headers).map_err(|rule| Failure::usage(format!("{name} line 1: {rule}")))?;

    let mut machines = Vec::new();
    let mut errors = Vec::new();
    let mut seen = Seen::default();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = line(bytes, record.position());
                match columns
                    .machine(line, &record, defaults)
                    .and_then(|machine| seen.check(machine))
                {
                    Ok(machine) => machines.push(machine),
                    Err(rule) => errors.push(format!("{name} line {line}, {rule}")),
                }
            }
            Err(error) => errors.push(malformed(name, bytes, &error)),
        }
    }
    if errors.is_empty() {
        return Ok(machines);
    }
    let more = errors.len().saturating_sub(ERRORS_SHOWN_MAX);
    errors.truncate(ERRORS_SHOWN_MAX);
    if more > 0 {
        errors.push(format!("{name}: {more} more errors"));
    }
    Err(Failure::usage(errors.join("\n")))
}

/// The line on which a record begins. The reader's position is where the one before it ended: empty lines and comments
/// may come between.
fn line(bytes: &[u8], position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 0 };
    let rest = usize::try_from(position.byte())
        .ok()
        .and_then(|start| bytes.get(start..))
        .unwrap_or_default();
    let skipped = rest
        .split(|byte| *byte == b'\n')
        .take_while(|line| line.starts_with(b"#") || line.iter().all(|byte| *byte == b'\r'));
    position.line() + skipped.count() as u64
}

fn malformed(name: &str, bytes: &[u8], error: &csv::Error) -> String {
    let line = line(bytes, error.position());
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("{name} line {line}: {len} columns where the heading has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => format!("{name} line {line}: not UTF-8"),
        _ => format!("{name}: {error}"),
    }
}

/// Which column is where.
struct Columns {
    places: BTreeMap<String, usize>,
}

impl Columns {
    fn of(headers: &csv::StringRecord) -> std::result::Result<Self, String> {
        let mut places = BTreeMap::new();
        for (place, title) in headers.iter().enumerate() {
            let label = title
                .strip_prefix("label.")
                .is_some_and(|label| !label.is_empty());
            if !label && !COLUMNS.contains(&title) {
                let known = COLUMNS.join(", ");
                return Err(format!(
                    "column `{title}` is not known; there are {known} and label.NAME"
                ));
            }
            if places.insert(title.to_owned(), place).is_some() {
                return Err(format!("column `{title}` is there twice"));
            }
        }
        for needed in ["serial", "rack"] {
            if !places.contains_key(needed) {
                return Err(format!("column `{needed}` is missing"));
            }
        }
        Ok(Columns { places })
    }

    fn cell<'r>(&self, record: &'r csv::StringRecord, column: &str) -> Option<&'r str> {
        self.places
            .get(column)
            .and_then(|place| record.get(*place))
            .filter(|cell| !cell.is_empty())
    }

    fn machine(
        &self,
        line: u64,
        record: &csv::StringRecord,
        defaults: &Defaults,
    ) -> std::result::Result<Machine, String> {
        let missing = |column: &str| format!("column {column}: empty");
        let number = |column: &str, cell: &str| {
            cell.parse::<u32>()
                .map_err(|_| format!("column {column}: `{cell}` is not a whole number from 0 on"))
        };
        let rack = self.cell(record, "rack").ok_or_else(|| missing("rack"))?;
        let index = self
            .cell(record, "index")
            .map(|cell| number("index", cell))
            .transpose()?;
        let role = self
            .cell(record, "role")
            .or(defaults.role.as_deref())
            .ok_or_else(|| missing("role"))?;
        Ok(Machine {
            line,
            serial: self
                .cell(record, "serial")
                .ok_or_else(|| missing("serial"))?
                .to_owned(),
            rack: number("rack", rack)?,
            index,
            role: role.to_owned(),
            labels: self.labels(record, defaults)?,
            macs: self.cell(record, "macs").map(list).unwrap_or_default(),
            bmc: self.bmc(record, defaults)?,
        })
    }

    fn labels(
        &self,
        record: &csv::StringRecord,
        defaults: &Defaults,
    ) -> std::result::Result<BTreeMap<String, String>, String> {
        let mut labels = BTreeMap::new();
        for pair in self.cell(record, "labels").map(list).unwrap_or_default() {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("column labels: `{pair}` is not KEY=VALUE"))?;
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("column labels: `{key}` is there twice"));
            }
        }
        for (column, place) in &self.places {
            let Some(key) = column.strip_prefix("label.") else {
                continue;
            };
            let Some(value) = record.get(*place).filter(|cell| !cell.is_empty()) else {
                continue;
            };
            if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(format!("column {column}: column labels has it too"));
            }
        }
        for (key, value) in &defaults.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        Ok(labels)
    }

    fn bmc(
        &self,
        record: &csv::StringRecord,
        defaults: &Defaults,
    ) -> std::result::Result<Option<Bmc>, String> {
        let address = self.cell(record, "bmc_address");
        let address = address
            .map(|cell| {
                cell.parse()
                    .map_err(|_| format!("column bmc_address: `{cell}` is not an IP address"))
            })
            .transpose()?;
        match self.cell(record, "bmc_kind").or(defaults.bmc_kind.as_deref()) {
            Some(kind) => Ok(Some(Bmc {
                kind: kind.to_owned(),
                address,
            })),
            None if address.is_some() => {
                Err("column bmc_kind: empty, while there is a bmc_address".to_owned())
            }
            None => Ok(None),
        }
    }
}

/// What may be there once only.
#[derive(Default)]
struct Seen {
    serials: BTreeMap<String, u64>,
    slots: BTreeMap<(u32, u32), u64>,
    macs: BTreeSet<String>,
}

impl Seen {
    fn check(&mut self, machine: Machine) -> std::result::Result<Machine, String> {
        if let Some(before) = self.serials.insert(machine.serial.clone(), machine.line) {
            return Err(format!(
                "column serial: `{}` is on line {before} already",
                machine.serial
            ));
        }
        if let Some(index) = machine.index
            && let Some(before) = self.slots.insert((machine.rack, index), machine.line)
        {
            return Err(format!(
                "column index: {index} of rack {} is on line {before} already",
                machine.rack
            ));
        }
        for mac in &machine.macs {
            if !self.macs.insert(mac.to_ascii_lowercase()) {
                return Err(format!("column macs: `{mac}` is there twice"));
            }
        }
        Ok(machine)
    }
}

fn list(cell: &str) -> Vec<String> {
    cell.split([';', ' '])
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        let failure = parse("rack.csv", text.as_bytes(), &Defaults::default()).unwrap_err();
        assert_eq!(failure.code(), 2);
        failure.to_string()
    }

    #[test]
    fn a_line_is_a_machine() {
        let text = "serial,rack,role,macs,bmc_kind,bmc_address,labels,label.zone\n\
            # the boot server\n\
            S1, 3, boot, 52:54:00:00:00:01;52:54:00:00:00:02, redfish, 10.0.0.9, a=1;b=,east\n\
            S2,3,,,,,,\n";
        let defaults = Defaults {
            role: Some("worker".to_owned()),
            labels: [("zone".to_owned(), "west".to_owned())].into(),
            bmc_kind: None,
        };
        let machines = parse("rack.csv", text.as_bytes(), &defaults).unwrap();
        let text = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(machines[0].line, 3);
        assert_eq!(
            machines[0].labels,
            text(&[("a", "1"), ("b", ""), ("zone", "east")])
        );
        assert_eq!(machines[0].macs, ["52:54:00:00:00:01", "52:54:00:00:00:02"]);
        let bmc = Bmc {
            kind: "redfish".to_owned(),
            address: Some([10, 0, 0, 9].into()),
        };
        assert_eq!(machines[0].bmc, Some(bmc));
        assert_eq!((machines[1].role.as_str(), machines[1].rack), ("worker", 3));
        assert_eq!(machines[1].labels, text(&[("zone", "west")]));
        assert_eq!(machines[1].bmc, None);
    }

    #[test]
    fn headings_are_checked() {
        assert!(
            wrong("serial,rak\n")
                .starts_with("rack.csv line 1: column `rak` is not known; there are serial, rack")
        );
        assert_eq!(
            wrong("serial,role\n"),
            "rack.csv line 1: column `rack` is missing"
        );
        assert_eq!(
            wrong("serial,rack,rack\n"),
            "rack.csv line 1: column `rack` is there twice"
        );
        assert_eq!(wrong(""), "rack.csv line 1: column `serial` is missing");
    }

    #[test]
    fn every_wrong_line_is_named() {
        let text = "serial,rack,role,index,macs,bmc_address,labels\n\
            S1,x,worker,,,,\n\
            S2,1,worker,4,aa:bb:cc:00:11:22,,\n\
            S2,1,worker,,,,\n\
            \n\
            S3,1,worker,4,,,\n\
            S4,1,,,,,\n\
            ,1,worker,,,,\n\
            S5,1,worker,,AA:BB:CC:00:11:22,,\n\
            S6,1,worker,,,10.0.0,\n\
            S7,1,worker,,,10.0.0.1,\n\
            S8,1,worker\n\
            S9,-1,worker,,,,\n";
        let lines: Vec<String> = wrong(text).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "rack.csv line 2, column rack: `x` is not a whole number from 0 on",
                "rack.csv line 4, column serial: `S2` is on line 3 already",
                "rack.csv line 6, column index: 4 of rack 1 is on line 3 already",
                "rack.csv line 7, column role: empty",
                "rack.csv line 8, column serial: empty",
                "rack.csv line 9, column macs: `AA:BB:CC:00:11:22` is there twice",
                "rack.csv line 10, column bmc_address: `10.0.0` is not an IP address",
                "rack.csv line 11, column bmc_kind: empty, while there is a bmc_address",
                "rack.csv line 12: 3 columns where the heading has 7",
                "rack.csv line 13, column rack: `-1` is not a whole number from 0 on",
            ]
        );
    }

    #[test]
    fn many_errors_are_counted() {
        let text = "serial,rack,role\n".to_owned() + &"S1,x,w\n".repeat(25);
        assert_eq!(wrong(&text).lines().count(), 11);
        assert!(wrong(&text).ends_with("rack.csv: 15 more errors"));
    }
}
