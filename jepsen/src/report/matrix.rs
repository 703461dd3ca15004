//! The index of a directory of runs: one row for each.

use super::html::{badge, count, esc, page, short};
use super::run::Run;
use super::tables::kind_name;
use crate::run::RunFile;
use crate::verdict::{Finding, Kind, overall};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};

/// What the index says of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its directory, below that of the matrix.
    pub dir: String,
    /// What was asked of it.
    pub about: RunFile,
    /// Operations that were ok, failed, stayed unknown.
    pub calls: [usize; 3],
    /// Faults that struck.
    pub faults: usize,
    /// What each kind of verdict comes to; none where there was none.
    pub findings: [Option<Finding>; 4],
    /// What all come to.
    pub overall: Finding,
    /// The first verdict that is not a pass, in a line.
    pub why: String,
}

/// The kinds of verdicts, in the order of the columns.
pub const KINDS: [Kind; 4] = [Kind::Property, Kind::Liveness, Kind::Coverage, Kind::Harness];

/// The directories below `dir` that hold a run, by name.
///
/// # Errors
/// Where `dir` cannot be read.
pub fn runs(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.join("run.json").exists() {
            runs.push(path);
        }
    }
    runs.sort();
    Ok(runs)
}

impl Row {
    /// The row of a run.
    pub fn of(dir: &Path, run: &Run) -> Row {
        let mut calls = [0; 3];
        for call in &run.calls {
            calls[call.outcome() as usize] += 1;
        }
        let findings = KINDS.map(|kind| {
            let of_kind = run.verdicts.iter().filter(|verdict| verdict.kind == kind);
            of_kind.map(|verdict| verdict.finding).max()
        });
        let wrong = run.verdicts.iter().max_by_key(|verdict| verdict.finding);
        let why = match wrong {
            Some(verdict) if verdict.finding != Finding::Pass => {
                format!("{}: {}", verdict.check, verdict.summary)
            }
            _ => String::new(),
        };
        Row {
            dir: dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            about: run.about.clone(),
            calls,
            faults: run.spans.len() + run.moments.len(),
            findings,
            overall: overall(&run.verdicts),
            why,
        }
    }
}

/// The page of the index.
pub fn html(rows: &[Row]) -> String {
    let of = |finding| rows.iter().filter(|row| row.overall == finding).count();
    let all = rows
        .iter()
        .map(|row| row.overall)
        .max()
        .unwrap_or(Finding::Unknown);
    let mut body = format!(
        "<header><h1>{} {} runs</h1>\n<p>{} pass, {} unknown, {} fail; {} operations, {} faults</p></header>\n<table>\n\
         <tr><th>run</th><th>finding</th><th>workload</th><th>nemeses</th><th>nodes</th><th>seconds</th><th>seed</th>\
         <th>ok</th><th>fail</th><th>info</th><th>faults</th>",
        badge(all),
        count(rows.len()),
        count(of(Finding::Pass)),
        count(of(Finding::Unknown)),
        count(of(Finding::Fail)),
        count(rows.iter().map(|row| row.calls.iter().sum::<usize>()).sum()),
        count(rows.iter().map(|row| row.faults).sum()),
    );
    for kind in KINDS {
        body += &format!("<th>{}</th>", kind_name(kind));
    }
    body += "<th>what is wrong</th></tr>\n";
    for row in rows {
        body += &html_row(row);
    }
    body += "</table>\n";
    page("onward-jepsen: matrix", &body)
}

fn html_row(row: &Row) -> String {
    let about = &row.about;
    let [ok, fail, info] = row.calls.map(count);
    let mut out = format!(
        "<tr><td><a href=\"{}/report.html\">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{ok}</td><td class=\"n\">{fail}</td>\
         <td class=\"n\">{info}</td><td class=\"n\">{}</td>",
        esc(path_in_url(&row.dir)),
        esc(&row.dir),
        badge(row.overall),
        esc(&about.workload),
        esc(about.nemeses.join(", ")),
        about.nodes,
        about.seconds,
        about.seed,
        count(row.faults)
    );
    for found in row.findings {
        out += &format!("<td>{}</td>", found.map_or_else(|| "–".to_owned(), badge));
    }
    out + &format!("<td>{}</td></tr>\n", esc(short(&row.why, 200)))
}

/// A folder's name as it may stand in a relative link.
fn path_in_url(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = name.bytes().map(|byte| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    format!("./{}", encoded.collect::<String>())
}

/// The same as a Markdown table, for documents.
pub fn markdown(rows: &[Row]) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let word = super::html::finding;
    let mut out = "| workload | nemeses | seed | operations | unknown outcomes | faults | property | liveness | coverage |\n\
                   |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let [property, liveness, coverage, _] = row.findings.map(|found| found.map_or("–", word));
        out += &format!(
            "| {} | {} | {} | {} | {} | {} | {property} | {liveness} | {coverage} |\n",
            cell(&row.about.workload),
            cell(&row.about.nemeses.join(", ")),
            row.about.seed,
            count(row.calls.iter().sum()),
            count(row.calls[2]),
            count(row.faults)
        );
    }
    out
}

/// Reads the runs below `dir` and writes a report of each, `matrix.html` and `matrix.md`. The path of the page.
///
/// # Errors
/// Where there is no run, or a file cannot be written.
pub fn write(dir: &Path) -> anyhow::Result<PathBuf> {
    let runs = runs(dir)?;
    if runs.is_empty() {
        bail!(
            "{} holds neither a run (run.json) nor directories of runs",
            dir.display()
        );
    }
    let mut rows = Vec::with_capacity(runs.len());
    for of in runs {
        let run = Run::read(&of);
        super::write_run(&of, &run)?;
        rows.push(Row::of(&of, &run));
    }
    super::put(&dir.join("matrix.md"), &markdown(&rows))?;
    let path = dir.join("matrix.html");
    super::put(&path, &html(&rows))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_below_its_page() {
        assert_eq!(
            path_in_url("a b/../javascript:x"),
            "./a%20b%2F..%2Fjavascript%3Ax"
        );
    }
}
