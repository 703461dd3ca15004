//! What is done to the cluster: kinds of fault, planned from a seed, carried out, checked, and taken back.
//!
//! A [`Plan`] says what happens when; it depends on nothing but the seed. Whom it happens to is settled as it happens,
//! because who leads is known only then. A [`Campaign`] carries a plan out. It writes down only what really came about: a
//! fault that found nothing to strike is missed, and one that could not be made is a failure of the harness.
//!
//! Faults may take everything down, but never lose more than a minority of disks: nobody promises to survive that.

mod campaign;
mod partition;
mod plan;
mod strike;
mod target;

pub use campaign::{Campaign, Outcome};
pub use partition::Shape;
pub use plan::{Fault, Hold, Plan, Stream, Strike, Time, compose, plan};
pub use target::Target;

use crate::cluster::Fittings;
use crate::net::Isolation;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
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
        }
    }

    /// Why it cannot be done here, if it cannot.
    pub fn obstacle(self, isolation: Isolation, other_binary: bool) -> Option<String> {
        let needed = match self {
            Kind::Lossy if isolation == Isolation::Loopback => "network namespaces, and so root",
            Kind::Clock => return crate::cluster::clocks_obstacle(),
            Kind::Rolling if !other_binary => "another binary: --other-binary",
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

/// What nodes must be fitted with for these kinds.
pub fn fittings(kinds: &[Kind]) -> Fittings {
    Fittings {
        proxies: kinds.contains(&Kind::Slow),
        clocks: kinds.contains(&Kind::Clock),
        snapshots: kinds.contains(&Kind::Snapshot),
    }
}

#[cfg(test)]
mod tests;
