//! The rules of changes: who may come, who may go, who may lead. Pure: they judge a [`Roll`] that the leader has made.

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
    /// All members.
    pub(super) nodes: BTreeMap<u64, PeerNode>,
    /// Who votes; two sets while the voters change, the new one last.
    pub(super) voters: Vec<BTreeSet<u64>>,
    /// Who answered the leader lately, itself among them.
    pub(super) answering: BTreeSet<u64>,
    /// How far the log of each is known to reach, where anything is known.
    pub(super) matched: BTreeMap<u64, Option<u64>>,
}

/// How a node is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// It was let in before.
    Standing(u64),
    /// It takes the place that an operator prepared for it, which is then taken for good.
    Claim(u64),
    /// Under a new id. What is left of a former life at its address goes.
    New {
        /// The learner that was there.
        former: Option<u64>,
    },
}

/// A node that asks to be let in.
#[derive(Debug, Clone)]
pub(super) struct Newcomer<'a> {
    /// Where it runs, or will run.
    pub(super) peer: &'a str,
    /// Whose place it takes.
    pub(super) replaces: Option<u64>,
    /// Whether it asks itself, and has no id yet.
    pub(super) in_person: bool,
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

    /// Judges whether a node may come.
    pub(super) fn admission(&self, newcomer: &Newcomer<'_>) -> Result<Admission, ChangeRefusal> {
        let Newcomer {
            peer,
            replaces,
            in_person,
        } = *newcomer;
        let there = |(_, node): &(&u64, &PeerNode)| node.peer == peer;
        let learning = self.nodes.iter().filter(there).find(|(id, _)| !self.votes(**id));
        // Whoever prepared a place there knew of the one who votes there.
        let prepared = learning.is_some_and(|(_, node)| node.http.is_empty());
        if let Some(id) = self
            .voter_at(peer)
            .filter(|id| Some(*id) != replaces && !prepared)
        {
            return Err(ChangeRefusal::AddressTaken {
                address: peer.to_owned(),
                id: NodeId(id),
            });
        }
        match learning {
            Some((id, _)) if !in_person => return Ok(Admission::Standing(*id)),
            Some((id, _)) if prepared => return Ok(Admission::Claim(*id)),
            // Its data is gone, or it would not ask.
            Some((id, _)) => return Ok(Admission::New { former: Some(*id) }),
            None => {}
        }
        // A node that comes late for a place that is free already is welcome all the same; who types, may err.
        if let Some(gone) = replaces.filter(|gone| !in_person && !self.nodes.contains_key(gone)) {
            return Err(self.not_member(gone));
        }
        self.nothing_under_way()?;
        Ok(Admission::New { former: None })
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
        // It does: it has caught up.
        let mut roll = self.clone();
        roll.answering.insert(id);
        roll.majority_of(voters)
    }

    fn last_voters(&self) -> BTreeSet<u64> {
        self.voters.last().cloned().unwrap_or_default()
    }

    /// Whether a majority of these would answer.
    fn majority_of(&self, voters: BTreeSet<u64>) -> Result<BTreeSet<u64>, ChangeRefusal> {
        let silent: Vec<NodeId> = voters.difference(&self.answering).copied().map(NodeId).collect();
        if (voters.len() - silent.len()) * 2 > voters.len() {
            return Ok(voters);
        }
        Err(ChangeRefusal::QuorumLost {
            voters: voters.into_iter().map(NodeId).collect(),
            silent,
        })
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
            nodes: voters.iter().chain(learners).map(node).collect(),
            voters: vec![set(voters)],
            answering: set(answering),
            matched: BTreeMap::new(),
        }
    }

    fn at(peer: &str) -> Newcomer<'_> {
        Newcomer {
            peer,
            replaces: None,
            in_person: true,
        }
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
    fn members_change_one_at_a_time() {
        let joining = ChangeRefusal::Joining { id: NodeId(4) };
        let busy = roll(&[1, 2, 3], &[4], &[1, 2, 3]);
        assert_eq!(busy.without(3), Err(joining.clone()));
        assert_eq!(busy.admission(&at("10.0.0.9:7401")), Err(joining));
        let mut voting = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        voting.voters.push(set(&[1, 2]));
        assert_eq!(voting.without(2), Err(ChangeRefusal::Voting));
        assert_eq!(voting.admission(&at("10.0.0.9:7401")), Err(ChangeRefusal::Voting));
        // The one that is on its way may arrive.
        assert_eq!(busy.with(4, None), Ok(set(&[1, 2, 3, 4])));
        assert_eq!(busy.with(4, Some(3)), Ok(set(&[1, 2, 4])));
    }

    #[test]
    fn one_address_is_one_member() {
        let three = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        let new = Ok(Admission::New { former: None });
        assert_eq!(three.admission(&at("10.0.0.9:7401")), new);
        let taken = three
            .admission(&at("10.0.0.3:7401"))
            .expect_err("node 3 is there");
        assert!(
            taken
                .to_string()
                .contains("onward cluster replace 3 10.0.0.3:7401"),
            "{taken}"
        );
        let in_place = Newcomer {
            replaces: Some(3),
            ..at("10.0.0.3:7401")
        };
        assert_eq!(three.admission(&in_place), new);
    }

    #[test]
    fn a_place_that_was_prepared_is_claimed_once() {
        let mut prepared = roll(&[1, 2, 3], &[4], &[1, 2, 3]);
        let operator = Newcomer {
            in_person: false,
            ..at("10.0.0.4:7401")
        };
        assert_eq!(prepared.admission(&operator), Ok(Admission::Standing(4)));
        // Who asks in person while an API is known there has lost what it had.
        let anew = Ok(Admission::New { former: Some(4) });
        assert_eq!(prepared.admission(&at("10.0.0.4:7401")), anew);
        prepared.nodes.get_mut(&4).expect("there").http.clear();
        assert_eq!(prepared.admission(&at("10.0.0.4:7401")), Ok(Admission::Claim(4)));
    }

    #[test]
    fn who_was_prepared_to_take_a_voters_address_may() {
        let mut prepared = roll(&[1, 2, 3], &[4], &[1, 2, 3]);
        let place = prepared.nodes.get_mut(&4).expect("there");
        place.peer = "10.0.0.3:7401".to_owned();
        assert!(
            prepared.admission(&at("10.0.0.3:7401")).is_err(),
            "node 4 is known to run"
        );
        prepared.nodes.get_mut(&4).expect("there").http.clear();
        assert_eq!(prepared.admission(&at("10.0.0.3:7401")), Ok(Admission::Claim(4)));
        assert_eq!(prepared.voter_at("10.0.0.3:7401"), Some(3));
    }

    #[test]
    fn whoever_is_replaced_must_be_there_when_a_person_asks() {
        let three = roll(&[1, 2, 3], &[], &[1, 2, 3]);
        let late = Newcomer {
            replaces: Some(7),
            ..at("10.0.0.9:7401")
        };
        assert_eq!(three.admission(&late), Ok(Admission::New { former: None }));
        let typed = Newcomer {
            in_person: false,
            ..late
        };
        let refused = three.admission(&typed).expect_err("there is no node 7");
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
