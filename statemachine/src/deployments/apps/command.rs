use super::types::*;
use super::validate::check_spec;
use super::{Event, query};
use crate::command::{Accepted, Context, Decision, Stop};
use crate::deployments::{builds, instances, releases};
use crate::ids::{NameError, Revision, check_label};
use crate::store::View;
use serde::{Deserialize, Serialize};

/// Demands on apps. `expect` is the revision at which the caller saw the app last modified, 0 for "does not exist".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Declare an app, all of it; nothing changes where it is declared so already.
    Set {
        /// Which.
        name: Name,
        /// All that is declared of it.
        spec: Box<Spec>,
        /// Only if it was last modified then.
        expect: Option<Revision>,
    },
    /// Let an app go: what runs of it is stopped, and then nothing of it is kept.
    Delete {
        /// Which.
        name: Name,
        /// Only if it was last modified then.
        expect: Option<Revision>,
    },
    /// Let an app run: its last release is started again.
    Start {
        /// Which.
        name: Name,
        /// Only if it was last modified then.
        expect: Option<Revision>,
    },
    /// Let no instance of an app run.
    Stop {
        /// Which.
        name: Name,
        /// Only if it was last modified then.
        expect: Option<Revision>,
    },
    /// Let go of the row of a deleted app of which nothing is left: the last of the batch by which the applier forgets
    /// it (`builds`, `releases` and `instances` have their `Forget`).
    Remove {
        /// Which.
        name: Name,
    },
}

/// Why a demand on apps is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A name, or a part of the declaration that is one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// No such app.
    #[error("there is no app `{app}`")]
    NotFound {
        /// Asked for.
        app: Name,
    },
    /// It is being deleted.
    #[error("app `{app}` is being deleted; it can be declared again once nothing of it runs")]
    Deleting {
        /// Which.
        app: Name,
    },
    /// A compare-and-set lost.
    #[error("app `{app}` was last modified at revision {actual}, not at {expected}")]
    RevisionMismatch {
        /// Which.
        app: Name,
        /// What the caller had read.
        expected: Revision,
        /// What is there; 0 where nothing is.
        actual: Revision,
    },
    /// Something of a deleted app is left.
    #[error("app `{app}` cannot be removed: {left}")]
    NotEmpty {
        /// Which.
        app: Name,
        /// What is left.
        left: String,
    },
    /// A repository that cannot be fetched from.
    #[error("source.repository `{repository}` is not allowed: {rule}")]
    Repository {
        /// What was given, without its credentials.
        repository: String,
        /// What is allowed.
        rule: String,
    },
    /// A ref that git would not take.
    #[error("ref `{reference}` is not a name that git takes for a branch, tag or commit")]
    Reference {
        /// What was given.
        reference: String,
    },
    /// A command that is blank or cannot be passed on.
    #[error("{field} is not a command: it is blank or contains a zero byte")]
    CommandText {
        /// `build` or `run`.
        field: String,
    },
    /// Too many environment variables.
    #[error("{field} has {count} entries; the most is {ENV_ENTRIES_MAX}")]
    EnvEntries {
        /// `env` or `build_env`.
        field: String,
        /// How many.
        count: usize,
    },
    /// Too large an environment.
    #[error("{field} has {bytes} bytes; the most is {ENV_BYTES_MAX}")]
    EnvBytes {
        /// `env` or `build_env`.
        field: String,
        /// Names and values together.
        bytes: usize,
    },
    /// A name that is not one of an environment variable.
    #[error("name `{name}` in {field} is not allowed: capital letters, digits and `_`, no digit first")]
    EnvName {
        /// `env` or `build_env`.
        field: String,
        /// What was given.
        name: String,
    },
    /// A name that the node sets itself.
    #[error("name `{name}` in {field} is not allowed: PORT, HOST and ONWARD_... are set by the node")]
    EnvReserved {
        /// `env` or `build_env`.
        field: String,
        /// What was given.
        name: String,
    },
    /// A value that cannot be passed on.
    #[error("the value of `{name}` in {field} contains a zero byte")]
    EnvValue {
        /// `env` or `build_env`.
        field: String,
        /// Whose value.
        name: String,
    },
    /// Too many routes.
    #[error("the app has {count} routes; the most is {ROUTES_MAX}")]
    Routes {
        /// How many.
        count: usize,
    },
    /// A route that leads nowhere.
    #[error("app `{app}` speaks plain TCP; only HTTP apps have routes")]
    RouteOfTcp {
        /// Which app.
        app: Name,
    },
    /// Routes that are not in order, or one twice.
    #[error("the routes of app `{app}` must be sorted by host and path, none twice")]
    RouteOrder {
        /// Which app.
        app: Name,
    },
    /// A path prefix that is not in its one form.
    #[error("the path of route `{route}` is not allowed: whole segments, no slash at the end, no query")]
    RoutePath {
        /// Which.
        route: Route,
    },
    /// A path that is none.
    #[error("{field} `{path}` is not allowed: `/` first, then printable ASCII without spaces")]
    Path {
        /// Whose path.
        field: String,
        /// What was given.
        path: String,
    },
    /// A route of another app.
    #[error("route `{route}` belongs to app `{owner}`")]
    RouteTaken {
        /// Which.
        route: Route,
        /// Whose it is.
        owner: Name,
    },
    /// A time that is too short or too long.
    #[error("{field} is {value_ms} ms; it takes {min_ms} to {max_ms}")]
    Time {
        /// Which.
        field: String,
        /// What was given.
        value_ms: u64,
        /// The least.
        min_ms: u64,
        /// The most.
        max_ms: u64,
    },
}

fn refuse<T>(refusal: Refusal) -> Result<T, Stop<Refusal>> {
    Err(Stop::Refuse(refusal))
}

/// Decides a demand on apps.
pub fn decide(view: &dyn View, _ctx: &Context, command: &Command) -> Decision<Event, Refusal> {
    match command {
        Command::Set { name, spec, expect } => decide_set(view, name, spec, *expect),
        Command::Delete { name, expect } => {
            let app = expected(view, name, *expect)?;
            if app.deleting {
                return Ok(Accepted::unchanged());
            }
            Ok(Accepted::event(Event::Deleted { name: name.clone() }))
        }
        Command::Start { name, expect } => decide_run(view, name, *expect, true),
        Command::Stop { name, expect } => decide_run(view, name, *expect, false),
        Command::Remove { name } => decide_remove(view, name),
    }
}

fn decide_set(
    view: &dyn View,
    name: &Name,
    spec: &Spec,
    expect: Option<Revision>,
) -> Decision<Event, Refusal> {
    check_label("app", &name.0).map_err(|error| Stop::Refuse(error.into()))?;
    check_spec(name, spec).map_err(Stop::Refuse)?;
    let before = query::get(view, name)?;
    check_expected(name, before.as_ref(), expect)?;
    match &before {
        Some(app) if app.deleting => return refuse(Refusal::Deleting { app: name.clone() }),
        Some(app) if app.spec == *spec => return Ok(Accepted::unchanged()),
        _ => {}
    }
    for route in &spec.routes {
        if let Some(owner) = query::route_owner(view, route)?.filter(|owner| owner != name) {
            let route = route.clone();
            return refuse(Refusal::RouteTaken { route, owner });
        }
    }
    Ok(Accepted::event(Event::Set {
        name: name.clone(),
        spec: Box::new(spec.clone()),
    }))
}

fn decide_run(
    view: &dyn View,
    name: &Name,
    expect: Option<Revision>,
    running: bool,
) -> Decision<Event, Refusal> {
    let app = expected(view, name, expect)?;
    if app.deleting {
        return refuse(Refusal::Deleting { app: name.clone() });
    }
    if app.running == running {
        return Ok(Accepted::unchanged());
    }
    let name = name.clone();
    Ok(Accepted::event(match running {
        true => Event::Started { name },
        false => Event::Stopped { name },
    }))
}

fn decide_remove(view: &dyn View, name: &Name) -> Decision<Event, Refusal> {
    let app = expected(view, name, None)?;
    let left = if !app.deleting {
        Some("it was not deleted")
    } else if instances::serving(view, name)?.is_some() {
        Some("its instances and rollouts are not forgotten")
    } else if releases::newest(view, name)?.is_some() {
        Some("its releases are not forgotten")
    } else if builds::newest(view, name)?.is_some() {
        Some("its builds are not forgotten")
    } else {
        None
    };
    match left {
        Some(left) => refuse(Refusal::NotEmpty {
            app: name.clone(),
            left: left.to_owned(),
        }),
        None => Ok(Accepted::event(Event::Removed { name: name.clone() })),
    }
}

fn expected(view: &dyn View, name: &Name, expect: Option<Revision>) -> Result<App, Stop<Refusal>> {
    let app = query::get(view, name)?;
    check_expected(name, app.as_ref(), expect)?;
    match app {
        Some(app) => Ok(app),
        None => refuse(Refusal::NotFound { app: name.clone() }),
    }
}

fn check_expected(name: &Name, app: Option<&App>, expect: Option<Revision>) -> Result<(), Stop<Refusal>> {
    let actual = app.map_or(Revision(0), |app| app.modified);
    match expect {
        Some(expected) if expected != actual => refuse(Refusal::RevisionMismatch {
            app: name.clone(),
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}
