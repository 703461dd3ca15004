//! The clock of a node, as libfaketime shows it: the real one, moved and stretched as a file says that it reads anew each
//! time. Monotonic clocks stay honest.

use anyhow::{Context, ensure};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a process may take until its libraries are loaded, on a busy machine.
const LOADING: Duration = Duration::from_secs(2);

/// How far a clock is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Skew {
    /// How many milliseconds it is ahead.
    pub ahead_ms: i64,
    /// How many seconds pass on it in one.
    pub rate: f64,
}

impl Default for Skew {
    fn default() -> Self {
        Skew {
            ahead_ms: 0,
            rate: 1.0,
        }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ahead_ms != 0 {
            write!(f, "{:+} ms", self.ahead_ms)
        } else {
            write!(f, "speed x{}", self.rate)
        }
    }
}

/// The file that a node's clock follows.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// A clock that is right.
    pub(super) fn make(folder: &Path) -> anyhow::Result<Clock> {
        let clock = Clock {
            file: folder.join("clock"),
        };
        clock.set(Skew::default())?;
        Ok(clock)
    }

    /// From now on it is off by this much.
    pub(super) fn set(&self, skew: Skew) -> anyhow::Result<()> {
        let text = text(skew);
        // By rename, so that nobody reads half a line.
        let fresh = self.file.with_extension("fresh");
        std::fs::write(&fresh, &text)
            .and_then(|()| std::fs::rename(&fresh, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        let read = std::fs::read_to_string(&self.file)?;
        ensure!(read == text, "the clock was set to {text}, and is {read}");
        Ok(())
    }

    /// How far a program that follows the clock finds itself ahead, in ms.
    pub(super) fn ahead_ms(&self, library: &Path) -> anyhow::Result<i64> {
        let output = Command::new("date")
            .arg("+%s%3N")
            .envs(self.environment(library))
            .output()
            .context("cannot run date")?;
        let shown: i64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
        Ok(shown - chrono::Utc::now().timestamp_millis())
    }

    /// What a process needs in its environment to follow the file.
    pub(super) fn environment(&self, library: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Times of files are those of the machine.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}

/// That a process has libfaketime loaded, or loads it now: it may just have been started.
pub(super) async fn follows(pid: u32) -> anyhow::Result<()> {
    let until = Instant::now() + LOADING;
    loop {
        let maps =
            std::fs::read_to_string(format!("/proc/{pid}/maps")).context("cannot look at a process")?;
        if maps.contains("libfaketime") {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "process {pid} follows the clock of the machine"
        );
        tokio::time::sleep(LOADING / 100).await;
    }
}

/// As faketime(1) takes it.
fn text(skew: Skew) -> String {
    let sign = if skew.ahead_ms < 0 { '-' } else { '+' };
    let ahead = Duration::from_millis(skew.ahead_ms.unsigned_abs());
    let (seconds, millis) = (ahead.as_secs(), ahead.subsec_millis());
    if (skew.rate - 1.0).abs() < f64::EPSILON {
        format!("{sign}{seconds}.{millis:03}\n")
    } else {
        format!("{sign}{seconds}.{millis:03} x{:.4}\n", skew.rate)
    }
}

/// Where libfaketime is.
///
/// # Errors
/// Where it is not installed.
pub(super) fn library() -> anyhow::Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .context("libfaketime is missing: see scripts/install-deps")
}

/// Takes away what libfaketime leaves in shared memory when its process is killed.
pub(super) fn forget(pid: u32) {
    for name in ["sem.faketime_sem", "faketime_shm"] {
        // Not there where the process ended by itself.
        let _ = std::fs::remove_file(format!("/dev/shm/{name}_{pid}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_is_written_as_faketime_reads_it() {
        let skew = |ahead_ms, rate| text(Skew { ahead_ms, rate });
        assert_eq!(skew(0, 1.0), "+0.000\n");
        assert_eq!(skew(-60_250, 1.0), "-60.250\n");
        assert_eq!(skew(5_000, 1.05), "+5.000 x1.0500\n");
    }
}
