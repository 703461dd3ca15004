//! One HTML file for a run: what was judged, what happened when, how fast. And an index for a directory of runs.
//!
//! The page is whole in itself: its pictures are SVG, nothing is loaded and nothing runs, so it can be sent, kept and
//! printed. Everything in it that came from a run is escaped. A run that broke off has a report too, which says what is
//! missing. Limits: see [`chart`]; a run of 100,000 operations makes about 6 MB.

pub mod chart;
mod html;
mod lanes;
pub mod matrix;
mod offending;
mod plots;
pub mod run;
mod tables;
#[cfg(test)]
mod tests;

use anyhow::Context;
use html::{badge, counted, esc, seconds};
use run::Run;
use std::path::{Path, PathBuf};

/// Writes `report.html` into the directory of a run; into that of a matrix, a report for each run and `matrix.html`.
/// The path of the page.
///
/// # Errors
/// Where `dir` holds no run, or the page cannot be written.
pub fn write(dir: &Path) -> anyhow::Result<PathBuf> {
    let a_run = dir.join("run.json").exists() || dir.join("history.jsonl").exists();
    if a_run {
        write_run(dir, &Run::read(dir))
    } else {
        matrix::write(dir)
    }
}

fn write_run(dir: &Path, run: &Run) -> anyhow::Result<PathBuf> {
    let path = dir.join("report.html");
    put(&path, &html_of(run))?;
    Ok(path)
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The page of a run.
pub fn html_of(run: &Run) -> String {
    let mut body = head(run);
    body += "<h2>Verdicts</h2>\n";
    body += &tables::verdicts(run);
    if !run.calls.is_empty() || !run.struck().is_empty() {
        body += &timeline(run);
    }
    body += &offending::tables(run);
    body += "<div class=\"columns\">\n<section><h2>Operations</h2>\n";
    body += &tables::operations(run);
    body += "</section>\n<section><h2>Nodes</h2>\n";
    body += &tables::nodes(run);
    body += "</section>\n</div>\n<h2>Faults</h2>\n";
    body += &tables::faults(run);
    let title = format!("{} under {}", run.about.workload, nemeses(run));
    html::page(&title, &body)
}

fn nemeses(run: &Run) -> String {
    if run.about.nemeses.is_empty() {
        "no faults".to_owned()
    } else {
        run.about.nemeses.join(", ")
    }
}

fn head(run: &Run) -> String {
    let about = &run.about;
    let mut out = format!(
        "<header>\n<h1>{} {} <span>under</span> {}</h1>\n<dl>\n",
        badge(run.overall()),
        esc(&about.workload),
        esc(nemeses(run))
    );
    let facts = [
        ("nodes", about.nodes.to_string()),
        ("clients", about.clients.to_string()),
        ("seconds of faults", about.seconds.to_string()),
        ("seconds in all", seconds(run.end_ns, 1)),
        ("operations", html::count(run.calls.len())),
        ("faults", html::count(run.spans.len() + run.moments.len())),
        ("seed", about.seed.to_string()),
        ("binary", about.version.clone()),
        ("began", about.started.clone()),
    ];
    for (name, value) in facts.into_iter().filter(|(_, value)| !value.is_empty()) {
        out += &format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", esc(value));
    }
    out += "</dl>\n";
    if !about.command.is_empty() {
        out += &format!(
            "<p class=\"command\">To repeat it: <code>{}</code></p>\n",
            esc(&about.command)
        );
    }
    let broke_off = about
        .failure
        .iter()
        .map(|why| format!("The run broke off: {why}"));
    let wrong: Vec<String> = broke_off.chain(run.missing.iter().cloned()).collect();
    if !wrong.is_empty() {
        out += "<ul class=\"missing\">\n";
        for what in wrong {
            out += &format!("<li>{}</li>\n", esc(what));
        }
        out += "</ul>\n";
    }
    out + "</header>\n"
}

fn timeline(run: &Run) -> String {
    let mut chart = chart::Chart::new(run);
    chart.faults();
    chart.lanes();
    plots::throughput(&mut chart);
    plots::latency(&mut chart);
    let mut out = "<h2>Timeline</h2>\n<div class=\"zoomed\">\n".to_owned();
    for zoom in chart::ZOOMS {
        let checked = if zoom == 1 { " checked" } else { "" };
        out += &format!(
            "<input type=\"radio\" name=\"zoom\" id=\"z{zoom}\"{checked}><label for=\"z{zoom}\">{zoom}×</label>\n"
        );
    }
    let bad = chart.offending.len();
    out += &format!(
        "<span class=\"legend\"><i class=\"key ok\"></i>ok: took place <i class=\"key fail\"></i>fail: did not, and never will \
         <i class=\"key info\"></i>info: unknown{} <i class=\"key q50\"></i>p50 <i class=\"key q99\"></i>p99 \
         <i class=\"key qmax\"></i>longest</span>\n",
        if bad == 0 {
            String::new()
        } else {
            format!(
                " <i class=\"key bad\"></i>{} that a verdict points at",
                counted(bad, "operation")
            )
        }
    );
    out + &chart.finish() + "</div>\n"
}
