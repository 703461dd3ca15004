//! Backups on real processes: taken under load, restored into a new cluster, damaged, broken off.

mod broken;

use crate::deployments;
use crate::support::alone::{json, onward, serve, text};
use crate::support::{Cluster, ONWARD, Process, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Backs a cluster up into `file`.
fn backup(cluster: &Cluster, file: &Path) -> Value {
    let said = cluster.ok(&["cluster", "backup", text(file), "-o", "json"]);
    serde_json::from_str(&said).expect("JSON")
}

/// Puts a pair, and returns the revision at which it was put.
fn put(cluster: &Cluster, node: u64, key: &str, value: String) -> u64 {
    let put = cluster
        .http
        .put(format!("{}/v1/kv/{key}", cluster.node(node).http));
    let answer = put.header("Content-Type", "application/octet-stream").body(value);
    let answer = answer.send().expect("the node answers");
    assert!(answer.status().is_success(), "{}", answer.status());
    let answer: Value = answer.json().expect("JSON");
    answer["revision"].as_u64().expect("a revision")
}

/// Some state that takes a while to send, and that no store makes much smaller.
fn fill(cluster: &Cluster, megabytes: usize) {
    let mut noise = 1_u64;
    for number in 0..megabytes {
        let value = (0..1_000_000).map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (noise >> 58) as u8)
        });
        put(cluster, 1, &format!("fill/{number}"), value.collect());
    }
}

/// A cluster out of a directory that was restored, its first member and those that joined it.
struct Restored {
    http: String,
    peer: String,
    ingress: String,
    _processes: Vec<Process>,
    _dir: tempfile::TempDir,
}

/// Restores a backup and starts the new cluster of one.
fn restore(file: &Path, arguments: &[&str]) -> (Value, Restored) {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let restore = [&["restore", text(file), "--dir", text(&data)], arguments].concat();
    let (said, well) = json(&restore);
    assert!(well, "{said}");
    let name = said["cluster_name"].as_str().expect("a name").to_owned();
    let (process, [http, peer, ingress]) = serve(&data, &dir.path().join("log"), &["--cluster", &name]);
    let restored = Restored {
        http,
        peer,
        ingress,
        _processes: vec![process],
        _dir: dir,
    };
    (said, restored)
}

impl Restored {
    fn get(&self, path: &str) -> Value {
        let answer = reqwest::blocking::get(format!("{}{path}", self.http)).expect("the node answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().expect("JSON")
    }

    /// Every pair under `prefix`: key to value as it travels.
    fn pairs(&self, prefix: &str) -> BTreeMap<String, Value> {
        let mut pairs = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/v1/kv?prefix={prefix}&limit=1000{cursor}"));
            for pair in page["items"].as_array().expect("items") {
                pairs.insert(pair["key"].as_str().expect("a key").to_owned(), pair.clone());
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return pairs,
            }
        }
    }

    fn ingress(&self, host: &str) -> Option<String> {
        let client = reqwest::blocking::Client::new();
        let answer = client
            .get(format!("http://{}/", self.ingress))
            .header("Host", host)
            .send()
            .ok()?;
        answer.status().is_success().then(|| answer.text().ok()).flatten()
    }

    /// Runs the CLI against it.
    fn cli(&self, arguments: &[&str]) {
        let output = Command::new(ONWARD)
            .env("ONWARD_SERVER", &self.http)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let output = output.expect("the CLI runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Writers under way; each puts numbered values to a few keys of its own.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<std::thread::JoinHandle<Vec<(u64, String, String)>>>,
}

impl Load {
    fn start(cluster: &Cluster) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let urls: Vec<String> = cluster.nodes.iter().map(|node| node.http.clone()).collect();
        let writers = (0..4)
            .map(|writer| {
                let (stop, urls, http) = (Arc::clone(&stop), urls.clone(), cluster.http.clone());
                std::thread::spawn(move || {
                    let mut puts = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("load/{writer}/{}", number % 17);
                        let value = format!("{writer}-{number}");
                        let put = http.put(format!("{}/v1/kv/{key}", urls[number % urls.len()]));
                        let put = put
                            .header("Content-Type", "application/octet-stream")
                            .body(value.clone());
                        let answer: Value = put.send().expect("the node answers").json().expect("JSON");
                        puts.push((answer["revision"].as_u64().expect("a revision"), key, value));
                    }
                    puts
                })
            })
            .collect();
        Load { stop, writers }
    }

    /// All acknowledged puts: revision, key, value.
    fn end(self) -> Vec<(u64, String, String)> {
        self.stop.store(true, Ordering::Relaxed);
        let writers = self.writers.into_iter();
        writers
            .flat_map(|writer| writer.join().expect("a writer"))
            .collect()
    }
}

#[test]
fn a_backup_under_load_is_what_was_there_at_its_revision() {
    let cluster = Cluster::start(3);
    let files = tempfile::tempdir().expect("a directory");
    cluster.ok(&[
        "service",
        "register",
        "web",
        "web-1",
        "--address",
        "10.0.0.7",
        "--port",
        "80",
        "--ttl",
        "30s",
    ]);
    fill(&cluster, 8);
    let load = Load::start(&cluster);
    let taken: Vec<(PathBuf, Value)> = (0..4)
        .map(|number| {
            let before = put(&cluster, 1, "before", number.to_string());
            let file = files.path().join(format!("{number}.backup"));
            let said = backup(&cluster, &file);
            assert!(
                said["revision"].as_u64() >= Some(before),
                "what was acknowledged before is in it: {said}"
            );
            (file, said)
        })
        .collect();
    let puts = load.end();
    for (file, said) in &taken {
        let (verified, well) = json(&["verify", text(file)]);
        assert!(well, "{verified}");
        assert_eq!(verified["state_hash"], said["state_hash"]);
        assert_eq!(verified["revision"], said["revision"]);
    }
    let (file, said) = taken.last().expect("several");
    let revision = said["revision"].as_u64().expect("a revision");
    let mut expected: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for (at, key, value) in puts.iter().filter(|(at, ..)| *at <= revision) {
        let newest = expected.entry(key).or_insert((*at, value));
        *newest = (*newest).max((*at, value));
    }
    assert!(!expected.is_empty() && expected.len() < puts.len());
    let (restored, site) = restore(file, &["--cluster", "other"]);
    assert_eq!(restored["state_hash"], said["state_hash"]);
    assert_eq!(restored["from_cluster_id"], said["cluster_id"]);
    let found = site.pairs("load/");
    let keys: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(keys, expected.keys().copied().collect::<Vec<_>>());
    for (key, (at, value)) in expected {
        let url = format!("{}/v1/kv/{key}", site.http);
        let raw = reqwest::blocking::Client::new()
            .get(url)
            .header("Accept", "application/octet-stream");
        let raw = raw.send().expect("the node answers").text().expect("text");
        assert_eq!(raw, value, "{key}");
        assert_eq!(found[key]["modified"], at, "{key}");
    }
    // What it is: a new cluster, a new node, and revisions that go on.
    let status = site.get("/v1/cluster");
    assert_ne!(status["cluster_id"], said["cluster_id"]);
    assert_eq!(status["cluster_id"], restored["cluster_id"]);
    assert_eq!(status["node"], 4, "no id of the old cluster: {status}");
    assert!(status["applied"].as_u64() > Some(revision));
    assert_eq!(site.get("/v1/services/web/instances/web-1")["health"], "passing");
    a_member_joins(&site, status["applied"].as_u64().expect("a revision"));
}

/// Two clusters of one history: neither touches what the other runs.
#[test]
fn a_restored_cluster_runs_its_apps_itself_and_once() {
    let cluster = Cluster::start(1);
    let sources = tempfile::tempdir().expect("a directory");
    let repository = deployments::Repository::create(sources.path());
    deployments::declare(&cluster, &repository);
    cluster.ok(&["deploy", "web", "--ref", "main"]);
    cluster.ok(&[
        "service",
        "register",
        "long",
        "one",
        "--address",
        "10.0.0.7",
        "--port",
        "80",
        "--ttl",
        "300s",
    ]);
    let file = sources.path().join("site.backup");
    let said = backup(&cluster, &file);
    let old = said["cluster_id"].as_str().expect("an id");
    let before = cluster.ok(&["app", "instances", "web", "-o", "json"]);

    let (restored, site) = restore(&file, &["--cluster", "other"]);
    assert_eq!(
        (&restored["instances_ended"], &restored["services_renewed"]),
        (&1.into(), &1.into())
    );
    let new = restored["cluster_id"].as_str().expect("an id");
    eventually("the app serves here, too", || {
        site.ingress("web.test").is_some_and(|text| text == "one")
    });
    assert_eq!(
        (deployments::instances_of(old), deployments::instances_of(new)),
        (1, 1)
    );
    let here = site.get("/v1/apps/web/instances");
    let live: Vec<&Value> = here["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter(|one| one["state"] == "active")
        .collect();
    assert_eq!(live.len(), 1, "{here}");
    assert_eq!(live[0]["node"], restored["node"]);
    assert_eq!(
        cluster.ok(&["app", "instances", "web", "-o", "json"]),
        before,
        "the old cluster's is as it was"
    );
    let instance = site.get("/v1/services/long/instances/one");
    let journal = site.get(&format!("/v1/journal?after={}", said["revision"]));
    let actor = &journal["items"][0]["actor"];
    assert!(
        actor
            .as_str()
            .is_some_and(|actor| actor.starts_with("restore:dev@")),
        "{journal}"
    );
    assert_eq!(instance["health"], "passing");
    site.cli(&["app", "stop", "web", "--yes"]);
    eventually("what it ran is stopped", || deployments::instances_of(new) == 0);
    assert_eq!(deployments::instances_of(old), 1);

    let (restored, site) = restore(&file, &["--cluster", "third", "--stop-apps"]);
    assert_eq!(restored["apps_stopped"], 1);
    assert_eq!(site.get("/v1/apps/web")["running"], false);
}

/// A second member gets everything by snapshot, and has the same state.
fn a_member_joins(site: &Restored, applied: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let arguments = ["--cluster", "other", "--join", &site.peer];
    let (_process, [http, ..]) = serve(&data, &dir.path().join("log"), &arguments);
    let client = reqwest::blocking::Client::new();
    let get = |url: String| -> Option<Value> { client.get(url).send().ok()?.json().ok() };
    eventually("the second member has what the first has", || {
        let status = get(format!("{http}/v1/cluster"));
        status
            .is_some_and(|status| status["applied"].as_u64() > Some(applied) && status["role"] == "follower")
    });
    eventually("both have the same hash at the same revision", || {
        let of = |base: &str| get(format!("{base}/v1/cluster/hash"));
        match (of(&site.http), of(&http)) {
            (Some(one), Some(other)) => one["revision"] == other["revision"] && one["hash"] == other["hash"],
            _ => false,
        }
    });
}

/// The state hash of a quiet cluster is that of its backup, and the directories of its nodes verify.
#[test]
fn a_stopped_node_verifies_and_a_running_one_is_left_alone() {
    let mut cluster = Cluster::start(3);
    let files = tempfile::tempdir().expect("a directory");
    for number in 0..50 {
        put(&cluster, 1, &format!("k/{number}"), "v".to_owned());
    }
    let file = files.path().join("quiet.backup");
    let said = backup(&cluster, &file);
    let hash = cluster
        .http
        .get(format!("{}/v1/cluster/hash?", cluster.node(1).http))
        .send();
    let hash: Value = hash.expect("the node answers").json().expect("JSON");
    assert_eq!(hash["hash"], said["state_hash"]);

    let data = cluster.node(1).dir.join("data");
    let refused = onward(&["verify", text(&data)]);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("in use by a running process"), "{stderr}");

    // What a crash leaves is as sound as what a stop leaves.
    cluster.kill(2);
    let killed = cluster.node(2).dir.join("data");
    eventually("the killed node let go of its directory", || {
        !String::from_utf8_lossy(&onward(&["verify", text(&killed)]).stderr).contains("in use")
    });
    let before = listing(&killed);
    let (verdict, well) = json(&["verify", text(&killed)]);
    assert!(well, "{verdict}");
    assert_eq!(listing(&killed), before, "nothing was changed");
    cluster.stop();
    for node in &cluster.nodes {
        let (verdict, well) = json(&["verify", text(&node.dir.join("data"))]);
        assert!(well, "node {}: {verdict}", node.id);
        assert_eq!(verdict["node"], node.id);
    }
    damaged_directories_are_told(&data);
}

/// All files below `dir` with their lengths.
fn listing(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(listing(&path)),
            false => drop(found.insert(path.clone(), path.metadata().expect("a file").len())),
        }
    }
    found
}

fn damaged_directories_are_told(data: &Path) {
    let tables: Vec<PathBuf> = listing(data)
        .into_keys()
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .filter(|path| path.starts_with(data.join("state")))
        .collect();
    assert!(!tables.is_empty(), "a node that stopped has flushed its state");
    let table = tables
        .iter()
        .max_by_key(|path| path.metadata().expect("a file").len());
    let table = table.expect("there are some");
    let whole = std::fs::read(table).expect("readable");
    let mut damaged = whole.clone();
    damaged[20] ^= 0xff;
    std::fs::write(table, &damaged).expect("writable");
    let (verdict, well) = json(&["verify", text(data)]);
    assert!(!well, "{verdict}");
    let findings = verdict["findings"].as_array().expect("findings");
    assert!(
        findings.iter().any(|finding| finding["place"]
            .as_str()
            .is_some_and(|place| place.starts_with("state"))),
        "{verdict}"
    );
    std::fs::write(table, &whole).expect("writable");
    // A log that ends before what it acknowledged.
    std::fs::remove_dir_all(data.join("log")).expect("there");
    let (verdict, well) = json(&["verify", text(data)]);
    assert!(!well && verdict.to_string().contains("log"), "{verdict}");
}

#[test]
fn damaged_and_cut_backups_are_refused() {
    let cluster = Cluster::start(1);
    let files = tempfile::tempdir().expect("a directory");
    for number in 0..40 {
        put(&cluster, 1, &format!("k/{number}"), format!("{number:100}"));
    }
    let file = files.path().join("whole.backup");
    backup(&cluster, &file);
    let whole = std::fs::read(&file).expect("readable");
    let wrong = files.path().join("wrong.backup");
    let target = files.path().join("restored");
    let refused = |what: &str| {
        let (verdict, well) = json(&["verify", text(&wrong)]);
        assert!(!well, "{what}: {verdict}");
        let restore = onward(&["restore", text(&wrong), "--dir", text(&target)]);
        assert_eq!(restore.status.code(), Some(1), "{what}");
        let stderr = String::from_utf8_lossy(&restore.stderr).into_owned();
        assert!(stderr.contains("wrong.backup"), "{what}: {stderr}");
        assert!(!target.exists(), "{what}: nothing is left of it");
        (
            verdict["findings"][0]["what"]
                .as_str()
                .expect("a finding")
                .to_owned(),
            stderr,
        )
    };
    for step in 0..24 {
        let at = step * (whole.len() - 1) / 23;
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (step % 8);
        std::fs::write(&wrong, &damaged).expect("writable");
        let (found, said) = refused(&format!("byte {at} flipped"));
        assert!(
            ["damaged", "not a backup", "version", "cut off"]
                .iter()
                .any(|word| found.contains(word)),
            "byte {at}: {found}"
        );
        assert!(
            said.contains(&found),
            "byte {at}: {said} is what verify found: {found}"
        );
    }
    for length in [1, 5, 13, 200, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&wrong, &whole[..length]).expect("writable");
        let (found, _) = refused(&format!("cut after {length} bytes"));
        assert!(found.contains("cut off after"), "{length}: {found}");
    }
    std::fs::write(&wrong, b"").expect("writable");
    assert!(refused("empty").0.contains("not a backup"));
    // A directory that has something in it stays as it is.
    std::fs::create_dir(&target).expect("a directory");
    std::fs::write(target.join("mine"), b"mine").expect("writable");
    let restore = onward(&["restore", text(&file), "--dir", text(&target)]);
    assert_eq!(restore.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&restore.stderr).contains("`mine`"));
    assert_eq!(listing(&target).len(), 1);
}
