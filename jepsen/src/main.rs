//! `onward-jepsen`: runs a workload under faults and judges what came of it.

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use onward_jepsen::nemesis::Kind;
use onward_jepsen::net::Isolation;
use onward_jepsen::run::{self, Directory, Options, Ran};
use onward_jepsen::verdict::{Finding, overall};
use onward_jepsen::{judge, matrix, print, report, workload};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Fault testing of Onward: real processes, real faults, and a judgement.
///
/// Exits with 0 where all that was promised was seen to hold, and with 1 otherwise: also where it could not be told.
#[derive(Debug, Parser)]
#[command(name = "onward-jepsen", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Demand,
}

const EXAMPLES: &str = "Examples:
  onward-jepsen run --workload register --nemesis kill,partition --nodes 3 --time 30 --seed 7
  onward-jepsen run --workload bank --nodes 5 --binary target/release/onward
  onward-jepsen matrix --smoke --dir jepsen/store/smoke
  onward-jepsen check jepsen/store/20260101T120000.000-register-kill-7
  onward-jepsen workloads";

#[derive(Debug, Subcommand)]
enum Demand {
    /// Runs a workload under faults, and judges it
    #[command(
        after_help = "Example:\n  onward-jepsen run --workload register --nemesis kill,partition --seed 7"
    )]
    Run(Run),
    /// Judges an earlier run again, from what it left behind
    #[command(after_help = "Example:\n  onward-jepsen check jepsen/store/RUN")]
    Check {
        /// The directory of the run
        dir: PathBuf,
    },
    /// Writes the page of a run again, or of all runs in a directory with an index
    #[command(after_help = "Examples:
  onward-jepsen report jepsen/store/RUN
  onward-jepsen report jepsen/store")]
    Report {
        /// The directory of a run, or a directory of such
        dir: PathBuf,
    },
    /// Runs many combinations of workloads and faults, and judges them all; goes on where an earlier one broke off
    #[command(after_help = "Examples:
  onward-jepsen matrix --smoke --dir jepsen/store/smoke
  onward-jepsen matrix --nightly --time 60 --dir jepsen/store/nightly --markdown matrix.md")]
    Matrix(Box<Matrix>),
    /// Plants bugs in the nodes, one by one, and hunts for each
    #[cfg(feature = "mutants")]
    Mutants(onward_jepsen::mutants::Options),
    /// Runs whole sites in simulated time, each from one seed
    #[cfg(feature = "simulation")]
    #[command(after_help = "Examples:
  onward-jepsen sim --seeds 1000
  onward-jepsen sim --seed 7 --trace sim-7.trace")]
    Sim(onward_jepsen::sim::Options),
    /// Lists the workloads
    Workloads,
    /// Lists the nemeses
    Nemeses,
}

#[derive(Debug, Args)]
struct Run {
    /// What clients ask; `onward-jepsen workloads` lists them
    #[arg(long)]
    workload: String,
    /// What is done to the cluster meanwhile, comma-separated; `onward-jepsen nemeses` lists it, `random` draws two or
    /// three
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    nemesis: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
    /// How long clients and faults go on together, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "S")]
    time: u64,
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Cluster {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// How many clients
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// How many operations a second, all clients together; the workload's own without it
    #[arg(long)]
    rate: Option<f64>,
    /// The binary under test; the `onward` beside this program without it
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The binary that nodes are upgraded to and back from, for the nemesis `rolling`
    #[arg(long, value_name = "BINARY")]
    other_binary: Option<PathBuf>,
    /// How nodes are kept apart; the best that this machine allows without it
    #[arg(long)]
    isolation: Option<Apart>,
    /// Where runs are kept
    #[arg(long, default_value = "jepsen/store")]
    dir: PathBuf,
}

/// As [`Isolation`], for the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Apart {
    /// Each in a network namespace of its own; takes root
    Namespaces,
    /// All on loopback; some faults cannot be made
    Loopback,
}

impl Cluster {
    fn isolation(&self) -> Isolation {
        match self.isolation {
            Some(Apart::Namespaces) => Isolation::Namespaces,
            Some(Apart::Loopback) => Isolation::Loopback,
            None => {
                let (isolation, obstacle) = Isolation::best();
                if let Some(obstacle) = obstacle {
                    eprintln!(
                        "nodes share one network, and faults that need their own are not made: {obstacle}"
                    );
                }
                isolation
            }
        }
    }
}

impl Cluster {
    fn binary(&self) -> anyhow::Result<PathBuf> {
        match &self.binary {
            Some(binary) => Ok(binary.clone()),
            None => {
                let own = std::env::current_exe().context("cannot find this program's own file")?;
                Ok(own.with_file_name("onward"))
            }
        }
    }
}

#[derive(Debug, Args)]
struct Matrix {
    /// Three runs of 30 s
    #[arg(long, required_unless_present = "nightly")]
    smoke: bool,
    /// Every workload under nine compositions of faults, 60 s each
    #[arg(long, conflicts_with = "smoke")]
    nightly: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// How long each run goes on, in seconds, instead
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "S")]
    time: Option<u64>,
    /// What the first run is drawn from; the next ones from the numbers that follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only every N-th run, beginning with the K-th: for processes or machines that share a matrix; once they are through,
    /// the same command without it makes the table of all
    #[arg(long, value_name = "K/N")]
    shard: Option<matrix::Shard>,
    /// Writes the table as Markdown, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Cluster {
    fn options(&self, seconds: u64, seed: u64) -> anyhow::Result<Options> {
        Ok(Options {
            workload: String::new(),
            nemeses: Vec::new(),
            nodes: self.nodes,
            time: Duration::from_secs(seconds),
            seed,
            binary: self.binary()?,
            other_binary: self.other_binary.clone(),
            isolation: self.isolation(),
            dir: self.dir.clone(),
            name: None,
            clients: self.clients,
            rate: self.rate,
        })
    }
}

impl Run {
    fn options(self) -> anyhow::Result<Options> {
        let mut nemeses = self.nemesis;
        nemeses.retain(|name| name != "none");
        Ok(Options {
            workload: self.workload,
            nemeses,
            ..self.cluster.options(self.time, self.seed)?
        })
    }
}

impl Matrix {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let (mut combinations, seconds) = if self.nightly {
            (matrix::nightly(self.seed), 60)
        } else {
            (matrix::smoke(self.seed), 30)
        };
        if let Some(shard) = self.shard {
            combinations = shard.share(combinations);
        }
        let base = self.cluster.options(self.time.unwrap_or(seconds), self.seed)?;
        std::fs::create_dir_all(&base.dir)?;
        print::matrix_head();
        let rows = matrix::run(&base, &combinations, print::matrix_row).await?;
        let page = report::matrix::write(&base.dir)?;
        if let Some(path) = &self.markdown {
            std::fs::copy(base.dir.join("matrix.md"), path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let worst = rows.iter().map(|row| row.overall).max();
        print::matrix_end(&rows, &page);
        Ok(exit(worst.unwrap_or(Finding::Unknown)))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    #[cfg(feature = "mutants")]
    onward_jepsen::mutants::plant()?;
    match Cli::parse().command {
        Demand::Run(run) => {
            let ran = unless_told(run::run(&run.options()?)).await?;
            tell(&ran)
        }
        Demand::Check { dir } => {
            let directory = Directory::open(&dir)?;
            let verdicts = judge::judge(&directory);
            directory.save_verdicts(&verdicts)?;
            tell(&Ran { directory, verdicts })
        }
        Demand::Report { dir } => {
            print::path(&report::write(&dir)?);
            Ok(ExitCode::SUCCESS)
        }
        Demand::Matrix(matrix) => unless_told(matrix.run()).await,
        #[cfg(feature = "mutants")]
        Demand::Mutants(options) => {
            print::hunt_head();
            let all = options.hunt(print::hunted)?;
            Ok(ExitCode::from(u8::from(!all)))
        }
        #[cfg(feature = "simulation")]
        Demand::Sim(options) => options.run(),
        Demand::Workloads => {
            print::workloads(workload::NAMES);
            Ok(ExitCode::SUCCESS)
        }
        Demand::Nemeses => {
            let all = Kind::ALL.map(|kind| (kind.name(), kind.about()));
            print::workloads(&all);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Goes on until this program is told to stop. What is dropped with a run takes its processes, its network and its
/// mounts along.
async fn unless_told<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("asked to stop"),
    }
}

/// Writes the page of a judged run, and says what came of it.
fn tell(ran: &Ran) -> anyhow::Result<ExitCode> {
    let page = report::write(ran.directory.path())?;
    print::verdicts(ran, &page);
    Ok(exit(overall(&ran.verdicts)))
}

fn exit(finding: Finding) -> ExitCode {
    match finding {
        Finding::Pass => ExitCode::SUCCESS,
        Finding::Unknown | Finding::Fail => ExitCode::FAILURE,
    }
}
