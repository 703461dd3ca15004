//! What is told to people on standard output.
#![expect(clippy::print_stdout, reason = "what is printed is the answer of the command")]

use crate::run::Ran;
use crate::verdict::{Verdict, overall};
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

/// The workloads, a line each.
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
