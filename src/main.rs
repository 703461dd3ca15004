//! `onward`: one replicated control plane for a data center, in one binary.

mod backups;
mod config;
mod dev;
mod http;
#[cfg(feature = "mutants")]
mod mutants;
mod restore;
mod serve;
mod together;
mod verify;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

// Most of what a write allocates is freed by another thread; glibc's allocator took a seventh of a write's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One replicated control plane for a data center: machines, services, objects and deployments in one Raft log.
#[derive(Debug, Parser)]
#[command(name = "onward", version, propagate_version = true, max_term_width = 110, after_help = onward_cli::EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    global: onward_cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server node
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(config::Flags),
    /// Run a throw-away cluster of real processes on loopback
    #[command(after_help = DEV_EXAMPLES)]
    Dev(dev::Flags),
    /// Make a new cluster out of a backup: the data directory of its first member
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(restore::Arguments),
    /// Look at every byte of a backup, or of a stopped node's data directory
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(verify::Arguments),
    #[command(flatten)]
    Client(onward_cli::Command),
}

const SERVE_EXAMPLES: &str = "Examples:
  onward serve --data-dir /var/lib/onward                    a cluster of one
  onward serve --config /etc/onward.toml                     a member, configured by a file
  onward serve --data-dir D --join 10.0.0.1:7401             a new member of a running cluster
  onward serve --data-dir D --join 10.0.0.1:7401 --replaces 3   in the place of one that lost its disk";

const DEV_EXAMPLES: &str = "Examples:
  onward dev                            one node on the default ports, gone at Ctrl-C
  onward dev --nodes 3 --dir ./site     three nodes that keep their data in ./site
  onward dev --dir ./site               the same three again
  onward dev --nodes 3 --base-port 0 --json   for programs: free ports, one line of JSON";

const RESTORE_EXAMPLES: &str = "Examples:
  onward restore north.backup --dir /var/lib/onward           then start it, and let others join it
  onward restore north.backup --config /etc/onward.toml       with its name, directory and addresses
  onward restore north.backup --dir D --cluster trial --stop-apps   to look at, beside the old one";

const VERIFY_EXAMPLES: &str = "Examples:
  onward verify north.backup                exits 0 if all is well, 1 if not
  onward verify /var/lib/onward -o json     a stopped node, for programs";

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            last_word(&format!("the runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let result = match command {
            Command::Client(command) => return onward_cli::run(global, command, Arguments::command).await,
            Command::Serve(flags) => {
                start_logging(&format!("info,{}", onward_raft::LOG_DIRECTIVE));
                serve::run(flags).await
            }
            Command::Dev(flags) => {
                start_logging("warn");
                dev::run(flags).await
            }
            Command::Restore(arguments) => {
                start_logging("warn");
                restore::run(&global, arguments)
            }
            Command::Verify(arguments) => {
                start_logging("warn");
                match verify::run(&global, &arguments) {
                    Ok(false) => return ExitCode::FAILURE,
                    verified => verified.map(|_| ()),
                }
            }
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                last_word(&format!("{error:#}"));
                match error.downcast_ref() {
                    Some(onward_raft::StartError::Diverged { .. }) => {
                        ExitCode::from(onward_raft::DIVERGED_EXIT_CODE)
                    }
                    _ => ExitCode::FAILURE,
                }
            }
        }
    })
}

/// Logs to stderr: `ONWARD_LOG` takes the usual filter, `ONWARD_LOG_FORMAT=json` one JSON object a line. A filter that cannot
/// be read says so, and the default is followed.
fn start_logging(default: &str) {
    let (filter, wrong) = match EnvFilter::try_from_env("ONWARD_LOG") {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(default), Some(error)),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if logs_are_json() {
        logs.json().init();
    } else {
        logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
    if let Some((error, asked)) = wrong.zip(std::env::var_os("ONWARD_LOG")) {
        tracing::warn!(
            ?asked, %error, followed = default,
            "ONWARD_LOG is no filter: write a level such as `debug`, or `TARGET=LEVEL` with commas between"
        );
    }
}

fn logs_are_json() -> bool {
    std::env::var("ONWARD_LOG_FORMAT").is_ok_and(|format| format == "json")
}

/// Why a command failed: one line on stderr, whatever the filter leaves out, and one object where logs are JSON.
fn last_word(error: &str) {
    if !logs_are_json() {
        eprintln!("error: {error}");
        return;
    }
    let mut timestamp = String::new();
    // Without a time it is told all the same.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let line = serde_json::json!({
        "timestamp": timestamp, "level": "ERROR", "fields": { "message": error }, "target": "onward",
    });
    eprintln!("{line}");
}

/// SIGINT and SIGTERM, from the moment this is made.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Starts to listen for SIGINT and SIGTERM.
pub fn signals() -> anyhow::Result<Signals> {
    Ok(Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
    })
}

impl Signals {
    /// Waits for either.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Asks the process to stop. One that is gone already is no error.
pub fn terminate(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
}
