//! Messages in and out, over UDP and TCP (RFC 7766).

use super::message::{Responder, Transport};
use super::{TCP_CONNECTIONS_MAX, TCP_IDLE};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The largest query that is read over UDP; what is longer is cut, and then does not parse.
const QUERY_BYTES_MAX: usize = 4096;
/// The most tasks that answer over UDP.
const UDP_TASKS_MAX: usize = 4;
/// How long to leave a socket alone that fails.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Answers until `token` is cancelled.
pub(super) async fn run(
    udp: UdpSocket,
    tcp: TcpListener,
    responder: Arc<Responder>,
    token: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let udp = Arc::new(udp);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores.min(UDP_TASKS_MAX) {
        tasks.spawn(datagrams(Arc::clone(&udp), Arc::clone(&responder)));
    }
    tasks.spawn(connections(tcp, responder));
    token.cancelled().await;
    // The tasks hold nothing but sockets, which are closed once they have ended.
    tasks.shutdown().await;
}

async fn datagrams(socket: Arc<UdpSocket>, responder: Arc<Responder>) {
    let mut query = [0; QUERY_BYTES_MAX];
    loop {
        let (length, peer) = match socket.recv_from(&mut query).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "DNS over UDP cannot receive");
                sleep(FAILURE_PAUSE).await;
                continue;
            }
        };
        let Some(answer) = responder.respond(&query[..length], Transport::Udp) else {
            continue;
        };
        if let Err(error) = socket.send_to(&answer, peer).await {
            tracing::debug!(%error, %peer, "DNS over UDP cannot send");
        }
    }
}

async fn connections(listener: TcpListener, responder: Arc<Responder>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((_, peer)) if connections.len() >= TCP_CONNECTIONS_MAX => {
                tracing::debug!(%peer, max = TCP_CONNECTIONS_MAX, "DNS over TCP is full");
            }
            Ok((stream, _)) => {
                // How a connection ends is its client's business.
                connections.spawn(converse(stream, Arc::clone(&responder)));
            }
            Err(error) => {
                tracing::debug!(%error, "DNS over TCP cannot accept");
                sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// Answers the messages of one connection in turn, until it closes, idles, or sends what is no message.
async fn converse(mut stream: TcpStream, responder: Arc<Responder>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = Vec::new();
    loop {
        timeout(TCP_IDLE, receive(&mut stream, &mut message)).await??;
        let Some(answer) = responder.respond(&message, Transport::Tcp) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

async fn receive(stream: &mut TcpStream, message: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    message.resize(length.into(), 0);
    stream.read_exact(message).await?;
    Ok(())
}
