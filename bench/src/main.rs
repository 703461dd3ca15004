//! `make bench`: durable writes, restart and rest, of ours and of etcd, in one run on one machine.
//!
//! Each round starts one system on an empty directory, loads it with each number of clients, and stops it, so that only
//! one system runs at a time and both meet the same machine in turn.

mod client;
mod grpc;
mod handover;
mod load;
mod machine;
mod overload;
mod report;
mod standing;
mod system;

use anyhow::{Context, Result, bail};
use clap::Parser;
use load::{Load, Sample, Work};
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
    /// Measure clusters of these sizes alone
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "write")]
    nodes: Vec<usize>,
    /// Measure so many clients alone
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "write")]
    clients: Vec<usize>,
    /// Measure this work alone
    #[arg(
        long,
        value_name = "WORK,WORK",
        value_delimiter = ',',
        conflicts_with = "write"
    )]
    work: Vec<Work>,
}

impl Options {
    /// What is asked for; a part of it leaves restart and rest out.
    fn plan(&self) -> Plan {
        let mut plan = if self.quick { Plan::quick() } else { Plan::full() };
        if !self.nodes.is_empty() {
            plan.sizes.clone_from(&self.nodes);
        }
        if !self.clients.is_empty() {
            for (_, clients) in &mut plan.work {
                clients.clone_from(&self.clients);
            }
        }
        if !self.work.is_empty() {
            plan.work.retain(|(work, _)| self.work.contains(work));
        }
        let parts = !(self.nodes.is_empty() && self.clients.is_empty() && self.work.is_empty());
        if self.handover || self.overload {
            plan.sizes.clear();
        }
        if parts || self.handover || self.overload {
            plan.standing = None;
            plan.overload = self.overload;
            plan.handovers = if self.handover { plan.handovers } else { 0 };
        }
        plan
    }
}

/// How much is done.
struct Plan {
    rounds: u32,
    sizes: Vec<usize>,
    /// What clients ask for, and how many of them.
    work: Vec<(Work, Vec<usize>)>,
    warm_up: Duration,
    measured: Duration,
    /// What is measured besides writes.
    standing: Option<Standing>,
    /// How often leadership changes, in each way.
    handovers: u32,
    overload: bool,
}

/// A node that starts with many keys, and nodes that do nothing.
#[derive(Clone, Copy)]
struct Standing {
    keys: u64,
    rest: Duration,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            rounds: 3,
            sizes: vec![1, 3],
            work: vec![
                (Work::Put, vec![1, 16, 64, 256, 1000]),
                (Work::Batch, vec![1, 16, 64]),
                (Work::ReadLeader, vec![64, 256]),
                (Work::ReadFollowers, vec![64, 256]),
            ],
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(5),
            standing: Some(Standing {
                keys: 1_000_000,
                rest: Duration::from_secs(20),
            }),
            handovers: 20,
            overload: true,
        }
    }

    fn quick() -> Plan {
        Plan {
            rounds: 1,
            sizes: vec![1, 3],
            work: vec![
                (Work::Put, vec![1, 64]),
                (Work::Batch, vec![16]),
                (Work::ReadLeader, vec![64]),
                (Work::ReadFollowers, vec![64]),
            ],
            warm_up: Duration::from_millis(500),
            measured: Duration::from_secs(2),
            standing: Some(Standing {
                keys: 50_000,
                rest: Duration::from_secs(5),
            }),
            handovers: 3,
            overload: true,
        }
    }
}

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
    let plan = options.plan();
    let mut kinds = vec![Kind::Onward, Kind::Etcd, Kind::EtcdShared];
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
    for nodes in &plan.sizes {
        let mut cells = Vec::new();
        for (work, clients) in &plan.work {
            // One node has no followers, and does everything by itself.
            if *nodes == 1 && *work != Work::Put {
                continue;
            }
            for clients in clients {
                cells.extend(kinds.iter().map(|kind| Cell {
                    kind: *kind,
                    work: *work,
                    nodes: *nodes,
                    clients: *clients,
                    sample: Sample::default(),
                }));
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
    let Some(standing) = plan.standing else {
        return Ok(report);
    };
    for kind in kinds.iter().filter(|kind| **kind != Kind::EtcdShared) {
        let system = System::start(*kind, 3, programs, &dir.join(format!("{kind:?}-rest"))).await?;
        progress(format_args!(
            "{}: 3 nodes at rest for {:?}",
            kind.name(),
            standing.rest
        ));
        report.idle.push(standing::rest(&system, standing.rest).await?);
    }
    if kinds.contains(&Kind::Onward) {
        report.restarts = standing::restarts(programs, &dir.join("restart"), standing.keys).await?;
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
            work: cell.work,
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
            "round {} of {}: {} nodes of {}, {} clients: {} {}/s, p50 {:.2} ms, p99 {:.2} ms, {:.1} us",
            round + 1,
            plan.rounds,
            nodes,
            kind.name(),
            cell.clients,
            sample.rate(),
            cell.work.unit(),
            sample.latency_ms(500),
            sample.latency_ms(990),
            sample.cpu_us(),
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
