//! Machines are registered, claimed, let go, taken through the states of their life, and deleted, by many at once.
//! No address, slot or hardware address is ever two machines', and no machine two owners'.

use super::judging::{Judgement, events, op, span};
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
use std::collections::{BTreeMap, VecDeque};
use uuid::Uuid;

/// See the module.
pub(super) struct Machines;

/// How many machines clients meet on at a time.
const MACHINES: u64 = 4;
/// How many racks they are put into: few, so that slots are fought for.
const RACKS: u64 = 2;
/// The states that a machine may be taken to, from each.
pub(super) const TRANSITIONS: &[(&str, &[&str])] = &[
    ("uninitialized", &["healthy", "retiring"]),
    ("healthy", &["unhealthy", "unreachable", "updating", "retiring"]),
    ("unhealthy", &["healthy", "unreachable", "updating", "retiring"]),
    ("unreachable", &["healthy", "unhealthy", "updating", "retiring"]),
    ("updating", &["uninitialized"]),
    ("retiring", &["retired"]),
    ("retired", &["uninitialized"]),
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) serial: String,
    /// Where a registration wants to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rack: Option<u64>,
    /// Who claims or lets go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<u64>,
    /// Which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
}

impl Workload for Machines {
    fn name(&self) -> &'static str {
        "machines"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["register", "claim", "release", "state", "delete", "read"]
    }

    fn operations_per_second(&self) -> f64 {
        120.0
    }

    fn final_reads(&self) -> &'static [&'static str] {
        &["/v1/machines"]
    }

    fn setup<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let pool = |cidr| json!({"cidr": cidr, "range_bits": 6, "mask_bits": 26, "gateway_offset": 1});
            let plan = json!({
                "index_offset": 3, "machines_per_rack_max": 40, "addresses_per_machine": 1,
                "machines": pool("10.72.0.0/20"), "bmcs": pool("10.72.16.0/20"),
            });
            let request = client.write(Method::PUT, "/v1/address-plan", Uuid::now_v7());
            let answer = request.json(&plan).send().await;
            anyhow::ensure!(
                answer.is_ok(),
                "no address plan: {}",
                answer.error.unwrap_or_default()
            );
            Ok(())
        })
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Inventory {
            rng: seat.rng(),
            rounds: Rounds::new(seat),
            client: seat.client,
            left: VecDeque::new(),
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(vec![
            unique(evidence),
            addresses_in_time(evidence.calls)?,
            owners(evidence.calls)?,
        ])
    }
}

struct Inventory {
    rng: ChaCha8Rng,
    rounds: Rounds,
    client: u64,
    /// What it registered and nobody was seen to delete, oldest first: it clears up, or the racks were full one day.
    left: VecDeque<String>,
}

impl Script for Inventory {
    fn next(&mut self) -> Demand {
        let serial = format!("m-{}-{}", self.rounds.next(), self.rng.random_range(0..MACHINES));
        let mut asked = Asked {
            serial,
            rack: None,
            owner: None,
            state: None,
        };
        let f = match self.rng.random_range(0..100) {
            0..25 => "register",
            25..45 => "claim",
            45..55 => "release",
            55..75 => "state",
            75..88 => "delete",
            _ => "read",
        };
        match f {
            "register" => asked.rack = Some(self.rng.random_range(0..RACKS)),
            "claim" | "release" => asked.owner = Some(self.client),
            "state" => {
                let (state, _) = TRANSITIONS[self.rng.random_range(0..TRANSITIONS.len())];
                asked.state = Some(state.to_owned());
            }
            "delete" => {
                let oldest = self.left.front().filter(|_| self.rng.random_bool(0.5));
                asked.serial = oldest.cloned().unwrap_or(asked.serial);
            }
            _ => {}
        }
        Demand::of(f, json!(asked), f != "read")
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let asked: Asked = asked(demand);
            let path = format!("/v1/machines/{}", asked.serial);
            match demand.f {
                "read" => {
                    let answer = client.get(&path, Level::Linearizable).send().await;
                    answer.or_missing().map(|machine| {
                        json!({
                            "owner": machine["labels"]["owner"], "state": machine["state"],
                            "addresses": machine["addresses"], "created": machine["created"],
                        })
                    })
                }
                "register" => {
                    let machine = json!({"serial": asked.serial, "rack": asked.rack, "role": "worker"});
                    let request = client.write(Method::POST, "/v1/machines", command);
                    let answer = request.json(&json!({"machines": [machine]})).send().await;
                    answer.map(|body| body["placements"][0].clone())
                }
                "state" => {
                    let request = client.write(Method::POST, &format!("{path}/state"), command);
                    let request = request.json(&json!({"state": asked.state, "reason": "test"}));
                    request.send().await.map(|_| Value::Null)
                }
                "delete" => retire_and_delete(client, &path, command).await,
                _ => claim_or_release(client, &path, demand.f, &asked, command).await,
            }
        })
    }

    fn learn(&mut self, demand: &Demand, answer: &Answer) {
        let serial = asked::<Asked>(demand).serial;
        match (demand.f, answer.outcome) {
            ("register", Outcome::Ok | Outcome::Info) => self.left.push_back(serial),
            ("delete", Outcome::Ok) => self.left.retain(|left| *left != serial),
            ("delete", Outcome::Fail) if answer.error.as_deref() == Some("not_found") => {
                self.left.retain(|left| *left != serial);
            }
            _ => {}
        }
    }
}

fn failed(answer: Answer, why: &str) -> Answer {
    Answer {
        outcome: Outcome::Fail,
        error: Some(answer.error.unwrap_or_else(|| why.to_owned())),
        body: Value::Null,
        ..answer
    }
}

/// Sets or removes the owner, on the condition that the machine is as it was when it was looked at.
async fn claim_or_release(client: &Client, path: &str, f: &str, asked: &Asked, command: Uuid) -> Answer {
    let seen = client.get(path, Level::Linearizable).send().await;
    let me = format!("client-{}", asked.owner.unwrap_or_default());
    let owner = seen.body["labels"]["owner"].as_str();
    let (fits, change) = match f {
        "claim" => (owner.is_none(), json!({"set": {"owner": me}})),
        _ => (owner == Some(me.as_str()), json!({"remove": ["owner"]})),
    };
    let (true, Some(modified)) = (seen.is_ok() && fits, seen.body["modified"].as_u64()) else {
        return failed(seen, "owned otherwise");
    };
    let request = client.write(Method::POST, &format!("{path}/labels"), command);
    let answer = request.json(&change).if_match(modified).send().await;
    answer.map(|_| Value::Null)
}

/// Deletes a machine that is retired already; takes any other a step towards that, which is no deletion.
async fn retire_and_delete(client: &Client, path: &str, command: Uuid) -> Answer {
    let seen = client.get(path, Level::Linearizable).send().await;
    let (true, Some(modified)) = (seen.is_ok(), seen.body["modified"].as_u64()) else {
        return failed(seen, "not there");
    };
    let step = match seen.body["state"].as_str() {
        Some("retired") => {
            let request = client.write(Method::DELETE, path, command);
            return request.if_match(modified).send().await.map(|_| Value::Null);
        }
        Some("retiring") => "retired",
        Some("updating") => "uninitialized",
        _ => "retiring",
    };
    // Under a command id of its own: what the history names is the deletion.
    let request = client.write(Method::POST, &format!("{path}/state"), Uuid::now_v7());
    let request = request.json(&json!({"state": step, "reason": "to be deleted"}));
    failed(request.if_match(modified).send().await, "not retired yet")
}

/// In the journal and on every node in the end: no address and no slot is two machines' at a time, and states follow
/// each other as they may.
fn unique(evidence: &Evidence<'_>) -> Verdict {
    let mut judgement = Judgement::new();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for happened in events(evidence.finals.journal(), "machines") {
        judgement.count();
        let (serial, revision) = (happened.text("serial"), happened.entry.revision);
        match happened.text("event") {
            "registered" => {
                for place in places(happened.event) {
                    if let Some(other) = taken.insert(place.clone(), serial.to_owned()) {
                        let what =
                            format!("revision {revision}: {place} is given to {serial}, and is {other}'s");
                        judgement.wrong("double", &[], what);
                    }
                }
            }
            "deleted" => taken.retain(|_, owner| owner != serial),
            "state_changed" => {
                let (from, to) = (happened.text("from"), happened.text("to"));
                let legal = TRANSITIONS
                    .iter()
                    .any(|(state, next)| *state == from && next.contains(&to));
                if !legal {
                    let what = format!("revision {revision}: {serial} goes from {from} to {to}");
                    judgement.wrong("transition", &[], what);
                }
            }
            _ => {}
        }
    }
    for node in &evidence.finals.nodes {
        let mut taken: BTreeMap<String, &Value> = BTreeMap::new();
        for machine in node.reads.get("/v1/machines").map_or(&[][..], Vec::as_slice) {
            for place in places(machine) {
                if let Some(other) = taken.insert(place.clone(), &machine["serial"]) {
                    let what = format!(
                        "node {}: {place} is {other}'s and {}'s",
                        node.id, machine["serial"]
                    );
                    judgement.wrong("double", &[], what);
                }
            }
        }
    }
    judgement.findings("events of machines").verdict("machines")
}

/// What no two machines may have: addresses, and the slot.
fn places(machine: &Value) -> Vec<String> {
    let addresses = machine["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let addresses = addresses.iter().map(|address| match &address["address"] {
        Value::Null => address.to_string(),
        inner => inner.to_string(),
    });
    let slot = format!("slot {} of rack {}", machine["index"], machine["rack"]);
    addresses.chain([slot]).collect()
}

/// As clients were told: from when a registration was acknowledged until its deletion was asked for, what it was given
/// is given to nobody else. The journal is not asked.
fn addresses_in_time(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut deletions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut held: BTreeMap<String, Vec<(u64, &Call, String)>> = BTreeMap::new();
    for call in calls {
        let Asked { serial, .. } = call.demand()?;
        match (call.invoke.f.as_str(), call.outcome()) {
            ("delete", Outcome::Ok | Outcome::Info) => {
                deletions.entry(serial).or_default().push(call.invoke.time_ns);
            }
            ("register", Outcome::Ok) => {
                judgement.count();
                for place in places(&call.answer::<Value>()?.unwrap_or_default()) {
                    let since = span(call).1;
                    held.entry(place).or_default().push((since, call, serial.clone()));
                }
            }
            _ => {}
        }
    }
    for (place, mut holders) in held {
        holders.sort_by_key(|(since, ..)| *since);
        for pair in holders.windows(2) {
            let ((since, one, serial), (_, other, _)) = (&pair[0], &pair[1]);
            // It was let go of by a deletion that began after the registration did and before the next one ended.
            let (began, until) = (one.invoke.time_ns, pair[1].0);
            let let_go = deletions
                .get(serial)
                .is_some_and(|times| times.iter().any(|at| (began..until).contains(at)));
            if !let_go && since < &until {
                let what = format!(
                    "{place} is given by call {} and again by call {}",
                    one.id, other.id
                );
                judgement.wrong("double", &[one.id, other.id], what);
            }
        }
    }
    Ok(judgement.findings("registrations").verdict("placements"))
}

type Op = wgl::Op<String, Input<u64>, Output<u64>>;

/// The owner of each machine is a register that is none's where there is no machine.
fn owners(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut ops: Vec<Op> = Vec::new();
    for call in calls {
        let Asked { serial, owner, .. } = call.demand()?;
        let ok = call.outcome() == Outcome::Ok;
        let (input, output) = match call.invoke.f.as_str() {
            "claim" => (
                Input::CompareAndSet {
                    from: None,
                    to: owner,
                },
                ok.then_some(Output::Compared(true)),
            ),
            "release" => (
                Input::CompareAndSet {
                    from: owner,
                    to: None,
                },
                ok.then_some(Output::Compared(true)),
            ),
            "delete" => (Input::Write(None), ok.then_some(Output::Written)),
            // Nobody owns a machine that is just registered, and nobody the one that was not there before.
            "register" if ok => (Input::Read, Some(Output::Read(None))),
            "read" if ok => {
                let body: Value = call.answer()?.unwrap_or_default();
                let owner = body["owner"]
                    .as_str()
                    .and_then(|name| name.strip_prefix("client-"));
                (
                    Input::Read,
                    Some(Output::Read(owner.and_then(|number| number.parse().ok()))),
                )
            }
            _ => continue,
        };
        ops.push(op(call, serial, input, output));
    }
    Ok(wgl::check(&Register::default(), &ops, wgl::BUDGET).verdict("owners"))
}
