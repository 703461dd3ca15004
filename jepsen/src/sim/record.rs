//! The history of a simulated run in the words that the harness uses.

use super::client::{Asked, Fate, Op};
use crate::history::{Complete, Invoke, Outcome, Record};
use onward_statemachine::services::kv;
use onward_statemachine::{Command, Outcome as Answer};
use serde_json::{Value, json};

/// The operations and what else was recorded, in order of time.
pub(super) fn history(ops: &[Op], others: Vec<Record>) -> Vec<Record> {
    let mut timed: Vec<(u64, Record)> = others
        .into_iter()
        .map(|record| (time_ns(&record), record))
        .collect();
    for op in ops {
        timed.push((op.invoked_ns, Record::Invoke(invoke(op))));
        timed.push((op.ended_ns, Record::Complete(complete(op))));
    }
    // The operations of one process are in order, and what happened at one time stays so.
    timed.sort_by_key(|(at, _)| *at);
    timed.into_iter().map(|(_, record)| record).collect()
}

fn time_ns(record: &Record) -> u64 {
    match record {
        Record::Invoke(invoke) => invoke.time_ns,
        Record::Complete(complete) => complete.time_ns,
        Record::Fault(fault) => fault.time_ns,
        Record::Stage(stage) => stage.time_ns,
    }
}

fn invoke(op: &Op) -> Invoke {
    let (f, value, command) = match &op.asked {
        Asked::Command { id, command } => (name(command), json!(format!("{command:?}")), Some(id.0)),
        Asked::Read { keys, freshness } => {
            let keys: Value = keys.iter().map(ToString::to_string).collect();
            let value = json!({"keys": keys, "freshness": format!("{freshness:?}")});
            ("read", value, None)
        }
    };
    Invoke {
        time_ns: op.invoked_ns,
        process: op.process,
        node: op.node,
        f: f.to_owned(),
        value,
        command,
    }
}

/// What a command is called.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Batch(_) => "batch",
        Command::System(_) => "system",
        Command::Kv(_) => "kv",
        Command::Catalog(_) => "catalog",
        Command::Registry(_) => "registry",
        Command::Ipam(_) => "ipam",
        Command::Netboot(_) => "netboot",
        Command::Objects(_) => "objects",
        Command::Apps(_) => "apps",
        Command::Builds(_) => "builds",
        Command::Releases(_) => "releases",
        Command::Instances(_) => "instances",
    }
}

/// How it ended.
fn complete(op: &Op) -> Complete {
    let (outcome, value, revision, error) = match &op.fate {
        Fate::Unknown(reason) => (Outcome::Info, Value::Null, None, Some(reason.clone())),
        Fate::Nothing(reason) => (Outcome::Fail, Value::Null, None, Some(reason.clone())),
        Fate::Answered(Answer::Accepted { revision, reply }) => {
            (Outcome::Ok, json!(format!("{reply:?}")), Some(revision.0), None)
        }
        Fate::Answered(Answer::Refused { revision, refusal }) => (
            Outcome::Fail,
            Value::Null,
            Some(revision.0),
            Some(refusal.to_string()),
        ),
        Fate::Read(revision, pairs) => {
            let value = |pair: &kv::Pair| String::from_utf8_lossy(&pair.value).into_owned();
            let values = pairs.iter().map(|pair| json!(pair.as_ref().map(value)));
            (Outcome::Ok, values.collect(), Some(revision.0), None)
        }
    };
    Complete {
        time_ns: op.ended_ns,
        process: op.process,
        outcome,
        value,
        revision,
        error,
    }
}
