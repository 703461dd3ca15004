//! Where a run keeps what it leaves behind.

use super::Options;
use crate::matrix::Combination;
use crate::nemesis::Plan;
use crate::net::Isolation;
use crate::verdict::Verdict;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `run.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// What clients asked.
    pub workload: String,
    /// What was done to the cluster.
    pub nemeses: Vec<String>,
    /// How many nodes.
    pub nodes: u64,
    /// How long clients and faults went on together, in seconds.
    pub seconds: f64,
    /// What everything was drawn from.
    pub seed: u64,
    /// How many clients.
    pub clients: u64,
    /// How nodes were kept apart; on loopback some faults cannot be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// When it began, RFC 3339.
    #[serde(default)]
    pub started: String,
    /// What the binary says that it is.
    pub version: String,
    /// The command that repeats it.
    pub command: String,
    /// Why the harness did not come to the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Whether the harness came to an end at all.
    #[serde(default)]
    pub finished: bool,
}

/// The directory of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// A new one below `options.dir`.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn create(options: &Options) -> anyhow::Result<Directory> {
        let combination = Combination {
            workload: options.workload.clone(),
            nemeses: options.nemeses.clone(),
            seed: options.seed,
        };
        let now = chrono::Utc::now();
        let name = match &options.name {
            Some(name) => name.clone(),
            None => format!("{}-{}", now.format("%Y%m%dT%H%M%S%.3f"), combination.name()),
        };
        let path = options.dir.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let path = path.canonicalize()?;
        let directory = Directory(path);
        directory.save(&RunFile {
            workload: options.workload.clone(),
            nemeses: options.nemeses.clone(),
            nodes: options.nodes,
            seconds: options.time.as_secs_f64(),
            seed: options.seed,
            clients: options.clients,
            isolation: Some(options.isolation),
            started: now.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            version: version(&options.binary),
            command: command(options),
            failure: None,
            finished: false,
        })?;
        Ok(directory)
    }

    /// That of an earlier run.
    ///
    /// # Errors
    /// Where there is no run in it.
    pub fn open(path: &Path) -> anyhow::Result<Directory> {
        let directory = Directory(
            path.canonicalize()
                .with_context(|| format!("{}", path.display()))?,
        );
        directory.run()?;
        Ok(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the nodes keep theirs.
    pub fn nodes(&self) -> PathBuf {
        self.0.join("nodes")
    }

    /// What was run.
    ///
    /// # Errors
    /// Where `run.json` cannot be read.
    pub fn run(&self) -> anyhow::Result<RunFile> {
        let path = self.0.join("run.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Removes what the nodes kept, which is large and of no use where nothing is wrong. Their logs stay.
    ///
    /// # Errors
    /// Where that cannot be removed.
    pub fn drop_data(&self) -> anyhow::Result<()> {
        for node in std::fs::read_dir(self.nodes())? {
            let node = node?.path();
            for kept in ["data", "disk"] {
                let path = node.join(kept);
                if path.is_dir() {
                    std::fs::remove_dir_all(&path)
                        .with_context(|| format!("cannot remove {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Writes down, for people, what is going to be done to the cluster.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn save_plan(&self, plan: &Plan) -> anyhow::Result<()> {
        let path = self.0.join("plan.txt");
        std::fs::write(&path, plan.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Notes that the harness came to its end, and why before time.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn finish(&self, failure: Option<String>) -> anyhow::Result<()> {
        self.save(&RunFile {
            failure,
            finished: true,
            ..self.run()?
        })
    }

    fn save(&self, run: &RunFile) -> anyhow::Result<()> {
        self.write("run.json", run)
    }

    /// The judgement of an earlier time; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn verdicts(&self) -> anyhow::Result<Option<Vec<Verdict>>> {
        match std::fs::read(self.0.join("verdicts.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes `verdicts.json`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save_verdicts(&self, verdicts: &[Verdict]) -> anyhow::Result<()> {
        self.write("verdicts.json", verdicts)
    }

    fn write(&self, name: &str, value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
        let path = self.0.join(name);
        let text = serde_json::to_string_pretty(value)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The command that repeats a run.
fn command(options: &Options) -> String {
    let seconds = options.time.as_secs_f64();
    let mut command = format!("onward-jepsen run --workload {}", options.workload);
    if !options.nemeses.is_empty() {
        command += &format!(" --nemesis {}", options.nemeses.join(","));
    }
    command += &format!(
        " --nodes {} --time {seconds} --seed {} --clients {}",
        options.nodes, options.seed, options.clients
    );
    if let Some(rate) = options.rate {
        command += &format!(" --rate {rate}");
    }
    command
}

/// What the binary under test says that it is; empty where it cannot say.
fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
