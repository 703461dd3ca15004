//! The plots of cost as work grows.

use super::Report;
use crate::figure::{Figure, Ink, Line, Panel, Spread, short};
use crate::growth::{CLIENTS, Grown, KEYS_NODES, NODES, Point};
use crate::load::VALUE_BYTES;
use crate::system::Kind;
use std::collections::BTreeSet;

/// What is plotted, in the order of the page.
pub(super) const ALL: [Grown; 3] = [Grown::Keys, Grown::Nodes, Grown::ValueBytes];

/// The name of its file.
pub(super) fn file(grown: Grown) -> &'static str {
    match grown {
        Grown::Keys => "keys.svg",
        Grown::Nodes => "nodes.svg",
        Grown::ValueBytes => "values.svg",
    }
}

/// Each plot that there is data for, with the name of its file.
pub(super) fn svgs(report: &Report) -> Vec<(&'static str, String)> {
    let Some(growth) = &report.growth else {
        return Vec::new();
    };
    ALL.into_iter()
        .filter_map(|grown| Some((file(grown), figure(&growth.found, grown)?.svg())))
        .collect()
}

/// A size as it stands at the axis and in the table.
pub(super) fn size(grown: Grown, at: u64) -> String {
    match grown {
        Grown::Nodes => at.to_string(),
        Grown::Keys => short(at as f64),
        Grown::ValueBytes if at >= 1000 => format!("{} KB", short(at as f64 / 1000.0)),
        Grown::ValueBytes => format!("{at} B"),
    }
}

fn figure(points: &[Point], grown: Grown) -> Option<Figure> {
    let points: Vec<&Point> = points.iter().filter(|point| point.grown == grown).collect();
    let sizes: BTreeSet<u64> = points.iter().map(|point| point.at).collect();
    if sizes.is_empty() {
        return None;
    }
    let (what, x_label, x_spread) = match grown {
        Grown::Keys => (
            format!(
                "{KEYS_NODES} node, {CLIENTS} clients, {VALUE_BYTES}-byte values: more and more keys stored"
            ),
            "keys stored (logarithmic)",
            Spread::Log,
        ),
        Grown::Nodes => (
            format!("{CLIENTS} clients, {VALUE_BYTES}-byte values: more and more nodes, on one machine"),
            "nodes",
            Spread::Linear,
        ),
        Grown::ValueBytes => (
            format!("{NODES} nodes, {CLIENTS} clients: longer and longer values"),
            "value size (logarithmic)",
            Spread::Log,
        ),
    };
    // From small values to large ones, rates and latencies differ by powers of ten.
    let (y_spread, note) = if grown == Grown::ValueBytes {
        (Spread::Log, " (logarithmic)")
    } else {
        (Spread::Linear, "")
    };
    let mut panels = vec![
        Panel {
            title: format!("durable puts a second{note}"),
            spread: y_spread,
            lines: lines(&points, &[("", false, |point| point.load.rate() as f64)]),
        },
        Panel {
            title: format!("latency, ms{note}: p50 solid, p99 dashed"),
            spread: y_spread,
            lines: lines(
                &points,
                &[
                    ("p50", false, |point| point.load.p50_ms),
                    ("p99", true, |point| point.load.p99_ms),
                ],
            ),
        },
    ];
    if grown == Grown::Keys {
        panels.push(Panel {
            title: "memory of the node, MiB".to_owned(),
            spread: y_spread,
            lines: lines(&points, &[("", false, |point| point.resident_mib as f64)]),
        });
    }
    Some(Figure {
        title: what,
        x_label: x_label.to_owned(),
        x_spread,
        x_ticks: sizes.into_iter().map(|at| (at as f64, size(grown, at))).collect(),
        panels,
    })
}

/// What a line shows: its name besides the system's, whether it is dashed, and what is read.
type Reading<'a> = (&'a str, bool, fn(&Point) -> f64);

/// A line of each system for each reading.
fn lines(points: &[&Point], readings: &[Reading<'_>]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (kind, system, ink) in [
        (Kind::Onward, "onward", Ink::A),
        (Kind::EtcdShared, "etcd", Ink::B),
    ] {
        for (name, dashed, read) in readings {
            let of_kind = points.iter().filter(|point| point.kind == kind);
            lines.push(Line {
                name: format!("{system} {name}").trim_end().to_owned(),
                ink,
                dashed: *dashed,
                points: of_kind.map(|point| (point.at as f64, read(point))).collect(),
            });
        }
    }
    lines.retain(|line| !line.points.is_empty());
    lines
}
