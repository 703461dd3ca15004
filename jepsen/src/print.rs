//! What is told to people on standard output.
#![expect(clippy::print_stdout, reason = "what is printed is the answer of the command")]

use crate::matrix::Row;
use crate::run::Ran;
use crate::verdict::{Finding, Verdict, overall};
use std::path::Path;

/// How many lines of what is wrong are shown; all are in the files.
const DETAILS_MAX: usize = 10;

/// A table of verdicts, where the run and its page are, and how to repeat it.
pub fn verdicts(ran: &Ran, page: &Path) {
    println!("{:<10}{:<14}{:<9}SUMMARY", "KIND", "CHECK", "FINDING");
    for verdict in &ran.verdicts {
        let Verdict {
            kind,
            check,
            finding,
            summary,
            details,
            ..
        } = verdict;
        println!("{:<10}{check:<14}{:<9}{summary}", word(kind), word(finding));
        for detail in details.iter().take(DETAILS_MAX) {
            println!("{:<33}{detail}", "");
        }
        if details.len() > DETAILS_MAX {
            println!("{:<33}and {} more", "", details.len() - DETAILS_MAX);
        }
    }
    println!();
    println!("run      {}", ran.directory.path().display());
    println!("report   {}", page.display());
    if let Ok(run) = ran.directory.run() {
        println!("repeat   {}", run.command);
    }
    println!("overall  {}", word(&overall(&ran.verdicts)));
}

/// Where something was written.
pub fn path(path: &Path) {
    println!("{}", path.display());
}

/// The heading of the table of a matrix.
pub fn matrix_head() {
    println!(
        "{:<44}{:>8}{:>7}{:>6}{:>8}  FINDING",
        "RUN", "OK", "FAIL", "INFO", "FAULTS"
    );
}

/// One run of a matrix.
pub fn matrix_row(row: &Row) {
    let [ok, fail, info] = row.operations;
    let faults: u64 = row.faults.values().sum();
    println!(
        "{:<44}{ok:>8}{fail:>7}{info:>6}{faults:>8}  {}",
        row.run,
        word(&row.overall)
    );
    for wrong in &row.wrong {
        println!("{:<6}{wrong}", "");
    }
}

/// What all runs of a matrix come to, and where they are.
pub fn matrix_end(rows: &[Row], page: &Path) {
    let passed = rows.iter().filter(|row| row.overall == Finding::Pass).count();
    println!("\n{passed} of {} runs pass: {}", rows.len(), page.display());
}

/// How much of what a check said stands in the table of planted bugs.
#[cfg(feature = "mutants")]
const SAID_MAX: usize = 110;

/// The head of the table of planted bugs.
#[cfg(feature = "mutants")]
pub fn hunt_head() {
    println!(
        "| planted bug | hunted by | found by | allowed | took | seed | what it said |\n|---|---|---|---|---|---|---|"
    );
}

/// A planted bug, as a row.
#[cfg(feature = "mutants")]
pub fn hunted(hunted: &crate::mutants::Hunted) {
    let hunt = hunted.hunt;
    let (found, seed, said) = match &hunted.caught {
        Some(catch) => (catch.check.as_str(), catch.seed.to_string(), catch.said.as_str()),
        None => ("**nobody**", "–".to_owned(), ""),
    };
    println!(
        "| {} | `{}` | {found} | {} s | {} s | {seed} | {} |",
        hunt.mutant.name(),
        hunt.how(),
        hunt.within.as_secs(),
        hunted.took.as_secs(),
        said.chars()
            .take(SAID_MAX)
            .collect::<String>()
            .replace('|', "\\|")
    );
}

/// The workloads or the nemeses, a line each.
pub fn workloads(names: &[(&str, &str)]) {
    for (name, about) in names {
        println!("{name:<14}{about}");
    }
}

/// The name that a value has in files too.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
