//! Backups and restores that break off in the middle, and disks that are full.

use super::{backup, fill, put};
use crate::support::alone::{json, onward, text};
use crate::support::{Cluster, ONWARD, PATIENCE, Process, eventually, signal};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts a backup into `file`, and waits until some of it was received.
fn begin(cluster: &Cluster, file: &Path) -> Option<Child> {
    let mut child = Command::new(ONWARD)
        .env("ONWARD_SERVER", &cluster.node(1).http)
        .args(["cluster", "backup", text(file)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the CLI runs");
    let part = file.with_extension("backup.part");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if child.try_wait().expect("a child").is_some() {
            return None;
        }
        if part.metadata().is_ok_and(|part| part.len() > 0) {
            return Some(child);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no backup began in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_backup_that_is_broken_off_leaves_no_file() {
    let cluster = Cluster::start(1);
    let files = tempfile::tempdir().expect("a directory");
    fill(&cluster, 48);
    let file = files.path().join("site.backup");
    let node = cluster.node(1).clone();

    // The client dies. One that was faster is told by its file, and tried again.
    let caught = (0..20).any(|_| {
        let _ = std::fs::remove_file(&file);
        let Some(mut client) = begin(&cluster, &file) else {
            return false;
        };
        signal(client.id(), Signal::SIGKILL);
        let status = client.wait().expect("a child");
        status.signal() == Some(Signal::SIGKILL as i32) && !file.exists()
    });
    assert!(caught, "a client that dies leaves no file under the final name");
    // What it left is in nobody's way, and the server let go of its copy.
    backup(&cluster, &file);
    assert_eq!(names(files.path()), ["site.backup"]);
    let frozen = || {
        names(&node.dir.join("data/snap"))
            .into_iter()
            .any(|name| name.starts_with("frozen"))
    };
    eventually("the copy is deleted", || !frozen());

    // The server dies.
    let mut revived: Option<Process> = None;
    for _ in 0..20 {
        let _ = std::fs::remove_file(&file);
        let Some(client) = begin(&cluster, &file) else {
            continue;
        };
        let pid = revived.as_ref().map_or(node.pid, Process::id);
        signal(pid, Signal::SIGKILL);
        let output = client.wait_with_output().expect("a child");
        eventually("the killed node let go of its directory", || {
            std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(true, |files| files.count() == 0)
        });
        drop(revived.replace(cluster.revive(1)));
        eventually("a restart deletes the copy", || !frozen());
        if output.status.success() {
            continue;
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("broke off"), "{stderr}");
        assert_eq!(
            names(files.path()),
            Vec::<String>::new(),
            "neither the file nor a part of it"
        );
        return;
    }
    panic!("the server was never killed in the middle");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// What a restore that was killed leaves is no data directory, for anybody.
#[test]
fn a_restore_that_is_broken_off_leaves_nothing_that_starts() {
    let cluster = Cluster::start(1);
    let files = tempfile::tempdir().expect("a directory");
    fill(&cluster, 24);
    let file = files.path().join("site.backup");
    backup(&cluster, &file);
    let data = files.path().join("data");
    let caught = (0..20).any(|_| {
        let _ = std::fs::remove_dir_all(&data);
        let mut restoring = Command::new(ONWARD)
            .args(["restore", text(&file), "--dir", text(&data)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        while restoring.try_wait().expect("a child").is_none() && !data.join("state/1").exists() {
            std::thread::sleep(Duration::from_micros(200));
        }
        signal(restoring.id(), Signal::SIGKILL);
        restoring.wait().expect("a child").signal() == Some(Signal::SIGKILL as i32)
    });
    assert!(caught, "no restore was killed in the middle");
    for command in [
        &[
            "serve",
            "--data-dir",
            text(&data),
            "--http-listen",
            "127.0.0.1:0",
            "--peer-listen",
            "127.0.0.1:0",
        ][..],
        &["restore", text(&file), "--dir", text(&data)],
    ] {
        let refused = onward(command);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(
            stderr.contains("restor") && stderr.contains(text(&data)),
            "{command:?}: {stderr}"
        );
    }
    let (verdict, well) = json(&["verify", text(&data)]);
    assert!(!well && verdict.to_string().contains("broken off"), "{verdict}");
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let cluster = Cluster::start(1);
    fill(&cluster, 4);
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("site.backup");
    backup(&cluster, &file);
    // A disk of its own, smaller than the backup, which nobody else sees.
    let mount = files.path().join("small");
    std::fs::create_dir(&mount).expect("a directory");
    let script = "mount -t tmpfs -o size=1m none \"$1\" || exit 77
        \"$0\" cluster backup \"$1/site.backup\"; echo backup $?; ls -A \"$1\"
        \"$0\" restore \"$2\" --dir \"$1/data\"; echo restore $?; ls -A \"$1\"";
    let output = Command::new("unshare")
        .args([
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            ONWARD,
            text(&mount),
            text(&file),
        ])
        .env("ONWARD_SERVER", cluster.servers())
        .stdin(Stdio::null())
        .output()
        .expect("unshare runs");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout, "backup 1\nrestore 1\n", "{stderr}");
    for said in ["nothing was backed up", "nothing was restored"] {
        let line = stderr.lines().find(|line| line.contains(said));
        assert!(
            line.is_some_and(|line| line.contains("No space left on device")),
            "{stderr}"
        );
    }
    put(&cluster, 1, "after", "the node serves on".to_owned());
}
