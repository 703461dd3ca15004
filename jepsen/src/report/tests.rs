//! The facts in a page, on run directories made by hand.

use super::*;
use crate::history::{self, Complete, Edge, Fault, Invoke, Outcome, Record, Stage, StageName, TimeNs};
use crate::run::RunFile;
use crate::verdict::{Finding, Kind, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tempfile::TempDir;

const S: TimeNs = 1_000_000_000;

fn invoke(time_ns: TimeNs, process: u64, f: &str, value: Value) -> Record {
    Record::Invoke(Invoke {
        time_ns,
        process,
        node: process % 3 + 1,
        f: f.to_owned(),
        value,
        command: None,
    })
}

fn complete(time_ns: TimeNs, process: u64, outcome: Outcome, value: Value, error: Option<&str>) -> Record {
    Record::Complete(Complete {
        time_ns,
        process,
        outcome,
        value,
        revision: Some(time_ns / 1_000_000),
        error: error.map(str::to_owned),
    })
}

fn fault(time_ns: TimeNs, nemesis: &str, edge: Edge, what: &str) -> Record {
    Record::Fault(Fault {
        time_ns,
        nemesis: nemesis.to_owned(),
        edge,
        what: what.to_owned(),
        nodes: vec![2],
    })
}

fn stage(time_ns: TimeNs, stage: StageName) -> Record {
    Record::Stage(Stage { time_ns, stage })
}

/// A stale read: call 3 reads what call 1 wrote over.
fn stale_read() -> Vec<Record> {
    vec![
        stage(0, StageName::Setup),
        stage(S, StageName::Faults),
        invoke(S, 0, "write", json!({"key": 7, "value": 1})),
        complete(S + 5_000_000, 0, Outcome::Ok, Value::Null, None),
        fault(2 * S, "partition", Edge::Begin, "halves: 1 2 | 3"),
        invoke(2 * S, 0, "write", json!({"key": 7, "value": 2})),
        complete(2 * S + 20_000_000, 0, Outcome::Ok, Value::Null, None),
        invoke(3 * S, 1, "write", json!({"key": 8, "value": 3})),
        complete(4 * S, 1, Outcome::Info, Value::Null, Some("timeout")),
        invoke(5 * S, 2, "read", json!({"key": 7})),
        complete(5 * S + 2_000_000, 2, Outcome::Ok, json!(1), None),
        fault(6 * S, "kill", Edge::Moment, "the leader"),
        fault(7 * S, "partition", Edge::End, "halves: 1 2 | 3"),
        stage(8 * S, StageName::Heal),
        invoke(9 * S, 3, "read", json!({"key": 7})),
        complete(
            9 * S + 1_000_000,
            3,
            Outcome::Fail,
            Value::Null,
            Some("no_leader"),
        ),
        stage(10 * S, StageName::End),
    ]
}

fn about(workload: &str) -> RunFile {
    RunFile {
        workload: workload.to_owned(),
        nemeses: vec!["partition".to_owned(), "kill".to_owned()],
        nodes: 3,
        seconds: 7.0,
        seed: 4711,
        version: "onward 0.1.0".to_owned(),
        isolation: None,
        clients: 4,
        started: "2026-01-02T03:04:05Z".to_owned(),
        command: "onward-jepsen run --workload register --seed 4711".to_owned(),
        failure: None,
        finished: true,
    }
}

fn verdicts() -> Vec<Verdict> {
    vec![
        Verdict::new(Kind::Liveness, "first success", Finding::Pass, "after 0.2 s"),
        Verdict {
            details: vec!["read 1 after 2 was written".to_owned()],
            calls: vec![1, 3],
            ..Verdict::new(Kind::Property, "linearizable", Finding::Fail, "key 7 is not")
        },
    ]
}

fn directory(about: &RunFile, verdicts: &[Verdict], records: &[Record]) -> TempDir {
    let dir = tempfile::tempdir().expect("temp dir");
    fill(dir.path(), about, verdicts, records);
    dir
}

fn fill(dir: &Path, about: &RunFile, verdicts: &[Verdict], records: &[Record]) {
    let write = |name: &str, value: Value| {
        std::fs::write(dir.join(name), value.to_string()).expect("written");
    };
    write("run.json", json!(about));
    write("verdicts.json", json!(verdicts));
    history::write(&dir.join("history.jsonl"), records).expect("written");
    std::fs::create_dir_all(dir.join("final")).expect("made");
    write("final/1.json", json!({"revision": 42, "state_hash": "cafe"}));
}

fn page_of(dir: &TempDir) -> String {
    let path = write(dir.path()).expect("a report");
    assert_eq!(path, dir.path().join("report.html"));
    std::fs::read_to_string(path).expect("readable")
}

/// The elements and attributes of a page, each of which must be closed where it belongs.
fn tags(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut elements, mut attributes) = (BTreeSet::new(), BTreeSet::new());
    let mut open: Vec<String> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closes what is open");
            continue;
        }
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !tag.ends_with('/') && !["meta", "input"].contains(&name.as_str()) {
            open.push(name.clone());
        }
        // Outside of quotes, words before `=` are the attributes.
        for (place, part) in tag[name.len()..].split('"').enumerate() {
            if place % 2 == 0 {
                attributes.extend(
                    part.split_whitespace()
                        .map(|word| word.trim_matches('=').to_owned()),
                );
            }
        }
        elements.insert(name);
        if open.last().is_some_and(|name| name == "style") {
            rest = &rest[rest.find("</style>").expect("the style ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    (elements, attributes)
}

#[test]
fn a_page_has_the_facts_of_its_run() {
    let page = page_of(&directory(&about("register"), &verdicts(), &stale_read()));
    for fact in [
        "<span class=\"badge fail\">fail</span> register",
        "partition, kill",
        "4711",
        "onward 0.1.0",
        "2026-01-02T03:04:05Z",
        "<code>onward-jepsen run --workload register --seed 4711</code>",
        "key 7 is not",
        "read 1 after 2 was written",
        "after 0.2 s",
        // The offending calls in the timeline, and the links to them.
        "<rect id=\"call-1\" class=\"ok bad\"",
        "<rect id=\"call-3\" class=\"ok bad\"",
        "<a href=\"#call-3\">3</a>",
        // A band from second 2 to 7 of 10, and the line of the kill.
        "<rect class=\"band n1\" x=\"20%\" y=\"34\" width=\"50%\"",
        "<line class=\"moment n0\" x1=\"60%\"",
        ">heal</text>",
        "latency of write",
        "operations / s",
        // Operations per kind: the three writes, two of them ok.
        "<td>write</td><td><i class=\"key ok\"></i>ok</td><td>2</td><td>0.2</td><td>5.0 ms</td><td>20.0 ms</td><td>20.0 ms</td>",
        "<td>write</td><td><i class=\"key info\"></i>info</td><td>1</td>",
        "<td>read</td><td><i class=\"key fail\"></i>fail</td><td>1</td>",
        "halves: 1 2 | 3",
        "<td class=\"n\">5.0 s</td>",
        "<td>42</td><td><code>cafe</code></td>",
    ] {
        assert!(page.contains(fact), "the page lacks {fact}");
    }
    tags(&page);
}

#[test]
fn neighbours_are_those_of_the_same_key_that_may_have_taken_place() {
    let dir = directory(&about("register"), &verdicts(), &stale_read());
    let page = page_of(&dir);
    let table = page.split("<table class=\"calls\">").nth(1).expect("a table");
    let table = table.split("</table>").next().expect("its end");
    assert!(table.contains("{&quot;key&quot;:7,&quot;value&quot;:1}"));
    assert!(!table.contains("&quot;key&quot;:8"), "another key");
    assert!(!table.contains("no_leader"), "it never took place");
    assert_eq!(table.matches(" gap\"").count(), 1, "where call 2 was left out");
    assert_eq!(table.matches("class=\"marked").count(), 2);
}

#[test]
fn everything_is_escaped() {
    let hostile = "</title></style><script>alert(1)</script>\" onload=\"x' --><img src=x onerror=y>&\u{202e}";
    let about = RunFile {
        nemeses: vec![hostile.to_owned()],
        version: hostile.to_owned(),
        started: hostile.to_owned(),
        command: hostile.to_owned(),
        ..about(hostile)
    };
    let verdict = Verdict {
        details: vec![hostile.to_owned()],
        calls: vec![0],
        ..Verdict::new(Kind::Property, hostile, Finding::Fail, hostile)
    };
    let records = [
        invoke(1, 0, hostile, json!({ hostile: hostile })),
        fault(2, hostile, Edge::Begin, hostile),
        fault(3, hostile, Edge::Moment, hostile),
        complete(4, 0, Outcome::Ok, json!(hostile), Some(hostile)),
        invoke(5, 1, hostile, json!(hostile)),
    ];
    let all = tempfile::tempdir().expect("temp dir");
    let dir = all.path().join("a\"><script>");
    std::fs::create_dir(&dir).expect("made");
    fill(&dir, &about, &[verdict], &records);
    std::fs::write(
        dir.join("final/2.json"),
        json!({"revision": hostile, "state_hash": hostile}).to_string(),
    )
    .expect("written");
    let index = write(all.path()).expect("an index");
    for path in [index, dir.join("report.html")] {
        let page = std::fs::read_to_string(&path).expect("readable");
        let (elements, attributes) = tags(&page);
        for banned in ["script", "img"] {
            assert!(!elements.contains(banned), "{} has <{banned}>", path.display());
        }
        let running: Vec<&String> = attributes.iter().filter(|name| name.starts_with("on")).collect();
        assert!(running.is_empty(), "{} has {running:?}", path.display());
        assert!(!page.contains('\u{202e}'));
        assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"));
    }
}

#[test]
fn a_run_that_broke_off_has_a_report_that_says_so() {
    let dir = directory(&about("register"), &[], &stale_read());
    std::fs::write(dir.path().join("history.jsonl"), "{\"type\":\"inv").expect("written");
    std::fs::remove_file(dir.path().join("verdicts.json")).expect("removed");
    let page = page_of(&dir);
    assert!(page.contains("<span class=\"badge unknown\">unknown</span> register"));
    assert!(page.contains("history.jsonl:1"));
    assert!(page.contains("Nobody has judged this run yet"));
    tags(&page);
}

#[test]
fn a_matrix_has_a_row_and_a_report_for_each_run() {
    let all = tempfile::tempdir().expect("temp dir");
    assert!(write(all.path()).is_err(), "nothing to report");
    let good = [Verdict::new(Kind::Property, "linearizable", Finding::Pass, "")];
    for (name, verdicts) in [
        ("register-1", &verdicts()[..]),
        ("append-2", &good),
        ("watch-3", &[]),
    ] {
        std::fs::create_dir(all.path().join(name)).expect("made");
        let about = about(name.split('-').next().unwrap_or_default());
        fill(&all.path().join(name), &about, verdicts, &stale_read());
    }
    let index = write(all.path()).expect("an index");
    let page = std::fs::read_to_string(index).expect("readable");
    tags(&page);
    assert!(page.contains("1 pass, 1 unknown, 1 fail; 15 operations, 6 faults"));
    for name in ["register-1", "append-2", "watch-3"] {
        assert!(page.contains(&format!("<a href=\"./{name}/report.html\">")));
        assert!(all.path().join(name).join("report.html").exists());
    }
    let markdown = std::fs::read_to_string(all.path().join("matrix.md")).expect("readable");
    assert!(markdown.contains("| register | partition, kill | 4711 | 5 | 1 | 2 | fail | pass | – |"));
}

#[test]
fn a_hundred_thousand_operations_make_a_page_that_a_browser_opens() {
    let mut records = vec![stage(0, StageName::Faults)];
    for n in 0..100_000_u64 {
        let (at, process) = (n * 600_000, n % 20);
        let value = json!({"key": n % 50, "value": "x".repeat(100)});
        records.push(invoke(
            at,
            process,
            if n % 3 == 0 { "write" } else { "read" },
            value,
        ));
        let outcome = match n % 50 {
            0 => Outcome::Fail,
            1 => Outcome::Info,
            _ => Outcome::Ok,
        };
        records.push(complete(
            at + 500_000,
            process,
            outcome,
            json!("y".repeat(100)),
            None,
        ));
    }
    let verdicts = [Verdict {
        calls: (0..100_000).step_by(997).collect(),
        ..Verdict::new(Kind::Property, "linearizable", Finding::Fail, "")
    }];
    let run = directory(&about("register"), &verdicts, &records);
    let page = page_of(&run);
    assert!(page.len() < 15_000_000, "{} bytes", page.len());
    assert_eq!(
        page.matches("<rect id=\"call-").count(),
        101,
        "each offender by itself"
    );
    tags(&page);
}
