//! Apps are deployed, rolled back and restarted by many at once, out of a real repository onto real processes.
//!
//! Every process writes a line into a ledger as it starts: the mark of its instance. So the ledger tells what really took
//! effect, and how often, whatever was logged: an instance that is in it twice was started twice.

mod judge;

use super::{Demand, Evidence, Script, Seat, Workload, asked};
use crate::client::{Answer, Client, Level};
use crate::verdict::Verdict;
use anyhow::{Context, ensure};
use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use uuid::Uuid;

/// How many apps there are: enough for rollouts to finish before the next one supersedes them, now and then.
const APPS: u64 = 5;
/// How many versions the repository has, each a tag.
const VERSIONS: u64 = 3;

/// Listens on its port, which is all that its health check asks.
const SOURCE: &str = "import os, socket
server = socket.create_server((os.environ['HOST'], int(os.environ['PORT'])))
while True:
    server.accept()[0].close()
";
const RUN: &str = r#"printf '%s\n' "$ONWARD_INSTANCE" >>"$LEDGER"; exec python3 app.py"#;

/// See the module.
pub(super) struct Deploy {
    /// Where the repository and the ledger are.
    dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    /// The app's number.
    key: u64,
    /// Which version to deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl Asked {
    fn path(&self) -> String {
        format!("/v1/apps/{}", app(self.key))
    }
}

fn app(number: u64) -> String {
    format!("deploy-{number}")
}

impl Deploy {
    pub(super) fn new(dir: &Path) -> Self {
        Deploy { dir: dir.to_owned() }
    }

    fn repository(&self) -> PathBuf {
        self.dir.join("app.git")
    }

    fn ledger(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// Makes the repository, a tag for each version.
    fn make_repository(&self) -> anyhow::Result<()> {
        let path = self.repository();
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path)?;
        git(&path, &["init", "--quiet", "--initial-branch=main"])?;
        std::fs::write(path.join("app.py"), SOURCE)?;
        for version in 0..VERSIONS {
            std::fs::write(path.join("version"), version.to_string())?;
            git(&path, &["add", "."])?;
            git(&path, &["commit", "--quiet", "-m", "a version"])?;
            git(&path, &["tag", &format!("v{version}")])?;
        }
        Ok(())
    }

    fn spec(&self) -> Value {
        json!({
            "source": {"repository": self.repository(), "ref": "v0"},
            "run": RUN,
            "protocol": "tcp",
            "env": {"LEDGER": self.ledger()},
            "health": {"interval_ms": 100},
            "stop_grace_ms": 500,
            "drain_ms": 200,
        })
    }
}

fn git(repository: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("git")
        .args(["-c", "user.name=jepsen", "-c", "user.email=jepsen@localhost"])
        .args(arguments)
        .current_dir(repository)
        .output()
        .context("the deploy workload needs git")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {arguments:?}: {said}");
    Ok(())
}

impl Workload for Deploy {
    fn name(&self) -> &'static str {
        "deploy"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &["deploy", "rollback", "restart", "read"]
    }

    fn operations_per_second(&self) -> f64 {
        8.0
    }

    fn final_reads(&self) -> &'static [&'static str] {
        &["/v1/apps", "/v1/instances"]
    }

    fn setup<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(async move {
            self.make_repository()?;
            for number in 0..APPS {
                let path = format!("/v1/apps/{}", app(number));
                let request = client.write(Method::PUT, &path, Uuid::now_v7());
                let answer = request.json(&self.spec()).send().await;
                ensure!(answer.is_ok(), "no app: {}", answer.error.unwrap_or_default());
            }
            Ok(())
        })
    }

    fn script(&self, seat: Seat) -> Box<dyn Script> {
        Box::new(Deploying { rng: seat.rng() })
    }

    fn judge(&self, evidence: &Evidence<'_>) -> anyhow::Result<Vec<Verdict>> {
        let ledger = std::fs::read_to_string(self.ledger()).unwrap_or_default();
        judge::judge(evidence, &ledger)
    }
}

struct Deploying {
    rng: ChaCha8Rng,
}

impl Script for Deploying {
    fn next(&mut self) -> Demand {
        let mut asked = Asked {
            key: self.rng.random_range(0..APPS),
            version: None,
        };
        match self.rng.random_range(0..100) {
            0..9 => {
                asked.version = Some(self.rng.random_range(0..VERSIONS));
                Demand::write("deploy", json!(asked))
            }
            9..27 => Demand::write("rollback", json!(asked)),
            27..45 => Demand::write("restart", json!(asked)),
            _ => Demand::read("read", json!(asked)),
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
            let path = asked.path();
            if demand.f == "read" {
                let answer = client.get(&path, Level::Linearizable).send().await;
                return answer.map(|app| {
                    let serving = &app["serving"];
                    json!({"rollout": serving["rollout"], "active": serving["active"]["instance"]})
                });
            }
            let body = match (demand.f, asked.version) {
                ("deploy", Some(version)) => json!({"ref": format!("v{version}")}),
                ("restart", _) => json!({"reason": "test"}),
                _ => json!({}),
            };
            let request = client.write(Method::POST, &format!("{path}/{}", demand.f), command);
            request
                .json(&body)
                .send()
                .await
                .map(|body| body["rollout"].clone())
        })
    }

    fn learn(&mut self, _demand: &Demand, _answer: &Answer) {}
}
