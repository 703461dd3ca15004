//! `onward cluster backup`: the whole state into one file.
//!
//! The file has its name once it is whole, checked and on the disk; until then it is `FILE.part`, which the next backup
//! to the same name overwrites.

use crate::age::age;
use crate::examples::examples;
use crate::failure::{Failure, Result};
use crate::session::{Session, count};
use crate::table::{Cell, Details, Tone};
use clap::Args;
use onward_api::backup::Summary;
use onward_api::client::Download;
use onward_api::wire::Time;
use onward_api::wire::backup::Schedule;
use serde::Serialize;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Arguments of `onward cluster backup`.
#[derive(Debug, Args)]
#[command(after_help = examples![
    "cluster backup north.backup",
    "cluster backup - > north.backup",
    "cluster backup north.backup --consistency local   what one node has, without a majority",
])]
pub struct Backup {
    /// Where to write it; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Overwrite a file that is there
    #[arg(long)]
    force: bool,
}

/// What was backed up.
#[derive(Debug, Serialize)]
struct Done {
    file: String,
    bytes: u64,
    rows: u64,
    revision: u64,
    state_hash: String,
    format: u32,
    feature_level: u32,
    cluster_id: String,
    cluster_name: String,
    node: u64,
    took_ms: u64,
}

/// How often the progress is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn run(session: &mut Session<'_>, arguments: &Backup) -> Result {
    let begun = Instant::now();
    if arguments.file.as_os_str() == "-" {
        let mut download = session.client.backup().await?;
        while let Some(piece) = download.next().await? {
            session.output.bytes(&piece)?;
        }
        let summary = download.finish()?;
        session
            .output
            .message(&format!("backed up revision {}", summary.header.revision));
        return Ok(());
    }
    let mut target = Target::open(&arguments.file, arguments.force)?;
    let mut download = session.client.backup().await?;
    let mut drawn = None;
    while let Some(piece) = download.next().await? {
        target.write(&piece)?;
        if session.output.animated() && drawn.is_none_or(|drawn: Instant| drawn.elapsed() >= DRAW_INTERVAL) {
            drawn = Some(Instant::now());
            let line = progress(&download, begun.elapsed());
            session.output.redraw(&line);
        }
    }
    if drawn.is_some() {
        session.output.redraw("");
    }
    let summary = download.finish()?;
    target.finish()?;
    let done = done(&arguments.file, summary, begun.elapsed());
    session.output.show(&done, |done| {
        Details::default()
            .field("file", &done.file)
            .field("revision", done.revision)
            .field("cluster", format!("{} ({})", done.cluster_name, done.cluster_id))
            .field("rows", done.rows)
            .field("size", size(done.bytes))
            .field("state hash", &done.state_hash)
            .field("taken from", format!("node {}", done.node))
    })
}

/// Shows the scheduled backups.
pub(crate) async fn show(session: &mut Session<'_>) -> Result {
    let answer = session.client.backups().await?;
    let now = session.now;
    let color = session.output.color();
    session
        .output
        .show(&answer, |answer| match &answer.value.schedule {
            None => "no backups are scheduled: see `[backup]` in docs/operations.md\n".to_owned(),
            Some(schedule) => scheduled(schedule, now).render(color),
        })
}

fn scheduled(schedule: &Schedule, now: Time) -> Details {
    let newest = schedule.newest.as_ref();
    let failing = schedule
        .error
        .as_deref()
        .map(|error| Cell::toned(error, Tone::Bad));
    Details::default()
        .field("destination", &schedule.destination)
        .field("every", format!("{} s", schedule.interval_ms / 1000))
        .field("kept", format!("{} of {}", schedule.kept, schedule.keep))
        .field(
            "newest",
            Cell::maybe(newest.map(|newest| age(newest.taken_at, now))),
        )
        .field("revision", Cell::maybe(newest.map(|newest| newest.revision)))
        .field("name", Cell::maybe(newest.map(|newest| newest.name.clone())))
        .field("taken by this node", schedule.taken)
        .field("failures", schedule.failures)
        .field("error", failing.unwrap_or_else(|| Cell::from("-")))
}

fn done(file: &Path, summary: Summary, took: Duration) -> Done {
    let Summary {
        header,
        trailer,
        bytes,
    } = summary;
    Done {
        file: file.display().to_string(),
        bytes,
        rows: trailer.rows,
        revision: header.revision,
        state_hash: trailer.state_hash,
        format: onward_api::backup::VERSION,
        feature_level: header.feature_level,
        cluster_id: header.cluster_id.to_string(),
        cluster_name: header.cluster_name,
        node: header.node,
        took_ms: took.as_millis() as u64,
    }
}

fn progress(download: &Download, elapsed: Duration) -> String {
    let rate = download.bytes() as f64 / elapsed.as_secs_f64().max(0.001);
    format!(
        "  revision {}: {}, {} ({}/s)",
        download.revision().unwrap_or_default(),
        count(download.rows(), "row"),
        size(download.bytes()),
        size(rate as u64)
    )
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4) as usize;
    match power {
        0 => format!("{bytes} B"),
        power => format!(
            "{:.1} {}",
            bytes as f64 / (1_u64 << (10 * power)) as f64,
            units[power - 1]
        ),
    }
}

/// A file that has its name only once it is whole.
struct Target {
    file: File,
    part: PathBuf,
    path: PathBuf,
    whole: bool,
}

impl Target {
    fn open(path: &Path, force: bool) -> Result<Target> {
        if path.is_dir() {
            return Err(Failure::usage(format!(
                "{}: it is a directory; name a file",
                path.display()
            )));
        }
        if path.exists() && !force {
            return Err(Failure::usage(format!(
                "{}: it is there already; name another file, or pass --force to overwrite it",
                path.display()
            )));
        }
        let part = path.with_added_extension("part");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&part);
        let file = file.map_err(|error| unwritable(&part, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::usage(format!(
                    "{}: another backup is being written there",
                    part.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(&part, &error)),
        }
        file.set_len(0).map_err(|error| unwritable(&part, &error))?;
        Ok(Target {
            file,
            part,
            path: path.to_owned(),
            whole: false,
        })
    }

    fn write(&mut self, piece: &[u8]) -> Result {
        self.file
            .write_all(piece)
            .map_err(|error| unwritable(&self.part, &error))
    }

    /// Makes it durable under its name.
    fn finish(mut self) -> Result {
        self.file
            .sync_all()
            .map_err(|error| unwritable(&self.part, &error))?;
        std::fs::rename(&self.part, &self.path).map_err(|error| unwritable(&self.path, &error))?;
        self.whole = true;
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| unwritable(dir, &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.whole {
            // What is left of it has no name that anybody takes for a backup.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Refused(format!("{}: {error}; nothing was backed up", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = [0, 1023, 1024, 1536, 5 << 20, 3 << 30].map(size);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]
        );
    }
}
