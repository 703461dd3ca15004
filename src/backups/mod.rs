//! Scheduled backups: the leader takes one whenever the newest at the destination is as old as the interval, and then
//! deletes those of this cluster that are more than are kept.
//!
//! What was done is known from the destination alone, so whoever leads next goes on where the last one left off. Every
//! node looks there from time to time, for its metrics; only the leader writes. Nothing here ever holds up the node: a
//! destination that fails is tried again, counted and said.
//!
//! Clocks may be wrong, so as little as possible rests on them: which backup is the newest, and which go first, is told by
//! the revision; times are those of the clock that the members agree on; and a node never takes one sooner than an
//! interval after its own last, nor deletes the one that it has just taken.

mod board;
pub mod config;
mod destination;
mod directory;
mod s3;

use anyhow::Result;
use board::{Board, horizon_ms};
use destination::{Destination, Name, of_cluster, surplus};
use onward_statemachine::backup::{Reader, Summary};
use onward_statemachine::ports::{
    Backups, Cluster, Freshness, Proposer, Reader as Replica, Role, Schedule, ScheduleStatus, ScheduledBackup,
};
use onward_statemachine::{Millis, Revision};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the leader asks itself whether a backup is due.
const TICK: Duration = Duration::from_millis(500);
/// How often the destination is looked at without a reason.
const LOOK: Duration = Duration::from_secs(60);
/// How long after a failure it is tried again, at the most; never longer than the interval.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long the destination may take for one piece: longer than a store is tried again, which checks it.
const PIECE_PATIENCE: Duration = Duration::from_secs(300);

/// What scheduled backups stand on.
pub struct Ports {
    /// Takes them.
    pub backups: Arc<dyn Backups>,
    /// Makes sure that they have everything.
    pub reader: Arc<dyn Replica>,
    /// Says who leads.
    pub cluster: Arc<dyn Cluster>,
    /// Knows what time it is: the clock that the members agree on.
    pub proposer: Arc<dyn Proposer>,
}

/// The schedule of one node.
pub struct Scheduled {
    ports: Ports,
    destination: Destination,
    interval: Duration,
    keep: usize,
    board: Mutex<Board>,
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
                board: Mutex::new(Board::new(Instant::now())),
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
                    // It has none to take any more.
                    Ok(_) => self.board().untaken = None,
                    Err(error) => {
                        let text = self.failed(&error, leads);
                        self.board().unseen = Some(text);
                    }
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
                    let text = self.failed(&error, true);
                    self.board().untaken = Some(text);
                }
            }
        }
    }

    fn retry(&self) -> Duration {
        self.interval.min(RETRY_MAX)
    }

    /// Logs and counts a failure, and returns what is to be said of it.
    fn failed(&self, error: &anyhow::Error, counts: bool) -> String {
        let text = format!("{error:#}");
        tracing::warn!(destination = %self.destination, error = text, "scheduled backups fail");
        self.board().failures += u64::from(counts);
        text
    }

    /// What of this cluster is at the destination, the newest last.
    async fn look(&self, cluster: uuid::Uuid) -> Result<Vec<Name>> {
        let found = self.destination.list().await?;
        let names = of_cluster(found, cluster, horizon_ms(self.now(), self.interval));
        self.board().see(&names, Instant::now());
        Ok(names)
    }

    fn now(&self) -> Millis {
        self.ports.proposer.now()
    }

    /// Whether one is to be taken now.
    fn due(&self) -> bool {
        self.board().due(self.interval, self.now(), Instant::now())
    }

    /// Takes one, stores it, and deletes what is more than is kept.
    async fn take(&self) -> Result<Summary> {
        let begun = Instant::now();
        self.board().running = true;
        let stored = self.store().await;
        self.board().running = false;
        let (name, summary) = stored?;
        self.board().took(name.clone(), begun);
        let names = self.look(name.cluster).await?;
        for old in surplus(&names, self.keep, &name) {
            self.destination.delete(old).await?;
            self.board().kept -= 1;
        }
        self.board().untaken = None;
        Ok(summary)
    }

    async fn store(&self) -> Result<(Name, Summary)> {
        self.ports.reader.barrier(Freshness::Linearizable).await?;
        let patience_ms = PIECE_PATIENCE.as_millis() as u64;
        let mut backup = self.ports.backups.take(patience_ms).await?;
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
                upload.finish().await?;
                Ok((name, summary))
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }
}

impl Schedule for Scheduled {
    fn status(&self) -> ScheduleStatus {
        let now = self.now();
        let board = self.board();
        let age_ms = board.age(now, Instant::now()).as_millis() as u64;
        ScheduleStatus {
            destination: self.destination.to_string(),
            interval_ms: self.interval.as_millis() as u64,
            keep: self.keep,
            kept: board.kept,
            newest: board.newest().map(|name| ScheduledBackup {
                name: name.to_string(),
                revision: Revision(name.revision),
                taken_at: Millis(name.taken_at_ms),
                age_ms,
            }),
            running: board.running,
            taken: board.taken,
            failures: board.failures,
            error: board.error().cloned(),
            last_success_age_ms: age_ms,
        }
    }
}
