//! A process of the binary under test: started, signalled, waited for, and looked at through `/proc`.

use crate::net::Place;
use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a signal may take to have its effect.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a node that is asked to stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// A process that was started and not yet waited for.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: Pid,
    paused: bool,
}

/// What to start.
pub(super) struct Order<'a> {
    /// The program.
    pub(super) binary: &'a Path,
    /// Its configuration.
    pub(super) config: &'a Path,
    /// What it says goes to the end of this file.
    pub(super) log: &'a Path,
    /// What its environment has besides the harness's own.
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Process {
    /// Starts `onward serve`. It is killed when the harness is gone, even while it is paused.
    pub(super) async fn start(place: &Place, order: Order<'_>) -> anyhow::Result<Process> {
        let log = File::options().create(true).append(true).open(order.log);
        let log = log.with_context(|| format!("cannot open {}", order.log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "env"]);
        // Through `env`, so that a library to preload is loaded by the node alone.
        for (name, value) in order.environment {
            command.arg(format!("{name}={value}"));
        }
        command
            .arg(order.binary)
            .args(["serve", "--config"])
            .arg(order.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C goes to the foreground group, and from the harness to its nodes.
            .process_group(0);
        let child = place.run(move || command.spawn()).await;
        let child = child.context("cannot start a node (with setpriv and env)")?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a strange process id")?);
        Ok(Process {
            child,
            pid,
            paused: false,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn paused(&self) -> bool {
        self.paused
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for a node")
    }

    /// Kills it and waits until it is gone.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.strike()?;
        self.gone().await
    }

    /// Kills it without waiting for anything.
    pub(super) fn strike(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// Asks it to stop and waits until it has.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        // Only one that stands has to be let go on, and one that does not may be gone by now.
        if self.paused {
            self.resume().await?;
        }
        self.gone_within(STOP_PATIENCE).await
    }

    /// Stops its clockwork: it does nothing more, and does not know.
    pub(super) async fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.paused = true;
        self.in_state(|state| state == 'T').await
    }

    /// Lets it go on.
    pub(super) async fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.paused = false;
        self.in_state(|state| state != 'T').await
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // Once it is waited for, its id may be another's.
        ensure!(self.ended()?.is_none(), "the process had ended before {signal}");
        kill(self.pid, signal).with_context(|| format!("{signal} could not be sent"))
    }

    /// Waits until it is gone.
    pub(super) async fn gone(&mut self) -> anyhow::Result<()> {
        self.gone_within(SIGNAL_PATIENCE).await
    }

    async fn gone_within(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while self.ended()?.is_none() {
            ensure!(Instant::now() < deadline, "process {} is still there", self.pid);
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn in_state(&mut self, wanted: impl Fn(char) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + SIGNAL_PATIENCE;
        loop {
            match state(self.id())? {
                Some(state) if wanted(state) => return Ok(()),
                None if self.ended()?.is_some() => return Ok(()),
                state if Instant::now() > deadline => bail!("process {} is in state {state:?}", self.pid),
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.strike().is_ok() {
            // Nothing is left to be done about one that cannot be waited for.
            let _ = self.child.wait();
        }
    }
}

/// What a process is at, as proc_pid_stat(5) has it; `None` if there is none.
fn state(pid: u32) -> anyhow::Result<Option<char>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The name of the program is in parentheses, and may have some itself.
        Ok(stat) => Ok(stat
            .rsplit_once(") ")
            .and_then(|(_, fields)| fields.chars().next())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot look at a process"),
    }
}
