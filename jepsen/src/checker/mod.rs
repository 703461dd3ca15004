//! The checkers: pure functions from what clients were told to what is wrong with it.
//!
//! They are independent of each other and of the code that they judge: no clock, no file, no type of the state machine.
//! Each takes input of its own, which a workload makes from its calls, and finds [`Findings`]. A checker that could not
//! make up its mind, or had nothing to look at, says so: that is never a pass.
//!
//! | module | judges | from |
//! |---|---|---|
//! | [`wgl`] | linearizability, key by key | demands and answers |
//! | [`append`] | strict serializability of transactions on lists | demands and answers |
//! | [`log_index`] | all domains at once | answers with revisions, and the journals of all nodes |
//! | [`watch`] | streams: each change once, in order, without a gap | what watchers were sent |
//! | [`set`], [`bank`], [`ledger`] | nothing lost, made up or done twice | looks, snapshots, effects |
//! | [`idempotency`] | one command, one answer | demands that were sent again |
//! | [`lease`] | TTLs never early, fencing tokens that rise | renewals, expiries, grants |
//!
//! [`edn`] writes a history down for checkers elsewhere.

pub mod append;
pub mod bank;
pub mod edn;
pub mod idempotency;
pub mod lease;
pub mod ledger;
pub mod log_index;
pub mod set;
#[cfg(test)]
mod testing;
pub mod watch;
pub mod wgl;

use crate::verdict::{Finding, Kind, Verdict};

/// The most violations that a verdict spells out; the others are counted.
const SPELLED_OUT_MAX: usize = 20;

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// What it looked at, in words: `1200 operations on 50 keys`.
    pub looked_at: String,
    /// How many things it could judge. None of them, and there is no pass.
    pub judged: usize,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// What it could not tell, and why.
    pub undecided: Vec<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The stable name of what is broken: `G-single`, `lost-write`.
    pub kind: &'static str,
    /// One line of what is wrong.
    pub summary: String,
    /// The same at length; a line each.
    pub lines: Vec<String>,
    /// The calls that show it, by [`crate::history::Call::id`].
    pub calls: Vec<u64>,
}

impl Violation {
    /// A violation that one line says all of.
    pub fn new(kind: &'static str, summary: impl Into<String>, calls: impl Into<Vec<u64>>) -> Self {
        Violation {
            kind,
            summary: summary.into(),
            lines: Vec::new(),
            calls: calls.into(),
        }
    }
}

impl Findings {
    /// Nothing wrong so far.
    pub fn new(looked_at: impl Into<String>, judged: usize) -> Self {
        Findings {
            looked_at: looked_at.into(),
            judged,
            violations: Vec::new(),
            undecided: Vec::new(),
        }
    }

    /// What it comes to.
    pub fn finding(&self) -> Finding {
        if !self.violations.is_empty() {
            Finding::Fail
        } else if !self.undecided.is_empty() || self.judged == 0 {
            Finding::Unknown
        } else {
            Finding::Pass
        }
    }

    /// The names of what is broken, each once, in order.
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<_> = self.violations.iter().map(|violation| violation.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// The verdict of the check named `check`, on a promise of Onward.
    pub fn verdict(self, check: impl Into<String>) -> Verdict {
        let finding = self.finding();
        let summary = match (self.violations.first(), self.undecided.first()) {
            (Some(first), _) => match self.violations.len() {
                1 => format!("{}: {}", first.kind, first.summary),
                count => format!("{count} violations, the first: {}: {}", first.kind, first.summary),
            },
            (None, Some(first)) => format!("{}; undecided: {first}", self.looked_at),
            (None, None) if self.judged == 0 => format!("{}: nothing to judge", self.looked_at),
            (None, None) => self.looked_at,
        };
        let mut verdict = Verdict::new(Kind::Property, check, finding, summary);
        let omitted = self.violations.len().saturating_sub(SPELLED_OUT_MAX);
        for violation in self.violations.into_iter().take(SPELLED_OUT_MAX) {
            let Violation { kind, summary, .. } = violation;
            verdict.details.push(format!("{kind}: {summary}"));
            let indented = violation.lines.into_iter().map(|line| format!("  {line}"));
            verdict.details.extend(indented);
            verdict.calls.extend(violation.calls);
        }
        if omitted > 0 {
            verdict.details.push(format!("and {omitted} more"));
        }
        let undecided = self.undecided.into_iter().map(|why| format!("undecided: {why}"));
        verdict.details.extend(undecided);
        verdict.calls.sort_unstable();
        verdict.calls.dedup();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_judged_and_nothing_decided_are_no_pass() {
        assert_eq!(Findings::new("0 calls", 0).finding(), Finding::Unknown);
        let mut findings = Findings::new("1 call", 1);
        assert_eq!(findings.finding(), Finding::Pass);
        findings.undecided.push("too many states".to_owned());
        assert_eq!(findings.finding(), Finding::Unknown);
        findings.violations.push(Violation::new("lost", "1 is lost", [7]));
        assert_eq!(findings.finding(), Finding::Fail);
        let verdict = findings.verdict("set");
        assert_eq!(
            (verdict.finding, verdict.calls.as_slice()),
            (Finding::Fail, &[7][..])
        );
        assert_eq!(verdict.details, ["lost: 1 is lost", "undecided: too many states"]);
    }
}
