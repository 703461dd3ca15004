//! Backups taken under load and faults: each is the state as it was at its revision.

use super::judging::{Judgement, events};
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::client::{Answer, Client, Level};
use crate::final_state::Entry;
use crate::history::Outcome;
use crate::verdict::Verdict;
use anyhow::Context;
use futures::future::BoxFuture;
use onward_statemachine::backup::{Part, Reader, Summary};
use onward_statemachine::services::kv;
use onward_statemachine::{MemoryStore, check, hash};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const PREFIX: &str = "backup/";
const KEYS: u64 = 40;
/// What makes a backup longer than a frame before long.
const PADDING: usize = 300;
const KEPT: &str = "backups";

/// See the module.
pub(super) struct Backup {
    dir: PathBuf,
}

impl Backup {
    pub(super) fn new(dir: &Path) -> Self {
        Backup { dir: dir.join(KEPT) }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Taken {
    /// The name of the file below `backups/`.
    file: String,
    bytes: usize,
}

impl Workload for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["put", "backup"]
    }

    fn operations_per_second(&self) -> f64 {
        60.0
    }

    fn setup<'a>(&'a self, _client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        let made = std::fs::create_dir_all(&self.dir).map_err(Into::into);
        Box::pin(std::future::ready(made))
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Taking {
            dir: self.dir.clone(),
            rng: seat.rng(),
            client: seat.client,
            puts: 0,
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        let mut judgement = Judgement::new();
        let mut hashes: BTreeMap<u64, String> = BTreeMap::new();
        for call in evidence.calls.iter().filter(|call| call.invoke.f == "backup") {
            let (Some(Taken { file, .. }), Some(revision)) = (call.answer()?, call.revision()) else {
                continue;
            };
            judgement.count();
            let path = self.dir.join(&file);
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let mut wrong = |kind, what| judgement.wrong(kind, &[call.id], format!("{file}: {what}"));
            let (summary, store) = match read(&bytes) {
                Ok(read) => read,
                Err(damage) => {
                    wrong("damaged", damage);
                    continue;
                }
            };
            let said = summary.trailer.state_hash;
            if summary.header.revision != revision {
                let what = format!(
                    "it is of revision {}, answered as of {revision}",
                    summary.header.revision
                );
                wrong("revision", what);
            }
            for what in unsound(&store, &said) {
                wrong("unsound", what);
            }
            if let Some(what) = differs(&store, evidence.finals.journal(), revision)? {
                wrong("not-as-of", what);
            }
            let same = hashes.entry(revision).or_insert_with(|| said.clone());
            if *same != said {
                wrong(
                    "hashes",
                    format!("hash {said}, and {same} in another backup of revision {revision}"),
                );
            }
        }
        Ok(vec![judgement.findings("backups read").verdict("backup")])
    }
}

struct Taking {
    dir: PathBuf,
    rng: ChaCha8Rng,
    client: u64,
    puts: u64,
}

impl Script for Taking {
    fn next(&mut self) -> Demand {
        if self.rng.random_bool(0.03) {
            return Demand::read("backup", json!({}));
        }
        self.puts += 1;
        let (key, put) = (
            Some(self.rng.random_range(0..KEYS)),
            Some(self.client * 1_000_000 + self.puts),
        );
        Demand::write("put", json!(Asked { key, put }))
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Asked {
                key: Some(key),
                put: Some(put),
            } = asked(demand)
            else {
                let (answer, bytes) = client
                    .get("/v1/cluster/backup", Level::Linearizable)
                    .download()
                    .await;
                return self.keep(answer, &bytes, command);
            };
            let value = format!("{put}{}", " ".repeat(PADDING));
            let request = client.write(Method::PUT, &format!("/v1/kv/{PREFIX}{key}"), command);
            request
                .json(&json!({"value": value}))
                .send()
                .await
                .map(|_| Value::Null)
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}

impl Taking {
    /// Writes a backup down, for the judge.
    fn keep(&self, answer: Answer, bytes: &[u8], command: Uuid) -> Answer {
        if answer.outcome != Outcome::Ok {
            return answer.map(|_| Value::Null);
        }
        let file = format!("{command}.backup");
        if let Err(error) = std::fs::write(self.dir.join(&file), bytes) {
            return Answer::none(format!("the harness cannot keep it: {error}"), false);
        }
        let bytes = bytes.len();
        answer.map(|_| json!(Taken { file, bytes }))
    }
}

/// Reads a backup as anybody would.
fn read(bytes: &[u8]) -> Result<(Summary, MemoryStore), String> {
    let mut reader = Reader::new();
    reader.feed(bytes);
    let mut store = MemoryStore::default();
    while let Some(part) = reader.next_part().map_err(|damage| damage.to_string())? {
        if let Part::Rows(rows) = part {
            store.write(rows.into_iter().map(|(key, value)| (key, Some(value))).collect());
        }
    }
    let summary = reader.finish().map_err(|damage| damage.to_string())?;
    Ok((summary, store))
}

/// What does not hold of the rows by themselves.
fn unsound(store: &MemoryStore, said: &str) -> Vec<String> {
    let mut found = Vec::new();
    match hash::state_hash(store) {
        Ok(hash) if format!("{hash:016x}") == said => {}
        Ok(hash) => found.push(format!("its rows have hash {hash:016x}, and it says {said}")),
        Err(fault) => found.push(fault.to_string()),
    }
    match check::check(store) {
        Ok(violations) => {
            found.extend(
                violations
                    .into_iter()
                    .map(|violation| format!("{}: {}", violation.area, violation.what)),
            );
        }
        Err(fault) => found.push(fault.to_string()),
    }
    found
}

/// How the pairs differ from what the journal of the cluster made of them up to `revision`.
fn differs(store: &MemoryStore, journal: &[Entry], revision: u64) -> anyhow::Result<Option<String>> {
    let mut expected: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for happened in events(journal, "kv").filter(|happened| happened.entry.revision <= revision) {
        if happened.text("event") == "put" && happened.text("key").starts_with(PREFIX) {
            let put = (happened.entry.revision, happened.text("value"));
            expected.insert(happened.text("key"), put);
        }
    }
    for key in (0..KEYS).map(|key| format!("{PREFIX}{key}")) {
        let found = kv::get(store, &kv::Key(key.clone().into_bytes()))?;
        let found = found.map(|pair| (pair.modified.0, pair.value));
        let wanted = expected
            .get(key.as_str())
            .map(|(at, value)| (*at, value.as_bytes().to_vec()));
        if found != wanted {
            let at = |pair: &Option<(u64, Vec<u8>)>| pair.as_ref().map_or(0, |(at, _)| *at);
            return Ok(Some(format!(
                "as of revision {revision} `{key}` was put at {}, and the backup has it as of {}",
                at(&wanted),
                at(&found)
            )));
        }
    }
    Ok(None)
}
