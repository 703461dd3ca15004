//! The ingress: an HTTP reverse proxy on every node, from the local replica's routing table.
//!
//! The table is rebuilt when deployments changed and swapped whole, so that a request sees one revision and never waits
//! for another. It may be a moment behind the replica ([`crate::BREATH`]), so a request that finds no instance in it has
//! it made anew before it is turned away: who was told by this node that an app serves finds it. A switch loses no
//! request: an instance that the table no longer has keeps those it was sent, and one that could not be connected to
//! gets another look at the table before a client hears of it. Nothing is sent twice, save a request without effect
//! (GET, HEAD, OPTIONS, no body) on a connection that the instance had closed.
//!
//! Never decides where requests go: the log does. Never holds a request for an app without an instance: it says so.
//!
//! Limits: [`REQUESTS_MAX`] under way, [`HEADER_BYTES_MAX`], and the times in [`proxy`].

mod proxy;
mod respond;
mod table;
mod upstream;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use onward_statemachine::Revision;
use onward_statemachine::deployments::apps::Name;
use onward_statemachine::deployments::instances::Ordinal;
use onward_statemachine::deployments::{self, instances};
use onward_statemachine::ports::Reader;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::{Key, Table};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use upstream::Upstream;

/// The most requests under way; more are answered 503.
pub const REQUESTS_MAX: usize = 16_384;
/// The most bytes of a request's head.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to send a request's head.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long requests under way may take when the node goes down.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// The ingress of this node.
#[derive(Clone)]
pub(crate) struct Ingress {
    shared: Arc<Shared>,
}

struct Shared {
    reader: Arc<dyn Reader>,
    table: watch::Sender<Arc<Table>>,
    /// Every instance that is in the table, or has requests under way.
    known: Mutex<HashMap<Key, Arc<Upstream>>>,
    slots: Arc<Semaphore>,
    domain: Option<String>,
}

impl Ingress {
    /// An ingress of what a replica says, with an empty table; apps are reachable as `NAME.domain` where a domain is given.
    pub(crate) fn new(domain: Option<String>, reader: Arc<dyn Reader>) -> Self {
        let domain = domain.map(|domain| domain.trim_matches('.').to_ascii_lowercase());
        let shared = Shared {
            reader,
            table: watch::Sender::new(Arc::default()),
            known: Mutex::default(),
            slots: Arc::new(Semaphore::new(REQUESTS_MAX)),
            domain,
        };
        Ingress {
            shared: Arc::new(shared),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Arc<Upstream>>> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision that requests are routed by.
    pub(crate) fn revision(&self) -> Revision {
        self.shared.table.borrow().revision
    }

    /// Requests that this ingress has under way to an instance.
    pub(crate) fn in_flight(&self, app: &Name, ordinal: Ordinal) -> usize {
        self.known()
            .iter()
            .filter(|(key, _)| key.0 == *app && key.1 == ordinal)
            .map(|(_, upstream)| upstream.in_flight())
            .sum()
    }

    /// Puts in force what the replica says now, if the table is older.
    fn refresh(&self) {
        // Held all the way, so that none who looked earlier swaps later.
        let mut known = self.known();
        let shown = self.revision();
        let routing = self.shared.reader.read(|view| {
            if deployments::changed(view)? > shown {
                instances::routing(view).map(Some)
            } else {
                Ok(None)
            }
        });
        if let Some(routing) = routing {
            self.swap(&mut known, routing);
        }
    }

    /// Puts a routing in force.
    fn swap(&self, known: &mut HashMap<Key, Arc<Upstream>>, routing: instances::Routing) {
        let table = Arc::new(Table::new(routing, self.shared.domain.clone(), known));
        self.shared.table.send_replace(Arc::clone(&table));
        let mut kept: HashMap<Key, Arc<Upstream>> = table
            .upstreams()
            .map(|upstream| (upstream.key().clone(), Arc::clone(upstream)))
            .collect();
        for (key, upstream) in known.drain() {
            if kept.contains_key(&key) {
                continue;
            }
            upstream.retire();
            if upstream.in_flight() > 0 {
                kept.insert(key, upstream);
            }
        }
        *known = kept;
    }

    /// Keeps the table as the replica has it, until `token` is cancelled.
    pub(crate) async fn follow(self, token: CancellationToken) {
        let reader = &self.shared.reader;
        loop {
            let next = Instant::now() + crate::BREATH;
            let stamp = reader.stamp().applied;
            self.refresh();
            tokio::select! {
                () = token.cancelled() => return,
                _ = reader.changed(stamp) => {}
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Serves clients of `listener` until `token` is cancelled, and then the requests under way.
    pub(crate) async fn serve(self, listener: TcpListener, token: CancellationToken) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEADER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_BYTES_MAX as u32);
        let graceful = GracefulShutdown::new();
        loop {
            let (stream, peer) = tokio::select! {
                () = token.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: others will be given back.
                        tracing::warn!(%error, "the ingress cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let connection = self.connection(&builder, stream, peer, &graceful);
            tokio::spawn(connection);
        }
        drop(listener);
        let _ = tokio::time::timeout(SHUTDOWN, graceful.shutdown()).await;
    }

    fn connection(
        &self,
        builder: &auto::Builder<TokioExecutor>,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        graceful: &GracefulShutdown,
    ) -> impl Future<Output = ()> + use<> {
        let ingress = self.clone();
        let service = service_fn(move |request| {
            let ingress = ingress.clone();
            async move { Ok::<_, std::convert::Infallible>(ingress.handle(peer, request).await) }
        });
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "client connection ended");
            }
        }
    }
}

#[cfg(test)]
mod tests;
