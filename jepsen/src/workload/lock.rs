//! Locks out of service instances with a TTL: registered where there is none, renewed while held, deregistered when
//! given back, and gone when their holder fell silent. The revision of the registration is the fencing token: every
//! guarded write goes in one batch with a renewal on the condition that the token still stands.

use super::judging::{Judgement, events};
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::lease::{self, Expiry, Grant, Renewal};
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
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// See the module.
pub(super) struct Lock;

/// How many locks there are.
const LOCKS: u64 = 4;
/// How long a holder may be silent: the shortest that there is.
pub(super) const TTL_MS: u64 = 1000;
/// How long after that the lock is free.
pub(super) const DEREGISTER_AFTER_MS: u64 = 1000;
/// How long the first lease may take to run out.
const SETUP_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) lock: u64,
    /// Who holds it, or wants to.
    pub(super) holder: u64,
    /// The token that it is held by; 0 where it is not held yet.
    pub(super) token: u64,
}

impl Workload for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["acquire", "renew", "write", "release", "read"]
    }

    fn operations_per_second(&self) -> f64 {
        120.0
    }

    /// One lease runs out before the faults begin: under them, each new leader may give all of them their time again.
    fn setup<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let path = format!("/v1/services/{}/instances/holder", name(LOCKS));
            let request = client.write(Method::PUT, &path, Uuid::now_v7());
            let held = request.json(&spec(0)).send().await;
            anyhow::ensure!(held.is_ok(), "no lease: {}", held.error.unwrap_or_default());
            let deadline = Instant::now() + SETUP_PATIENCE;
            while !client
                .get(&path, Level::Linearizable)
                .send()
                .await
                .is("not_found")
            {
                anyhow::ensure!(Instant::now() < deadline, "a lease does not run out");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Holding {
            rng: seat.rng(),
            client: seat.client,
            held: BTreeMap::new(),
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(vec![
            tokens(evidence.calls)?,
            ttl(evidence)?,
            log_time(evidence),
            guarded_writes(evidence.calls)?,
        ])
    }
}

struct Holding {
    rng: ChaCha8Rng,
    client: u64,
    /// The tokens of the locks that it holds, as far as it knows.
    held: BTreeMap<u64, u64>,
}

impl Script for Holding {
    fn next(&mut self) -> Demand {
        let lock = self.rng.random_range(0..LOCKS);
        let odds = self.rng.random_range(0..100);
        let token = self.held.get(&lock).copied().unwrap_or(0);
        let f = match (token, odds) {
            (_, 0..10) => "read",
            (0, _) => "acquire",
            (_, 10..50) => "renew",
            (_, 50..90) => "write",
            _ => "release",
        };
        let value = json!(Asked {
            lock,
            holder: self.client,
            token,
        });
        Demand::of(f, value, f != "read")
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let asked: Asked = asked(demand);
            let path = format!("/v1/services/{}/instances/holder", name(asked.lock));
            let answer = match demand.f {
                "read" => {
                    let request = client.get(&path, Level::Linearizable);
                    return request.send().await.or_missing().map(held);
                }
                "write" => {
                    let request = client.write(Method::POST, "/v1/batch", command);
                    request.json(&guarded(&asked, command)).send().await
                }
                "release" => {
                    let request = client.write(Method::DELETE, &path, command);
                    request.if_match(asked.token).send().await
                }
                // Registered as it is already, it renews; where it is not registered, the condition is that it is not.
                _ => {
                    let request = client.write(Method::PUT, &path, command);
                    request
                        .json(&spec(asked.holder))
                        .if_match(asked.token)
                        .send()
                        .await
                }
            };
            answer.map(|_| Value::Null)
        })
    }

    fn learn(&mut self, demand: &Demand, answer: &Answer) {
        let Asked { lock, .. } = asked(demand);
        match (demand.f, answer.outcome, answer.revision) {
            ("acquire", Outcome::Ok, Some(token)) => {
                self.held.insert(lock, token);
            }
            ("release", Outcome::Ok | Outcome::Info, _) => {
                self.held.remove(&lock);
            }
            // Somebody else holds it by now, or nobody.
            ("renew" | "write" | "release", Outcome::Fail, Some(_)) => {
                self.held.remove(&lock);
            }
            _ => {}
        }
    }
}

pub(super) fn name(lock: u64) -> String {
    format!("lock-{lock}")
}

fn spec(holder: u64) -> Value {
    json!({
        "address": "127.0.0.1",
        "port": 1,
        "metadata": {"holder": holder.to_string()},
        "ttl_ms": TTL_MS,
        "deregister_after_ms": DEREGISTER_AFTER_MS,
    })
}

/// A write that only the holder of the token does.
fn guarded(asked: &Asked, command: Uuid) -> Value {
    let renewal = json!({
        "service": name(asked.lock), "instance": "holder", "spec": spec(asked.holder),
        "expect_revision": asked.token,
    });
    let value = format!("{} {command}", asked.token);
    json!({"commands": [
        {"service_register": {"registrations": [renewal]}},
        {"kv_put": {"key": format!("guarded/{}", asked.lock), "value": value}},
    ]})
}

/// Who holds the lock by which token, and whether in good health; null where nobody does.
fn held(instance: &Value) -> Value {
    match instance["created"].as_u64() {
        Some(token) => {
            json!({"token": token, "holder": instance["spec"]["metadata"]["holder"], "health": instance["health"]})
        }
        None => Value::Null,
    }
}

/// Tokens rise, in the order of real time.
fn tokens(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut grants = Vec::new();
    for call in calls.iter().filter(|call| call.invoke.f == "acquire") {
        let asked: Asked = call.demand()?;
        if let (Outcome::Ok, Some(token), Some(completed_ns)) =
            (call.outcome(), call.revision(), call.ended_ns())
        {
            grants.push(Grant {
                call: call.id,
                lock: name(asked.lock),
                holder: asked.holder,
                token,
                invoked_ns: call.invoke.time_ns,
                completed_ns,
            });
        }
    }
    Ok(lease::fencing(&grants, &[]).verdict("tokens"))
}

/// Real time that a lock lasts after its last renewal.
const LASTS_NS: u64 = (TTL_MS + DEREGISTER_AFTER_MS) * 1_000_000;
/// How far log time, which is whole milliseconds, may be from the harness's.
const SLACK_NS: u64 = 50_000_000;

/// A lock that somebody else got, and its holder had not given back, was not over before its time. Where clocks were
/// tampered with, real time says nothing: then [`log_time`] has to do.
fn ttl(evidence: &Evidence<'_>) -> anyhow::Result<Verdict> {
    let (mut renewals, mut expiries) = (Vec::new(), Vec::new());
    // The present grant of each lock, in the order of the log; none that was given back.
    let mut acquired: Vec<(u64, &Call)> = Vec::new();
    for call in evidence.calls.iter().filter(|call| call.invoke.command.is_some()) {
        if let (Outcome::Ok, Some(revision)) = (call.outcome(), call.revision()) {
            acquired.push((revision, call));
        }
    }
    acquired.sort_by_key(|(revision, _)| *revision);
    let returned: BTreeMap<(u64, u64), ()> = evidence
        .calls
        .iter()
        .filter(|call| call.invoke.f == "release" && call.outcome() != Outcome::Fail)
        .map(|call| {
            call.demand::<Asked>()
                .map(|asked| ((asked.lock, asked.token), ()))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut present: BTreeMap<u64, u64> = BTreeMap::new();
    for (revision, call) in acquired {
        let Asked { lock, token, .. } = call.demand()?;
        let grant = |token: u64| format!("{} by token {token}", name(lock));
        match call.invoke.f.as_str() {
            "acquire" => {
                let before = present.insert(lock, revision);
                let told_ns = call.ended_ns().unwrap_or(u64::MAX);
                if let Some(before) = before.filter(|before| !returned.contains_key(&(lock, *before))) {
                    expiries.push(Expiry {
                        call: call.id,
                        lease: grant(before),
                        told_ns,
                    });
                }
                renewals.push(Renewal {
                    call: call.id,
                    lease: grant(revision),
                    invoked_ns: call.invoke.time_ns,
                });
            }
            "renew" | "write" => renewals.push(Renewal {
                call: call.id,
                lease: grant(token),
                invoked_ns: call.invoke.time_ns,
            }),
            _ => {}
        }
    }
    if evidence.faults.iter().any(|fault| fault.nemesis == "clock") {
        expiries.clear();
        renewals.clear();
        let mut judgement = Judgement::new();
        judgement.count();
        let skipped = "clock that was set: only log time is judged";
        return Ok(judgement.findings(skipped).verdict("ttl"));
    }
    let mut findings = lease::ttl(&renewals, &expiries, LASTS_NS, SLACK_NS);
    // Nobody fell silent, it may be; that renewals count, the log shows.
    findings.judged += renewals.len();
    Ok(findings.verdict("ttl"))
}

/// In the log's own time, nothing expires before its deadline.
fn log_time(evidence: &Evidence<'_>) -> Verdict {
    let mut judgement = Judgement::new();
    // Since when each instance has been as it is: renewed, or critical.
    let mut since: BTreeMap<String, i64> = BTreeMap::new();
    for happened in events(evidence.finals.journal(), "catalog") {
        let Some(at) = happened.at_ms() else {
            judgement.undecided(format!("revision {} has no time", happened.entry.revision));
            continue;
        };
        let id = format!("{}/{}", happened.text("service"), happened.text("instance"));
        if happened.text("cause") == "expired" {
            judgement.count();
            let gone = happened.text("event") == "deregistered";
            let lasts = if gone { DEREGISTER_AFTER_MS } else { TTL_MS };
            let lasted = since.get(&id).map_or(0, |since| at - since);
            if lasted < i64::try_from(lasts).unwrap_or(i64::MAX) {
                let what = format!(
                    "{id} expires at revision {} after {lasted} ms, and lasts {lasts} ms",
                    happened.entry.revision
                );
                judgement.wrong("early", &[], what);
            }
        }
        since.insert(id, at);
    }
    judgement.findings("expiries in log time").verdict("log-time")
}

/// Guarded writes come in the order of their tokens: no write of a former holder comes after one of the next.
fn guarded_writes(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut writes: Vec<(u64, u64, u64, u64)> = Vec::new();
    for call in calls.iter().filter(|call| call.invoke.f == "write") {
        let Asked { lock, token, .. } = call.demand()?;
        if let (Outcome::Ok, Some(revision)) = (call.outcome(), call.revision()) {
            judgement.count();
            writes.push((lock, revision, token, call.id));
        }
    }
    writes.sort_unstable();
    for pair in writes.windows(2) {
        let ((lock, _, token, call), (other, _, next, later)) = (pair[0], pair[1]);
        if lock == other && token > next {
            let what = format!("call {later} wrote under token {next} after call {call} under {token}");
            judgement.wrong("stale-token", &[call, later], what);
        }
    }
    Ok(judgement.findings("guarded writes").verdict("fencing"))
}
