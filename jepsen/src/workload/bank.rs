//! Money between accounts: object transactions that read two accounts at one tid and write both on the condition that
//! neither changed, and snapshot reads of all, whose sum never changes.

use super::judging::Judgement;
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::bank::{self as checker, Account, Snapshot};
use crate::client::{Answer, Client, Level};
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// See the module.
pub(super) struct Bank;

/// How many accounts there are.
pub(super) const ACCOUNTS: u64 = 6;
/// What each holds in the beginning.
pub(super) const BALANCE: u64 = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    /// Of a transfer: from where, to where, how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transfer: Option<(u64, u64, u64)>,
    /// Of a read that was done before: the tid of its snapshot, and a revision that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again: Option<(String, u64)>,
}

/// What a client saw: a snapshot, and of a transfer, what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Saw {
    /// The snapshot that it read.
    pub(super) at: String,
    /// Account, balance, and the transaction that wrote it.
    pub(super) accounts: Vec<(u64, u64, String)>,
    /// Of a transfer: its own tid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tid: Option<String>,
}

impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["transfer", "read", "read-again"]
    }

    fn operations_per_second(&self) -> f64 {
        60.0
    }

    fn final_reads(&self) -> &'static [&'static str] {
        &["/v1/objects", "/v1/objects/transactions?ascending=true"]
    }

    fn setup<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            let writes: Vec<Value> = (1..=ACCOUNTS)
                .map(|account| json!({"oid": hex(account), "text": BALANCE.to_string()}))
                .collect();
            let request = client.write(Method::POST, "/v1/objects/transactions", Uuid::now_v7());
            let answer = request.json(&json!({"writes": writes})).send().await;
            // The accounts are there where an earlier try, whose answer was lost, opened them.
            anyhow::ensure!(
                answer.is_ok() || answer.is("objects_conflict"),
                "no accounts: {}",
                answer.error.unwrap_or_default()
            );
            Ok(())
        })
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Banking {
            rng: seat.rng(),
            seen: None,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        let mut snapshots = Vec::new();
        for call in evidence.calls {
            let Some(Saw { at, accounts, .. }) = call.answer()? else {
                continue;
            };
            let accounts = accounts.into_iter().map(|(account, balance, serial)| Account {
                account,
                balance,
                serial,
            });
            snapshots.push(Snapshot {
                call: call.id,
                at,
                accounts: accounts.collect(),
            });
        }
        let accounts = usize::try_from(ACCOUNTS)?;
        let bank = checker::check(&snapshots, accounts, ACCOUNTS * BALANCE);
        Ok(vec![bank.verdict("bank"), transfers(evidence.calls)?])
    }
}

struct Banking {
    rng: ChaCha8Rng,
    /// A snapshot that was read before, and a revision that has it.
    seen: Option<(String, u64)>,
}

impl Script for Banking {
    fn next(&mut self) -> Demand {
        let odds = self.rng.random_range(0..100);
        let again = self.seen.clone().filter(|_| odds < 20);
        if odds < 40 {
            let f = if again.is_some() { "read-again" } else { "read" };
            let transfer = None;
            return Demand::read(f, json!(Asked { transfer, again }));
        }
        let from = self.rng.random_range(0..ACCOUNTS);
        let to = (from + self.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let transfer = Some((from + 1, to + 1, self.rng.random_range(1..=20)));
        let again = None;
        Demand::write("transfer", json!(Asked { transfer, again }))
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let done = match asked(demand) {
                Asked {
                    transfer: Some(transfer),
                    ..
                } => transfer_money(client, transfer, command).await,
                Asked {
                    again: Some((at, revision)),
                    ..
                } => snapshot(client, at, Level::AtLeast(revision), 1..=ACCOUNTS).await,
                _ => read_all(client).await,
            };
            done.unwrap_or_else(|answer| *answer)
        })
    }

    fn learn(&mut self, _demand: &Demand, answer: &Answer) {
        let saw: Result<Saw, _> = serde_json::from_value(answer.body.clone());
        if let (Ok(saw), Some(revision)) = (saw, answer.revision) {
            self.seen = Some((saw.at, revision));
        }
    }
}

/// An answer, or the one that came in its way.
type Asking = Result<Answer, Box<Answer>>;

fn served(answer: Answer) -> Asking {
    if answer.is_ok() {
        Ok(answer)
    } else {
        // What was only read so far was not done.
        Err(Box::new(Answer {
            outcome: Outcome::Fail,
            body: Value::Null,
            ..answer
        }))
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// The last tid.
async fn head(client: &Client) -> Result<String, Box<Answer>> {
    let answer = served(client.get("/v1/objects/head", Level::Linearizable).send().await)?;
    Ok(answer.body["tid"].as_str().unwrap_or_default().to_owned())
}

async fn read_all(client: &Client) -> Asking {
    let at = head(client).await?;
    snapshot(client, at, Level::Linearizable, 1..=ACCOUNTS).await
}

/// The accounts as of one tid.
async fn snapshot(
    client: &Client,
    at: String,
    level: Level,
    accounts: impl IntoIterator<Item = u64>,
) -> Asking {
    let mut saw = Saw {
        at,
        accounts: Vec::new(),
        tid: None,
    };
    let mut revision = None;
    for account in accounts {
        let path = format!("/v1/objects/{}", hex(account));
        let request = client.get(&path, level).query("tid", &saw.at);
        let answer = served(request.send().await)?;
        let bytes = answer.body["bytes_base64"].as_str().unwrap_or_default();
        let text = STANDARD
            .decode(bytes)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(balance) = text.and_then(|text| text.parse().ok()) else {
            return Err(Box::new(Answer::none(
                format!("account {account} holds no number"),
                false,
            )));
        };
        let serial = answer.body["serial"].as_str().unwrap_or_default().to_owned();
        saw.accounts.push((account, balance, serial));
        revision = answer.revision;
    }
    Ok(Answer::ok(json!(saw), revision))
}

async fn transfer_money(client: &Client, (from, to, amount): (u64, u64, u64), command: Uuid) -> Asking {
    let at = head(client).await?;
    let read = snapshot(client, at, Level::Linearizable, [from, to]).await?;
    let mut saw: Saw = serde_json::from_value(read.body).expect("just written");
    let [(_, has, read_from), (_, had, read_to)] = &saw.accounts[..] else {
        unreachable!("two accounts were asked for");
    };
    let Some(left) = has.checked_sub(amount) else {
        return Err(Box::new(Answer {
            outcome: Outcome::Fail,
            ..Answer::none("insufficient", true)
        }));
    };
    let commit = json!({
        "description": format!("{amount} from {from} to {to}"),
        "writes": [
            {"oid": hex(from), "read": read_from, "text": left.to_string()},
            {"oid": hex(to), "read": read_to, "text": (had + amount).to_string()},
        ],
    });
    let request = client.write(Method::POST, "/v1/objects/transactions", command);
    let answer = request.json(&commit).send().await;
    saw.tid = answer.body["tid"].as_str().map(str::to_owned);
    Ok(answer.map(|_| json!(saw)))
}

/// No two transfers that were committed had read the same version of an account, and their tids follow their revisions.
fn transfers(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut read_by: BTreeMap<(u64, String), u64> = BTreeMap::new();
    let mut order: Vec<(u64, String, u64)> = Vec::new();
    for call in calls.iter().filter(|call| call.invoke.f == "transfer") {
        let (Some(saw), Some(revision)) = (call.answer::<Saw>()?, call.revision()) else {
            continue;
        };
        judgement.count();
        for (account, _, serial) in saw.accounts {
            let name = format!("account {account} as of {serial}");
            if let Some(other) = read_by.insert((account, serial), call.id) {
                let what = format!("calls {other} and {} both changed {name}", call.id);
                judgement.wrong("lost-update", &[other, call.id], what);
            }
        }
        order.push((revision, saw.tid.unwrap_or_default(), call.id));
    }
    order.sort_unstable();
    for pair in order.windows(2) {
        if pair[0].1 >= pair[1].1 {
            let what = format!(
                "call {} at revision {} has tid {}, and call {} at {} has {}",
                pair[0].2, pair[0].0, pair[0].1, pair[1].2, pair[1].0, pair[1].1
            );
            judgement.wrong("tid-order", &[pair[0].2, pair[1].2], what);
        }
    }
    Ok(judgement.findings("transfers").verdict("transfers"))
}
