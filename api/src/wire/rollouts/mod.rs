//! Builds, releases, rollouts and instances: how an app comes to run.

mod events;

pub use events::{BuildEvent, ReleaseEvent, RolloutEvent};

use super::apps::{Protocol, Route, Spec};
use super::{Time, time};
use onward_statemachine::deployments::{apps, builds, instances, releases};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Asks for a deploy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The branch, tag or commit; the app's own where it is missing.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Asks for a rollback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The release; where it is missing, the last one that served before the present one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
}

/// Asks for a restart of the present release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// A rollout that was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Queued {
    /// Its number.
    pub rollout: u64,
}

/// What of an app is under way and what serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Serving {
    /// The rollout that is not finished.
    pub rollout: Option<u64>,
    /// The instance that the routes lead to.
    pub active: Option<Active>,
    /// The release that last became active.
    pub release: Option<u64>,
    /// How many instances have not ended.
    pub live: u64,
    /// How often active instances crashed in a row.
    pub crashes: u32,
}

impl From<instances::Serving> for Serving {
    fn from(serving: instances::Serving) -> Self {
        Serving {
            rollout: serving.rollout.map(|number| number.0),
            active: serving.active.map(Active::from),
            release: serving.release.map(|number| number.0),
            live: serving.live.len() as u64,
            crashes: serving.crashes,
        }
    }
}

/// The instance that an app's routes lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Active {
    /// What it runs.
    pub release: u64,
    /// Which instance.
    pub instance: u64,
    /// Where.
    pub node: u64,
    /// The host name or address at which nodes reach it.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// The routes of its release.
    pub routes: Vec<Route>,
    /// The revision at which the routes were switched to it.
    pub since: u64,
}

impl From<instances::Active> for Active {
    fn from(active: instances::Active) -> Self {
        Active {
            release: active.release.0,
            instance: active.ordinal.0,
            node: active.node.0,
            address: active.address,
            port: active.port,
            protocol: active.protocol.into(),
            routes: active.routes.into_iter().map(Route::from).collect(),
            since: active.since.0,
        }
    }
}

/// A build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Build {
    /// Of which app.
    pub app: String,
    /// Its number.
    pub build: u64,
    /// The commit that is built.
    pub commit: String,
    /// The shell text that builds it, if anything does.
    pub command: Option<String>,
    /// The environment of that.
    pub env: BTreeMap<String, String>,
    /// `queued`, `running`, `succeeded` or `failed`.
    pub state: String,
    /// On which node.
    pub node: Option<u64>,
    /// Why it failed, if it did.
    pub reason: Option<String>,
    /// How often it was started.
    pub attempt: u32,
    /// When it was queued.
    pub queued_at: Time,
    /// When it was last started.
    pub started_at: Option<Time>,
    /// When it last came to an end.
    pub finished_at: Option<Time>,
    /// The revision at which it was queued.
    pub created: u64,
    /// The revision at which it last changed.
    pub modified: u64,
}

impl Build {
    pub(crate) fn new(app: &apps::Name, number: builds::Number, build: builds::Build) -> Self {
        let (state, node, reason) = match build.state {
            builds::State::Queued => ("queued", None, None),
            builds::State::Running { node } => ("running", Some(node.0), None),
            builds::State::Succeeded { node } => ("succeeded", Some(node.0), None),
            builds::State::Failed { node, reason } => ("failed", Some(node.0), Some(reason)),
        };
        Build {
            app: app.0.clone(),
            build: number.0,
            commit: build.inputs.commit.to_string(),
            command: build.inputs.command,
            env: build.inputs.env,
            state: state.to_owned(),
            node,
            reason,
            attempt: build.attempt,
            queued_at: time(build.queued_at),
            started_at: build.started_at.map(time),
            finished_at: build.finished_at.map(time),
            created: build.created.0,
            modified: build.modified.0,
        }
    }
}

/// A release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// Of which app.
    pub app: String,
    /// Its number.
    pub release: u64,
    /// The build whose files it runs.
    pub build: u64,
    /// The commit that was built.
    pub commit: String,
    /// The ref that was asked for, and meant that commit then.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What was declared of the app when the rollout was asked for.
    pub spec: Spec,
    /// The generation of the app that declared it.
    pub generation: u64,
    /// The rollout that made it.
    pub rollout: u64,
    /// The revision at which it was made.
    pub created: u64,
    /// When it was made.
    pub created_at: Time,
}

impl Release {
    pub(crate) fn new(app: &apps::Name, number: releases::Number, release: releases::Release) -> Self {
        Release {
            app: app.0.clone(),
            release: number.0,
            build: release.build.0,
            commit: release.commit.to_string(),
            reference: release.reference,
            spec: release.spec.into(),
            generation: release.generation.0,
            rollout: release.rollout.0,
            created: release.created.0,
            created_at: time(release.created_at),
        }
    }
}

/// What a rollout is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = RolloutKind)]
pub enum Kind {
    /// Bring what a ref means now into service.
    Deploy {
        /// The ref.
        #[serde(rename = "ref")]
        reference: String,
    },
    /// Bring an earlier release back.
    Rollback {},
    /// Run the present release anew.
    Restart {
        /// Why.
        reason: String,
    },
}

impl From<instances::Kind> for Kind {
    fn from(kind: instances::Kind) -> Self {
        match kind {
            instances::Kind::Deploy { reference, .. } => Kind::Deploy { reference },
            instances::Kind::Rollback => Kind::Rollback {},
            instances::Kind::Restart { reason } => Kind::Restart { reason },
        }
    }
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// Of which app.
    pub app: String,
    /// Its number.
    pub rollout: u64,
    /// What was asked for.
    pub what: Kind,
    /// Where it is: `queued`, `fetching`, `building`, `starting`, `checking`, `switching`, `draining`, or at its end
    /// `done`, `failed`, `superseded`.
    pub step: String,
    /// Whether nothing comes after its step.
    pub ended: bool,
    /// The generation of the app when it was asked for.
    pub generation: u64,
    /// The commit, once it is known.
    pub commit: Option<String>,
    /// The build, once it is known.
    pub build: Option<u64>,
    /// The release, once there is one.
    pub release: Option<u64>,
    /// The instance that this attempt starts.
    pub instance: Option<u64>,
    /// Which attempt is under way, from 1.
    pub attempt: u32,
    /// Attempts that failed.
    pub failures: u32,
    /// The node that works on it.
    pub node: Option<u64>,
    /// Nothing is done before.
    pub next_attempt_at: Option<Time>,
    /// The steps that it came by, oldest first.
    pub trail: Vec<Passage>,
    /// Why it failed, or what superseded it.
    pub reason: Option<String>,
    /// Who asked for it.
    pub requested_by: String,
    /// When it was asked for.
    pub requested_at: Time,
    /// The revision at which it was asked for.
    pub created: u64,
    /// The revision at which it last changed.
    pub modified: u64,
}

/// A step that a rollout came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passage {
    /// Which.
    pub step: String,
    /// In which attempt.
    pub attempt: u32,
    /// On which node.
    pub node: Option<u64>,
    /// When.
    pub at: Time,
}

impl Rollout {
    pub(crate) fn new(app: &apps::Name, number: instances::RolloutNumber, row: instances::Rollout) -> Self {
        let passage = |passage: instances::Passage| Passage {
            step: passage.step.to_string(),
            attempt: passage.attempt,
            node: passage.node.map(|node| node.0),
            at: time(passage.at),
        };
        Rollout {
            app: app.0.clone(),
            rollout: number.0,
            what: row.kind.into(),
            step: row.step.to_string(),
            ended: row.step.is_end(),
            generation: row.generation.0,
            commit: row.commit.map(|commit| commit.to_string()),
            build: row.build.map(|number| number.0),
            release: row.release.map(|number| number.0),
            instance: row.instance.map(|ordinal| ordinal.0),
            attempt: row.attempt,
            failures: row.failures,
            node: row.node.map(|node| node.0),
            next_attempt_at: (row.next_attempt_at.0 > 0).then(|| time(row.next_attempt_at)),
            trail: row.trail.into_iter().map(passage).collect(),
            reason: row.reason,
            requested_by: row.requested_by.to_string(),
            requested_at: time(row.requested_at),
            created: row.created.0,
            modified: row.modified.0,
        }
    }
}

/// One running copy of an app, or one that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AppInstance)]
pub struct Instance {
    /// Of which app.
    pub app: String,
    /// Of which release.
    pub release: u64,
    /// Its number among those of its app.
    pub instance: u64,
    /// The rollout that started it.
    pub rollout: u64,
    /// Where it runs.
    pub node: u64,
    /// `starting`, `healthy`, `active`, `draining`, `stopped` or `lost`.
    pub state: String,
    /// The host name or address at which nodes reach it, once its process was started.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// The id of its process on the node.
    pub pid: Option<u32>,
    /// When it was placed.
    pub placed_at: Time,
    /// From when on it served, if it did.
    pub active_from: Option<Time>,
    /// From when on it was to stop.
    pub draining_from: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// How it ended.
    pub reason: Option<String>,
    /// The revision at which it was placed.
    pub created: u64,
    /// The revision at which it last changed.
    pub modified: u64,
}

impl From<(instances::InstanceCursor, instances::Instance)> for Instance {
    fn from(((app, release, ordinal), row): (instances::InstanceCursor, instances::Instance)) -> Self {
        let (address, port, pid) = match row.process {
            Some(process) => (Some(process.address), Some(process.port), Some(process.pid)),
            None => (None, None, None),
        };
        Instance {
            app: app.0,
            release: release.0,
            instance: ordinal.0,
            rollout: row.rollout.0,
            node: row.node.0,
            state: row.state.to_string(),
            address,
            port,
            pid,
            placed_at: time(row.placed_at),
            active_from: row.active_from.map(time),
            draining_from: row.draining_from.map(time),
            ended_at: row.ended_at.map(time),
            reason: row.reason,
            created: row.created.0,
            modified: row.modified.0,
        }
    }
}

/// A step that failed, or an instance that crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// Of which app.
    pub app: String,
    /// Its number among those of its app.
    pub failure: u64,
    /// Of which rollout.
    pub rollout: u64,
    /// In which step; null for an instance that served.
    pub step: Option<String>,
    /// In which attempt; for an instance that served, the count of crashes in a row.
    pub attempt: u32,
    /// On which node.
    pub node: Option<u64>,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Time,
    /// When it is tried again, if it is.
    pub next_attempt_at: Option<Time>,
}

impl Failure {
    pub(crate) fn new(app: &apps::Name, number: u64, row: instances::Failure) -> Self {
        Failure {
            app: app.0.clone(),
            failure: number,
            rollout: row.rollout.0,
            step: row.step.map(|step| step.to_string()),
            attempt: row.attempt,
            node: row.node.map(|node| node.0),
            reason: row.reason,
            at: time(row.at),
            next_attempt_at: row.next_attempt_at.map(time),
        }
    }
}
