//! What a run shows, from the files that it left: the workload's own verdicts, and those that hold for every workload.

use crate::checker::{edn, log_index};
use crate::claims;
use crate::final_state::Finals;
use crate::history::{self, Call, Edge, Fault, Outcome, Record, StageName, TimeNs};
use crate::nemesis;
use crate::run::{Directory, RunFile};
use crate::verdict::{Finding, Kind, Verdict};
use crate::workload::{self, Evidence, Workload};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How soon after the healing every node serves again and every kind of operation takes place.
const RECOVERY: Duration = Duration::from_secs(10);

/// Judges a run, and leaves its history as Jepsen's checkers read it. What cannot be judged is a failure of the harness.
pub fn judge(directory: &Directory) -> Vec<Verdict> {
    match verdicts(directory) {
        Ok(verdicts) => verdicts,
        Err(error) => {
            let summary = format!("the run cannot be judged: {error:#}");
            vec![Verdict::new(Kind::Harness, "harness", Finding::Fail, summary)]
        }
    }
}

fn verdicts(directory: &Directory) -> anyhow::Result<Vec<Verdict>> {
    let run = directory.run()?;
    let path = directory.path().join("history.jsonl");
    let records = if path.exists() {
        history::read(&path)?
    } else {
        Vec::new()
    };
    let calls = history::calls(&records)?;
    edn::write(&directory.path().join("history.edn"), &records)?;
    let finals = Finals::load(directory.path())?;
    let faults: Vec<Fault> = records
        .iter()
        .filter_map(|record| match record {
            Record::Fault(fault) => Some(fault.clone()),
            _ => None,
        })
        .collect();
    let workload = workload::named(&run.workload, directory.path())?;
    let mut verdicts = vec![harness(&run, &records, &calls)];
    if let Some(outcome) = nemesis::Outcome::load(directory.path())? {
        verdicts.extend(outcome.verdicts());
    }
    verdicts.push(state_hash(&directory.nodes())?);
    if verdicts[0].finding != Finding::Pass && finals.nodes.is_empty() {
        // There is nothing to judge, and nothing to hide that by.
        return Ok(verdicts);
    }
    verdicts.push(finals.replicas());
    verdicts.push(log_index(&run.workload, &calls, &finals));
    verdicts.extend(workload.judge(&Evidence {
        calls: &calls,
        finals: &finals,
        faults: &faults,
        dir: directory.path(),
    })?);
    verdicts.push(liveness(&records, &calls, &finals, &*workload));
    verdicts.push(operations(&calls, &*workload));
    verdicts.extend(injected(&run, &faults));
    Ok(verdicts)
}

/// What clients were told, against the journals of all nodes.
fn log_index(workload: &str, calls: &[Call], finals: &Finals) -> Verdict {
    let claims: Vec<_> = calls
        .iter()
        .filter_map(|call| claims::of(workload, call))
        .collect();
    let journals: Vec<_> = finals
        .nodes
        .iter()
        .map(|node| (node.id, &node.journal[..]))
        .collect();
    log_index::check(&claims, &journals).verdict("log-index")
}

/// Whether the harness did its work: it came to the end, and its clients were served. Where it was kept from the end by nodes
/// that cannot be read, that is their failure.
fn harness(run: &RunFile, records: &[Record], calls: &[Call]) -> Verdict {
    let ended = records
        .iter()
        .any(|record| matches!(record, Record::Stage(stage) if stage.stage == StageName::End));
    let ok = calls.iter().filter(|call| call.outcome() == Outcome::Ok).count();
    if let Some(failure) = &run.failure
        && began(records, StageName::FinalReads).is_some()
        && !ended
    {
        // All was healed, and nodes had a minute to be read.
        return Verdict::new(Kind::Liveness, "final-reads", Finding::Fail, failure.clone());
    }
    let why = match &run.failure {
        Some(failure) => Some(failure.clone()),
        None if !run.finished || !ended => Some("the run was cut short".to_owned()),
        None if calls.is_empty() => Some("no client asked anything".to_owned()),
        None if ok == 0 => Some(format!("no client was served: {}", first_error(calls))),
        None => None,
    };
    match why {
        Some(why) => Verdict::new(Kind::Harness, "harness", Finding::Fail, why),
        None => {
            let summary = format!("{} operations, {ok} took place", calls.len());
            Verdict::new(Kind::Harness, "harness", Finding::Pass, summary)
        }
    }
}

/// Whether a node left a note that its state was not the others': such a one stops, and has nothing to read at the end.
fn state_hash(nodes: &Path) -> anyhow::Result<Verdict> {
    let mut notes = Vec::new();
    if nodes.exists() {
        for entry in std::fs::read_dir(nodes)? {
            let entry = entry?;
            let note = entry.path().join("data/diverged");
            if note.exists() {
                let note = std::fs::read_to_string(&note)?;
                notes.push(format!(
                    "node {}: {}",
                    entry.file_name().display(),
                    note.trim_end()
                ));
            }
        }
    }
    notes.sort_unstable();
    let (finding, summary) = match &notes[..] {
        [] => (
            Finding::Pass,
            "no node found that its state is another".to_owned(),
        ),
        [first, ..] => (Finding::Fail, first.clone()),
    };
    Ok(Verdict {
        details: notes,
        ..Verdict::new(Kind::Property, "state-hash", finding, summary)
    })
}

fn first_error(calls: &[Call]) -> &str {
    let error = calls
        .iter()
        .find_map(|call| call.complete.as_ref()?.error.as_deref());
    error.unwrap_or("no answer came")
}

/// When a stage began.
fn began(records: &[Record], wanted: StageName) -> Option<TimeNs> {
    records.iter().find_map(|record| match record {
        Record::Stage(stage) if stage.stage == wanted => Some(stage.time_ns),
        _ => None,
    })
}

/// Whether every node served and every kind of operation took place soon after the healing.
fn liveness(records: &[Record], calls: &[Call], finals: &Finals, workload: &dyn Workload) -> Verdict {
    let Some(healed) = began(records, StageName::Heal) else {
        return Verdict::new(
            Kind::Liveness,
            "recovery",
            Finding::Unknown,
            "nothing was ever healed",
        );
    };
    let mut nodes: BTreeMap<u64, TimeNs> = BTreeMap::new();
    let mut kinds: BTreeMap<&str, TimeNs> = BTreeMap::new();
    for call in calls {
        let Some(complete) = &call.complete else { continue };
        // Asked after the healing, too: an answer to what was asked before may come from before.
        if call.outcome() == Outcome::Ok && call.invoke.time_ns >= healed {
            let after = complete.time_ns - healed;
            for first in [
                nodes.entry(call.invoke.node).or_insert(after),
                kinds.entry(&call.invoke.f).or_insert(after),
            ] {
                *first = after.min(*first);
            }
        }
    }
    let limit = u64::try_from(RECOVERY.as_nanos()).unwrap_or(u64::MAX);
    let mut details = Vec::new();
    let mut slowest = 0;
    let nodes = finals
        .nodes
        .iter()
        .map(|node| (format!("node {}", node.id), nodes.get(&node.id)));
    let kinds = workload
        .kinds()
        .iter()
        .map(|kind| (format!("`{kind}`"), kinds.get(kind)));
    for (what, first) in nodes.chain(kinds) {
        match first {
            Some(after) if *after <= limit => slowest = slowest.max(*after),
            Some(after) => details.push(format!("{what} took {} ms", after / 1_000_000)),
            None => details.push(format!("{what} never succeeded again")),
        }
    }
    let (finding, summary) = if details.is_empty() {
        (
            Finding::Pass,
            format!("everything again within {} ms", slowest / 1_000_000),
        )
    } else {
        let limit = RECOVERY.as_secs();
        (Finding::Fail, format!("not everything again within {limit} s"))
    };
    Verdict {
        details,
        ..Verdict::new(Kind::Liveness, "recovery", finding, summary)
    }
}

/// Whether each kind of operation really took place.
fn operations(calls: &[Call], workload: &dyn Workload) -> Verdict {
    let mut counts: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for call in calls {
        counts.entry(&call.invoke.f).or_default()[call.outcome() as usize] += 1;
    }
    let missing: Vec<_> = workload
        .kinds()
        .iter()
        .filter(|kind| counts.get(*kind).is_none_or(|count| count[0] == 0))
        .map(|kind| format!("`{kind}` never took place"))
        .collect();
    let each = counts
        .iter()
        .map(|(f, [ok, fail, info])| format!("{f} {ok} ok {fail} fail {info} info"));
    let summary = each.collect::<Vec<_>>().join(", ");
    let finding = if missing.is_empty() {
        Finding::Pass
    } else {
        Finding::Fail
    };
    Verdict {
        details: missing,
        ..Verdict::new(Kind::Coverage, "operations", finding, summary)
    }
}

/// Whether each fault that was planned really happened.
fn injected(run: &RunFile, faults: &[Fault]) -> Option<Verdict> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for fault in faults.iter().filter(|fault| fault.edge != Edge::End) {
        *counts.entry(&fault.nemesis).or_default() += 1;
    }
    let planned: BTreeSet<&str> = run.nemeses.iter().map(String::as_str).collect();
    if planned.is_empty() {
        return None;
    }
    let missing: Vec<_> = planned
        .iter()
        .filter(|name| !counts.contains_key(**name))
        .map(|name| format!("`{name}` never happened"))
        .collect();
    let each = counts.iter().map(|(name, count)| format!("{name} {count}"));
    let summary = each.collect::<Vec<_>>().join(", ");
    let finding = if missing.is_empty() {
        Finding::Pass
    } else {
        Finding::Fail
    };
    Some(Verdict {
        details: missing,
        ..Verdict::new(Kind::Coverage, "faults", finding, summary)
    })
}
