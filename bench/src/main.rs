//! `make bench`: durable writes, restart and rest, of ours and of etcd, in one run on one machine.
//!
//! Each round starts one system on an empty directory, loads it with each number of clients, and stops it, so that only
//! one system runs at a time and both meet the same machine in turn.

mod client;
mod handover;
mod load;
mod machine;
mod overload;
mod report;
mod standing;
mod system;

use anyhow::{Context, Result, bail};
use clap::Parser;
use load::{Load, Sample};
use report::{Cell, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use system::{Kind, Programs, System};

/// Measures durable writes beside etcd, restart with many keys, and nodes at rest.
#[derive(Debug, Parser)]
struct Options {
    /// The `onward` program, a release build
    #[arg(long, value_name = "FILE")]
    onward: PathBuf,
    /// The `etcd` program; looked for on the PATH without
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Where the systems keep their data while they run: on the disk to measure
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Put the report between the markers of this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Measure one system only
    #[arg(long, value_name = "SYSTEM")]
    only: Option<Kind>,
    /// Measure only how long writes stand still when another node leads
    #[arg(long)]
    handover: bool,
    /// Measure only what is left of the peak at four times the load
    #[arg(long, conflicts_with = "handover")]
    overload: bool,
    /// A minute instead of ten; shows that it runs, compares nothing
    #[arg(long)]
    quick: bool,
}

/// How much is done.
struct Plan {
    rounds: u32,
    sizes: &'static [usize],
    clients: &'static [usize],
    warm_up: Duration,
    measured: Duration,
    keys: u64,
    rest: Duration,
    handovers: u32,
    overload: bool,
}

const FULL: Plan = Plan {
    rounds: 3,
    sizes: &[1, 3],
    clients: &[1, 16, 64, 256],
    warm_up: Duration::from_secs(1),
    measured: Duration::from_secs(5),
    keys: 1_000_000,
    rest: Duration::from_secs(20),
    handovers: 20,
    overload: true,
};

const QUICK: Plan = Plan {
    rounds: 1,
    clients: &[1, 64],
    warm_up: Duration::from_millis(500),
    measured: Duration::from_secs(2),
    keys: 50_000,
    rest: Duration::from_secs(5),
    handovers: 3,
    ..FULL
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let options = Options::parse();
    let programs = Programs {
        onward: options.onward.clone(),
        etcd: options.etcd.clone().or_else(|| on_path("etcd")),
    };
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.context("no directory for the data")?;
    let mut plan = if options.quick { QUICK } else { FULL };
    let mut kinds = vec![Kind::Onward, Kind::Etcd, Kind::EtcdShared];
    if options.overload {
        (plan.sizes, plan.keys, plan.handovers) = (&[], 0, 0);
        kinds.truncate(1);
    }
    if options.handover {
        plan.overload = false;
        plan.sizes = &[];
        plan.keys = 0;
        kinds.truncate(1);
    }
    kinds.retain(|kind| options.only.is_none_or(|only| only == *kind));
    if programs.etcd.is_none() {
        progress(format_args!(
            "etcd is not installed (Debian: etcd-server): measuring ours alone"
        ));
        kinds.retain(|kind| *kind == Kind::Onward);
    }
    let report = tokio::select! {
        report = measure(&plan, &kinds, &programs, dir.path()) => report?,
        // What was started is stopped as the measurement is dropped.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    let text = Report {
        quick: options.quick,
        ..report
    }
    .markdown();
    std::io::stdout().write_all(text.as_bytes())?;
    if let Some(path) = &options.write {
        machine::write_between_markers(path, &text)?;
    }
    Ok(())
}

async fn measure(plan: &Plan, kinds: &[Kind], programs: &Programs, dir: &Path) -> Result<Report> {
    let mut report = Report {
        facts: facts(programs, dir)?,
        ..Report::default()
    };
    for nodes in plan.sizes {
        let mut cells = Vec::new();
        for clients in plan.clients {
            for kind in kinds {
                let sample = Sample::default();
                cells.push(Cell {
                    kind: *kind,
                    nodes: *nodes,
                    clients: *clients,
                    sample,
                });
            }
        }
        for round in 0..plan.rounds {
            for kind in kinds {
                let dir = dir.join(format!("{kind:?}-{nodes}-{round}"));
                write_round(plan, round, *kind, *nodes, programs, &dir, &mut cells).await?;
                std::fs::remove_dir_all(&dir)?;
            }
        }
        report.cells.extend(cells);
    }
    if kinds.contains(&Kind::Onward) && plan.overload {
        progress(format_args!("three nodes with more than they take"));
        let overload = overload::measure(programs, &dir.join("overload"), plan.measured).await?;
        report.overload = Some(overload);
    }
    if kinds.contains(&Kind::Onward) && plan.handovers > 0 {
        report.handovers = handover::measure(programs, &dir.join("handover"), plan.handovers).await?;
    }
    // Nothing but handovers is asked for.
    if plan.keys == 0 {
        return Ok(report);
    }
    for kind in kinds.iter().filter(|kind| **kind != Kind::EtcdShared) {
        let system = System::start(*kind, 3, programs, &dir.join(format!("{kind:?}-rest"))).await?;
        progress(format_args!(
            "{}: 3 nodes at rest for {:?}",
            kind.name(),
            plan.rest
        ));
        report.idle.push(standing::rest(&system, plan.rest).await?);
    }
    if kinds.contains(&Kind::Onward) {
        report.restarts = standing::restarts(programs, &dir.join("restart"), plan.keys).await?;
    }
    Ok(report)
}

/// Starts one system, loads it with each number of clients, stops it.
async fn write_round(
    plan: &Plan,
    round: u32,
    kind: Kind,
    nodes: usize,
    programs: &Programs,
    dir: &Path,
    cells: &mut [Cell],
) -> Result<()> {
    let system = System::start(kind, nodes, programs, dir).await?;
    for cell in cells.iter_mut().filter(|cell| cell.kind == kind) {
        let load = Load {
            clients: cell.clients,
            warm_up: plan.warm_up,
            measured: plan.measured,
        };
        let sample = load::run(&system, load, round).await;
        let sample = sample.with_context(|| {
            let log = system.last_words();
            format!(
                "{} with {} clients; its nodes logged last:\n{log}\n",
                kind.name(),
                cell.clients
            )
        })?;
        progress(format_args!(
            "round {} of {}: {} nodes of {}, {} clients: {} writes/s, p50 {:.2} ms, p99 {:.2} ms",
            round + 1,
            plan.rounds,
            nodes,
            kind.name(),
            cell.clients,
            sample.rate(),
            sample.latency_ms(500),
            sample.latency_ms(990),
        ));
        cell.sample.add(sample);
    }
    Ok(())
}

fn facts(programs: &Programs, dir: &Path) -> Result<Vec<(&'static str, String)>> {
    let commit = first_line_of(Command::new("git").args(["describe", "--always", "--dirty"]));
    let mut facts = vec![
        (
            "date",
            chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
        ),
        ("machine", machine::describe()?),
        ("disk", machine::describe_disk(dir)?),
        (
            "onward",
            format!(
                "{}, commit {commit}",
                first_line_of(Command::new(&programs.onward).arg("--version"))
            ),
        ),
    ];
    if let Some(etcd) = &programs.etcd {
        facts.push(("etcd", first_line_of(Command::new(etcd).arg("--version"))));
    }
    Ok(facts)
}

fn first_line_of(command: &mut Command) -> String {
    let output = command.output().ok();
    let line =
        output.and_then(|output| Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned()));
    line.unwrap_or_else(|| "unknown".to_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn progress(arguments: std::fmt::Arguments<'_>) {
    eprintln!("bench: {arguments}");
}
