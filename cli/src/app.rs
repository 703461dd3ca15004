//! `onward app`, `release` and `build`: what should run, and what there is to run.

use crate::age::{age, exact};
use crate::examples::examples;
use crate::failure::{Failure, Result};
use crate::pairs::{pair, unique};
use crate::session::Session;
use crate::table::{Cell, Details, Table, Tone};
use clap::{Args, Subcommand};
use onward_api::wire::Time;
use onward_api::wire::apps::{App, Protocol, Route, Spec};
use onward_api::wire::rollouts::{self, Build, Instance, Release};
use serde_json::json;
use std::path::PathBuf;

/// Commands on apps.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List apps
    #[command(visible_alias = "ls", after_help = examples!["app list", "app list -o wide"])]
    List,
    /// Show an app
    #[command(after_help = examples!["app get hello", "app get hello -o yaml"])]
    Get(Name),
    /// Declare an app
    #[command(after_help = examples![
        "app set hello --repository https://git.example/hello.git --run './serve' --route hello.example/",
        "app set hello -f hello.yaml",
    ])]
    Set(Set),
    /// Delete an app: stop what runs of it, and forget it
    #[command(visible_alias = "rm", after_help = examples!["app delete hello --yes"])]
    Delete(Delete),
    /// Let an app run
    #[command(after_help = examples!["app start hello"])]
    Start(Name),
    /// Let no instance of an app run
    #[command(after_help = examples!["app stop hello --yes"])]
    Stop(Delete),
    /// Run the present release of an app anew
    #[command(after_help = examples!["app restart hello", "app restart hello --reason 'new certificates'"])]
    Restart(Restart),
    /// List the running copies of an app
    #[command(after_help = examples!["app instances hello", "app instances hello -o wide"])]
    Instances(ListOf),
    /// List the steps of rollouts that failed and the instances that crashed, newest first
    #[command(after_help = examples!["app failures hello", "app failures hello --limit 5 -o wide"])]
    Failures(ListOf),
}

/// Arguments of `app set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The name of the app
    app: String,
    /// The whole declaration, in YAML or JSON; `-` reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["repository", "run"])]
    file: Option<PathBuf>,
    /// Where its source is: a URL of git, user@host:path, or an absolute path
    #[arg(long, value_name = "URL", required_unless_present = "file")]
    repository: Option<String>,
    /// The branch, tag or commit that is deployed when none is named
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    reference: String,
    /// Shell text that builds it
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
    /// Shell text that runs it; it listens on the port that $PORT says
    #[arg(long, value_name = "COMMAND", required_unless_present = "file")]
    run: Option<String>,
    /// An environment variable of the running app
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Send requests for this host, and for paths below this, to it
    #[arg(long, value_name = "HOST[/PATH]")]
    route: Vec<String>,
    /// It is healthy when it answers GET of this path; without it, when it takes a connection
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// It speaks something else than HTTP, and has no routes
    #[arg(long, conflicts_with_all = ["route", "health"])]
    tcp: bool,
    /// Only if the app was last modified at this revision; 0 for "does not exist"
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
}

/// Arguments of `app restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// The name of the app
    app: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    wait: crate::deploy::Wait,
}

/// Runs a command on apps.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::List => {
            let now = session.now;
            let apps = session
                .list(None, async |client, page| client.app_list(page).await)
                .await?;
            session.output.show(&apps, |apps| self::apps(&apps.items, now))
        }
        Command::Get(Name { app }) => {
            let app = session.client.app_get(&app).await?;
            session.output.show(&app, |app| details(&app.value))
        }
        Command::Set(arguments) => set(session, arguments).await,
        Command::Delete(Delete { app, expect, yes }) => {
            session.output.confirm(&format!("delete app {app}"), yes)?;
            let done = session.client.app_delete(&app, expect).await?;
            session.output.done(&done, |done| {
                format!("app {app} is being deleted, from revision {} on", done.revision)
            })
        }
        Command::Start(Name { app }) => {
            let done = session.client.app_start(&app, None).await?;
            session.output.done(&done, |done| {
                format!("app {app} is to run, from revision {} on", done.revision)
            })
        }
        Command::Stop(Delete { app, expect, yes }) => {
            session.output.confirm(&format!("stop app {app}"), yes)?;
            let done = session.client.app_stop(&app, expect).await?;
            session.output.done(&done, |done| {
                format!("app {app} is to stop, from revision {} on", done.revision)
            })
        }
        Command::Restart(Restart { app, reason, wait }) => {
            let queued = session.client.app_restart(&app, &reason).await?;
            crate::deploy::follow(session, &app, queued, &wait).await
        }
        Command::Failures(ListOf { app, limit }) => {
            let failures = session
                .list(limit, async |client, page| client.app_failures(&app, page).await)
                .await?;
            session
                .output
                .show(&failures, |failures| failure_table(&failures.items))
        }
        Command::Instances(ListOf { app, limit }) => {
            let instances = session
                .list(limit, async |client, page| client.app_instances(&app, page).await)
                .await?;
            session
                .output
                .show(&instances, |instances| instance_table(&instances.items))
        }
    }
}

/// Runs a command on releases.
pub(crate) async fn releases(session: &mut Session<'_>, command: ReleaseCommand) -> Result {
    let ReleaseCommand::List(ListOf { app, limit }) = command;
    let now = session.now;
    let releases = session
        .list(limit, async |client, page| client.release_list(&app, page).await)
        .await?;
    session
        .output
        .show(&releases, |releases| release_table(&releases.items, now))
}

/// Runs a command on builds.
pub(crate) async fn builds(session: &mut Session<'_>, command: BuildCommand) -> Result {
    let BuildCommand::List(ListOf { app, limit }) = command;
    let now = session.now;
    let builds = session
        .list(limit, async |client, page| client.build_list(&app, page).await)
        .await?;
    session
        .output
        .show(&builds, |builds| build_table(&builds.items, now))
}

async fn set(session: &mut Session<'_>, mut arguments: Set) -> Result {
    let (app, expect) = (std::mem::take(&mut arguments.app), arguments.expect);
    let spec = match &arguments.file {
        Some(file) => session.read_one(file)?,
        None => spec(arguments)?,
    };
    let done = session.client.app_set(&app, &spec, expect).await?;
    session.output.done(&done, |done| {
        format!("app {app} declared at revision {}", done.revision)
    })
}

/// The declaration that the arguments make; what they do not say is as in a manifest that does not say it.
fn spec(arguments: Set) -> Result<Spec> {
    let mut spec = json!({
        "source": {"repository": arguments.repository, "ref": arguments.reference},
        "run": arguments.run,
        "env": unique("environment variable", arguments.env)?,
        "routes": arguments.route.iter().map(|route| self::route(route)).collect::<Vec<_>>(),
        "protocol": if arguments.tcp { Protocol::Tcp } else { Protocol::Http },
        "health": {"http_path": arguments.health},
    });
    if let Some(build) = arguments.build {
        spec["build"] = build.into();
    }
    serde_json::from_value(spec).map_err(|error| Failure::usage(format!("the declaration: {error}")))
}

fn route(text: &str) -> Route {
    let (host, path) = text.find('/').map_or((text, "/"), |slash| text.split_at(slash));
    Route {
        host: host.to_owned(),
        path: path.to_owned(),
    }
}

/// The name of an app.
#[derive(Debug, Args)]
pub struct Name {
    /// The name of the app
    app: String,
}

/// Arguments of `app delete` and `app stop`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The name of the app
    app: String,
    /// Only if the app was last modified at this revision
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Commands on releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// List the releases of an app, newest first
    #[command(visible_alias = "ls", after_help = examples!["release list hello", "release list hello -o json"])]
    List(ListOf),
}

/// Commands on builds.
#[derive(Debug, Subcommand)]
pub enum BuildCommand {
    /// List the builds of an app, newest first
    #[command(visible_alias = "ls", after_help = examples!["build list hello", "build list hello -o json"])]
    List(ListOf),
}

/// Arguments of `release list` and `build list`.
#[derive(Debug, Args)]
pub struct ListOf {
    /// The name of the app
    app: String,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

fn apps(apps: &[App], now: Time) -> Table {
    let mut table = Table::new(
        &["APP", "STATE", "RELEASE", "ROLLOUT", "ROUTES", "CHANGED"],
        &["REPOSITORY", "REF", "NODE", "ADDRESS", "GENERATION", "MODIFIED"],
    );
    for app in apps {
        let active = app.serving.active.as_ref();
        table.push(vec![
            Cell::from(&app.name),
            state(app),
            Cell::maybe(active.map(|active| active.release)),
            Cell::maybe(app.serving.rollout),
            Cell::from(routes(&app.spec.routes)),
            Cell::from(age(app.modified_at, now)),
            Cell::from(&app.spec.source.repository),
            Cell::from(&app.spec.source.reference),
            Cell::maybe(active.map(|active| active.node)),
            Cell::maybe(active.map(|active| format!("{}:{}", active.address, active.port))),
            Cell::from(app.generation),
            Cell::from(app.modified),
        ]);
    }
    table
}

fn state(app: &App) -> Cell {
    let serving = &app.serving;
    match (app.deleting, app.running, &serving.active) {
        (true, ..) => Cell::toned("deleting", Tone::Fair),
        (_, false, None) => Cell::toned("stopped", Tone::Dim),
        (_, false, Some(_)) => Cell::toned("stopping", Tone::Fair),
        (_, true, Some(_)) => Cell::toned("serving", Tone::Good),
        (_, true, None) if serving.rollout.is_some() => Cell::toned("rolling out", Tone::Fair),
        (_, true, None) if serving.release.is_some() => Cell::toned("down", Tone::Bad),
        (_, true, None) => Cell::toned("never deployed", Tone::Dim),
    }
}

fn routes(routes: &[Route]) -> String {
    let routes: Vec<String> = routes
        .iter()
        .map(|route| format!("{}{}", route.host, route.path))
        .collect();
    routes.join(",")
}

fn details(app: &App) -> Details {
    let spec = &app.spec;
    let active = app.serving.active.as_ref();
    let serving = active.map(|active| {
        let place = format!("{}:{}", active.address, active.port);
        format!(
            "release {} as instance {} on node {} at {place}",
            active.release, active.instance, active.node
        )
    });
    let names: Vec<&str> = spec.env.keys().map(String::as_str).collect();
    Details::default()
        .field("app", &app.name)
        .field("state", state(app))
        .field("serving", Cell::maybe(serving))
        .field("rollout", Cell::maybe(app.serving.rollout))
        .field("crashes", app.serving.crashes)
        .field("repository", &spec.source.repository)
        .field("ref", &spec.source.reference)
        .field("build", Cell::maybe(spec.build.as_ref()))
        .field("run", &spec.run)
        .field("env", names.join(", "))
        .field("routes", routes(&spec.routes))
        .field(
            "health",
            spec.health
                .http_path
                .as_ref()
                .map_or("tcp".to_owned(), |path| format!("GET {path}")),
        )
        .field("changed", exact(app.modified_at))
        .field("generation", app.generation)
        .field("created", app.created)
        .field("modified", app.modified)
}

/// The head of a commit id, as people name it.
pub(crate) fn short(commit: &str) -> String {
    commit.chars().take(10).collect()
}

fn release_table(releases: &[Release], now: Time) -> Table {
    let mut table = Table::new(
        &["RELEASE", "COMMIT", "REF", "BUILD", "ROLLOUT", "MADE"],
        &["GENERATION", "CREATED", "RUN"],
    );
    for release in releases {
        table.push(vec![
            Cell::from(release.release),
            Cell::from(short(&release.commit)),
            Cell::from(&release.reference),
            Cell::from(release.build),
            Cell::from(release.rollout),
            Cell::from(age(release.created_at, now)),
            Cell::from(release.generation),
            Cell::from(release.created),
            Cell::from(&release.spec.run),
        ]);
    }
    table
}

fn build_table(builds: &[Build], now: Time) -> Table {
    let mut table = Table::new(
        &["BUILD", "COMMIT", "STATE", "NODE", "ATTEMPT", "QUEUED", "REASON"],
        &["COMMAND", "MODIFIED"],
    );
    for build in builds {
        let tone = match build.state.as_str() {
            "succeeded" => Tone::Good,
            "failed" => Tone::Bad,
            _ => Tone::Fair,
        };
        table.push(vec![
            Cell::from(build.build),
            Cell::from(short(&build.commit)),
            Cell::toned(&build.state, tone),
            Cell::maybe(build.node),
            Cell::from(build.attempt),
            Cell::from(age(build.queued_at, now)),
            Cell::maybe(build.reason.as_ref()),
            Cell::maybe(build.command.as_ref()),
            Cell::from(build.modified),
        ]);
    }
    table
}

fn instance_table(instances: &[Instance]) -> Table {
    let mut table = Table::new(
        &["INSTANCE", "RELEASE", "STATE", "NODE", "ADDRESS", "REASON"],
        &["ROLLOUT", "PID", "PLACED", "ENDED", "MODIFIED"],
    );
    for instance in instances {
        let tone = match instance.state.as_str() {
            "healthy" | "active" => Tone::Good,
            "lost" => Tone::Bad,
            "stopped" => Tone::Dim,
            _ => Tone::Fair,
        };
        let place = instance.address.as_ref().zip(instance.port);
        table.push(vec![
            Cell::from(instance.instance),
            Cell::from(instance.release),
            Cell::toned(&instance.state, tone),
            Cell::from(instance.node),
            Cell::maybe(place.map(|(address, port)| format!("{address}:{port}"))),
            Cell::maybe(instance.reason.as_ref()),
            Cell::from(instance.rollout),
            Cell::maybe(instance.pid),
            Cell::from(exact(instance.placed_at)),
            Cell::maybe(instance.ended_at.map(exact)),
            Cell::from(instance.modified),
        ]);
    }
    table
}

/// Failures as rows.
pub(crate) fn failure_table(failures: &[rollouts::Failure]) -> Table {
    let mut table = Table::new(
        &["FAILURE", "ROLLOUT", "STEP", "ATTEMPT", "AT", "REASON"],
        &["NODE", "NEXT ATTEMPT"],
    );
    for failure in failures {
        table.push(vec![
            Cell::from(failure.failure),
            Cell::from(failure.rollout),
            Cell::from(failure.step.as_deref().unwrap_or("serving")),
            Cell::from(failure.attempt),
            Cell::from(exact(failure.at)),
            Cell::from(&failure.reason),
            Cell::maybe(failure.node),
            Cell::maybe(failure.next_attempt_at.map(exact)),
        ]);
    }
    table
}
