//! Since when a leader expects to hear of each member.
//!
//! The engine below knows when a member last answered this leader, and nothing of one that never did: the leader before it,
//! say, whose death made this one. Such a one is silent since this node began to lead, or since it became a member, if that
//! was later. Of a place that is kept for a node that has not come yet nothing is expected.

use crate::types::TypeConfig;
use openraft::metrics::RaftServerMetrics;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Whom the leader of one term expects to hear of.
#[derive(Default)]
struct Term {
    term: u64,
    since: BTreeMap<u64, Instant>,
}

/// The same of this node, while it leads; nobody while another one does.
#[derive(Default)]
pub(crate) struct Expected(Mutex<Term>);

impl Expected {
    fn lock(&self) -> MutexGuard<'_, Term> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who leads, and who belongs to the cluster.
    pub(crate) fn note(&self, metrics: &RaftServerMetrics<TypeConfig>) {
        let nodes = metrics.membership_config.membership().nodes();
        let present = nodes.filter(|(_, node)| !node.http.is_empty()).map(|(id, _)| *id);
        let leads = metrics.current_leader == Some(metrics.id);
        let term = leads.then_some(metrics.vote.leader_id.term);
        self.expect(term, &present.collect(), Instant::now());
    }

    /// Expects to hear of those who are `present` from `now` on, in the `term` that this node leads, if it does.
    fn expect(&self, term: Option<u64>, present: &BTreeSet<u64>, now: Instant) {
        let mut expected = self.lock();
        let Some(term) = term else {
            *expected = Term::default();
            return;
        };
        if expected.term != term {
            *expected = Term {
                term,
                since: BTreeMap::new(),
            };
        }
        expected.since.retain(|id, _| present.contains(id));
        for id in present {
            expected.since.entry(*id).or_insert(now);
        }
    }

    /// For how long the leader of `term`, this node, has expected to hear of a member; not at all yet, where it has only
    /// begun to lead or the member has only come.
    pub(crate) fn for_how_long(&self, term: u64, id: u64) -> Duration {
        self.until(Instant::now(), term, id)
    }

    fn until(&self, now: Instant, term: u64, id: u64) -> Duration {
        let expected = self.lock();
        let since = expected.since.get(&id).filter(|_| expected.term == term);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_member_is_expected_since_this_node_leads_or_since_it_came() {
        let expected = Expected::default();
        let began = Instant::now();
        expected.expect(Some(4), &ids(&[1, 2, 3]), began);
        expected.expect(Some(4), &ids(&[1, 2, 3, 4]), began + SECOND * 6);
        let waited = |term, id| expected.until(began + SECOND * 7, term, id);
        assert_eq!((waited(4, 2), waited(4, 4)), (SECOND * 7, SECOND));
        assert_eq!(waited(4, 9), Duration::ZERO, "it is no member yet");
        assert_eq!(
            waited(5, 2),
            Duration::ZERO,
            "that this node leads again is not noted yet"
        );
        // One that left and came back came now.
        expected.expect(Some(4), &ids(&[1, 2, 3]), began + SECOND * 7);
        expected.expect(Some(4), &ids(&[1, 2, 3, 4]), began + SECOND * 7);
        assert_eq!((waited(4, 2), waited(4, 4)), (SECOND * 7, Duration::ZERO));
    }

    #[test]
    fn each_term_begins_anew() {
        let expected = Expected::default();
        let began = Instant::now();
        expected.expect(Some(4), &ids(&[1, 2]), began);
        expected.expect(Some(6), &ids(&[1, 2]), began + SECOND * 6);
        assert_eq!(expected.until(began + SECOND * 6, 6, 2), Duration::ZERO);
        expected.expect(None, &ids(&[1, 2]), began + SECOND * 7);
        let elsewhere = expected.until(began + SECOND * 9, 6, 2);
        assert_eq!(elsewhere, Duration::ZERO, "another one leads");
    }
}
