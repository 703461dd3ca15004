//! One run: a cluster, clients and faults together, then all healed, every node read, and a judgement.
//!
//! Whatever goes wrong with the harness itself ends in a verdict of its own kind, never in a pass.

mod directory;
mod load;
mod recorder;

pub use directory::{Directory, RunFile};
pub use recorder::{Recorder, Tally};

use crate::client::{Client, Target};
use crate::cluster::{self, Cluster};
use crate::final_state::{Finals, HARNESS, PAIRS};
use crate::history::StageName;
use crate::judge;
use crate::nemesis::{self, Campaign, Kind, Plan};
use crate::net::Isolation;
use crate::verdict::{Finding, Verdict, overall};
use crate::workload::{self, Workload};
use anyhow::{Context, bail, ensure};
use load::{Load, Phase};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the first write may take on a cluster that just started.
const SETUP_PATIENCE: Duration = Duration::from_secs(30);
/// How long clients go on after the healing, at the most: long past what a verdict forgives.
const HEAL_PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// What clients ask.
    pub workload: String,
    /// What is done to the cluster meanwhile; none for nothing.
    pub nemeses: Vec<String>,
    /// How many nodes.
    pub nodes: u64,
    /// How long clients and faults go on together.
    pub time: Duration,
    /// What everything is drawn from.
    pub seed: u64,
    /// The binary under test.
    pub binary: PathBuf,
    /// The one that nodes are upgraded to and back from, where that is among the nemeses.
    pub other_binary: Option<PathBuf>,
    /// How nodes are kept apart.
    pub isolation: Isolation,
    /// Where runs are kept, each in a directory of its own.
    pub dir: PathBuf,
    /// What that directory is called; by the time of day where it is missing.
    pub name: Option<String>,
    /// How many clients.
    pub clients: u64,
    /// How many operations a second; the workload's own where it is missing.
    pub rate: Option<f64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    /// Where everything is.
    pub directory: Directory,
    /// The judgement.
    pub verdicts: Vec<Verdict>,
}

/// Runs and judges.
///
/// # Errors
/// Where there is no such workload or nemesis, or not even a directory for the run could be made. Everything else is a
/// verdict.
pub async fn run(options: &Options) -> anyhow::Result<Ran> {
    let kinds = kinds(options)?;
    let options = &Options {
        nemeses: kinds.iter().map(|kind| kind.name().to_owned()).collect(),
        ..options.clone()
    };
    let directory = Directory::create(options)?;
    let workload: Arc<dyn Workload> = Arc::from(workload::named(&options.workload, directory.path())?);
    let driven = drive(options, &kinds, &directory, workload).await;
    let failure = driven.err().map(|error| format!("{error:#}"));
    directory.finish(failure)?;
    let verdicts = judge::judge(&directory);
    directory.save_verdicts(&verdicts)?;
    if overall(&verdicts) == Finding::Pass {
        directory.drop_data()?;
    }
    Ok(Ran { directory, verdicts })
}

fn kinds(options: &Options) -> anyhow::Result<Vec<Kind>> {
    let other_binary = options.other_binary.is_some();
    nemesis::named(&options.nemeses, options.seed, options.isolation, other_binary)
        .map_err(anyhow::Error::msg)
}

async fn drive(
    options: &Options,
    kinds: &[Kind],
    directory: &Directory,
    workload: Arc<dyn Workload>,
) -> anyhow::Result<()> {
    for kind in kinds {
        if let Some(obstacle) = kind.obstacle(options.isolation, options.other_binary.is_some()) {
            bail!("{obstacle}");
        }
    }
    let plan = nemesis::plan(kinds, options.seed, options.time);
    directory.save_plan(&plan)?;
    let recorder = Arc::new(Recorder::create(directory.path())?);
    let cluster = Cluster::start(cluster::Options {
        binary: options.binary.clone(),
        other_binary: options.other_binary.clone(),
        nodes: options.nodes,
        dir: directory.nodes(),
        isolation: options.isolation,
        fittings: nemesis::fittings(kinds, options.seed),
    })
    .await?;
    let nodes: Arc<[Target]> = cluster.nodes().iter().map(Target::from).collect();
    let (phases, phase) = watch::channel(Phase::Roam);
    let load = Load {
        rate: options.rate.unwrap_or(workload.operations_per_second()),
        workload: Arc::clone(&workload),
        nodes: Arc::clone(&nodes),
        recorder: Arc::clone(&recorder),
        phase,
        clients: options.clients,
        seed: options.seed,
    };
    let mut campaign = Campaign::new(&cluster, &recorder);
    let staged = stages(options, &load, &phases, &mut campaign, &plan).await;
    if !kinds.is_empty() {
        campaign.outcome().save(directory.path())?;
    }
    let finals = match staged {
        Ok(()) => {
            recorder.stage(StageName::FinalReads);
            let paths: Vec<&str> = [&[PAIRS], workload.final_reads()].concat();
            Finals::read(&nodes, &paths).await
        }
        Err(error) => Err(error),
    };
    // Whatever came before, the history is brought to its end and no process is left.
    if finals.is_ok() {
        recorder.stage(StageName::End);
    }
    let finished = recorder.finish();
    drop(cluster);
    finals?.save(directory.path())?;
    finished
}

/// Everything that clients take part in.
async fn stages(
    options: &Options,
    load: &Load,
    phases: &watch::Sender<Phase>,
    campaign: &mut Campaign<'_>,
    plan: &Plan,
) -> anyhow::Result<()> {
    let Load {
        workload, recorder, ..
    } = load;
    recorder.stage(StageName::Setup);
    set_up(&**workload, &load.nodes).await?;
    recorder.stage(StageName::Faults);
    let mut clients = load.start();
    let deadline = Instant::now() + options.time;
    let time = async {
        while Instant::now() < deadline {
            tokio::time::sleep(TICK).await;
            progress(recorder, "faults", deadline);
        }
    };
    tokio::join!(campaign.run(plan), time);
    campaign.heal_all().await;
    recorder.stage(StageName::Heal);
    phases.send_replace(Phase::Home);
    let deadline = Instant::now() + HEAL_PATIENCE;
    while Instant::now() < deadline && !recovered(&recorder.tally(), &load.nodes, &**workload) {
        tokio::time::sleep(TICK).await;
        progress(recorder, "heal", deadline);
    }
    phases.send_replace(Phase::Stop);
    while let Some(ended) = clients.join_next().await {
        ended.context("a client broke")??;
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    Ok(())
}

async fn set_up(workload: &dyn Workload, nodes: &Arc<[Target]>) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETUP_PATIENCE;
    let mut client = Client::new(Arc::clone(nodes), 0, HARNESS)?;
    loop {
        match workload.setup(&mut client).await {
            Ok(()) => return Ok(()),
            Err(error) => ensure!(
                Instant::now() < deadline,
                "the workload could not be set up: {error:#}"
            ),
        }
        client.move_on();
        tokio::time::sleep(TICK).await;
    }
}

/// Whether every node served and every kind of operation took place in this stage.
fn recovered(tally: &Tally, nodes: &[Target], workload: &dyn Workload) -> bool {
    nodes.iter().all(|node| tally.nodes.contains_key(&node.id))
        && workload.kinds().iter().all(|kind| tally.kinds.contains_key(kind))
}

/// One line that is written over and over, for people only.
fn progress(recorder: &Recorder, stage: &str, deadline: Instant) {
    let mut err = std::io::stderr();
    if !err.is_terminal() {
        return;
    }
    let tally = recorder.tally();
    let left = deadline.saturating_duration_since(Instant::now()).as_secs();
    // A terminal that is gone is no reason to end a run.
    let _ = write!(
        err,
        "\r\x1b[K{stage}: {left} s left, {} operations, {} took place, {} faults {}",
        tally.ended, tally.ok, tally.faults, tally.last_fault
    );
    let _ = err.flush();
}
