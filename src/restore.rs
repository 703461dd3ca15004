//! `onward restore`: the data directory of the first member of a new cluster, out of a backup.

use crate::config;
use anyhow::Result;
use clap::Args;
use onward_cli::Global;
use onward_raft::{Restore, Restored};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Arguments of `onward restore`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to make the data directory: empty, or not there yet
    #[arg(
        long,
        visible_alias = "data-dir",
        value_name = "DIR",
        required_unless_present = "config"
    )]
    dir: Option<PathBuf>,
    /// Take the directory, the cluster's name and the addresses from the configuration of the member-to-be
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The name of the new cluster; that of the backup without
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The address under which peers will reach the member
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
    /// The URL under which others will reach its HTTP API
    #[arg(long, value_name = "URL")]
    http_advertise: Option<String>,
    /// Stop all apps: nothing is started until somebody starts it
    #[arg(long)]
    stop_apps: bool,
}

/// What was restored, for programs.
#[derive(Debug, Serialize)]
struct Done {
    dir: String,
    cluster_id: String,
    cluster_name: String,
    node: u64,
    revision: u64,
    from_cluster_id: String,
    from_cluster_name: String,
    from_revision: u64,
    rows: u64,
    state_hash: String,
    services_renewed: usize,
    instances_ended: usize,
    apps_stopped: usize,
}

/// How often the progress is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Restores.
pub fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let options = options(arguments)?;
    let animated = std::io::stderr().is_terminal() && !global.quiet;
    let mut drawn = Instant::now();
    let mut draw = |rows: u64| {
        if animated && drawn.elapsed() >= DRAW_INTERVAL {
            drawn = Instant::now();
            // A line that cannot be drawn is no reason to fail.
            let _ = write!(std::io::stderr(), "\r\x1b[K  {rows} rows");
        }
    };
    let restored = onward_raft::restore(&options, &mut draw);
    if animated {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let restored = restored?;
    onward_cli::show(global, &done(&options, &restored), |done| text(done, &options))?;
    Ok(())
}

fn options(arguments: Arguments) -> Result<Restore> {
    let configured = arguments
        .config
        .map(|path| config::Config::load(&config::Flags::file(path)));
    let config = configured.transpose()?;
    let default = config::Config::default();
    let addresses = config.as_ref().unwrap_or(&default);
    Ok(Restore {
        file: arguments.file,
        data_dir: arguments.dir.unwrap_or_else(|| addresses.data_dir.clone()),
        cluster_name: arguments
            .cluster
            .or_else(|| config.as_ref().map(|config| config.cluster.clone())),
        peer_address: arguments
            .peer_advertise
            .unwrap_or_else(|| addresses.peer_advertise()),
        http_url: arguments
            .http_advertise
            .unwrap_or_else(|| addresses.http_advertise()),
        stop_apps: arguments.stop_apps,
    })
}

fn done(options: &Restore, restored: &Restored) -> Done {
    let of = &restored.backup;
    Done {
        dir: options.data_dir.display().to_string(),
        cluster_id: restored.cluster_id.to_string(),
        cluster_name: restored.cluster_name.clone(),
        node: restored.node.0,
        revision: restored.revision.0,
        from_cluster_id: of.header.cluster_id.to_string(),
        from_cluster_name: of.header.cluster_name.clone(),
        from_revision: of.header.revision,
        rows: of.trailer.rows,
        state_hash: of.trailer.state_hash.clone(),
        services_renewed: restored.services_renewed,
        instances_ended: restored.instances_ended,
        apps_stopped: restored.apps_stopped,
    }
}

fn text(done: &Done, options: &Restore) -> String {
    let Done {
        dir,
        cluster_id,
        cluster_name,
        node,
        revision,
        from_cluster_name,
        from_revision,
        rows,
        ..
    } = done;
    let mut text = format!(
        "restored {rows} rows of `{from_cluster_name}` as of revision {from_revision} into {dir}\n\
         cluster {cluster_name} ({cluster_id}), node {node}, at revision {revision}\n"
    );
    let changes = [
        (
            done.services_renewed,
            "instances of services have their whole TTL to renew",
        ),
        (
            done.instances_ended,
            "instances of apps ran in the old cluster and are ended here",
        ),
        (done.apps_stopped, "apps are stopped until they are started"),
    ];
    for (count, what) in changes.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("{count} {what}\n"));
    }
    text.push_str(&format!(
        "\nStart it, and let the others join it with empty directories:\n  \
         onward serve --cluster {cluster_name} --data-dir {dir}\n  \
         onward serve --cluster {cluster_name} --data-dir DIR --join {}\n",
        options.peer_address
    ));
    text
}
