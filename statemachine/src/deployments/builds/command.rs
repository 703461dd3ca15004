use super::types::*;
use super::{Event, query};
use crate::command::{self, Accepted, Context, Decision, Stop};
use crate::deployments::apps::{self, Name};
use crate::deployments::instances;
use crate::ids::NodeId;
use crate::store::View;
use serde::{Deserialize, Serialize};

/// Demands on builds; the reports of the applier that makes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Have a build of these inputs. Answers with the number of the one there is already, unless that failed.
    Queue {
        /// Of which app.
        app: Name,
        /// What it depends on.
        inputs: Inputs,
    },
    /// A node begins to work on a build (again).
    Start {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// The node.
        node: NodeId,
    },
    /// A node has come to an end with a build.
    Finish {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// The node.
        node: NodeId,
        /// Which attempt it was; the report of an earlier one comes too late.
        attempt: u32,
        /// Why it failed, if it did; cut at [`REASON_BYTES_MAX`].
        failure: Option<String>,
    },
    /// Forget all builds of an app that is being deleted.
    Forget {
        /// Which app.
        app: Name,
    },
}

/// Why a demand on builds is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such app.
    #[error("there is no app `{app}`")]
    AppNotFound {
        /// Asked for.
        app: Name,
    },
    /// No such build.
    #[error("app `{app}` has no build {number}")]
    NotFound {
        /// Of which app.
        app: Name,
        /// Asked for.
        number: Number,
    },
    /// Not a commit.
    #[error("`{commit}` is not the full id of a commit")]
    Commit {
        /// What was given.
        commit: String,
    },
    /// It has an end already.
    #[error("build {number} of app `{app}` has succeeded already")]
    Succeeded {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
    },
    /// Somebody else works on it, or nobody does.
    #[error("build {number} of app `{app}` is not in attempt {attempt} on node {node}")]
    Stale {
        /// Of which app.
        app: Name,
        /// Which.
        number: Number,
        /// Who reported.
        node: NodeId,
        /// On which attempt.
        attempt: u32,
    },
    /// The app is needed, or used.
    #[error("the builds of app `{app}` are kept: it was not deleted, or something of it is left")]
    Kept {
        /// Which app.
        app: Name,
    },
}

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on builds.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Queue { app, inputs } => decide_queue(view, app, inputs),
        Command::Start { app, number, node } => {
            let build = existing(view, app, *number)?;
            match build.state {
                State::Succeeded { .. } => refuse(Refusal::Succeeded {
                    app: app.clone(),
                    number: *number,
                }),
                _ => Ok(Accepted::event(Event::Started {
                    app: app.clone(),
                    number: *number,
                    node: *node,
                })),
            }
        }
        Command::Finish {
            app,
            number,
            node,
            attempt,
            failure,
        } => {
            let build = existing(view, app, *number)?;
            if build.state != (State::Running { node: *node }) || build.attempt != *attempt {
                return refuse(Refusal::Stale {
                    app: app.clone(),
                    number: *number,
                    node: *node,
                    attempt: *attempt,
                });
            }
            let (app, number, node) = (app.clone(), *number, *node);
            Ok(Accepted::event(match failure {
                None => Event::Succeeded { app, number, node },
                Some(reason) => Event::Failed {
                    app,
                    number,
                    node,
                    reason: instances::bounded(reason, REASON_BYTES_MAX),
                },
            }))
        }
        Command::Forget { app } => match apps::get(view, app)? {
            Some(row) if row.deleting && instances::serving(view, app)?.is_none() => {
                Ok(Accepted::event(Event::Forgotten { app: app.clone() }))
            }
            _ => refuse(Refusal::Kept { app: app.clone() }),
        },
    }
}

fn decide_queue(view: &dyn View, app: &Name, inputs: &Inputs) -> Decision<Event, Refusal> {
    if apps::get(view, app)?.is_none() {
        return refuse(Refusal::AppNotFound { app: app.clone() });
    }
    if !inputs.commit.is_valid() {
        let commit = inputs.commit.to_string();
        return refuse(Refusal::Commit { commit });
    }
    let found = query::of_inputs(view, app, inputs)?;
    let number = match found {
        Some(number) => number,
        None => query::newest(view, app)?
            .map_or(Number(0), |(number, _)| number)
            .next(),
    };
    let queued = Event::Queued {
        app: app.clone(),
        number,
        inputs: inputs.clone(),
    };
    Ok(Accepted {
        events: if found.is_some() { Vec::new() } else { vec![queued] },
        reply: command::Reply::Builds(Reply::Number(number)),
    })
}

fn existing(view: &dyn View, app: &Name, number: Number) -> Result<Build, Stop<Refusal>> {
    match query::get(view, app, number)? {
        Some(build) => Ok(build),
        None => refuse(Refusal::NotFound {
            app: app.clone(),
            number,
        }),
    }
}
