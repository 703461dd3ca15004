//! One instance as the ingress sees it: connections that wait for their next request, and the count of requests under
//! way, by which a drain knows its end.

use super::table::{Key, key};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use onward_statemachine::deployments::apps::Name;
use onward_statemachine::deployments::instances::Active;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// What goes to and comes from an instance.
pub(crate) type Body = BoxBody<Bytes, hyper::Error>;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a connection may wait for its next request: shorter than what servers commonly wait themselves.
const IDLE: Duration = Duration::from_secs(3);
/// The most connections of one instance that wait.
const IDLE_MAX: usize = 256;

/// An instance to send requests to.
#[derive(Debug)]
pub(crate) struct Upstream {
    key: Key,
    host: String,
    port: u16,
    in_flight: AtomicUsize,
    /// Whether the route leads elsewhere now, so that no connection is worth keeping.
    retired: AtomicBool,
    idle: Mutex<Vec<(Instant, SendRequest<Body>)>>,
}

impl Upstream {
    pub(crate) fn new(app: &Name, active: &Active) -> Self {
        Upstream {
            key: key(app, active),
            host: active.address.clone(),
            port: active.port,
            in_flight: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            idle: Mutex::default(),
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn app(&self) -> &Name {
        &self.key.0
    }

    #[cfg(test)]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Requests that this ingress has under way there.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Arc::clone(self))
    }

    /// Closes what waits: requests under way finish, others go elsewhere.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, SendRequest<Body>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that waits, if one does.
    pub(crate) fn reuse(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        while let Some((since, sender)) = idle.pop() {
            if since.elapsed() > IDLE {
                // Those below have waited even longer.
                idle.clear();
            } else if sender.is_ready() && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> std::io::Result<SendRequest<Body>> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT, connecting)
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(sender)
    }

    /// Keeps a connection for the next request, once the present one is through.
    pub(crate) fn keep(self: &Arc<Self>, mut sender: SendRequest<Body>) {
        let upstream = Arc::clone(self);
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let mut idle = upstream.idle();
            if !upstream.retired.load(Ordering::SeqCst) && idle.len() < IDLE_MAX {
                idle.push((Instant::now(), sender));
            }
        });
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Upstream>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}
