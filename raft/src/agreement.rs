//! Whether the replicas hold the same state, and what the cluster as a whole may do: what the leader settles for all.
//!
//! # State hash
//! Each node keeps the hash of its state as it applies ([`onward_statemachine::digest`]). Five times a second, if anything
//! was written, the leader puts a **mark** into the log; every node takes its hash at that revision and reports
//! it. What a majority of the voters had at a mark is true, and goes into the log with the next mark, so that a node that
//! had something else there stops as it applies that: however late it comes to it, and before it applies or answers
//! anything behind it. A leader that is itself the odd one stops as soon as the majority has reported.
//!
//! A node that stopped leaves the file [`NOTE`] and does not start again from its directory.
//!
//! # Limits
//! Between a divergence and the next mark, a fifth of a second, the odd node still answers. Where no majority agrees (two
//! members of two differ, or three have three states), nobody knows who is right: nobody stops, and the log and the
//! metrics say so. A cluster of one compares with nobody.
//!
//! # Feature level
//! The level rises to what the oldest release among the members knows, once each of them has reported.

use crate::engine::Engine;
use crate::fault::leave;
use crate::files::Files;
use crate::report::Report;
use crate::runtime::watch;
use crate::state::State;
use onward_statemachine::digest::{self, HashValue};
use onward_statemachine::ports::Proposal;
use onward_statemachine::system::{self, Mark};
use onward_statemachine::{Actor, Command, Revision};
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// Between two marks, where nothing is wrong.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a proposal of the leader's own may take.
const PROPOSE_DEADLINE_MS: u64 = 2_000;
/// The file that keeps a node whose state was not the others' from starting again.
pub(crate) const NOTE: &str = "diverged";

/// What the reports on one mark come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Judgement {
    /// What a majority of the voters had.
    agreed: Option<HashValue>,
    /// Members that had something else.
    odd: BTreeSet<u64>,
    /// They differ, and no majority tells who is right.
    disputed: bool,
}

fn judge(at: Revision, voters: &BTreeSet<u64>, reports: &BTreeMap<u64, Report>) -> Judgement {
    let marked = |node: &u64| {
        let mark = reports.get(node)?.mark?;
        (mark.at == at).then_some(mark.hash)
    };
    let mut had: BTreeMap<HashValue, usize> = BTreeMap::new();
    for hash in voters.iter().filter_map(marked) {
        *had.entry(hash).or_default() += 1;
    }
    let agreed = had.iter().find(|(_, count)| **count * 2 > voters.len());
    let agreed = agreed.map(|(hash, _)| *hash);
    let differs = |node: &&u64| agreed.is_some() && marked(node).is_some_and(|hash| Some(hash) != agreed);
    Judgement {
        agreed,
        odd: reports.keys().filter(differs).copied().collect(),
        disputed: agreed.is_none() && had.len() > 1,
    }
}

/// What a leader remembers from one round to the next.
#[derive(Default)]
struct Rounds {
    /// When it last set a mark.
    marked: Option<Instant>,
    /// The mark whose odd members were told.
    told: Option<Revision>,
    /// The mark that was found in dispute.
    disputed: Option<Revision>,
}

impl Engine {
    /// Settles what there is to settle whenever a report came or a mark is due, for as long as this node leads.
    pub(crate) async fn keep_agreement(self: Arc<Self>) {
        let rounds = async {
            let mut rounds = Rounds::default();
            let mut applied = self.state.watch_applied();
            loop {
                tokio::select! {
                    biased;
                    () = self.judge.notified() => {}
                    () = self.mark_due(&rounds, &mut applied) => {}
                }
                if self.leads() {
                    self.settle_all(&mut rounds).await;
                } else {
                    self.leave_room_to_others();
                    rounds = Rounds::default();
                }
            }
        };
        self.token().run_until_cancelled(rounds).await;
    }

    /// Waits until the next mark is due: the first of a leader is, with the first report.
    async fn mark_due(&self, rounds: &Rounds, applied: &mut watch::Receiver<Revision>) {
        let Some(marked) = rounds.marked else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(marked + INTERVAL).await;
        let mark = self.state.last_mark().map_or(Revision(0), |mark| mark.at);
        if applied.wait_for(|revision| *revision > mark).await.is_err() {
            std::future::pending::<()>().await; // The state is gone, and so is this node.
        }
    }

    async fn settle_all(&self, rounds: &mut Rounds) {
        let (voters, members) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            let members: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
            (voters, members)
        };
        let reports = self.reports.fresh();
        self.judge_room(&voters, &reports);
        let level = self.state.read(|view| Ok(system::gate(view)?.feature_level));
        let known = members.iter().map(|id| Some(reports.get(id)?.feature_level_max));
        // One that is silent may run an older release.
        if let Some(known) = known
            .collect::<Option<Vec<u32>>>()
            .and_then(|known| known.into_iter().min())
            && known > level
        {
            tracing::info!(from = level, to = known, "every member knows this feature level");
            return self
                .command(system::Command::RaiseFeatureLevel { level: known })
                .await;
        }
        if level >= digest::FEATURE_LEVEL && voters.len() > 1 {
            self.settle_hash(rounds, &voters, &reports).await;
        } else {
            *rounds = Rounds::default();
        }
    }

    async fn settle_hash(
        &self,
        rounds: &mut Rounds,
        voters: &BTreeSet<u64>,
        reports: &BTreeMap<u64, Report>,
    ) {
        let mark = self.state.last_mark();
        let mut agreed = None;
        let mut hurry = false;
        if let Some(own) = mark {
            let judged = judge(own.at, voters, reports);
            agreed = judged.agreed.map(|hash| Mark { at: own.at, hash });
            if let Some(agreed) = agreed.filter(|agreed| agreed.hash != own.hash) {
                self.state.stop_odd(own, agreed.hash);
            }
            if !judged.odd.is_empty() && rounds.told != Some(own.at) {
                rounds.told = Some(own.at);
                hurry = true;
                self.counters
                    .hash_odd_members
                    .fetch_add(judged.odd.len() as u64, Relaxed);
                tracing::error!(
                    revision = %own.at, odd = ?judged.odd,
                    "members hold another state than the majority: they stop, replace them"
                );
            }
            self.counters
                .hash_disputed
                .store(u64::from(judged.disputed), Relaxed);
            if judged.disputed && rounds.disputed != Some(own.at) {
                rounds.disputed = Some(own.at);
                tracing::error!(
                    revision = %own.at,
                    "members hold different states, and no majority tells who is right: compare them by \
                     `onward verify` and restore what is right"
                );
            }
        }
        let news = mark.is_none_or(|mark| self.state.applied() > mark.at);
        let due = rounds.marked.is_none_or(|at| at.elapsed() >= INTERVAL);
        if hurry || (news && due) {
            rounds.marked = Some(Instant::now());
            self.command(system::Command::MarkState { agreed }).await;
        }
    }

    /// Has a command of the leader's own applied; what comes of it shows in the next round.
    pub(crate) async fn command(&self, command: system::Command) {
        let proposal = Proposal::new(Actor::new("raft:agreement"), Command::System(command));
        if let Err(error) = self.propose_timed(proposal, PROPOSE_DEADLINE_MS).await {
            tracing::debug!(%error, "a command of the leader's own has no outcome");
        }
    }
}

impl State {
    /// Compares what this node had at a mark with what the majority had. Another state stops the node.
    pub(crate) fn compare(&self, own: Option<Mark>, agreed: &Mark) {
        if let Some(own) = own {
            if own.hash != agreed.hash {
                self.stop_odd(own, agreed.hash);
            }
            self.counters().hash_checks.fetch_add(1, Relaxed);
            self.counters().hash_agreed_revision.store(agreed.at.0, Relaxed);
        }
    }

    /// Stops this node for good.
    pub(crate) fn stop_odd(&self, own: Mark, agreed: HashValue) -> ! {
        let what = format!(
            "the state of this node is not that of the majority: at revision {} its hash is {}, theirs is {agreed}",
            own.at, own.hash
        );
        let advice = "replace this member: empty its data directory and start it with `onward serve --join HOST:PORT \
                      --replaces ID`; keep a copy of the directory to find out why";
        let note = self.root().join(NOTE);
        if let Err(error) = self
            .files()
            .replace(&note, format!("{what}\n{advice}\n").as_bytes())
        {
            tracing::error!(path = %note.display(), %error, "the note cannot be written");
        }
        leave(&what, advice)
    }
}

/// What the node that stopped here for good wrote down.
pub(crate) fn note(files: &dyn Files, dir: &Path) -> io::Result<Option<String>> {
    files.read_text(&dir.join(NOTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(had: &[(u64, u64, u128)]) -> BTreeMap<u64, Report> {
        let report = |(node, at, hash): &(u64, u64, u128)| {
            let mark = Mark {
                at: Revision(*at),
                hash: HashValue(*hash),
            };
            let report = Report {
                feature_level_max: 3,
                mark: Some(mark),
                room: None,
            };
            (*node, report)
        };
        had.iter().map(report).collect()
    }

    fn judged(voters: &[u64], had: &[(u64, u64, u128)]) -> (Option<u128>, Vec<u64>, bool) {
        let voters = voters.iter().copied().collect();
        let judged = judge(Revision(9), &voters, &reports(had));
        let odd = judged.odd.into_iter().collect();
        (judged.agreed.map(|hash| hash.0), odd, judged.disputed)
    }

    #[test]
    fn the_majority_of_the_voters_is_right() {
        assert_eq!(
            judged(&[1, 2, 3], &[(1, 9, 7), (2, 9, 7), (3, 9, 7)]),
            (Some(7), vec![], false)
        );
        assert_eq!(
            judged(&[1, 2, 3], &[(1, 9, 7), (2, 9, 8), (3, 9, 7)]),
            (Some(7), vec![2], false)
        );
        // Who has not come to this mark yet says nothing of it.
        assert_eq!(
            judged(&[1, 2, 3], &[(1, 9, 7), (2, 8, 8), (3, 9, 7)]),
            (Some(7), vec![], false)
        );
        assert_eq!(judged(&[1, 2, 3], &[(1, 9, 7)]), (None, vec![], false));
        // A learner does not count, and may be odd.
        let learner = [(1, 9, 7), (2, 9, 7), (4, 9, 8)];
        assert_eq!(judged(&[1, 2, 3], &learner), (Some(7), vec![4], false));
        assert_eq!(
            judged(&[1, 2, 3], &[(1, 9, 7), (4, 9, 7), (5, 9, 7)]),
            (None, vec![], false)
        );
    }

    #[test]
    fn without_a_majority_nobody_is_odd() {
        assert_eq!(judged(&[1, 2], &[(1, 9, 7), (2, 9, 8)]), (None, vec![], true));
        let three = [(1, 9, 7), (2, 9, 8), (3, 9, 6)];
        assert_eq!(judged(&[1, 2, 3], &three), (None, vec![], true));
        let down = [(1, 9, 7), (2, 9, 8)];
        assert_eq!(
            judged(&[1, 2, 3], &down),
            (None, vec![], true),
            "the third is down"
        );
    }
}
