//! The report: what was measured, on what, and which bars were met. Markdown, for docs/benchmarks.md.

use crate::handover::Handover;
use crate::load::{BATCH_PUTS, Sample, VALUE_BYTES, Work};
use crate::overload::Overload;
use crate::standing::{Idle, Restart};
use crate::system::Kind;
use std::fmt::Write;
use std::time::Duration;

/// Restart with the keys of a full run must take less than this.
const RESTART_BAR_MS: u128 = 2000;
/// An idle node must use less than this, in thousandths of one core.
const IDLE_BAR_PERMILLE: u64 = 10;
/// Of the peak, so much is left at four times the load.
const OVERLOAD_BAR_PERCENT: u64 = 80;

/// One row of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Who was measured.
    pub kind: Kind,
    /// What its clients asked for.
    pub work: Work,
    /// How many nodes it had.
    pub nodes: usize,
    /// How many clients there were.
    pub clients: usize,
    /// What came of it, over all rounds.
    pub sample: Sample,
}

/// All that a run measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Facts about the run: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// Writes and reads under load.
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
        let writes = format!("Durable writes of {VALUE_BYTES} bytes");
        let batches = format!("Durable writes in transactions of {BATCH_PUTS}");
        self.table(&mut text, Work::Put, &writes);
        self.table(&mut text, Work::Batch, &batches);
        self.table(&mut text, Work::ReadLeader, "Linearizable reads, from the leader");
        self.table(
            &mut text,
            Work::ReadFollowers,
            "Linearizable reads, from the followers",
        );
        self.restarts(&mut text);
        self.rest(&mut text);
        self.handovers(&mut text);
        self.overload(&mut text);
        self.bars(&mut text);
        text.push('\n');
        text
    }

    fn table(&self, text: &mut String, work: Work, title: &str) {
        let mut cells = self.cells.iter().filter(|cell| cell.work == work).peekable();
        if cells.peek().is_none() {
            return;
        }
        let unit = work.unit();
        line(text, format_args!("\n### {title}\n"));
        line(
            text,
            format_args!(
                "| nodes | clients | system | {unit}/s | of each round | p50 ms | p99 ms | server CPU us each |"
            ),
        );
        line(text, format_args!("|--:|--:|---|--:|--:|--:|--:|--:|"));
        for cell in cells {
            let sample = &cell.sample;
            let rates: Vec<String> = sample.rates.iter().map(u64::to_string).collect();
            line(
                text,
                format_args!(
                    "| {} | {} | {} | {} | {} | {:.2} | {:.2} | {:.1} |",
                    cell.nodes,
                    cell.clients,
                    cell.kind.name(),
                    sample.rate(),
                    rates.join(" "),
                    sample.latency_ms(500),
                    sample.latency_ms(990),
                    sample.cpu_us(),
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

    /// Ours beside whichever way of using etcd is the better one.
    fn load_bars(&self, text: &mut String) {
        let ours = self.cells.iter().filter(|cell| cell.kind == Kind::Onward);
        for cell in ours {
            let same = |other: &&Cell| {
                other.kind != Kind::Onward
                    && (other.work, other.nodes, other.clients) == (cell.work, cell.nodes, cell.clients)
            };
            let Some(peer) = self
                .cells
                .iter()
                .filter(same)
                .max_by_key(|other| other.sample.rate())
            else {
                continue;
            };
            let (us, them) = (&cell.sample, &peer.sample);
            let (nodes, clients, unit) = (cell.nodes, cell.clients, cell.work.unit());
            let what = match cell.work {
                Work::Put => "single puts",
                Work::Batch => "batches",
                Work::ReadLeader => "reads from the leader",
                Work::ReadFollowers => "reads from followers",
            };
            let case = format!("{nodes} node{}, {clients} clients, {what}", plural(nodes));
            let mut bar = |name: &str, measured: String, ratio: f64, met: bool| {
                let met = verdict(met);
                line(
                    text,
                    format_args!("| {case}: {name} | {measured} ({ratio:.2}x) | {met} |"),
                );
            };
            // The rate of one client alone is the latency of the disk and of two messages.
            let rate = us.rate() as f64 / them.rate().max(1) as f64;
            let wanted = if clients == 1 || nodes == 1 { 1.0 } else { 2.0 };
            let name = format!("at least {wanted}x etcd's rate");
            bar(
                &name,
                format!("{}/s beside {} {unit}/s", us.rate(), them.rate()),
                rate,
                rate >= wanted,
            );
            if cell.work == Work::Put && nodes > 1 && clients >= 64 {
                let (ours, theirs) = (us.latency_ms(990), them.latency_ms(990));
                let ratio = ours / theirs.max(0.001);
                bar(
                    "at most half its p99",
                    format!("{ours:.2} ms beside {theirs:.2} ms"),
                    ratio,
                    ratio <= 0.5,
                );
            }
            if cell.work == Work::Put && nodes > 1 {
                let ratio = us.cpu_us() / them.cpu_us().max(0.001);
                let measured = format!("{:.0} us beside {:.0} us", us.cpu_us(), them.cpu_us());
                bar("at most half its CPU for each", measured, ratio, ratio <= 0.5);
            }
        }
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
        self.load_bars(text);
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
