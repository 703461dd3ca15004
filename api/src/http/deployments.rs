//! `/v1/apps`: apps, and how they come to run.

use crate::answer::{Answer, Done, page};
use crate::app::App;
use crate::cursor::List as Cursors;
use crate::params::{List, Read};
use crate::problem::{NOT_FOUND, PATH_INVALID, Problem};
use crate::request::{Call, Conditional, Fresh, Json, MaybeJson, Params, Path};
use crate::routes::{Routes, op};
use crate::wire;
use crate::wire::rollouts::{Build, Deploy, Failure, Instance, Queued, Release, Restart, Rollback, Rollout};
use axum::extract::State;
use onward_statemachine::deployments::apps::{self, Name};
use onward_statemachine::deployments::instances::{self, RolloutNumber};
use onward_statemachine::deployments::{builds, releases};
use onward_statemachine::{Command as Demand, Fault, Reply, View};

const APPS: Cursors = Cursors("apps");
const BUILDS: Cursors = Cursors("builds");
const RELEASES: Cursors = Cursors("releases");
const ROLLOUTS: Cursors = Cursors("rollouts");
const FAILURES: Cursors = Cursors("failures");
const INSTANCES: Cursors = Cursors("instances");

pub(super) fn routes(routes: Routes) -> Routes {
    let path = "/v1/apps/{app}";
    let declared = op("app_set", "Declares an app, all of it").writes_if_match();
    let run = |id, about| op(id, about).writes().answer::<Queued>();
    let routes = routes
        .tag("deployments")
        .get(
            "/v1/apps",
            list,
            op("app_list", "Lists apps")
                .query::<List>()
                .list::<wire::apps::App>(),
        )
        .get(
            path,
            get,
            op("app_get", "Reads an app")
                .query::<Read>()
                .answer::<wire::apps::App>(),
        )
        .put(path, set, declared.body::<wire::apps::Spec>().done())
        .delete(
            path,
            delete,
            op("app_delete", "Lets an app go, once nothing of it runs")
                .writes_if_match()
                .done(),
        )
        .post(
            "/v1/apps/{app}/start",
            start,
            op("app_start", "Lets an app run").writes_if_match().done(),
        )
        .post(
            "/v1/apps/{app}/stop",
            stop,
            op("app_stop", "Lets no instance run").writes_if_match().done(),
        )
        .post(
            "/v1/apps/{app}/deploy",
            deploy,
            run("app_deploy", "Brings what a ref means now into service").body::<Deploy>(),
        )
        .post(
            "/v1/apps/{app}/rollback",
            rollback,
            run("app_rollback", "Brings an earlier release back").body::<Rollback>(),
        )
        .post(
            "/v1/apps/{app}/restart",
            restart,
            run("app_restart", "Runs the present release anew").body::<Restart>(),
        );
    history_routes(routes)
}

fn history_routes(routes: Routes) -> Routes {
    let lists = |id, about| op(id, about).query::<List>();
    let reads = |id, about| op(id, about).query::<Read>();
    routes
        .get(
            "/v1/apps/{app}/builds",
            builds_of,
            lists("build_list", "Lists builds, newest first").list::<Build>(),
        )
        .get(
            "/v1/apps/{app}/builds/{number}",
            build,
            reads("build_get", "Reads a build").answer::<Build>(),
        )
        .get(
            "/v1/apps/{app}/releases",
            releases_of,
            lists("release_list", "Lists releases, newest first").list::<Release>(),
        )
        .get(
            "/v1/apps/{app}/releases/{number}",
            release,
            reads("release_get", "Reads a release").answer::<Release>(),
        )
        .get(
            "/v1/apps/{app}/rollouts",
            rollouts_of,
            lists("rollout_list", "Lists rollouts, newest first").list::<Rollout>(),
        )
        .get(
            "/v1/apps/{app}/rollouts/{number}",
            rollout,
            reads("rollout_get", "Reads a rollout").answer::<Rollout>(),
        )
        .get(
            "/v1/apps/{app}/failures",
            failures_of,
            lists("app_failures", "Lists failures, newest first").list::<Failure>(),
        )
        .get(
            "/v1/apps/{app}/instances",
            instances_of,
            lists("app_instances", "Lists the instances of an app").list::<Instance>(),
        )
        .get(
            "/v1/instances",
            all_instances,
            lists("instance_list", "Lists the instances of all apps").list::<Instance>(),
        )
}

fn missing(app: &Name) -> Problem {
    NOT_FOUND.because(format!("there is no app `{app}`"))
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse()
        .map_err(|_| PATH_INVALID.because(format!("`{text}` in the path is not a number")))
}

async fn list(State(app): State<App>, Params(List { fresh, page: which }): Params<List>) -> Answer {
    let after = APPS.text(which.cursor.as_deref())?.map(Name);
    let listing = app
        .read(fresh, |view| {
            let listing = apps::list(view, after.as_ref(), which.limit)?;
            let rows = listing.apps.into_iter().map(|(name, row)| {
                let serving = instances::serving(view, &name)?;
                Ok(wire::apps::App::from((name, row, serving)))
            });
            Ok((rows.collect::<Result<Vec<_>, Fault>>()?, listing.next))
        })
        .await?;
    listing
        .map(|(rows, next)| page(rows, next.map(|name| APPS.cursor(name.0.as_bytes())), |row| row))
        .answer()
}

async fn get(State(app): State<App>, Path(name): Path<String>, Params(read): Params<Read>) -> Answer {
    let name = Name(name);
    let found = app
        .read(read.fresh, |view| match apps::get(view, &name)? {
            Some(row) => Ok(Some((name.clone(), row, instances::serving(view, &name)?))),
            None => Ok(None),
        })
        .await?;
    found
        .or_else(|| missing(&name))?
        .map(wire::apps::App::from)
        .answer()
}

async fn set(
    State(app): State<App>,
    Path(name): Path<String>,
    Conditional { call, expect }: Conditional,
    Json(spec): Json<wire::apps::Spec>,
) -> Answer {
    let command = apps::Command::Set {
        name: Name(name),
        spec: Box::new(spec.into()),
        expect,
    };
    app.propose(call, Demand::Apps(command)).await?.answer()
}

async fn delete(
    State(app): State<App>,
    Path(name): Path<String>,
    Conditional { call, expect }: Conditional,
) -> Answer {
    let name = Name(name);
    app.propose(call, Demand::Apps(apps::Command::Delete { name, expect }))
        .await?
        .answer()
}

async fn start(
    State(app): State<App>,
    Path(name): Path<String>,
    Conditional { call, expect }: Conditional,
) -> Answer {
    let name = Name(name);
    app.propose(call, Demand::Apps(apps::Command::Start { name, expect }))
        .await?
        .answer()
}

async fn stop(
    State(app): State<App>,
    Path(name): Path<String>,
    Conditional { call, expect }: Conditional,
) -> Answer {
    let name = Name(name);
    app.propose(call, Demand::Apps(apps::Command::Stop { name, expect }))
        .await?
        .answer()
}

fn queued(done: &Done) -> Answer {
    match &done.reply {
        Reply::Instances(instances::Reply::Rollout(number)) => {
            done.answer_with(&Queued { rollout: number.0 })
        }
        _ => done.answer(),
    }
}

async fn deploy(
    State(app): State<App>,
    Path(name): Path<String>,
    call: Call,
    MaybeJson(Deploy { reference }): MaybeJson<Deploy>,
) -> Answer {
    let command = instances::Command::Deploy {
        app: Name(name),
        reference,
    };
    queued(&app.propose(call, Demand::Instances(command)).await?)
}

async fn rollback(
    State(app): State<App>,
    Path(name): Path<String>,
    call: Call,
    MaybeJson(Rollback { release }): MaybeJson<Rollback>,
) -> Answer {
    let command = instances::Command::Rollback {
        app: Name(name),
        release: release.map(releases::Number),
    };
    queued(&app.propose(call, Demand::Instances(command)).await?)
}

async fn restart(
    State(app): State<App>,
    Path(name): Path<String>,
    call: Call,
    MaybeJson(Restart { reason }): MaybeJson<Restart>,
) -> Answer {
    let name = Name(name);
    // The instance that is replaced is named, so that a restart asked for twice is done once.
    let serving = app
        .read(Fresh::default(), |view| instances::serving(view, &name))
        .await?;
    let command = instances::Command::Restart {
        app: name,
        replaces: serving.value.and_then(|serving| Some(serving.active?.ordinal)),
        reason,
    };
    queued(&app.propose(call, Demand::Instances(command)).await?)
}

/// A list of something of one app, newest first: read by `read`, which goes on before a number.
async fn list_of<T: serde::Serialize>(
    app: &App,
    cursors: Cursors,
    name: &Name,
    List { fresh, page: which }: List,
    read: impl FnOnce(&dyn View, Option<u64>, usize) -> Result<(Vec<T>, Option<u64>), Fault> + Send,
) -> Answer {
    let before = cursors.number(which.cursor.as_deref())?;
    let listing = app
        .read(fresh, |view| match apps::get(view, name)? {
            Some(_) => read(view, before, which.limit).map(Some),
            None => Ok(None),
        })
        .await?;
    listing
        .or_else(|| missing(name))?
        .map(|(rows, next)| {
            page(
                rows,
                next.map(|number| cursors.cursor(&number.to_be_bytes())),
                |row| row,
            )
        })
        .answer()
}

async fn builds_of(State(app): State<App>, Path(name): Path<String>, Params(which): Params<List>) -> Answer {
    let name = Name(name);
    list_of(&app, BUILDS, &name, which, |view, before, limit| {
        let listing = builds::list(view, &name, before.map(builds::Number), limit)?;
        let rows = listing
            .builds
            .into_iter()
            .map(|(number, row)| Build::new(&name, number, row));
        Ok((rows.collect(), listing.next.map(|number| number.0)))
    })
    .await
}

async fn releases_of(
    State(app): State<App>,
    Path(name): Path<String>,
    Params(which): Params<List>,
) -> Answer {
    let name = Name(name);
    list_of(&app, RELEASES, &name, which, |view, before, limit| {
        let listing = releases::list(view, &name, before.map(releases::Number), limit)?;
        let rows = listing
            .releases
            .into_iter()
            .map(|(number, row)| Release::new(&name, number, row));
        Ok((rows.collect(), listing.next.map(|number| number.0)))
    })
    .await
}

async fn rollouts_of(
    State(app): State<App>,
    Path(name): Path<String>,
    Params(which): Params<List>,
) -> Answer {
    let name = Name(name);
    list_of(&app, ROLLOUTS, &name, which, |view, before, limit| {
        let listing = instances::rollouts(view, &name, before.map(RolloutNumber), limit)?;
        let rows = listing
            .rollouts
            .into_iter()
            .map(|(number, row)| Rollout::new(&name, number, row));
        Ok((rows.collect(), listing.next.map(|number| number.0)))
    })
    .await
}

async fn failures_of(
    State(app): State<App>,
    Path(name): Path<String>,
    Params(which): Params<List>,
) -> Answer {
    let name = Name(name);
    list_of(&app, FAILURES, &name, which, |view, before, limit| {
        let listing = instances::failures(view, &name, before, limit)?;
        let rows = listing
            .failures
            .into_iter()
            .map(|(number, row)| Failure::new(&name, number, row));
        Ok((rows.collect(), listing.next))
    })
    .await
}

/// One of something of an app.
async fn one_of<T: serde::Serialize>(
    app: &App,
    what: &str,
    (name, text): (String, String),
    fresh: Fresh,
    read: impl FnOnce(&dyn View, &Name, u64) -> Result<Option<T>, Fault> + Send,
) -> Answer {
    let (name, number) = (Name(name), number(&text)?);
    let found = app.read(fresh, |view| read(view, &name, number)).await?;
    let missing = || {
        NOT_FOUND.because(format!(
            "app `{name}` has no {what} {number}, or it is no longer kept"
        ))
    };
    found.or_else(missing)?.answer()
}

async fn build(
    State(app): State<App>,
    Path(of): Path<(String, String)>,
    Params(read): Params<Read>,
) -> Answer {
    one_of(&app, "build", of, read.fresh, |view, name, number| {
        let number = builds::Number(number);
        Ok(builds::get(view, name, number)?.map(|row| Build::new(name, number, row)))
    })
    .await
}

async fn release(
    State(app): State<App>,
    Path(of): Path<(String, String)>,
    Params(read): Params<Read>,
) -> Answer {
    one_of(&app, "release", of, read.fresh, |view, name, number| {
        let number = releases::Number(number);
        Ok(releases::get(view, name, number)?.map(|row| Release::new(name, number, row)))
    })
    .await
}

async fn rollout(
    State(app): State<App>,
    Path(of): Path<(String, String)>,
    Params(read): Params<Read>,
) -> Answer {
    one_of(&app, "rollout", of, read.fresh, |view, name, number| {
        let number = RolloutNumber(number);
        Ok(instances::rollout(view, name, number)?.map(|row| Rollout::new(name, number, row)))
    })
    .await
}

async fn instances_of(
    State(app): State<App>,
    Path(name): Path<String>,
    Params(which): Params<List>,
) -> Answer {
    list_instances(&app, Some(Name(name)), which).await
}

async fn all_instances(State(app): State<App>, Params(which): Params<List>) -> Answer {
    list_instances(&app, None, which).await
}

async fn list_instances(app: &App, name: Option<Name>, List { fresh, page: which }: List) -> Answer {
    let after = which
        .cursor
        .as_deref()
        .map(|cursor| INSTANCES.position(cursor))
        .transpose()?;
    let after = after.and_then(|position| instance_position(&position));
    let listing = app
        .read(fresh, |view| {
            let known = match &name {
                Some(name) => apps::get(view, name)?.is_some(),
                None => true,
            };
            let listing = instances::instances(view, name.as_ref(), after.as_ref(), which.limit)?;
            Ok(known.then_some(listing))
        })
        .await?;
    let unknown = || missing(&name.clone().unwrap_or(Name(String::new())));
    listing
        .or_else(unknown)?
        .map(|listing| {
            let next = listing.next.map(|(name, release, ordinal)| {
                let numbers = [release.0.to_be_bytes(), ordinal.0.to_be_bytes()].concat();
                INSTANCES.cursor(&[&numbers[..], name.0.as_bytes()].concat())
            });
            page(listing.instances, next, Instance::from)
        })
        .answer()
}

/// The position in a cursor: release and ordinal, eight bytes each, then the app.
fn instance_position(position: &[u8]) -> Option<instances::InstanceCursor> {
    let (release, rest) = position.split_first_chunk::<8>()?;
    let (ordinal, name) = rest.split_first_chunk::<8>()?;
    let name = Name(String::from_utf8(name.to_vec()).ok()?);
    Some((
        name,
        releases::Number(u64::from_be_bytes(*release)),
        instances::Ordinal(u64::from_be_bytes(*ordinal)),
    ))
}
