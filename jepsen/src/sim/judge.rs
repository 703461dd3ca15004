//! What a simulated run shows.
//!
//! # The log tells
//! Every answer carries the revision that it was decided at. So the commands are done again, one after the other in the
//! order of the final journal, on a model of one node, and each answer must be the model's: the same reply, the same
//! events. Reads must have seen the model's state of their revision; revisions must respect real time; what was
//! acknowledged must be there, once, and what was certainly not done must not.
//!
//! # The replicas tell
//! All nodes have the same journal and the same state, whose cross-area rules hold.

use super::client::{Asked, Fate, Op};
use crate::checker::wgl;
use crate::checker::wgl::register::{self, Input, Sighting, Stamped, Versioned};
use crate::verdict::{Finding, Kind, Verdict};
use onward_statemachine::journal::Record;
use onward_statemachine::ports::Freshness;
use onward_statemachine::services::kv;
use onward_statemachine::{
    Command, CommandId, Envelope, Fault, MemoryStore, Order, Outcome, Revision, Txn, View, apply, journal,
    keys,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Who proposes for the machinery itself.
const MACHINERY: &str = "raft:";

/// What one node has at the end.
pub(super) struct Final {
    pub(super) machine: u64,
    pub(super) hash: u64,
    pub(super) journal: Vec<(Revision, Record)>,
    /// The rows of the domains.
    pub(super) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Cross-area rules that do not hold.
    pub(super) violations: Vec<String>,
}

impl Final {
    /// Takes what there is.
    pub(super) fn of(machine: u64, view: &dyn View) -> Result<Final, Fault> {
        let page = journal::read(view, Revision(0), usize::MAX, usize::MAX, |_| true)?;
        let page = page.map_err(|compacted| Fault::invariant(compacted.to_string()))?;
        let violations = onward_statemachine::check::check(view)?;
        Ok(Final {
            machine,
            hash: onward_statemachine::hash::state_hash(view)?,
            journal: page.records,
            rows: domain_rows(view)?,
            violations: violations
                .iter()
                .map(|violation| format!("{violation:?}"))
                .collect(),
        })
    }
}

/// All rows but the machinery's own.
fn domain_rows(view: &dyn View) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
    let mut rows = BTreeMap::new();
    view.scan(&[], &[], Order::Ascending, &mut |key, value| {
        let own = [keys::SYSTEM, keys::REPLIES, keys::JOURNAL];
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
pub(super) fn judge(ops: &[Op], finals: &[Final]) -> Vec<Verdict> {
    let mut verdicts = vec![replicas(finals)];
    let Some(truth) = finals.first() else {
        return verdicts;
    };
    verdicts.push(fates(ops, &truth.journal));
    verdicts.push(real_time(ops));
    verdicts.push(Model::judge(ops, truth));
    verdicts.push(linearizable(ops));
    verdicts
}

/// Whether the keys that clients share are linearizable, by their answers alone.
fn linearizable(ops: &[Op]) -> Verdict {
    let mut searched = Vec::new();
    let mut sightings = Vec::new();
    for (call, op) in (0..).zip(ops) {
        for (key, input, output) in on_keys(op) {
            searched.push(wgl::Op {
                call,
                process: op.process,
                key,
                input,
                invoked_ns: op.invoked_ns,
                fate: match (&op.fate, output) {
                    (Fate::Unknown(_), _) => wgl::Fate::Unknown,
                    (_, Some(output)) => wgl::Fate::Done {
                        completed_ns: op.ended_ns,
                        output,
                    },
                    (_, None) => wgl::Fate::Failed,
                },
            });
        }
        sightings.extend(sighting(op));
    }
    // Whatever a client writes, nobody else does.
    register::settle(&mut searched, sightings);
    wgl::check(&Versioned::default(), &searched, wgl::BUDGET).verdict("linearizable")
}

/// What a read found, however old: somebody had written it.
fn sighting(op: &Op) -> Option<Sighting<kv::Key, Vec<u8>>> {
    let (Asked::Read { key, .. }, Fate::Read(_, Some(pair))) = (&op.asked, &op.fate) else {
        return None;
    };
    Some(Sighting {
        key: key.clone(),
        value: pair.value.clone(),
        modified: pair.modified.0,
        at_ns: op.ended_ns,
    })
}

type OnKey = (kv::Key, Input<Vec<u8>>, Option<Stamped<Vec<u8>>>);

/// What an operation comes to on single keys. Of several keys at once each is looked at by itself.
fn on_keys(op: &Op) -> Vec<OnKey> {
    match (&op.asked, &op.fate) {
        (Asked::Read { key, .. }, Fate::Read(at, pair)) if strong(op) => {
            let found = pair.as_ref().map(|pair| (pair.modified.0, pair.value.clone()));
            vec![(key.clone(), Input::Read, Some(Stamped::Read { at: at.0, found }))]
        }
        (Asked::Read { .. }, _) => Vec::new(),
        (Asked::Command { command, .. }, fate) => {
            let answer = match fate {
                Fate::Answered(Outcome::Accepted { revision, .. }) => Some((revision.0, true)),
                Fate::Answered(Outcome::Refused { revision, .. }) => Some((revision.0, false)),
                Fate::Unknown(_) | Fate::Nothing(_) | Fate::Read(..) => None,
            };
            let commands = match command {
                Command::Batch(commands) => &commands[..],
                command => std::slice::from_ref(command),
            };
            let puts = commands.iter().filter_map(|command| put_on_key(command, answer));
            // Of two puts of one key in one revision nobody sees the first.
            let last: BTreeMap<kv::Key, OnKey> = puts.map(|put| (put.0.clone(), put)).collect();
            last.into_values().collect()
        }
    }
}

fn put_on_key(command: &Command, answer: Option<(u64, bool)>) -> Option<OnKey> {
    let Command::Kv(kv::Command::Put { key, value, expect }) = command else {
        return None;
    };
    if !key.0.starts_with(b"r/") {
        return None;
    }
    let to = Some(value.clone());
    Some(match expect {
        None => {
            let output = answer.filter(|(_, done)| *done);
            let output = output.map(|(at, _)| Stamped::Written { at });
            (key.clone(), Input::Write(to), output)
        }
        Some(modified) => {
            let output = answer.map(|(at, done)| Stamped::Compared { at, done });
            let modified = modified.0;
            (key.clone(), Input::CompareRevision { modified, to }, output)
        }
    })
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

/// One node that does everything again.
#[derive(Default)]
struct Model {
    store: MemoryStore,
    wrong: Vec<String>,
}

impl Model {
    fn judge(ops: &[Op], truth: &Final) -> Verdict {
        let mut model = Model::default();
        let mut commands: BTreeMap<CommandId, (&Command, Option<&Outcome>)> = BTreeMap::new();
        let mut reads: Vec<(Revision, &kv::Key, &Option<kv::Pair>)> = Vec::new();
        for op in ops {
            match (&op.asked, &op.fate) {
                (Asked::Command { id, command }, fate) => {
                    let answer = match fate {
                        Fate::Answered(outcome) => Some(outcome),
                        _ => None,
                    };
                    commands.insert(*id, (command, answer));
                }
                (Asked::Read { key, .. }, Fate::Read(revision, pair)) => reads.push((*revision, key, pair)),
                _ => {}
            }
        }
        reads.sort_by_key(|(revision, ..)| *revision);
        let mut reads = reads.into_iter().peekable();
        for (revision, record) in &truth.journal {
            while let Some((at, key, pair)) = reads.next_if(|(at, ..)| at < revision) {
                model.read(at, key, pair.as_ref());
            }
            match commands.get(&record.command_id) {
                Some((command, answer)) => model.repeat(*revision, record, command, *answer),
                None => model.take(*revision, record),
            }
        }
        for (at, key, pair) in reads {
            model.read(at, key, pair.as_ref());
        }
        match domain_rows(&model.store) {
            Ok(rows) if rows == truth.rows => {}
            Ok(rows) => {
                let differs = rows
                    .iter()
                    .find(|(key, value)| truth.rows.get(*key) != Some(value));
                let differs = differs
                    .map(|(key, _)| key)
                    .or_else(|| truth.rows.keys().find(|key| !rows.contains_key(*key)));
                model.wrong.push(format!(
                    "the state is not what the journal comes to: row {differs:02x?}"
                ));
            }
            Err(fault) => model.wrong.push(fault.to_string()),
        }
        let summary = format!("{} revisions done again", truth.journal.len());
        verdict("model", summary, model.wrong)
    }

    /// Does a command again; its outcome and its events must be what they were.
    fn repeat(&mut self, revision: Revision, record: &Record, command: &Command, answer: Option<&Outcome>) {
        let envelope = Envelope {
            command_id: record.command_id,
            actor: record.actor.clone(),
            proposed_at: record.at,
            command: command.clone(),
        };
        let mut txn = Txn::new(&self.store);
        let outcome = apply::apply_envelope(&mut txn, revision, envelope);
        let again = journal::at(&txn, revision);
        let changes = txn.into_changes();
        self.store.write(changes);
        match (outcome, answer) {
            (Ok(outcome), Some(answer)) if outcome != *answer => {
                self.wrong.push(format!(
                    "{command:?} at {revision} was answered {answer:?} and comes to {outcome:?}"
                ));
            }
            (Err(fault), _) => self.wrong.push(format!("{command:?} at {revision}: {fault}")),
            _ => {}
        }
        if again.as_ref() != Ok(&Some(record.clone())) {
            self.wrong.push(format!(
                "{command:?} at {revision} made {record:?} and makes {again:?}"
            ));
        }
    }

    /// Takes the events of a command that nobody here knows.
    fn take(&mut self, revision: Revision, record: &Record) {
        let mut txn = Txn::new(&self.store);
        let taken = apply::replay(&mut txn, revision, record);
        let changes = txn.into_changes();
        self.store.write(changes);
        if let Err(fault) = taken {
            self.wrong.push(format!("the events of {revision}: {fault}"));
        }
    }

    fn read(&mut self, revision: Revision, key: &kv::Key, seen: Option<&kv::Pair>) {
        match kv::get(&self.store, key) {
            Ok(pair) if pair.as_ref() == seen => {}
            Ok(pair) => self.wrong.push(format!(
                "a read of {key} at {revision} saw {seen:?}; there was {pair:?}"
            )),
            Err(fault) => self.wrong.push(fault.to_string()),
        }
    }
}
