//! What the project promises, and whether it was measured so.

use super::page::in_percent;
use super::{Cell, Report};
use crate::disk::{Disk, Syncs};
use crate::growth::{Grown, Point};
use crate::load::Work;
use crate::system::Kind;

/// Restart with the keys of a full run must take less than this.
const RESTART_MS: u64 = 2000;
/// An idle node must use less than this, in thousandths of one core, and hold less than this.
const IDLE_PERMILLE: u64 = 10;
const IDLE_MIB: u64 = 64;
/// Of the peak, so much is left at four times the load.
const OVERLOAD_PERCENT: u64 = 80;
/// A wiped node must come back faster, and with the p99 of writes below so many times the quiet one.
const REJOIN_MIB_PER_SECOND: f64 = 100.0;
const REJOIN_P99_RATIO: f64 = 3.0;
/// There is a cliff where a rate falls below this part of the one before, though work grew ten times at most.
const CLIFF: f64 = 0.5;

/// Half of the syncs of a file that was written before take less than this part of what half of those of a growing file
/// take, and 99.9 % of them less than that part of what 99.9 % take.
const RECYCLED: f64 = 0.5;
const RECYCLED_TAIL: f64 = 0.1;

/// One promise.
pub(super) struct Bar {
    pub(super) what: String,
    pub(super) measured: String,
    pub(super) met: bool,
}

impl Bar {
    fn new(what: impl Into<String>, measured: impl Into<String>, met: bool) -> Bar {
        Bar {
            what: what.into(),
            measured: measured.into(),
            met,
        }
    }
}

/// All bars of what was measured.
pub(super) fn of(report: &Report) -> Vec<Bar> {
    let mut bars = Vec::new();
    if let Some(part) = &report.load {
        bars.extend(load(&part.found));
    }
    if let Some(part) = &report.growth {
        bars.extend(growth(&part.found));
    }
    let disks = report.disk.iter().map(|part| &part.found);
    bars.extend(disks.flat_map(Disk::recycled_beside_growing).flat_map(recycled));
    bars.extend(standing(report));
    if let Some(part) = &report.overload {
        let (left, away, lost) = (part.found.left_percent(), part.found.turned_away, part.found.lost);
        bars.push(Bar::new(
            format!(
                "at four times the load, {OVERLOAD_PERCENT} % of the peak; the rest is turned away, and nothing acknowledged is lost"
            ),
            format!("{left} %, {away}/s turned away, {lost} lost"),
            left >= OVERLOAD_PERCENT && away > 0 && lost == 0,
        ));
    }
    let handovers = report.handover.iter().flat_map(|part| &part.found);
    for handover in handovers {
        if let Some(bar) = handover.bar_ms {
            let took = handover.median_ms();
            bars.push(Bar::new(
                format!(
                    "{}: writes stand still for less than {bar} ms, and none fails",
                    handover.what
                ),
                format!("{took} ms, {} failed", handover.failed),
                took < bar && handover.failed == 0,
            ));
        }
    }
    bars
}

/// Ours beside etcd with as many connections.
fn load(cells: &[Cell]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for cell in cells.iter().filter(|cell| cell.kind.is_ours()) {
        let alike = |cell: &Cell| (cell.kind.shares(), cell.work, cell.nodes, cell.clients);
        let peer = cells
            .iter()
            .find(|other| !other.kind.is_ours() && alike(other) == alike(cell));
        if let Some(peer) = peer {
            bars.extend(beside(cell, peer));
        }
    }
    bars
}

fn beside(cell: &Cell, peer: &Cell) -> Vec<Bar> {
    let (us, them) = (&cell.load, &peer.load);
    let (nodes, clients, unit) = (cell.nodes, cell.clients, cell.work.unit());
    let what = match cell.work {
        Work::Put => "single puts",
        Work::Batch => "batches",
        Work::ReadLeader => "reads from the leader",
        Work::ReadFollowers => "reads from followers",
    };
    let over = if cell.kind.shares() {
        " over shared connections"
    } else {
        ""
    };
    let case = format!(
        "{nodes} node{}, {clients} client{}{over}, {what}",
        plural(nodes),
        plural(clients)
    );
    let bar = |name: String, measured: String, ratio: f64, met: bool| {
        Bar::new(
            format!("{case}: {name}"),
            format!("{measured} ({ratio:.2}x)"),
            met,
        )
    };
    // The rate of one client alone is the latency of the disk and of two messages.
    let rate = us.rate() as f64 / them.rate().max(1) as f64;
    let wanted = if clients == 1 || nodes == 1 { 1.0 } else { 2.0 };
    let mut bars = vec![bar(
        format!("at least {wanted}x etcd's rate"),
        format!("{}/s beside {} {unit}/s", us.rate(), them.rate()),
        rate,
        rate >= wanted,
    )];
    if cell.work == Work::Put && nodes > 1 {
        if clients >= 64 {
            let ratio = us.p99_ms / them.p99_ms.max(0.001);
            bars.push(bar(
                "at most half its p99".to_owned(),
                format!("{:.2} ms beside {:.2} ms", us.p99_ms, them.p99_ms),
                ratio,
                ratio <= 0.5,
            ));
        }
        let ratio = us.cpu_us / them.cpu_us.max(0.001);
        bars.push(bar(
            "at most half its CPU for each".to_owned(),
            format!("{:.0} us beside {:.0} us", us.cpu_us, them.cpu_us),
            ratio,
            ratio <= 0.5,
        ));
    }
    bars
}

/// No cliff: from one size to the next, the rate falls by no more than the work of each write grows.
fn growth(points: &[Point]) -> Vec<Bar> {
    let names = [
        (Grown::Keys, "10 times the keys stored"),
        (Grown::Nodes, "one more node"),
        (Grown::ValueBytes, "values 10 times as long"),
    ];
    let mut bars = Vec::new();
    for (grown, what) in names {
        let ours: Vec<&Point> = points
            .iter()
            .filter(|point| point.kind == Kind::Onward && point.grown == grown)
            .collect();
        // What counts of long values is how many of their bytes a second are written.
        let rate = |point: &Point| {
            let each = if grown == Grown::ValueBytes { point.at } else { 1 };
            (point.load.rate() * each) as f64
        };
        let steepest = ours
            .windows(2)
            .map(|pair| rate(pair[1]) / rate(pair[0]).max(1.0))
            .min_by(f64::total_cmp);
        if let Some(steepest) = steepest {
            let unit = if grown == Grown::ValueBytes {
                "bytes a second"
            } else {
                "puts a second"
            };
            bars.push(Bar::new(
                format!("no cliff: with {what}, more than {CLIFF} of the {unit}"),
                format!("{steepest:.2} at the steepest step"),
                steepest > CLIFF,
            ));
        }
    }
    bars
}

/// A file that was written before, as the log's are, beside one that grows.
fn recycled((recycled, growing): (&Syncs, &Syncs)) -> [Bar; 2] {
    let company = if recycled.others_write {
        "while others write"
    } else {
        "alone"
    };
    let bar = |what: &str, ours: u64, theirs: u64, most: f64| {
        let ratio = ours as f64 / theirs.max(1) as f64;
        Bar::new(
            format!("a sync of a file written before, {company}: {what} less than {most} of a growing one's"),
            format!("{ours} us beside {theirs} us ({ratio:.2}x)"),
            ratio < most,
        )
    };
    [
        bar("half of them in", recycled.p50_us, growing.p50_us, RECYCLED),
        bar("99.9 % in", recycled.p999_us, growing.p999_us, RECYCLED_TAIL),
    ]
}

/// Restart, return, rest.
fn standing(report: &Report) -> Vec<Bar> {
    let mut bars = Vec::new();
    let restarts = report.restart.iter().flat_map(|part| &part.found);
    if let Some(slowest) = restarts.max_by_key(|restart| restart.ready_after_ms) {
        let ms = slowest.ready_after_ms;
        bars.push(Bar::new(
            format!("restart with {} keys in under {RESTART_MS} ms", slowest.keys),
            format!("{ms} ms"),
            ms < RESTART_MS,
        ));
    }
    if let Some(part) = &report.rejoin {
        let (speed, ratio) = (part.found.mib_per_second(), part.found.p99_ratio());
        bars.push(Bar::new(
            format!("a wiped node back by snapshot at more than {REJOIN_MIB_PER_SECOND} MiB/s"),
            format!("{speed:.0} MiB/s"),
            speed > REJOIN_MIB_PER_SECOND,
        ));
        bars.push(Bar::new(
            format!("meanwhile, the p99 of writes below {REJOIN_P99_RATIO} times the quiet one"),
            format!("{ratio:.2}x"),
            ratio < REJOIN_P99_RATIO,
        ));
    }
    let mut idle = report.rest.iter().flat_map(|part| &part.found);
    if let Some(ours) = idle.find(|idle| idle.kind == Kind::Onward) {
        let most = ours.permille.iter().copied().max().unwrap_or(0);
        bars.push(Bar::new(
            format!("an idle node under {} of one core", in_percent(IDLE_PERMILLE)),
            in_percent(most),
            most < IDLE_PERMILLE,
        ));
        let most = ours.resident_mib.iter().copied().max().unwrap_or(0);
        bars.push(Bar::new(
            format!("an idle node under {IDLE_MIB} MiB"),
            format!("{most} MiB"),
            most < IDLE_MIB,
        ));
    }
    bars
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
