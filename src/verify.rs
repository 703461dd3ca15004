//! `onward verify`: a look at every byte of a backup file or of a stopped node's directory.

use anyhow::{Context, Result};
use clap::Args;
use onward_cli::Global;
use onward_raft::{Finding, Looked, Verdict};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// Arguments of `onward verify`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A backup file, or the data directory of a node that is stopped
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
}

/// What was found, for programs.
#[derive(Debug, Serialize)]
struct Found<'a> {
    path: String,
    ok: bool,
    cluster_id: Option<String>,
    cluster_name: Option<&'a str>,
    node: Option<u64>,
    revision: Option<u64>,
    state_hash: Option<String>,
    looked: Vec<Part<'a>>,
    /// What could not be looked at, and why. `ok` says nothing of it.
    not_compared: Vec<Wrong<'a>>,
    findings: Vec<Wrong<'a>>,
}

#[derive(Debug, Serialize)]
struct Part<'a> {
    part: &'a str,
    items: u64,
    bytes: u64,
    how: &'a str,
}

#[derive(Debug, Serialize)]
struct Wrong<'a> {
    place: &'a str,
    what: &'a str,
}

/// Verifies; `false` where something is wrong.
pub fn run(global: &Global, arguments: &Arguments) -> Result<bool> {
    let animated = std::io::stderr().is_terminal() && !global.quiet;
    let scratch = Scratch::new()?;
    let verdict = onward_raft::verify(&arguments.path, &scratch.0, &mut |what| {
        if animated {
            // A line that cannot be drawn is no reason to fail.
            let _ = write!(std::io::stderr(), "\r\x1b[K  {what}");
        }
    });
    if animated {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let verdict = verdict?;
    let found = found(arguments, &verdict);
    onward_cli::show(global, &found, text)?;
    Ok(found.ok)
}

fn found<'a>(arguments: &Arguments, verdict: &'a Verdict) -> Found<'a> {
    let looked = |looked: &'a Looked| Part {
        part: &looked.part,
        items: looked.items,
        bytes: looked.bytes,
        how: &looked.how,
    };
    let wrong = |finding: &'a Finding| Wrong {
        place: &finding.place,
        what: &finding.what,
    };
    Found {
        path: arguments.path.display().to_string(),
        ok: verdict.findings.is_empty(),
        cluster_id: verdict.cluster.as_ref().map(|(id, _)| id.to_string()),
        cluster_name: verdict.cluster.as_ref().map(|(_, name)| name.as_str()),
        node: verdict.node,
        revision: verdict.revision,
        state_hash: verdict.state_hash.map(|hash| format!("{hash:016x}")),
        looked: verdict.looked.iter().map(looked).collect(),
        not_compared: verdict.not_compared.iter().map(wrong).collect(),
        findings: verdict.findings.iter().map(wrong).collect(),
    }
}

fn text(found: &Found<'_>) -> String {
    let mut out = String::new();
    let width = found.looked.iter().map(|part| part.part.len()).max().unwrap_or(0);
    for Part {
        part,
        items,
        bytes,
        how,
    } in &found.looked
    {
        line(
            &mut out,
            format_args!("{part:<width$}  {items:>10}  {bytes:>14} B  {how}"),
        );
    }
    if let (Some(name), Some(node)) = (found.cluster_name, found.node) {
        line(&mut out, format_args!("\ncluster {name}, node {node}"));
    }
    if let (Some(revision), Some(hash)) = (found.revision, &found.state_hash) {
        line(&mut out, format_args!("revision {revision}, state hash {hash}"));
    }
    for Wrong { place, what } in &found.findings {
        line(&mut out, format_args!("\nWRONG  {place}: {what}"));
    }
    for Wrong { place, what } in &found.not_compared {
        line(&mut out, format_args!("\nNOT COMPARED  {place}: {what}"));
    }
    match found.ok {
        true if found.not_compared.is_empty() => line(&mut out, format_args!("all is well")),
        true => line(
            &mut out,
            format_args!("\nnothing is wrong with what was compared, and not all of it was"),
        ),
        false => line(
            &mut out,
            format_args!("\n{} found in {}", problems(found.findings.len()), found.path),
        ),
    }
    out
}

fn problems(count: usize) -> String {
    format!("{count} problem{}", if count == 1 { "" } else { "s" })
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("writing into a String cannot fail");
}

/// A directory for the rows of a file, deleted when it is done with.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("onward-verify-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a temporary directory could not be deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(verdict: &Verdict) -> (String, serde_json::Value) {
        let arguments = Arguments {
            path: PathBuf::from("data"),
        };
        let found = found(&arguments, verdict);
        (text(&found), serde_json::to_value(&found).expect("JSON"))
    }

    #[test]
    fn all_is_well_only_where_all_was_compared() {
        let mut verdict = Verdict::default();
        let (told, json) = shown(&verdict);
        assert!(told.contains("all is well"), "{told}");
        assert_eq!(json["not_compared"], serde_json::json!([]));

        verdict.not_compared.push(Finding {
            place: "log on snapshot".to_owned(),
            what: "too much of it".to_owned(),
        });
        let (told, json) = shown(&verdict);
        assert!(
            told.contains("NOT COMPARED  log on snapshot: too much of it"),
            "{told}"
        );
        assert!(
            told.contains("not all of it was") && !told.contains("all is well"),
            "{told}"
        );
        assert_eq!(json["ok"], true);
        assert_eq!(json["not_compared"][0]["what"], "too much of it");
    }
}
