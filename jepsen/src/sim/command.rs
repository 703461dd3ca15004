//! `onward-jepsen sim`: seed after seed, and a report of those that fail.

use super::{Ran, run};
use crate::history;
use crate::verdict::Finding;
use anyhow::Context;
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What to simulate.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many seeds
    #[arg(long, default_value_t = 200, conflicts_with = "seed")]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    pub start: u64,
    /// Only this one
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write everything that happens to this file; of several seeds, of the first that fails
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write what clients asked and were told to this file, of the same seed as the trace
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// How many seeds at a time; each takes one thread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub jobs: u64,
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<u64>,
    ops: usize,
    answered: usize,
    simulated: Duration,
    struck: BTreeMap<&'static str, u64>,
}

impl Total {
    fn add(&mut self, ran: &Ran) {
        self.seeds += 1;
        self.ops += ran.ops;
        self.answered += ran.answered;
        self.simulated += ran.simulated;
        for (kind, count) in &ran.struck {
            *self.struck.entry(kind.name()).or_default() += count;
        }
        if ran.finding() != Finding::Pass {
            self.failed.push(ran.plan.seed);
        }
    }
}

impl Options {
    /// Runs all seeds, and prints what they come to.
    ///
    /// # Errors
    /// Where the output or the trace cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (first, count) = match self.seed {
            Some(seed) => (seed, 1),
            None => (self.start, self.seeds),
        };
        let began = Instant::now();
        let total = Mutex::new(Total::default());
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(count) {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Relaxed);
                        if place >= count {
                            return;
                        }
                        let ran = run(first + place, self.seed.is_some() && self.trace.is_some());
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        total.add(&ran);
                        if ran.finding() != Finding::Pass {
                            // A report that cannot be printed is a failure all the same.
                            drop(report(&ran));
                        }
                        if self.seed.is_some()
                            && let Err(error) = self.write(&ran)
                        {
                            drop(writeln!(std::io::stderr(), "{error:#}"));
                        }
                    }
                });
            }
        });
        let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.seed.is_none() && (self.trace.is_some() || self.history.is_some());
        if let Some(seed) = total.failed.iter().min().filter(|_| wanted) {
            let again = std::thread::scope(|scope| scope.spawn(|| run(*seed, true)).join());
            self.write(&again.map_err(|_| anyhow::anyhow!("seed {seed} broke the simulation"))?)?;
        }
        summary(&total, began.elapsed())?;
        Ok(if total.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Writes the trace and the history of a seed, where they are wanted.
    fn write(&self, ran: &Ran) -> anyhow::Result<()> {
        if let Some(path) = &self.trace {
            fs::write(path, ran.trace.join("\n") + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.history {
            history::write(path, &ran.history)?;
        }
        Ok(())
    }
}

/// Prints what a seed shows that fails, and how to see it again.
fn report(ran: &Ran) -> std::io::Result<()> {
    let out = &mut std::io::stdout().lock();
    let seed = ran.plan.seed;
    writeln!(out, "seed {seed} fails")?;
    for verdict in &ran.verdicts {
        let undecided = match verdict.finding {
            Finding::Pass => continue,
            Finding::Unknown => "undecided: ",
            Finding::Fail => "",
        };
        writeln!(
            out,
            "  {undecided}{:?} {}: {}",
            verdict.kind, verdict.check, verdict.summary
        )?;
    }
    let faults: Vec<&str> = ran.plan.faults.iter().map(|kind| kind.name()).collect();
    writeln!(out, "  {} machines; {}", ran.plan.machines, faults.join(", "))?;
    writeln!(
        out,
        "  again: onward-jepsen sim --seed {seed} --trace sim-{seed}.trace"
    )
}

fn summary(total: &Total, took: Duration) -> std::io::Result<()> {
    let out = &mut std::io::stdout().lock();
    let struck: Vec<String> = total
        .struck
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    writeln!(
        out,
        "{} seeds in {:.1} s: {:.0} simulated minutes, {} operations, {} answered",
        total.seeds,
        took.as_secs_f64(),
        total.simulated.as_secs_f64() / 60.0,
        total.ops,
        total.answered
    )?;
    writeln!(out, "faults: {}", struck.join(", "))?;
    if total.failed.is_empty() {
        writeln!(out, "nothing was found wrong")
    } else {
        let mut failed = total.failed.clone();
        failed.sort_unstable();
        let failed: Vec<String> = failed.iter().map(u64::to_string).collect();
        writeln!(
            out,
            "{} of {} seeds fail: {}",
            failed.len(),
            total.seeds,
            failed.join(" ")
        )
    }
}
