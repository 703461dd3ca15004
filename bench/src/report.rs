//! The report: what was measured, on what, and which bars were met. Markdown, for docs/benchmarks.md.

use crate::handover::Handover;
use crate::load::{Sample, VALUE_BYTES};
use crate::overload::Overload;
use crate::standing::{Idle, Restart};
use crate::system::Kind;
use std::fmt::Write;
use std::time::Duration;

/// Restart with the keys of a full run must take less than this.
const RESTART_BAR_MS: u128 = 2000;
/// An idle node must use less than this, in thousandths of one core.
const IDLE_BAR_PERMILLE: u64 = 30;
/// Of the peak, so much is left at four times the load.
const OVERLOAD_BAR_PERCENT: u64 = 80;
/// At this many clients onward must not be slower than etcd.
const BAR_CLIENTS: usize = 64;

/// One row of the table of writes.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Who was measured.
    pub kind: Kind,
    /// How many nodes it had.
    pub nodes: usize,
    /// How many clients wrote.
    pub clients: usize,
    /// What came of it, over all rounds.
    pub sample: Sample,
}

/// All that a run measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Facts about the run: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// Durable writes.
    pub cells: Vec<Cell>,
    /// Restarts of one node of ours with many keys.
    pub restarts: Vec<Restart>,
    /// Nodes at rest.
    pub idle: Vec<Idle>,
    /// Changes of who leads.
    pub handovers: Vec<Handover>,
    /// More than it can take.
    pub overload: Option<Overload>,
    /// Whether the run was shortened, so that its numbers say little.
    pub quick: bool,
}

impl Report {
    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from("\n");
        if self.quick {
            text.push_str("**A quick run (`make bench QUICK=1`): too short to compare anything.**\n\n");
        }
        for (name, value) in &self.facts {
            line(&mut text, format_args!("- {name}: {value}"));
        }
        if !self.cells.is_empty() {
            self.writes(&mut text);
        }
        self.restarts(&mut text);
        self.rest(&mut text);
        self.handovers(&mut text);
        self.overload(&mut text);
        self.bars(&mut text);
        text.push('\n');
        text
    }

    fn writes(&self, text: &mut String) {
        line(
            text,
            format_args!("\n### Durable writes of {VALUE_BYTES} bytes\n"),
        );
        line(
            text,
            format_args!(
                "| nodes | clients | system | writes/s | of each round | p50 ms | p99 ms | server CPU us/write |"
            ),
        );
        line(text, format_args!("|--:|--:|---|--:|--:|--:|--:|--:|"));
        for Cell {
            kind,
            nodes,
            clients,
            sample,
        } in &self.cells
        {
            let rates: Vec<String> = sample.rates.iter().map(u64::to_string).collect();
            line(
                text,
                format_args!(
                    "| {nodes} | {clients} | {} | {} | {} | {:.2} | {:.2} | {} |",
                    kind.name(),
                    sample.rate(),
                    rates.join(" "),
                    sample.latency_ms(500),
                    sample.latency_ms(990),
                    sample.cpu_us_per_write(),
                ),
            );
        }
    }

    fn restarts(&self, text: &mut String) {
        if self.restarts.is_empty() {
            return;
        }
        line(text, format_args!("\n### Restart of one node\n"));
        line(
            text,
            format_args!("| keys | stopped by | ready after | memory |\n|--:|---|--:|--:|"),
        );
        for Restart {
            keys,
            stopped_by,
            ready_after,
            resident_mib,
        } in &self.restarts
        {
            let ms = ready_after.as_millis();
            line(
                text,
                format_args!("| {keys} | {stopped_by} | {ms} ms | {resident_mib} MiB |"),
            );
        }
    }

    fn handovers(&self, text: &mut String) {
        if self.handovers.is_empty() {
            return;
        }
        line(
            text,
            format_args!("\n### Another node leads, three nodes, 16 writers\n"),
        );
        line(
            text,
            format_args!(
                "| what happens | times | writes stand still, median | longest | failed writes |\n|---|--:|--:|--:|--:|"
            ),
        );
        for handover in &self.handovers {
            let Handover {
                what, still, failed, ..
            } = handover;
            line(
                text,
                format_args!(
                    "| {what} | {} | {} ms | {} ms | {failed} |",
                    still.len(),
                    median(still).as_millis(),
                    still.last().copied().unwrap_or_default().as_millis()
                ),
            );
        }
    }

    fn overload(&self, text: &mut String) {
        let Some(overload) = &self.overload else { return };
        line(
            text,
            format_args!("\n### Four times the load of the peak, three nodes\n"),
        );
        line(
            text,
            format_args!(
                "| peak | offered | acknowledged | of the peak | turned away | acknowledged and lost |\n|--:|--:|--:|--:|--:|--:|"
            ),
        );
        let Overload {
            peak,
            offered,
            acknowledged,
            turned_away,
            lost,
        } = overload;
        let left = overload.left_percent();
        line(
            text,
            format_args!(
                "| {peak}/s | {offered}/s | {acknowledged}/s | {left} % | {turned_away}/s | {lost} |"
            ),
        );
    }

    fn rest(&self, text: &mut String) {
        if self.idle.is_empty() {
            return;
        }
        line(text, format_args!("\n### Three nodes at rest\n"));
        line(
            text,
            format_args!("| system | CPU of one core, each node | memory, each node |\n|---|--:|--:|"),
        );
        for Idle {
            kind,
            permille,
            resident_mib,
        } in &self.idle
        {
            let percent: Vec<String> = permille.iter().map(|permille| in_percent(*permille)).collect();
            let mib: Vec<String> = resident_mib.iter().map(|mib| format!("{mib} MiB")).collect();
            line(
                text,
                format_args!(
                    "| {} | {} | {} |",
                    kind.name(),
                    percent.join(", "),
                    mib.join(", ")
                ),
            );
        }
    }

    fn bars(&self, text: &mut String) {
        line(
            text,
            format_args!("\n### Bars\n\n| bar | measured | |\n|---|---|---|"),
        );
        for nodes in [1, 3] {
            let best = |of_ours: bool| {
                let wanted = |cell: &&Cell| {
                    (cell.kind == Kind::Onward, cell.nodes, cell.clients) == (of_ours, nodes, BAR_CLIENTS)
                };
                self.cells
                    .iter()
                    .filter(wanted)
                    .map(|cell| cell.sample.rate())
                    .max()
            };
            if let (Some(ours), Some(theirs)) = (best(true), best(false)) {
                let met = verdict(ours >= theirs);
                let bar = format!(
                    "{nodes} node{}, {BAR_CLIENTS} clients: not slower than etcd",
                    plural(nodes)
                );
                line(
                    text,
                    format_args!("| {bar} | {ours}/s beside {theirs}/s | {met} |"),
                );
            }
        }
        if let Some(slowest) = self.restarts.iter().max_by_key(|restart| restart.ready_after) {
            let ms = slowest.ready_after.as_millis();
            let bar = format!("restart with {} keys in under {RESTART_BAR_MS} ms", slowest.keys);
            line(
                text,
                format_args!("| {bar} | {ms} ms | {} |", verdict(ms < RESTART_BAR_MS)),
            );
        }
        if let Some(overload) = &self.overload {
            let left = overload.left_percent();
            let met = verdict(left >= OVERLOAD_BAR_PERCENT && overload.lost == 0);
            let bar = format!(
                "at four times the load, {OVERLOAD_BAR_PERCENT} % of the peak, and nothing acknowledged is lost"
            );
            let lost = overload.lost;
            line(text, format_args!("| {bar} | {left} %, {lost} lost | {met} |"));
        }
        for handover in &self.handovers {
            if let Some(bar) = handover.bar {
                let (took, bar) = (median(&handover.still).as_millis(), bar.as_millis());
                let met = verdict(took < bar && handover.failed == 0);
                let what = handover.what;
                line(
                    text,
                    format_args!(
                        "| {what}: writes stand still for less than {bar} ms, and none fails | {took} ms | {met} |"
                    ),
                );
            }
        }
        if let Some(ours) = self.idle.iter().find(|idle| idle.kind == Kind::Onward) {
            let most = ours.permille.iter().copied().max().unwrap_or(0);
            let bar = format!("an idle node under {} of one core", in_percent(IDLE_BAR_PERMILLE));
            line(
                text,
                format_args!(
                    "| {bar} | {} | {} |",
                    in_percent(most),
                    verdict(most < IDLE_BAR_PERMILLE)
                ),
            );
        }
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes all that is written to it");
}

/// Of times in order of length.
fn median(times: &[Duration]) -> Duration {
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**not met**" }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn in_percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}
