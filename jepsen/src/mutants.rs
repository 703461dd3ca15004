//! Hunts for planted bugs: each has to be found by a check that is named here, within the time that is stated here.
//!
//! A hunt starts this program again with `ONWARD_MUTANT` set, which plants the bug in the nodes that it starts, or in the
//! simulated ones, and looks at what is judged wrong. It goes on with the next seed until one of the named checks fails
//! or time is up. Some other check that fails, or a cluster that does not come up, is no catch.

use crate::run::Directory;
use crate::verdict::{Finding, Kind};
use anyhow::{Context, bail, ensure};
use onward_statemachine::mutant::Mutant;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a bug is hunted.
#[derive(Debug, Clone, Copy)]
pub struct Hunt {
    /// The bug.
    pub mutant: Mutant,
    /// Where.
    pub ground: Ground,
    /// The checks of which one has to find it.
    pub checks: &'static [&'static str],
    /// How long it may take.
    pub within: Duration,
}

/// Where a bug is hunted.
#[derive(Debug, Clone, Copy)]
pub enum Ground {
    /// In runs of real processes.
    Run {
        /// The workload.
        workload: &'static str,
        /// The nemeses.
        nemeses: &'static [&'static str],
        /// How long each run goes on under faults.
        seconds: u64,
    },
    /// In the simulator.
    Simulator,
}

const fn run(
    mutant: Mutant,
    workload: &'static str,
    nemeses: &'static [&'static str],
    checks: &'static [&'static str],
) -> Hunt {
    Hunt {
        mutant,
        ground: Ground::Run {
            workload,
            nemeses,
            seconds: 10,
        },
        checks,
        within: Duration::from_secs(120),
    }
}

const fn simulate(mutant: Mutant, checks: &'static [&'static str]) -> Hunt {
    Hunt {
        mutant,
        ground: Ground::Simulator,
        checks,
        within: Duration::from_secs(300),
    }
}

/// All hunts: one for each bug.
pub const HUNTS: &[Hunt] = &[
    simulate(Mutant::AckBeforeSync, &["real-time", "model", "replicas"]),
    run(
        Mutant::StaleRead,
        "register",
        &["partition"],
        &["linearizable", "log-index"],
    ),
    run(Mutant::ApplyTwice, "deploy", &[], &["deploy", "log-index"]),
    simulate(
        Mutant::VoteNotPersisted,
        &["log-index", "linearizable", "append", "real-time"],
    ),
    simulate(Mutant::PurgeBeforeSnapshot, &["model", "replicas"]),
    run(
        Mutant::DuplicateTableOff,
        "idempotency",
        &[],
        &["once", "versions", "log-index"],
    ),
    Hunt {
        // A node that stops is waited for, twice, before the others are read.
        within: Duration::from_secs(300),
        ..run(Mutant::TtlByWallClock, "lock", &[], &["replicas", "state-hash"])
    },
    run(Mutant::LostWatch, "watch", &[], &["watch"]),
    run(
        Mutant::IpamNotUnique,
        "machines",
        &[],
        &["machines", "placements", "log-index"],
    ),
    run(Mutant::RolloutStepRepeated, "deploy", &["kill"], &["effects"]),
    simulate(Mutant::StateBitFlip, &["state-hash"]),
    run(Mutant::BackupTorn, "backup", &[], &["backup"]),
    run(Mutant::PastOffByOne, "register", &[], &["past", "log-index"]),
    Hunt {
        // It is given as long to stop as a node with apps may need.
        within: Duration::from_secs(300),
        ..run(Mutant::RemovedStays, "register", &["member"], &["removal"])
    },
    simulate(
        Mutant::HandoverKeepsReads,
        &["log-index", "linearizable", "append", "real-time"],
    ),
    simulate(
        Mutant::PromiseForgotten,
        &["log-index", "linearizable", "append", "real-time"],
    ),
];

/// Seeds that the simulator is given at a time.
const SEEDS: u64 = 5;

/// How a bug was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catch {
    /// The seed that shows it.
    pub seed: u64,
    /// The check that found it.
    pub check: String,
    /// What that said.
    pub said: String,
}

/// What a hunt came to.
#[derive(Debug, Clone)]
pub struct Hunted {
    /// Which.
    pub hunt: Hunt,
    /// How the bug was found; `None` where it survived.
    pub caught: Option<Catch>,
    /// How long it took.
    pub took: Duration,
}

impl Hunt {
    /// Hunts, with seeds from `first` on. What runs leave behind is below `dir`.
    ///
    /// # Errors
    /// Where this program or `binary` cannot be started.
    pub fn hunt(self, binary: &Path, dir: &Path, first: u64) -> anyhow::Result<Hunted> {
        let began = Instant::now();
        let dir = dir.join(self.mutant.name());
        let mut seed = first;
        let mut caught = None;
        while caught.is_none() && began.elapsed() < self.within {
            (caught, seed) = match self.ground {
                Ground::Simulator => (self.simulate(seed)?, seed + SEEDS),
                Ground::Run { .. } => (self.run(binary, &dir, seed)?, seed + 1),
            };
        }
        Ok(Hunted {
            hunt: self,
            caught,
            took: began.elapsed(),
        })
    }

    /// What is done, as a command line without seed.
    pub fn how(self) -> String {
        match self.ground {
            Ground::Simulator => "sim".to_owned(),
            Ground::Run {
                workload,
                nemeses,
                seconds,
            } => {
                let mut how = format!("run --workload {workload}");
                if !nemeses.is_empty() {
                    how += &format!(" --nemesis {}", nemeses.join(","));
                }
                how + &format!(" --time {seconds}")
            }
        }
    }

    fn command(self) -> anyhow::Result<Command> {
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(own);
        command.args(self.how().split(' '));
        command.env("ONWARD_MUTANT", self.mutant.name());
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    fn run(self, binary: &Path, dir: &Path, seed: u64) -> anyhow::Result<Option<Catch>> {
        let dir = dir.join(seed.to_string());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let mut command = self.command()?;
        command.args(["--seed", &seed.to_string()]).arg("--dir").arg(&dir);
        let status = command.arg("--binary").arg(binary).stdout(Stdio::null()).status();
        status.context("cannot start a run")?;
        let made = std::fs::read_dir(&dir).with_context(|| format!("no run in {}", dir.display()))?;
        let Some(made) = made.flatten().next() else {
            bail!("no run in {}", dir.display());
        };
        let verdicts = Directory::open(&made.path())?.verdicts()?.unwrap_or_default();
        // The report says what was found; the data of nodes with a planted bug are of no use, and large.
        let nodes = made.path().join("nodes");
        if nodes.exists() {
            std::fs::remove_dir_all(&nodes).with_context(|| format!("cannot remove {}", nodes.display()))?;
        }
        let found = verdicts.into_iter().find(|verdict| {
            let fails = verdict.kind == Kind::Property && verdict.finding == Finding::Fail;
            fails && self.checks.contains(&verdict.check.as_str())
        });
        Ok(found.map(|verdict| Catch {
            seed,
            check: verdict.check,
            said: verdict.summary,
        }))
    }

    fn simulate(self, seed: u64) -> anyhow::Result<Option<Catch>> {
        let mut command = self.command()?;
        command.args(["--start", &seed.to_string(), "--seeds", &SEEDS.to_string()]);
        let output = command.output().context("cannot start the simulator")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() || said.contains(" fails"),
            "the simulator broke off: {said}"
        );
        Ok(found_in_simulation(&said, self.checks))
    }
}

/// The first seed in the simulator's output that one of `checks` fails on, and what it says.
fn found_in_simulation(said: &str, checks: &[&str]) -> Option<Catch> {
    let mut seed = None;
    for line in said.lines() {
        let number = line
            .strip_prefix("seed ")
            .and_then(|rest| rest.strip_suffix(" fails"));
        let property = line
            .strip_prefix("  Property ")
            .and_then(|rest| rest.split_once(": "));
        if let Some(number) = number {
            seed = number.parse().ok();
        } else if let (Some((check, said)), Some(seed)) = (property, seed)
            && checks.contains(&check)
        {
            return Some(Catch {
                seed,
                check: check.to_owned(),
                said: said.to_owned(),
            });
        }
    }
    None
}

/// What is hunted, with what, and where its runs are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only these bugs, comma-separated
    #[arg(long, value_delimiter = ',', value_parser = named)]
    only: Vec<Mutant>,
    /// A build of the server with the feature `mutants`; the `onward` beside this program without it
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where runs are kept
    #[arg(long, default_value = "jepsen/store/mutants")]
    dir: PathBuf,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn named(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| {
        let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        format!("there is no such bug; there are {}", names.join(", "))
    })
}

impl Options {
    /// Hunts one after another, and hands each result to `tell`. Whether all were caught.
    ///
    /// # Errors
    /// Where a hunt cannot be held.
    pub fn hunt(&self, mut tell: impl FnMut(&Hunted)) -> anyhow::Result<bool> {
        let binary = match &self.binary {
            Some(binary) => binary.clone(),
            None => std::env::current_exe()?.with_file_name("onward"),
        };
        let mut all = true;
        let wanted = |hunt: &&Hunt| self.only.is_empty() || self.only.contains(&hunt.mutant);
        for hunt in HUNTS.iter().filter(wanted) {
            let hunted = hunt.hunt(&binary, &self.dir, self.seed)?;
            all &= hunted.caught.is_some();
            tell(&hunted);
        }
        Ok(all)
    }
}

/// Plants the bug that `ONWARD_MUTANT` names into this process, for the simulator.
///
/// # Errors
/// Where there is no such bug.
pub fn plant() -> anyhow::Result<()> {
    let Ok(name) = std::env::var("ONWARD_MUTANT") else {
        return Ok(());
    };
    let mutant = named(&name).map_err(|error| anyhow::anyhow!("ONWARD_MUTANT: {error}"))?;
    onward_statemachine::mutant::plant(mutant, || onward_statemachine::Millis(0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_bug_is_hunted_once() {
        let hunted: BTreeSet<Mutant> = HUNTS.iter().map(|hunt| hunt.mutant).collect();
        assert_eq!(hunted, BTreeSet::from(Mutant::ALL));
        assert_eq!(HUNTS.len(), Mutant::ALL.len());
    }

    #[test]
    fn only_the_named_check_is_a_catch() {
        let said = "seed 3 fails\n  Liveness recovery: no\n  Property replicas: one\n  undecided: Property append: 0 calls\n\
            seed 5 fails\n  Property append: G0\n";
        let seed_of = |check| found_in_simulation(said, &[check]).map(|caught| caught.seed);
        assert_eq!(seed_of("append"), Some(5));
        assert_eq!(seed_of("replicas"), Some(3));
        assert_eq!(seed_of("recovery"), None);
        assert_eq!(
            found_in_simulation("nothing was found wrong\n", &["append"]),
            None
        );
    }
}
