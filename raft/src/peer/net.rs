//! Streams between peers behind a trait: TCP in production, a simulated network in simulation.

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{KeepAlive, TcpKeepIdle, TcpKeepInterval, TcpUserTimeout};
use onward_statemachine::ports::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Sync + Unpin>;
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Opens streams between addresses.
pub(crate) trait Net: Send + Sync + 'static {
    /// Connects to `host:port`. The stream ends once nothing of what was sent is taken for as long as `patience`.
    fn dial<'a>(
        &'a self,
        address: &'a str,
        patience: Duration,
    ) -> BoxFuture<'a, io::Result<(ReadHalf, WriteHalf)>>;
    /// Listens on `host:port`.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listen>>>;
}

/// Takes streams in.
pub(crate) trait Listen: Send + Sync + 'static {
    /// The next stream and who opened it.
    fn accept(&self) -> BoxFuture<'_, io::Result<(ReadHalf, WriteHalf, SocketAddr)>>;
    /// Where it listens.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// How long what was sent may wait to be taken before the stream is given up for a new one. TCP by itself waits twice as
/// long after each loss: a link that lost much for a while would stand still as long again once it is well.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// TCP without Nagle's delay: a frame is written at once and waited for.
pub(crate) struct Tcp;

/// After so much silence, and so often from then on, the other end is asked whether it is still there: one whose process or
/// machine went down unheard says no, and who waits for its answer would wait for ever. One that says nothing is given up after
/// the stream's patience, however often it was asked (tcp(7), `TCP_USER_TIMEOUT`).
const SILENCE: Duration = Duration::from_secs(1);

fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, TcpUserTimeout, &(patience.as_millis() as u32))?;
    setsockopt(stream, TcpKeepIdle, &(SILENCE.as_secs() as u32))?;
    setsockopt(stream, TcpKeepInterval, &(SILENCE.as_secs() as u32))?;
    setsockopt(stream, KeepAlive, &true)?;
    Ok(())
}

fn halves(stream: TcpStream, patience: Duration) -> io::Result<(ReadHalf, WriteHalf)> {
    prepare(&stream, patience)?;
    let (read, write) = stream.into_split();
    Ok((Box::new(read), Box::new(write)))
}

impl Net for Tcp {
    fn dial<'a>(
        &'a self,
        address: &'a str,
        patience: Duration,
    ) -> BoxFuture<'a, io::Result<(ReadHalf, WriteHalf)>> {
        Box::pin(async move { halves(TcpStream::connect(address).await?, patience) })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listen>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Listen>) })
    }
}

impl Listen for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(ReadHalf, WriteHalf, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            let (read, write) = halves(stream, PATIENCE)?;
            Ok((read, write, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockopt;

    #[tokio::test]
    async fn both_ends_of_a_stream_give_up_what_is_not_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let (dialled, taken) = tokio::join!(TcpStream::connect(address), listener.accept());
        for stream in [dialled.expect("connects"), taken.expect("accepts").0] {
            prepare(&stream, PATIENCE).expect("options are set");
            let bound = getsockopt(&stream, TcpUserTimeout).expect("is read");
            assert_eq!(u128::from(bound), PATIENCE.as_millis());
            assert!(stream.nodelay().expect("is read"));
            assert!(getsockopt(&stream, KeepAlive).expect("is read"));
            let idle = getsockopt(&stream, TcpKeepIdle).expect("is read");
            assert_eq!(u64::from(idle), SILENCE.as_secs());
        }
    }
}
