//! Whole runs by the command, on real processes: one that passes, and those that must not.
//!
//! The binary under test is the one beside this program, which a build of the workspace puts there, or what
//! `ONWARD_BINARY` names.

use onward_jepsen::history::{Edge, Outcome, StageName};
use onward_jepsen::judge;
use onward_jepsen::net::Isolation;
use onward_jepsen::run::{Directory, Options, Recorder};
use onward_jepsen::verdict::{Finding, Kind, Verdict, overall};
use onward_jepsen::workload::Demand;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_onward-jepsen"))
}

fn onward() -> PathBuf {
    let named = std::env::var_os("ONWARD_BINARY").map(PathBuf::from);
    let binary = named.unwrap_or_else(|| program().with_file_name("onward"));
    assert!(
        binary.exists(),
        "these tests run the real binary: `cargo build -p onward` first, or name one with ONWARD_BINARY"
    );
    binary
}

fn run(dir: &Path, binary: &Path) -> Output {
    Command::new(program())
        .args(["run", "--workload", "register", "--time", "2", "--seed", "4"])
        .args(["--isolation", "loopback", "--dir"])
        .arg(dir)
        .arg("--binary")
        .arg(binary)
        .output()
        .expect("the program runs")
}

/// The directory of the only run in `dir`, and its verdicts.
fn verdicts(dir: &Path) -> (PathBuf, Vec<Verdict>) {
    let mut runs = std::fs::read_dir(dir).expect("the directory of runs");
    let run = runs.next().expect("a run").expect("readable").path();
    let text = std::fs::read(run.join("verdicts.json")).expect("verdicts");
    (run, serde_json::from_slice(&text).expect("verdicts"))
}

#[test]
fn a_run_on_a_sound_cluster_passes_and_is_judged_alike_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(dir.path(), &onward());
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    let (run, first) = verdicts(dir.path());
    assert!(
        told.contains("--seed 4"),
        "it does not say how to repeat it: {told}"
    );
    assert!(
        told.contains(&*run.to_string_lossy()),
        "it does not say where it is: {told}"
    );
    for kind in [Kind::Harness, Kind::Property, Kind::Liveness, Kind::Coverage] {
        assert!(
            first.iter().any(|verdict| verdict.kind == kind),
            "{kind:?} is not judged"
        );
    }
    let checked = Command::new(program())
        .arg("check")
        .arg(&run)
        .output()
        .expect("it runs");
    assert!(checked.status.success());
    assert_eq!(verdicts(dir.path()).1, first);
}

#[test]
fn a_run_against_nothing_is_a_failure_of_the_harness() {
    let dir = tempfile::tempdir().expect("a directory");
    for binary in ["/bin/false", "/nowhere/onward"] {
        let dir = dir.path().join(binary.trim_start_matches('/').replace('/', "-"));
        let output = run(&dir, Path::new(binary));
        assert!(!output.status.success(), "{binary} passes");
        let (_, verdicts) = verdicts(&dir);
        let harness = verdicts.iter().find(|verdict| verdict.kind == Kind::Harness);
        assert_eq!(
            harness.map(|verdict| verdict.finding),
            Some(Finding::Fail),
            "{binary}"
        );
    }
}

/// A directory of a run that is told and not made.
fn directory(dir: &Path, name: &str) -> Directory {
    Directory::create(&Options {
        workload: "register".to_owned(),
        nemeses: Vec::new(),
        nodes: 3,
        time: Duration::from_secs(1),
        seed: 1,
        binary: PathBuf::from("/bin/false"),
        other_binary: None,
        isolation: Isolation::Loopback,
        dir: dir.to_owned(),
        name: Some(name.to_owned()),
        clients: 1,
        rate: None,
    })
    .expect("a directory")
}

/// A run whose clients were told `outcome` of all that they asked.
fn told(dir: &Path, outcome: Outcome) -> Finding {
    let directory = directory(dir, &format!("{outcome:?}"));
    let recorder = Recorder::create(directory.path()).expect("a history");
    recorder.stage(StageName::Faults);
    let demand = Demand::read("read", serde_json::json!({"key": "register/1"}));
    recorder.invoke(0, 1, &demand, None);
    let mut answer =
        onward_jepsen::client::Answer::ok(serde_json::json!({"value": null, "modified": 0}), Some(1));
    answer.outcome = outcome;
    answer.error = Some("connection refused".to_owned());
    recorder.complete(0, 1, &demand, &answer);
    recorder.fault("kill", Edge::Moment, "node 1", vec![1]);
    recorder.stage(StageName::End);
    recorder.finish().expect("a whole history");
    directory.finish(None).expect("writable");
    let verdicts = judge::judge(&directory);
    assert_ne!(
        overall(&verdicts),
        Finding::Pass,
        "nothing of a cluster was ever read"
    );
    let harness = verdicts.iter().find(|verdict| verdict.kind == Kind::Harness);
    harness.expect("a verdict on the harness").finding
}

#[test]
fn clients_that_never_connect_are_a_failure_of_the_harness() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(told(dir.path(), Outcome::Fail), Finding::Fail);
    assert_eq!(told(dir.path(), Outcome::Info), Finding::Fail);
    assert_eq!(told(dir.path(), Outcome::Ok), Finding::Pass);
}

#[test]
fn a_node_that_cannot_be_read_at_the_end_is_no_failure_of_the_harness() {
    let dir = tempfile::tempdir().expect("a directory");
    let judged = |name, stages: &[StageName]| {
        let directory = directory(dir.path(), name);
        let recorder = Recorder::create(directory.path()).expect("a history");
        for stage in stages {
            recorder.stage(*stage);
        }
        recorder.finish().expect("a whole history");
        directory
            .finish(Some("it went wrong".to_owned()))
            .expect("writable");
        let verdicts = judge::judge(&directory);
        let failed = verdicts.iter().find(|verdict| verdict.finding == Finding::Fail);
        let failed = failed.expect("it failed");
        (failed.kind, failed.summary.clone())
    };
    let why = "it went wrong".to_owned();
    let reading = [StageName::Faults, StageName::FinalReads];
    assert_eq!(judged("reading", &reading), (Kind::Liveness, why.clone()));
    assert_eq!(judged("before", &reading[..1]), (Kind::Harness, why.clone()));
    let read = [reading[0], reading[1], StageName::End];
    assert_eq!(judged("saving", &read), (Kind::Harness, why));
}

#[test]
fn a_workload_that_does_not_exist_is_named_and_so_are_those_that_do() {
    // Where runs go by default is below the current directory.
    let dir = tempfile::tempdir().expect("temp dir");
    let output = Command::new(program())
        .args(["run", "--workload", "nonsense"])
        .current_dir(dir.path())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(told.contains("nonsense") && told.contains("register"), "{told}");
}
