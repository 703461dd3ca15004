//! The journals of all nodes: whether they are one.

use crate::checker::{Findings, Violation};
use crate::final_state::Entry;
use chrono::DateTime;
use std::collections::HashMap;
use uuid::Uuid;

/// The journals.
pub(super) struct Journals<'a> {
    /// Each node with its journal, by revision.
    pub nodes: Vec<(u64, HashMap<u64, &'a Entry>)>,
    /// The longest of them, in order: all others are to be the same.
    pub longest: &'a [Entry],
    /// Where each command is in any of them.
    pub commands: HashMap<Uuid, Vec<u64>>,
    /// The first revision that was kept; 0 where nothing was let go of.
    pub floor: u64,
    all: Vec<(u64, &'a [Entry])>,
}

impl<'a> Journals<'a> {
    pub(super) fn new(journals: &[(u64, &'a [Entry])]) -> Self {
        let mut commands: HashMap<Uuid, Vec<u64>> = HashMap::new();
        for entry in journals.iter().flat_map(|(_, entries)| *entries) {
            let revisions = commands.entry(entry.command_id).or_default();
            if !revisions.contains(&entry.revision) {
                revisions.push(entry.revision);
            }
        }
        let longest = journals.iter().map(|(_, entries)| *entries);
        let longest = longest.max_by_key(|entries| entries.len()).unwrap_or_default();
        let by_revision =
            |entries: &'a [Entry]| entries.iter().map(|entry| (entry.revision, entry)).collect();
        Journals {
            nodes: journals
                .iter()
                .map(|(node, entries)| (*node, by_revision(entries)))
                .collect(),
            longest,
            commands,
            floor: floor(longest),
            all: journals.to_vec(),
        }
    }

    /// What happened at a revision.
    pub(super) fn at(&self, revision: u64) -> Option<&'a Entry> {
        let place = self
            .longest
            .binary_search_by_key(&revision, |entry| entry.revision);
        place.ok().map(|place| &self.longest[place])
    }

    pub(super) fn check(&self, findings: &mut Findings) {
        let mut report = |kind, summary| findings.violations.push(Violation::new(kind, summary, []));
        for (node, entries) in &self.all {
            if let Some(difference) = difference(self.longest, entries) {
                report("journals-differ", format!("that of node {node}: {difference}"));
            }
        }
        for pair in self.longest.windows(2) {
            let (one, other) = (&pair[0], &pair[1]);
            if one.revision >= other.revision {
                let summary = format!("revision {} comes before {}", one.revision, other.revision);
                report("journal-order", summary);
            }
            let time = |entry: &Entry| DateTime::parse_from_rfc3339(&entry.at).ok();
            if time(one) > time(other) {
                let (from, to) = (one.revision, other.revision);
                let summary = format!(
                    "it falls from {} at revision {from} to {} at {to}",
                    one.at, other.at
                );
                report("log-time", summary);
            }
        }
        for entry in self.longest.iter().filter(|entry| entry.actor.is_empty()) {
            report("no-actor", format!("revision {} is nobody's", entry.revision));
        }
        let mut twice: Vec<_> = self.commands.iter().filter(|(_, at)| at.len() > 1).collect();
        twice.sort();
        for (command, revisions) in twice {
            let summary = format!("command {command} is at revisions {revisions:?}");
            report("applied-twice", summary);
        }
    }
}

/// What was let go of: the journal says what may be, and where it begins, whether it is.
fn floor(entries: &[Entry]) -> u64 {
    let begins = entries.first().map_or(0, |entry| entry.revision);
    let events = entries.iter().flat_map(|entry| &entry.events);
    let compactions =
        events.filter(|event| event["area"] == "system" && event["event"] == "journal_compacted");
    let floors = compactions.filter_map(|event| event["below"].as_u64());
    floors.filter(|floor| *floor <= begins).max().unwrap_or(0)
}

/// Where two journals part.
fn difference(one: &[Entry], other: &[Entry]) -> Option<String> {
    let parted = one.iter().zip(other).find(|(one, other)| one != other);
    match parted {
        Some((one, other)) if one.revision == other.revision => {
            Some(format!("something else happened at revision {}", one.revision))
        }
        Some((one, other)) => Some(format!(
            "it has revision {} where another has {}",
            other.revision, one.revision
        )),
        None if one.len() != other.len() => {
            let missing = &one[one.len().min(other.len())..];
            let first = missing.first().map_or(0, |entry| entry.revision);
            Some(format!(
                "it ends before revision {first}, {} too early",
                missing.len()
            ))
        }
        None => None,
    }
}
