//! Watchers beside writers: every client writes for a while, then follows the stream from where it last was, at
//! another node each time. Now and then one compacts the journal to where it last was itself, so that others, who are
//! behind, are told so.

use super::judging::Judgement;
use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::checker::Findings;
use crate::checker::watch::{self as checker, Leg};
use crate::client::{Answer, Client};
use crate::final_state::Entry;
use crate::history::{Call, Outcome};
use crate::verdict::Verdict;
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// See the module.
pub(super) struct Watch;

/// How many keys are written.
const KEYS: u64 = 5;
/// How many messages one watch takes at the most.
const MESSAGES_MAX: usize = 150;
/// How long a watch waits for a message, and goes on at the most.
const SILENCE: Duration = Duration::from_millis(500);
const WATCH_MAX: Duration = Duration::from_secs(2);

/// What is asked: a write, a watch of one of two streams, or a compaction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Asked {
    /// Of a write: which key becomes what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put: Option<(u64, u64)>,
    /// Of a watch: the position to go on after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    /// Of a compaction: up to which revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compact: Option<u64>,
}

/// What a watch saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Watched {
    /// How far it came: the position to go on after.
    pub(super) to: u64,
    /// Each message with its revision and what happened to the keys of this workload.
    pub(super) seen: Vec<(u64, String)>,
    /// The first revision that is kept, where the node said that it had let go of what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compacted: Option<u64>,
}

impl Workload for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["write", "watch-events", "watch-kv", "compact"]
    }

    fn operations_per_second(&self) -> f64 {
        150.0
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Watching {
            rng: seat.rng(),
            client: seat.client,
            written: 0,
            positions: [0, 0],
        })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        Ok(vec![
            watched(evidence, "watch-events")?.verdict("watch"),
            watched(evidence, "watch-kv")?.verdict("watch-kv"),
            acknowledged(evidence.calls)?,
        ])
    }
}

struct Watching {
    rng: ChaCha8Rng,
    client: u64,
    written: u64,
    /// How far the watches of all events and of the keys have come.
    positions: [u64; 2],
}

const STREAMS: [(&str, &str); 2] = [
    ("watch-events", "/v1/events?area=kv&after="),
    ("watch-kv", "/v1/kv/watch?prefix=watch/&after="),
];

fn stream(f: &str) -> Option<usize> {
    STREAMS.iter().position(|(name, _)| *name == f)
}

impl Script for Watching {
    fn next(&mut self) -> Demand {
        let odds = self.rng.random_range(0..1000);
        let mut asked = Asked::default();
        if odds < 940 {
            self.written += 1;
            let value = self.client * 1_000_000 + self.written;
            asked.put = Some((self.rng.random_range(0..KEYS), value));
            return Demand::write("write", json!(asked));
        }
        let newest = self.positions[0].max(self.positions[1]);
        if odds < 945 && newest > 0 {
            asked.compact = Some(newest);
            return Demand::write("compact", json!(asked));
        }
        let which = usize::from(odds < 970);
        asked.after = Some(self.positions[which]);
        Demand::read(STREAMS[which].0, json!(asked))
    }

    fn invoke<'a>(
        &'a self,
        client: &'a mut Client,
        demand: &'a Demand,
        command: Uuid,
    ) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Asked { put, after, compact } = asked(demand);
            if let Some(to) = compact {
                let request = client.write(Method::POST, "/v1/journal/compact", command);
                return request.json(&json!({"to": to})).send().await.map(|_| Value::Null);
            }
            if let Some((key, value)) = put {
                let request = client.write(Method::PUT, &format!("/v1/kv/watch/{key}"), command);
                let answer = request.json(&json!({"value": value.to_string()})).send().await;
                return answer.map(|_| Value::Null);
            }
            let after = after.unwrap_or(0);
            let which = stream(demand.f).expect("a demand of this workload's own");
            let answer = follow(client, &format!("{}{after}", STREAMS[which].1), after).await;
            // What one node began to tell, another one goes on with.
            client.move_on();
            answer
        })
    }

    fn learn(&mut self, demand: &Demand, answer: &Answer) {
        let watched = stream(demand.f).zip(serde_json::from_value::<Watched>(answer.body.clone()).ok());
        if let Some((which, watched)) = watched {
            self.positions[which] = watched.to;
        }
    }
}

/// Follows a stream for a while. One that breaks has said what it said: that counts.
async fn follow(client: &Client, path: &str, after: u64) -> Answer {
    let mut watched = Watched {
        to: after,
        ..Watched::default()
    };
    let mut stream = match client.stream(path).await {
        Ok(stream) => stream,
        Err(answer) if answer.is("compacted") => {
            watched.compacted = answer.body["floor"].as_u64();
            watched.to = watched.compacted.unwrap_or(1) - 1;
            return Answer::ok(json!(watched), None);
        }
        Err(answer) => return answer,
    };
    let until = Instant::now() + WATCH_MAX;
    while watched.seen.len() < MESSAGES_MAX && Instant::now() < until {
        let message = match stream.next(SILENCE).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) if watched.seen.is_empty() => return Answer::none(format!("{error:#}"), false),
            Err(_) => break,
        };
        let Some(id) = message.id else {
            watched.compacted = message.data["floor"].as_u64();
            break;
        };
        if message.event != "progress" {
            watched.seen.push((id, text(&message.data["events"])));
        }
        watched.to = id;
    }
    Answer::ok(json!(watched), None)
}

/// What the events of a revision did to pairs, in few words.
pub(super) fn text(events: &Value) -> String {
    let events = events.as_array().map_or(&[][..], Vec::as_slice);
    let each = events.iter().map(|event| {
        let key = event["key"].as_str().unwrap_or_default();
        match event["value"].as_str() {
            Some(value) => format!("{key}={value}"),
            None => format!("{key} {}", event["event"].as_str().unwrap_or_default()),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What an entry of the journal did to pairs; empty where it did nothing to them.
fn kv_text(entry: &Entry) -> String {
    let events = entry.events.iter().filter(|event| event["area"] == "kv");
    text(&events.cloned().collect())
}

/// Whether a stream tells of such a revision.
fn wanted(f: &str, text: &str) -> bool {
    match f {
        "watch-kv" => text.contains("watch/"),
        _ => !text.is_empty(),
    }
}

/// What the watches of each client saw, stream by stream, against the journal; and, of what was compacted, against what
/// other watches saw.
fn watched(evidence: &Evidence<'_>, f: &str) -> anyhow::Result<Findings> {
    let journal = evidence.finals.journal().iter();
    let mut truth: BTreeMap<u64, String> = journal
        .map(|entry| (entry.revision, kv_text(entry)))
        .filter(|(_, text)| wanted(f, text))
        .collect();
    let begins = evidence.finals.journal_begins();
    let mut legs: BTreeMap<u64, Vec<Leg>> = BTreeMap::new();
    for call in evidence.calls.iter().filter(|call| call.invoke.f == f) {
        let asked: Asked = call.demand()?;
        let (Some(after), Some(watched)) = (asked.after, call.answer::<Watched>()?) else {
            continue;
        };
        for (revision, text) in watched.seen.iter().filter(|(revision, _)| *revision <= begins) {
            truth.entry(*revision).or_insert_with(|| text.clone());
        }
        // Reads fail rather than stay unknown, so a watch never changes the process of its client by itself; a write
        // does, and then the stream is one more watcher's.
        legs.entry(call.invoke.process).or_default().push(Leg {
            call: call.id,
            after,
            to: watched.to,
            seen: watched.seen,
            compacted: watched.compacted,
        });
    }
    let watches = legs.into_iter().map(|(process, legs)| checker::Watch {
        watcher: format!("process {process}, {f}"),
        legs,
    });
    let truth: Vec<_> = truth.into_iter().collect();
    Ok(checker::check(&watches.collect::<Vec<_>>(), &truth))
}

/// Every write that was acknowledged at a revision is told by every watch that came past it: what no journal is asked
/// for, in case that it lies.
fn acknowledged(calls: &[Call]) -> anyhow::Result<Verdict> {
    let mut judgement = Judgement::new();
    let mut writes: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.outcome() == Outcome::Ok) {
        let asked: Asked = call.demand()?;
        if let (Some((key, value)), Some(revision)) = (asked.put, call.revision()) {
            writes.insert(revision, (call.id, format!("watch/{key}={value}")));
        }
    }
    for call in calls.iter().filter(|call| stream(&call.invoke.f).is_some()) {
        let asked: Asked = call.demand()?;
        let (Some(after), Some(watched)) = (asked.after, call.answer::<Watched>()?) else {
            continue;
        };
        if watched.compacted.is_some() || watched.to <= after {
            continue;
        }
        let seen: BTreeSet<(u64, &str)> = watched
            .seen
            .iter()
            .map(|(at, text)| (*at, text.as_str()))
            .collect();
        for (revision, (write, text)) in writes.range(after + 1..=watched.to) {
            judgement.count();
            if !seen.contains(&(*revision, text.as_str())) {
                let what = format!(
                    "call {} is not told of call {write}, revision {revision}",
                    call.id
                );
                judgement.wrong("gap", &[*write, call.id], what);
            }
        }
    }
    Ok(judgement
        .findings("acknowledged writes looked for in watches")
        .verdict("watch-acked"))
}
