//! Revisions and real time: whoever begins after another was done is at a higher revision, or sees the other's.

use super::{Claim, Level, Said};
use crate::checker::{Findings, Violation};
use crate::history::TimeNs;
use std::collections::HashMap;
use uuid::Uuid;

pub(super) fn check(claims: &[Claim], findings: &mut Findings) {
    let asked = first_asked(claims);
    let mut ends = Vec::new();
    let mut begins = Vec::new();
    for claim in claims {
        let (began, revision) = match &claim.said {
            Said::Wrote {
                command, revision, ..
            } => (asked[command], *revision),
            Said::Read { revision, .. } => (claim.invoked_ns, *revision),
            Said::Unknown { .. } | Said::Failed { .. } => continue,
        };
        ends.push((claim.completed_ns, revision, claim.call));
        begins.push((began, revision, claim));
    }
    ends.sort_unstable();
    begins.sort_by_key(|(began, _, claim)| (*began, claim.call));
    let mut ends = ends.into_iter().peekable();
    // The newest revision that anybody was told of so far, and who was.
    let mut newest = (0, 0);
    for (began, revision, claim) in begins {
        while let Some((_, told, call)) = ends.next_if(|(ended, _, _)| *ended < began) {
            newest = newest.max((told, call));
        }
        findings.violations.extend(judge(claim, revision, newest));
    }
}

fn judge(claim: &Claim, revision: u64, (newest, by): (u64, u64)) -> Option<Violation> {
    let call = claim.call;
    let (kind, summary) = match &claim.said {
        Said::Wrote { .. } if revision <= newest => (
            "real-time",
            format!("call {call} wrote revision {revision}, and began after call {by} was told {newest}"),
        ),
        Said::Read {
            level: Level::Linearizable,
            ..
        } if revision < newest => (
            "stale-read",
            format!("call {call} read revision {revision}, and began after call {by} was told {newest}"),
        ),
        Said::Read {
            level: Level::AtLeast(wanted),
            ..
        } if revision < *wanted => {
            let summary = format!("call {call} asked for revision {wanted} and read {revision}");
            return Some(Violation::new("at-least", summary, [call]));
        }
        _ => return None,
    };
    Some(Violation::new(kind, summary, [by, call]))
}

/// When each command was first asked for: sent again, it keeps its revision.
fn first_asked(claims: &[Claim]) -> HashMap<Uuid, TimeNs> {
    let mut asked: HashMap<Uuid, TimeNs> = HashMap::new();
    for claim in claims {
        if let Some(command) = claim.command() {
            let first = asked.entry(command).or_insert(claim.invoked_ns);
            *first = claim.invoked_ns.min(*first);
        }
    }
    asked
}
