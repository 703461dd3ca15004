//! Streams between peers behind a trait: TCP in production, a simulated network in simulation.

use onward_statemachine::ports::BoxFuture;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Sync + Unpin>;
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Opens streams between addresses.
pub(crate) trait Net: Send + Sync + 'static {
    /// Connects to `host:port`.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<(ReadHalf, WriteHalf)>>;
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

/// TCP without Nagle's delay: a frame is written at once and waited for.
pub(crate) struct Tcp;

fn halves(stream: TcpStream) -> io::Result<(ReadHalf, WriteHalf)> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((Box::new(read), Box::new(write)))
}

impl Net for Tcp {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<(ReadHalf, WriteHalf)>> {
        Box::pin(async move { halves(TcpStream::connect(address).await?) })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listen>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Listen>) })
    }
}

impl Listen for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(ReadHalf, WriteHalf, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            let (read, write) = halves(stream)?;
            Ok((read, write, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
