//! What somebody holds for a time: it is not taken away before its time, and its fencing tokens rise, so that whoever
//! held it before is told from whoever holds it now.

use super::{Findings, Violation};
use crate::history::TimeNs;
use std::collections::BTreeMap;

/// Somebody was granted something, or renewed it, and was told so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// What: the same through all renewals of one grant.
    pub lease: String,
    /// When it was asked for: it lasts from then at least.
    pub invoked_ns: TimeNs,
}

/// Somebody was told that it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Which call it is.
    pub call: u64,
    /// What.
    pub lease: String,
    /// When the answer was there: it was over by then.
    pub told_ns: TimeNs,
}

/// Whether nothing was over earlier than `lasts_ns` after its last acknowledged renewal was asked for. `slack_ns` is how
/// far the clocks of the nodes were out of step during the run.
pub fn ttl(renewals: &[Renewal], expiries: &[Expiry], lasts_ns: TimeNs, slack_ns: TimeNs) -> Findings {
    let looked_at = format!("{} renewals and {} expiries", renewals.len(), expiries.len());
    let mut findings = Findings::new(looked_at, expiries.len());
    let mut renewed: BTreeMap<&str, Vec<&Renewal>> = BTreeMap::new();
    for renewal in renewals {
        renewed.entry(&renewal.lease).or_default().push(renewal);
    }
    for expiry in expiries {
        let of_it = renewed.get(expiry.lease.as_str()).map_or(&[][..], Vec::as_slice);
        let before = of_it.iter().filter(|renewal| renewal.invoked_ns < expiry.told_ns);
        let Some(last) = before.max_by_key(|renewal| renewal.invoked_ns) else {
            continue;
        };
        let lasted = expiry.told_ns - last.invoked_ns;
        if lasted + slack_ns < lasts_ns {
            let summary = format!(
                "{} was over {} ms after call {} renewed it, and lasts {} ms",
                expiry.lease,
                lasted / 1_000_000,
                last.call,
                lasts_ns / 1_000_000
            );
            findings
                .violations
                .push(Violation::new("early", summary, [last.call, expiry.call]));
        }
    }
    findings
}

/// A token that somebody was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which call it is, by [`crate::history::Call::id`].
    pub call: u64,
    /// Of which lock.
    pub lock: String,
    /// Who got it.
    pub holder: u64,
    /// The token.
    pub token: u64,
    /// When it was asked for.
    pub invoked_ns: TimeNs,
    /// When it was there.
    pub completed_ns: TimeNs,
}

/// A write that a token guarded, as it took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// By which lock.
    pub lock: String,
    /// The token that it showed.
    pub token: u64,
}

/// Whether tokens rise, each has one holder, and no write got through under a token that another had followed on.
/// `writes` are in the order in which they took place.
pub fn fencing(grants: &[Grant], writes: &[Guarded]) -> Findings {
    let looked_at = format!("{} grants and {} guarded writes", grants.len(), writes.len());
    let mut findings = Findings::new(looked_at, grants.len() + writes.len());
    let mut report = |kind, summary, calls: &[u64]| {
        findings.violations.push(Violation::new(kind, summary, calls));
    };
    let mut locks: BTreeMap<&str, Vec<&Grant>> = BTreeMap::new();
    for grant in grants {
        locks.entry(&grant.lock).or_default().push(grant);
    }
    for (lock, mut grants) in locks {
        grants.sort_by_key(|grant| (grant.token, grant.call));
        for pair in grants.windows(2) {
            let (one, next) = (pair[0], pair[1]);
            if one.token == next.token && one.holder != next.holder {
                let summary = format!(
                    "{lock}: {} and {} both hold token {}",
                    one.holder, next.holder, one.token
                );
                report("two-holders", summary, &[one.call, next.call]);
            }
        }
        // From the highest token down: the earliest end so far is that of some grant with a higher token.
        let mut earliest: Option<&Grant> = None;
        for grant in grants.into_iter().rev() {
            if let Some(higher) = earliest.filter(|higher| higher.token > grant.token)
                && higher.completed_ns < grant.invoked_ns
            {
                let summary = format!("{lock}: token {} was given after {}", grant.token, higher.token);
                report("tokens-fall", summary, &[higher.call, grant.call]);
            }
            if earliest.is_none_or(|earliest| grant.completed_ns < earliest.completed_ns) {
                earliest = Some(grant);
            }
        }
    }
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for Guarded { lock, token } in writes {
        let newest = newest.entry(lock).or_default();
        if token < newest {
            let summary = format!("{lock}: a write under token {token} got through after one under {newest}");
            report("stale-token", summary, &[]);
        }
        *newest = (*newest).max(*token);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::testing::{Rng, cases};
    use crate::verdict::Finding;
    use proptest::prelude::*;

    #[test]
    fn a_ttl_lasts_from_the_last_renewal_on() {
        let renewal = |call, invoked_ns| Renewal {
            call,
            lease: "a".to_owned(),
            invoked_ns,
        };
        let expiry = |told_ns| {
            [Expiry {
                call: 9,
                lease: "a".to_owned(),
                told_ns,
            }]
        };
        let renewals = [renewal(0, 0), renewal(1, 500), renewal(2, 2000)];
        assert_eq!(ttl(&renewals, &expiry(1500), 1000, 0).finding(), Finding::Pass);
        assert_eq!(ttl(&renewals, &expiry(1400), 1000, 0).kinds(), ["early"]);
        assert_eq!(ttl(&renewals, &expiry(1400), 1000, 100).finding(), Finding::Pass);
        assert_eq!(ttl(&renewals, &[], 1000, 0).finding(), Finding::Unknown);
    }

    fn grants(seed: u64) -> Vec<Grant> {
        let mut rng = Rng::new(seed);
        let mut now = 0;
        let mut grant = |token| {
            let invoked_ns = now + rng.below(10);
            // The grant itself falls between the two ends, and the next one after it.
            now = invoked_ns + 1 + rng.below(5);
            Grant {
                call: token,
                lock: "a".to_owned(),
                holder: rng.below(3),
                token,
                invoked_ns,
                completed_ns: now + rng.below(20),
            }
        };
        (1..30).map(&mut grant).collect()
    }

    fn writes(tokens: &[u64]) -> Vec<Guarded> {
        let write = |token: &u64| Guarded {
            lock: "a".to_owned(),
            token: *token,
        };
        tokens.iter().map(write).collect()
    }

    #[test]
    fn writes_under_old_tokens_are_found() {
        assert_eq!(fencing(&[], &writes(&[1, 1, 4, 4])).finding(), Finding::Pass);
        assert_eq!(fencing(&[], &writes(&[1, 4, 1])).kinds(), ["stale-token"]);
        assert_eq!(fencing(&[], &[]).finding(), Finding::Unknown);
    }

    proptest! {
        #![proptest_config(cases(100))]

        #[test]
        fn tokens_that_fall_or_have_two_holders_are_found(seed: u64, pick: prop::sample::Index, two: bool) {
            let mut grants = grants(seed);
            prop_assert!(fencing(&grants, &[]).violations.is_empty());
            let mut apart = Vec::new();
            for (place, one) in grants.iter().enumerate() {
                let later = grants.iter().skip(place + 1);
                apart.extend(later.filter(|later| one.completed_ns < later.invoked_ns).map(|later| (one.token, later.token)));
            }
            prop_assume!(!apart.is_empty());
            let (one, later) = *pick.get(&apart);
            let (one, later) = (one as usize - 1, later as usize - 1);
            let kind = if two {
                grants[later].token = grants[one].token;
                grants[later].holder = grants[one].holder + 1;
                "two-holders"
            } else {
                let token = grants[one].token;
                grants[one].token = grants[later].token;
                grants[later].token = token;
                "tokens-fall"
            };
            let kinds = fencing(&grants, &[]).kinds();
            prop_assert!(kinds.contains(&kind), "{:?}", kinds);
        }
    }
}
