//! How much is measured.

use crate::growth::Sizes;
use crate::load::Work;
use std::time::Duration;

/// A part of what is measured, which can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Durable writes and linearizable reads, beside etcd
    Load,
    /// The same writes with more keys, more nodes, longer values, beside etcd
    Growth,
    /// What a sync costs, and what the log makes of it
    Disk,
    /// More than three nodes take
    Overload,
    /// How long writes stand still when another node leads
    Handover,
    /// A wiped node comes back by snapshot while writes go on
    Rejoin,
    /// Nodes that nobody uses
    Rest,
    /// One node starts with many keys
    Restart,
}

/// How much is done of each part.
pub struct Plan {
    /// Of the load: how often each system is measured, in turn.
    pub rounds: u32,
    /// Of the load: numbers of nodes.
    pub nodes: Vec<usize>,
    /// Of the load: what clients ask for, and how many of them.
    pub work: Vec<(Work, Vec<usize>)>,
    /// Ahead of each measurement.
    pub warm_up: Duration,
    /// How long each is measured.
    pub measured: Duration,
    /// How far work grows.
    pub growth: Sizes,
    /// Syncs of each kind of file.
    pub syncs: usize,
    /// Of the overload, and of the peak before it: so long that memtables are written out in each, as they are all the
    /// time.
    pub overload: Duration,
    /// How often leadership changes, in each way.
    pub handovers: u32,
    /// Keys that are stored where a node is started again.
    pub restart_keys: u64,
    /// Keys that are stored where a node loses its disk.
    pub rejoin_keys: u64,
    /// How often a node loses its disk and comes back.
    pub returns: u32,
    /// How long nobody uses the nodes at rest, and how long the others are not disturbed before one loses its disk.
    pub rest: Duration,
}

impl Plan {
    /// What docs/benchmarks.md shows.
    pub fn full() -> Plan {
        let (warm_up, measured) = (Duration::from_secs(1), Duration::from_secs(5));
        Plan {
            rounds: 3,
            nodes: vec![1, 3],
            work: vec![
                (Work::Put, vec![1, 16, 64, 256, 1000]),
                (Work::Batch, vec![1, 16, 64]),
                (Work::ReadLeader, vec![64, 256]),
                (Work::ReadFollowers, vec![64, 256]),
            ],
            warm_up,
            measured,
            growth: Sizes {
                keys: vec![10_000, 100_000, 1_000_000, 5_000_000],
                nodes: vec![1, 2, 3, 4, 5],
                peer_nodes: vec![1, 3, 5],
                value_bytes: vec![100, 1_000, 10_000, 100_000],
                rounds: 2,
                warm_up,
                measured,
            },
            syncs: 4_000,
            overload: Duration::from_secs(20),
            handovers: 20,
            restart_keys: 1_000_000,
            rejoin_keys: 1_000_000,
            returns: 5,
            rest: Duration::from_secs(20),
        }
    }

    /// Shows that everything runs.
    pub fn quick() -> Plan {
        let (warm_up, measured) = (Duration::from_millis(500), Duration::from_secs(2));
        Plan {
            rounds: 1,
            nodes: vec![1, 3],
            work: vec![
                (Work::Put, vec![1, 64]),
                (Work::Batch, vec![16]),
                (Work::ReadLeader, vec![64]),
                (Work::ReadFollowers, vec![64]),
            ],
            warm_up,
            measured,
            growth: Sizes {
                keys: vec![10_000, 50_000],
                nodes: vec![1, 3],
                peer_nodes: vec![1, 3],
                value_bytes: vec![100, 10_000],
                rounds: 1,
                warm_up,
                measured,
            },
            syncs: 500,
            overload: measured,
            handovers: 3,
            restart_keys: 100_000,
            rejoin_keys: 240_000,
            returns: 1,
            rest: Duration::from_secs(5),
        }
    }
}
