//! The HTTP listener: bounded connections, bounded patience with slow headers, graceful end.

use crate::together;
use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Layer;

/// The most connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// The most requests at once on one HTTP/2 connection; further ones wait on it.
const REQUESTS_MAX: u32 = 1024;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way may take to end once the node is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How one connection is served, of whichever version of HTTP it speaks.
fn server(requests: together::Started) -> auto::Builder<together::Started> {
    let mut server = auto::Builder::new(requests);
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .pipeline_flush(true);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX);
    server
}

/// Serves `router` on `listener` until `stop`, then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: the next accept would fail at once.
                    tracing::warn!(%error, "http accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %peer, "no TCP_NODELAY");
        }
        let service = axum::Extension(ConnectInfo::<SocketAddr>(peer)).layer(router.clone());
        let requests = together::Started::default();
        let server = server(requests.clone());
        let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = together::run(graceful.watch(connection.into_owned()), requests);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "http connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::info!("http requests still under way were cut off");
    }
}
