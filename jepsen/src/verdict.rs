//! What a run is found to show. Unknown is never a pass.

use serde::{Deserialize, Serialize};

/// One finding of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it judges.
    pub kind: Kind,
    /// The check that found it: `linearizable`, `append`, `log-index`.
    pub check: String,
    /// What was found.
    pub finding: Finding,
    /// One line: how much was looked at, or what is wrong.
    pub summary: String,
    /// What is wrong, at length; a line each.
    #[serde(default)]
    pub details: Vec<String>,
    /// The calls that show it, by [`crate::history::Call::id`].
    #[serde(default)]
    pub calls: Vec<u64>,
}

/// What a verdict judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A promise of Onward.
    Property,
    /// That clients succeed again once faults are healed.
    Liveness,
    /// That each fault really happened and each kind of operation really succeeded.
    Coverage,
    /// That the harness did its work.
    Harness,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It holds.
    Pass,
    /// It could not be told.
    Unknown,
    /// It does not hold.
    Fail,
}

impl Verdict {
    /// A finding without details.
    pub fn new(kind: Kind, check: impl Into<String>, finding: Finding, summary: impl Into<String>) -> Self {
        Verdict {
            kind,
            check: check.into(),
            finding,
            summary: summary.into(),
            details: Vec::new(),
            calls: Vec::new(),
        }
    }
}

/// What all verdicts of a run come to: the worst of them, and unknown where there is none.
pub fn overall(verdicts: &[Verdict]) -> Finding {
    verdicts
        .iter()
        .map(|verdict| verdict.finding)
        .max()
        .unwrap_or(Finding::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_never_a_pass() {
        let verdict = |finding| Verdict::new(Kind::Property, "append", finding, "");
        assert_eq!(overall(&[]), Finding::Unknown);
        assert_eq!(
            overall(&[verdict(Finding::Pass), verdict(Finding::Unknown)]),
            Finding::Unknown
        );
        assert_eq!(
            overall(&[verdict(Finding::Fail), verdict(Finding::Unknown)]),
            Finding::Fail
        );
        assert_eq!(overall(&[verdict(Finding::Pass)]), Finding::Pass);
    }
}
