//! What a simulated run shows.
//!
//! # The log tells
//! Every answer carries the revision that it was decided at. So the commands are done again, one after the other in the
//! order of the final journal, on a model of one node, and each answer must be the model's: the same reply, the same
//! events. Reads must have seen the model's state of their revision; revisions must respect real time; what was
//! acknowledged must be there, once, and what was certainly not done must not.
//!
//! # What was told tells
//! The checkers of the harness judge the same operations: [`keys`] and lists from demands and answers alone, and
//! [`claims`] from the journals in the form in which the API streams them, which is what watchers were sent.
//!
//! # The replicas tell
//! All nodes have the same journal and the same state, whose cross-area rules hold.

mod claims;
mod keys;
mod model;
#[cfg(test)]
mod tests;

use super::client::{Asked, Fate, Op, Told};
use super::site::Archive;
use crate::checker::append;
use crate::verdict::{Finding, Kind, Verdict};
use onward_statemachine::journal::Record;
use onward_statemachine::ports::Freshness;
use onward_statemachine::{CommandId, Fault, Order, Outcome, Revision, View, journal, keys as tables};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Who proposes for the machinery itself.
const MACHINERY: &str = "raft:";

/// What one node has at the end.
#[derive(Clone)]
pub(super) struct Final {
    pub(super) machine: u64,
    pub(super) hash: u64,
    /// The whole of it, from the first entry on.
    pub(super) journal: Vec<(Revision, Record)>,
    /// The rows of the domains.
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Cross-area rules that do not hold.
    pub(super) violations: Vec<String>,
}

impl Final {
    /// Takes what there is, and from the archive what was compacted.
    pub(super) fn of(machine: u64, view: &dyn View, archive: &Archive) -> Result<Final, Fault> {
        let violations = onward_statemachine::check::check(view)?;
        let mut violations: Vec<String> = violations
            .iter()
            .map(|violation| format!("{violation:?}"))
            .collect();
        let page = |after| journal::read(view, after, usize::MAX, usize::MAX, |_| true);
        let mut whole = archive.clone();
        let kept = match page(Revision(0))? {
            Ok(page) => page,
            Err(compacted) => {
                whole.split_off(&compacted.floor);
                let after = Revision(compacted.floor.0 - 1);
                page(after)?.map_err(|again| Fault::invariant(again.to_string()))?
            }
        };
        for (revision, record) in kept.records {
            if archive.get(&revision).is_some_and(|before| *before != record) {
                violations.push(format!("revision {revision} is not what it was: {record:?}"));
            }
            whole.insert(revision, record);
        }
        Ok(Final {
            machine,
            hash: onward_statemachine::hash::state_hash(view)?,
            journal: whole.into_iter().collect(),
            rows: domain_rows(view)?,
            violations,
        })
    }
}

/// All rows but the machinery's own.
fn domain_rows(view: &dyn View) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
    let mut rows = BTreeMap::new();
    view.scan(&[], &[], Order::Ascending, &mut |key, value| {
        let own = [
            tables::SYSTEM,
            tables::REPLIES,
            tables::JOURNAL,
            tables::JOURNAL_MARKS,
            tables::BASE,
        ];
        if !key.first().is_some_and(|prefix| own.contains(prefix)) {
            rows.insert(key.to_vec(), value.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// A property, and where it does not hold.
fn verdict(check: &str, summary: String, details: Vec<String>) -> Verdict {
    let finding = if details.is_empty() {
        Finding::Pass
    } else {
        Finding::Fail
    };
    let mut verdict = Verdict::new(Kind::Property, check, finding, summary);
    if let Some(first) = details.first() {
        verdict.summary.clone_from(first);
    }
    verdict.details = details;
    verdict
}

/// Judges what clients were told by what the nodes have.
pub(super) fn judge(told: &Told, finals: &[Final]) -> Vec<Verdict> {
    let ops = &told.ops;
    let mut verdicts = vec![replicas(finals)];
    let Some(truth) = finals.first() else {
        return verdicts;
    };
    verdicts.push(fates(ops, &truth.journal));
    verdicts.push(real_time(ops));
    verdicts.push(model::judge(ops, truth));
    verdicts.push(claims::judge(ops, finals));
    verdicts.push(keys::judge(ops));
    if !told.txns.is_empty() {
        verdicts.push(append::check(&told.txns).verdict("append"));
    }
    if !told.watches.is_empty() {
        verdicts.push(claims::watched(&told.watches, truth));
    }
    verdicts
}

fn replicas(finals: &[Final]) -> Verdict {
    let mut wrong = Vec::new();
    for node in finals {
        for violation in &node.violations {
            wrong.push(format!("machine {}: {violation}", node.machine));
        }
        let first = &finals[0];
        if let Some((one, other)) = first
            .journal
            .iter()
            .zip(&node.journal)
            .find(|(one, other)| one != other)
        {
            wrong.push(format!(
                "the journals of machines {} and {} part: {one:?}, {other:?}",
                first.machine, node.machine
            ));
        } else if node.hash != first.hash || node.journal.len() != first.journal.len() {
            wrong.push(format!(
                "the states of machines {} and {} differ",
                first.machine, node.machine
            ));
        }
    }
    verdict("replicas", format!("{} nodes are the same", finals.len()), wrong)
}

/// Whether what was said to be done is there, once, and what was said not to be is not.
fn fates(ops: &[Op], journal: &[(Revision, Record)]) -> Verdict {
    let mut wrong = Vec::new();
    let mut done: BTreeMap<CommandId, Revision> = BTreeMap::new();
    for (revision, record) in journal {
        if let Some(first) = done.insert(record.command_id, *revision) {
            wrong.push(format!(
                "command {} was done at {first} and again at {revision}",
                record.command_id
            ));
        }
    }
    let mut asked = BTreeMap::new();
    for op in ops {
        let Asked::Command { id, command } = &op.asked else {
            continue;
        };
        asked.insert(*id, ());
        let there = done.get(id);
        match (&op.fate, there) {
            (Fate::Answered(Outcome::Accepted { revision, .. }), Some(there)) if there != revision => {
                wrong.push(format!("{command:?} was answered {revision} and is at {there}"));
            }
            (Fate::Answered(Outcome::Refused { refusal, .. }), Some(there)) => {
                wrong.push(format!("{command:?} was refused ({refusal}) and is at {there}"));
            }
            (Fate::Nothing(reason), Some(there)) => {
                wrong.push(format!("{command:?} was not done ({reason}) and is at {there}"));
            }
            _ => {}
        }
    }
    for (revision, record) in journal {
        let own = record.actor.as_str().starts_with(MACHINERY);
        if !own && !asked.contains_key(&record.command_id) {
            wrong.push(format!("nobody asked for what is at {revision}: {record:?}"));
        }
    }
    verdict("fates", format!("{} operations", ops.len()), wrong)
}

/// The revision that an operation saw or made.
fn revision(op: &Op) -> Option<Revision> {
    match &op.fate {
        Fate::Answered(outcome) => Some(outcome.revision()),
        Fate::Read(revision, _) => Some(*revision),
        Fate::Unknown(_) | Fate::Nothing(_) => None,
    }
}

/// Whether what began after another ended came after it.
fn real_time(ops: &[Op]) -> Verdict {
    let mut wrong = Vec::new();
    let mut ended: Vec<(u64, Revision, &Op)> = ops
        .iter()
        .filter(|op| strong(op))
        .filter_map(|op| Some((op.ended_ns, revision(op)?, op)))
        .collect();
    ended.sort_by_key(|(at, ..)| *at);
    let mut newest: Vec<(Revision, &Op)> = Vec::with_capacity(ended.len());
    for (_, revision, op) in &ended {
        let before = newest.last().copied();
        newest.push(match before {
            Some(before) if before.0 >= *revision => before,
            _ => (*revision, *op),
        });
    }
    for op in ops {
        let Some(own) = revision(op) else { continue };
        if let Asked::Read {
            freshness: Freshness::AtLeast(wanted),
            ..
        } = &op.asked
            && own < *wanted
        {
            wrong.push(format!("a read of at least {wanted} saw {own}"));
        }
        if !strong(op) {
            continue;
        }
        let earlier = ended.partition_point(|(at, ..)| *at < op.invoked_ns);
        let Some((before, other)) = earlier.checked_sub(1).and_then(|place| newest.get(place)) else {
            continue;
        };
        let writes = matches!(op.asked, Asked::Command { .. });
        if own < *before || (writes && own == *before) {
            wrong.push(format!(
                "at {own}, though {before} was over before: {:?} after {:?}",
                op.asked, other.asked
            ));
        }
    }
    verdict("real-time", format!("{} operations in order", ended.len()), wrong)
}

/// Whether an operation promises linearizability.
fn strong(op: &Op) -> bool {
    !matches!(
        op.asked,
        Asked::Read {
            freshness: Freshness::AtLeast(_) | Freshness::Local,
            ..
        }
    )
}
