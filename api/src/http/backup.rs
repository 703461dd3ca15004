//! `/v1/cluster/backup`: the whole state as a file, streamed while the node serves; `/v1/cluster/backups`: those that are
//! taken on schedule.

use crate::answer::{Answer, REVISION, Seen};
use crate::app::App;
use crate::params::{Nothing, Now};
use crate::request::Params;
use crate::routes::{Routes, op};
use crate::wire;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use onward_statemachine::ports::{BackupPieces, Metric, Reading, ScheduleStatus};
use std::io;
use tokio_util::sync::CancellationToken;

/// How long a client may take for one piece.
const PATIENCE_MS: u64 = 60_000;

pub(super) fn routes(routes: Routes) -> Routes {
    let routes = routes.tag("cluster").get(
        "/v1/cluster/backups",
        backups,
        op(
            "cluster_backups",
            "Where the scheduled backups stand, as this node knows",
        )
        .answer::<wire::backup::Backups>(),
    );
    routes.get(
        "/v1/cluster/backup",
        backup,
        op(
            "cluster_backup",
            "Streams the whole state as a backup file: every row as of one revision, with checksums. A file without its \
             trailer was cut",
        )
        .query::<Now>()
        .answer_bytes(),
    )
}

async fn backups(State(app): State<App>, Params(Nothing): Params<Nothing>) -> Answer {
    let stamp = app.services.reader.stamp();
    let status = app.services.schedule.as_ref().map(|schedule| schedule.status());
    Seen {
        value: wire::backup::Backups {
            schedule: status.map(wire::backup::Schedule::from),
        },
        revision: stamp.applied,
        age_ms: Some(stamp.age_ms),
    }
    .answer()
}

/// What an operator has to see to about the scheduled backups, as this node knows. Whether they are late, the leader
/// knows, which takes them: a node whose directory is its own has none in it before it led.
pub(super) fn alarm(app: &App, leads: bool) -> Option<String> {
    let schedule = app.services.schedule.as_ref()?;
    alarm_of(&schedule.status(), leads)
}

fn alarm_of(status: &ScheduleStatus, leads: bool) -> Option<String> {
    let (destination, age_s) = (&status.destination, status.last_success_age_ms / 1000);
    let last = match status.newest {
        Some(_) => format!("the last one there is {age_s} s old"),
        None => "there is none yet".to_owned(),
    };
    if let Some(error) = &status.error {
        return Some(format!(
            "scheduled backups to {destination} fail, and {last}: {error}"
        ));
    }
    let late = leads && status.last_success_age_ms > status.interval_ms.saturating_mul(2);
    late.then(|| {
        let interval_s = status.interval_ms / 1000;
        format!("scheduled backups to {destination} are late: {last}, and one is taken every {interval_s} s")
    })
}

/// The numbers of scheduled backups; none where nothing is scheduled.
pub(super) fn metrics(app: &App) -> Vec<Metric> {
    let Some(status) = app.services.schedule.as_ref().map(|schedule| schedule.status()) else {
        return Vec::new();
    };
    let newest = status.newest.map_or(0, |newest| newest.revision.0);
    vec![
        Metric::new(
            "onward_backups_taken_total",
            "Scheduled backups that this node took.",
            Reading::Counter(status.taken),
        ),
        Metric::new(
            "onward_backups_failed_total",
            "Scheduled backups that this node could not take.",
            Reading::Counter(status.failures),
        ),
        Metric::new(
            "onward_backups_kept",
            "Backups at the destination, as this node last saw it.",
            Reading::Gauge(status.kept as u64),
        ),
        Metric::new(
            "onward_backup_last_success_age_seconds",
            "How old the newest backup at the destination is; while there is none, how long this node has been up.",
            Reading::Gauge(status.last_success_age_ms / 1000),
        ),
        Metric::new(
            "onward_backup_last_revision",
            "What the newest backup at the destination is of; 0 while there is none.",
            Reading::Gauge(newest),
        ),
    ]
}

async fn backup(State(app): State<App>, Params(Now { fresh }): Params<Now>) -> Answer {
    app.services.reader.barrier(fresh.0.freshness()).await?;
    let backup = app.services.backups.take(PATIENCE_MS).await?;
    let sending = Sending {
        pieces: backup.pieces,
        shutdown: app.services.shutdown.clone(),
        broken: false,
    };
    let pieces = stream::unfold(sending, |mut sending| async {
        let piece = sending.next().await?;
        Some((piece, sending))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    let file = format!(
        "attachment; filename=\"onward-{}-{}.backup\"",
        backup.header.cluster_id, backup.header.revision
    );
    for (name, value) in [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (REVISION, HeaderValue::from(backup.header.revision)),
    ] {
        headers.insert(name, value);
    }
    if let Ok(file) = HeaderValue::from_str(&file) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    Ok(response)
}

/// A backup on its way.
struct Sending {
    pieces: Box<dyn BackupPieces>,
    shutdown: CancellationToken,
    broken: bool,
}

impl Sending {
    /// The next bytes; an error breaks the connection, so that nobody takes what came for the whole.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.broken {
            return None;
        }
        let piece = tokio::select! {
            piece = self.pieces.next() => piece?.map_err(io::Error::other),
            () = self.shutdown.cancelled() => Err(io::Error::other("this node is shutting down")),
        };
        self.broken = piece.is_err();
        Some(piece.map(Bytes::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_statemachine::ports::ScheduledBackup;
    use onward_statemachine::{Millis, Revision};

    #[test]
    fn schedules_that_fail_or_are_late_are_alarms() {
        let mut status = ScheduleStatus {
            destination: "/srv/backup".to_owned(),
            interval_ms: 60_000,
            keep: 7,
            kept: 0,
            newest: None,
            running: false,
            taken: 0,
            failures: 0,
            error: None,
            last_success_age_ms: 120_000,
        };
        assert_eq!(alarm_of(&status, true), None);
        status.last_success_age_ms = 121_000;
        assert_eq!(
            alarm_of(&status, true).as_deref(),
            Some("scheduled backups to /srv/backup are late: there is none yet, and one is taken every 60 s")
        );
        assert_eq!(alarm_of(&status, false), None, "it has none to take");
        status.error = Some("no such directory".to_owned());
        status.newest = Some(ScheduledBackup {
            name: "x".to_owned(),
            revision: Revision(9),
            taken_at: Millis(1),
            age_ms: 121_000,
        });
        for leads in [true, false] {
            assert_eq!(
                alarm_of(&status, leads).as_deref(),
                Some(
                    "scheduled backups to /srv/backup fail, and the last one there is 121 s old: no such directory"
                )
            );
        }
    }
}
