//! The process driver: an instance is a supervised process in a process group of its own, which outlives this node's
//! process and is found again by it.
//!
//! Each instance has a folder with what is kept of it: a handle (port, process id, start time, boot), the exit status
//! that its supervisor leaves, and its log. The handle is written with the port *before* the process is started; every
//! process carries the mark `ONWARD_INSTANCE=CLUSTER/NODE/APP/RELEASE/ORDINAL@REVISION` in its environment. So what a
//! crash between start and note left behind is found by its mark, and nothing is ever started twice.
//!
//! The supervisor is a few lines of shell: it waits for the run command and writes down how that ended.
//!
//! Limits: [`LOG_BYTES_MAX`] and one older file of that size for each instance.

use super::procfs::{self, Pid};
use super::{Driver, DriverError, InstanceId, Order, Status};
use nix::sys::signal::{Signal, killpg};
use onward_statemachine::NodeId;
use onward_statemachine::deployments::instances::Process;
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::ports::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The size at which a log is put aside, in bytes.
pub const LOG_BYTES_MAX: u64 = 8 << 20;

/// How long to look again while a process that was killed goes away.
const KILL_TIME: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Waits for the run command and leaves its exit status. `$1` is the command, `$2` the file. A stop signal goes to the
/// whole group; the supervisor itself only keeps waiting.
const SUPERVISOR: &str = r#"
trap : TERM INT HUP
sh -c "$1" &
child=$!
exec >/dev/null 2>&1
wait "$child"; status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
printf '%s\n' "$status" >"$2.new" && mv "$2.new" "$2"
"#;

/// The variable that marks the processes of an instance.
const MARK: &str = "ONWARD_INSTANCE";

/// Runs instances as processes of this machine.
#[derive(Debug)]
pub struct ProcessDriver {
    folder: PathBuf,
    address: IpAddr,
    /// `CLUSTER/NODE/`: what the marks of this node begin with.
    scope: String,
    boot: String,
}

/// What is kept of an instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handle {
    /// [`ProcessDriver::scope`], for those who have nothing but the folder.
    scope: String,
    port: u16,
    boot: String,
    /// Its supervisor, once that is known to have been started.
    pid: Option<u32>,
    start_ticks: Option<u64>,
}

impl ProcessDriver {
    /// A driver that keeps its handles below `folder` and has instances listen on `address`.
    pub fn new(folder: PathBuf, address: IpAddr, cluster: uuid::Uuid, node: NodeId) -> Self {
        ProcessDriver {
            folder,
            address,
            scope: format!("{cluster}/{node}/"),
            boot: procfs::boot_id(),
        }
    }

    fn home(&self, id: &InstanceId) -> PathBuf {
        let name = format!("{}-{}@{}", id.release, id.ordinal, id.created);
        self.folder.join(&id.app.0).join(name)
    }

    /// Where an instance's output goes.
    pub fn log_file(&self, id: &InstanceId) -> PathBuf {
        self.home(id).join("log")
    }

    fn handle(&self, id: &InstanceId) -> Option<Handle> {
        let text = fs::read(self.home(id).join("handle.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write_handle(&self, id: &InstanceId, handle: &Handle) -> Result<(), DriverError> {
        let home = self.home(id);
        let text = serde_json::to_vec(handle).expect("a handle has nothing that JSON refuses");
        write_durably(&home.join("handle.json"), &text)
            .map_err(DriverError::io(format!("writing the handle of instance {id}")))
    }

    /// Every living process of an instance, its supervisor or not.
    fn processes(&self, id: &InstanceId) -> Vec<procfs::Marked> {
        let mark = format!("{MARK}={}{id}", self.scope);
        let mut found = procfs::marked(&mark);
        found.retain(|process| process.value.is_empty());
        found
    }

    fn described(&self, handle: &Handle, supervisor: Pid) -> Status {
        Status::Running(Process {
            address: self.address.to_string(),
            port: handle.port,
            pid: supervisor.pid,
            start_ticks: supervisor.start_ticks,
        })
    }

    fn exit(&self, id: &InstanceId) -> Option<String> {
        let text = fs::read_to_string(self.home(id).join("exit")).ok()?;
        let code: i32 = text.trim().parse().ok()?;
        let how = match code {
            0..=128 => format!("it exited with status {code}"),
            _ => match Signal::try_from(code - 128) {
                Ok(signal) => format!("it was ended by {signal}"),
                Err(_) => format!("it exited with status {code}"),
            },
        };
        Some(match last_line(&self.log_file(id)) {
            Some(line) => format!("{how}; its last output: {line}"),
            None => how,
        })
    }

    /// The supervisor that a handle names, if it lives.
    fn supervisor(&self, handle: &Handle) -> Option<Pid> {
        let process = Pid {
            pid: handle.pid?,
            start_ticks: handle.start_ticks?,
        };
        (handle.boot == self.boot && procfs::lives(process)).then_some(process)
    }

    fn start_now(&self, order: &Order) -> Result<Status, DriverError> {
        let id = &order.id;
        let handle = match self.handle(id) {
            Some(handle) if mutant::on(Mutant::RolloutStepRepeated) => handle,
            Some(handle) if handle.pid.is_some() || handle.boot != self.boot => return Ok(self.status(id)),
            Some(handle) => {
                // A crash came after the intention; whether before or after the start, the mark or the exit tells.
                if let Some(supervisor) = self.processes(id).into_iter().find(procfs::Marked::leads) {
                    return self.note(id, handle, supervisor.process);
                }
                if self.exit(id).is_some() {
                    return Ok(self.status(id));
                }
                handle
            }
            None => {
                let home = self.home(id);
                for folder in [home.join("home"), home.join("tmp")] {
                    fs::create_dir_all(&folder)
                        .map_err(DriverError::io(format!("making {}", folder.display())))?;
                }
                let handle = Handle {
                    scope: self.scope.clone(),
                    port: free_port(self.address).map_err(DriverError::io("finding a free port"))?,
                    boot: self.boot.clone(),
                    pid: None,
                    start_ticks: None,
                };
                self.write_handle(id, &handle)?;
                handle
            }
        };
        let pid = self.spawn(order, handle.port)?;
        match procfs::identify(pid) {
            Some(supervisor) => self.note(id, handle, supervisor),
            // It has ended already.
            None => {
                let gone = Pid { pid, start_ticks: 0 };
                self.note(id, handle, gone)?;
                Ok(self.status(id))
            }
        }
    }

    fn note(&self, id: &InstanceId, mut handle: Handle, supervisor: Pid) -> Result<Status, DriverError> {
        handle.pid = Some(supervisor.pid);
        handle.start_ticks = Some(supervisor.start_ticks);
        self.write_handle(id, &handle)?;
        Ok(self.described(&handle, supervisor))
    }

    fn spawn(&self, order: &Order, port: u16) -> Result<u32, DriverError> {
        let id = &order.id;
        let home = self.home(id);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(id))
            .map_err(DriverError::io(format!("opening the log of instance {id}")))?;
        let errors = log
            .try_clone()
            .map_err(DriverError::io(format!("opening the log of instance {id}")))?;
        let mut command = tokio::process::Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "onward-instance", &order.run])
            .arg(home.join("exit"))
            .current_dir(&order.tree)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LANG", "C.UTF-8")
            .env("HOME", home.join("home"))
            .env("TMPDIR", home.join("tmp"))
            .envs(&order.env)
            .env("HOST", self.address.to_string())
            .env("PORT", port.to_string())
            .env("ONWARD_APP", &id.app.0)
            .env("ONWARD_RELEASE", id.release.to_string())
            .env(MARK, format!("{}{id}", self.scope))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let mut child = command.spawn().map_err(DriverError::io(format!(
            "starting instance {id} in {}",
            order.tree.display()
        )))?;
        let pid = child.id().expect("a child that was not waited for has an id");
        // As long as this process is its parent, somebody has to take note of its end.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        Ok(pid)
    }

    async fn stop_now(&self, id: &InstanceId, grace: Duration) -> Result<(), DriverError> {
        let mut found = self.processes(id);
        signal(&found, Signal::SIGTERM);
        let give_up = Instant::now() + grace;
        while !found.is_empty() && Instant::now() < give_up {
            tokio::time::sleep(POLL).await;
            found.retain(|process| procfs::lives(process.process));
            if found.is_empty() {
                found = self.processes(id);
            }
        }
        let give_up = Instant::now() + KILL_TIME;
        loop {
            let left = self.processes(id);
            if left.is_empty() {
                return Ok(());
            }
            signal(&left, Signal::SIGKILL);
            if Instant::now() >= give_up {
                return Err(DriverError::Immortal { id: id.clone() });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Driver for ProcessDriver {
    fn start(&self, order: Order) -> BoxFuture<'_, Result<Status, DriverError>> {
        Box::pin(async move { self.start_now(&order) })
    }

    fn status(&self, id: &InstanceId) -> Status {
        let Some(handle) = self.handle(id) else {
            return Status::Absent;
        };
        if let Some(supervisor) = self.supervisor(&handle) {
            return self.described(&handle, supervisor);
        }
        if let Some(reason) = self.exit(id) {
            return Status::Exited { reason };
        }
        let unnoted = |handle: &Handle| handle.pid.is_none() && handle.boot == self.boot;
        if unnoted(&handle) {
            return match self.processes(id).into_iter().find(procfs::Marked::leads) {
                Some(supervisor) => self.described(&handle, supervisor.process),
                None => Status::Absent,
            };
        }
        let reason = match handle.boot == self.boot {
            true => "it is gone, and so is its supervisor: killed from outside",
            false => "the machine was started anew since",
        };
        Status::Exited {
            reason: reason.to_owned(),
        }
    }

    fn stop(&self, id: &InstanceId, grace: Duration) -> BoxFuture<'_, Result<(), DriverError>> {
        let id = id.clone();
        Box::pin(async move { self.stop_now(&id, grace).await })
    }

    fn forget(&self, id: &InstanceId) {
        let home = self.home(id);
        if let Err(error) = fs::remove_dir_all(&home)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %home.display(), "an ended instance's folder cannot be removed");
        }
        // Gone with the app's last instance; not empty before, and then it stays.
        let _ = fs::remove_dir(self.folder.join(&id.app.0));
    }

    fn known(&self) -> Vec<InstanceId> {
        let mut ids: Vec<InstanceId> = kept(&self.folder);
        let prefix = format!("{MARK}={}", self.scope);
        ids.extend(
            procfs::marked(&prefix)
                .iter()
                .filter_map(|found| InstanceId::parse(&found.value)),
        );
        ids.sort();
        ids.dedup();
        ids
    }

    fn tend(&self) {
        for id in kept(&self.folder) {
            if let Err(error) = put_aside(&self.log_file(&id)) {
                tracing::warn!(%error, instance = %id, "an instance's log cannot be put aside");
            }
        }
    }
}

/// Ends every instance that has a handle below `folder`, whichever cluster and node it is of.
pub(crate) async fn stop_all(folder: &Path, grace: Duration) -> Result<(), DriverError> {
    let drivers = kept(folder).into_iter().filter_map(|id| {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        let mut driver = ProcessDriver::new(folder.to_owned(), localhost, uuid::Uuid::nil(), NodeId(0));
        driver.scope = driver.handle(&id)?.scope;
        Some((driver, id))
    });
    let stops = drivers.map(|(driver, id)| async move { driver.stop_now(&id, grace).await });
    futures::future::try_join_all(stops).await.map(|_| ())
}

/// The instances that have a folder.
fn kept(folder: &Path) -> Vec<InstanceId> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    };
    let mut ids = Vec::new();
    for app in names(folder) {
        for name in names(&folder.join(&app)) {
            let text = format!("{app}/{}", name.replacen('-', "/", 1));
            ids.extend(InstanceId::parse(&text));
        }
    }
    ids
}

/// Copies a log that has grown too large aside and empties it; its writers append, so they go on at its new end.
fn put_aside(log: &Path) -> std::io::Result<()> {
    let length = match fs::metadata(log) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length > LOG_BYTES_MAX {
        fs::copy(log, log.with_extension("old"))?;
        File::options().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}

/// The last line of a log that is not blank, in bounded length.
pub(crate) fn last_line(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2048))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(400).collect())
}

fn free_port(address: IpAddr) -> std::io::Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

/// Writes a file so that after a crash it is there whole or not at all.
fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Sends a signal to every process group that one of these is in. A group is as old as its processes, and none but an
/// instance's own processes can be in it.
fn signal(processes: &[procfs::Marked], signal: Signal) {
    let groups: BTreeSet<u32> = processes.iter().map(|process| process.group).collect();
    for group in groups {
        // It may have ended meanwhile.
        let _ = killpg(nix::unistd::Pid::from_raw(group.cast_signed()), signal);
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
