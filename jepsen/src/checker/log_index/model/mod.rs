//! Naive models of the domains: the journal's JSON, folded into maps, with the rules that hold at every revision.
//!
//! Written from the API's documentation and not from the state machine, so that the two agree only where both are
//! right. Names of fields are those of the API, so that an answer can be compared member by member.

mod apps;
mod catalog;
mod kv;
mod machines;
mod objects;

use super::{Demand, Query};
use crate::final_state::Entry;
use serde_json::Value;

/// A rule that a revision broke.
pub(super) struct Broken {
    /// The stable name of the rule.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

impl Broken {
    fn new(rule: &'static str, what: String) -> Self {
        Broken { rule, what }
    }
}

/// What a command must come to.
pub(super) struct Verdict {
    /// What is wrong with its answer, if anything.
    pub answer: Result<(), String>,
    /// The events that it must have caused, and no others.
    pub events: Vec<Value>,
}

/// When an event happened, and who demanded it.
#[derive(Clone, Copy)]
struct Moment<'a> {
    revision: u64,
    at: &'a str,
    actor: &'a str,
}

/// All domains.
#[derive(Default)]
pub(super) struct World {
    kv: kv::Pairs,
    catalog: catalog::Instances,
    machines: machines::Machines,
    objects: objects::Objects,
    apps: apps::Apps,
}

impl World {
    /// Takes note of what happened at a revision, and says which rules that broke.
    pub(super) fn apply(&mut self, entry: &Entry) -> Vec<Broken> {
        let moment = Moment {
            revision: entry.revision,
            at: &entry.at,
            actor: &entry.actor,
        };
        let mut broken = Vec::new();
        for event in &entry.events {
            match text(event, "area") {
                "kv" => self.kv.apply(moment, event),
                "catalog" => self.catalog.apply(moment, event, &mut broken),
                "machines" => self.machines.apply(moment, event, &mut broken),
                "objects" => self.objects.apply(event, &mut broken),
                "apps" => self.apps.apply(moment, event, &mut broken),
                "rollouts" => self.apps.roll(event, &mut broken),
                _ => {}
            }
        }
        broken
    }

    /// What a read must be answered, as far as the models know: null where there is nothing.
    pub(super) fn answer(&self, query: &Query) -> Value {
        match query {
            Query::KvGet(key) => self.kv.get(key),
            Query::KvList(prefix) => self.kv.list(prefix),
            Query::Instance(service, instance) => self.catalog.get(service, instance),
            Query::Instances(service) => self.catalog.list(service),
            Query::Machine(serial) => self.machines.get(serial),
            Query::Machines => self.machines.list(),
            Query::Object(oid) => self.objects.get(oid),
            Query::App(app) => self.apps.get(app),
        }
    }

    /// What a command must come to in this state.
    pub(super) fn decide(&self, demand: &Demand) -> Verdict {
        match demand {
            Demand::KvTxn(body, answer) => self.kv.txn(body, answer),
            Demand::KvDelete(keys, count) => self.kv.delete(keys, *count),
            Demand::ObjectsCommit(body, tid) => self.objects.commit(body, tid),
            Demand::MachineState(serial, to) => self.machines.take_to(serial, to),
        }
    }
}

/// A member that is text; empty where it is not.
fn text<'a>(event: &'a Value, member: &str) -> &'a str {
    event[member].as_str().unwrap_or_default()
}

fn number(event: &Value, member: &str) -> u64 {
    event[member].as_u64().unwrap_or_default()
}
