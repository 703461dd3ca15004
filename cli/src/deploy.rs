//! `onward deploy`, `rollback` and `rollout`: rolling releases out, and following them step by step.

use crate::age::{age, exact};
use crate::app::{failure_table, short};
use crate::examples::examples;
use crate::failure::{Failure, Result};
use crate::session::Session;
use crate::table::{Cell, Details, Table, Tone, printable};
use clap::{Args, Subcommand};
use onward_api::client::Paging;
use onward_api::wire::rollouts::{Failure as Failed, Kind, Passage, Queued, Rollout};
use onward_api::wire::{Stamped, Time};
use std::time::{Duration, Instant};

/// Arguments of `deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The name of the app
    app: String,
    /// The branch, tag or commit to deploy; by default the one that the app declares
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The name of the app
    app: String,
    /// The number of the release to go back to; by default the one that served before
    release: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

/// Whether to follow a rollout.
#[derive(Debug, Args)]
pub struct Wait {
    /// Only ask for the rollout, do not follow it
    #[arg(long)]
    no_wait: bool,
    /// How long to follow the rollout before giving up on watching it; it goes on by itself
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = crate::global::duration)]
    wait: Duration,
}

/// Commands on rollouts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the rollouts of an app, newest first
    #[command(visible_alias = "ls", after_help = examples!["rollout list hello", "rollout list hello -o wide"])]
    List(List),
    /// Show a rollout and its steps
    #[command(after_help = examples!["rollout get hello 4", "rollout get hello 4 -o json"])]
    Get(Get),
}

/// Arguments of `rollout list`.
#[derive(Debug, Args)]
pub struct List {
    /// The name of the app
    app: String,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Arguments of `rollout get`.
#[derive(Debug, Args)]
pub struct Get {
    /// The name of the app
    app: String,
    /// The number of the rollout; the newest where it is not given
    rollout: Option<u64>,
}

/// Asks for a deploy and follows it.
pub(crate) async fn deploy(session: &mut Session<'_>, arguments: Deploy) -> Result {
    let Deploy { app, reference, wait } = arguments;
    let queued = session.client.app_deploy(&app, reference.as_deref()).await?;
    follow(session, &app, queued, &wait).await
}

/// Asks for a rollback and follows it.
pub(crate) async fn rollback(session: &mut Session<'_>, arguments: Rollback) -> Result {
    let Rollback { app, release, wait } = arguments;
    let queued = session.client.app_rollback(&app, release).await?;
    follow(session, &app, queued, &wait).await
}

/// Runs a command on rollouts.
pub(crate) async fn run(session: &mut Session<'_>, command: Command) -> Result {
    match command {
        Command::List(List { app, limit }) => {
            let now = session.now;
            let rollouts = session
                .list(limit, async |client, page| client.rollout_list(&app, page).await)
                .await?;
            session
                .output
                .show(&rollouts, |rollouts| table(&rollouts.items, now))
        }
        Command::Get(Get { app, rollout }) => get(session, &app, rollout).await,
    }
}

async fn get(session: &mut Session<'_>, app: &str, number: Option<u64>) -> Result {
    let number = match number {
        Some(number) => number,
        None => {
            let newest = session
                .list(Some(1), async |client, page| client.rollout_list(app, page).await)
                .await?;
            match newest.items.first() {
                Some(rollout) => rollout.rollout,
                None => return Err(Failure::Refused(format!("app `{app}` has no rollout"))),
            }
        }
    };
    let rollout = session.client.rollout_get(app, number).await?;
    if session.output.structured() {
        return session.output.show(&rollout, |_| String::new());
    }
    let mut failures = session
        .list(None, async |client, page| client.app_failures(app, page).await)
        .await?;
    failures.items.retain(|failure| failure.rollout == number);
    let (wide, color) = (session.output.wide(), session.output.color());
    session.output.show(&rollout, |rollout| {
        let mut text = view(&rollout.value, color);
        if !failures.items.is_empty() {
            text.push('\n');
            text.push_str(&failure_table(&failures.items).render(wide, color));
        }
        text
    })
}

/// The time between two looks at a rollout.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Follows a rollout to its end: a line for each step that it comes to, and on a terminal what it is at.
pub(crate) async fn follow(
    session: &mut Session<'_>,
    app: &str,
    queued: Stamped<Queued>,
    wait: &Wait,
) -> Result {
    let number = queued.value.rollout;
    if wait.no_wait {
        return session
            .output
            .done(&queued, |_| format!("{app}: rollout {number} is queued"));
    }
    session.output.message(&format!("{app}: rollout {number}"));
    let began = Instant::now();
    let mut seen = Seen::default();
    loop {
        match session
            .client
            .rollout_get(app, number)
            .await
            .map_err(Failure::from)
        {
            Ok(rollout) => {
                seen.tell(session, &rollout.value);
                seen.tell_failures(session, &rollout.value).await;
                if rollout.value.ended {
                    return ended(session, &rollout, began.elapsed());
                }
            }
            // The rollout goes on whoever watches it.
            Err(Failure::Unreachable(why)) => seen.tell_unreachable(session, &why),
            Err(failure) => return Err(failure),
        }
        if began.elapsed() > wait.wait {
            let step = seen.step.as_deref().unwrap_or("queued");
            let waited = wait.wait.as_secs();
            return Err(Failure::Unknown(format!(
                "rollout {number} of app `{app}` is at step {step} after {waited} s; it goes on by itself: see \
                 `onward rollout get {app} {number}`"
            )));
        }
        seen.draw(session, began.elapsed());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What of a rollout was told already.
#[derive(Default)]
struct Seen {
    passages: usize,
    failures: u32,
    step: Option<String>,
    unreachable: bool,
    frame: usize,
}

impl Seen {
    fn tell(&mut self, session: &mut Session<'_>, rollout: &Rollout) {
        self.unreachable = false;
        for passage in rollout.trail.iter().skip(self.passages) {
            self.clear(session);
            session.output.message(&step_line(rollout, passage));
        }
        self.passages = self.passages.max(rollout.trail.len());
        self.step = Some(rollout.step.clone());
    }

    /// Tells of the attempts that failed since the last look and are followed by another.
    async fn tell_failures(&mut self, session: &mut Session<'_>, rollout: &Rollout) {
        if rollout.failures > self.failures && !rollout.ended {
            let failure = newest_failure(session, rollout).await;
            let why = failure.map(|failure| format!(": {}", printable(&failure.reason)));
            let next = rollout
                .next_attempt_at
                .map(|at| format!("; the next one is at {}", exact(at)));
            let (why, next) = (why.unwrap_or_default(), next.unwrap_or_default());
            self.clear(session);
            session
                .output
                .message(&format!("  attempt {} failed{why}{next}", rollout.failures));
        }
        self.failures = rollout.failures;
    }

    fn tell_unreachable(&mut self, session: &mut Session<'_>, why: &str) {
        if !self.unreachable {
            self.clear(session);
            session
                .output
                .message(&format!("  {why}; the rollout goes on, still watching"));
        }
        self.unreachable = true;
    }

    fn draw(&mut self, session: &mut Session<'_>, elapsed: Duration) {
        const FRAMES: [&str; 4] = ["-", "\\", "|", "/"];
        if session.output.animated() {
            let step = self.step.as_deref().unwrap_or("queued");
            let frame = FRAMES[self.frame % FRAMES.len()];
            session
                .output
                .redraw(&format!("  {frame} {step} ({:.1} s)", elapsed.as_secs_f64()));
            self.frame += 1;
        }
    }

    fn clear(&self, session: &mut Session<'_>) {
        if session.output.animated() {
            session.output.redraw("");
        }
    }
}

/// Why the last attempt of a rollout failed, as far as that can be read now.
async fn newest_failure(session: &Session<'_>, rollout: &Rollout) -> Option<Failed> {
    let page = Paging {
        limit: Some(1),
        cursor: None,
    };
    let failures = session.client.app_failures(&rollout.app, page).await.ok()?;
    let mut failures = failures.value.items.into_iter();
    failures.find(|failure| failure.rollout == rollout.rollout)
}

/// `  building   build 3 of 1a2b3c4d5e, node 1`
fn step_line(rollout: &Rollout, passage: &Passage) -> String {
    let mut about = Vec::new();
    match passage.step.as_str() {
        "building" => {
            about.extend(rollout.build.map(|build| format!("build {build}")));
            about.extend(
                rollout
                    .commit
                    .as_deref()
                    .map(|commit| format!("commit {}", short(commit))),
            );
        }
        "starting" | "checking" | "switching" | "draining" => {
            about.extend(rollout.release.map(|release| format!("release {release}")));
            about.extend(rollout.instance.map(|instance| format!("instance {instance}")));
        }
        _ => {}
    }
    about.extend(passage.node.map(|node| format!("node {node}")));
    if passage.attempt > 1 {
        about.push(format!("attempt {}", passage.attempt));
    }
    format!("  {:<11} {}", passage.step, about.join(", "))
        .trim_end()
        .to_owned()
}

fn ended(session: &mut Session<'_>, rollout: &Stamped<Rollout>, elapsed: Duration) -> Result {
    if session.output.animated() {
        session.output.redraw("");
    }
    let Rollout {
        app,
        rollout: number,
        step,
        reason,
        ..
    } = &rollout.value;
    let result = if step == "done" {
        Ok(())
    } else {
        let why = reason.as_deref().unwrap_or("no reason was recorded");
        Err(Failure::Refused(format!(
            "rollout {number} of app `{app}` {step}: {why}"
        )))
    };
    if session.output.structured() {
        session.output.show(rollout, |_| String::new())?;
    } else if result.is_ok() {
        let serving = match (rollout.value.release, rollout.value.commit.as_deref()) {
            (Some(release), Some(commit)) => format!("release {release} serves, commit {}", short(commit)),
            (Some(release), None) => format!("release {release} serves"),
            (None, _) => "done".to_owned(),
        };
        session
            .output
            .message(&format!("{app}: {serving} ({:.1} s)", elapsed.as_secs_f64()));
    }
    result
}

fn step_cell(rollout: &Rollout) -> Cell {
    let tone = match rollout.step.as_str() {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        "superseded" => Tone::Dim,
        _ => Tone::Fair,
    };
    Cell::toned(&rollout.step, tone)
}

fn what(kind: &Kind) -> String {
    match kind {
        Kind::Deploy { reference } => format!("deploy {reference}"),
        Kind::Rollback {} => "rollback".to_owned(),
        Kind::Restart { .. } => "restart".to_owned(),
    }
}

fn table(rollouts: &[Rollout], now: Time) -> Table {
    let mut table = Table::new(
        &[
            "ROLLOUT", "WHAT", "STEP", "RELEASE", "COMMIT", "FAILURES", "ASKED",
        ],
        &["NODE", "ATTEMPT", "BY", "REASON", "MODIFIED"],
    );
    for rollout in rollouts {
        table.push(vec![
            Cell::from(rollout.rollout),
            Cell::from(what(&rollout.what)),
            step_cell(rollout),
            Cell::maybe(rollout.release),
            Cell::maybe(rollout.commit.as_deref().map(short)),
            Cell::from(rollout.failures),
            Cell::from(age(rollout.requested_at, now)),
            Cell::maybe(rollout.node),
            Cell::from(rollout.attempt),
            Cell::from(&rollout.requested_by),
            Cell::maybe(rollout.reason.as_ref()),
            Cell::from(rollout.modified),
        ]);
    }
    table
}

fn view(rollout: &Rollout, color: bool) -> String {
    let details = Details::default()
        .field("app", &rollout.app)
        .field("rollout", rollout.rollout)
        .field("what", what(&rollout.what))
        .field("step", step_cell(rollout))
        .field("commit", Cell::maybe(rollout.commit.as_ref()))
        .field("build", Cell::maybe(rollout.build))
        .field("release", Cell::maybe(rollout.release))
        .field("attempt", rollout.attempt)
        .field("failures", rollout.failures)
        .field(
            "next attempt",
            Cell::maybe(rollout.next_attempt_at.filter(|_| !rollout.ended).map(exact)),
        )
        .field("reason", Cell::maybe(rollout.reason.as_ref()))
        .field("asked by", &rollout.requested_by)
        .field("asked at", exact(rollout.requested_at));
    let mut steps = Table::new(&["STEP", "ATTEMPT", "NODE", "AT"], &[]);
    for passage in &rollout.trail {
        steps.push(vec![
            Cell::from(&passage.step),
            Cell::from(passage.attempt),
            Cell::maybe(passage.node),
            Cell::from(exact(passage.at)),
        ]);
    }
    format!("{}\n{}", details.render(color), steps.render(true, color))
}
