//! `/v1/cluster/backup`: the whole state as a file, streamed while the node serves; `/v1/cluster/backups`: those that are
//! taken on schedule.

use crate::answer::{Answer, REVISION, Seen};
use crate::app::App;
use crate::params::Read;
use crate::request::Params;
use crate::routes::{Routes, op};
use crate::wire;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use onward_statemachine::ports::{BackupPieces, Metric, Reading};
use std::io;
use tokio_util::sync::CancellationToken;

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
        .query::<Read>()
        .answer_bytes(),
    )
}

async fn backups(State(app): State<App>) -> Answer {
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

/// The numbers of scheduled backups; none where nothing is scheduled.
pub(super) fn metrics(app: &App) -> Vec<Metric> {
    let Some(status) = app.services.schedule.as_ref().map(|schedule| schedule.status()) else {
        return Vec::new();
    };
    let mut all = vec![
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
    ];
    if let Some(newest) = status.newest {
        all.push(Metric::new(
            "onward_backup_last_success_age_seconds",
            "How old the newest backup at the destination is.",
            Reading::Gauge(newest.age_ms / 1000),
        ));
        all.push(Metric::new(
            "onward_backup_last_revision",
            "What the newest backup at the destination is of.",
            Reading::Gauge(newest.revision.0),
        ));
    }
    all
}

async fn backup(State(app): State<App>, Params(read): Params<Read>) -> Answer {
    app.services.reader.barrier(read.fresh.freshness()).await?;
    let backup = app.services.backups.take().await?;
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
