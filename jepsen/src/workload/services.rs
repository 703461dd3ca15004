//! Instances of services come and go, and are looked for: by the API, in lists, and by the DNS of the node that was
//! asked. Every registration has an address of its own, so an answer tells which one it comes from.

use super::judging::{Judgement, events, op, refused};
use super::rounds::Rounds;
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::wgl;
use crate::checker::wgl::register::{Input, Output, Register};
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
use std::net::Ipv4Addr;
use uuid::Uuid;

/// See the module.
pub(super) struct Services;

/// How many instances a service has at the most.
pub(super) const INSTANCES: u64 = 3;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) service: u64,
    /// Which instance; a list has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<u64>,
    /// Where a registration says that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<Ipv4Addr>,
    /// The revision that a look at one node must see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at_least: Option<u64>,
}

impl Workload for Services {
    fn name(&self) -> &'static str {
        "services"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["register", "deregister", "get", "list", "resolve"]
    }

    fn final_reads(&self) -> &'static [&'static str] {
        &["/v1/services"]
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Catalog {
            rng: seat.rng(),
            rounds: Rounds::new(seat),
            client: seat.client,
            registered: 0,
            newest: 0,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(vec![linearizable(evidence.calls)?, resolved(evidence)?])
    }
}

struct Catalog {
    rng: ChaCha8Rng,
    rounds: Rounds,
    client: u64,
    registered: u64,
    /// The newest revision that it was told of.
    newest: u64,
}

impl Script for Catalog {
    fn next(&mut self) -> Demand {
        let service = self.rounds.next();
        let instance = Some(self.rng.random_range(0..INSTANCES));
        let mut asked = Asked {
            service,
            instance,
            address: None,
            at_least: None,
        };
        let f = match self.rng.random_range(0..100) {
            0..35 => "register",
            35..50 => "deregister",
            50..70 => "get",
            70..80 => "list",
            _ => "resolve",
        };
        match f {
            "register" => {
                self.registered += 1;
                // 10.CLIENT.N.N: nobody else registers it.
                let number = ((self.client & 0xff) << 16) | (self.registered & 0xffff);
                asked.address = u32::try_from(number)
                    .ok()
                    .map(|number| Ipv4Addr::from(0x0a00_0000 | number));
            }
            "list" => asked.instance = None,
            "resolve" => asked.at_least = Some(self.newest),
            _ => {}
        }
        match f {
            "register" | "deregister" => Demand::write(f, json!(asked)),
            _ => Demand::read(f, json!(asked)),
        }
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let asked: Asked = asked(demand);
            let list = format!("/v1/services/{}/instances", name(asked.service));
            let Some(instance) = asked.instance else {
                let request = client.get(&list, Level::Linearizable);
                return request.send().await.or_missing().map(listed);
            };
            let path = format!("{list}/i{instance}");
            match (demand.f, asked.address) {
                ("register", Some(address)) => {
                    let request = client.write(Method::PUT, &path, command);
                    let spec = json!({"address": address, "port": 80});
                    request.json(&spec).send().await.map(|_| Value::Null)
                }
                ("deregister", _) => {
                    let request = client.write(Method::DELETE, &path, command);
                    request.send().await.map(|_| Value::Null)
                }
                ("resolve", _) => {
                    let at_least = Level::AtLeast(asked.at_least.unwrap_or(0));
                    let answer = client.get(&path, at_least).send().await.or_missing();
                    if !answer.is_ok() {
                        return answer;
                    }
                    resolve(client, &asked, instance, answer.revision).await
                }
                _ => {
                    let answer = client.get(&path, Level::Linearizable).send().await;
                    answer.or_missing().map(address)
                }
            }
        })
    }

    fn learn(&mut self, _demand: &Demand, answer: &Answer) {
        self.newest = self.newest.max(answer.revision.unwrap_or(0));
    }
}

/// What the DNS of this node says, now that the node has the revision.
async fn resolve(client: &Client, asked: &Asked, instance: u64, revision: Option<u64>) -> Answer {
    let name = format!("i{instance}.{}.svc.onward.internal.", name(asked.service));
    match client.resolve(&name).await {
        Ok(addresses) => Answer::ok(json!(addresses), revision),
        Err(error) => Answer::none(format!("{error:#}"), false),
    }
}

pub(super) fn name(service: u64) -> String {
    format!("service-{service}")
}

fn address(instance: &Value) -> Value {
    instance["spec"]["address"].clone()
}

/// The instances of a list with their addresses.
fn listed(page: &Value) -> Value {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let each = items.iter().filter_map(|item| {
        let instance: u64 = item["instance"].as_str()?.strip_prefix('i')?.parse().ok()?;
        Some(json!([instance, address(item)]))
    });
    each.collect()
}

type Key = (u64, u64);
type Op = wgl::Op<Key, Input<Ipv4Addr>, Output<Ipv4Addr>>;

/// Each instance is a register that holds where it is.
fn linearizable(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut ops: Vec<Op> = Vec::new();
    for call in calls {
        let Asked {
            service,
            instance,
            address,
            ..
        } = call.demand()?;
        let done = (call.outcome() == Outcome::Ok).then_some(Output::Written);
        match (call.invoke.f.as_str(), instance) {
            ("register", Some(instance)) => {
                ops.push(op(call, (service, instance), Input::Write(address), done));
            }
            // That there was nothing to deregister is what it saw.
            ("deregister", Some(instance)) if refused(call, "catalog_not_found") => {
                ops.push(op(
                    call,
                    (service, instance),
                    Input::Read,
                    Some(Output::Read(None)),
                ));
            }
            ("deregister", Some(instance)) => {
                ops.push(op(call, (service, instance), Input::Write(None), done));
            }
            ("get", Some(instance)) => {
                let found: Option<Option<Ipv4Addr>> = call.answer()?;
                ops.push(op(
                    call,
                    (service, instance),
                    Input::Read,
                    found.map(Output::Read),
                ));
            }
            ("list", _) => {
                let Some(found) = call.answer::<Vec<(u64, Ipv4Addr)>>()? else {
                    continue;
                };
                let found: BTreeMap<u64, Ipv4Addr> = found.into_iter().collect();
                for instance in 0..INSTANCES {
                    let output = Output::Read(found.get(&instance).copied());
                    ops.push(op(call, (service, instance), Input::Read, Some(output)));
                }
            }
            _ => {}
        }
    }
    Ok(wgl::check(&Register::default(), &ops, wgl::BUDGET).verdict("linearizable"))
}

/// What DNS said is what the instance was at the revision that the node had by then, or has been since.
fn resolved(evidence: &Evidence<'_>) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut history: BTreeMap<(String, String), BTreeMap<u64, Option<Ipv4Addr>>> = BTreeMap::new();
    for happened in events(evidence.finals.journal(), "catalog") {
        let address = match happened.text("event") {
            "registered" => happened.event["spec"]["address"]
                .as_str()
                .and_then(|text| text.parse().ok()),
            "deregistered" => None,
            _ => continue,
        };
        let id = (
            happened.text("service").to_owned(),
            happened.text("instance").to_owned(),
        );
        history
            .entry(id)
            .or_default()
            .insert(happened.entry.revision, address);
    }
    for call in evidence.calls.iter().filter(|call| call.invoke.f == "resolve") {
        let asked: Asked = call.demand()?;
        let (Some(found), Some(revision), Some(instance)) =
            (call.answer::<Vec<Ipv4Addr>>()?, call.revision(), asked.instance)
        else {
            continue;
        };
        judgement.count();
        let id = (name(asked.service), format!("i{instance}"));
        let empty = BTreeMap::new();
        let states = history.get(&id).unwrap_or(&empty);
        let then = states
            .range(..=revision)
            .next_back()
            .and_then(|(_, state)| *state);
        let later = states.range(revision + 1..).map(|(_, state)| *state);
        let mut possible = std::iter::once(then).chain(later);
        let found = (found.len() <= 1).then(|| found.first().copied());
        if !found.is_some_and(|found| possible.any(|state| state == found)) {
            let what = format!(
                "call {} finds {found:?} by DNS after revision {revision}, and it was {then:?} then",
                call.id
            );
            judgement.wrong("stale-name", &[call.id], what);
        }
    }
    Ok(judgement.findings("names resolved").verdict("dns"))
}
