//! The operations that show what is wrong, among those that ran beside them.

use super::chart::{outcome_class, percent};
use super::html::{badge, counted, duration, esc, seconds, short};
use super::plots::took_ns;
use super::run::{Run, plain};
use crate::history::{Call, Outcome};
use crate::verdict::{Finding, Verdict};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most offending operations listed for one verdict.
const OFFENDING_MAX: usize = 100;
/// Neighbours on each side of an offending operation.
const NEIGHBOURS: usize = 4;

/// A table for each verdict that points at operations.
pub fn tables(run: &Run) -> String {
    let mut out = String::new();
    let mut sorted: Vec<(usize, &Verdict)> = run.verdicts.iter().enumerate().collect();
    sorted.sort_by_key(|(_, verdict)| (std::cmp::Reverse(verdict.finding), verdict.kind));
    for (place, verdict) in sorted {
        if verdict.calls.is_empty() {
            continue;
        }
        out += &format!(
            "<h3 id=\"verdict-{place}\">{} {}: {}</h3>\n",
            badge(verdict.finding),
            esc(&verdict.check),
            esc(short(&verdict.summary, 300))
        );
        out += &table(run, verdict);
    }
    if out.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Operations that verdicts point at</h2>\n\
         <p class=\"note\">Marked rows are the operations themselves; the others ran next to them, on the same key where \
         there is one. A dashed line stands for operations left out. The bar at the right is the operation's time within its table.</p>\n{out}"
    )
}

fn table(run: &Run, verdict: &Verdict) -> String {
    let wanted: BTreeSet<u64> = verdict.calls.iter().copied().take(OFFENDING_MAX).collect();
    let rows: Vec<&Call> = with_neighbours(run, &wanted);
    let (Some(from_ns), Some(to_ns)) = (
        rows.iter().map(|call| call.invoke.time_ns).min(),
        rows.iter()
            .filter(|call| wanted.contains(&call.id))
            .map(|call| run.until(call))
            .chain(rows.iter().map(|call| call.invoke.time_ns))
            .max(),
    ) else {
        return "<p class=\"note\">The history has no such operations.</p>\n".to_owned();
    };
    let window_ns = (to_ns - from_ns).max(1);
    let mut out =
        "<table class=\"calls\">\n<tr><th>#</th><th>at</th><th>process</th><th>node</th><th>operation</th>\
                   <th>answer</th><th>revision</th><th>took</th><th class=\"when\">when</th></tr>\n"
            .to_owned();
    let mut before: Option<u64> = None;
    for call in rows {
        let others = before.map_or(0, |before| call.id - before - 1);
        before = Some(call.id);
        let left = (call.invoke.time_ns - from_ns) as f64 / window_ns as f64;
        let right = (run.until(call).min(to_ns) - from_ns) as f64 / window_ns as f64;
        let marked = wanted.contains(&call.id).then_some(verdict.finding);
        out += &row(call, marked, others, (left, right - left));
    }
    out += "</table>\n";
    if verdict.calls.len() > wanted.len() {
        out += &format!(
            "<p class=\"note\">… and {} in verdicts.json.</p>\n",
            counted(verdict.calls.len() - wanted.len(), "more operation")
        );
    }
    out
}

/// A call at (left, width) of its table's stretch of time, with how many were left out before it.
fn row(call: &Call, marked: Option<Finding>, others: u64, (left, width): (f64, f64)) -> String {
    let class = outcome_class(call.outcome());
    let mut classes = match marked {
        Some(Finding::Fail | Finding::Unknown) => "marked".to_owned(),
        Some(Finding::Pass) => "shown".to_owned(),
        None => String::new(),
    };
    if others > 0 {
        classes += " gap";
    }
    let id = if classes.starts_with("marked") {
        format!("<a href=\"#call-{0}\">{0}</a>", call.id)
    } else {
        call.id.to_string()
    };
    format!(
        "<tr class=\"{classes}\"><td>{id}</td><td>{} s</td><td>{}</td><td>{}</td><td>{} <code>{}</code></td>\
         <td><i class=\"key {class}\"></i>{class} {}</td><td>{}</td><td>{}</td><td class=\"when\">\
         <svg width=\"100%\" height=\"11\"><rect class=\"{class}\" x=\"{}\" width=\"{}\" height=\"11\"/></svg></td></tr>\n",
        seconds(call.invoke.time_ns, 4),
        call.invoke.process,
        call.invoke.node,
        esc(&call.invoke.f),
        esc(short(&call.invoke.value.to_string(), 300)),
        answer(call),
        call.revision()
            .map_or_else(String::new, |revision| revision.to_string()),
        took_ns(call).map_or_else(|| "never ended".to_owned(), duration),
        percent(left),
        percent(width.max(0.004)),
    )
}

fn answer(call: &Call) -> String {
    let Some(complete) = &call.complete else {
        return String::new();
    };
    let mut out = String::new();
    if !complete.value.is_null() && complete.value != call.invoke.value {
        out = format!("<code>{}</code>", esc(short(&plain(&complete.value), 300)));
    }
    if let Some(error) = &complete.error {
        out += &format!(" {}", esc(short(error, 200)));
    }
    out
}

/// The wanted calls and, of the calls on the same key, the nearest before and after each. A call that failed for sure
/// did nothing, and is no neighbour.
fn with_neighbours<'a>(run: &'a Run, wanted: &BTreeSet<u64>) -> Vec<&'a Call> {
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    for (place, call) in run.calls.iter().enumerate() {
        if !wanted.contains(&call.id) {
            continue;
        }
        kept.insert(place);
        let beside = |place: &usize| {
            let other = &run.calls[*place];
            other.outcome() != Outcome::Fail && touches(call, other)
        };
        kept.extend((0..place).rev().filter(beside).take(NEIGHBOURS));
        kept.extend((place + 1..run.calls.len()).filter(beside).take(NEIGHBOURS));
    }
    kept.into_iter().map(|place| &run.calls[place]).collect()
}

/// Whether both name the same key, as far as their values say: a value's `key`.
fn touches(call: &Call, other: &Call) -> bool {
    let key = |call: &'_ Call| -> Option<Value> { call.invoke.value.get("key").cloned() };
    key(call).is_none_or(|mine| key(other).is_none_or(|theirs| mine == theirs))
}
