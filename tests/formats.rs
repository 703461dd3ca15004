//! What earlier releases stored: each directory below `tests/formats` was written by one of them (`scripts/record-format`),
//! is read by this one, and comes to the state that it came to then.

use crate::support::ONWARD;
use crate::support::alone::{json, serve, text};
use std::path::{Path, PathBuf};
use std::process::Command;

fn recorded() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats");
    let each = std::fs::read_dir(&all).expect("formats were recorded");
    let paths: Vec<_> = each.map(|entry| entry.expect("an entry").path()).collect();
    assert!(!paths.is_empty(), "{}", all.display());
    paths
}

/// A copy of a recorded data directory.
fn unpack(format: &Path, name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(format.join(format!("{name}.tar.gz")))
        .arg("-C")
        .arg(dir.path())
        .status()
        .expect("tar runs");
    assert!(unpacked.success(), "{}", format.display());
    dir
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The line in which `onward verify` says at which revision the state is, and what its hash is.
fn standing(said: &str) -> &str {
    let line = said
        .lines()
        .find(|line| line.contains("state hash ") && line.starts_with("revision "));
    line.expect("verify says where the state stands")
}

#[test]
fn what_earlier_releases_stored_comes_to_the_same_state() {
    for format in recorded() {
        // From nothing, entry by entry; and from a snapshot on.
        for name in ["log", "snapshot"] {
            let data = unpack(&format, name);
            let verified = Command::new(ONWARD)
                .args(["verify", text(data.path())])
                .output()
                .expect("the binary runs");
            let said = String::from_utf8_lossy(&verified.stdout);
            assert!(verified.status.success(), "{} {name}: {said}", format.display());
            assert!(said.contains("applied anew: the same state hash"), "{said}");
            let then = read(&format.join(name));
            assert_eq!(standing(&said), standing(&then), "{} {name}", format.display());
        }
    }
}

#[test]
fn a_node_goes_on_where_an_earlier_release_stopped() {
    for format in recorded() {
        let data = unpack(&format, "snapshot");
        let log = data.path().join("onward.log");
        let (_node, [http, ..]) = serve(data.path(), &log, &["--cluster", "dev"]);
        let ask = |arguments: &[&str]| {
            let asked = Command::new(ONWARD)
                .args(arguments)
                .args(["--server", &http])
                .output();
            let asked = asked.expect("the binary runs");
            assert!(
                asked.status.success(),
                "{}: {arguments:?}: {}",
                format.display(),
                String::from_utf8_lossy(&asked.stderr)
            );
            String::from_utf8(asked.stdout).expect("UTF-8")
        };
        // The first line is a remark that names the revision, and raising the feature level moves that.
        let body = |text: &str| text.split_once('\n').expect("lines").1.to_owned();
        assert_eq!(body(&ask(&["export"])), body(&read(&format.join("export.yaml"))));
        assert_eq!(ask(&["kv", "get", "site/name"]), "tokyo-2");
        assert_eq!(ask(&["object", "get", "1"]), "ninety");
        ask(&["kv", "put", "site/name", "tokyo-3"]);
        assert_eq!(ask(&["kv", "get", "site/name"]), "tokyo-3");
        let (status, well) = json(&["cluster", "status", "--server", &http]);
        assert!(well && status["healthy"] == true, "{status}");
    }
}
