//! What is done to the cluster: kinds of fault, planned from a seed, carried out, checked, and taken back.
//!
//! A [`Plan`] says what happens when; it depends on nothing but the seed. Whom it happens to is settled as it happens,
//! because who leads is known only then. A [`Campaign`] carries a plan out. It writes down only what really came about: a
//! fault that found nothing to strike is missed, and one that could not be made is a failure of the harness.
//!
//! Faults may take everything down, but never lose more than a minority of disks: nobody promises to survive that.

mod campaign;
mod disks;
mod members;
mod outcome;
mod partition;
mod plan;
mod strike;
mod target;

pub use campaign::Campaign;
pub use outcome::Outcome;
pub use partition::Shape;
pub use plan::{Fault, Heir, Hold, Media, Plan, Stream, Strike, Time, compose, plan};
pub use target::Target;

use crate::cluster::Fittings;
use crate::net::Isolation;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL, and a start some seconds later.
    Kill,
    /// SIGSTOP, and SIGCONT some seconds later.
    Pause,
    /// SIGTERM and a start at once: a leader hands over.
    Restart,
    /// Several nodes, or all, are killed at once.
    Power,
    /// Nodes no longer hear each other, in every shape.
    Partition,
    /// Streams between nodes are late, thin, stuck, or break off.
    Slow,
    /// Packets are lost.
    Lossy,
    /// Clocks jump, flicker, or run at another speed.
    Clock,
    /// A node loses its disk, and a new member takes its place.
    Replace,
    /// A follower is held back until the log that it lacks is gone, and it needs a snapshot.
    Snapshot,
    /// All nodes go over to another binary one by one, and back.
    Rolling,
    /// A power cut that takes all writes that were not synced.
    Unsynced,
    /// A power cut that leaves some of them, and tears others.
    Torn,
    /// Syncs fail with EIO.
    Eio,
    /// The disk is full.
    Full,
    /// Syncs, reads and writes take long.
    SlowDisk,
    /// Bits are flipped on the disks of a minority.
    Bitflip,
    /// A member leaves the cluster, and later another one joins in its place.
    Member,
    /// Leadership is handed over by request.
    Transfer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 19] = [
        Kind::Kill,
        Kind::Pause,
        Kind::Restart,
        Kind::Power,
        Kind::Partition,
        Kind::Slow,
        Kind::Lossy,
        Kind::Clock,
        Kind::Replace,
        Kind::Snapshot,
        Kind::Rolling,
        Kind::Unsynced,
        Kind::Torn,
        Kind::Eio,
        Kind::Full,
        Kind::SlowDisk,
        Kind::Bitflip,
        Kind::Member,
        Kind::Transfer,
    ];
    const DISK: [Kind; 6] = [
        Kind::Unsynced,
        Kind::Torn,
        Kind::Eio,
        Kind::Full,
        Kind::SlowDisk,
        Kind::Bitflip,
    ];

    /// Its name, as the command line and the history have it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Restart => "restart",
            Kind::Power => "power",
            Kind::Partition => "partition",
            Kind::Slow => "slow",
            Kind::Lossy => "lossy",
            Kind::Clock => "clock",
            Kind::Replace => "replace",
            Kind::Snapshot => "snapshot",
            Kind::Rolling => "rolling",
            Kind::Unsynced => "unsynced",
            Kind::Torn => "torn",
            Kind::Eio => "eio",
            Kind::Full => "full",
            Kind::SlowDisk => "slow-disk",
            Kind::Bitflip => "bitflip",
            Kind::Member => "member",
            Kind::Transfer => "transfer",
        }
    }

    /// What it does, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Kind::Kill => "SIGKILL of the leader, a follower or a minority, and a start seconds later",
            Kind::Pause => "SIGSTOP, and SIGCONT seconds later",
            Kind::Restart => "SIGTERM and a start at once: a leader hands over",
            Kind::Power => "all, or many, are killed at once",
            Kind::Partition => "one alone, halves, minority, majorities ring, bridge, one-way",
            Kind::Slow => "streams between nodes are late, thin, stuck, or break off",
            Kind::Lossy => "packets between nodes are lost",
            Kind::Clock => "clocks jump, flicker, or run at another speed",
            Kind::Replace => "a node loses its disk, and a new member takes its place",
            Kind::Snapshot => "a follower is held back until it needs a snapshot",
            Kind::Rolling => "all go over to another binary one by one, and back",
            Kind::Unsynced => "a power cut that takes all writes that were not synced",
            Kind::Torn => "a power cut that leaves some of them, and tears others",
            Kind::Eio => "syncs fail with EIO",
            Kind::Full => "disks are full",
            Kind::SlowDisk => "syncs, reads and writes take long",
            Kind::Bitflip => "bits are flipped on the disks of a minority",
            Kind::Member => "a member leaves, stops by itself, and seconds later a new one joins",
            Kind::Transfer => "leadership is handed over by request",
        }
    }

    /// Why it cannot be done here, if it cannot.
    pub fn obstacle(self, isolation: Isolation, other_binary: bool) -> Option<String> {
        let needed = match self {
            Kind::Lossy if isolation == Isolation::Loopback => "network namespaces, and so root",
            Kind::Clock => return crate::cluster::clocks_obstacle(),
            Kind::Rolling if !other_binary => "another binary: --other-binary",
            kind if Kind::DISK.contains(&kind) => {
                let unusable = crate::disk::usable().err()?;
                return Some(format!("{self} needs a disk that fails: {unusable}"));
            }
            _ => return None,
        };
        Some(format!("{self} needs {needed}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("there is no nemesis `{text}`; there are {}", names.join(", "))
        })
    }
}

/// The kinds of these names; `random` stands for two or three of those that are possible, drawn from `seed`.
///
/// # Errors
/// Where there is no such kind.
pub fn named(
    names: &[String],
    seed: u64,
    isolation: Isolation,
    other_binary: bool,
) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for name in names {
        if name == "random" {
            let possible = |kind: &Kind| kind.obstacle(isolation, other_binary).is_none();
            let possible: Vec<Kind> = Kind::ALL.into_iter().filter(possible).collect();
            kinds.extend(compose(seed, &possible));
        } else {
            kinds.push(name.parse()?);
        }
    }
    // Each strikes in its own time, and only once.
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

/// What nodes must be fitted with for these kinds; what their disks leave open is drawn from `seed`.
pub fn fittings(kinds: &[Kind], seed: u64) -> Fittings {
    Fittings {
        proxies: kinds.contains(&Kind::Slow),
        clocks: kinds.contains(&Kind::Clock),
        // A log that is never compacted has its space in advance, and does not notice that the disk is full.
        snapshots: kinds.contains(&Kind::Snapshot) || kinds.contains(&Kind::Full),
        disks: kinds.iter().any(|kind| Kind::DISK.contains(kind)).then_some(seed),
    }
}

#[cfg(test)]
mod tests;
