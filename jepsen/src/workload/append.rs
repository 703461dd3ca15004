//! Transactions over lists: append to some keys and read others, all in one revision.
//!
//! A list is one value. A transaction reads all of its round's lists at one revision, works out what they become, and
//! commits on the condition that no list that it touched was changed since. Those that only read are snapshot reads.

use super::rounds::Rounds;
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::append::{self as checker, Mop, Txn};
use crate::client::{Answer, Client, Level};
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// See the module.
pub(super) struct Append;

/// How many lists a round has.
const KEYS: u64 = 3;
/// The most steps of a transaction.
const STEPS_MAX: usize = 4;

/// What a transaction is to do, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    round: u64,
    steps: Vec<Step>,
}

/// One step: `["append", KEY, VALUE]` or `["r", KEY, LIST]`, as Elle writes them; what is read is null when asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "(String, u64, Value)", into = "(String, u64, Value)")]
pub(super) enum Step {
    Append(u64, u64),
    Read(u64, Option<Vec<u64>>),
}

impl From<(String, u64, Value)> for Step {
    fn from((f, key, value): (String, u64, Value)) -> Self {
        match value.as_u64() {
            Some(value) if f == "append" => Step::Append(key, value),
            _ => Step::Read(key, serde_json::from_value(value).ok()),
        }
    }
}

impl From<Step> for (String, u64, Value) {
    fn from(step: Step) -> Self {
        match step {
            Step::Append(key, value) => ("append".to_owned(), key, json!(value)),
            Step::Read(key, list) => ("r".to_owned(), key, json!(list)),
        }
    }
}

/// A list as it is stored.
#[derive(Debug, Clone, Default)]
struct List {
    values: Vec<u64>,
    modified: u64,
    /// Whether the transaction depends on it, or changes it.
    touched: bool,
    changed: bool,
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["txn", "read"]
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Transactions {
            rng: seat.rng(),
            rounds: Rounds::new(seat),
            client: seat.client,
            appended: 0,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        let txns = evidence
            .calls
            .iter()
            .map(txn)
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(vec![checker::check(&txns).verdict("append")])
    }
}

struct Transactions {
    rng: ChaCha8Rng,
    rounds: Rounds,
    client: u64,
    appended: u64,
}

impl Script for Transactions {
    fn next(&mut self) -> Demand {
        let round = self.rounds.next();
        let only_reads = self.rng.random_bool(0.3);
        let count = self.rng.random_range(1..=STEPS_MAX);
        let steps = (0..count).map(|place| {
            let key = round * KEYS + self.rng.random_range(0..KEYS);
            // One append at least, so that it writes.
            if only_reads || place > 0 && self.rng.random_bool(0.5) {
                return Step::Read(key, None);
            }
            self.appended += 1;
            Step::Append(key, self.client * 1_000_000 + self.appended)
        });
        let steps = steps.collect();
        let value = json!(Asked { round, steps });
        if only_reads {
            Demand::read("read", value)
        } else {
            Demand::write("txn", value)
        }
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Asked { round, steps } = asked(demand);
            let request = client.get("/v1/kv", Level::Linearizable);
            let read = request.query("prefix", &prefix(round)).send().await;
            if !read.is_ok() {
                return read;
            }
            let mut lists = lists(&read.body);
            let done = run(steps, &mut lists);
            if !demand.writes {
                return Answer::ok(json!(done), read.revision);
            }
            let request = client.write(Method::POST, "/v1/kv/txn", command);
            let answer = request.json(&transaction(round, &lists)).send().await;
            if answer.is_ok() && answer.body["succeeded"] != true {
                return Answer {
                    outcome: Outcome::Fail,
                    error: Some("conflict".to_owned()),
                    ..answer
                };
            }
            answer.map(|_| json!(done))
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}

fn prefix(round: u64) -> String {
    format!("append/{round}/")
}

/// The lists of a page, by key.
fn lists(page: &Value) -> BTreeMap<u64, List> {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let lists = items.iter().filter_map(|pair| {
        let key = pair["key"].as_str()?.rsplit('/').next()?.parse().ok()?;
        let values = serde_json::from_str(pair["value"].as_str()?).ok()?;
        let modified = pair["modified"].as_u64()?;
        Some((
            key,
            List {
                values,
                modified,
                ..List::default()
            },
        ))
    });
    lists.collect()
}

/// Does the steps on `lists`; the steps with what they read.
fn run(steps: Vec<Step>, lists: &mut BTreeMap<u64, List>) -> Vec<Step> {
    let done = steps.into_iter().map(|step| match step {
        Step::Append(key, value) => {
            let list = lists.entry(key).or_default();
            list.values.push(value);
            (list.touched, list.changed) = (true, true);
            Step::Append(key, value)
        }
        Step::Read(key, _) => {
            let list = lists.entry(key).or_default();
            list.touched = true;
            Step::Read(key, Some(list.values.clone()))
        }
    });
    done.collect()
}

fn transaction(round: u64, lists: &BTreeMap<u64, List>) -> Value {
    let name = |key: &u64| format!("{}{key}", prefix(round));
    let compare = lists.iter().filter(|(_, list)| list.touched);
    let compare = compare.map(|(key, list)| json!({"key": name(key), "modified": list.modified}));
    let then = lists.iter().filter(|(_, list)| list.changed);
    let then =
        then.map(|(key, list)| json!({"put": {"key": name(key), "value": json!(list.values).to_string()}}));
    json!({"compare": compare.collect::<Value>(), "then": then.collect::<Value>()})
}

/// A call as the checker takes it: with what it read where it took place, and what it asked otherwise.
fn txn(call: &Call) -> anyhow::Result<Txn> {
    let asked: Asked = call.demand()?;
    let steps = call.answer()?.unwrap_or(asked.steps);
    let ops = steps.into_iter().map(|step| match step {
        Step::Append(key, value) => Mop::Append {
            key: key.to_string(),
            value,
        },
        Step::Read(key, values) => Mop::Read {
            key: key.to_string(),
            values,
        },
    });
    Ok(Txn {
        call: call.id,
        process: call.invoke.process,
        invoked_ns: call.invoke.time_ns,
        completed_ns: call.complete.as_ref().map(|complete| complete.time_ns),
        outcome: call.outcome(),
        ops: ops.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_see_those_before_them() {
        let page = json!({"items": [{"key": "append/2/7", "value": "[1,2]", "modified": 9}]});
        let mut lists = lists(&page);
        let steps = vec![Step::Append(7, 3), Step::Read(7, None), Step::Read(8, None)];
        let done = run(steps, &mut lists);
        assert_eq!(
            json!(done),
            json!([["append", 7, 3], ["r", 7, [1, 2, 3]], ["r", 8, []]])
        );
        let wire = transaction(2, &lists);
        assert_eq!(
            wire,
            json!({
                "compare": [{"key": "append/2/7", "modified": 9}, {"key": "append/2/8", "modified": 0}],
                "then": [{"put": {"key": "append/2/7", "value": "[1,2,3]"}}],
            })
        );
    }
}
