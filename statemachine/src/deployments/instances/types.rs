use crate::deployments::apps::{Commit, Name, Protocol, Route, Spec};
use crate::deployments::{builds, releases};
use crate::dump::Describe;
use crate::ids::{Actor, Generation, Millis, NodeId, Revision};
use crate::keys;
use crate::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How often a deploy or rollback is attempted before it has failed.
pub const ATTEMPTS_MAX: u32 = 4;
/// The most failures of an app that are kept.
pub const FAILURES_KEPT_MAX: u64 = 100;
/// The most rollouts of an app that are kept.
pub const ROLLOUTS_KEPT_MAX: u64 = 100;
/// The most ended instances of an app that are kept.
pub const ENDED_KEPT_MAX: usize = 50;
/// The most recorded steps of a rollout; the oldest of a longer one are let go of.
pub const TRAIL_MAX: usize = 200;
/// The longest reason of a failure, in bytes.
pub const REASON_BYTES_MAX: usize = 2048;
/// The most releases that are remembered as having served.
pub const GOOD_KEPT_MAX: usize = 50;
/// An instance that served this long, in ms of log time, is no longer counted as crashing when it ends.
pub const CRASH_WINDOW_MS: u64 = 10 * 60 * 1000;
/// The longest delay between two attempts, in ms.
pub const BACKOFF_MS_MAX: u64 = 5 * 60 * 1000;

/// The delay after the `count`th failure in a row, from 1: the Fibonacci numbers in seconds, up to
/// [`BACKOFF_MS_MAX`].
pub fn backoff_ms(count: u32) -> u64 {
    let (mut delay, mut next) = (1_000, 1_000);
    for _ in 1..count.min(32) {
        (delay, next) = (next, delay + next);
    }
    BACKOFF_MS_MAX.min(delay)
}

/// `text`, cut to at most `bytes_max` bytes.
pub(crate) fn bounded(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

crate::deployments::number!(
    /// The number of a rollout among those of its app.
    RolloutNumber
);

crate::deployments::number!(
    /// The number of an instance among those of its app, over all releases.
    Ordinal
);

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What was asked for.
    pub kind: Kind,
    /// The generation of the app when it was asked for.
    pub generation: Generation,
    /// The commit, once it is known.
    pub commit: Option<Commit>,
    /// The build, once it is known.
    pub build: Option<builds::Number>,
    /// The release, once there is one.
    pub release: Option<releases::Number>,
    /// The instance that this attempt starts.
    pub instance: Option<Ordinal>,
    /// Where it is.
    pub step: Step,
    /// Which attempt is under way, from 1; a change of node is a new attempt.
    pub attempt: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// The node that works on it.
    pub node: Option<NodeId>,
    /// Nothing is to be done before this log time.
    pub next_attempt_at: Millis,
    /// The steps that it came by, oldest first, at most [`TRAIL_MAX`].
    pub trail: Vec<Passage>,
    /// Why it failed, or what superseded it.
    pub reason: Option<String>,
    /// Who asked for it.
    pub requested_by: Actor,
    /// Log time at which it was asked for.
    pub requested_at: Millis,
    /// When it was asked for.
    pub created: Revision,
    /// When it last changed.
    pub modified: Revision,
}

/// What a rollout is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Bring what a ref means now into service.
    Deploy {
        /// The ref.
        reference: String,
        /// What was declared then; moves into the release once there is one.
        spec: Option<Box<Spec>>,
    },
    /// Bring an earlier release back.
    Rollback,
    /// Run the present release anew.
    Restart {
        /// Why.
        reason: String,
    },
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// No node works on it.
    Queued,
    /// The ref is resolved and its commit fetched.
    Fetching,
    /// The build is made, or found.
    Building,
    /// The process is started.
    Starting,
    /// The process is asked whether it is healthy.
    Checking,
    /// The route is about to be switched.
    Switching,
    /// The route is switched; what served before finishes its requests and stops.
    Draining,
    /// The end: it serves.
    Done,
    /// The end: it came to nothing.
    Failed,
    /// The end: something else was asked for meanwhile.
    Superseded,
}

impl Step {
    /// Whether nothing comes after it.
    pub fn is_end(self) -> bool {
        matches!(self, Step::Done | Step::Failed | Step::Superseded)
    }

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Queued => "queued",
            Step::Fetching => "fetching",
            Step::Building => "building",
            Step::Starting => "starting",
            Step::Checking => "checking",
            Step::Switching => "switching",
            Step::Draining => "draining",
            Step::Done => "done",
            Step::Failed => "failed",
            Step::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step that a rollout came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Which.
    pub step: Step,
    /// In which attempt.
    pub attempt: u32,
    /// On which node.
    pub node: Option<NodeId>,
    /// Log time.
    pub at: Millis,
}

/// One running copy of an app, or one that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The rollout that started it.
    pub rollout: RolloutNumber,
    /// Where it runs.
    pub node: NodeId,
    /// How far it is.
    pub state: State,
    /// Its process, once that was started.
    pub process: Option<Process>,
    /// Log time at which it was placed.
    pub placed_at: Millis,
    /// Log time from which it served, if it did.
    pub active_from: Option<Millis>,
    /// Log time from which it was to stop.
    pub draining_from: Option<Millis>,
    /// Log time of its end.
    pub ended_at: Option<Millis>,
    /// How it ended, for people.
    pub reason: Option<String>,
    /// When it was placed; with the app's name this is its identity for ever.
    pub created: Revision,
    /// When it last changed.
    pub modified: Revision,
}

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// It is to be started, or was just started.
    Starting,
    /// It answered its health check.
    Healthy,
    /// The route leads to it.
    Active,
    /// It is to finish its requests and stop.
    Draining,
    /// Its process is gone.
    Stopped,
    /// Its node was out of contact for too long.
    Lost,
}

impl State {
    /// Whether its process is gone, or given up.
    pub fn is_end(self) -> bool {
        matches!(self, State::Stopped | State::Lost)
    }

    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Healthy => "healthy",
            State::Active => "active",
            State::Draining => "draining",
            State::Stopped => "stopped",
            State::Lost => "lost",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A process on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The host name or address at which other nodes reach it.
    pub address: String,
    /// The port that it was told to listen on.
    pub port: u16,
    /// Its id on the node.
    pub pid: u32,
    /// When it started, in clock ticks since the node was booted: tells it from a later process of the same id.
    pub start_ticks: u64,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It was stopped, as it should.
    Stopped,
    /// It ended by itself.
    Exited,
    /// Its node is out of contact.
    Lost,
}

/// A step that failed, or an instance that crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Of which rollout.
    pub rollout: RolloutNumber,
    /// In which step; `None` for an instance that served.
    pub step: Option<Step>,
    /// In which attempt; for an instance that served, the count of crashes in a row.
    pub attempt: u32,
    /// On which node.
    pub node: Option<NodeId>,
    /// Why, for people; at most [`REASON_BYTES_MAX`].
    pub reason: String,
    /// Log time.
    pub at: Millis,
    /// When it is tried again, if it is.
    pub next_attempt_at: Option<Millis>,
}

/// What of an app is under way and what serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The rollout that is not finished.
    pub rollout: Option<RolloutNumber>,
    /// The instance that the routes lead to.
    pub active: Option<Active>,
    /// The release that last became active: what a restart runs.
    pub release: Option<releases::Number>,
    /// Releases that were active, at most the last [`GOOD_KEPT_MAX`].
    pub good: BTreeSet<releases::Number>,
    /// Instances that have not ended.
    pub live: Vec<(releases::Number, Ordinal)>,
    /// Instances that ended, oldest first, at most the last [`ENDED_KEPT_MAX`].
    pub ended: Vec<(releases::Number, Ordinal)>,
    /// The last rollout.
    pub last_rollout: RolloutNumber,
    /// The last instance.
    pub last_ordinal: Ordinal,
    /// The number of the last failure.
    pub last_failure: u64,
    /// How often active instances crashed in a row.
    pub crashes: u32,
    /// No restart is to begin before this log time.
    pub restart_at: Millis,
}

/// The instance that an app's routes lead to, with all that an ingress needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// What it runs.
    pub release: releases::Number,
    /// Which instance.
    pub ordinal: Ordinal,
    /// Where.
    pub node: NodeId,
    /// The host name or address at which nodes reach it.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// The routes of its release.
    pub routes: Vec<Route>,
    /// When the routes were switched to it.
    pub since: Revision,
}

/// What a command tells its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The rollout that was queued.
    Rollout(RolloutNumber),
}

pub(super) const ROLLOUTS: Table<(Name, RolloutNumber), Rollout> = Table::new(keys::ROLLOUTS, "rollouts");
pub(super) const INSTANCES: Table<(Name, releases::Number, Ordinal), Instance> =
    Table::new(keys::INSTANCES, "instances");
pub(super) const FAILURES: Table<(Name, u64), Failure> = Table::new(keys::FAILURES, "failures");
pub(super) const SERVING: Table<Name, Serving> = Table::new(keys::SERVING, "serving");
pub(crate) const TABLES: &[&dyn Describe] = &[&ROLLOUTS, &INSTANCES, &FAILURES, &SERVING];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound() {
        let delays: Vec<u64> = (1..=7).map(backoff_ms).collect();
        assert_eq!(delays, [1_000, 1_000, 2_000, 3_000, 5_000, 8_000, 13_000]);
        assert_eq!(backoff_ms(u32::MAX), BACKOFF_MS_MAX);
    }

    #[test]
    fn cuts_between_characters() {
        assert_eq!(bounded("aä", 2), "a");
        assert_eq!(bounded("ab", 2), "ab");
    }
}
