//! Transactions over lists: append to some and read others, all in one revision, for the checker of anomalies.
//!
//! A list is one value, its numbers as text. A transaction reads all lists at one revision, works out what they become,
//! and commits on the condition that no list that it touched was changed since. One that only reads is one read.

use super::*;
use crate::checker::append::{Mop, Txn};
use crate::history;
use onward_statemachine::Reply;
use std::collections::BTreeMap;

/// The most steps of a transaction.
const STEPS_MAX: usize = 4;

/// A list as it is stored, and what a transaction does to it.
#[derive(Default)]
struct List {
    values: Vec<u64>,
    modified: Revision,
    touched: bool,
    changed: bool,
}

impl List {
    fn stored(pair: Option<kv::Pair>) -> Self {
        let Some(pair) = pair else { return List::default() };
        let text = String::from_utf8_lossy(&pair.value).into_owned();
        List {
            values: text
                .split_whitespace()
                .filter_map(|value| value.parse().ok())
                .collect(),
            modified: pair.modified,
            ..List::default()
        }
    }

    fn text(&self) -> Vec<u8> {
        let values: Vec<String> = self.values.iter().map(u64::to_string).collect();
        values.join(" ").into_bytes()
    }
}

fn name(number: u64) -> String {
    format!("l/{number}")
}

impl Client {
    /// A transaction of a few steps.
    pub(super) async fn transaction(&mut self, seat: &Arc<Seat>) {
        let only_reads = self.rng.random_bool(0.3);
        let count = self.rng.random_range(1..=STEPS_MAX);
        let mut steps = Vec::new();
        for place in 0..count {
            let key = name(self.rng.random_range(0..self.site.plan.lists));
            // One append at least, so that it writes.
            steps.push(if only_reads || place > 0 && self.rng.random_bool(0.5) {
                Mop::Read { key, values: None }
            } else {
                self.written += 1;
                let value = self.process * 1_000_000 + self.written;
                Mop::Append { key, value }
            });
        }
        self.transact(seat, steps).await;
    }

    /// Reads all lists.
    pub(super) async fn read_lists(&mut self, seat: &Arc<Seat>) {
        let lists = (0..self.site.plan.lists).map(name);
        let steps = lists.map(|key| Mop::Read { key, values: None }).collect();
        self.transact(seat, steps).await;
    }

    async fn transact(&mut self, seat: &Arc<Seat>, steps: Vec<Mop>) {
        let (process, invoked_ns) = (self.process, self.site.now_ns());
        let names: Vec<String> = (0..self.site.plan.lists).map(name).collect();
        let keys = names.iter().map(|name| kv::Key(name.clone().into_bytes()));
        let Fate::Read(_, pairs) = self.read(seat, keys.collect(), Freshness::Linearizable).await else {
            return;
        };
        let mut lists: BTreeMap<String, List> = names
            .into_iter()
            .zip(pairs.into_iter().map(List::stored))
            .collect();
        let ops = done(steps, &mut lists);
        let outcome = if lists.values().any(|list| list.changed) {
            match self.propose(seat, commit(&lists)).await {
                Fate::Answered(Outcome::Accepted {
                    reply: Reply::Kv(kv::Reply::Txn { succeeded: true, .. }),
                    ..
                }) => history::Outcome::Ok,
                Fate::Unknown(_) => history::Outcome::Info,
                _ => history::Outcome::Fail,
            }
        } else {
            history::Outcome::Ok
        };
        let completed_ns = Some(self.site.now_ns());
        let mut told = lock(&self.ledger.told);
        let call = told.ops.len() as u64 - 1;
        told.txns.push(Txn {
            call,
            process,
            invoked_ns,
            completed_ns,
            outcome,
            ops,
        });
    }
}

/// Does the steps on `lists`; the steps with what they read.
fn done(steps: Vec<Mop>, lists: &mut BTreeMap<String, List>) -> Vec<Mop> {
    let step = |step| match step {
        Mop::Append { key, value } => {
            let list = lists.entry(key.clone()).or_default();
            list.values.push(value);
            (list.touched, list.changed) = (true, true);
            Mop::Append { key, value }
        }
        Mop::Read { key, .. } => {
            let list = lists.entry(key.clone()).or_default();
            list.touched = true;
            let values = Some(list.values.clone());
            Mop::Read { key, values }
        }
    };
    steps.into_iter().map(step).collect()
}

/// The command that makes lists what they have become, if none of those that were touched has changed.
fn commit(lists: &BTreeMap<String, List>) -> Command {
    let key = |name: &String| kv::Key(name.clone().into_bytes());
    let touched = || lists.iter().filter(|(_, list)| list.touched);
    let changed = lists.iter().filter(|(_, list)| list.changed);
    Command::Kv(kv::Command::Txn {
        compares: touched()
            .map(|(name, list)| kv::Compare {
                key: key(name),
                target: kv::Target::Modified(list.modified),
                relation: kv::Relation::Equal,
            })
            .collect(),
        then: changed
            .map(|(name, list)| kv::Op::Put {
                key: key(name),
                value: list.text(),
            })
            .collect(),
        // What somebody else has made of them.
        otherwise: touched().map(|(name, _)| kv::Op::Get(key(name))).collect(),
    })
}
