//! A bit of everything, over all domains: each change that is acknowledged is in the journal once, at its revision,
//! with who demanded it; nothing else is there.

use super::judging::{Judgement, by_command};
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::client::{Answer, Client};
use crate::history::Outcome;
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
pub(super) struct Audit;

const KINDS: [&str; 9] = [
    "kv-put",
    "kv-txn",
    "service-register",
    "service-deregister",
    "machine-register",
    "machine-label",
    "object-commit",
    "app-set",
    "batch",
];

/// What is changed. Numbers are new each time, so that whatever is accepted changes something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    client: u64,
    number: u64,
}

impl Workload for Audit {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &KINDS
    }

    fn final_reads(&self) -> &'static [&'static str] {
        &["/v1/machines", "/v1/services", "/v1/objects", "/v1/apps"]
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Changing {
            rng: seat.rng(),
            client: seat.client,
            number: 0,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(vec![audited(evidence)])
    }
}

struct Changing {
    rng: ChaCha8Rng,
    client: u64,
    number: u64,
}

impl Script for Changing {
    fn next(&mut self) -> Demand {
        self.number += 1;
        let f = KINDS[self.rng.random_range(0..KINDS.len())];
        let asked = Asked {
            client: self.client,
            number: self.number,
        };
        Demand::write(f, json!(asked))
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let (method, path, body) = request(demand.f, &asked(demand));
            let request = client.write(method, &path, command);
            let request = match &body {
                Value::Null => request,
                body => request.json(body),
            };
            request.send().await.map(|_| Value::Null)
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}

fn request(f: &str, Asked { client, number }: &Asked) -> (Method, String, Value) {
    let key = format!("audit/{client}/{}", number % 5);
    let put = json!({"key": key, "value": number.to_string()});
    let instance = format!("/v1/services/audit-{client}/instances/i{}", number % 3);
    let spec = json!({"address": "10.0.0.1", "port": 1 + number % 60_000});
    // Machines of a client are registered once in a while, and labelled in between.
    let serial = format!("audit-{client}-{}", number / 20);
    match f {
        "kv-put" => (
            Method::PUT,
            format!("/v1/kv/{key}"),
            json!({"value": number.to_string()}),
        ),
        "kv-txn" => (
            Method::POST,
            "/v1/kv/txn".to_owned(),
            json!({"then": [{"put": put}]}),
        ),
        "service-register" => (Method::PUT, instance, spec),
        "service-deregister" => (Method::DELETE, instance, Value::Null),
        "machine-register" => (
            Method::POST,
            "/v1/machines".to_owned(),
            json!({"machines": [{"serial": serial, "rack": client, "role": "worker"}]}),
        ),
        "machine-label" => (
            Method::POST,
            format!("/v1/machines/{serial}/labels"),
            json!({"set": {"number": number.to_string()}}),
        ),
        "object-commit" => (
            Method::POST,
            "/v1/objects/transactions".to_owned(),
            json!({"writes": [{"oid": format!("{:016x}", client * 1_000_000 + number + 1), "text": "a"}]}),
        ),
        "app-set" => (
            Method::PUT,
            format!("/v1/apps/audit-{client}"),
            json!({
                "source": {"repository": "/nowhere.git", "ref": "main"},
                "run": format!("exec sleep {number}"),
            }),
        ),
        _ => (
            Method::POST,
            "/v1/batch".to_owned(),
            json!({"commands": [
                {"kv_put": put},
                {"service_register": {"registrations": [
                    {"service": format!("batch-{client}"), "instance": "i", "spec": spec},
                ]}},
            ]}),
        ),
    }
}

/// Each acknowledged change is in the journal once, at its revision, with its actor; what failed is not there; and
/// every change of a client comes from a call.
fn audited(evidence: &Evidence<'_>) -> Verdict {
    let mut judgement = Judgement::new();
    let journal = evidence.finals.journal();
    let found = by_command(journal);
    let actors: BTreeMap<u64, &str> = journal
        .iter()
        .map(|entry| (entry.revision, entry.actor.as_str()))
        .collect();
    let mut known = BTreeMap::new();
    for call in evidence.calls {
        let Some(command) = call.invoke.command else {
            continue;
        };
        known.insert(command, call.id);
        judgement.count();
        let revisions = found.get(&command).map_or(&[][..], Vec::as_slice);
        let fits = match (call.outcome(), call.revision(), revisions) {
            (Outcome::Ok, Some(revision), [only]) => revision == *only,
            (Outcome::Info, _, [] | [_]) | (Outcome::Fail, _, []) => true,
            _ => false,
        };
        if !fits {
            let what = format!(
                "call {} ended {:?} at {:?}, and is in the journal at {revisions:?}",
                call.id,
                call.outcome(),
                call.revision()
            );
            judgement.wrong("not-once", &[call.id], what);
        }
        // Clients name themselves by their numbers; a process that stays unknown goes on as another one.
        for revision in revisions {
            let actor = actors.get(revision).copied().unwrap_or_default();
            let client = format!("client-{}", call.invoke.value["client"]);
            if actor != client {
                let what = format!("revision {revision} is {actor}'s, and {client} demanded it");
                judgement.wrong("actor", &[call.id], what);
            }
        }
    }
    for entry in journal {
        if entry.actor.starts_with("client-") && !known.contains_key(&entry.command_id) {
            let what = format!(
                "revision {} is of command {}, which nobody sent",
                entry.revision, entry.command_id
            );
            judgement.wrong("phantom", &[], what);
        }
    }
    judgement.findings("changes audited").verdict("audit")
}
