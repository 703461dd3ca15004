//! The tables of a report: verdicts, operations, faults, nodes.

use super::chart::outcome_class;
use super::html::{badge, count, counted, duration, esc, finding, seconds, short};
use super::plots::{quantile, took_ns};
use super::run::Run;
use crate::history::Outcome;
use crate::verdict::{Kind, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Most lines of details shown of one verdict.
const DETAILS_MAX: usize = 200;

/// The name of what a verdict judges.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Property => "property",
        Kind::Liveness => "liveness",
        Kind::Coverage => "coverage",
        Kind::Harness => "harness",
    }
}

/// The verdicts, those that do not pass first; each with what is wrong.
pub fn verdicts(run: &Run) -> String {
    if run.verdicts.is_empty() {
        return "<p class=\"note\">Nobody has judged this run yet: <code>onward-jepsen check</code> does.</p>\n"
            .to_owned();
    }
    let mut sorted: Vec<(usize, &Verdict)> = run.verdicts.iter().enumerate().collect();
    sorted.sort_by_key(|(_, verdict)| (std::cmp::Reverse(verdict.finding), verdict.kind));
    let mut out =
        "<table class=\"verdicts\">\n<tr><th>finding</th><th>of</th><th>check</th><th>summary</th></tr>\n"
            .to_owned();
    for (place, verdict) in sorted {
        out += &format!(
            "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{}{}{}</td></tr>\n",
            finding(verdict.finding),
            badge(verdict.finding),
            kind_name(verdict.kind),
            esc(&verdict.check),
            esc(&verdict.summary),
            details(verdict),
            if verdict.calls.is_empty() {
                String::new()
            } else {
                format!(
                    "<p><a href=\"#verdict-{place}\">{}</a></p>",
                    counted(verdict.calls.len(), "operation")
                )
            }
        );
    }
    out + "</table>\n"
}

fn details(verdict: &Verdict) -> String {
    if verdict.details.is_empty() {
        return String::new();
    }
    let mut lines: Vec<String> = verdict
        .details
        .iter()
        .take(DETAILS_MAX)
        .map(|line| esc(short(line, 2_000)))
        .collect();
    let left = verdict.details.len() - lines.len();
    if left > 0 {
        lines.push(format!("… and {} in verdicts.json", counted(left, "more line")));
    }
    format!("<pre>{}</pre>", lines.join("\n"))
}

/// Operations by kind and outcome, with how long they took.
pub fn operations(run: &Run) -> String {
    let mut rows: BTreeMap<(&str, Outcome), (usize, Vec<u64>)> = BTreeMap::new();
    for call in &run.calls {
        let row = rows.entry((&call.invoke.f, call.outcome())).or_default();
        row.0 += 1;
        row.1.extend(took_ns(call));
    }
    let mut out =
        "<table class=\"numbers\">\n<tr><th>operation</th><th>outcome</th><th>count</th><th>a second</th>\
                   <th>p50</th><th>p99</th><th>longest</th></tr>\n"
            .to_owned();
    let run_s = run.end_ns as f64 / 1e9;
    for ((kind, outcome), (n, tooks)) in &mut rows {
        tooks.sort_unstable();
        let at = |share| {
            if tooks.is_empty() {
                "–".to_owned()
            } else {
                duration(quantile(tooks, share))
            }
        };
        let class = outcome_class(*outcome);
        out += &format!(
            "<tr><td>{}</td><td><i class=\"key {class}\"></i>{class}</td><td>{}</td><td>{:.1}</td>\
             <td>{}</td><td>{}</td><td>{}</td></tr>\n",
            esc(kind),
            count(*n),
            *n as f64 / run_s,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    out += &format!(
        "<tr class=\"total\"><td>all</td><td></td><td>{}</td><td>{:.1}</td><td></td><td></td><td></td></tr>\n",
        count(run.calls.len()),
        run.calls.len() as f64 / run_s
    );
    out + "</table>\n"
}

#[derive(Default)]
struct Struck<'a> {
    times: usize,
    never_ended: usize,
    under_ns: u64,
    shapes: BTreeMap<&'a str, usize>,
    nodes: BTreeSet<u64>,
}

/// Faults by nemesis: how often, for how long, on whom, in which shapes.
pub fn faults(run: &Run) -> String {
    let mut rows: BTreeMap<&str, Struck<'_>> = BTreeMap::new();
    for span in &run.spans {
        let row = rows.entry(&span.nemesis).or_default();
        row.times += 1;
        row.never_ended += usize::from(!span.ended);
        row.under_ns += span.to_ns.saturating_sub(span.from_ns);
        *row.shapes.entry(&span.what).or_default() += 1;
        row.nodes.extend(&span.nodes);
    }
    for fault in &run.moments {
        let row = rows.entry(&fault.nemesis).or_default();
        row.times += 1;
        *row.shapes.entry(&fault.what).or_default() += 1;
        row.nodes.extend(&fault.nodes);
    }
    if rows.is_empty() {
        return "<p class=\"note\">No fault struck.</p>\n".to_owned();
    }
    let mut out =
        "<table>\n<tr><th>nemesis</th><th>times</th><th>lasted</th><th>nodes</th><th>shapes</th></tr>\n"
            .to_owned();
    for (row, (nemesis, struck)) in rows.into_iter().enumerate() {
        let mut shapes: Vec<(&str, usize)> = struck.shapes.into_iter().collect();
        shapes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let named = shapes.iter().take(8).map(|(what, n)| {
            let times = if *n > 1 { format!(" ×{n}") } else { String::new() };
            format!("{}{times}", esc(short(what, 60)))
        });
        let mut named: Vec<String> = named.collect();
        if shapes.len() > named.len() {
            named.push(counted(shapes.len() - named.len(), "other shape"));
        }
        let nodes: Vec<String> = struck.nodes.iter().map(u64::to_string).collect();
        out += &format!(
            "<tr><td><i class=\"key {}\"></i>{}</td><td class=\"n\">{}</td><td class=\"n\">{}{}</td><td>{}</td><td>{}</td></tr>\n",
            super::chart::nemesis_class(row),
            esc(nemesis),
            count(struck.times),
            if struck.under_ns == 0 {
                "–".to_owned()
            } else {
                format!("{} s", seconds(struck.under_ns, 1))
            },
            if struck.never_ended > 0 {
                format!(", {} never ended", struck.never_ended)
            } else {
                String::new()
            },
            nodes.join(" "),
            named.join("; ")
        );
    }
    out + "</table>\n"
}

/// What each node was asked, and what it said of itself at the end.
pub fn nodes(run: &Run) -> String {
    let mut asked: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for call in &run.calls {
        asked.entry(call.invoke.node.to_string()).or_default()[call.outcome() as usize] += 1;
    }
    let names: BTreeSet<&str> = asked
        .keys()
        .map(String::as_str)
        .chain(run.finals.iter().map(|state| state.node.as_str()))
        .collect();
    let mut out = "<table class=\"numbers\">\n<tr><th>node</th><th>ok</th><th>fail</th><th>info</th>\
                   <th>final revision</th><th>state hash</th></tr>\n"
        .to_owned();
    for name in names {
        let [ok, fail, info] = asked.get(name).copied().unwrap_or_default();
        let last = run.finals.iter().find(|state| state.node == name);
        let (revision, hash) = last.map_or(("–", "–"), |state| (&state.revision, &state.hash));
        out += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>\n",
            esc(name),
            count(ok),
            count(fail),
            count(info),
            esc(revision),
            esc(short(hash, 24))
        );
    }
    out + "</table>\n"
}
