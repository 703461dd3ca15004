//! `make bench`: what ours does beside etcd, in one run on one machine, and what it promises besides.

mod client;
mod disk;
mod figure;
mod fill;
mod growth;
mod grpc;
mod handover;
mod load;
mod machine;
mod measure;
mod metrics;
mod overload;
mod plan;
mod rejoin;
mod report;
mod standing;
mod system;
mod values;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use load::Work;
use measure::Bench;
use plan::{Part, Plan};
use report::Report;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use system::{Kind, Programs};

// The generator shares the cores with those whom it loads; with glibc's allocator it took a third of them at 36,000
// writers. It is one generator for all systems.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures what Onward does beside etcd, and what it promises besides
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    onward-bench --onward target/release/onward --only growth --write docs/benchmarks.md\n  \
    onward-bench --onward target/release/onward --nodes 3 --clients 64 --work put\n  \
    onward-bench --render docs/benchmarks.md")]
struct Options {
    /// The `onward` program, a release build
    #[arg(long, value_name = "FILE", required_unless_present = "render")]
    onward: Option<PathBuf>,
    /// The `etcd` program; looked for on the PATH without
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Where the systems keep their data while they run: on the disk to measure
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Renew the parts that were measured in the report of this page, and the data and plots beside it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Make the report of this page anew from the data beside it; measures nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["onward", "write"])]
    render: Option<PathBuf>,
    /// Measure these parts only
    #[arg(long, value_name = "PART,PART", value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure one system only
    #[arg(long, value_name = "SYSTEM", conflicts_with = "write")]
    system: Option<Kind>,
    /// A few minutes instead of forty; shows that it runs, compares nothing
    #[arg(long)]
    quick: bool,
    /// Of the load, measure clusters of these sizes alone
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with_all = ["write", "only"])]
    nodes: Vec<usize>,
    /// Of the load, measure so many clients alone
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with_all = ["write", "only"])]
    clients: Vec<usize>,
    /// Of the load, measure this work alone
    #[arg(long, value_name = "WORK,WORK", value_delimiter = ',', conflicts_with_all = ["write", "only"])]
    work: Vec<Work>,
}

impl Options {
    fn plan(&self) -> Plan {
        let mut plan = if self.quick { Plan::quick() } else { Plan::full() };
        if !self.nodes.is_empty() {
            plan.nodes.clone_from(&self.nodes);
        }
        if !self.clients.is_empty() {
            for (_, clients) in &mut plan.work {
                clients.clone_from(&self.clients);
            }
        }
        if !self.work.is_empty() {
            plan.work.retain(|(work, _)| self.work.contains(work));
        }
        plan
    }

    /// Everything, or what is named.
    fn parts(&self) -> Vec<Part> {
        if !(self.nodes.is_empty() && self.clients.is_empty() && self.work.is_empty()) {
            vec![Part::Load]
        } else if self.only.is_empty() {
            Part::value_variants().to_vec()
        } else {
            self.only.clone()
        }
    }

    fn programs(&self) -> Result<Programs> {
        Ok(Programs {
            onward: self.onward.clone().context("--onward: name the program")?,
            etcd: self.etcd.clone().or_else(|| on_path("etcd")),
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    if let Some(page) = &options.render {
        return Report::read(page)?.write(page);
    }
    let programs = options.programs()?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.context("no directory for the data")?;
    let mut kinds = match options.system {
        Some(only) => vec![only],
        None => vec![Kind::Onward, Kind::Etcd, Kind::OnwardShared, Kind::EtcdShared],
    };
    if programs.etcd.is_none() {
        progress(format_args!(
            "etcd is not installed (Debian: etcd-server): measuring ours alone"
        ));
        kinds.retain(|kind| kind.is_ours());
    }
    let (plan, parts) = (options.plan(), options.parts());
    let bench = Bench {
        plan: &plan,
        quick: options.quick,
        kinds: &kinds,
        programs: &programs,
        dir: dir.path(),
        commit: &measure::commit(),
    };
    let mut report = Report::default();
    for part in parts {
        let found = tokio::select! {
            found = bench.measure(part) => found?,
            // What was started is stopped as the measurement is dropped.
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        report.renew(found);
        // Part by part: what was measured stays where a later one fails.
        if let Some(page) = &options.write {
            let mut whole = Report::read(page)?;
            whole.renew(report.clone());
            whole.write(page)?;
        }
    }
    std::io::stdout().write_all(report.markdown("benchmarks").as_bytes())?;
    Ok(())
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
