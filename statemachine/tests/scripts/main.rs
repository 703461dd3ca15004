//! Golden scripts: commands in; outcome, events and changed rows out; all rules checked after every step.
//!
//! A script is `statemachine/scripts/AREA/reads_as_a_sentence.txt`. Its indented lines are what the state machine
//! answered; the rest is input. `UPDATE_SCRIPTS=1 cargo test -p onward-statemachine --test scripts` writes the answers
//! anew: read the difference before you commit it. See `notation.rs` for how commands are written, `run.rs` for the
//! lines of a script.
//!
//! Each script ends with checksums of the bytes of its log entries, journal and rows. Where they change and the text
//! above does not, a stored encoding changed, and old data directories no longer read.

mod notation;
mod run;
mod variants;

use run::Run;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};
use variants::Names;

/// What no script can show; why stands beside it.
const NOT_SHOWN: [&str; 0] = [];

fn scripts() -> Vec<PathBuf> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder of the scripts is readable") {
            let path = entry.expect("its entries are too").path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "txt") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts"), &mut found);
    found.sort();
    found
}

fn name(path: &Path) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

#[test]
fn scripts_answer_as_recorded() {
    let update = env::var_os("UPDATE_SCRIPTS").is_some_and(|value| value == "1");
    let scripts = scripts();
    assert!(!scripts.is_empty(), "there are no scripts");
    let mut failures = Vec::new();
    for path in scripts {
        let recorded = fs::read_to_string(&path).expect("a script is readable");
        let run = Run::of(&recorded).unwrap_or_else(|error| panic!("{}: {error}", name(&path)));
        if !run.violations.is_empty() {
            failures.push(format!(
                "{}: broken rules:\n{}",
                name(&path),
                run.violations.join("\n")
            ));
        }
        if run.text == recorded {
            continue;
        }
        if update {
            fs::write(&path, &run.text).expect("a script is writable");
        } else {
            failures.push(format!(
                "{}: {}",
                name(&path),
                first_difference(&recorded, &run.text)
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{}\n(UPDATE_SCRIPTS=1 records what is answered now)",
        failures.join("\n\n")
    );
}

fn first_difference(recorded: &str, answered: &str) -> String {
    let (mut recorded, mut answered) = (recorded.lines(), answered.lines());
    let mut number = 0;
    loop {
        number += 1;
        let (was, is) = (recorded.next(), answered.next());
        if was != is {
            let [was, is] = [was, is].map(|line| line.unwrap_or("(the end)"));
            return format!("line {number}\n  recorded: {was}\n  answered: {is}");
        }
        if was.is_none() {
            return "only line ends differ".to_owned();
        }
    }
}

/// Every command, event and refusal of every area is shown by some script.
#[test]
fn scripts_show_everything_that_can_happen() {
    let mut shown = Names::default();
    for path in scripts() {
        let recorded = fs::read_to_string(&path).expect("a script is readable");
        let run = Run::of(&recorded).unwrap_or_else(|error| panic!("{}: {error}", name(&path)));
        shown.extend(run.names);
    }
    let declared = variants::declared();
    for name in NOT_SHOWN {
        let all = [&shown.commands, &shown.events, &shown.refusals];
        assert!(
            !all.iter().any(|set| set.contains(name)),
            "{name} is shown after all"
        );
    }
    let missing = |declared: &BTreeSet<String>, shown: &BTreeSet<String>| -> Vec<String> {
        let missing = declared.difference(shown).cloned();
        missing
            .filter(|name| !NOT_SHOWN.contains(&name.as_str()))
            .collect()
    };
    let missing = [
        ("commands", missing(&declared.commands, &shown.commands)),
        ("events", missing(&declared.events, &shown.events)),
        ("refusals", missing(&declared.refusals, &shown.refusals)),
    ];
    let report: Vec<String> = missing
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} that no script shows: {}", names.join(", ")))
        .collect();
    assert!(report.is_empty(), "{}", report.join("\n"));
}
