//! The command line client: every client command of the one binary.
//!
//! Owns what the user types, what is printed, and the exit code. Talks to the cluster only through `onward-api`'s
//! client, and keeps nothing between two commands. Results go to standard output, in the format that was asked for;
//! messages go to standard error; nothing is written anywhere else.
//!
//! A module for each area holds its arguments and its commands: [`kv`] is `onward kv ...`.

mod age;
mod app;
mod backup;
mod boot;
mod cluster;
mod completion;
mod deploy;
mod event;
mod examples;
mod failure;
mod global;
mod history;
mod kv;
mod machine;
mod manifest;
mod member;
mod object;
mod output;
mod pairs;
mod service;
mod session;
mod table;
#[cfg(test)]
mod tests;

pub use failure::EXIT_CODES;
pub use global::{Consistency, Format, Global};

use clap::Subcommand;
use examples::examples;
use failure::Result;
use output::{Output, Streams};
use serde::Serialize;
use session::Session;
use std::process::ExitCode;

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The cluster itself: how it is, who belongs to it, who leads it, its backups
    #[command(subcommand, after_help = examples!["cluster status", "cluster add 10.0.0.4:7401", "cluster backup north.backup"])]
    Cluster(cluster::Command),
    /// Machines: register them, select them, lead them through their life
    #[command(subcommand, visible_alias = "machines", after_help = examples![
        "machine list -l zone=east --field role=worker",
        "machine import rack-3.csv",
    ])]
    Machine(machine::Command),
    /// What machines boot
    #[command(subcommand, after_help = examples!["boot template list", "boot template render S1001 ipxe"])]
    Boot(boot::Command),
    /// Services: which names lead where
    #[command(subcommand, visible_alias = "services", after_help = examples![
        "service register web web-1 --address 10.0.0.7 --port 8080 --ttl 30s",
        "service list",
    ])]
    Service(service::Command),
    /// Key-value pairs
    #[command(subcommand, after_help = examples!["kv put site/name tokyo-1", "kv get site/name", "kv watch site/"])]
    Kv(kv::Command),
    /// Object transactions
    #[command(subcommand, visible_alias = "objects", after_help = examples![
        "object put 1 hello",
        "object get 1",
        "object history 1",
    ])]
    Object(object::Command),
    /// Apps: what should run
    #[command(subcommand, visible_alias = "apps", after_help = examples!["app list", "app get hello"])]
    App(app::Command),
    /// Roll a ref of an app's source out, and follow it until it serves
    #[command(after_help = examples!["deploy hello --ref main", "deploy hello --ref v1.2 --no-wait"])]
    Deploy(deploy::Deploy),
    /// Roll an app back to a release, by default to the one before
    #[command(after_help = examples!["rollback hello", "rollback hello 3"])]
    Rollback(deploy::Rollback),
    /// Releases of apps
    #[command(subcommand, visible_alias = "releases", after_help = examples!["release list hello"])]
    Release(app::ReleaseCommand),
    /// Builds of apps
    #[command(subcommand, visible_alias = "builds", after_help = examples!["build list hello"])]
    Build(app::BuildCommand),
    /// Rollouts of apps
    #[command(subcommand, visible_alias = "rollouts", after_help = examples!["rollout list hello", "rollout get hello 4"])]
    Rollout(deploy::Command),
    /// What ever happened, in order
    #[command(subcommand, visible_alias = "events", after_help = examples![
        "event list --last 20",
        "event follow",
        "event retention --age 30d --bytes 10GiB",
    ])]
    Event(event::Command),
    /// Show what changed between two revisions, object by object
    Diff(history::Diff),
    /// Show the events that made an object what it is: when, who, what
    Why(history::Why),
    /// Make it so: apply manifests as one atomic batch
    #[command(
        after_help = examples!["apply -f site/", "apply -f app.yaml -f settings.yaml --yes", "apply -f - < site.yaml"],
        after_long_help = manifest::FORMAT_HELP
    )]
    Apply(manifest::Apply),
    /// Show what applying manifests would change
    #[command(after_help = examples!["plan -f site/", "plan -f - < site.yaml"])]
    Plan(manifest::Plan),
    /// Print everything declared as a manifest that apply reads back
    #[command(after_help = examples!["export > site.yaml", "export -o json > site.json"])]
    Export(manifest::Export),
    /// Print a completion script for a shell
    #[command(after_help = examples![
        "completion bash > /etc/bash_completion.d/onward",
        "completion zsh > ~/.zfunc/_onward",
        "completion fish > ~/.config/fish/completions/onward.fish",
    ])]
    Completion(completion::Completion),
}

/// Runs a client command. `root` is the command tree of the whole program, which completion scripts are made of.
pub async fn run(global: Global, command: Command, root: fn() -> clap::Command) -> ExitCode {
    ExitCode::from(execute(global, command, root, Streams::standard()).await)
}

/// Shows the result of a command that needs no cluster: `value` for programs, `text` for people.
pub fn show<T: Serialize>(
    global: &Global,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> std::io::Result<()> {
    let mut output = Output::new(Streams::standard(), global.output, global.quiet);
    output
        .show(value, text)
        .map_err(|failure| std::io::Error::other(failure.to_string()))
}

/// As [`run`], on these streams; answers with the number of the exit code.
async fn execute(global: Global, command: Command, root: fn() -> clap::Command, streams: Streams) -> u8 {
    let mut output = Output::new(streams, global.output, global.quiet);
    let result = Box::pin(dispatch(&global, command, root, &mut output)).await;
    match result {
        Ok(()) => 0,
        Err(failure) => {
            output.failure(&failure);
            failure.code()
        }
    }
}

async fn dispatch(
    global: &Global,
    command: Command,
    root: fn() -> clap::Command,
    output: &mut Output,
) -> Result {
    if let Command::Completion(arguments) = &command {
        return completion::run(output, arguments, root());
    }
    let session = &mut Session::open(global, output)?;
    match command {
        Command::Cluster(command) => cluster::run(session, command).await,
        Command::Machine(command) => machine::run(session, command).await,
        Command::Boot(command) => boot::run(session, command).await,
        Command::Service(command) => service::run(session, command).await,
        Command::Kv(command) => kv::run(session, command).await,
        Command::Object(command) => object::run(session, command).await,
        Command::App(command) => app::run(session, command).await,
        Command::Deploy(arguments) => deploy::deploy(session, arguments).await,
        Command::Rollback(arguments) => deploy::rollback(session, arguments).await,
        Command::Release(command) => app::releases(session, command).await,
        Command::Build(command) => app::builds(session, command).await,
        Command::Rollout(command) => deploy::run(session, command).await,
        Command::Event(command) => event::run(session, command).await,
        Command::Diff(arguments) => history::diff(session, arguments).await,
        Command::Why(arguments) => history::why(session, arguments).await,
        Command::Apply(arguments) => manifest::apply(session, arguments).await,
        Command::Plan(arguments) => manifest::plan(session, arguments).await,
        Command::Export(arguments) => manifest::export(session, arguments).await,
        Command::Completion(_) => unreachable!("it needs no cluster, and was run before"),
    }
}
