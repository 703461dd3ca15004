//! Histories in Jepsen's format, so that Knossos and Elle can judge them elsewhere.
//!
//! One map a line, as `jepsen.history` has them: `:index`, `:time` in ns, `:type` (`:invoke`, `:ok`, `:fail`, `:info`),
//! `:process`, `:f`, `:value`, and beside that `:node`, `:revision`, `:command` and `:error` where there is one. Faults
//! are operations of `:process :nemesis`, whose `:type` is `:info`, begun as `:start-...` and ended as `:stop-...`.
//!
//! Values are what the workload wrote, JSON as EDN, but for two forms that the checkers elsewhere know:
//! - steps of a transaction, `["append", 1, 2]` and `["r", 1, [2]]`, become Elle's `[:append 1 2]` and `[:r 1 [2]]`;
//! - an operation on one key (`read`, `write`, `cas` of an object with a `key`) becomes the pair of key and value of
//!   `jepsen.independent`: `["x" nil]` as asked and `["x" 3]` as answered, `["x" [3 4]]` for a compare-and-set.
//!
//! An operation that was still open when the run ended has no second line, as in Jepsen.

use crate::history::{Complete, Edge, Fault, Invoke, Outcome, Record};
use anyhow::Context;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::Path;

/// A value of the extensible data notation, as far as histories need it.
#[derive(Debug, Clone, PartialEq)]
enum Edn {
    Nil,
    Bool(bool),
    /// As JSON writes it, which is as EDN does.
    Number(serde_json::Number),
    Text(String),
    Keyword(String),
    Vector(Vec<Edn>),
    Map(Vec<(Edn, Edn)>),
}

/// Writes `history.edn`.
///
/// # Errors
/// Where the file cannot be written, or a completion has no invocation.
pub fn write(path: &Path, records: &[Record]) -> anyhow::Result<()> {
    let text = export(records)?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The history as Jepsen has it.
///
/// # Errors
/// Where a completion has no invocation.
pub fn export(records: &[Record]) -> anyhow::Result<String> {
    let mut open: HashMap<u64, &Invoke> = HashMap::new();
    let mut text = String::new();
    let mut index = 0;
    for record in records {
        let op = match record {
            Record::Invoke(invoke) => {
                open.insert(invoke.process, invoke);
                invocation(invoke)
            }
            Record::Complete(complete) => {
                let invoke = open.remove(&complete.process).with_context(|| {
                    format!("process {} completes what it never invoked", complete.process)
                })?;
                completion(invoke, complete)
            }
            Record::Fault(fault) => nemesis(fault),
            Record::Stage(_) => continue,
        };
        let mut members = vec![member("index", number(index))];
        members.extend(op);
        writeln!(text, "{}", Edn::Map(members)).context("a text cannot be full")?;
        index += 1;
    }
    Ok(text)
}

fn invocation(invoke: &Invoke) -> Vec<(Edn, Edn)> {
    let mut members = vec![
        member("time", number(invoke.time_ns)),
        member("type", keyword("invoke")),
        member("process", number(invoke.process)),
        member("f", keyword(f(invoke))),
        member("value", demanded(invoke)),
        member("node", number(invoke.node)),
    ];
    members.extend(invoke.command.map(|id| member("command", text(&id.to_string()))));
    members
}

fn completion(invoke: &Invoke, complete: &Complete) -> Vec<(Edn, Edn)> {
    let (kind, value) = match complete.outcome {
        Outcome::Ok => ("ok", answered(invoke, &complete.value)),
        Outcome::Fail => ("fail", demanded(invoke)),
        Outcome::Info => ("info", demanded(invoke)),
    };
    let mut members = vec![
        member("time", number(complete.time_ns)),
        member("type", keyword(kind)),
        member("process", number(complete.process)),
        member("f", keyword(f(invoke))),
        member("value", value),
        member("node", number(invoke.node)),
    ];
    members.extend(complete.revision.map(|at| member("revision", number(at))));
    members.extend(
        complete
            .error
            .as_deref()
            .map(|error| member("error", text(error))),
    );
    members
}

fn nemesis(fault: &Fault) -> Vec<(Edn, Edn)> {
    let f = match fault.edge {
        Edge::Begin => format!("start-{}", fault.nemesis),
        Edge::End => format!("stop-{}", fault.nemesis),
        Edge::Moment => fault.nemesis.clone(),
    };
    let nodes = fault.nodes.iter().map(|node| number(*node)).collect();
    vec![
        member("time", number(fault.time_ns)),
        member("type", keyword("info")),
        member("process", keyword("nemesis")),
        member("f", keyword(&f)),
        member("value", text(&fault.what)),
        member("nodes", Edn::Vector(nodes)),
    ]
}

/// What an operation is called; Elle knows transactions as `txn`, whether they write or not.
fn f(invoke: &Invoke) -> &str {
    if steps(&invoke.value).is_some() {
        "txn"
    } else {
        &invoke.f
    }
}

/// What was asked.
fn demanded(invoke: &Invoke) -> Edn {
    let value = &invoke.value;
    if let Some(steps) = steps(value) {
        return Edn::Vector(steps.iter().map(step).collect());
    }
    match keyed(invoke) {
        Some((key, asked)) => Edn::Vector(vec![edn(key), asked]),
        None => edn(value),
    }
}

/// What was answered; of a write that has nothing to tell, what was asked.
fn answered(invoke: &Invoke, answer: &Value) -> Edn {
    if let Some(steps) = steps(answer) {
        return Edn::Vector(steps.iter().map(step).collect());
    }
    match (keyed(invoke), answer) {
        (Some((key, _)), answer) if invoke.f == "read" => {
            let value = answer.get("value").unwrap_or(answer);
            Edn::Vector(vec![edn(key), edn(value)])
        }
        (Some(_), _) | (None, Value::Null) => demanded(invoke),
        (None, answer) => edn(answer),
    }
}

/// The key of an operation on one key, and what else was asked.
fn keyed(invoke: &Invoke) -> Option<(&Value, Edn)> {
    let value = &invoke.value;
    let key = value.get("key")?;
    let put = || edn(&value["put"]);
    match invoke.f.as_str() {
        "read" => Some((key, Edn::Nil)),
        "write" => Some((key, put())),
        "cas" => Some((key, Edn::Vector(vec![edn(&value["expect"]["value"]), put()]))),
        _ => None,
    }
}

/// The steps of a transaction: a list of them, or the member of that name.
fn steps(value: &Value) -> Option<&Vec<Value>> {
    let steps = value.get("steps").unwrap_or(value).as_array()?;
    let is_step = |step: &Value| {
        let parts = step.as_array().map_or(&[][..], Vec::as_slice);
        parts.len() == 3 && matches!(parts[0].as_str(), Some("append" | "r" | "w"))
    };
    (!steps.is_empty() && steps.iter().all(is_step)).then_some(steps)
}

fn step(step: &Value) -> Edn {
    let f = keyword(step[0].as_str().unwrap_or_default());
    Edn::Vector(vec![f, edn(&step[1]), edn(&step[2])])
}

fn member(name: &str, value: Edn) -> (Edn, Edn) {
    (keyword(name), value)
}

fn keyword(name: &str) -> Edn {
    Edn::Keyword(name.to_owned())
}

fn text(text: &str) -> Edn {
    Edn::Text(text.to_owned())
}

fn number(number: u64) -> Edn {
    Edn::Number(number.into())
}

fn edn(value: &Value) -> Edn {
    match value {
        Value::Null => Edn::Nil,
        Value::Bool(value) => Edn::Bool(*value),
        Value::Number(number) => Edn::Number(number.clone()),
        Value::String(value) => text(value),
        Value::Array(items) => Edn::Vector(items.iter().map(edn).collect()),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
                // Whatever is no keyword everywhere is text.
                let name = if begins && name.chars().all(plain) {
                    keyword(name)
                } else {
                    text(name)
                };
                (name, edn(value))
            };
            Edn::Map(members.iter().map(member).collect())
        }
    }
}

impl fmt::Display for Edn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edn::Nil => f.write_str("nil"),
            Edn::Bool(value) => write!(f, "{value}"),
            Edn::Number(number) => write!(f, "{number}"),
            Edn::Text(text) => quoted(f, text),
            Edn::Keyword(name) => write!(f, ":{name}"),
            Edn::Vector(items) => {
                f.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if place > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Edn::Map(members) => {
                f.write_str("{")?;
                for (place, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name} {value}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Text as Clojure reads it: with the escapes of Java, which knows no others.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn invoke(time_ns: u64, f: &str, value: Value) -> Record {
        Record::Invoke(Invoke {
            time_ns,
            process: 3,
            node: 1,
            f: f.to_owned(),
            value,
            command: None,
        })
    }

    fn complete(time_ns: u64, outcome: Outcome, value: Value) -> Record {
        Record::Complete(Complete {
            time_ns,
            process: 3,
            outcome,
            value,
            revision: (outcome == Outcome::Ok).then_some(7),
            error: (outcome != Outcome::Ok).then(|| "reset by \"peer\"\n".to_owned()),
        })
    }

    fn exported(records: &[Record]) -> Vec<String> {
        let text = export(records).expect("it is a history");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn transactions_are_elles() {
        let asked = json!({"round": 2, "steps": [["append", 1, 5], ["r", 1, null]]});
        let records = [
            invoke(10, "read", asked),
            complete(20, Outcome::Ok, json!([["append", 1, 5], ["r", 1, [4, 5]]])),
        ];
        assert_eq!(
            exported(&records),
            [
                "{:index 0, :time 10, :type :invoke, :process 3, :f :txn, :value [[:append 1 5] [:r 1 nil]], :node 1}",
                "{:index 1, :time 20, :type :ok, :process 3, :f :txn, :value [[:append 1 5] [:r 1 [4 5]]], :node 1, \
                 :revision 7}",
            ]
        );
    }

    #[test]
    fn registers_are_knossos() {
        let cas = json!({"key": "x", "put": 2, "expect": {"value": 1, "modified": 9}});
        let records = [
            invoke(1, "read", json!({"key": "x"})),
            complete(2, Outcome::Ok, json!({"value": 3, "modified": 4})),
            invoke(3, "write", json!({"key": "x", "put": 1})),
            complete(4, Outcome::Ok, Value::Null),
            invoke(5, "cas", cas),
            complete(6, Outcome::Info, Value::Null),
        ];
        let values: Vec<_> = exported(&records)
            .iter()
            .map(|line| {
                let value = line.split(":value ").nth(1).expect("each has one");
                value.split(", :node").next().expect("and a node").to_owned()
            })
            .collect();
        assert_eq!(
            values,
            [
                "[\"x\" nil]",
                "[\"x\" 3]",
                "[\"x\" 1]",
                "[\"x\" 1]",
                "[\"x\" [1 2]]",
                "[\"x\" [1 2]]"
            ]
        );
        assert!(exported(&records)[5].ends_with(":error \"reset by \\\"peer\\\"\\n\"}"));
    }

    #[test]
    fn faults_are_the_nemesis() {
        let fault = |edge| {
            Record::Fault(Fault {
                time_ns: 5,
                nemesis: "partition".to_owned(),
                edge,
                what: "halves: 1 2 | 3".to_owned(),
                nodes: vec![1, 2, 3],
            })
        };
        let lines = exported(&[fault(Edge::Begin), fault(Edge::End), fault(Edge::Moment)]);
        assert_eq!(
            lines[0],
            "{:index 0, :time 5, :type :info, :process :nemesis, :f :start-partition, :value \"halves: 1 2 | 3\", \
             :nodes [1 2 3]}"
        );
        assert!(lines[1].contains(":f :stop-partition,"));
        assert!(lines[2].contains(":f :partition,"));
    }

    #[test]
    fn other_values_are_as_they_were_written() {
        let value = json!({"lock": 1, "a b": [true, null, "é\u{1}"]});
        let lines = exported(&[invoke(1, "acquire", value)]);
        assert!(
            lines[0].contains(":value {\"a b\" [true nil \"é\\u0001\"], :lock 1}"),
            "{lines:?}"
        );
        assert!(export(&[complete(1, Outcome::Ok, Value::Null)]).is_err());
    }
}
