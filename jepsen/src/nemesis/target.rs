//! Whom a fault strikes.

use crate::cluster::Cluster;
use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::fmt;

/// Whom a fault strikes, as a plan has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Who leads; anybody where nobody does.
    Leader,
    /// Somebody who does not.
    Follower,
    /// As many as may be lost.
    Minority,
    /// As many as may not.
    Majority,
    /// All.
    All,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Leader => "the leader",
            Target::Follower => "a follower",
            Target::Minority => "a minority",
            Target::Majority => "a majority",
            Target::All => "all",
        })
    }
}

/// How many of `nodes` may be lost.
pub(super) fn minority(nodes: usize) -> usize {
    nodes.saturating_sub(1) / 2
}

/// Picks nodes of `eligible`, in order; none where there is none.
pub(super) fn pick(
    target: Target,
    leader: Option<u64>,
    nodes: usize,
    eligible: &[u64],
    rng: &mut ChaCha8Rng,
) -> Vec<u64> {
    let mut shuffled = eligible.to_vec();
    shuffled.shuffle(rng);
    let mut picked = match target {
        Target::Leader => {
            let leads = leader.filter(|leader| eligible.contains(leader));
            leads.or(eligible.choose(rng).copied()).into_iter().collect()
        }
        Target::Follower => {
            shuffled.retain(|id| Some(*id) != leader);
            shuffled.into_iter().take(1).collect()
        }
        Target::Minority => {
            shuffled.truncate(minority(nodes).max(1));
            shuffled
        }
        Target::Majority => {
            shuffled.truncate(nodes / 2 + 1);
            shuffled
        }
        Target::All => shuffled,
    };
    picked.sort_unstable();
    picked
}

/// Picks nodes that have a process which goes on.
pub(super) async fn running(
    target: Target,
    cluster: &Cluster,
    rng: &mut ChaCha8Rng,
) -> anyhow::Result<Vec<u64>> {
    let mut eligible = Vec::new();
    for id in cluster.ids() {
        if cluster.is_running(id).await? {
            eligible.push(id);
        }
    }
    let leader = cluster.leader().await;
    Ok(pick(target, leader, cluster.nodes().len(), &eligible, rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn targets_are_of_their_size_and_kind() {
        for seed in 0..50 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut pick = |target| pick(target, Some(3), 5, &[1, 2, 3, 4, 5], &mut rng);
            assert_eq!(pick(Target::Leader), [3]);
            assert_eq!(pick(Target::All), [1, 2, 3, 4, 5]);
            assert_eq!(pick(Target::Minority).len(), 2);
            assert_eq!(pick(Target::Majority).len(), 3);
            let follower = pick(Target::Follower);
            assert!(follower.len() == 1 && follower != [3], "{follower:?}");
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(pick(Target::Leader, Some(3), 3, &[1], &mut rng), [1]);
        assert!(pick(Target::Follower, Some(1), 3, &[1], &mut rng).is_empty());
    }
}
