//! Watches: every change once, in order, with no gap, across all nodes that a watcher goes to; or an explicit word that
//! history no longer reaches back.

use super::{Findings, Violation};
use std::collections::BTreeMap;

/// All that one watcher was sent, leg by leg: each leg is one stream from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// Who, for people: `client 3, watch-kv`.
    pub watcher: String,
    /// In order.
    pub legs: Vec<Leg>,
}

/// What one stream sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// The position that it was asked to go on after.
    pub after: u64,
    /// The position that it came to: all up to here was sent.
    pub to: u64,
    /// What it sent: revisions, with what happened.
    pub seen: Vec<(u64, String)>,
    /// The first revision that is kept, where the node said that history does not reach back to `after`.
    pub compacted: Option<u64>,
}

/// Whether all watchers saw what happened. `truth` is all that they are to be sent: revisions, with what happened.
pub fn check(watches: &[Watch], truth: &[(u64, String)]) -> Findings {
    let legs: usize = watches.iter().map(|watch| watch.legs.len()).sum();
    let messages: usize = watches
        .iter()
        .flat_map(|watch| &watch.legs)
        .map(|leg| leg.seen.len())
        .sum();
    let looked_at = format!(
        "{} watchers were sent {messages} changes in {legs} streams, of {} that there were",
        watches.len(),
        truth.len()
    );
    let mut findings = Findings::new(looked_at, messages);
    let truth: BTreeMap<u64, &str> = truth.iter().map(|(at, what)| (*at, what.as_str())).collect();
    for watch in watches {
        for leg in &watch.legs {
            let report = |kind, what: String| {
                let summary = format!("{} in call {}: {what}", watch.watcher, leg.call);
                findings
                    .violations
                    .push(Violation::new(kind, summary, [leg.call]));
            };
            judge(leg, &truth, report);
        }
        for pair in watch.legs.windows(2) {
            if pair[1].after != pair[0].to {
                let why = format!(
                    "{}: call {} went on after {}, and call {} had come to {}",
                    watch.watcher, pair[1].call, pair[1].after, pair[0].call, pair[0].to
                );
                findings.undecided.push(why);
            }
        }
    }
    findings
}

fn judge(leg: &Leg, truth: &BTreeMap<u64, &str>, mut report: impl FnMut(&'static str, String)) {
    let mut position = leg.after;
    for (revision, what) in &leg.seen {
        if leg.seen.iter().filter(|(other, _)| other == revision).count() > 1 && *revision == position {
            report("twice", format!("revision {revision} again"));
        } else if *revision <= position {
            report("disorder", format!("revision {revision} after {position}"));
        }
        position = position.max(*revision);
        match truth.get(revision) {
            None => report(
                "phantom",
                format!("nothing happened at revision {revision}: {what}"),
            ),
            Some(happened) if happened != what => {
                report(
                    "wrong",
                    format!("at revision {revision} was {happened}, and it was sent {what}"),
                );
            }
            Some(_) => {}
        }
    }
    if position > leg.to {
        report(
            "disorder",
            format!("it sent revision {position} and came to {}", leg.to),
        );
    }
    if let Some(floor) = leg.compacted
        && leg.seen.is_empty()
    {
        if floor <= leg.after + 1 {
            report(
                "needless-gap",
                format!(
                    "history begins at {floor}, and it was to go on after {}",
                    leg.after
                ),
            );
        }
        return;
    }
    if leg.to <= leg.after {
        return;
    }
    let seen = |revision: &u64| leg.seen.iter().any(|(sent, _)| sent == revision);
    let mut missed = truth
        .range(leg.after + 1..=leg.to)
        .filter(|(revision, _)| !seen(revision));
    if let Some((revision, what)) = missed.next() {
        let more = missed.count();
        report(
            "gap",
            format!("it missed {what} at revision {revision}, and {more} more"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::testing::{Rng, cases};
    use crate::verdict::Finding;
    use proptest::prelude::*;

    fn truth() -> Vec<(u64, String)> {
        (1..60).map(|at| (at * 3, format!("k={at}"))).collect()
    }

    /// A watcher that sees everything, in legs that end where a seed says.
    fn watch(seed: u64) -> Watch {
        let mut rng = Rng::new(seed);
        let (mut after, mut legs) = (0, Vec::new());
        for call in 0..6 {
            let to = after + rng.below(40);
            let seen = truth()
                .into_iter()
                .filter(|(at, _)| (after + 1..=to).contains(at))
                .collect();
            legs.push(Leg {
                call,
                after,
                to,
                seen,
                compacted: None,
            });
            after = to;
        }
        Watch {
            watcher: "client 1".to_owned(),
            legs,
        }
    }

    fn kinds(leg: Leg) -> Vec<&'static str> {
        let watch = Watch {
            watcher: "client 1".to_owned(),
            legs: vec![leg],
        };
        check(&[watch], &truth()).kinds()
    }

    #[test]
    fn compaction_is_said_and_needed() {
        let leg = |after, floor, seen: &[u64]| Leg {
            call: 0,
            after,
            to: seen.last().copied().unwrap_or(floor - 1),
            seen: seen.iter().map(|at| (*at, format!("k={}", at / 3))).collect(),
            compacted: Some(floor),
        };
        assert_eq!(kinds(leg(5, 30, &[])), [""; 0]);
        assert_eq!(kinds(leg(29, 30, &[])), ["needless-gap"]);
        assert_eq!(kinds(leg(5, 30, &[6, 9])), [""; 0]);
        assert_eq!(kinds(leg(5, 30, &[6, 12])), ["gap"]);
        assert_eq!(check(&[], &truth()).finding(), Finding::Unknown);
        let mut jumps = watch(3);
        jumps.legs[1].after += 100;
        jumps.legs[1].to += 100;
        jumps.legs[1].seen.clear();
        assert!(!check(&[jumps], &truth()).undecided.is_empty());
    }

    proptest! {
        #![proptest_config(cases(100))]

        #[test]
        fn whatever_is_missed_doubled_moved_or_changed_is_found(seed: u64, pick: prop::sample::Index, what in 0..5) {
            let mut watch = watch(seed);
            prop_assert!(check(std::slice::from_ref(&watch), &truth()).violations.is_empty());
            let mut legs: Vec<_> = watch.legs.iter_mut().filter(|leg| leg.seen.len() > 1).collect();
            prop_assume!(!legs.is_empty());
            let place = pick.index(legs.len());
            let leg = &mut *legs[place];
            let at = pick.index(leg.seen.len() - 1);
            let kind = match what {
                0 => { leg.seen.remove(at); "gap" }
                1 => { let again = leg.seen[at].clone(); leg.seen.insert(at, again); "twice" }
                2 => { leg.seen.swap(at, at + 1); "disorder" }
                3 => { leg.seen[at].1.push('!'); "wrong" }
                _ => { leg.seen[at].0 -= 1; "phantom" }
            };
            let kinds = check(&[watch], &truth()).kinds();
            prop_assert!(kinds.contains(&kind), "{:?}", kinds);
        }
    }
}
