use super::types::*;
use super::{Event, query};
use crate::command::{self, Accepted, Context, Decision, Stop};
use crate::deployments::apps::{self, Name};
use crate::deployments::{builds, instances};
use crate::store::View;
use serde::{Deserialize, Serialize};

/// Demands on releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Make the release of a rollout whose build has succeeded. Answers with the same number when it is made again.
    Create {
        /// Of which app.
        app: Name,
        /// For which rollout.
        rollout: instances::RolloutNumber,
    },
    /// Forget all releases of an app that is being deleted.
    Forget {
        /// Which app.
        app: Name,
    },
}

/// Why a demand on releases is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such rollout, or not one that makes a release now.
    #[error("rollout {rollout} of app `{app}` is not at the point of making a release")]
    Rollout {
        /// Of which app.
        app: Name,
        /// Which.
        rollout: instances::RolloutNumber,
    },
    /// The build has not succeeded, or it is of other inputs.
    #[error(
        "build {build} of app `{app}` has not succeeded with the commit and the build command of the release"
    )]
    Build {
        /// Of which app.
        app: Name,
        /// Which.
        build: builds::Number,
    },
    /// The app is needed, or used.
    #[error("the releases of app `{app}` are kept: it was not deleted, or something of it is left")]
    Kept {
        /// Which app.
        app: Name,
    },
}

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on releases.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Create { app, rollout } => decide_create(view, app, *rollout),
        Command::Forget { app } => match apps::get(view, app)? {
            Some(row) if row.deleting && instances::serving(view, app)?.is_none() => {
                Ok(Accepted::event(Event::Forgotten { app: app.clone() }))
            }
            _ => refuse(Refusal::Kept { app: app.clone() }),
        },
    }
}

fn decide_create(view: &dyn View, app: &Name, number: instances::RolloutNumber) -> Decision<Event, Refusal> {
    let newest = query::newest(view, app)?;
    if let Some((made, _)) = newest.as_ref().filter(|(_, release)| release.rollout == number) {
        return Ok(Accepted {
            events: Vec::new(),
            reply: command::Reply::Releases(Reply::Number(*made)),
        });
    }
    let rollout = instances::rollout(view, app, number)?.filter(|row| row.step == instances::Step::Building);
    let Some(instances::Rollout {
        kind: instances::Kind::Deploy {
            reference,
            spec: Some(spec),
        },
        generation,
        commit: Some(commit),
        build: Some(build),
        ..
    }) = rollout
    else {
        return refuse(Refusal::Rollout {
            app: app.clone(),
            rollout: number,
        });
    };
    let inputs = builds::Inputs {
        commit: commit.clone(),
        command: spec.build.clone(),
        env: spec.build_env.clone(),
    };
    let made = builds::get(view, app, build)?
        .filter(|row| row.inputs == inputs)
        .map(|row| row.state);
    if !matches!(made, Some(builds::State::Succeeded { .. })) {
        return refuse(Refusal::Build {
            app: app.clone(),
            build,
        });
    }
    let release = newest.map_or(Number(0), |(number, _)| number).next();
    let created = Event::Created {
        app: app.clone(),
        number: release,
        build,
        commit,
        reference,
        spec,
        generation,
        rollout: number,
    };
    Ok(Accepted {
        events: vec![created],
        reply: command::Reply::Releases(Reply::Number(release)),
    })
}
