//! Taking a backup: a checkpoint of the state, written row by row into a channel that holds a few pieces.

use crate::clock::Clock;
use crate::engine::Engine;
use crate::runtime::blocking;
use crate::state::Frozen;
use crate::types::revision_of;
use onward_statemachine::backup::{Header, Writer};
use onward_statemachine::mutant::{self, Mutant};
use onward_statemachine::ports::{Backup, BackupError, BackupPieces, Backups, BoxFuture};
use onward_statemachine::{Fault, Order, keys, system};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

/// The backups that a node streams at a time.
const BACKUPS_MAX: usize = 2;
/// A piece is sent when it has come to this size.
const PIECE_BYTES: usize = 256 << 10;
/// The pieces that wait for the reader.
const PIECES_MAX: usize = 4;
/// How long the planted bug of this name waits before it reads on.
const TORN_PAUSE: Duration = Duration::from_millis(200);

/// Backups of one node.
pub(crate) struct NodeBackups {
    engine: Arc<Engine>,
    places: Arc<Semaphore>,
}

impl NodeBackups {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        NodeBackups {
            engine,
            places: Arc::new(Semaphore::new(BACKUPS_MAX)),
        }
    }
}

impl Backups for NodeBackups {
    fn take(&self, patience_ms: u64) -> BoxFuture<'_, Result<Backup, BackupError>> {
        Box::pin(async move {
            let busy = |_| BackupError::Busy { max: BACKUPS_MAX };
            let place = self.places.clone().try_acquire_owned().map_err(busy)?;
            let engine = self.engine.clone();
            let begun = blocking(move || {
                let frozen = engine.state().freeze().map_err(|error| error.to_string())?;
                let header = header_of(&engine, &frozen).map_err(|fault| fault.to_string())?;
                Ok((frozen, header))
            });
            let flat = begun.await.map_err(|error| error.to_string()).flatten();
            let (frozen, header) = flat.map_err(BackupError::Failed)?;
            tracing::info!(node = header.node, revision = header.revision, "a backup begins");
            let (pieces, received) = mpsc::channel(PIECES_MAX);
            let (engine, of) = (self.engine.clone(), header.clone());
            // It ends by itself when the receiver is gone, and nobody waits for it.
            drop(tokio::task::spawn_blocking(move || {
                let outlet = Outlet {
                    engine: &engine,
                    pieces: &pieces,
                    patience: Duration::from_millis(patience_ms),
                };
                outlet.send_all(&frozen, &of);
                drop((frozen, place));
            }));
            Ok(Backup {
                header,
                pieces: Box::new(Pieces(received)),
            })
        })
    }
}

struct Pieces(mpsc::Receiver<Result<Vec<u8>, String>>);

impl BackupPieces for Pieces {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Vec<u8>, String>>> {
        Box::pin(self.0.recv())
    }
}

fn header_of(engine: &Engine, frozen: &Frozen) -> Result<Header, Fault> {
    let standing = frozen.standing();
    let members = standing.membership.membership().nodes().map(|(id, _)| *id);
    let node_max = members.max().unwrap_or_default().max(engine.id());
    frozen.disk().read(|view| {
        let (clock, gate) = (system::clock(view)?, system::gate(view)?);
        Ok(Header {
            cluster_id: engine.cluster_id(),
            cluster_name: engine.identity.cluster_name.clone(),
            node: engine.id(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            revision: revision_of(standing.applied.as_ref()).0,
            term: standing.applied.map_or(0, |id| id.leader_id.term),
            feature_level: gate.feature_level,
            log_time_ms: clock.now.0,
            taken_at_ms: engine.clock.now().0,
            journal_floor: gate.journal_floor.0,
            node_max,
        })
    })
}

/// Where a backup goes.
struct Outlet<'a> {
    engine: &'a Engine,
    pieces: &'a mpsc::Sender<Result<Vec<u8>, String>>,
    /// How long whoever reads may take for one piece.
    patience: Duration,
}

impl Outlet<'_> {
    fn send_all(&self, frozen: &Frozen, header: &Header) {
        let mut out = Vec::new();
        let mut writer = Writer::new(header, &mut out);
        let mut gone = false;
        let written = frozen.disk().read(|view| {
            let mut visit = |key: &[u8], value: &[u8]| {
                writer.row(key, value, &mut out);
                gone = out.len() >= PIECE_BYTES && !self.send(Ok(std::mem::take(&mut out)));
                match gone {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            if !mutant::on(Mutant::BackupTorn) {
                return view.scan(&[], &[], Order::Ascending, &mut visit);
            }
            let machinery: &[u8] = &[keys::MACHINES];
            view.scan(&[], machinery, Order::Ascending, &mut visit)?;
            std::thread::sleep(TORN_PAUSE);
            let state = self.engine.state();
            state.try_read(|live| live.scan(machinery, &[], Order::Ascending, &mut visit))
        });
        match written {
            _ if gone => tracing::info!(revision = header.revision, "a backup was broken off"),
            Ok(()) => {
                let trailer = writer.end(&mut out);
                if self.send(Ok(out)) {
                    self.engine.counters().backups_streamed.fetch_add(1, Relaxed);
                    tracing::info!(
                        revision = header.revision,
                        rows = trailer.rows,
                        "a backup was streamed"
                    );
                }
            }
            // The copy shares the files of the state: what cannot be read here will be found there.
            Err(fault) => {
                tracing::error!(revision = header.revision, %fault, "a backup failed");
                self.send(Err(fault.to_string()));
            }
        }
    }

    /// Whether the reader took it.
    fn send(&self, piece: Result<Vec<u8>, String>) -> bool {
        let sending = tokio::time::timeout(self.patience, self.pieces.send(piece));
        let sent = Handle::current().block_on(self.engine.token().run_until_cancelled(sending));
        matches!(sent, Some(Ok(Ok(()))))
    }
}
