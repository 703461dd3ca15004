//! The chart: tracks one below the other over one axis of time, in one SVG, so that what lies below each other
//! happened together. Times are percent of its width: widening the SVG zooms into time and leaves texts as they are.
//!
//! Limits: [`BARS_MAX`] bars and [`FAULTS_MAX`] faults are drawn. More operations share bars, more faults are counted
//! in the table only; the offending operations are always drawn, each by itself.

use super::html::{counted, duration, esc, seconds, short};
use super::lanes::{Bar, Lanes, bars};
use super::run::{Run, Span, plain};
use crate::history::{Call, Fault, Outcome, StageName, TimeNs};
use std::collections::BTreeSet;

/// Most bars of operations.
pub const BARS_MAX: usize = 20_000;
/// Most faults drawn.
pub const FAULTS_MAX: usize = 2_000;
/// The zooms that the page offers.
pub const ZOOMS: [u32; 4] = [1, 4, 16, 64];

const GUTTER_PX: u32 = 150;
const AXIS_PX: u32 = 34;

/// A chart under construction.
pub struct Chart<'a> {
    /// What it shows.
    pub run: &'a Run,
    /// The calls that a verdict points at.
    pub offending: BTreeSet<u64>,
    gutter: String,
    plot: String,
    height: u32,
}

/// The word and CSS class of an outcome.
pub fn outcome_class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Fail => "fail",
        Outcome::Info => "info",
    }
}

/// The name of a stage.
pub fn stage_name(stage: StageName) -> &'static str {
    match stage {
        StageName::Setup => "setup",
        StageName::Faults => "faults",
        StageName::Heal => "heal",
        StageName::FinalReads => "final reads",
        StageName::End => "end",
    }
}

/// A call in one line.
pub fn line_of(call: &Call) -> String {
    let mut line = format!(
        "#{} process {} asks node {}: {} {}",
        call.id,
        call.invoke.process,
        call.invoke.node,
        call.invoke.f,
        short(&call.invoke.value.to_string(), 120)
    );
    match &call.complete {
        None => line += " — never heard of again",
        Some(complete) => {
            line += &format!(" — {}", outcome_class(complete.outcome));
            if !complete.value.is_null() {
                line += &format!(" {}", short(&plain(&complete.value), 120));
            }
            if let Some(revision) = complete.revision {
                line += &format!(", revision {revision}");
            }
            if let Some(error) = &complete.error {
                line += &format!(", {}", short(error, 120));
            }
            let took = complete.time_ns.saturating_sub(call.invoke.time_ns);
            line += &format!(", after {}", duration(took));
        }
    }
    line + &format!(", at {} s", seconds(call.invoke.time_ns, 4))
}

impl<'a> Chart<'a> {
    /// An empty chart of a run.
    pub fn new(run: &'a Run) -> Chart<'a> {
        Chart {
            run,
            offending: run.offending(),
            gutter: String::new(),
            plot: String::new(),
            height: AXIS_PX,
        }
    }

    /// A moment as percent of the width.
    pub fn x(&self, ns: TimeNs) -> String {
        percent(ns as f64 / self.run.end_ns as f64)
    }

    /// The width of a stretch of time, in percent.
    pub fn width(&self, from_ns: TimeNs, to_ns: TimeNs) -> String {
        percent(to_ns.saturating_sub(from_ns) as f64 / self.run.end_ns as f64)
    }

    /// Room for a track with a heading; its upper edge in pixels.
    pub fn track(&mut self, heading: &str, height: u32) -> u32 {
        self.height += 8;
        self.gutter += &format!(
            "<text class=\"heading\" x=\"0\" y=\"{}\">{}</text>\n",
            self.height + 12,
            esc(heading)
        );
        let top = self.height + 24;
        self.height = top + height;
        top
    }

    /// A label in the gutter, at its right edge.
    pub fn label(&mut self, y: u32, text: &str, title: &str) {
        self.gutter += &format!(
            "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}{}</text>\n",
            GUTTER_PX - 6,
            esc(short(text, 22)),
            titled(title)
        );
    }

    /// Draws.
    pub fn draw(&mut self, svg: &str) {
        self.plot += svg;
        self.plot.push('\n');
    }

    /// A row for each nemesis: a bar for what lasted, a mark for what struck, each with its words.
    pub fn faults(&mut self) {
        let struck: Vec<String> = self.run.struck().into_iter().map(str::to_owned).collect();
        if struck.is_empty() {
            return;
        }
        let top = self.track("faults", 18 * struck.len() as u32);
        for (row, nemesis) in struck.iter().enumerate() {
            let y = top + 18 * row as u32;
            self.label(y + 12, nemesis, nemesis);
            let mine = self.run.spans.iter().filter(|span| &span.nemesis == nemesis);
            let spans: Vec<&Span> = mine.take(FAULTS_MAX).collect();
            for span in &spans {
                let svg = self.span(span, y, row);
                self.draw(&svg);
            }
            let mine = self.run.moments.iter().filter(|fault| &fault.nemesis == nemesis);
            let moments: Vec<&Fault> = mine.take(FAULTS_MAX).collect();
            for (place, fault) in moments.iter().enumerate() {
                let next = moments
                    .get(place + 1)
                    .map_or(self.run.end_ns, |next| next.time_ns);
                let svg = self.moment(fault, next, y, row);
                self.draw(&svg);
            }
        }
    }

    fn span(&self, span: &Span, y: u32, row: usize) -> String {
        let title = format!(
            "{}: {} (nodes {:?}), {} to {} s{}",
            span.nemesis,
            short(&span.what, 200),
            span.nodes,
            seconds(span.from_ns, 3),
            seconds(span.to_ns, 3),
            if span.ended { "" } else { ", never ended" }
        );
        format!(
            "<svg x=\"{}\" y=\"{y}\" width=\"{}\" height=\"15\"><rect class=\"{}\" width=\"100%\" height=\"15\"/>\
             <text x=\"3\" y=\"11\">{}</text>{}</svg>",
            self.x(span.from_ns),
            self.width(span.from_ns, span.to_ns),
            nemesis_class(row),
            esc(short(&span.what, 80)),
            titled(&title)
        )
    }

    fn moment(&self, fault: &Fault, next_ns: TimeNs, y: u32, row: usize) -> String {
        let title = format!(
            "{}: {} (nodes {:?}), at {} s",
            fault.nemesis,
            short(&fault.what, 200),
            fault.nodes,
            seconds(fault.time_ns, 3)
        );
        format!(
            "<svg x=\"{}\" y=\"{y}\" width=\"{}\" height=\"15\"><rect class=\"{}\" width=\"3\" height=\"15\"/>\
             <text x=\"6\" y=\"11\">{}</text>{}</svg>",
            self.x(fault.time_ns),
            self.width(fault.time_ns, next_ns),
            nemesis_class(row),
            esc(short(&fault.what, 80)),
            titled(&title)
        )
    }

    /// A lane for each client.
    pub fn lanes(&mut self) {
        let run = self.run;
        let lanes = Lanes::new(run);
        let bars = bars(run, &lanes, &self.offending, BARS_MAX);
        let pitch: u32 = match lanes.processes.len() {
            0..=24 => 14,
            25..=60 => 9,
            _ => 4,
        };
        let most = bars.iter().map(Bar::calls).max().unwrap_or_default();
        let heading = if most > 1 {
            format!("clients (up to {most} a bar)")
        } else {
            "clients".to_owned()
        };
        let top = self.track(&heading, pitch * lanes.processes.len() as u32);
        for (lane, processes) in lanes.processes.iter().enumerate() {
            if pitch >= 9 || lane.is_multiple_of(5) {
                let list: Vec<String> = processes.iter().map(u64::to_string).collect();
                let name = match processes.len() {
                    1 => format!("client {}", list[0]),
                    more => format!("client {} (+{})", list[0], more - 1),
                };
                let title = format!("processes {}", short(&list.join(", "), 200));
                self.label(top + pitch * lane as u32 + pitch.min(11), &name, &title);
            }
        }
        for outcome in [Outcome::Ok, Outcome::Fail, Outcome::Info] {
            for bar in bars.iter().filter(|bar| bar.outcome == outcome) {
                let svg = self.bar(bar, top, pitch);
                self.draw(&svg);
            }
        }
        let offending: Vec<&Call> = run
            .calls
            .iter()
            .filter(|call| self.offending.contains(&call.id))
            .collect();
        for call in offending {
            let y = top + pitch * lanes.of(call) as u32;
            self.draw(&format!(
                "<rect id=\"call-{}\" class=\"{} bad\" x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{}\">{}</rect>",
                call.id,
                outcome_class(call.outcome()),
                self.x(call.invoke.time_ns),
                self.width(call.invoke.time_ns, run.until(call)),
                pitch - 1,
                titled(&line_of(call))
            ));
        }
    }

    fn bar(&self, bar: &Bar, top: u32, pitch: u32) -> String {
        let title = if bar.calls() == 1 {
            line_of(&self.run.calls[bar.first])
        } else {
            let kinds: Vec<String> = bar.kinds.iter().map(|(f, n)| format!("{n} {f}")).collect();
            format!(
                "{} {}: {}, {} to {} s",
                counted(bar.calls(), "operation"),
                outcome_class(bar.outcome),
                kinds.join(", "),
                seconds(bar.from_ns, 3),
                seconds(bar.to_ns, 3)
            )
        };
        format!(
            "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\">{}</rect>",
            outcome_class(bar.outcome),
            self.x(bar.from_ns),
            top + pitch * bar.lane as u32,
            self.width(bar.from_ns, bar.to_ns),
            pitch - 1,
            titled(&title)
        )
    }

    /// The whole of it: the gutter stays, the plot scrolls.
    pub fn finish(mut self) -> String {
        self.height += 6;
        let (behind, ticks) = (self.behind(), self.ticks());
        let height = self.height;
        format!(
            "<div class=\"chart\">\n<svg class=\"gutter\" width=\"{GUTTER_PX}\" height=\"{height}\">\n{}</svg>\n\
             <div class=\"scroll\"><svg class=\"plot\" height=\"{height}\">\n{behind}{ticks}{}</svg></div>\n</div>\n",
            self.gutter, self.plot
        )
    }

    /// What lies behind all tracks: bands of faults, lines of moments, stages.
    fn behind(&self) -> String {
        let mut out = String::new();
        let struck = self.run.struck();
        let row = |nemesis: &str| {
            struck
                .iter()
                .position(|name| *name == nemesis)
                .unwrap_or_default()
        };
        let inner = self.height - AXIS_PX;
        for span in self.run.spans.iter().take(FAULTS_MAX) {
            out += &format!(
                "<rect class=\"band {}\" x=\"{}\" y=\"{AXIS_PX}\" width=\"{}\" height=\"{inner}\"/>\n",
                nemesis_class(row(&span.nemesis)),
                self.x(span.from_ns),
                self.width(span.from_ns, span.to_ns),
            );
        }
        for fault in self.run.moments.iter().take(FAULTS_MAX) {
            let x = self.x(fault.time_ns);
            out += &format!(
                "<line class=\"moment {}\" x1=\"{x}\" x2=\"{x}\" y1=\"{AXIS_PX}\" y2=\"{}\"/>\n",
                nemesis_class(row(&fault.nemesis)),
                self.height
            );
        }
        self.stages(&mut out);
        out
    }

    /// A line where each stage begins, and its name behind it; before it for the first that begins near the end.
    fn stages(&self, out: &mut String) {
        let late_ns = self.run.end_ns / 16 * 15;
        let mut late = false;
        for (place, stage) in self.run.stages.iter().enumerate() {
            let (x, name) = (self.x(stage.time_ns), stage_name(stage.stage));
            let height = self.height;
            *out += &format!("<line class=\"stage\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{height}\"/>\n");
            if stage.time_ns > late_ns {
                if !std::mem::replace(&mut late, true) {
                    *out += &format!(
                        "<text class=\"stage\" x=\"{x}\" dx=\"-4\" y=\"11\" text-anchor=\"end\">{name}</text>\n"
                    );
                }
                continue;
            }
            let next = self.run.stages.get(place + 1);
            let width = self.width(stage.time_ns, next.map_or(self.run.end_ns, |next| next.time_ns));
            *out += &format!(
                "<svg x=\"{x}\" width=\"{width}\" height=\"15\"><text class=\"stage\" x=\"4\" y=\"11\">{name}</text></svg>\n"
            );
        }
    }

    /// The axis: each zoom has its own ticks, of which the page shows those that have room.
    fn ticks(&self) -> String {
        let mut out = String::new();
        let mut drawn: BTreeSet<TimeNs> = BTreeSet::new();
        for zoom in ZOOMS {
            let step = nice(self.run.end_ns / (12 * u64::from(zoom)));
            let digits = 9_usize.saturating_sub(step.ilog10() as usize);
            for tick in (0..=self.run.end_ns).step_by(usize::try_from(step).expect("64 bits")) {
                if drawn.insert(tick) {
                    let x = self.x(tick);
                    out += &format!(
                        "<g class=\"tick t{zoom}\"><line x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\
                         <text x=\"{x}\" dx=\"3\" y=\"29\">{} s</text></g>\n",
                        AXIS_PX - 14,
                        self.height,
                        seconds(tick, digits)
                    );
                }
            }
        }
        out
    }
}

/// The next of 1, 2, 5, 10, 20, 50, ... that is no smaller.
pub fn nice(least: u64) -> u64 {
    let mut decade = 1;
    loop {
        for step in [decade, 2 * decade, 5 * decade] {
            if step >= least {
                return step;
            }
        }
        decade *= 10;
    }
}

/// A share of the whole, in percent.
pub fn percent(share: f64) -> String {
    let text = format!("{:.4}", 100.0 * share);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// What a pointer that rests on a shape is told.
pub fn titled(text: &str) -> String {
    format!("<title>{}</title>", esc(text))
}

/// The colour of a nemesis, by its row.
pub fn nemesis_class(row: usize) -> String {
    format!("n{}", row % 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_nice_and_shares_short() {
        assert_eq!(
            [1, 3, 7, 120, 5_000_000_000].map(nice),
            [1, 5, 10, 200, 5_000_000_000]
        );
        assert_eq!([0.0, 0.5, 0.123_456_789].map(percent), ["0%", "50%", "12.3457%"]);
    }
}
