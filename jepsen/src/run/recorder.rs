//! Who writes the history: everybody through one lock, so that the lines are in order of time.

use crate::client::Answer;
use crate::history::{Complete, Edge, Fault, Invoke, Outcome, Record, Stage, StageName, TimeNs};
use crate::workload::Demand;
use anyhow::Context;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use uuid::Uuid;

/// Writes down what happens as it happens, so that a run that is cut short leaves its history too.
#[derive(Debug)]
pub struct Recorder {
    started: Instant,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    out: BufWriter<File>,
    /// The first line that could not be written; a history with a hole is none.
    failed: Option<String>,
    tally: Tally,
    /// The processes that asked something before this stage, and have not been answered yet.
    overdue: BTreeSet<u64>,
    asking: BTreeSet<u64>,
}

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations that ended.
    pub ended: u64,
    /// Those of them that took place.
    pub ok: u64,
    /// Faults that began or struck.
    pub faults: u64,
    /// The last fault, in words.
    pub last_fault: String,
    /// Which nodes served something that was asked in this stage, and how often.
    pub nodes: BTreeMap<u64, u64>,
    /// Which kinds of operation that were asked for in this stage took place, and how often.
    pub kinds: BTreeMap<&'static str, u64>,
}

impl Recorder {
    /// Begins `history.jsonl` in `dir`; time begins now.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(dir: &Path) -> anyhow::Result<Recorder> {
        let path = dir.join("history.jsonl");
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Recorder {
            started: Instant::now(),
            book: Mutex::new(Book {
                out: BufWriter::new(file),
                failed: None,
                tally: Tally::default(),
                overdue: BTreeSet::new(),
                asking: BTreeSet::new(),
            }),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, record: impl FnOnce(TimeNs, &mut Book) -> Record) {
        let mut book = self.book();
        // Within the lock: the order of lines is the order of times.
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let record = record(now, &mut book);
        let line = serde_json::to_string(&record).expect("a record is JSON");
        if let Err(error) = writeln!(book.out, "{line}") {
            book.failed.get_or_insert(error.to_string());
        }
    }

    /// A client is about to ask.
    pub fn invoke(&self, process: u64, node: u64, demand: &Demand, command: Option<Uuid>) {
        self.write(|time_ns, book| {
            book.asking.insert(process);
            Record::Invoke(Invoke {
                time_ns,
                process,
                node,
                f: demand.f.to_owned(),
                value: demand.value.clone(),
                command,
            })
        });
    }

    /// It was answered.
    pub fn complete(&self, process: u64, node: u64, demand: &Demand, answer: &Answer) {
        self.write(|time_ns, book| {
            let Book {
                tally,
                overdue,
                asking,
                ..
            } = book;
            asking.remove(&process);
            let of_this_stage = !overdue.remove(&process);
            tally.ended += 1;
            tally.ok += u64::from(answer.outcome == Outcome::Ok);
            if answer.outcome == Outcome::Ok && of_this_stage {
                *tally.nodes.entry(node).or_default() += 1;
                *tally.kinds.entry(demand.f).or_default() += 1;
            }
            Record::Complete(Complete {
                time_ns,
                process,
                outcome: answer.outcome,
                value: match answer.outcome {
                    Outcome::Ok => answer.body.clone(),
                    Outcome::Fail | Outcome::Info => Value::Null,
                },
                revision: answer.revision,
                error: answer.error.clone(),
            })
        });
    }

    /// A fault began, ended, or struck.
    pub fn fault(&self, nemesis: &str, edge: Edge, what: impl Into<String>, nodes: Vec<u64>) {
        let what = what.into();
        self.write(|time_ns, Book { tally, .. }| {
            if edge != Edge::End {
                tally.faults += 1;
                tally.last_fault = format!("{nemesis}: {what}");
            }
            Record::Fault(Fault {
                time_ns,
                nemesis: nemesis.to_owned(),
                edge,
                what,
                nodes,
            })
        });
    }

    /// The run goes on to its next stage.
    pub fn stage(&self, stage: StageName) {
        self.write(|time_ns, book| {
            book.tally.nodes.clear();
            book.tally.kinds.clear();
            book.overdue.clone_from(&book.asking);
            Record::Stage(Stage { time_ns, stage })
        });
    }

    /// How far the run has come.
    pub fn tally(&self) -> Tally {
        self.book().tally.clone()
    }

    /// Brings the file to its end.
    ///
    /// # Errors
    /// Where any line of it could not be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        let mut book = self.book();
        book.out.flush().context("the history could not be written")?;
        match &book.failed {
            None => Ok(()),
            Some(error) => anyhow::bail!("the history could not be written: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_what_an_earlier_stage_asked_tells_nothing_of_this_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let recorder = Recorder::create(dir.path()).expect("a history");
        let demand = Demand::read("read", Value::Null);
        let answer = Answer::ok(Value::Null, Some(1));
        recorder.stage(StageName::Faults);
        recorder.invoke(0, 1, &demand, None);
        recorder.stage(StageName::Heal);
        recorder.complete(0, 1, &demand, &answer);
        let tally = recorder.tally();
        assert_eq!((tally.ok, tally.nodes.len(), tally.kinds.len()), (1, 0, 0));
        recorder.invoke(0, 1, &demand, None);
        recorder.complete(0, 1, &demand, &answer);
        let tally = recorder.tally();
        assert_eq!((tally.ok, tally.nodes.len(), tally.kinds.len()), (2, 1, 1));
    }
}
