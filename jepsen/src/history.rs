//! What happened in a run: one line of JSON for each thing that a client asked, each answer, each fault.
//!
//! Clients are sequential: a process has one operation under way at a time. One whose outcome stays unknown never
//! completes; the client goes on under a new process number, as in Jepsen's histories.

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use uuid::Uuid;

/// Nanoseconds on one monotonic clock since the run began.
pub type TimeNs = u64;

/// One line of `history.jsonl`, in order of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// A client is about to ask.
    Invoke(Invoke),
    /// It has its answer, or has given up on one.
    Complete(Complete),
    /// A fault began, ended, or struck.
    Fault(Fault),
    /// The run went on to its next stage.
    Stage(Stage),
}

/// A client's demand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invoke {
    /// When it was sent.
    pub time_ns: TimeNs,
    /// Which client.
    pub process: u64,
    /// The node that was asked.
    pub node: u64,
    /// What kind of operation, in the workload's own words: `read`, `write`, `cas`, `txn`.
    pub f: String,
    /// Its arguments, as the workload wrote them.
    pub value: Value,
    /// The command id that it was sent under, if it writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Uuid>,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Complete {
    /// When it was known.
    pub time_ns: TimeNs,
    /// Which client.
    pub process: u64,
    /// What is known of the operation.
    pub outcome: Outcome,
    /// What was answered, as the workload wrote it; null where nothing was.
    pub value: Value,
    /// Of a write, the revision that it made; of a read, the revision of the state that it saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The problem's code, or what the transport said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a client knows of its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took place.
    Ok,
    /// It did not take place, and never will.
    Fail,
    /// It may have taken place, may yet, or may never.
    Info,
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When.
    pub time_ns: TimeNs,
    /// Which nemesis: `kill`, `partition`.
    pub nemesis: String,
    /// Whether it begins, ends, or happens at once.
    pub edge: Edge,
    /// Which shape it took, for people: `halves: 1 2 | 3`.
    pub what: String,
    /// The nodes that it strikes.
    pub nodes: Vec<u64>,
}

/// Where a fault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// It lasts from now on.
    Begin,
    /// It is over.
    End,
    /// It takes no time: a kill, a jump of a clock.
    Moment,
}

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// When it began.
    pub time_ns: TimeNs,
    /// Which.
    pub stage: StageName,
}

/// The stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// The workload writes what it needs beforehand.
    Setup,
    /// Clients and faults together.
    Faults,
    /// All faults are taken back; clients go on until they succeed.
    Heal,
    /// Every node is read as a whole.
    FinalReads,
    /// Nothing more.
    End,
}

/// An operation with its two ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its place among the calls of the run, by invocation.
    pub id: u64,
    /// How it began.
    pub invoke: Invoke,
    /// How it ended; `None` where the run was over first.
    pub complete: Option<Complete>,
}

impl Call {
    /// What is known of it: [`Outcome::Info`] without an end.
    pub fn outcome(&self) -> Outcome {
        self.complete
            .as_ref()
            .map_or(Outcome::Info, |complete| complete.outcome)
    }

    /// When it ended; `None` where it may still take place.
    pub fn ended_ns(&self) -> Option<TimeNs> {
        let complete = self.complete.as_ref()?;
        (complete.outcome != Outcome::Info).then_some(complete.time_ns)
    }

    /// Its arguments.
    ///
    /// # Errors
    /// Where they are not what the workload writes.
    pub fn demand<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_value(self.invoke.value.clone())
            .with_context(|| format!("the demand of call {}", self.id))
    }

    /// Its answer, where it ended with [`Outcome::Ok`].
    ///
    /// # Errors
    /// Where it is not what the workload writes.
    pub fn answer<T: DeserializeOwned>(&self) -> anyhow::Result<Option<T>> {
        match &self.complete {
            Some(complete) if complete.outcome == Outcome::Ok => {
                serde_json::from_value(complete.value.clone())
                    .map(Some)
                    .with_context(|| format!("the answer of call {}", self.id))
            }
            _ => Ok(None),
        }
    }

    /// The revision that it made or saw.
    pub fn revision(&self) -> Option<u64> {
        self.complete.as_ref()?.revision
    }
}

/// Pairs invocations with completions.
///
/// # Errors
/// Where a completion has no invocation, or a process invokes twice: the history is broken, not the system.
pub fn calls(records: &[Record]) -> anyhow::Result<Vec<Call>> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    for record in records {
        match record {
            Record::Invoke(invoke) => {
                if open.insert(invoke.process, calls.len()).is_some() {
                    bail!(
                        "process {} invokes while an operation of its own is open",
                        invoke.process
                    );
                }
                calls.push(Call {
                    id: calls.len() as u64,
                    invoke: invoke.clone(),
                    complete: None,
                });
            }
            Record::Complete(complete) => {
                let Some(place) = open.remove(&complete.process) else {
                    bail!("process {} completes what it never invoked", complete.process);
                };
                calls[place].complete = Some(complete.clone());
            }
            Record::Fault(_) | Record::Stage(_) => {}
        }
    }
    Ok(calls)
}

/// Reads `history.jsonl`.
///
/// # Errors
/// Where the file cannot be read, or a line of it is not a record.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    BufReader::new(file)
        .lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(&line?).with_context(|| format!("{}:{}", path.display(), number + 1))
        })
        .collect()
}

/// Writes `history.jsonl`.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoke(process: u64, time_ns: TimeNs) -> Record {
        Record::Invoke(Invoke {
            time_ns,
            process,
            node: 1,
            f: "read".to_owned(),
            value: Value::Null,
            command: None,
        })
    }

    fn complete(process: u64, time_ns: TimeNs, outcome: Outcome) -> Record {
        Record::Complete(Complete {
            time_ns,
            process,
            outcome,
            value: Value::Null,
            revision: None,
            error: None,
        })
    }

    #[test]
    fn calls_are_paired_by_process() {
        let records = [
            invoke(0, 1),
            invoke(1, 2),
            complete(1, 3, Outcome::Ok),
            invoke(1, 4),
            complete(0, 5, Outcome::Info),
        ];
        let calls = calls(&records).expect("pairs");
        let ends: Vec<_> = calls
            .iter()
            .map(|call| (call.outcome(), call.ended_ns()))
            .collect();
        assert_eq!(
            ends,
            [
                (Outcome::Info, None),
                (Outcome::Ok, Some(3)),
                (Outcome::Info, None)
            ]
        );
    }

    #[test]
    fn broken_histories_are_refused() {
        assert!(calls(&[invoke(0, 1), invoke(0, 2)]).is_err());
        assert!(calls(&[complete(0, 1, Outcome::Ok)]).is_err());
    }

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("history.jsonl");
        let records = vec![
            Record::Stage(Stage {
                time_ns: 0,
                stage: StageName::Faults,
            }),
            invoke(0, 1),
            Record::Fault(Fault {
                time_ns: 2,
                nemesis: "kill".to_owned(),
                edge: Edge::Moment,
                what: "the leader".to_owned(),
                nodes: vec![2],
            }),
            complete(0, 3, Outcome::Fail),
        ];
        write(&path, &records).expect("writes");
        assert_eq!(read(&path).expect("reads"), records);
    }
}
