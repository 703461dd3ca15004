//! A run directory, read for its report. What is missing or broken in it is told in the report, not an error: the
//! directory of a run that broke off is the one that somebody wants to look at.

use crate::history::{self, Call, Edge, Fault, Record, Stage, TimeNs};
use crate::run::RunFile;
use crate::verdict::{self, Finding, Verdict};
use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// A fault that lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which nemesis.
    pub nemesis: String,
    /// Which shape it took.
    pub what: String,
    /// Whom it struck.
    pub nodes: Vec<u64>,
    /// When it began.
    pub from_ns: TimeNs,
    /// When it ended; the end of the run where nobody said so.
    pub to_ns: TimeNs,
    /// Whether somebody said so.
    pub ended: bool,
}

/// What a node said of itself at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalState {
    /// Which node: the file's stem.
    pub node: String,
    /// Its revision.
    pub revision: String,
    /// The hash of its state.
    pub hash: String,
}

/// All that a report shows.
#[derive(Debug, Default)]
pub struct Run {
    /// What was asked of it.
    pub about: RunFile,
    /// The operations, by invocation.
    pub calls: Vec<Call>,
    /// Faults that lasted, by their beginning.
    pub spans: Vec<Span>,
    /// Faults that took no time.
    pub moments: Vec<Fault>,
    /// The stages.
    pub stages: Vec<Stage>,
    /// The verdicts.
    pub verdicts: Vec<Verdict>,
    /// The nodes at the end.
    pub finals: Vec<FinalState>,
    /// The last moment that anything happened; at least 1.
    pub end_ns: TimeNs,
    /// What could not be read, in words.
    pub missing: Vec<String>,
}

impl Run {
    /// Reads `dir`.
    pub fn read(dir: &Path) -> Run {
        let mut run = Run {
            end_ns: 1,
            ..Run::default()
        };
        run.about = run.noted(json(&dir.join("run.json")));
        run.verdicts = run.noted(json(&dir.join("verdicts.json")));
        let records = run.noted(history::read(&dir.join("history.jsonl")));
        run.calls = run.noted(history::calls(&records));
        run.take(&records);
        run.finals = finals(&dir.join("final"));
        run
    }

    /// The value, or nothing and a note of why.
    fn noted<T: Default>(&mut self, read: anyhow::Result<T>) -> T {
        read.unwrap_or_else(|error| {
            self.missing.push(format!("{error:#}"));
            T::default()
        })
    }

    fn take(&mut self, records: &[Record]) {
        let times = records.iter().map(|record| match record {
            Record::Invoke(invoke) => invoke.time_ns,
            Record::Complete(complete) => complete.time_ns,
            Record::Fault(fault) => fault.time_ns,
            Record::Stage(stage) => stage.time_ns,
        });
        self.end_ns = times.max().unwrap_or_default().max(1);
        let mut open: Vec<Span> = Vec::new();
        for record in records {
            match record {
                Record::Stage(stage) => self.stages.push(stage.clone()),
                Record::Fault(fault) => self.fault(fault, &mut open),
                Record::Invoke(_) | Record::Complete(_) => {}
            }
        }
        self.spans.append(&mut open);
        self.spans.sort_by_key(|span| span.from_ns);
    }

    fn fault(&mut self, fault: &Fault, open: &mut Vec<Span>) {
        match fault.edge {
            Edge::Moment => self.moments.push(fault.clone()),
            Edge::Begin => open.push(Span {
                nemesis: fault.nemesis.clone(),
                what: fault.what.clone(),
                nodes: fault.nodes.clone(),
                from_ns: fault.time_ns,
                to_ns: self.end_ns,
                ended: false,
            }),
            Edge::End => match began(open, fault) {
                Some(place) => {
                    let span = open.remove(place);
                    self.spans.push(Span {
                        to_ns: fault.time_ns,
                        ended: true,
                        ..span
                    });
                }
                None => self.moments.push(fault.clone()),
            },
        }
    }

    /// How long it lasted on the clock of the history.
    pub fn overall(&self) -> Finding {
        verdict::overall(&self.verdicts)
    }

    /// The nemeses that struck, in order of their names.
    pub fn struck(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self
            .spans
            .iter()
            .map(|span| span.nemesis.as_str())
            .chain(self.moments.iter().map(|fault| fault.nemesis.as_str()))
            .collect();
        names.into_iter().collect()
    }

    /// The calls that any verdict points at.
    pub fn offending(&self) -> BTreeSet<u64> {
        self.verdicts
            .iter()
            .filter(|verdict| verdict.finding != Finding::Pass)
            .flat_map(|verdict| verdict.calls.iter().copied())
            .collect()
    }

    /// When a call was over; the end of the run where it never was.
    pub fn until(&self, call: &Call) -> TimeNs {
        call.complete
            .as_ref()
            .map_or(self.end_ns, |complete| complete.time_ns)
    }
}

/// The fault that this one ends: of the same nemesis, the oldest with the same nodes and shape, else with the same
/// nodes, else the oldest.
fn began(open: &[Span], end: &Fault) -> Option<usize> {
    let places = || (0..open.len()).filter(|place| open[*place].nemesis == end.nemesis);
    places()
        .find(|place| open[*place].nodes == end.nodes && open[*place].what == end.what)
        .or_else(|| places().find(|place| open[*place].nodes == end.nodes))
        .or_else(|| places().next())
}

fn json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not as expected", path.display()))
}

/// Whatever `final/*.json` there is.
fn finals(dir: &Path) -> Vec<FinalState> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut finals: Vec<FinalState> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let node = path.file_stem()?.to_str()?.to_owned();
            if path.extension()? != "json" {
                return None;
            }
            let said: Value = json(&path).ok()?;
            let word = |names: &[&str]| {
                names
                    .iter()
                    .find_map(|name| said.get(*name))
                    .map_or_else(|| "?".to_owned(), plain)
            };
            Some(FinalState {
                node,
                revision: word(&["revision", "applied"]),
                hash: word(&["state_hash", "hash"]),
            })
        })
        .collect();
    finals.sort_by(|a, b| a.node.cmp(&b.node));
    finals
}

/// A JSON value for people: strings without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(time_ns: TimeNs, edge: Edge, what: &str, nodes: &[u64]) -> Record {
        Record::Fault(Fault {
            time_ns,
            nemesis: "pause".to_owned(),
            edge,
            what: what.to_owned(),
            nodes: nodes.to_vec(),
        })
    }

    #[test]
    fn an_end_closes_the_fault_that_it_names_best() {
        let mut run = Run::default();
        run.take(&[
            fault(1, Edge::Begin, "a", &[1]),
            fault(2, Edge::Begin, "b", &[2]),
            fault(3, Edge::Begin, "c", &[3]),
            fault(4, Edge::End, "over", &[2]),
            fault(5, Edge::End, "c", &[3]),
            fault(9, Edge::Moment, "d", &[1]),
        ]);
        let spans: Vec<_> = run
            .spans
            .iter()
            .map(|span| (span.what.as_str(), span.from_ns, span.to_ns, span.ended))
            .collect();
        assert_eq!(spans, [("a", 1, 9, false), ("b", 2, 4, true), ("c", 3, 5, true)]);
        assert_eq!(run.moments.len(), 1);
        assert_eq!(run.struck(), ["pause"]);
    }

    #[test]
    fn what_is_missing_is_told() {
        let dir = tempfile::tempdir().expect("temp dir");
        let run = Run::read(dir.path());
        assert_eq!(run.missing.len(), 3);
        assert_eq!(run.overall(), Finding::Unknown);
    }
}
