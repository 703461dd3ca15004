//! One node that does everything again, in the order of the journal: every answer is to be the same once more.

use super::super::client::{Asked, Fate, Op};
use super::{Final, domain_rows, verdict};
use crate::verdict::Verdict;
use onward_statemachine::journal::Record;
use onward_statemachine::services::kv;
use onward_statemachine::{
    Command, CommandId, Envelope, MemoryStore, Outcome, Revision, Txn, apply, journal,
};
use std::collections::BTreeMap;

/// What the node has, and what came out otherwise than it was.
#[derive(Default)]
struct Model {
    store: MemoryStore,
    wrong: Vec<String>,
}

/// Does all commands again, and asks for every key again at the revision at which a client read it.
pub(super) fn judge(ops: &[Op], truth: &Final) -> Verdict {
    let mut model = Model::default();
    let mut commands: BTreeMap<CommandId, (&Command, Option<&Outcome>)> = BTreeMap::new();
    let mut reads: Vec<(Revision, &kv::Key, Option<&kv::Pair>)> = Vec::new();
    for op in ops {
        match (&op.asked, &op.fate) {
            (Asked::Command { id, command }, fate) => {
                let answer = match fate {
                    Fate::Answered(outcome) => Some(outcome),
                    _ => None,
                };
                commands.insert(*id, (command, answer));
            }
            (Asked::Read { keys, .. }, Fate::Read(revision, pairs)) => {
                let each = keys.iter().zip(pairs);
                reads.extend(each.map(|(key, pair)| (*revision, key, pair.as_ref())));
            }
            _ => {}
        }
    }
    reads.sort_by_key(|(revision, ..)| *revision);
    let mut reads = reads.into_iter().peekable();
    for (revision, record) in &truth.journal {
        while let Some((at, key, pair)) = reads.next_if(|(at, ..)| at < revision) {
            model.read(at, key, pair);
        }
        match commands.get(&record.command_id) {
            Some((command, answer)) => model.repeat(*revision, record, command, *answer),
            None => model.take(*revision, record),
        }
    }
    for (at, key, pair) in reads {
        model.read(at, key, pair);
    }
    model.compare(truth);
    let summary = format!("{} revisions done again", truth.journal.len());
    verdict("model", summary, model.wrong)
}

impl Model {
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

    /// The state must be what the nodes have.
    fn compare(&mut self, truth: &Final) {
        let rows = match domain_rows(&self.store) {
            Ok(rows) if rows == truth.rows => return,
            Ok(rows) => rows,
            Err(fault) => return self.wrong.push(fault.to_string()),
        };
        let differs = rows
            .iter()
            .find(|(key, value)| truth.rows.get(*key) != Some(value));
        let differs = differs
            .map(|(key, _)| key)
            .or_else(|| truth.rows.keys().find(|key| !rows.contains_key(*key)));
        self.wrong.push(format!(
            "the state is not what the journal comes to: row {differs:02x?}"
        ));
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
