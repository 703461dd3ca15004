//! Scheduled backups: the leader takes one whenever the newest at the destination is as old as the interval, and then
//! deletes those of this cluster that are more than are kept.
//!
//! What was done is known from the destination alone, so whoever leads next goes on where the last one left off. Every
//! node looks there from time to time, for its metrics; only the leader writes. Nothing here ever holds up the node: a
//! destination that fails is tried again, counted and said.

pub mod config;
mod destination;
mod directory;
mod s3;

use anyhow::{Context, Result};
use destination::{Destination, Name};
use onward_statemachine::backup::{Reader, Summary};
use onward_statemachine::ports::{
    Backups, Cluster, Freshness, Reader as Replica, Role, Schedule, ScheduleStatus, ScheduledBackup,
};
use onward_statemachine::{Millis, Revision};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the leader asks itself whether a backup is due.
const TICK: Duration = Duration::from_millis(500);
/// How often the destination is looked at without a reason.
const LOOK: Duration = Duration::from_secs(60);
/// How long after a failure it is tried again, at the most; never longer than the interval.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What scheduled backups stand on.
pub struct Ports {
    /// Takes them.
    pub backups: Arc<dyn Backups>,
    /// Makes sure that they have everything.
    pub reader: Arc<dyn Replica>,
    /// Says who leads.
    pub cluster: Arc<dyn Cluster>,
}

/// The schedule of one node.
pub struct Scheduled {
    ports: Ports,
    destination: Destination,
    interval: Duration,
    keep: usize,
    board: Mutex<Board>,
}

/// What it knows.
#[derive(Default)]
struct Board {
    newest: Option<Name>,
    kept: usize,
    running: bool,
    taken: u64,
    failures: u64,
    error: Option<String>,
}

impl Scheduled {
    /// The schedule that the configuration asks for; `None` where it asks for none.
    ///
    /// # Errors
    /// Where the destination cannot be used at all, such as without credentials.
    pub fn new(config: &config::Backup, ports: Ports) -> Result<Option<Arc<Scheduled>>> {
        let destination = Destination::of(config)?;
        Ok(destination.map(|destination| {
            Arc::new(Scheduled {
                ports,
                destination,
                interval: Duration::from_secs(config.interval_s),
                keep: config.keep,
                board: Mutex::default(),
            })
        }))
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps to the schedule until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Whether it leads, and whether it has seen since what is there: a leader that has not takes none, for its backup
        // could be the second.
        let (mut leads, mut seen) = (false, false);
        let mut look_at = Instant::now();
        let mut due_at = Instant::now();
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_none() {
                return;
            }
            let status = self.ports.cluster.status();
            let led = std::mem::replace(&mut leads, status.role == Role::Leader && status.healthy);
            if leads && !led {
                (seen, look_at) = (false, Instant::now());
            }
            if Instant::now() >= look_at {
                let Some(looked) = stop.run_until_cancelled(self.look(status.cluster_id)).await else {
                    return;
                };
                seen = looked.is_ok();
                let pause = if seen {
                    LOOK.min(self.interval)
                } else {
                    self.retry()
                };
                look_at = Instant::now() + pause;
                match looked {
                    Ok(_) if leads => {}
                    Ok(_) => self.board().error = None,
                    Err(error) => self.failed(&error, leads),
                }
            }
            if !leads || !seen || Instant::now() < due_at || !self.due() {
                continue;
            }
            match stop.run_until_cancelled(self.take()).await {
                None => return,
                Some(Ok(summary)) => {
                    let (revision, bytes) = (summary.header.revision, summary.bytes);
                    tracing::info!(revision, bytes, destination = %self.destination, "a scheduled backup was taken");
                }
                Some(Err(error)) => {
                    due_at = Instant::now() + self.retry();
                    self.failed(&error, true);
                }
            }
        }
    }

    fn retry(&self) -> Duration {
        self.interval.min(RETRY_MAX)
    }

    fn failed(&self, error: &anyhow::Error, counts: bool) {
        let text = format!("{error:#}");
        tracing::warn!(destination = %self.destination, error = text, "scheduled backups fail");
        let mut board = self.board();
        board.failures += u64::from(counts);
        board.error = Some(text);
    }

    /// What of this cluster is at the destination.
    async fn look(&self, cluster: uuid::Uuid) -> Result<Vec<Name>> {
        let mut names = self.destination.list().await?;
        names.retain(|name| name.cluster == cluster);
        let mut board = self.board();
        board.newest = names.last().cloned();
        board.kept = names.len();
        Ok(names)
    }

    /// Whether the newest backup is as old as the interval, or from a future that a wrong clock wrote.
    fn due(&self) -> bool {
        let board = self.board();
        let interval_ms = self.interval.as_millis() as u64;
        board
            .newest
            .as_ref()
            .is_none_or(|newest| now_ms().abs_diff(newest.taken_at_ms) >= interval_ms)
    }

    /// Takes one, stores it, and deletes what is more than is kept.
    async fn take(&self) -> Result<Summary> {
        self.board().running = true;
        let stored = self.store().await;
        self.board().running = false;
        let (name, summary) = stored?;
        {
            let mut board = self.board();
            board.taken += 1;
            board.error = None;
            board.newest = Some(name.clone());
        }
        let names = self.look(name.cluster).await?;
        let surplus = names.len().saturating_sub(self.keep);
        for old in &names[..surplus] {
            self.destination.delete(old).await?;
            self.board().kept -= 1;
        }
        Ok(summary)
    }

    async fn store(&self) -> Result<(Name, Summary)> {
        self.ports.reader.barrier(Freshness::Linearizable).await?;
        let mut backup = self.ports.backups.take().await?;
        let name = Name {
            taken_at_ms: backup.header.taken_at_ms,
            revision: backup.header.revision,
            cluster: backup.header.cluster_id,
        };
        let mut upload = self.destination.begin(&name, backup.header.node).await?;
        let mut reader = Reader::new();
        let sent = async {
            while let Some(piece) = backup.pieces.next().await {
                let piece = piece.map_err(anyhow::Error::msg)?;
                reader.feed(&piece);
                while reader.next_part()?.is_some() {}
                upload.write(piece).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let sent = sent.await;
        let whole = sent.and_then(|()| Ok(reader.finish()?));
        match whole {
            Ok(summary) => {
                upload.finish().await.context("the last step")?;
                Ok((name, summary))
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

impl Schedule for Scheduled {
    fn status(&self) -> ScheduleStatus {
        let board = self.board();
        ScheduleStatus {
            destination: self.destination.to_string(),
            interval_ms: self.interval.as_millis() as u64,
            keep: self.keep,
            kept: board.kept,
            newest: board.newest.as_ref().map(|name| ScheduledBackup {
                name: name.to_string(),
                revision: Revision(name.revision),
                taken_at: Millis(name.taken_at_ms),
                age_ms: now_ms().saturating_sub(name.taken_at_ms),
            }),
            running: board.running,
            taken: board.taken,
            failures: board.failures,
            error: board.error.clone(),
        }
    }
}
