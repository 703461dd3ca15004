//! A thread with a network of its own, in which processes are started and sockets opened.
//!
//! A namespace that [`Place::apart`] makes has no name: the kernel takes it away, with every interface in it, once the
//! thread and the processes that it started are gone, however the harness ended. There is nothing to clean up, and
//! nothing that a killed run leaves behind.

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, unshare};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use tokio::runtime::{self, Handle};
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// A thread, its runtime, and its network namespace. Children that it started die with it.
pub struct Place {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    runtime: Handle,
    namespace: File,
}

impl Place {
    /// A place in the harness's own network.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn here(name: &str) -> anyhow::Result<Place> {
        Place::open(name, || Ok(()))
    }

    /// A place in a new network namespace, in which not even loopback is up.
    ///
    /// # Errors
    /// Where this process may not make one: it takes root.
    pub fn apart(name: &str) -> anyhow::Result<Place> {
        Place::open(name, || {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (it takes root)")
        })
    }

    fn open(
        name: &str,
        enter: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Place> {
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let (opened, open) = std::sync::mpsc::channel();
        let body = move || {
            let ready = || -> anyhow::Result<_> {
                enter()?;
                let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                Ok((runtime, File::open("/proc/thread-self/ns/net")?))
            };
            let runtime = match ready() {
                Ok((runtime, namespace)) => {
                    // Nobody waits any more if this fails, and the loop below ends at once.
                    let _ = opened.send(Ok((runtime.handle().clone(), namespace)));
                    runtime
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            runtime.block_on(async {
                while let Some(job) = waiting.recv().await {
                    job();
                }
            });
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        let (runtime, namespace) = open.recv().context("a thread ended before it began")??;
        Ok(Place {
            jobs: Some(jobs),
            thread: Some(thread),
            runtime,
            namespace,
        })
    }

    /// Runs `job` on the thread. It must be short: everything else in the place waits for it.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            // Whoever asked may have gone away meanwhile.
            let _ = done.send(job());
        });
        let jobs = self.jobs.as_ref().expect("taken only when dropped");
        jobs.send(job).expect("the thread ends only after this");
        result.await.expect("a job that panics ends the harness")
    }

    /// The runtime whose tasks live in the place.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// A path of the namespace, for as long as this process lives, as `ip link ... netns` takes it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()).into()
    }

    /// Runs a program in the place, feeds it `input`, and returns what it prints.
    ///
    /// # Errors
    /// Where it cannot be started, or fails; the error has what it says.
    pub async fn command<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: &[A],
        input: &str,
    ) -> anyhow::Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        let (name, input) = (program.to_owned(), input.to_owned());
        let ran = self.runtime.spawn(async move {
            // From here, so that the thread that waits is one of the place, too.
            tokio::task::spawn_blocking(move || run_command(command, &name, &input)).await
        });
        ran.await??
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked, then, and has said so.
            let _ = thread.join();
        }
    }
}

fn run_command(mut command: Command, name: &str, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    // A program that fails before it has read everything says why on its way out.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
