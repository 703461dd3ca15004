//! The rules of changes: who may come, who may go, who may lead. Pure: they judge a [`Roll`] that the leader has made.

use super::reservation::Reservation;
use crate::types::PeerNode;
use onward_statemachine::NodeId;
use onward_statemachine::membership::ChangeRefusal;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Who belongs to the cluster, and who of them answers, as the leader knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Roll {
    /// The leader.
    pub(super) me: u64,
    /// Of the change that made it what it is.
    pub(super) revision: u64,
    /// All members.
    pub(super) nodes: BTreeMap<u64, PeerNode>,
    /// Who votes; two sets while the voters change, the new one last.
    pub(super) voters: Vec<BTreeSet<u64>>,
    /// Who answered the leader lately, itself among them.
    pub(super) answering: BTreeSet<u64>,
    /// How far the log of each is known to reach, where anything is known.
    pub(super) matched: BTreeMap<u64, Option<u64>>,
    /// How far the leader's own reached when the judging began: who has all of that has caught up.
    pub(super) target: u64,
}

/// How a place is kept for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is there already.
    Kept(u64),
    /// Under a new id.
    New,
}

/// How a node that asks itself is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It was let in before.
    Standing,
    /// It takes the place that an operator kept for it, which is then taken for good.
    Claim,
    /// It is new. What is left of a former life at its address goes.
    New {
        /// The learner that was there.
        former: Option<u64>,
    },
    /// The members have changed since it reserved its id.
    Outdated,
}

impl Roll {
    /// Whether the voters are changing.
    pub(super) fn is_joint(&self) -> bool {
        self.voters.len() > 1
    }

    /// Whether it votes, now or once the present change is through.
    pub(super) fn votes(&self, id: u64) -> bool {
        self.voters.iter().any(|voters| voters.contains(&id))
    }

    /// The node that is on its way to a vote.
    pub(super) fn learner(&self) -> Option<u64> {
        self.nodes.keys().copied().find(|id| !self.votes(*id))
    }

    /// That there is no such member.
    pub(super) fn not_member(&self, id: u64) -> ChangeRefusal {
        let members = self.nodes.keys().map(|id| NodeId(*id)).collect();
        ChangeRefusal::NotMember {
            id: NodeId(id),
            members,
        }
    }

    /// Judges whether a place may be kept for a node.
    pub(super) fn place(&self, peer: &str, replaces: Option<u64>) -> Result<Place, ChangeRefusal> {
        // Whoever kept the place before knew of the one who votes there.
        if self.kept_at(peer).is_none() {
            self.not_taken(peer, replaces)?;
        }
        if let Some(id) = self.learner_at(peer) {
            return Ok(Place::Kept(id));
        }
        // A node that comes late for a place that is free already is welcome all the same; who types, may err.
        if let Some(gone) = replaces.filter(|gone| !self.nodes.contains_key(gone)) {
            return Err(self.not_member(gone));
        }
        self.nothing_under_way()?;
        Ok(Place::New)
    }

    /// Judges whether a node may come with the id that it has reserved.
    pub(super) fn entry(
        &self,
        reserved: &Reservation,
        peer: &str,
        replaces: Option<u64>,
    ) -> Result<Entry, ChangeRefusal> {
        if let Some(there) = self.nodes.get(&reserved.id.0) {
            return Ok(match there {
                there if there.peer != peer => Entry::Outdated,
                there if there.http.is_empty() => Entry::Claim,
                _ => Entry::Standing,
            });
        }
        // It may have been let in and let go of since, or another may have come in its place.
        if reserved.as_of.0 != self.revision {
            return Ok(Entry::Outdated);
        }
        self.not_taken(peer, replaces)?;
        let former = self.learner_at(peer);
        // Its data is gone, or none would have reserved another id there.
        if former.is_none() {
            self.nothing_under_way()?;
        }
        Ok(Entry::New { former })
    }

    /// The learner at an address.
    fn learner_at(&self, peer: &str) -> Option<u64> {
        let mut there = self.nodes.iter().filter(|(_, node)| node.peer == peer);
        there.find(|(id, _)| !self.votes(**id)).map(|(id, _)| *id)
    }

    /// The place at an address that an operator keeps for a node, which has not come yet.
    pub(super) fn kept_at(&self, peer: &str) -> Option<u64> {
        self.learner_at(peer)
            .filter(|id| self.nodes.get(id).is_some_and(|node| node.http.is_empty()))
    }

    /// Two voters at one address are one too many, unless one takes the place of the other.
    fn not_taken(&self, peer: &str, replaces: Option<u64>) -> Result<(), ChangeRefusal> {
        match self.voter_at(peer).filter(|id| Some(*id) != replaces) {
            None => Ok(()),
            Some(id) => Err(ChangeRefusal::AddressTaken {
                address: peer.to_owned(),
                id: NodeId(id),
            }),
        }
    }

    /// Who votes at an address.
    pub(super) fn voter_at(&self, peer: &str) -> Option<u64> {
        let there = |id: &u64| self.nodes.get(id).is_some_and(|node| node.peer == peer);
        self.nodes
            .keys()
            .copied()
            .filter(there)
            .find(|id| self.votes(*id))
    }

    /// Members change one at a time.
    fn nothing_under_way(&self) -> Result<(), ChangeRefusal> {
        if self.is_joint() {
            return Err(ChangeRefusal::Voting);
        }
        match self.learner() {
            Some(id) => Err(ChangeRefusal::Joining { id: NodeId(id) }),
            None => Ok(()),
        }
    }

    /// Judges whether a voter may go.
    pub(super) fn without(&self, id: u64) -> Result<BTreeSet<u64>, ChangeRefusal> {
        self.nothing_under_way()?;
        let mut voters = self.last_voters();
        voters.remove(&id);
        if voters.is_empty() {
            return Err(ChangeRefusal::LastVoter { id: NodeId(id) });
        }
        self.majority_of(voters)
    }

    /// Judges whether a learner that has caught up may vote, in the place of `gone` if that is given.
    pub(super) fn with(&self, id: u64, gone: Option<u64>) -> Result<BTreeSet<u64>, ChangeRefusal> {
        let mut voters = self.last_voters();
        voters.insert(id);
        if let Some(gone) = gone {
            voters.remove(&gone);
        }
        // It counts: it has caught up.
        let mut roll = self.clone();
        roll.answering.insert(id);
        roll.matched.insert(id, Some(self.target));
        roll.majority_of(voters)
    }

    fn last_voters(&self) -> BTreeSet<u64> {
        self.voters.last().cloned().unwrap_or_default()
    }

    /// Whether a majority of these answers and has caught up. One that has not would hold all writes up until it has: from
    /// the moment that the change is in the log they need it, and the change cannot be taken back.
    fn majority_of(&self, voters: BTreeSet<u64>) -> Result<BTreeSet<u64>, ChangeRefusal> {
        let is_majority_without = |missing: usize| (voters.len() - missing) * 2 > voters.len();
        let silent: Vec<NodeId> = voters.difference(&self.answering).copied().map(NodeId).collect();
        if !is_majority_without(silent.len()) {
            return Err(ChangeRefusal::QuorumLost {
                voters: voters.into_iter().map(NodeId).collect(),
                silent,
            });
        }
        let there = voters.intersection(&self.answering).copied();
        let behind: Vec<(NodeId, Option<u64>)> = there
            .filter(|id| !self.has_caught_up(*id))
            .map(|id| (NodeId(id), self.lag_of(id)))
            .collect();
        if is_majority_without(silent.len() + behind.len()) {
            return Ok(voters);
        }
        Err(ChangeRefusal::Behind {
            voters: voters.into_iter().map(NodeId).collect(),
            behind,
            silent,
        })
    }

    /// Whether a member has all that the leader had when the judging began.
    fn has_caught_up(&self, id: u64) -> bool {
        id == self.me || self.lag_of(id) == Some(0)
    }

    /// How many entries a member lacks of these, where it is known.
    fn lag_of(&self, id: u64) -> Option<u64> {
        let matched = self.matched.get(&id).copied().flatten();
        matched.map(|matched| self.target.saturating_sub(matched))
    }

    /// All who could take over from the leader: who answers first, and of these who has most of the log.
    pub(super) fn heirs(&self) -> Vec<u64> {
        let others = self.last_voters().into_iter().filter(|id| *id != self.me);
        let mut heirs: Vec<u64> = others.collect();
        heirs.sort_by_key(|id| {
            Reverse((
                self.answering.contains(id),
                self.matched.get(id).copied().flatten(),
            ))
        });
        heirs
    }

    /// Picks who takes over from the leader.
    pub(super) fn heir(&self, wanted: Option<u64>) -> Result<u64, ChangeRefusal> {
        let Some(id) = wanted else {
            let best = self.heirs().into_iter().find(|id| self.answering.contains(id));
            return best.ok_or(ChangeRefusal::NoHeir { id: NodeId(self.me) });
        };
        if !self.nodes.contains_key(&id) {
            return Err(self.not_member(id));
        }
        if !self.votes(id) {
            return Err(ChangeRefusal::NotVoter { id: NodeId(id) });
        }
        if !self.answering.contains(&id) {
            return Err(ChangeRefusal::Silent { id: NodeId(id) });
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_statemachine::Revision;
    use uuid::Uuid;

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    /// Node 1 leads.
    fn roll(voters: &[u64], learners: &[u64], answering: &[u64]) -> Roll {
        let node = |id: &u64| {
            let node = PeerNode {
                peer: format!("10.0.0.{id}:7401"),
                http: format!("http://10.0.0.{id}:7400"),
            };
            (*id, node)
        };
        Roll {
            me: 1,
            revision: 20,
            nodes: voters.iter().chain(learners).map(node).collect(),
            voters: vec![set(voters)],
            answering: set(answering),
            matched: voters.iter().map(|id| (*id, Some(20))).collect(),
            target: 20,
        }
    }

    fn reserved(id: u64, as_of: u64) -> Reservation {
        Reservation {
            id: NodeId(id),
            cluster: Uuid::nil(),
            as_of: Revision(as_of),
        }
    }

    /// What comes of a node that has just reserved its id.
    fn entry(roll: &Roll, peer: &str, replaces: Option<u64>) -> Result<Entry, ChangeRefusal> {
        roll.entry(&reserved(9, roll.revision), peer, replaces)
    }

    #[test]
    fn a_voter_goes_only_where_a_majority_stays() {
        let gone = |voters: &[u64], answering: &[u64], id| roll(voters, &[], answering).without(id);
        assert_eq!(gone(&[1, 2, 3], &[1, 2, 3], 3), Ok(set(&[1, 2])));
        // A dead one may go, and a live one while enough others live.
        assert_eq!(gone(&[1, 2, 3], &[1, 2], 3), Ok(set(&[1, 2])));
        assert_eq!(gone(&[1, 2, 3, 4, 5], &[1, 2, 3, 4], 2), Ok(set(&[1, 3, 4, 5])));
        let lost = ChangeRefusal::QuorumLost {
            voters: vec![NodeId(1), NodeId(3)],
            silent: vec![NodeId(3)],
        };
        assert_eq!(gone(&[1, 2, 3], &[1, 2], 2), Err(lost.clone()));
        assert!(
            lost.to_string()
                .contains("Start them again, or remove or replace them first")
        );
        assert!(gone(&[1, 2, 3, 4, 5], &[1, 2, 3], 2).is_err());
        assert_eq!(
            gone(&[1], &[1], 1),
            Err(ChangeRefusal::LastVoter { id: NodeId(1) })
        );
    }

    #[test]
    fn a_voter_stays_while_another_that_would_be_needed_is_behind() {
        let mut three = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        three.target = 500;
        three.matched = BTreeMap::from([(2, Some(510)), (3, Some(88))]);
        let refused = three.without(2).expect_err("node 3 lacks most of the log");
        assert_eq!(
            refused,
            ChangeRefusal::Behind {
                voters: vec![NodeId(1), NodeId(3)],
                behind: vec![(NodeId(3), Some(412))],
                silent: vec![],
            }
        );
        let said = refused.to_string();
        assert!(said.contains("node 3 is 412 entries behind. "), "{said}");
        assert!(
            said.contains("wait for it") && said.contains("or replace"),
            "{said}"
        );
        // The one that is behind may go, and be replaced.
        assert_eq!(three.without(3), Ok(set(&[1, 2])));
        assert_eq!(three.with(4, Some(3)), Ok(set(&[1, 2, 4])));
        three.matched.insert(3, Some(499));
        assert!(three.without(2).is_err(), "one entry is missing");
        three.matched.insert(3, Some(500));
        assert_eq!(three.without(2), Ok(set(&[1, 3])));

        // Of five, two may be missing, whatever the reason; a leader that is new knows of nobody how far he is.
        let mut five = roll(&[1, 2, 3, 4, 5], &[], &[1, 2, 3, 4]);
        assert_eq!(five.without(2), Ok(set(&[1, 3, 4, 5])));
        five.matched.insert(3, None);
        assert_eq!(five.without(3), Ok(set(&[1, 2, 4, 5])));
        let said = five.without(2).expect_err("two of four are missing").to_string();
        assert!(
            said.contains("node 3 is behind, by how much is not known yet; node 5 does not answer. "),
            "{said}"
        );
        // Who has caught up in their place is counted on.
        assert_eq!(five.with(6, Some(5)), Ok(set(&[1, 2, 3, 4, 6])));
    }

    #[test]
    fn members_change_one_at_a_time() {
        let joining = ChangeRefusal::Joining { id: NodeId(4) };
        let busy = roll(&[1, 2, 3], &[4], &[1, 2, 3]);
        assert_eq!(busy.without(3), Err(joining.clone()));
        assert_eq!(entry(&busy, "10.0.0.9:7401", None), Err(joining));
        let mut voting = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        voting.voters.push(set(&[1, 2]));
        assert_eq!(voting.without(2), Err(ChangeRefusal::Voting));
        assert_eq!(entry(&voting, "10.0.0.9:7401", None), Err(ChangeRefusal::Voting));
        // The one that is on its way may arrive.
        assert_eq!(busy.with(4, None), Ok(set(&[1, 2, 3, 4])));
        assert_eq!(busy.with(4, Some(3)), Ok(set(&[1, 2, 4])));
    }

    #[test]
    fn one_address_is_one_member() {
        let three = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        let new = Ok(Entry::New { former: None });
        assert_eq!(entry(&three, "10.0.0.9:7401", None), new);
        let taken = entry(&three, "10.0.0.3:7401", None).expect_err("node 3 is there");
        assert!(
            taken
                .to_string()
                .contains("onward cluster replace 3 10.0.0.3:7401"),
            "{taken}"
        );
        assert_eq!(entry(&three, "10.0.0.3:7401", Some(3)), new);
    }

    #[test]
    fn a_place_that_is_kept_is_claimed_by_whom_it_was_kept_for() {
        let mut kept = roll(&[1, 2, 3], &[4], &[1, 2, 3]);
        let there = "10.0.0.4:7401";
        assert_eq!(kept.place(there, None), Ok(Place::Kept(4)));
        assert_eq!(kept.kept_at(there), None, "node 4 is known to run");
        kept.nodes.get_mut(&4).expect("there").http.clear();
        assert_eq!(kept.kept_at(there), Some(4));
        assert_eq!(kept.entry(&reserved(4, 20), there, None), Ok(Entry::Claim));
    }

    #[test]
    fn a_request_that_comes_again_or_late_takes_nobodys_place() {
        let there = "10.0.0.4:7401";
        let before = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        let asked = reserved(4, before.revision);
        assert_eq!(before.entry(&asked, there, None), Ok(Entry::New { former: None }));
        // Again, from the same directory.
        let after = Roll {
            revision: 23,
            ..roll(&[1, 2, 3], &[4], &[1, 2, 3])
        };
        assert_eq!(after.entry(&asked, there, None), Ok(Entry::Standing));
        // That directory is lost, and its successor has reserved another id.
        let successor = reserved(5, after.revision);
        assert_eq!(
            after.entry(&successor, there, None),
            Ok(Entry::New { former: Some(4) })
        );
        let mut later = Roll {
            revision: 26,
            ..roll(&[1, 2, 3], &[5], &[1, 2, 3])
        };
        later.nodes.get_mut(&5).expect("there").peer = there.to_owned();
        assert_eq!(later.entry(&asked, there, None), Ok(Entry::Outdated));
        assert_eq!(later.entry(&successor, there, None), Ok(Entry::Standing));
        // It was let go of: its id does not come again.
        let gone = Roll {
            revision: 29,
            ..before
        };
        assert_eq!(gone.entry(&successor, there, None), Ok(Entry::Outdated));
        // It has moved meanwhile.
        assert_eq!(after.entry(&asked, "10.0.0.7:7401", None), Ok(Entry::Outdated));
    }

    #[test]
    fn who_was_prepared_to_take_a_voters_address_may() {
        let mut kept = roll(&[1, 2, 3], &[4], &[1, 2, 3]);
        let place = kept.nodes.get_mut(&4).expect("there");
        place.peer = "10.0.0.3:7401".to_owned();
        assert!(
            entry(&kept, "10.0.0.3:7401", None).is_err(),
            "node 4 is known to run"
        );
        kept.nodes.get_mut(&4).expect("there").http.clear();
        assert_eq!(kept.place("10.0.0.3:7401", None), Ok(Place::Kept(4)));
        assert_eq!(
            kept.entry(&reserved(4, 20), "10.0.0.3:7401", None),
            Ok(Entry::Claim)
        );
        assert_eq!(kept.voter_at("10.0.0.3:7401"), Some(3));
    }

    #[test]
    fn whoever_is_replaced_must_be_there_when_a_person_asks() {
        let three = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        let new = Ok(Entry::New { former: None });
        assert_eq!(entry(&three, "10.0.0.9:7401", Some(7)), new);
        let refused = three
            .place("10.0.0.9:7401", Some(7))
            .expect_err("there is no node 7");
        assert_eq!(
            refused.to_string(),
            "node 7 is not a member; the members are 1, 2, 3"
        );
    }

    #[test]
    fn the_heir_votes_answers_and_has_most_of_the_log() {
        let mut five = roll(&[1, 2, 3, 4], &[5], &[1, 2, 3, 5]);
        five.matched = BTreeMap::from([(2, Some(7)), (3, Some(9)), (4, Some(9)), (5, Some(9))]);
        assert_eq!(five.heir(None), Ok(3));
        assert_eq!(five.heir(Some(2)), Ok(2));
        assert_eq!(five.heir(Some(4)), Err(ChangeRefusal::Silent { id: NodeId(4) }));
        assert_eq!(five.heir(Some(5)), Err(ChangeRefusal::NotVoter { id: NodeId(5) }));
        assert!(matches!(five.heir(Some(8)), Err(ChangeRefusal::NotMember { .. })));
        let alone = roll(&[1], &[], &[1]);
        assert_eq!(alone.heir(None), Err(ChangeRefusal::NoHeir { id: NodeId(1) }));
    }
}
