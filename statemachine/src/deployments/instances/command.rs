use super::types::*;
use super::{Event, report, request};
use crate::command::{Context, Decision, Stop};
use crate::deployments::apps::{self, Commit, Name};
use crate::deployments::{builds, releases};
use crate::ids::NodeId;
use crate::store::View;
use serde::{Deserialize, Serialize};

/// Demands on rollouts and instances.
///
/// [`Deploy`](Command::Deploy), [`Rollback`](Command::Rollback) and [`Restart`](Command::Restart) are for users (and
/// the leader's applier, which restarts what crashed); the others are the reports of appliers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Bring what a ref means now into service, superseding a rollout that is not finished.
    Deploy {
        /// Which app.
        app: Name,
        /// The ref; the app's own where `None`.
        reference: Option<String>,
    },
    /// Bring an earlier release back into service, superseding a rollout that is not finished.
    Rollback {
        /// Which app.
        app: Name,
        /// The release; where `None`, the last one that served before the present one was made.
        release: Option<releases::Number>,
    },
    /// Run the present release anew.
    Restart {
        /// Which app.
        app: Name,
        /// The active instance that it replaces, or `None` when there is none: a fence against restarting twice.
        replaces: Option<Ordinal>,
        /// Why.
        reason: String,
    },
    /// Give a rollout to a node; away from another one when that is out of contact.
    Assign {
        /// Which app.
        app: Name,
        /// Which rollout.
        rollout: RolloutNumber,
        /// To which node.
        node: NodeId,
        /// The node that has it now.
        instead_of: Option<NodeId>,
    },
    /// A step is done.
    Advance {
        /// Which step of which rollout.
        fence: Fence,
        /// What came of it.
        progress: Progress,
    },
    /// A step failed.
    Fail {
        /// Which step of which rollout.
        fence: Fence,
        /// Why, for people; cut at [`REASON_BYTES_MAX`].
        reason: String,
        /// Whether trying again would be in vain.
        permanent: bool,
    },
    /// An instance has ended.
    ReportEnded {
        /// Of which app.
        app: Name,
        /// Of which release.
        release: releases::Number,
        /// Which.
        ordinal: Ordinal,
        /// Where it ran.
        node: NodeId,
        /// How it ended.
        ending: Ending,
        /// The same for people; cut at [`REASON_BYTES_MAX`].
        reason: String,
    },
    /// Have everything of an app stopped that was stopped or deleted.
    Halt {
        /// Which app.
        app: Name,
    },
    /// Forget rollouts, failures and instances of a deleted app, of which nothing runs any more.
    Forget {
        /// Which app.
        app: Name,
    },
}

/// What a report is about; it is refused where the rollout is no longer there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// Which app.
    pub app: Name,
    /// Which rollout.
    pub rollout: RolloutNumber,
    /// The step that was worked on.
    pub step: Step,
    /// In which attempt.
    pub attempt: u32,
    /// By which node.
    pub node: NodeId,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Fetching is done: the ref meant this commit, and this is its build.
    Fetched {
        /// The commit.
        commit: Commit,
        /// The build of it ([`builds::Command::Queue`]).
        build: builds::Number,
    },
    /// Building is done (or, for a release that was there already, fetching found its files): an instance is placed.
    Built {
        /// The release ([`releases::Command::Create`]).
        release: releases::Number,
    },
    /// Starting is done.
    Started {
        /// The process.
        process: Process,
    },
    /// Checking is done: it is healthy.
    Checked,
    /// Switch the routes to it.
    Switched,
}

/// Why a demand on rollouts and instances is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such app.
    #[error("there is no app `{app}`")]
    AppNotFound {
        /// Asked for.
        app: Name,
    },
    /// It is not to run.
    #[error("app `{app}` is stopped or being deleted; start it first")]
    AppStopped {
        /// Which.
        app: Name,
    },
    /// It is to run.
    #[error("app `{app}` was neither stopped nor deleted")]
    AppRunning {
        /// Which.
        app: Name,
    },
    /// The ref is not one.
    #[error(transparent)]
    Reference(apps::Refusal),
    /// No such release.
    #[error("app `{app}` has no release {release}")]
    ReleaseNotFound {
        /// Of which app.
        app: Name,
        /// Asked for.
        release: releases::Number,
    },
    /// Nothing served before.
    #[error("app `{app}` has no earlier release that served, so there is none to go back to")]
    NoEarlierRelease {
        /// Which app.
        app: Name,
    },
    /// Nothing served ever.
    #[error("app `{app}` has no release to run; deploy it first")]
    NoRelease {
        /// Which app.
        app: Name,
    },
    /// A route of the release went to another app.
    #[error("release {release} of app `{app}` has route `{route}`, which belongs to app `{owner}` now")]
    RouteTaken {
        /// Of which app.
        app: Name,
        /// Which release.
        release: releases::Number,
        /// Which route.
        route: apps::Route,
        /// Whose it is.
        owner: Name,
    },
    /// A rollout is under way already.
    #[error("rollout {rollout} of app `{app}` is not finished")]
    Busy {
        /// Of which app.
        app: Name,
        /// Which.
        rollout: RolloutNumber,
    },
    /// The instance to replace is not the active one.
    #[error("the active instance of app `{app}` is not the one that is to be replaced")]
    NotActive {
        /// Which app.
        app: Name,
    },
    /// No such rollout.
    #[error("app `{app}` has no rollout {rollout}")]
    NotFound {
        /// Of which app.
        app: Name,
        /// Asked for.
        rollout: RolloutNumber,
    },
    /// A report about what is past.
    #[error(
        "rollout {rollout} of app `{app}` is at {step}, attempt {attempt}, and not where the report puts it"
    )]
    Stale {
        /// Of which app.
        app: Name,
        /// Which.
        rollout: RolloutNumber,
        /// Where it is.
        step: Step,
        /// In which attempt.
        attempt: u32,
    },
    /// A report that does not follow from the step.
    #[error("this is not what step {step} of rollout {rollout} of app `{app}` can come to")]
    OutOfPlace {
        /// Of which app.
        app: Name,
        /// Which.
        rollout: RolloutNumber,
        /// Where it is.
        step: Step,
    },
    /// No such instance there.
    #[error("app `{app}` has no instance {ordinal} of release {release} on node {node}")]
    InstanceNotFound {
        /// Of which app.
        app: Name,
        /// Of which release.
        release: releases::Number,
        /// Asked for.
        ordinal: Ordinal,
        /// Where.
        node: NodeId,
    },
    /// The active instance is replaced before it is given up.
    #[error("instance {ordinal} of app `{app}` is active; it is lost only once another one is")]
    StillActive {
        /// Of which app.
        app: Name,
        /// Which.
        ordinal: Ordinal,
    },
    /// Something of the app is left.
    #[error("the rollouts of app `{app}` are kept: it was not deleted, or instances are left")]
    Kept {
        /// Which app.
        app: Name,
    },
}

pub(super) fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on rollouts and instances.
pub fn decide(view: &dyn View, ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Deploy { app, reference } => request::deploy(view, app, reference.as_deref()),
        Command::Rollback { app, release } => request::rollback(view, app, *release),
        Command::Restart {
            app,
            replaces,
            reason,
        } => request::restart(view, app, *replaces, reason),
        Command::Halt { app } => request::halt(view, app),
        Command::Forget { app } => request::forget(view, app),
        Command::Assign {
            app,
            rollout,
            node,
            instead_of,
        } => report::assign(view, app, *rollout, *node, *instead_of),
        Command::Advance { fence, progress } => report::advance(view, fence, progress),
        Command::Fail {
            fence,
            reason,
            permanent,
        } => report::fail(view, ctx, fence, reason, *permanent),
        Command::ReportEnded {
            app,
            release,
            ordinal,
            node,
            ending,
            reason,
        } => report::ended(view, ctx, (app, *release, *ordinal), *node, ending, reason),
    }
}
