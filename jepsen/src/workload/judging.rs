//! What judgements are made with: calls as the checkers take them, and the journal by what it says.

use crate::checker::wgl::{Fate, Op};
use crate::checker::{Findings, Violation};
use crate::final_state::{Entry, HARNESS};
use crate::history::{Call, Outcome, TimeNs};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Whether the call ended in this problem.
pub(super) fn refused(call: &Call, code: &str) -> bool {
    let complete = call.complete.as_ref();
    call.outcome() == Outcome::Fail
        && complete.is_some_and(|complete| complete.error.as_deref() == Some(code))
}

/// An operation on a key. `output` is what was answered where it took place.
pub(super) fn op<K, I, O>(call: &Call, key: K, input: I, output: Option<O>) -> Op<K, I, O> {
    let fate = match (call.outcome(), output, call.ended_ns()) {
        (Outcome::Info, ..) => Fate::Unknown,
        // A refusal is an answer, where the caller has made one of it.
        (_, Some(output), Some(completed_ns)) => Fate::Done { completed_ns, output },
        _ => Fate::Failed,
    };
    Op {
        call: call.id,
        process: call.invoke.process,
        key,
        input,
        invoked_ns: call.invoke.time_ns,
        fate,
    }
}

/// When a call began, and when it ended at the latest: never, where nobody knows.
pub(super) fn span(call: &Call) -> (TimeNs, TimeNs) {
    (call.invoke.time_ns, call.ended_ns().unwrap_or(TimeNs::MAX))
}

/// Findings under way.
#[derive(Debug)]
pub(super) struct Judgement(Findings);

impl Judgement {
    pub(super) fn new() -> Self {
        Judgement(Findings::new(String::new(), 0))
    }

    /// One more thing was looked at.
    pub(super) fn count(&mut self) {
        self.0.judged += 1;
    }

    /// Something is wrong, as these calls show.
    pub(super) fn wrong(&mut self, kind: &'static str, calls: &[u64], what: String) {
        self.0.violations.push(Violation::new(kind, what, calls));
    }

    /// Something could not be told.
    pub(super) fn undecided(&mut self, why: impl Into<String>) {
        self.0.undecided.push(why.into());
    }

    /// What was looked at, and what was found: `12 reads`.
    pub(super) fn findings(mut self, of: &str) -> Findings {
        self.0.looked_at = format!("{} {of}", self.0.judged);
        self.0
    }
}

/// An event of the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened<'a> {
    pub(super) entry: &'a Entry,
    pub(super) event: &'a Value,
}

impl<'a> Happened<'a> {
    /// A member of the event, as text.
    pub(super) fn text(&self, member: &str) -> &'a str {
        self.event[member].as_str().unwrap_or_default()
    }

    /// The log time, in ms since 1970.
    pub(super) fn at_ms(&self) -> Option<i64> {
        let at = chrono::DateTime::parse_from_rfc3339(&self.entry.at).ok()?;
        Some(at.timestamp_millis())
    }
}

/// The events of one area, in order.
pub(super) fn events<'a>(journal: &'a [Entry], area: &'a str) -> impl Iterator<Item = Happened<'a>> {
    let all = journal
        .iter()
        .flat_map(|entry| entry.events.iter().map(move |event| Happened { entry, event }));
    all.filter(move |happened| happened.text("area") == area)
}

/// The revisions of each command of a client.
pub(super) fn by_command(journal: &[Entry]) -> BTreeMap<Uuid, Vec<u64>> {
    let mut found: BTreeMap<Uuid, Vec<u64>> = BTreeMap::new();
    for entry in journal.iter().filter(|entry| entry.actor != HARNESS) {
        found.entry(entry.command_id).or_default().push(entry.revision);
    }
    found
}
