//! What became of each command: done once where it was told, or not at all.

use super::journals::Journals;
use super::{Claim, Said};
use crate::checker::{Findings, Violation};
use crate::final_state::Entry;
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) fn check(claims: &[Claim], journals: &Journals<'_>, findings: &mut Findings) {
    let mut told: HashMap<Uuid, (u64, u64)> = HashMap::new();
    for claim in claims {
        if let Said::Wrote {
            command,
            revision,
            events,
            ..
        } = &claim.said
        {
            let (first, call) = *told.entry(*command).or_insert((*revision, claim.call));
            if first != *revision {
                let summary = format!(
                    "call {call} was told revision {first} of command {command}, and call {} {revision}",
                    claim.call
                );
                let violation = Violation::new("two-answers", summary, [call, claim.call]);
                findings.violations.push(violation);
            }
            wrote(claim, *command, *revision, events, journals, findings);
        }
    }
    let open = |claim: &&Claim| matches!(claim.said, Said::Unknown { .. });
    let open: Vec<Uuid> = claims.iter().filter(open).filter_map(Claim::command).collect();
    for claim in claims {
        if let Said::Failed { command } = &claim.said
            && !told.contains_key(command)
            && !open.contains(command)
            && let Some(revisions) = journals.commands.get(command)
        {
            let summary = format!(
                "call {} failed, and command {command} is at revision {}",
                claim.call, revisions[0]
            );
            let violation = Violation::new("failed-write", summary, [claim.call]);
            findings.violations.push(violation);
        }
    }
}

impl Claim {
    /// The command that it sent, if it wrote.
    pub(super) fn command(&self) -> Option<Uuid> {
        match self.said {
            Said::Wrote { command, .. } | Said::Unknown { command } | Said::Failed { command } => {
                Some(command)
            }
            Said::Read { .. } => None,
        }
    }
}

fn wrote(
    claim: &Claim,
    command: Uuid,
    revision: u64,
    events: &[Value],
    journals: &Journals<'_>,
    findings: &mut Findings,
) {
    if revision < journals.floor {
        return;
    }
    let call = claim.call;
    let mut report = |kind, summary| findings.violations.push(Violation::new(kind, summary, [call]));
    if let Some(elsewhere) = journals.commands.get(&command)
        && !elsewhere.contains(&revision)
    {
        let summary = format!(
            "call {call} was told revision {revision}, and its command {command} is at {}",
            elsewhere[0]
        );
        report("wrong-command", summary);
        return;
    }
    let mut without = Vec::new();
    for (node, entries) in &journals.nodes {
        let Some(entry) = entries.get(&revision) else {
            without.push(*node);
            continue;
        };
        if entry.command_id != command {
            let summary = format!(
                "call {call} was told revision {revision}, which on node {node} is command {} of {}",
                entry.command_id, entry.actor
            );
            report("wrong-command", summary);
        } else if let Some(missing) = missing(entry, events) {
            let summary =
                format!("call {call} at revision {revision}, on node {node}: there is no {missing}");
            report("wrong-effect", summary);
        }
    }
    if !events.is_empty() && !without.is_empty() {
        let summary =
            format!("call {call} was told revision {revision}, which nodes {without:?} do not have");
        report("lost-write", summary);
    }
}

/// The first of `events` that is not among those of the entry, in order.
fn missing<'a>(entry: &Entry, events: &'a [Value]) -> Option<&'a Value> {
    let mut there = entry.events.iter();
    events
        .iter()
        .find(|wanted| !there.by_ref().any(|event| includes(event, wanted)))
}

/// Whether `whole` has all that `part` has: every member of an object, every item of a list.
pub(super) fn includes(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(name, part)| {
            let whole = whole.get(name).unwrap_or(&Value::Null);
            includes(whole, part)
        }),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| includes(whole, part))
        }
        (whole, part) => whole == part,
    }
}
