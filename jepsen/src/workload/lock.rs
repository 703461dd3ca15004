//! Locks out of service instances with a TTL: registered where there is none, renewed while held, deregistered when
//! given back, and gone when their holder fell silent. The revision of the registration is the fencing token: every
//! guarded write goes in one batch with a renewal on the condition that the token still stands.

use super::{Demand, Evidence, Script, Seat, Workload, asked, no_setup};
use crate::client::{Answer, Client, Level};
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
pub(super) struct Lock;

/// How many locks there are.
const LOCKS: u64 = 4;
/// How long a holder may be silent: the shortest that there is.
pub(super) const TTL_MS: u64 = 1000;
/// How long after that the lock is free.
pub(super) const DEREGISTER_AFTER_MS: u64 = 1000;

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

    fn setup<'a>(&'a self, _client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        no_setup()
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Holding {
            rng: seat.rng(),
            client: seat.client,
            held: BTreeMap::new(),
        })
    }

    fn judge(&self, _evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(Vec::new())
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
        if f == "read" {
            Demand::read(f, value)
        } else {
            Demand::write(f, value)
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
