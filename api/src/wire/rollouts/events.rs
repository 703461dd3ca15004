//! What happens to builds, releases, rollouts and instances.

use super::Kind;
use crate::wire::{Time, time};
use onward_statemachine::deployments::{builds, instances, releases};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What happened to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BuildEvent {
    /// It is to be made.
    Queued {
        /// Of which app.
        app: String,
        /// Which.
        build: u64,
        /// The commit.
        commit: String,
    },
    /// A node works on it.
    Started {
        /// Of which app.
        app: String,
        /// Which.
        build: u64,
        /// The node.
        node: u64,
    },
    /// Its files are there.
    Succeeded {
        /// Of which app.
        app: String,
        /// Which.
        build: u64,
        /// Where.
        node: u64,
    },
    /// An attempt failed.
    Failed {
        /// Of which app.
        app: String,
        /// Which.
        build: u64,
        /// Where.
        node: u64,
        /// Why.
        reason: String,
    },
    /// All builds of an app were forgotten.
    Forgotten {
        /// Which app.
        app: String,
    },
}

impl From<builds::Event> for BuildEvent {
    fn from(event: builds::Event) -> Self {
        match event {
            builds::Event::Queued { app, number, inputs } => BuildEvent::Queued {
                app: app.0,
                build: number.0,
                commit: inputs.commit.to_string(),
            },
            builds::Event::Started { app, number, node } => BuildEvent::Started {
                app: app.0,
                build: number.0,
                node: node.0,
            },
            builds::Event::Succeeded { app, number, node } => BuildEvent::Succeeded {
                app: app.0,
                build: number.0,
                node: node.0,
            },
            builds::Event::Failed {
                app,
                number,
                node,
                reason,
            } => BuildEvent::Failed {
                app: app.0,
                build: number.0,
                node: node.0,
                reason,
            },
            builds::Event::Forgotten { app } => BuildEvent::Forgotten { app: app.0 },
        }
    }
}

/// What happened to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReleaseEvent {
    /// It was made.
    Created {
        /// Of which app.
        app: String,
        /// Which.
        release: u64,
        /// The build whose files it runs.
        build: u64,
        /// The commit that was built.
        commit: String,
        /// The ref that was asked for.
        #[serde(rename = "ref")]
        reference: String,
        /// The rollout that made it.
        rollout: u64,
    },
    /// All releases of an app were forgotten.
    Forgotten {
        /// Which app.
        app: String,
    },
}

impl From<releases::Event> for ReleaseEvent {
    fn from(event: releases::Event) -> Self {
        match event {
            releases::Event::Created {
                app,
                number,
                build,
                commit,
                reference,
                rollout,
                ..
            } => ReleaseEvent::Created {
                app: app.0,
                release: number.0,
                build: build.0,
                commit: commit.to_string(),
                reference,
                rollout: rollout.0,
            },
            releases::Event::Forgotten { app } => ReleaseEvent::Forgotten { app: app.0 },
        }
    }
}

/// What happened to a rollout or an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RolloutEvent {
    /// A rollout was asked for.
    Queued {
        /// Of which app.
        app: String,
        /// Its number.
        rollout: u64,
        /// What for.
        what: Kind,
        /// The release, where that is known from the start.
        release: Option<u64>,
    },
    /// A node works on it.
    Assigned {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
        /// The node.
        node: u64,
    },
    /// The source is there.
    Fetched {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
        /// What the ref meant.
        commit: String,
        /// The build of it.
        build: u64,
    },
    /// An instance of its release is to be started.
    Placed {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
        /// What the instance runs.
        release: u64,
        /// Which instance.
        instance: u64,
        /// Where.
        node: u64,
    },
    /// The process of the instance was started.
    Started {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
        /// Where the process is reached.
        address: String,
        /// Its port.
        port: u16,
        /// Its id.
        pid: u32,
    },
    /// The instance answered its health check.
    Checked {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
    },
    /// The routes lead to the instance.
    Switched {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
    },
    /// It is done.
    Finished {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
    },
    /// The step that it is at failed.
    Failed {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
        /// Why.
        reason: String,
        /// When it is tried again; null when it is not.
        next_attempt_at: Option<Time>,
    },
    /// It is no longer wanted.
    Superseded {
        /// Of which app.
        app: String,
        /// Which.
        rollout: u64,
        /// Why.
        reason: String,
    },
    /// An instance is to finish its requests and stop.
    Draining {
        /// Of which app.
        app: String,
        /// Of which release.
        release: u64,
        /// Which.
        instance: u64,
    },
    /// An instance is gone.
    Ended {
        /// Of which app.
        app: String,
        /// Of which release.
        release: u64,
        /// Which.
        instance: u64,
        /// `stopped`, `exited` or `lost`.
        ending: String,
        /// The same for people.
        reason: String,
        /// When the app may be restarted, if the instance served.
        restart_at: Option<Time>,
    },
    /// Rollouts, failures and instances of an app were forgotten.
    Forgotten {
        /// Which app.
        app: String,
    },
}

impl From<instances::Event> for RolloutEvent {
    fn from(event: instances::Event) -> Self {
        use instances::Event as Happened;
        let app = event.app().0.clone();
        match event {
            Happened::Queued {
                rollout,
                kind,
                release,
                ..
            } => RolloutEvent::Queued {
                app,
                rollout: rollout.0,
                what: kind.into(),
                release: release.map(|number| number.0),
            },
            Happened::Assigned { rollout, node, .. } => RolloutEvent::Assigned {
                app,
                rollout: rollout.0,
                node: node.0,
            },
            Happened::Fetched {
                rollout,
                commit,
                build,
                ..
            } => RolloutEvent::Fetched {
                app,
                rollout: rollout.0,
                commit: commit.to_string(),
                build: build.0,
            },
            Happened::Placed {
                rollout,
                release,
                ordinal,
                node,
                ..
            } => RolloutEvent::Placed {
                app,
                rollout: rollout.0,
                release: release.0,
                instance: ordinal.0,
                node: node.0,
            },
            Happened::Started { rollout, process, .. } => RolloutEvent::Started {
                app,
                rollout: rollout.0,
                address: process.address,
                port: process.port,
                pid: process.pid,
            },
            Happened::Checked { rollout, .. } => RolloutEvent::Checked {
                app,
                rollout: rollout.0,
            },
            Happened::Switched { rollout, .. } => RolloutEvent::Switched {
                app,
                rollout: rollout.0,
            },
            Happened::Finished { rollout, .. } => RolloutEvent::Finished {
                app,
                rollout: rollout.0,
            },
            Happened::Failed {
                rollout,
                reason,
                next_attempt_at,
                ..
            } => RolloutEvent::Failed {
                app,
                rollout: rollout.0,
                reason,
                next_attempt_at: next_attempt_at.map(time),
            },
            Happened::Superseded { rollout, reason, .. } => RolloutEvent::Superseded {
                app,
                rollout: rollout.0,
                reason,
            },
            Happened::Draining { release, ordinal, .. } => RolloutEvent::Draining {
                app,
                release: release.0,
                instance: ordinal.0,
            },
            Happened::Ended {
                release,
                ordinal,
                ending,
                reason,
                restart_at,
                ..
            } => RolloutEvent::Ended {
                app,
                release: release.0,
                instance: ordinal.0,
                ending: match ending {
                    instances::Ending::Stopped => "stopped",
                    instances::Ending::Exited => "exited",
                    instances::Ending::Lost => "lost",
                }
                .to_owned(),
                reason,
                restart_at: restart_at.map(time),
            },
            Happened::Forgotten { .. } => RolloutEvent::Forgotten { app },
        }
    }
}
