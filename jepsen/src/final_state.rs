//! What every node has once all is over: its whole journal, its pairs, and the hash of its state, at one revision.
//!
//! The end is marked by a write of the harness's own. Each node is read until the mark has come through its stream of
//! events, so that a journal is known to be whole.

use crate::client::{Client, Level, Target};
use crate::verdict::{Finding, Kind, Verdict};
use anyhow::{Context, bail, ensure};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Who the harness says that it is; clients call themselves otherwise.
pub const HARNESS: &str = "jepsen";
/// How long the nodes may take to come to one revision and to be read.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// All that happened in one revision, as a node streams it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub revision: u64,
    /// Log time.
    pub at: String,
    /// Who demanded it.
    pub actor: String,
    /// Which demand it was.
    pub command_id: Uuid,
    /// What happened, in order.
    pub events: Vec<Value>,
}

/// What one node has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Which.
    pub id: u64,
    /// The revision of its state.
    pub revision: u64,
    /// The hash of its state.
    pub hash: String,
    /// What it says of the cluster.
    pub status: Value,
    /// The items of each list that it was asked for, by path.
    pub reads: BTreeMap<String, Vec<Value>>,
    /// The oldest revision after which its journal is kept.
    #[serde(default)]
    pub journal_begins: u64,
    /// Its journal; in a file of its own.
    #[serde(skip)]
    pub journal: Vec<Entry>,
}

/// What all nodes have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finals {
    /// Each node, in order of id.
    pub nodes: Vec<Node>,
}

/// The list of all pairs.
pub const PAIRS: &str = "/v1/kv";

impl Finals {
    /// The journal, as the first node has it; that all have the same is a verdict of its own.
    pub fn journal(&self) -> &[Entry] {
        self.nodes.first().map_or(&[], |node| &node.journal)
    }

    /// The oldest revision after which that journal is kept.
    pub fn journal_begins(&self) -> u64 {
        self.nodes.first().map_or(0, |node| node.journal_begins)
    }

    /// Reads every node, waiting until all stand at one revision.
    ///
    /// # Errors
    /// Where a node cannot be read, or they do not come to rest.
    pub async fn read(nodes: &Arc<[Target]>, paths: &[&str]) -> anyhow::Result<Finals> {
        let deadline = Instant::now() + PATIENCE;
        let mark = mark(nodes, deadline).await?;
        loop {
            let mut finals = Finals::default();
            for place in 0..nodes.len() {
                let client = Client::new(Arc::clone(nodes), place, HARNESS)?;
                finals
                    .nodes
                    .push(read_node(&client, mark, paths, deadline).await?);
            }
            // Appliers may have been at work meanwhile: only what stands still can be compared.
            let still = finals
                .nodes
                .iter()
                .all(|node| node.revision == finals.nodes[0].revision);
            if still {
                return Ok(finals);
            }
            ensure!(
                Instant::now() < deadline,
                "the nodes did not come to one revision: {}",
                revisions(&finals)
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes `final/`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let dir = dir.join("final");
        std::fs::create_dir_all(&dir)?;
        for node in &self.nodes {
            let text = serde_json::to_string_pretty(node)?;
            std::fs::write(dir.join(format!("{}.json", node.id)), text)?;
            let mut out = BufWriter::new(std::fs::File::create(
                dir.join(format!("{}.events.jsonl", node.id)),
            )?);
            for entry in &node.journal {
                serde_json::to_writer(&mut out, entry)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
        Ok(())
    }

    /// Reads `final/`; nothing where the run never came so far.
    ///
    /// # Errors
    /// Where what is there is no such thing.
    pub fn load(dir: &Path) -> anyhow::Result<Finals> {
        let mut finals = Finals::default();
        let Ok(files) = std::fs::read_dir(dir.join("final")) else {
            return Ok(finals);
        };
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let mut node: Node = serde_json::from_slice(&std::fs::read(&path)?)
                    .with_context(|| format!("in {}", path.display()))?;
                let events = path.with_extension("events.jsonl");
                let file = std::fs::File::open(&events)
                    .with_context(|| format!("cannot open {}", events.display()))?;
                for line in BufReader::new(file).lines() {
                    let entry =
                        serde_json::from_str(&line?).with_context(|| format!("in {}", events.display()))?;
                    node.journal.push(entry);
                }
                finals.nodes.push(node);
            }
        }
        finals.nodes.sort_by_key(|node| node.id);
        Ok(finals)
    }

    /// Whether all nodes came to the same: state, journal, and what was read of them.
    pub fn replicas(&self) -> Verdict {
        let Some((first, others)) = self.nodes.split_first() else {
            return Verdict::new(Kind::Property, "replicas", Finding::Unknown, "no node was read");
        };
        let mut details = Vec::new();
        for node in others {
            let pair = format!("nodes {} and {}", first.id, node.id);
            if node.revision != first.revision || node.hash != first.hash {
                details.push(format!(
                    "{pair}: hash {} at revision {} and hash {} at revision {}",
                    first.hash, first.revision, node.hash, node.revision
                ));
            }
            if let Some(at) = difference(&first.journal, &node.journal) {
                details.push(format!("{pair}: their journals part at revision {at}"));
            }
            for (path, items) in &first.reads {
                if node.reads.get(path) != Some(items) {
                    details.push(format!("{pair}: `{path}` is not the same"));
                }
            }
        }
        let (finding, summary) = if details.is_empty() {
            let (revision, entries) = (first.revision, first.journal.len());
            let nodes = self.nodes.len();
            (
                Finding::Pass,
                format!("{nodes} nodes are one at revision {revision}, {entries} journal entries"),
            )
        } else {
            (Finding::Fail, "the nodes do not have the same".to_owned())
        };
        Verdict {
            details,
            ..Verdict::new(Kind::Property, "replicas", finding, summary)
        }
    }
}

fn revisions(finals: &Finals) -> String {
    let each = finals.nodes.iter();
    let each: Vec<_> = each
        .map(|node| format!("node {} is at {}", node.id, node.revision))
        .collect();
    each.join(", ")
}

/// The first revision that one journal has otherwise than the other.
fn difference(one: &[Entry], other: &[Entry]) -> Option<u64> {
    let parted = one.iter().zip(other).find(|(one, other)| one != other);
    match parted {
        Some((one, other)) => Some(one.revision.min(other.revision)),
        None => {
            let common = one.len().min(other.len());
            let next = one.get(common).or(other.get(common))?;
            Some(next.revision)
        }
    }
}

/// Writes the mark, at whichever node takes it; its revision.
async fn mark(nodes: &Arc<[Target]>, deadline: Instant) -> anyhow::Result<u64> {
    let mut client = Client::new(Arc::clone(nodes), 0, HARNESS)?;
    // One demand, however often it is sent.
    let command = Uuid::now_v7();
    loop {
        let request = client.write(Method::PUT, "/v1/kv/jepsen%2Fend", command);
        let answer = request.json(&json!({"value": "end"})).send().await;
        match answer.revision {
            Some(revision) if answer.is_ok() => return Ok(revision),
            _ => ensure!(
                Instant::now() < deadline,
                "no node took a last write: {}",
                answer.error.unwrap_or_default()
            ),
        }
        client.move_on();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read_node(client: &Client, mark: u64, paths: &[&str], deadline: Instant) -> anyhow::Result<Node> {
    let id = client.node().id;
    loop {
        let read = async {
            let before = demand(client, "/v1/cluster/hash").await?;
            let (journal_begins, journal) = journal(client, mark).await?;
            let mut reads = BTreeMap::new();
            for path in paths.iter().chain([&PAIRS]) {
                reads.insert((*path).to_owned(), list(client, path).await?);
            }
            let status = demand(client, "/v1/cluster").await?;
            let hash = demand(client, "/v1/cluster/hash").await?;
            ensure!(
                before["revision"] == hash["revision"],
                "the state moves on while it is read"
            );
            anyhow::Ok(Node {
                id,
                revision: hash["revision"].as_u64().context("a hash without a revision")?,
                hash: hash["hash"].as_str().context("no hash")?.to_owned(),
                status,
                reads,
                journal_begins,
                journal,
            })
        };
        match read.await {
            Ok(node) => return Ok(node),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("node {id} could not be read")));
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn demand(client: &Client, path: &str) -> anyhow::Result<Value> {
    let answer = client.get(path, Level::Linearizable).send().await;
    match answer.error {
        None => Ok(answer.body),
        Some(error) => bail!("`{path}`: {error}"),
    }
}

/// The whole journal up to the mark, and after which revision it begins.
async fn journal(client: &Client, mark: u64) -> anyhow::Result<(u64, Vec<Entry>)> {
    let begins = demand(client, "/v1/journal/retention").await?["oldest"].as_u64();
    let begins = begins.context("no oldest revision")?;
    let mut stream = match client.stream(&format!("/v1/events?after={begins}")).await {
        Ok(stream) => stream,
        Err(answer) => bail!("`/v1/events`: {}", answer.error.unwrap_or_default()),
    };
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let message = stream.next(client.deadline).await?;
        let message = message.context("the journal ended before the last write")?;
        if message.event == "revision" {
            entries.push(serde_json::from_value(message.data)?);
        }
        if message.id.is_some_and(|id| id >= mark) {
            return Ok((begins, entries));
        }
    }
}

/// All items of a list, as this node has them.
async fn list(client: &Client, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut request = client.get(path, Level::Local).query("limit", &1000);
        if let Some(cursor) = &cursor {
            request = request.query("cursor", cursor);
        }
        let mut answer = request.send().await.or_missing();
        if let Some(error) = answer.error {
            bail!("`{path}`: {error}");
        }
        if let Value::Array(page) = answer.body["items"].take() {
            items.extend(page);
        }
        match answer.body["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(items),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, hash: &str, revisions: &[u64]) -> Node {
        let entry = |revision: &u64| Entry {
            revision: *revision,
            at: String::new(),
            actor: "a".to_owned(),
            command_id: Uuid::nil(),
            events: vec![json!({"n": revision})],
        };
        Node {
            id,
            revision: 9,
            hash: hash.to_owned(),
            status: Value::Null,
            reads: BTreeMap::from([(PAIRS.to_owned(), vec![json!(1)])]),
            journal_begins: 0,
            journal: revisions.iter().map(entry).collect(),
        }
    }

    fn finding(nodes: Vec<Node>) -> Finding {
        Finals { nodes }.replicas().finding
    }

    #[test]
    fn replicas_are_one_or_they_are_not() {
        let one = node(1, "aa", &[1, 2, 4]);
        assert_eq!(finding(vec![]), Finding::Unknown);
        assert_eq!(
            finding(vec![one.clone(), node(2, "aa", &[1, 2, 4])]),
            Finding::Pass
        );
        assert_eq!(
            finding(vec![one.clone(), node(2, "ab", &[1, 2, 4])]),
            Finding::Fail
        );
        assert_eq!(finding(vec![one.clone(), node(2, "aa", &[1, 2])]), Finding::Fail);
        assert_eq!(
            finding(vec![one.clone(), node(2, "aa", &[1, 3, 4])]),
            Finding::Fail
        );
        let mut other = node(2, "aa", &[1, 2, 4]);
        other.reads.insert(PAIRS.to_owned(), vec![json!(2)]);
        assert_eq!(finding(vec![one, other]), Finding::Fail);
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a directory");
        let finals = Finals {
            nodes: vec![node(1, "aa", &[1, 2]), node(2, "aa", &[1, 2])],
        };
        finals.save(dir.path()).expect("saves");
        assert_eq!(Finals::load(dir.path()).expect("loads"), finals);
    }
}
