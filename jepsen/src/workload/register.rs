//! Single keys: read, written, and compared and set on the revision of their last change.
//!
//! Every value is written once, so it tells which write it comes from. Reads are asked for at all levels; those that
//! promise less than linearizability are judged by what they promise. What was read at a revision is read again as of
//! that revision, later and elsewhere, and must be the same.

use super::judging::{Judgement, op, refused};
use super::rounds::Rounds;
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::wgl;
use crate::checker::wgl::register::{Input, Output};
use crate::client::{Answer, Client, Level};
use crate::final_state::Finals;
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use anyhow::Context;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// See the module.
pub(super) struct Register;

/// What a demand says; which fields are there depends on its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    key: String,
    /// Of a write or a compare-and-set: what to put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put: Option<u64>,
    /// Of a compare-and-set: what is there, as far as the client knows, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<Seen>,
    /// Of a read: the least revision that it must see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_least: Option<u64>,
    /// Of a read of the past: as of which revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
}

/// A value, and the revision of the write that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    value: Option<u64>,
    modified: u64,
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["read", "read-at-least", "read-local", "read-past", "write", "cas"]
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Registers {
            rng: seat.rng(),
            rounds: Rounds::new(seat),
            client: seat.client,
            written: 0,
            known: BTreeMap::new(),
            newest: 0,
            were: Vec::new(),
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        let ops = evidence.calls.iter().map(linearizable);
        let ops: Vec<_> = ops
            .collect::<anyhow::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        let linearizable = wgl::check(&wgl::register::Register::default(), &ops, wgl::BUDGET);
        Ok(vec![
            linearizable.verdict("linearizable"),
            weak_reads(evidence.calls)?,
            past_reads(evidence)?,
            values_and_revisions(evidence.calls)?,
        ])
    }
}

struct Registers {
    rng: ChaCha8Rng,
    rounds: Rounds,
    client: u64,
    written: u64,
    /// What this client last saw of each key.
    known: BTreeMap<String, Seen>,
    /// The newest revision that it was told of.
    newest: u64,
    /// Keys and revisions at which it read or wrote them.
    were: Vec<(String, u64)>,
}

impl Registers {
    /// A value that nobody else writes.
    fn fresh(&mut self) -> u64 {
        self.written += 1;
        self.client * 1_000_000 + self.written
    }
}

fn level(demand: &Demand, asked: &Asked) -> Level {
    match (demand.f, asked.at_least) {
        ("read-local", _) => Level::Local,
        (_, Some(revision)) => Level::AtLeast(revision),
        _ => Level::Linearizable,
    }
}

/// What the answer to a read holds.
fn seen(pair: &Value) -> Value {
    let value = pair["value"].as_str().and_then(|text| text.parse().ok());
    let modified = pair["modified"].as_u64().unwrap_or(0);
    json!(Seen { value, modified })
}

impl Script for Registers {
    fn next(&mut self) -> Demand {
        let key = format!("register/{}", self.rounds.next());
        let mut asked = Asked {
            key,
            put: None,
            expect: None,
            at_least: None,
            at: None,
        };
        let f = match self.rng.random_range(0..100) {
            0..2 if !self.were.is_empty() => "read-past",
            0..30 => "read",
            30..40 => "read-at-least",
            40..50 => "read-local",
            50..75 => "write",
            _ => "cas",
        };
        match f {
            "read-at-least" => asked.at_least = Some(self.newest),
            "read-past" => {
                let (key, at) = self.were[self.rng.random_range(0..self.were.len())].clone();
                (asked.key, asked.at) = (key, Some(at));
            }
            "write" => asked.put = Some(self.fresh()),
            "cas" => {
                asked.put = Some(self.fresh());
                let known = self.known.get(&asked.key).copied();
                asked.expect = Some(known.unwrap_or(Seen {
                    value: None,
                    modified: 0,
                }));
            }
            _ => {}
        }
        let value = json!(asked);
        Demand::of(f, value, asked.put.is_some())
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let asked: Asked = asked(demand);
            let path = format!("/v1/kv/{}", asked.key);
            let Some(put) = asked.put else {
                let mut request = client.get(&path, level(demand, &asked));
                if let Some(at) = asked.at {
                    request = request.query("at", &at);
                }
                let answer = request.send().await.or_missing().map(seen);
                if asked.at.is_some() {
                    // Each node puts the past together by itself.
                    client.move_on();
                }
                return answer;
            };
            let mut request = client
                .write(Method::PUT, &path, command)
                .json(&json!({"value": put.to_string()}));
            if let Some(expect) = asked.expect {
                request = request.if_match(expect.modified);
            }
            request.send().await.map(|_| Value::Null)
        })
    }

    fn learn(&mut self, demand: &Demand, answer: &Answer) {
        self.newest = self.newest.max(answer.revision.unwrap_or(0));
        let asked: Asked = asked(demand);
        let seen = match (answer.outcome, asked.put, answer.revision) {
            (Outcome::Ok, Some(value), Some(modified)) => Some(Seen {
                value: Some(value),
                modified,
            }),
            (Outcome::Ok, None, _) => serde_json::from_value(answer.body.clone()).ok(),
            _ => None,
        };
        if let (Some(revision), Outcome::Ok, None) = (answer.revision, answer.outcome, asked.at) {
            self.were.push((asked.key.clone(), revision));
        }
        if asked.at.is_some() {
            return;
        }
        if let Some(seen) = seen
            && self
                .known
                .get(&asked.key)
                .is_none_or(|known| known.modified < seen.modified)
        {
            self.known.insert(asked.key, seen);
        }
    }
}

type Op = wgl::Op<String, Input<u64>, Output<u64>>;

/// A call as the checker takes it; reads that promise less have no part in it.
fn linearizable(call: &Call) -> anyhow::Result<Option<Op>> {
    let Asked { key, put, expect, .. } = call.demand()?;
    Ok(match (call.invoke.f.as_str(), put, expect) {
        ("read", ..) => {
            let seen: Option<Seen> = call.answer()?;
            Some(op(
                call,
                key,
                Input::Read,
                seen.map(|seen| Output::Read(seen.value)),
            ))
        }
        ("cas", Some(put), Some(expect)) => {
            // Values are written once and keys never deleted, so what the revision is compared with tells the value.
            let input = Input::CompareAndSet {
                from: expect.value,
                to: Some(put),
            };
            let output = match call.outcome() {
                Outcome::Ok => Some(Output::Compared(true)),
                _ if refused(call, "kv_revision_mismatch") => Some(Output::Compared(false)),
                _ => None,
            };
            Some(op(call, key, input, output))
        }
        ("write", Some(put), _) => {
            let output = (call.outcome() == Outcome::Ok).then_some(Output::Written);
            Some(op(call, key, Input::Write(Some(put)), output))
        }
        _ => None,
    })
}

/// Reads that ask for a revision see it.
fn weak_reads(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    for call in calls {
        let asked: Asked = call.demand()?;
        let (Some(at_least), Outcome::Ok) = (asked.at_least, call.outcome()) else {
            continue;
        };
        judgement.count();
        let revision = call.revision().context("a read without a revision")?;
        if revision < at_least {
            let what = format!(
                "call {} asked for revision {at_least} and saw {revision}",
                call.id
            );
            judgement.wrong("stale", &[call.id], what);
        }
    }
    Ok(judgement
        .findings("reads of a least revision")
        .verdict("at-least"))
}

/// What is read as of a revision is what was read or written then, by anyone; and what the journal says was there.
fn past_reads(evidence: &Evidence<'_>) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut were: BTreeMap<(String, u64), (u64, Seen)> = BTreeMap::new();
    for call in evidence.calls.iter().filter(|call| call.outcome() == Outcome::Ok) {
        let asked: Asked = call.demand()?;
        let revision = call.revision().context("an answer without a revision")?;
        let seen = match asked.put {
            Some(value) => Some(Seen {
                value: Some(value),
                modified: revision,
            }),
            None if asked.at.is_none() => call.answer()?,
            None => None,
        };
        if let Some(seen) = seen {
            were.insert((asked.key, revision), (call.id, seen));
        }
    }
    let journal = written(evidence.finals);
    for call in evidence.calls.iter() {
        let asked: Asked = call.demand()?;
        let Some(at) = asked.at else { continue };
        let Some(Seen { value, modified }) = call.answer()? else {
            continue;
        };
        judgement.count();
        if let Some((then, was)) = were.get(&(asked.key.clone(), at))
            && was.value != value
        {
            let what = format!(
                "call {} reads {value:?} of {} as of revision {at}, and call {then} had {:?} there",
                call.id, asked.key, was.value
            );
            judgement.wrong("otherwise", &[*then, call.id], what);
        }
        let changes = journal.get(&asked.key).into_iter().flatten();
        let last = changes.take_while(|(revision, _)| *revision <= at).last();
        let told = last.copied().unwrap_or((0, None));
        if evidence.finals.journal_begins() == 0 && told != (modified, value) {
            let what = format!(
                "call {} reads {value:?} of {} as of revision {at}, and the journal has {:?} of revision {}",
                call.id, asked.key, told.1, told.0
            );
            judgement.wrong("journal", &[call.id], what);
        }
    }
    Ok(judgement
        .findings("reads as of earlier revisions")
        .verdict("past"))
}

/// What the journal says of each key: its values with their revisions, in order.
fn written(finals: &Finals) -> BTreeMap<String, Vec<(u64, Option<u64>)>> {
    let mut written: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in finals.journal() {
        for event in entry.events.iter().filter(|event| event["area"] == "kv") {
            let value = event["value"].as_str().and_then(|text| text.parse().ok());
            let key = event["key"].as_str().unwrap_or_default().to_owned();
            written.entry(key).or_default().push((entry.revision, value));
        }
    }
    written
}

/// Each value was written at one revision, whoever says so; no value is read that was never written; no revision of a
/// key is newer than the state that it was read in.
fn values_and_revisions(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut written: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    for call in calls {
        let asked: Asked = call.demand()?;
        if let Some(value) = asked.put {
            let revision = match call.outcome() {
                Outcome::Ok => call.revision(),
                Outcome::Info => None,
                Outcome::Fail => continue,
            };
            written.insert(value, (call.id, revision));
        }
    }
    for call in calls.iter().filter(|call| call.invoke.command.is_none()) {
        let Some(Seen { value, modified }) = call.answer()? else {
            continue;
        };
        judgement.count();
        if call.revision().is_some_and(|revision| revision < modified) {
            let what = format!(
                "call {} reads a change of revision {modified} before there is one",
                call.id
            );
            judgement.wrong("future", &[call.id], what);
        }
        let Some(value) = value else { continue };
        match written.get_mut(&value) {
            None => {
                let what = format!("call {} reads {value}, which was never written", call.id);
                judgement.wrong("phantom", &[call.id], what);
            }
            Some((write, Some(revision))) if *revision != modified => {
                let what = format!(
                    "call {} reads {value} as of revision {modified}, and call {write} has it at {revision}",
                    call.id
                );
                judgement.wrong("revision", &[*write, call.id], what);
            }
            // The first read of a write that nobody heard of settles where it is.
            Some((_, revision)) => *revision = Some(modified),
        }
    }
    Ok(judgement.findings("reads at all levels").verdict("revisions"))
}
