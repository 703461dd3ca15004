//! One part after the other: each starts what it needs on an empty directory, and stops it.

use crate::load::{self, Keys, Load, Sample, Work};
use crate::plan::{Part, Plan};
use crate::report::{self, Cell, Report, Run};
use crate::system::{Kind, Programs, System};
use crate::{disk, growth, handover, machine, overload, progress, rejoin, standing};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// What is measured, of whom, and where.
pub struct Bench<'a> {
    /// How much.
    pub plan: &'a Plan,
    /// Whether that is too little to compare anything.
    pub quick: bool,
    /// Of whom.
    pub kinds: &'a [Kind],
    /// What to start.
    pub programs: &'a Programs,
    /// Where the systems keep their data.
    pub dir: &'a Path,
    /// What ours was built from.
    pub commit: &'a str,
}

impl Bench<'_> {
    /// Measures a part.
    pub async fn measure(&self, part: Part) -> Result<Report> {
        let mut report = Report::default();
        self.part(part, &mut report)
            .await
            .with_context(|| format!("measuring {part:?}"))?;
        Ok(report)
    }

    async fn part(&self, part: Part, report: &mut Report) -> Result<()> {
        if !self.kinds.contains(&Kind::Onward) && !matches!(part, Part::Load | Part::Growth | Part::Rest) {
            return Ok(());
        }
        let run = self.run()?;
        let (plan, programs) = (self.plan, self.programs);
        let dir = self.dir.join(format!("{part:?}"));
        std::fs::create_dir_all(&dir)?;
        match part {
            Part::Load => report.load = Some(of(run, self.load(&dir).await?)),
            Part::Growth => {
                let points = growth::measure(&plan.growth, self.kinds, programs, &dir).await?;
                report.growth = Some(of(run, points));
            }
            Part::Disk => {
                let disk = disk::measure(programs, &dir, plan.syncs, plan.measured).await?;
                report.disk = Some(of(run, disk));
            }
            Part::Overload => {
                progress(format_args!("three nodes with more than they take"));
                let overload = overload::measure(programs, &dir, plan.warm_up, plan.overload).await?;
                report.overload = Some(of(run, overload));
            }
            Part::Handover => {
                let handovers = handover::measure(programs, &dir, plan.handovers).await?;
                report.handover = Some(of(run, handovers));
            }
            Part::Rejoin => {
                let rejoin = rejoin::measure(
                    programs,
                    &dir,
                    plan.rejoin_keys,
                    plan.returns,
                    plan.rest / plan.returns,
                )
                .await?;
                report.rejoin = Some(of(run, rejoin));
            }
            Part::Rest => report.rest = Some(of(run, self.rest(&dir).await?)),
            Part::Restart => {
                let restarts = standing::restarts(programs, &dir, plan.restart_keys).await?;
                report.restart = Some(of(run, restarts));
            }
        }
        std::fs::remove_dir_all(&dir)?;
        Ok(())
    }

    /// Each round starts one system on an empty directory, loads it with each number of clients, and stops it, so that
    /// only one system runs at a time and all meet the same machine in turn.
    async fn load(&self, dir: &Path) -> Result<Vec<Cell>> {
        let mut all = Vec::new();
        for nodes in self.plan.nodes.iter().copied() {
            let mut cells = self.cells(nodes);
            for round in 0..self.plan.rounds {
                for kind in self.kinds.iter().copied() {
                    let dir = dir.join(format!("{kind:?}-{nodes}-{round}"));
                    self.round(round, kind, nodes, &dir, &mut cells).await?;
                    std::fs::remove_dir_all(&dir)?;
                }
            }
            all.extend(cells.into_iter().map(|(mut cell, sample)| {
                cell.load = sample.summary();
                cell
            }));
        }
        Ok(all)
    }

    fn cells(&self, nodes: usize) -> Vec<(Cell, Sample)> {
        let mut cells = Vec::new();
        for (work, clients) in &self.plan.work {
            // One node has no followers, and does everything by itself.
            if nodes == 1 && *work != Work::Put {
                continue;
            }
            for clients in clients {
                for kind in self.kinds {
                    let cell = Cell {
                        kind: *kind,
                        work: *work,
                        nodes,
                        clients: *clients,
                        load: load::Summary::default(),
                    };
                    cells.push((cell, Sample::default()));
                }
            }
        }
        cells
    }

    async fn round(
        &self,
        round: u32,
        kind: Kind,
        nodes: usize,
        dir: &Path,
        cells: &mut [(Cell, Sample)],
    ) -> Result<()> {
        let system = System::start(kind, nodes, self.programs, dir).await?;
        for (cell, all) in cells.iter_mut().filter(|(cell, _)| cell.kind == kind) {
            let load = Load {
                work: cell.work,
                clients: cell.clients,
                value_bytes: load::VALUE_BYTES,
                keys: Keys::New(round),
                warm_up: self.plan.warm_up,
                measured: self.plan.measured,
            };
            let sample = load::run(&system, load).await.with_context(|| {
                let (name, log) = (kind.name(), system.last_words());
                format!(
                    "{name} with {} clients; its nodes logged last:\n{log}\n",
                    cell.clients
                )
            })?;
            let found = sample.summary();
            progress(format_args!(
                "round {} of {}: {nodes} nodes of {}, {} clients: {} {}/s, p50 {:.2} ms, p99 {:.2} ms, {:.1} us",
                round + 1,
                self.plan.rounds,
                kind.name(),
                cell.clients,
                found.rate(),
                cell.work.unit(),
                found.p50_ms,
                found.p99_ms,
                found.cpu_us,
            ));
            all.add(sample);
        }
        Ok(())
    }

    async fn rest(&self, dir: &Path) -> Result<Vec<standing::Idle>> {
        let mut idle = Vec::new();
        for kind in self.kinds.iter().filter(|kind| !kind.shares()) {
            let system = System::start(*kind, 3, self.programs, &dir.join(format!("{kind:?}"))).await?;
            let rest = self.plan.rest;
            progress(format_args!("{}: 3 nodes at rest for {rest:?}", kind.name()));
            idle.push(standing::rest(&system, rest).await?);
        }
        Ok(idle)
    }

    /// What the part that begins now is measured on.
    fn run(&self) -> Result<Run> {
        let version = first_line_of(Command::new(&self.programs.onward).arg("--version"));
        let etcd = self.programs.etcd.as_ref();
        Ok(Run {
            date: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            machine: machine::describe()?,
            load_before: machine::load_average()?,
            file_system: machine::file_system(self.dir)?,
            onward: format!("{version}, commit {}", self.commit),
            etcd: etcd.map(|program| first_line_of(Command::new(program).arg("--version"))),
            quick: self.quick,
        })
    }
}

/// What is checked out here.
pub fn commit() -> String {
    first_line_of(Command::new("git").args(["describe", "--always", "--dirty"]))
}

fn of<T>(run: Run, found: T) -> report::Part<T> {
    report::Part { run, found }
}

fn first_line_of(command: &mut Command) -> String {
    let output = command.output().ok();
    let line =
        output.and_then(|output| Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned()));
    line.unwrap_or_else(|| "unknown".to_owned())
}
