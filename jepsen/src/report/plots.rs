//! The tracks below the lanes: how many operations a second came to which end, and how long they took.

use super::chart::{Chart, line_of, nice, outcome_class, percent, titled};
use super::html::{count, duration};
use crate::history::{Call, Outcome, TimeNs};
use std::collections::{BTreeMap, BTreeSet};

/// Up to so many operations of a kind are dots; more are quantiles over time.
const DOTS_MAX: usize = 3_000;
/// Stretches of time that quantiles are taken over.
const QUANTILE_STEPS: u64 = 240;
/// Most bars of throughput.
const RATE_STEPS: u64 = 600;
const RATE_PX: u32 = 90;
const LATENCY_PX: u32 = 96;

/// The value that a share of `sorted` does not exceed (nearest rank). `sorted` is not empty.
pub fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// How long a call took until its client knew or gave up.
pub fn took_ns(call: &Call) -> Option<u64> {
    let complete = call.complete.as_ref()?;
    Some(complete.time_ns.saturating_sub(call.invoke.time_ns))
}

/// Completed operations a second, stacked by outcome.
pub fn throughput(chart: &mut Chart<'_>) {
    let end_ns = chart.run.end_ns;
    let step_ns = nice(end_ns / RATE_STEPS).max(1_000_000_000).min(end_ns.max(1));
    let steps = end_ns.div_ceil(step_ns) as usize;
    let mut counts = vec![[0_usize; 3]; steps];
    for complete in chart.run.calls.iter().filter_map(|call| call.complete.as_ref()) {
        let step = (complete.time_ns / step_ns) as usize;
        counts[step.min(steps - 1)][complete.outcome as usize] += 1;
    }
    // The last step is usually cut short by the end of the run.
    let span_of = |step: usize| step_ns.min(end_ns - step as u64 * step_ns).max(1);
    let rate = |n: usize, step: usize| n as f64 * 1e9 / span_of(step).max(step_ns / 4) as f64;
    let most = counts
        .iter()
        .enumerate()
        .map(|(step, n)| rate(n.iter().sum(), step))
        .fold(1.0, f64::max);
    let top = chart.track("operations / s", RATE_PX);
    let grid_step = nice((most / 3.0).ceil() as u64);
    let full = (most.ceil() as u64).next_multiple_of(grid_step);
    for grid in (0..=full / grid_step).map(|line| line * grid_step) {
        let y = top + RATE_PX - (u64::from(RATE_PX) * grid / full) as u32;
        chart.label(y + 4, &count(grid as usize), "operations a second");
        chart.draw(&format!(
            "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>"
        ));
    }
    for (step, n) in counts.iter().enumerate() {
        let mut base = f64::from(top + RATE_PX);
        let from_ns = step as u64 * step_ns;
        for outcome in [Outcome::Ok, Outcome::Fail, Outcome::Info] {
            let rate = rate(n[outcome as usize], step);
            let height = rate / full as f64 * f64::from(RATE_PX);
            if height > 0.0 {
                base -= height;
                let class = outcome_class(outcome);
                chart.draw(&format!(
                    "<rect class=\"{class}\" x=\"{}\" y=\"{base:.1}\" width=\"{}\" height=\"{height:.1}\">{}</rect>",
                    chart.x(from_ns),
                    chart.width(from_ns, from_ns + span_of(step)),
                    titled(&format!("{rate:.0} {class} a second at {} s", from_ns / 1_000_000_000))
                ));
            }
        }
    }
}

/// A track for each kind of operation: how long each took, on a logarithmic scale.
pub fn latency(chart: &mut Chart<'_>) {
    let run = chart.run;
    let mut kinds: BTreeMap<&str, Vec<(&Call, u64)>> = BTreeMap::new();
    for call in &run.calls {
        if let Some(took) = took_ns(call) {
            kinds.entry(&call.invoke.f).or_default().push((call, took));
        }
    }
    let all = || kinds.values().flatten().map(|(_, took)| (*took).max(1));
    let (Some(least), Some(most)) = (all().min(), all().max()) else {
        return;
    };
    let scale = Scale {
        low: least.max(10_000).ilog10(),
        high: (most.max(100_000) - 1).ilog10() + 1,
    };
    for (kind, calls) in kinds {
        let top = chart.track(&format!("latency of {kind}"), LATENCY_PX);
        for decade in scale.low..=scale.high {
            let ns = 10_u64.pow(decade);
            let y = f64::from(top) + scale.y(ns);
            chart.label(y as u32 + 4, &unit(ns), "");
            chart.draw(&format!(
                "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            ));
        }
        if calls.len() <= DOTS_MAX {
            dots(chart, &calls, top, scale);
        } else {
            quantiles(chart, &calls, top, scale);
            let odd: Vec<(&Call, u64)> = calls
                .into_iter()
                .filter(|(call, _)| call.outcome() != Outcome::Ok || chart.offending.contains(&call.id))
                .collect();
            let kept = odd.len().div_ceil(DOTS_MAX).max(1);
            let sample: Vec<(&Call, u64)> = odd
                .into_iter()
                .enumerate()
                .filter(|(place, (call, _))| place.is_multiple_of(kept) || chart.offending.contains(&call.id))
                .map(|(_, call)| call)
                .collect();
            dots(chart, &sample, top, scale);
        }
    }
}

/// Decades of nanoseconds from the lower edge of a track to its upper.
#[derive(Clone, Copy)]
struct Scale {
    low: u32,
    high: u32,
}

impl Scale {
    /// Pixels below the track's upper edge.
    fn y(self, ns: u64) -> f64 {
        let share = ((ns.max(1) as f64).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        f64::from(LATENCY_PX) * (1.0 - share.clamp(0.0, 1.0))
    }
}

/// A power of ten of nanoseconds, without digits that say nothing.
fn unit(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{} s", ns / 1_000_000_000),
    }
}

fn dots(chart: &mut Chart<'_>, calls: &[(&Call, u64)], top: u32, scale: Scale) {
    for (call, took) in calls {
        let bad = chart.offending.contains(&call.id);
        chart.draw(&format!(
            "<circle class=\"{}{}\" cx=\"{}\" cy=\"{:.1}\" r=\"{}\">{}</circle>",
            outcome_class(call.outcome()),
            if bad { " bad" } else { "" },
            chart.x(call.invoke.time_ns),
            f64::from(top) + scale.y(*took),
            if bad { 4 } else { 2 },
            titled(&line_of(call))
        ));
    }
}

/// Lines for the median, the 99th percentile and the longest, over the operations that were ok.
fn quantiles(chart: &mut Chart<'_>, calls: &[(&Call, u64)], top: u32, scale: Scale) {
    let step_ns: TimeNs = chart.run.end_ns.div_ceil(QUANTILE_STEPS);
    let mut steps: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (call, took) in calls.iter().filter(|(call, _)| call.outcome() == Outcome::Ok) {
        steps
            .entry(call.invoke.time_ns / step_ns)
            .or_default()
            .push(*took);
    }
    for tooks in steps.values_mut() {
        tooks.sort_unstable();
    }
    for (class, share) in [("qmax", 1.0), ("q99", 0.99), ("q50", 0.5)] {
        let mut path = String::new();
        let mut before = None;
        for (step, tooks) in &steps {
            // A line is not drawn across a stretch in which nothing was ok.
            let pen = if before.is_some_and(|before| before + 1 == *step) {
                'L'
            } else {
                'M'
            };
            before = Some(*step);
            path += &format!("{pen}{} {:.1}h1", step, scale.y(quantile(tooks, share)));
        }
        chart.draw(&format!(
            "<svg x=\"0\" y=\"{top}\" width=\"100%\" height=\"{LATENCY_PX}\" viewBox=\"0 0 {QUANTILE_STEPS} {LATENCY_PX}\" \
             preserveAspectRatio=\"none\"><path class=\"line {class}\" d=\"{path}\"/></svg>"
        ));
    }
    let width = percent(1.0 / QUANTILE_STEPS as f64);
    let offsets: BTreeSet<u64> = steps.keys().copied().collect();
    for step in offsets {
        let tooks = &steps[&step];
        chart.draw(&format!(
            "<rect class=\"hover\" x=\"{}\" y=\"{top}\" width=\"{width}\" height=\"{LATENCY_PX}\">{}</rect>",
            chart.x(step * step_ns),
            titled(&format!(
                "{} ok: p50 {}, p99 {}, longest {}",
                count(tooks.len()),
                duration(quantile(tooks, 0.5)),
                duration(quantile(tooks, 0.99)),
                duration(quantile(tooks, 1.0))
            ))
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_nearest_rank() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(
            [0.0, 0.5, 0.99, 1.0].map(|share| quantile(&sorted, share)),
            [1, 50, 99, 100]
        );
        assert_eq!(quantile(&[7], 0.5), 7);
    }

    #[test]
    fn decades_have_short_names() {
        assert_eq!(
            [10_000, 1_000_000, 1_000_000_000].map(unit),
            ["10 µs", "1 ms", "1 s"]
        );
    }
}
