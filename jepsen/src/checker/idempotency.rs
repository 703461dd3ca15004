//! Commands that are sent several times: done once, and answered alike each time.

use super::{Findings, Violation};
use crate::history::Outcome;
use std::collections::BTreeMap;
use uuid::Uuid;

/// One time that a command was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which call it is part of, by [`crate::history::Call::id`].
    pub call: u64,
    /// Which command.
    pub command: Uuid,
    /// What is known of it after this attempt. A refusal that the log took is an answer, and so `Ok`.
    pub outcome: Outcome,
    /// The revision that was answered.
    pub revision: Option<u64>,
    /// All else that was answered.
    pub said: String,
    /// Whether it changed something, if it was done: then the journal has it.
    pub changes: bool,
}

/// Whether each command was done once. `journal` is every command of the journal, as often as it is there.
pub fn check(attempts: &[Attempt], journal: &[Uuid]) -> Findings {
    let mut commands: BTreeMap<Uuid, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        commands.entry(attempt.command).or_default().push(attempt);
    }
    let mut effects: BTreeMap<Uuid, usize> = BTreeMap::new();
    for command in journal {
        *effects.entry(*command).or_default() += 1;
    }
    let answered = |attempts: &Vec<&Attempt>| {
        let answers = attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok);
        answers.count()
    };
    let several = commands
        .values()
        .filter(|attempts| answered(attempts) > 1)
        .count();
    let looked_at = format!(
        "{} commands sent {} times, {several} of them answered more than once",
        commands.len(),
        attempts.len()
    );
    let mut findings = Findings::new(looked_at, several);
    for (command, attempts) in &commands {
        let done = effects.get(command).copied().unwrap_or(0);
        findings.violations.extend(judge(*command, attempts, done));
    }
    findings
}

fn judge(command: Uuid, attempts: &[&Attempt], done: usize) -> Vec<Violation> {
    let mut calls: Vec<u64> = attempts.iter().map(|attempt| attempt.call).collect();
    calls.dedup();
    let mut violations = Vec::new();
    let mut report = |kind, summary| violations.push(Violation::new(kind, summary, calls.as_slice()));
    let answers = || attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok);
    let first = answers().next();
    for again in answers() {
        if let Some(first) = first
            && (first.revision, &first.said) != (again.revision, &again.said)
        {
            let summary = format!(
                "command {command} was answered `{}` at revision {:?}, and then `{}` at {:?}",
                first.said, first.revision, again.said, again.revision
            );
            report("two-answers", summary);
        }
    }
    if done > 1 {
        report(
            "done-twice",
            format!("command {command} is in the journal {done} times"),
        );
    }
    match first {
        Some(first) if first.changes && done == 0 => {
            report(
                "lost",
                format!("command {command} was answered, and the journal does not have it"),
            );
        }
        Some(first) if !first.changes && done > 0 => {
            report(
                "done-all-the-same",
                format!("command {command} was refused, and the journal has it"),
            );
        }
        None if done > 0 && attempts.iter().all(|attempt| attempt.outcome == Outcome::Fail) => {
            report(
                "done-all-the-same",
                format!("command {command} failed each time, and the journal has it"),
            );
        }
        _ => {}
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Finding;

    fn attempt(command: u128, outcome: Outcome, revision: u64, changes: bool) -> Attempt {
        Attempt {
            call: revision,
            command: Uuid::from_u128(command),
            outcome,
            revision: (outcome == Outcome::Ok).then_some(revision),
            said: "done".to_owned(),
            changes,
        }
    }

    #[test]
    fn a_command_is_done_once_and_answered_alike() {
        use Outcome::{Fail, Info, Ok};
        let once = [Uuid::from_u128(1)];
        let good = [
            attempt(1, Info, 0, true),
            attempt(1, Ok, 5, true),
            attempt(1, Ok, 5, true),
            attempt(2, Ok, 6, false),
            attempt(3, Info, 0, true),
            attempt(4, Fail, 0, true),
        ];
        assert_eq!(check(&good, &once).finding(), Finding::Pass);
        assert_eq!(check(&good, &[]).kinds(), ["lost"]);
        assert_eq!(check(&good, &[once[0], once[0]]).kinds(), ["done-twice"]);
        for number in [2, 4] {
            let journal = [once[0], Uuid::from_u128(number)];
            assert_eq!(check(&good, &journal).kinds(), ["done-all-the-same"]);
        }
        let mut bad = good.clone();
        bad[2].revision = Some(7);
        assert_eq!(check(&bad, &once).kinds(), ["two-answers"]);
        bad[2].revision = Some(5);
        bad[2].said = "something else".to_owned();
        assert_eq!(check(&bad, &once).kinds(), ["two-answers"]);
        // Nothing was answered twice, so nothing is proven.
        assert_eq!(check(&good[..2], &once).finding(), Finding::Unknown);
    }
}
