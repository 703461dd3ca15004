//! A set that only grows: every element is a key of its own, put where it does not exist yet.

use super::judging::{Judgement, refused};
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::set::{self as checker, Add, Look};
use crate::client::{Answer, Client, Level};
use crate::final_state::PAIRS;
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// See the module.
pub(super) struct Set;

/// How many elements each client adds to a set before all go on to the next, so that reads stay short.
const ADDS_PER_CLIENT: u64 = 50;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    set: u64,
    /// What to add; a read has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    add: Option<u64>,
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["add", "read"]
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Adding {
            rng: seat.rng(),
            client: seat.client,
            added: 0,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(vec![looked(evidence.calls)?, kept(evidence)?])
    }
}

struct Adding {
    rng: ChaCha8Rng,
    client: u64,
    added: u64,
}

impl Script for Adding {
    fn next(&mut self) -> Demand {
        let set = self.added / ADDS_PER_CLIENT;
        if self.rng.random_bool(0.15) {
            return Demand::read("read", json!(Asked { set, add: None }));
        }
        self.added += 1;
        let add = Some(self.client * 1_000_000 + self.added);
        Demand::write("add", json!(Asked { set, add }))
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Asked { set, add } = asked(demand);
            let Some(element) = add else {
                let request = client.get("/v1/kv", Level::Linearizable);
                let request = request.query("prefix", &format!("set/{set}/"));
                return request.query("limit", &5000).send().await.map(elements);
            };
            let request = client.write(Method::PUT, &format!("/v1/kv/set/{set}/{element}"), command);
            let request = request.json(&json!({"value": element.to_string()})).if_match(0);
            request.send().await.map(|_| Value::Null)
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}

/// The elements of a page, in order.
fn elements(page: &Value) -> Value {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let elements = items
        .iter()
        .filter_map(|pair| pair["value"].as_str()?.parse::<u64>().ok());
    let mut elements: Vec<u64> = elements.collect();
    elements.sort_unstable();
    json!(elements)
}

/// What clients read of the sets as they grew.
fn looked(calls: &[Call]) -> anyhow::Result<Verdict> {
    let (mut adds, mut looks) = (Vec::new(), Vec::new());
    for call in calls {
        let Asked { set, add } = call.demand()?;
        if let Some(element) = add {
            adds.push(Add {
                call: call.id,
                set,
                element,
                invoked_ns: call.invoke.time_ns,
                completed_ns: call.ended_ns(),
                outcome: call.outcome(),
            });
        } else if let (Some(elements), Some(completed_ns)) = (call.answer()?, call.ended_ns()) {
            looks.push(Look {
                call: Some(call.id),
                set,
                invoked_ns: call.invoke.time_ns,
                completed_ns,
                elements,
            });
        }
    }
    Ok(checker::check(&adds, &looks).verdict("set"))
}

/// Every node has in the end what was added, and nothing that was not.
fn kept(evidence: &Evidence<'_>) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    for node in &evidence.finals.nodes {
        let pairs = node.reads.get(PAIRS).map_or(&[][..], Vec::as_slice);
        let keys: BTreeSet<&str> = pairs.iter().filter_map(|pair| pair["key"].as_str()).collect();
        for call in evidence.calls {
            let Asked {
                set,
                add: Some(element),
            } = call.demand()?
            else {
                continue;
            };
            judgement.count();
            let there = keys.contains(format!("set/{set}/{element}").as_str());
            // Each is added by one call alone, so that one that finds it there already met itself.
            let fits = match call.outcome() {
                Outcome::Ok => there,
                Outcome::Info => true,
                Outcome::Fail => !there && !refused(call, "kv_revision_mismatch"),
            };
            if !fits {
                let is = if there { "has" } else { "does not have" };
                let what = format!(
                    "node {} {is} {element}, against the answer to call {}",
                    node.id, call.id
                );
                judgement.wrong("final", &[call.id], what);
            }
        }
    }
    Ok(judgement
        .findings("elements looked for on all nodes")
        .verdict("set-final"))
}
