//! Deployments: from a real git repository to a process behind the ingress, without a failed request, through kill -9.

use crate::support::{Cluster, Node, PATIENCE, eventually};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const APP: &str = "import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = open('version.txt', 'rb').read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT)

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer((os.environ['HOST'], int(os.environ['PORT'])), Handler).serve_forever()
";

/// A git repository with the app in it.
pub struct Repository(PathBuf);

impl Repository {
    pub fn create(folder: &Path) -> Repository {
        let repository = Repository(folder.join("app.git"));
        std::fs::create_dir(&repository.0).expect("a folder");
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        std::fs::write(repository.0.join("app.py"), APP).expect("writable");
        repository.commit("one");
        repository
    }

    /// Commits a version of the app.
    fn commit(&self, version: &str) {
        std::fs::write(self.0.join("source.txt"), version).expect("writable");
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "-m", version]);
    }

    fn git(&self, arguments: &[&str]) {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .expect("git is installed");
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Declares the app; its build takes long enough that a kill can land in it.
pub fn declare(cluster: &Cluster, repository: &Repository) {
    let manifest = format!(
        "kind: app\nname: web\nspec:\n  source: {{repository: '{}', ref: main}}\n  build: sleep 0.3; cp source.txt \
         version.txt\n  run: exec python3 app.py\n  health: {{http_path: /}}\n  drain_ms: 1000\n  routes:\n    - host: \
         web.test\n",
        repository.0.display()
    );
    let file = cluster.dir.path().join("app.yaml");
    std::fs::write(&file, manifest).expect("writable");
    cluster.ok(&["apply", "-f", file.to_str().expect("UTF-8")]);
}

/// What the app says through a node's ingress.
fn get(http: &reqwest::blocking::Client, node: &Node) -> Result<String, String> {
    let answer = http
        .get(format!("http://{}/", node.ingress))
        .header("Host", "web.test")
        .send();
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {text}"))
    }
}

#[test]
fn deploys_and_rollbacks_fail_no_request() {
    let cluster = Cluster::start(3);
    let sources = tempfile::tempdir().expect("a directory");
    let repository = Repository::create(sources.path());
    declare(&cluster, &repository);
    cluster.ok(&["deploy", "web", "--ref", "main"]);
    for node in &cluster.nodes {
        eventually("the first version is served", || {
            get(&cluster.http, node).is_ok_and(|text| text == "one")
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let node = cluster.nodes[client % 3].clone();
            std::thread::spawn(move || {
                let http = reqwest::blocking::Client::new();
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match get(&http, &node) {
                        Ok(_) => {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => failed.push(error),
                    }
                }
                failed
            })
        })
        .collect();
    for version in ["two", "three"] {
        repository.commit(version);
        cluster.ok(&["deploy", "web", "--ref", "main"]);
        for node in &cluster.nodes {
            eventually("the new version is served", || {
                get(&cluster.http, node).is_ok_and(|text| text == version)
            });
        }
    }
    cluster.ok(&["rollback", "web", "1"]);
    for node in &cluster.nodes {
        eventually("the first version is back", || {
            get(&cluster.http, node).is_ok_and(|text| text == "one")
        });
    }
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<String> = clients
        .into_iter()
        .flat_map(|client| client.join().expect("a client"))
        .collect();
    assert!(served.load(Ordering::Relaxed) > 100, "the load did something");
    assert!(
        failed.is_empty(),
        "{} requests failed, the first with {}",
        failed.len(),
        failed[0]
    );
}

/// The newest rollout of the app, as some node that lives has it.
fn newest_rollout(cluster: &Cluster, through: &Node) -> Option<serde_json::Value> {
    let url = format!("{}/v1/apps/web/rollouts?limit=1&consistency=local", through.http);
    let page: serde_json::Value = cluster.http.get(url).send().ok()?.json().ok()?;
    page["items"].get(0).cloned()
}

#[test]
fn a_node_killed_in_any_step_of_a_rollout_finishes_it_once() {
    let cluster = Cluster::start(3);
    let sources = tempfile::tempdir().expect("a directory");
    let repository = Repository::create(sources.path());
    declare(&cluster, &repository);
    cluster.ok(&["deploy", "web", "--ref", "main"]);
    let mut revived = Vec::new();
    for step in ["fetching", "building", "starting", "checking", "draining"] {
        repository.commit(step);
        cluster.ok(&["deploy", "web", "--ref", "main", "--no-wait"]);
        // The kill lands in this step or, where that is over too soon to be seen, in a later one.
        let deadline = Instant::now() + PATIENCE;
        let order = [
            "queued",
            "fetching",
            "building",
            "starting",
            "checking",
            "switching",
            "draining",
            "done",
        ];
        let place = |name: &str| order.iter().position(|step| *step == name);
        let worker = loop {
            assert!(Instant::now() < deadline, "the rollout never came to {step}");
            let Some(rollout) = cluster
                .nodes
                .iter()
                .find_map(|node| newest_rollout(&cluster, node))
            else {
                continue;
            };
            let at = place(rollout["step"].as_str().expect("a step")).expect("a known step");
            if let Some(node) = rollout["node"]
                .as_u64()
                .filter(|_| at >= place(step).expect("known"))
            {
                break node;
            }
        };
        cluster.kill(worker);
        // A process of an earlier round is dropped first: it is the one that was just killed, or still runs.
        revived.retain(|(node, _)| *node != worker);
        revived.push((worker, cluster.revive(worker)));
        for node in &cluster.nodes {
            eventually("the new version is served", || {
                get(&cluster.http, node).is_ok_and(|text| text == step)
            });
        }
        eventually("the rollout is done", || {
            newest_rollout(&cluster, &cluster.nodes[0]).is_some_and(|rollout| rollout["step"] == "done")
        });
        eventually("exactly one instance runs", || instances(&cluster) == 1);
    }
}

#[test]
fn what_runs_on_a_node_that_is_removed_goes_on_elsewhere_and_is_not_left_behind() {
    let cluster = Cluster::start(3);
    let sources = tempfile::tempdir().expect("a directory");
    let repository = Repository::create(sources.path());
    declare(&cluster, &repository);
    cluster.ok(&["deploy", "web", "--ref", "main"]);
    let list = cluster.ok(&["app", "instances", "web", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let home = list["items"][0]["node"].as_u64().expect("a node");
    cluster.ok(&["cluster", "remove", &home.to_string(), "--yes"]);
    for node in cluster.others(home) {
        eventually("it is served without the node", || {
            get(&cluster.http, node).is_ok_and(|text| text == "one")
        });
    }
    eventually("the node is gone, and what it ran", || {
        cluster.status(cluster.node(home)).is_none() && instances(&cluster) == 1
    });
    // What it ran may be gone before all of that is recorded.
    eventually("one instance is active, elsewhere", || {
        let list = cluster.ok(&["app", "instances", "web", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
        let running = list["items"].as_array().expect("items").iter();
        let active: Vec<_> = running.filter(|instance| instance["state"] == "active").collect();
        active.len() == 1 && active[0]["node"] != home
    });
}

/// How many processes of the app run on this machine, for this cluster.
fn instances(cluster: &Cluster) -> usize {
    let status = cluster.nodes.iter().find_map(|node| cluster.status(node));
    let cluster_id = status.expect("status")["cluster_id"].clone();
    instances_of(cluster_id.as_str().expect("an id"))
}

/// The same for the cluster of this id.
pub fn instances_of(cluster_id: &str) -> usize {
    let mark = format!("ONWARD_INSTANCE={cluster_id}/");
    let mut found = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let marked = environment
            .split(|byte| *byte == 0)
            .any(|pair| pair.starts_with(mark.as_bytes()));
        if marked && command.starts_with(b"python3\0") {
            found += 1;
        }
    }
    found
}
