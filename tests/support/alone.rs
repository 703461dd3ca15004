//! The binary by itself: a command that needs no cluster, and a node of a data directory.

use super::{ONWARD, Process, eventually, free_ports};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Runs the binary, which needs no cluster for it.
pub fn onward(arguments: &[&str]) -> Output {
    Command::new(ONWARD)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// Runs the binary with `-o json`; what it says, and whether it exited 0.
pub fn json(arguments: &[&str]) -> (Value, bool) {
    let output = onward(&[arguments, &["-o", "json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?} says no JSON: {error}; {stderr}"));
    (said, output.status.success())
}

/// Starts a node in `dir` and waits until it is ready; answers with its HTTP URL, and the addresses of its
/// peers and its ingress.
pub fn serve(dir: &Path, log: &Path, arguments: &[&str]) -> (Process, [String; 3]) {
    let [http, peer, dns, ingress] = free_ports().map(|address| address.to_string());
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(log)
        .expect("a log");
    let child = Command::new(ONWARD)
        .args(["serve", "--exit-with-parent", "--data-dir", text(dir)])
        .args(["--http-listen", &http, "--peer-listen", &peer])
        .args(["--dns-listen", &dns, "--ingress-listen", &ingress])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("a node starts");
    let process = Process::of(child);
    let http = format!("http://{http}");
    let client = reqwest::blocking::Client::new();
    eventually("the node is ready", || {
        let ready = client.get(format!("{http}/readyz")).send();
        ready.is_ok_and(|answer| answer.status().is_success())
    });
    (process, [http, peer, ingress])
}
