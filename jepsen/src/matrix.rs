//! Many runs, one after another: a few for every commit, all workloads under all faults for the night.
//!
//! Each run has a name that says what it is, so a matrix that broke off goes on where it was: what is judged already in
//! its directory is not run again.

use crate::history::{self, Outcome, Record};
use crate::run::{self, Directory, Options, Ran};
use crate::verdict::{Finding, Kind, Verdict, overall};
use crate::workload;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

/// What is run together, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combination {
    /// The workload.
    pub workload: String,
    /// Its nemeses.
    pub nemeses: Vec<String>,
    /// What it is drawn from.
    pub seed: u64,
}

/// For every commit: three workloads that between them need every part of a node, under the faults that find most.
const SMOKE: [(&str, &[&str]); 3] = [
    ("register", &["kill", "partition"]),
    ("append", &["pause", "partition"]),
    ("lock", &["kill", "pause"]),
];

/// For the night: every workload meets each of these, and between them they are all that there is.
const NIGHTLY: [&[&str]; 9] = [
    &["kill", "partition"],
    &["pause", "slow"],
    &["clock", "restart"],
    &["snapshot", "lossy"],
    &["replace", "rolling"],
    &["power", "unsynced", "torn"],
    &["eio", "slow-disk"],
    &["full", "bitflip"],
    &["member", "transfer"],
];

/// Every so-manieth of the combinations, for one of the processes or machines that share a matrix. Once all are through,
/// the whole matrix over their directories is the table of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which one: from 1 to `of`.
    number: usize,
    /// Of how many.
    of: usize,
}

impl Shard {
    /// Those of `combinations` that are this one's.
    pub fn share(self, combinations: Vec<Combination>) -> Vec<Combination> {
        let mine = combinations.into_iter().skip(self.number - 1);
        mine.step_by(self.of).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text
            .split_once('/')
            .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Shard { number, of }),
            _ => Err("a shard is K/N, with K from 1 to N: the first of two is 1/2".to_owned()),
        }
    }
}

/// The combinations of the small matrix.
pub fn smoke(seed: u64) -> Vec<Combination> {
    let each = SMOKE.iter().zip(seed..);
    let each = each.map(|((workload, nemeses), seed)| combination(workload, nemeses, seed));
    each.collect()
}

/// The combinations of the whole one.
pub fn nightly(seed: u64) -> Vec<Combination> {
    let each = workload::NAMES
        .iter()
        .flat_map(|(workload, _)| NIGHTLY.iter().map(move |nemeses| (workload, nemeses)));
    let each = each.zip(seed..);
    let each = each.map(|((workload, nemeses), seed)| combination(workload, nemeses, seed));
    each.collect()
}

fn combination(workload: &str, nemeses: &[&str], seed: u64) -> Combination {
    Combination {
        workload: workload.to_owned(),
        nemeses: nemeses.iter().map(|name| (*name).to_owned()).collect(),
        seed,
    }
}

impl Combination {
    /// The name of its run.
    pub fn name(&self) -> String {
        let nemeses = if self.nemeses.is_empty() {
            "none".to_owned()
        } else {
            self.nemeses.join("+")
        };
        format!("{}-{nemeses}-{}", self.workload, self.seed)
    }
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The name of the run, and of its directory.
    pub run: String,
    /// Operations by what is known of them: ok, fail, info.
    pub operations: [u64; 3],
    /// How often each nemesis struck.
    pub faults: BTreeMap<String, u64>,
    /// The worst finding of each kind of verdict.
    pub findings: BTreeMap<Kind, Finding>,
    /// What all come to.
    pub overall: Finding,
    /// What is wrong, a line each.
    pub wrong: Vec<String>,
}

impl Row {
    /// The row of a judged run.
    ///
    /// # Errors
    /// Where its files cannot be read.
    pub fn of(ran: &Ran) -> anyhow::Result<Row> {
        let path = ran.directory.path();
        let records = history::read(&path.join("history.jsonl")).unwrap_or_default();
        let mut operations = [0; 3];
        for call in history::calls(&records)? {
            operations[match call.outcome() {
                Outcome::Ok => 0,
                Outcome::Fail => 1,
                Outcome::Info => 2,
            }] += 1;
        }
        let mut faults = BTreeMap::new();
        for record in &records {
            if let Record::Fault(fault) = record
                && fault.edge != history::Edge::End
            {
                *faults.entry(fault.nemesis.clone()).or_default() += 1;
            }
        }
        let mut findings: BTreeMap<Kind, Finding> = BTreeMap::new();
        for Verdict { kind, finding, .. } in &ran.verdicts {
            let worst = findings.entry(*kind).or_insert(*finding);
            *worst = (*worst).max(*finding);
        }
        let wrong = ran
            .verdicts
            .iter()
            .filter(|verdict| verdict.finding != Finding::Pass);
        let name = path.file_name().unwrap_or_default();
        Ok(Row {
            run: name.to_string_lossy().into_owned(),
            operations,
            faults,
            findings,
            overall: overall(&ran.verdicts),
            wrong: wrong
                .map(|verdict| format!("{}: {}", verdict.check, verdict.summary))
                .collect(),
        })
    }
}

/// Runs all combinations that are not judged yet below `base.dir`, and tells `row` of each.
///
/// # Errors
/// Where a directory cannot be made or read.
pub async fn run(
    base: &Options,
    combinations: &[Combination],
    mut row: impl FnMut(&Row),
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for combination in combinations {
        let ran = run_one(base, combination).await?;
        let next = Row::of(&ran)?;
        row(&next);
        rows.push(next);
        // As far as it is, for whoever looks while it goes on.
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(base.dir.join("matrix.json"), text)?;
    }
    Ok(rows)
}

async fn run_one(base: &Options, combination: &Combination) -> anyhow::Result<Ran> {
    let name = combination.name();
    let path = base.dir.join(&name);
    if path.exists() {
        let judged = Directory::open(&path).and_then(|directory| {
            let verdicts = directory.verdicts()?;
            Ok(verdicts.map(|verdicts| Ran { directory, verdicts }))
        });
        if let Ok(Some(ran)) = judged {
            return Ok(ran);
        }
        // It broke off, and begins anew.
        std::fs::remove_dir_all(&path)?;
    }
    let Combination {
        workload,
        nemeses,
        seed,
    } = combination.clone();
    let options = Options {
        workload,
        nemeses,
        seed,
        name: Some(name),
        ..base.clone()
    };
    run::run(&options).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nemesis;
    use std::collections::BTreeSet;

    #[test]
    fn the_whole_matrix_has_every_workload_under_six_compositions() {
        let combinations = nightly(1);
        for (workload, _) in workload::NAMES {
            let nemeses: BTreeSet<_> = combinations
                .iter()
                .filter(|combination| combination.workload == *workload)
                .map(|combination| &combination.nemeses)
                .collect();
            assert!(nemeses.len() >= 6, "{workload}");
        }
        let names: BTreeSet<_> = combinations.iter().map(Combination::name).collect();
        assert_eq!(
            names.len(),
            combinations.len(),
            "every run has a directory of its own"
        );
    }

    #[test]
    fn the_whole_matrix_has_every_fault() {
        let met: BTreeSet<_> = NIGHTLY.iter().copied().flatten().copied().collect();
        let all: BTreeSet<_> = nemesis::Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(met, all);
    }

    #[test]
    fn shards_have_everything_once() {
        let shared = |shard: &str| shard.parse::<Shard>().expect("a shard").share(nightly(1));
        let mut names: Vec<_> = ["1/3", "2/3", "3/3"].into_iter().flat_map(shared).collect();
        names.sort_by_key(|combination| combination.seed);
        assert_eq!(names, nightly(1));
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/b"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_small_matrix_is_three_runs() {
        assert_eq!(smoke(1).len(), 3);
    }

    #[test]
    fn every_fault_of_a_matrix_is_one_that_there_is() {
        for name in smoke(1)
            .iter()
            .chain(&nightly(1))
            .flat_map(|combination| &combination.nemeses)
        {
            assert!(name.parse::<nemesis::Kind>().is_ok(), "{name}");
        }
    }
}
