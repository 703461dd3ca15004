//! The keys that clients share, each by itself: whether they are linearizable, by what clients were told alone.

use super::super::client::{Asked, Fate, Op, is_shared};
use super::strong;
use crate::checker::wgl;
use crate::checker::wgl::register::{self, Input, Sighting, Stamped, Versioned};
use crate::verdict::Verdict;
use onward_statemachine::services::kv;
use onward_statemachine::{Command, Outcome};
use std::collections::BTreeMap;

/// Whether the keys that clients share are linearizable, by their answers alone.
pub(super) fn judge(ops: &[Op]) -> Verdict {
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
        sightings.extend(found(op));
    }
    // Whatever a client writes, nobody else does.
    register::settle(&mut searched, sightings);
    wgl::check(&Versioned::default(), &searched, wgl::BUDGET).verdict("linearizable")
}

/// What a read found, however old: somebody had written it.
fn found(op: &Op) -> Vec<Sighting<kv::Key, Vec<u8>>> {
    let (Asked::Read { keys, .. }, Fate::Read(_, pairs)) = (&op.asked, &op.fate) else {
        return Vec::new();
    };
    let found = keys.iter().zip(pairs).filter_map(|(key, pair)| {
        let pair = pair.as_ref().filter(|_| is_shared(key))?;
        Some(Sighting {
            key: key.clone(),
            value: pair.value.clone(),
            modified: pair.modified.0,
            at_ns: op.ended_ns,
        })
    });
    found.collect()
}

type OnKey = (kv::Key, Input<Vec<u8>>, Option<Stamped<Vec<u8>>>);

/// What an operation comes to on single keys. Of several keys at once each is looked at by itself.
fn on_keys(op: &Op) -> Vec<OnKey> {
    match (&op.asked, &op.fate) {
        (Asked::Read { keys, .. }, Fate::Read(at, pairs)) if strong(op) => {
            let found = keys.iter().zip(pairs).filter(|(key, _)| is_shared(key));
            let found = found.map(|(key, pair)| {
                let found = pair.as_ref().map(|pair| (pair.modified.0, pair.value.clone()));
                (key.clone(), Input::Read, Some(Stamped::Read { at: at.0, found }))
            });
            found.collect()
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
    if !is_shared(key) {
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
