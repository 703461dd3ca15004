//! All domains at once, by revision: what clients were told, against the journals of all nodes.
//!
//! Every answer of Onward names a revision, and the journal says what happened at each. So nothing has to be searched
//! for, and one pass over the journal judges every domain:
//!
//! | kind | what |
//! |---|---|
//! | `journals-differ`, `journal-order`, `log-time`, `no-actor` | the nodes have different journals, or one that is none |
//! | `applied-twice` | a command is in the journal at two revisions |
//! | `lost-write`, `wrong-command`, `wrong-effect`, `two-answers` | an acknowledged command is not there as it was told |
//! | `failed-write` | a command that failed is there |
//! | `real-time` | of two writes, the one that began after the other was done has the lower revision |
//! | `stale-read`, `at-least` | a read that does not see what it promised to |
//! | `wrong-answer` | an answer is not what a naive model says at its revision |
//! | what the models say | a rule of a domain is broken at some revision |
//!
//! The models (`model`) know nothing of the state machine: they fold the journal's JSON into maps.
//!
//! It trusts the journal. That a lying one is found is for [`super::wgl`] and [`super::append`], which look at nothing
//! but what clients were told.
//!
//! Limits: keys and values of pairs that are not text are compared as opaque base64. Where the journal was compacted,
//! what came before is not judged, and no answer is: the models need the whole of it.

mod answers;
mod claim;
mod journals;
mod model;
mod order;
#[cfg(test)]
mod tests;
mod writes;

pub use claim::{Claim, Demand, Keys, Level, Query, Said};

use super::Findings;
use crate::final_state::Entry;
use journals::Journals;

/// Whether what clients were told is what the journals say. `journals` are those of all nodes, by node, each whole.
pub fn check(claims: &[Claim], journals: &[(u64, &[Entry])]) -> Findings {
    let judged = claims
        .iter()
        .filter(|claim| matches!(claim.said, Said::Wrote { .. } | Said::Read { .. }))
        .count();
    let journals = Journals::new(journals);
    let looked_at = format!(
        "{judged} answers against {} journals of {} entries",
        journals.nodes.len(),
        journals.longest.len()
    );
    let mut findings = Findings::new(looked_at, judged);
    if journals.longest.is_empty() {
        findings.undecided.push("no node has a journal".to_owned());
        return findings;
    }
    journals.check(&mut findings);
    writes::check(claims, &journals, &mut findings);
    order::check(claims, &mut findings);
    answers::check(claims, &journals, &mut findings);
    findings
}
