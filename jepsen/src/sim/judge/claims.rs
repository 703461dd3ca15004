//! The operations as claims about the journals, for the harness's own checker of all domains. Journals are taken in the
//! form in which the API streams them.
//!
//! Claimed are the effects of what asks for keys, services, machines and objects. Whatever else was asked must be in the
//! journals, at its revision; that its effects are right is for the checker's models of the domains, and for [`super::model`].

use super::super::client::{Asked, Fate, Op};
use super::Final;
use crate::checker::log_index::{self, Claim, Demand, Keys, Level, Query, Said};
use crate::checker::watch::{self, Watch};
use crate::final_state::Entry;
use crate::verdict::Verdict;
use onward_api::wire;
use onward_statemachine::journal::Record;
use onward_statemachine::machines::registry;
use onward_statemachine::ports::Freshness;
use onward_statemachine::services::{catalog, kv};
use onward_statemachine::{Command, Outcome, Reply, Revision, objects};
use serde_json::{Value, json};

/// What clients were told, against the journals of all nodes.
pub(super) fn judge(ops: &[Op], finals: &[Final]) -> Verdict {
    let claims: Vec<Claim> = (0..).zip(ops).filter_map(|(call, op)| claim(call, op)).collect();
    // All are the same, or should be: one that is needs no copy.
    let mut journals: Vec<Vec<Entry>> = Vec::new();
    let mut places: Vec<usize> = Vec::new();
    for (number, node) in finals.iter().enumerate() {
        let same = finals[..number]
            .iter()
            .position(|other| other.journal == node.journal);
        places.push(same.map_or_else(
            || {
                journals.push(entries(&node.journal));
                journals.len() - 1
            },
            |other| places[other],
        ));
    }
    let nodes = finals.iter().zip(places);
    let nodes: Vec<(u64, &[Entry])> = nodes
        .map(|(node, place)| (node.machine, &journals[place][..]))
        .collect();
    log_index::check(&claims, &nodes).verdict("log-index")
}

/// Whether those who followed the journal were sent all of it, and nothing else.
pub(super) fn watched(watches: &[Watch], truth: &Final) -> Verdict {
    let sent = |record: &(Revision, Record)| (record.0.0, streamed(record).to_string());
    let all: Vec<(u64, String)> = truth.journal.iter().map(sent).collect();
    watch::check(watches, &all).verdict("watch")
}

/// A journal as the harness reads it.
fn entries(journal: &[(Revision, Record)]) -> Vec<Entry> {
    let entry =
        |record| serde_json::from_value(streamed(record)).expect("the harness reads what the API streams");
    journal.iter().map(entry).collect()
}

/// What the API streams of a revision.
fn streamed(record: &(Revision, Record)) -> Value {
    json!(wire::Entry::from(record.clone()))
}

fn claim(call: u64, op: &Op) -> Option<Claim> {
    let said = match (&op.asked, &op.fate) {
        (Asked::Command { id, command }, fate) => {
            let id = id.0;
            match fate {
                Fate::Answered(Outcome::Accepted { revision, reply }) => {
                    let (events, answer) = done(command, reply);
                    Said::Wrote {
                        command: id,
                        revision: revision.0,
                        events,
                        answer,
                    }
                }
                Fate::Unknown(_) => Said::Unknown { command: id },
                Fate::Answered(Outcome::Refused { .. }) | Fate::Nothing(_) | Fate::Read(..) => {
                    Said::Failed { command: id }
                }
            }
        }
        (Asked::Read { keys, freshness }, Fate::Read(revision, pairs)) => Said::Read {
            level: match freshness {
                Freshness::Linearizable => Level::Linearizable,
                Freshness::AtLeast(revision) => Level::AtLeast(revision.0),
                Freshness::Local => Level::Local,
            },
            revision: revision.0,
            answers: keys.iter().zip(pairs).filter_map(answered).collect(),
        },
        (Asked::Read { .. }, _) => return None,
    };
    Some(Claim {
        call,
        invoked_ns: op.invoked_ns,
        completed_ns: op.ended_ns,
        said,
    })
}

fn answered((key, pair): (&kv::Key, &Option<kv::Pair>)) -> Option<(Query, Value)> {
    let pair = pair
        .as_ref()
        .map(|pair| wire::kv::Pair::from((key.clone(), pair.clone())));
    Some((Query::KvGet(text(key)?), json!(pair)))
}

/// The name of a key that is text.
fn text(key: &kv::Key) -> Option<String> {
    String::from_utf8(key.0.clone()).ok()
}

/// What an accepted command must have done: the events, and what it must have been answered.
fn done(command: &Command, reply: &Reply) -> (Vec<Value>, Option<Demand>) {
    let commands = match command {
        Command::Batch(commands) => &commands[..],
        command => std::slice::from_ref(command),
    };
    let events = commands.iter().flat_map(events).collect();
    (events, demand(command, reply))
}

fn events(command: &Command) -> Vec<Value> {
    match command {
        Command::Kv(kv::Command::Put { key, value, .. }) => {
            let (Some(key), Ok(value)) = (text(key), String::from_utf8(value.clone())) else {
                return Vec::new();
            };
            vec![json!({"area": "kv", "event": "put", "key": key, "value": value})]
        }
        Command::Catalog(catalog::Command::Deregister { id, .. }) => {
            let (service, instance) = (&id.service, &id.instance);
            vec![json!({"area": "catalog", "event": "deregistered", "service": service, "instance": instance})]
        }
        Command::Registry(registry::Command::Register { machines }) => machines
            .iter()
            .map(|machine| {
                json!({"area": "machines", "event": "registered", "serial": machine.serial.0.as_str(), "rack": machine.rack})
            })
            .collect(),
        Command::Registry(registry::Command::Delete { serial, .. }) => {
            vec![json!({"area": "machines", "event": "deleted", "serial": serial.0.as_str()})]
        }
        _ => Vec::new(),
    }
}

/// What a command by itself must have been answered. In a batch it saw what came before it, which no claim can say.
fn demand(command: &Command, reply: &Reply) -> Option<Demand> {
    Some(match (command, reply) {
        (Command::Kv(kv::Command::Delete { keys, .. }), Reply::Kv(kv::Reply::Deleted { count })) => {
            let keys = match keys {
                kv::Selection::Key(key) => Keys::One(text(key)?),
                kv::Selection::Prefix(prefix) => Keys::Prefix(String::from_utf8(prefix.clone()).ok()?),
            };
            Demand::KvDelete(keys, *count)
        }
        (
            Command::Kv(kv::Command::Txn {
                compares,
                then,
                otherwise,
            }),
            Reply::Kv(kv::Reply::Txn { succeeded, results }),
        ) => {
            let ops = |ops: &[kv::Op]| ops.iter().map(operation).collect::<Option<Value>>();
            let compare = compares.iter().map(compare).collect::<Option<Value>>()?;
            let body = json!({"compare": compare, "then": ops(then)?, "else": ops(otherwise)?});
            let answer = wire::kv::TxnResult {
                succeeded: *succeeded,
                results: results.iter().cloned().map(wire::kv::OpResult::from).collect(),
            };
            Demand::KvTxn(body, json!(answer))
        }
        (
            Command::Objects(objects::Command::Commit { writes, checks, .. }),
            Reply::Objects(objects::Reply::Committed { tid }),
        ) => {
            let part = |oid: objects::Oid, read: objects::Tid| json!({"oid": oid.to_string(), "read": read.to_string()});
            let writes: Value = writes.iter().map(|write| part(write.oid, write.read)).collect();
            let checks: Value = checks.iter().map(|check| part(check.oid, check.read)).collect();
            Demand::ObjectsCommit(json!({"writes": writes, "checks": checks}), tid.to_string())
        }
        (Command::Registry(registry::Command::SetState { serial, state, .. }), _) => {
            Demand::MachineState(serial.0.as_str().to_owned(), state.to_string())
        }
        _ => return None,
    })
}

/// A condition as the API takes it.
fn compare(compare: &kv::Compare) -> Option<Value> {
    let relation = match compare.relation {
        kv::Relation::Equal => "equal",
        kv::Relation::NotEqual => "not_equal",
        kv::Relation::Greater => "greater",
        kv::Relation::Less => "less",
    };
    let (member, with) = match &compare.target {
        kv::Target::Modified(revision) => ("modified", json!(revision.0)),
        kv::Target::Created(revision) => ("created", json!(revision.0)),
        kv::Target::Version(version) => ("version", json!(version)),
        kv::Target::Value(value) => ("value", json!(std::str::from_utf8(value).ok()?)),
    };
    let mut condition = json!({"key": text(&compare.key)?, "is": relation});
    condition[member] = with;
    Some(condition)
}

/// An operation of a transaction as the API takes it.
fn operation(op: &kv::Op) -> Option<Value> {
    Some(match op {
        kv::Op::Get(key) => json!({"get": {"key": text(key)?}}),
        kv::Op::Put { key, value } => {
            json!({"put": {"key": text(key)?, "value": std::str::from_utf8(value).ok()?}})
        }
        kv::Op::Delete(kv::Selection::Key(key)) => json!({"delete": {"key": text(key)?}}),
        kv::Op::Delete(kv::Selection::Prefix(prefix)) => {
            json!({"delete": {"prefix": std::str::from_utf8(prefix).ok()?}})
        }
    })
}
