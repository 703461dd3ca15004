//! Processes that outlive their node on purpose: the applications that it runs. They do not outlive the cluster.
//!
//! Nodes die with the harness and namespaces with their last process, so what a harness that was killed leaves behind is
//! only these. The next one finds them by their working directory, which leads to the mark of their harness.

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};

/// Says whose the directory of a cluster is.
const MARK: &str = "harness";

/// Claims the directory of a cluster for this process.
pub(super) fn claim(nodes: &Path) -> anyhow::Result<()> {
    let me = std::process::id();
    let mark = format!("{me} {}", started(me).unwrap_or_default());
    std::fs::write(nodes.join(MARK), mark).with_context(|| format!("cannot write to {}", nodes.display()))
}

/// Kills what works below `nodes`.
pub(super) fn end(nodes: &Path) {
    for (pid, _) in workers().filter(|(_, folder)| folder.starts_with(nodes)) {
        end_process(pid);
    }
}

/// Kills what harnesses left behind that are gone; how many processes that were.
pub(super) fn end_orphans() -> usize {
    let orphaned = |folder: &Path| {
        folder
            .ancestors()
            .filter(|folder| folder.file_name().is_some_and(|name| name == "nodes"))
            .filter_map(|nodes| std::fs::read_to_string(nodes.join(MARK)).ok())
            .any(|mark| is_gone(&mark))
    };
    let orphans: Vec<u32> = workers()
        .filter(|(_, folder)| orphaned(folder))
        .map(|(pid, _)| pid)
        .collect();
    orphans.iter().copied().for_each(end_process);
    orphans.len()
}

/// Whether the process of a mark is gone.
fn is_gone(mark: &str) -> bool {
    let Some((pid, start)) = mark.split_once(' ') else {
        return false;
    };
    let pid = pid.parse().ok();
    pid.is_some_and(|pid| started(pid).as_deref() != Some(start))
}

/// When a process was started, in ticks since the machine was: with its id, the only one ever.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19).map(str::to_owned)
}

/// All processes that can be looked at, with their working directories.
fn workers() -> impl Iterator<Item = (u32, PathBuf)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let folder = std::fs::read_link(entry.path().join("cwd")).ok()?;
        (pid != std::process::id()).then_some((pid, folder))
    })
}

fn end_process(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn worker(folder: &Path) -> Child {
        Command::new("sleep")
            .arg("600")
            .current_dir(folder)
            .spawn()
            .expect("sleep starts")
    }

    #[test]
    fn only_the_orphans_of_dead_harnesses_are_ended() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dir = dir.path().canonicalize().expect("exists");
        let clusters = ["mine", "theirs"].map(|name| dir.join(name).join("nodes"));
        for nodes in &clusters {
            std::fs::create_dir_all(nodes.join("1/data/apps")).expect("makes");
        }
        let [mine, theirs] = &clusters;
        claim(mine).expect("claims");
        let mut gone = Command::new("true").spawn().expect("true starts");
        gone.wait().expect("ends");
        std::fs::write(theirs.join(MARK), format!("{} 1", gone.id())).expect("writes");
        let mut live = worker(&mine.join("1/data/apps"));
        let mut orphan = worker(&theirs.join("1/data/apps"));
        assert!(end_orphans() >= 1);
        assert!(!orphan.wait().expect("ended").success());
        assert!(live.try_wait().expect("asks").is_none(), "it has a harness");
        end(mine);
        assert!(!live.wait().expect("ended").success());
    }
}
