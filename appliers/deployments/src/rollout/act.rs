//! Acting: each action does its work, or finds it done, and reports.

use super::plan::Action;
use crate::build::{BuildError, Builds};
use crate::driver::{Driver, DriverError, InstanceId, Order, Status, procfs};
use crate::git::Git;
use crate::health;
use crate::ingress::Ingress;
use onward_statemachine::deployments::apps::{self, Name};
use onward_statemachine::deployments::builds::{self, Inputs};
use onward_statemachine::deployments::instances::{
    self, Command, Ending, Fence, Instance, Kind, Progress, Rollout, RolloutNumber, Step,
};
use onward_statemachine::deployments::releases::{self, Release};
use onward_statemachine::ports::{Cluster, Proposal, ProposeError, Proposer, Reader};
use onward_statemachine::{Actor, NodeId, Outcome, Reply};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a report may look for its way into the log.
const PROPOSE_MS: u64 = 10_000;
/// How long an instance that no longer gets requests stays at least, so that every node has the new routes.
const SETTLE_MS: u64 = 1_000;
/// How often a drain or a health check looks at its instance.
const LOOK: Duration = Duration::from_millis(50);
/// The grace of an instance of which nothing is known.
const STRAY_GRACE: Duration = Duration::from_secs(5);

/// Why an action could not be completed here and now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Why a step failed.
struct Failure {
    reason: String,
    permanent: bool,
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Failure {
            permanent: error.is_permanent(),
            reason: error.to_string(),
        }
    }
}

impl From<crate::git::GitError> for Failure {
    fn from(error: crate::git::GitError) -> Self {
        BuildError::Git(error).into()
    }
}

/// A step either comes to something, fails, or finds that it is not wanted any more.
enum StepEnd {
    Done(Progress),
    Failed(Failure),
    Overtaken,
}

impl From<Failure> for StepEnd {
    fn from(failure: Failure) -> Self {
        StepEnd::Failed(failure)
    }
}

/// All that acting takes.
pub(crate) struct Worker {
    pub(crate) node: NodeId,
    pub(crate) actor: Actor,
    pub(crate) git: Git,
    pub(crate) builds: Builds,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) ingress: Ingress,
    pub(crate) proposer: Arc<dyn Proposer>,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) cluster: Arc<dyn Cluster>,
}

impl Worker {
    /// Removes what an earlier process of this node left half done.
    pub(super) fn clean(&self) {
        self.builds.clean();
    }

    /// Does an action. What the log refuses was overtaken by something else, which the next plan will see.
    pub(super) async fn act(&self, action: &Action) -> Result<(), ActError> {
        match action {
            Action::Work {
                app,
                rollout,
                step,
                attempt,
            } => {
                let fence = Fence {
                    app: app.clone(),
                    rollout: *rollout,
                    step: *step,
                    attempt: *attempt,
                    node: self.node,
                };
                self.work(fence).await
            }
            Action::Drain { id } => self.drain(id).await,
            Action::Remove { id, forget } => {
                tracing::info!(instance = %id, "ending an instance that the log does not have");
                self.driver.stop(id, STRAY_GRACE).await?;
                if *forget {
                    self.driver.forget(id);
                }
                Ok(())
            }
            decision => {
                let command = self.decision(decision);
                self.propose(command).await.map(|_| ())
            }
        }
    }

    /// The command of an action that is nothing but one.
    fn decision(&self, action: &Action) -> onward_statemachine::Command {
        let command = match action.clone() {
            Action::Assign {
                app,
                rollout,
                node,
                instead_of,
            } => Command::Assign {
                app,
                rollout,
                node,
                instead_of,
            },
            Action::Restart {
                app,
                replaces,
                reason,
            } => Command::Restart {
                app,
                replaces,
                reason,
            },
            Action::Halt { app } => Command::Halt { app },
            Action::Lose { id, node } => {
                let reason = format!("node {node} is out of contact");
                ended(&id, node, Ending::Lost, reason)
            }
            Action::ReportExit { id, reason } => ended(&id, self.node, Ending::Exited, reason),
            Action::Forget { app } => return forget(app),
            Action::Work { .. } | Action::Drain { .. } | Action::Remove { .. } => {
                unreachable!("these do more than propose")
            }
        };
        onward_statemachine::Command::Instances(command)
    }

    /// Proposes; `None` is a refusal.
    async fn propose(&self, command: onward_statemachine::Command) -> Result<Option<Reply>, ActError> {
        let proposal = Proposal::new(self.actor.clone(), command);
        match self.proposer.propose(proposal, PROPOSE_MS).await? {
            Outcome::Accepted { reply, .. } => Ok(Some(reply)),
            Outcome::Refused { refusal, .. } => {
                tracing::debug!(%refusal, "a report was overtaken");
                Ok(None)
            }
        }
    }

    /// Does the step that a rollout is at, and reports what came of it.
    async fn work(&self, fence: Fence) -> Result<(), ActError> {
        let rollout = self
            .reader
            .read(|view| instances::rollout(view, &fence.app, fence.rollout));
        let Some(rollout) = rollout.filter(|row| row.step == fence.step && row.attempt == fence.attempt)
        else {
            return Ok(());
        };
        let end = match fence.step {
            Step::Fetching => self.fetch(&fence.app, &rollout).await?,
            Step::Building => self.build(&fence.app, fence.rollout, &rollout).await?,
            Step::Starting => self.start(&fence.app, &rollout).await?,
            Step::Checking => self.check(&fence.app, &rollout).await,
            Step::Switching => self.ready_to_switch(&fence.app, &rollout),
            _ => StepEnd::Overtaken,
        };
        let (app, number, step) = (fence.app.clone(), fence.rollout, fence.step);
        let command = match end {
            StepEnd::Overtaken => return Ok(()),
            StepEnd::Done(progress) => {
                tracing::info!(%app, rollout = %number, %step, "step done");
                Command::Advance { fence, progress }
            }
            StepEnd::Failed(Failure { reason, permanent }) => {
                tracing::warn!(%app, rollout = %number, %step, reason, permanent, "step failed");
                Command::Fail {
                    fence,
                    reason,
                    permanent,
                }
            }
        };
        let command = onward_statemachine::Command::Instances(command);
        self.propose(command).await.map(|_| ())
    }

    async fn fetch(&self, app: &Name, rollout: &Rollout) -> Result<StepEnd, ActError> {
        if let Some(number) = rollout.release {
            let Some(release) = self.release(app, number) else {
                return Ok(StepEnd::Overtaken);
            };
            if self.builds.has(&release.inputs()) {
                return Ok(StepEnd::Done(Progress::Built { release: number }));
            }
            let repository = &release.spec.source.repository;
            return Ok(
                match self
                    .git
                    .fetch(repository, &release.commit, &release.reference)
                    .await
                {
                    Ok(()) => StepEnd::Done(Progress::Fetched {
                        commit: release.commit.clone(),
                        build: release.build,
                    }),
                    Err(error) => Failure::from(error).into(),
                },
            );
        }
        let Kind::Deploy {
            reference,
            spec: Some(spec),
        } = &rollout.kind
        else {
            return Ok(StepEnd::Overtaken);
        };
        let repository = &spec.source.repository;
        let commit = match &rollout.commit {
            Some(commit) => Ok(commit.clone()),
            None => self.git.resolve(repository, reference).await,
        };
        let commit = match commit {
            Ok(commit) => commit,
            Err(error) => return Ok(Failure::from(error).into()),
        };
        if let Err(error) = self.git.fetch(repository, &commit, reference).await {
            return Ok(Failure::from(error).into());
        }
        let inputs = Inputs {
            commit: commit.clone(),
            command: spec.build.clone(),
            env: spec.build_env.clone(),
        };
        let queue = builds::Command::Queue {
            app: app.clone(),
            inputs,
        };
        let reply = self.propose(onward_statemachine::Command::Builds(queue)).await?;
        Ok(match reply {
            Some(Reply::Builds(builds::Reply::Number(build))) => {
                StepEnd::Done(Progress::Fetched { commit, build })
            }
            _ => StepEnd::Overtaken,
        })
    }

    async fn build(&self, app: &Name, number: RolloutNumber, rollout: &Rollout) -> Result<StepEnd, ActError> {
        if let Some(release) = rollout.release {
            return Ok(match self.tree_of(app, release).await {
                Ok(_) => StepEnd::Done(Progress::Built { release }),
                Err(failure) => failure.into(),
            });
        }
        let (
            Kind::Deploy {
                reference,
                spec: Some(spec),
            },
            Some(build),
        ) = (&rollout.kind, rollout.build)
        else {
            return Ok(StepEnd::Overtaken);
        };
        let Some(row) = self.reader.read(|view| builds::get(view, app, build)) else {
            return Ok(StepEnd::Overtaken);
        };
        let repository = &spec.source.repository;
        if matches!(row.state, builds::State::Succeeded { .. }) {
            // Made before, perhaps on another node; here it is found, or made again.
            if let Err(failure) = self.make(repository, reference, &row.inputs).await {
                return Ok(failure.into());
            }
        } else if let Some(end) = self
            .first_build(app, build, repository, reference, &row.inputs)
            .await?
        {
            return Ok(end);
        }
        let create = releases::Command::Create {
            app: app.clone(),
            rollout: number,
        };
        let reply = self
            .propose(onward_statemachine::Command::Releases(create))
            .await?;
        Ok(match reply {
            Some(Reply::Releases(releases::Reply::Number(release))) => {
                StepEnd::Done(Progress::Built { release })
            }
            _ => StepEnd::Overtaken,
        })
    }

    /// Makes a build that was not made before, and reports its beginning and end. `None` when it succeeded.
    async fn first_build(
        &self,
        app: &Name,
        build: builds::Number,
        repository: &str,
        reference: &str,
        inputs: &Inputs,
    ) -> Result<Option<StepEnd>, ActError> {
        let (app, number, node) = (app.clone(), build, self.node);
        let start = builds::Command::Start {
            app: app.clone(),
            number,
            node,
        };
        if self
            .propose(onward_statemachine::Command::Builds(start))
            .await?
            .is_none()
        {
            return Ok(Some(StepEnd::Overtaken));
        }
        // The reply came after the change was applied on the leader; here it may be a moment later.
        let running = builds::State::Running { node };
        let Some(row) = self
            .until(|view| {
                let row = builds::get(view, &app, number)?;
                Ok(row.filter(|row| row.state == running))
            })
            .await
        else {
            return Ok(Some(StepEnd::Overtaken));
        };
        let made = self.make(repository, reference, inputs).await;
        let finish = builds::Command::Finish {
            app,
            number,
            node,
            attempt: row.attempt,
            failure: made.as_ref().err().map(|failure| failure.reason.clone()),
        };
        let reported = self.propose(onward_statemachine::Command::Builds(finish)).await?;
        Ok(match (made, reported) {
            (Err(failure), _) => Some(failure.into()),
            (Ok(_), None) => Some(StepEnd::Overtaken),
            (Ok(_), Some(_)) => None,
        })
    }

    /// Waits for what was acknowledged to be applied here, for as long as that takes at most a few seconds.
    async fn until<T>(
        &self,
        read: impl Fn(&dyn onward_statemachine::View) -> Result<Option<T>, onward_statemachine::Fault>,
    ) -> Option<T> {
        let give_up = tokio::time::Instant::now() + Duration::from_millis(PROPOSE_MS);
        loop {
            let stamp = self.reader.stamp().applied;
            if let Some(value) = self.reader.read(&read) {
                return Some(value);
            }
            if tokio::time::timeout_at(give_up, self.reader.changed(stamp))
                .await
                .is_err()
            {
                return None;
            }
        }
    }

    async fn make(&self, repository: &str, reference: &str, inputs: &Inputs) -> Result<PathBuf, Failure> {
        if !self.builds.has(inputs) {
            self.git.fetch(repository, &inputs.commit, reference).await?;
        }
        Ok(self.builds.make(&self.git, repository, inputs).await?)
    }

    /// The tree of a release, which is made again where it is missing.
    async fn tree_of(&self, app: &Name, number: releases::Number) -> Result<(Release, PathBuf), Failure> {
        let release = self.release(app, number).ok_or_else(|| Failure {
            reason: format!("release {number} is not kept any more"),
            permanent: true,
        })?;
        let repository = release.spec.source.repository.clone();
        let tree = self
            .make(&repository, &release.reference, &release.inputs())
            .await?;
        Ok((release, tree))
    }

    async fn start(&self, app: &Name, rollout: &Rollout) -> Result<StepEnd, ActError> {
        let Some((id, _)) = self.instance_of(app, rollout) else {
            return Ok(StepEnd::Overtaken);
        };
        let (release, tree) = match self.tree_of(app, id.release).await {
            Ok(found) => found,
            Err(failure) => return Ok(failure.into()),
        };
        let order = Order {
            id,
            run: release.spec.run,
            tree,
            env: release.spec.env,
        };
        let status = self.driver.start(order).await;
        Ok(match status {
            Ok(Status::Running(process)) => StepEnd::Done(Progress::Started { process }),
            Ok(Status::Exited { reason }) => passing(reason),
            Ok(Status::Absent) => passing("its process did not come into being".to_owned()),
            Err(error) => passing(error.to_string()),
        })
    }

    async fn check(&self, app: &Name, rollout: &Rollout) -> StepEnd {
        let Some((id, instance)) = self.instance_of(app, rollout) else {
            return StepEnd::Overtaken;
        };
        let (Some(process), Some(release)) = (instance.process, self.release(app, id.release)) else {
            return StepEnd::Overtaken;
        };
        let healthy = health::until_healthy(&process.address, process.port, &release.spec.health);
        let gone = async {
            loop {
                if let Some(reason) = self.gone(&id) {
                    return reason;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            reason = gone => passing(reason),
            healthy = healthy => match healthy {
                Ok(()) => StepEnd::Done(Progress::Checked),
                Err(reason) => passing(reason),
            },
        }
    }

    /// The step whose work is its own report: the switch.
    fn ready_to_switch(&self, app: &Name, rollout: &Rollout) -> StepEnd {
        match self.instance_of(app, rollout) {
            None => StepEnd::Overtaken,
            Some((id, _)) => match self.gone(&id) {
                None => StepEnd::Done(Progress::Switched),
                Some(reason) => passing(reason),
            },
        }
    }

    /// Why an instance does not run, if it does not.
    fn gone(&self, id: &InstanceId) -> Option<String> {
        match self.driver.status(id) {
            Status::Running(_) => None,
            Status::Exited { reason } => Some(reason),
            Status::Absent => Some("its node knows nothing of it any more".to_owned()),
        }
    }

    /// Lets an instance finish its requests, stops it, and reports that.
    async fn drain(&self, id: &InstanceId) -> Result<(), ActError> {
        let row = self
            .reader
            .read(|view| instances::instance(view, &id.app, id.release, id.ordinal));
        let Some(instance) = row.filter(|row| row.created == id.created && !row.state.is_end()) else {
            return Ok(());
        };
        let spec = self.release(&id.app, id.release).map(|release| release.spec);
        let (drain_ms, grace_ms) = spec.map_or((0, apps::STOP_GRACE_MS_DEFAULT), |spec| {
            (spec.drain_ms, spec.stop_grace_ms)
        });
        if instance.active_from.is_some() {
            self.quiet(id, &instance, drain_ms).await;
        }
        self.driver.stop(id, Duration::from_millis(grace_ms)).await?;
        let command = ended(id, self.node, Ending::Stopped, "it was stopped".to_owned());
        self.propose(onward_statemachine::Command::Instances(command))
            .await
            .map(|_| ())
    }

    /// Waits until no request is under way to an instance: none of this ingress, and no connection of any other, once
    /// all have had time to learn of the switch. At most as long as the app allows.
    async fn quiet(&self, id: &InstanceId, instance: &Instance, drain_ms: u64) {
        let from = instance.draining_from.unwrap_or_default();
        let port = instance.process.as_ref().map(|process| process.port);
        loop {
            let waited_ms = self.proposer.now().since(from);
            let settled =
                waited_ms >= SETTLE_MS.min(drain_ms) && self.ingress.revision() >= instance.modified;
            let busy = || {
                self.ingress.in_flight(&id.app, id.ordinal) > 0
                    || port.is_some_and(|port| procfs::connections(port) > 0)
            };
            let gone = self.gone(id).is_some();
            if gone || waited_ms >= drain_ms || (settled && !busy()) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn release(&self, app: &Name, number: releases::Number) -> Option<Release> {
        self.reader.read(|view| releases::get(view, app, number))
    }

    /// The instance that a rollout is bringing up.
    fn instance_of(&self, app: &Name, rollout: &Rollout) -> Option<(InstanceId, Instance)> {
        let (release, ordinal) = rollout.release.zip(rollout.instance)?;
        let instance = self
            .reader
            .read(|view| instances::instance(view, app, release, ordinal))?;
        let id = InstanceId {
            app: app.clone(),
            release,
            ordinal,
            created: instance.created,
        };
        Some((id, instance))
    }
}

/// A failure that may well pass.
fn passing(reason: String) -> StepEnd {
    StepEnd::Failed(Failure {
        reason,
        permanent: false,
    })
}

fn ended(id: &InstanceId, node: NodeId, ending: Ending, reason: String) -> Command {
    Command::ReportEnded {
        app: id.app.clone(),
        release: id.release,
        ordinal: id.ordinal,
        node,
        ending,
        reason,
    }
}

/// Everything of a deleted app, at once.
fn forget(app: Name) -> onward_statemachine::Command {
    onward_statemachine::Command::Batch(vec![
        onward_statemachine::Command::Instances(Command::Forget { app: app.clone() }),
        onward_statemachine::Command::Releases(releases::Command::Forget { app: app.clone() }),
        onward_statemachine::Command::Builds(builds::Command::Forget { app: app.clone() }),
        onward_statemachine::Command::Apps(apps::Command::Remove { name: app }),
    ])
}
