//! One demand, sent several times: to several nodes, at once and one after another, across whatever happens to the
//! leader meanwhile. It is done once, and answered alike.

use super::judging::Judgement;
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::idempotency::{self as checker, Attempt};
use crate::client::{Answer, Client};
use crate::final_state::PAIRS;
use crate::history::Outcome;
use crate::verdict::Verdict;
use futures::future::{BoxFuture, join_all};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// See the module.
pub(super) struct Idempotency;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    /// How often it is sent at once, each time to another node.
    at_once: usize,
    /// How often it is sent again after that.
    again: usize,
    /// How long to wait in between, in ms.
    pause_ms: u64,
    /// Of a count: the key whose version counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<u64>,
}

/// One time that it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// To whom.
    pub(super) node: u64,
    /// What that means.
    pub(super) outcome: Outcome,
    /// At which revision.
    pub(super) revision: Option<u64>,
    /// What was answered: the same each time.
    pub(super) said: String,
}

impl Workload for Idempotency {
    fn name(&self) -> &'static str {
        "idempotency"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["allocate", "count", "refuse"]
    }

    fn operations_per_second(&self) -> f64 {
        60.0
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Repeating {
            rng: seat.rng(),
            client: seat.client,
            counted: 0,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        let mut attempts = Vec::new();
        for call in evidence.calls {
            let (Some(command), Some(sent)) = (call.invoke.command, call.answer::<Vec<Sent>>()?) else {
                continue;
            };
            attempts.extend(sent.into_iter().map(|sent| Attempt {
                call: call.id,
                command,
                outcome: sent.outcome,
                revision: sent.revision,
                said: sent.said,
                changes: call.invoke.f != "refuse",
            }));
        }
        let journal = evidence.finals.journal().iter();
        let commands: Vec<Uuid> = journal.map(|entry| entry.command_id).collect();
        Ok(vec![
            checker::check(&attempts, &commands).verdict("idempotency"),
            counted_once(evidence)?,
        ])
    }
}

struct Repeating {
    rng: ChaCha8Rng,
    client: u64,
    counted: u64,
}

impl Script for Repeating {
    fn next(&mut self) -> Demand {
        let f = ["allocate", "count", "refuse"][self.rng.random_range(0..3)];
        let key = (f != "allocate").then(|| {
            self.counted += 1;
            self.client * 1_000_000 + self.counted
        });
        let asked = Asked {
            at_once: self.rng.random_range(1..=2),
            again: self.rng.random_range(1..=2),
            pause_ms: self.rng.random_range(0..300),
            key,
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
            let asked: Asked = asked(demand);
            let home = client.node().id;
            let mut requests = Vec::new();
            for _ in 0..asked.at_once {
                requests.push(send(client, demand.f, &asked, command));
                client.move_on();
            }
            let mut answers = join_all(requests).await;
            for _ in 0..asked.again {
                tokio::time::sleep(Duration::from_millis(asked.pause_ms)).await;
                answers.push(send(client, demand.f, &asked, command).await);
                client.move_on();
            }
            if let Some(place) = client.nodes().iter().position(|node| node.id == home) {
                client.move_to(place);
            }
            together(answers)
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}

/// Sends the demand once. The request is made before the client goes to another node.
fn send(
    client: &Client,
    f: &str,
    asked: &Asked,
    command: Uuid,
) -> impl Future<Output = (u64, Answer)> + use<> {
    let node = client.node().id;
    let request = match (f, asked.key) {
        ("count", Some(key)) => client
            .write(Method::PUT, &format!("/v1/kv/count/{key}"), command)
            .json(&json!({"value": key.to_string()})),
        // Its key was never put, so this is refused, each time as the first time.
        ("refuse", Some(key)) => client
            .write(Method::PUT, &format!("/v1/kv/refused/{key}"), command)
            .json(&json!({"value": key.to_string()}))
            .if_match(1),
        _ => client
            .write(Method::POST, "/v1/objects/oids", command)
            .json(&json!({"count": 1})),
    };
    async move { (node, request.send().await) }
}

/// What all of them come to. A refusal of the log is an outcome like any other: here, that the demand was decided.
fn together(answers: Vec<(u64, Answer)>) -> Answer {
    let mut sent = Vec::new();
    let mut whole = Answer::none("nobody knows", true);
    let failed = answers.iter().all(|(_, answer)| answer.outcome == Outcome::Fail);
    for (node, answer) in answers {
        let refused = answer.is("kv_revision_mismatch");
        let outcome = if refused { Outcome::Ok } else { answer.outcome };
        let said = match &answer.error {
            Some(error) => error.clone(),
            None => answer.body["first"].as_str().unwrap_or("done").to_owned(),
        };
        if outcome == Outcome::Ok {
            whole = Answer::ok(Value::Null, answer.revision);
        }
        sent.push(Sent {
            node,
            outcome,
            revision: answer.revision,
            said,
        });
    }
    if whole.outcome != Outcome::Ok && failed {
        whole.outcome = Outcome::Fail;
        whole.error = sent.first().map(|sent| sent.said.clone());
    }
    whole.body = json!(sent);
    whole
}

/// Keys that were put by one demand each were put once: their version says so on every node.
fn counted_once(evidence: &Evidence<'_>) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    for node in &evidence.finals.nodes {
        for pair in node.reads.get(PAIRS).map_or(&[][..], Vec::as_slice) {
            let key = pair["key"].as_str().unwrap_or_default();
            if !key.starts_with("count/") {
                continue;
            }
            judgement.count();
            if pair["version"] != 1 {
                let what = format!("node {}: `{key}` was put {} times", node.id, pair["version"]);
                judgement.wrong("done-twice", &[], what);
            }
        }
    }
    Ok(judgement
        .findings("keys put once on all nodes")
        .verdict("versions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(answers: &[Answer]) -> Outcome {
        together(answers.iter().map(|answer| (1, answer.clone())).collect()).outcome
    }

    #[test]
    fn one_answer_settles_it_and_silence_does_not() {
        let ok = Answer::ok(json!({"first": "01"}), Some(3));
        let unknown = Answer::none("reset", true);
        let refused = Answer {
            outcome: Outcome::Fail,
            ..Answer::none("no_leader", true)
        };
        assert_eq!(outcome(&[unknown.clone(), ok]), Outcome::Ok);
        assert_eq!(outcome(&[unknown, refused.clone()]), Outcome::Info);
        assert_eq!(outcome(&[refused.clone(), refused]), Outcome::Fail);
    }
}
