//! What a seed stands for: how large the site is, how fast its parts are, what its clients ask, and which faults there
//! are. Each seed has its own few faults, at their own rates: a run with everything at once sees less than many that
//! each have some of it.

use onward_raft::sim::{DiskFaults, Link};
use onward_raft::{SnapshotPolicy, Timings};
use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A process is killed.
    Kill,
    /// A machine loses its power.
    PowerCut,
    /// All machines do, at once.
    SiteDown,
    /// A node shuts down in good order.
    Shutdown,
    /// A process is stopped for a while.
    Pause,
    /// Links block: one of the shapes of [`super::nemesis`].
    Partition,
    /// Links are slow.
    SlowLinks,
    /// Connections break.
    LossyLinks,
    /// A disk is slow.
    SlowDisk,
    /// Syncs of a disk fail.
    FailingDisk,
    /// A disk is full soon.
    FullDisk,
    /// A clock jumps.
    Clock,
    /// A snapshot is taken out of turn.
    Snapshot,
    /// Leadership is handed over.
    Transfer,
    /// A machine is lost with its disk; another takes its place.
    Replace,
    /// One machine that the leader does not reach stands for election, while the leader is cut off from those who follow
    /// it and they are started anew at once.
    Usurp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 16] = [
        Kind::Kill,
        Kind::PowerCut,
        Kind::SiteDown,
        Kind::Shutdown,
        Kind::Pause,
        Kind::Partition,
        Kind::SlowLinks,
        Kind::LossyLinks,
        Kind::SlowDisk,
        Kind::FailingDisk,
        Kind::FullDisk,
        Kind::Clock,
        Kind::Snapshot,
        Kind::Transfer,
        Kind::Replace,
        Kind::Usurp,
    ];

    /// Its name, as a history has it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::PowerCut => "power-cut",
            Kind::SiteDown => "site-down",
            Kind::Shutdown => "shutdown",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::SlowLinks => "slow-links",
            Kind::LossyLinks => "lossy-links",
            Kind::SlowDisk => "slow-disk",
            Kind::FailingDisk => "failing-disk",
            Kind::FullDisk => "full-disk",
            Kind::Clock => "clock",
            Kind::Snapshot => "snapshot",
            Kind::Transfer => "transfer",
            Kind::Replace => "replace",
            Kind::Usurp => "usurp",
        }
    }
}

/// What a seed stands for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many machines the site begins with.
    pub machines: u64,
    /// Heartbeats and elections.
    pub timings: Timings,
    /// When snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// Links that are well.
    pub link: Link,
    /// Disks that are well.
    pub disk: DiskFaults,
    /// How many clients there are.
    pub clients: u64,
    /// How many keys they share.
    pub keys: u64,
    /// The longest that a client thinks.
    pub think_max: Duration,
    /// How long a client waits for an answer.
    pub deadline: Duration,
    /// Of a hundred operations, how many read.
    pub reads: u32,
    /// Of a hundred commands, how many are of any area.
    pub any_area: u32,
    /// Of a hundred operations that do not read, how many are transactions over lists.
    pub transactions: u32,
    /// How many lists there are.
    pub lists: u64,
    /// How many follow the journal.
    pub watchers: u64,
    /// Whether clients have the journal compacted now and then.
    pub compacts: bool,
    /// The faults that there are.
    pub faults: Vec<Kind>,
    /// The longest between two faults.
    pub pace_max: Duration,
    /// How long there are faults.
    pub safety: Duration,
}

/// The chance of one part of a run: each has its own, so that one does not disturb another.
pub(super) fn chance(seed: u64, part: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(part);
    rng
}

/// Faster than the default: more elections in a run.
fn timings(heartbeat_ms: u64) -> Timings {
    Timings {
        heartbeat_ms,
        election_min_ms: heartbeat_ms * 3,
        election_max_ms: heartbeat_ms * 6,
    }
}

impl Plan {
    /// What `seed` stands for.
    pub fn of(seed: u64) -> Plan {
        let rng = &mut chance(seed, 0);
        let among = |rng: &mut ChaCha8Rng, choices: &[u64]| choices.choose(rng).copied().unwrap_or_default();
        let timings = [timings(30), timings(50), Timings::default()];
        let timings = timings.choose(rng).copied().unwrap_or_default();
        let latency_us_max = among(rng, &[200, 1_000, 5_000, 15_000]);
        let sync_us_max = among(rng, &[0, 500, 3_000, 15_000]);
        let mut faults: Vec<Kind> = Kind::ALL.into_iter().filter(|_| rng.random_bool(0.3)).collect();
        if faults.is_empty() {
            faults.push(Kind::Kill);
        }
        Plan {
            seed,
            machines: if rng.random_bool(0.3) { 5 } else { 3 },
            timings,
            snapshots: SnapshotPolicy {
                entries: among(rng, &[5, 20, 60, 100_000]),
                log_bytes: among(rng, &[4 << 10, 512 << 20]),
                keep_entries: among(rng, &[0, 3, 20]),
                ..SnapshotPolicy::default()
            },
            link: Link {
                latency_us_min: latency_us_max / 10,
                latency_us_max,
                ..Link::default()
            },
            disk: DiskFaults {
                sync_us_min: sync_us_max / 10,
                sync_us_max,
                ..DiskFaults::default()
            },
            clients: rng.random_range(2..=8),
            keys: rng.random_range(1..=5),
            think_max: Duration::from_millis(among(rng, &[5, 30, 150])),
            deadline: Duration::from_millis(among(rng, &[500, 2_000, 5_000])),
            reads: rng.random_range(10..=60),
            any_area: rng.random_range(0..=80),
            faults,
            pace_max: Duration::from_millis(among(rng, &[300, 1_000, 3_000])),
            safety: Duration::from_millis(rng.random_range(3_000..=9_000)),
            transactions: *[0, 0, 20, 60].choose(rng).unwrap_or(&0),
            lists: rng.random_range(2..=4),
            watchers: among(rng, &[0, 0, 1, 3]),
            compacts: rng.random_bool(0.3),
        }
    }
}
