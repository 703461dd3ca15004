//! Writes that wait for what else is ready: the answers of an HTTP/2 connection leave together.
//!
//! On a connection that many requests share, each answer would be written by itself as soon as it is ready, with a system call and
//! a packet of its own. One that waits until the thread has nothing else to run finds the others that became ready meanwhile in the
//! same buffer.

use futures::task::AtomicWaker;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll, Wake};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client begins an HTTP/2 connection with (RFC 9113 section 3.4), and no request of HTTP/1 has.
const PREFACE: &[u8] = b"PRI ";

/// A stream whose writes wait for each other once it turns out to speak HTTP/2.
pub struct Gathering<S> {
    stream: S,
    speaks: Speaks,
    /// What is to be written waits for this.
    turn: Option<Arc<Turn>>,
}

/// The moment at which everything else that was ready has run. Until then other wake-ups of the task change nothing.
#[derive(Default)]
struct Turn {
    came: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.came.store(true, Release);
        self.task.wake();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Unknown,
    Http1,
    Http2,
}

impl<S> Gathering<S> {
    pub fn new(stream: S) -> Self {
        Gathering {
            stream,
            speaks: Speaks::Unknown,
            turn: None,
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.speaks != Speaks::Http2 {
            return Poll::Ready(());
        }
        let asked = self.turn.is_some();
        let turn = self.turn.get_or_insert_default();
        turn.task.register(cx.waker());
        if !asked {
            let waker = turn.clone().into();
            // Its first poll has the runtime wake whoever polled it when everything else has run.
            let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
        }
        if turn.came.load(Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.speaks == Speaks::Unknown && read.is_ready() {
            let is_http2 = buf.filled()[before..].starts_with(PREFACE);
            self.speaks = if is_http2 { Speaks::Http2 } else { Speaks::Http1 };
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_turn(cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.turn = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    /// A stream that has read how its client begins.
    async fn begun_with(begin: &[u8]) -> (Gathering<DuplexStream>, DuplexStream) {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(begin).await.expect("writes");
        let mut stream = Gathering::new(near);
        let mut some = [0; 64];
        assert_eq!(stream.read(&mut some).await.expect("reads"), begin.len());
        (stream, far)
    }

    /// Whether another task that was ready ran before a write was done.
    async fn waits(stream: &mut Gathering<DuplexStream>) -> bool {
        let ran = Arc::new(AtomicBool::new(false));
        let other = tokio::spawn({
            let ran = ran.clone();
            async move { ran.store(true, Relaxed) }
        });
        stream.write_all(b"an answer").await.expect("writes");
        let waited = ran.load(Relaxed);
        stream.flush().await.expect("flushes");
        other.await.expect("ends");
        waited
    }

    #[tokio::test]
    async fn what_is_written_to_a_shared_connection_waits_for_what_is_ready() {
        let (mut stream, mut far) = begun_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        for _ in 0..3 {
            assert!(waits(&mut stream).await);
        }
        let mut all = [0; 27];
        far.read_exact(&mut all).await.expect("reads");
        assert_eq!(all, *b"an answeran answeran answer");
    }

    #[tokio::test]
    async fn what_is_written_to_a_connection_of_one_client_does_not_wait() {
        let (mut stream, _far) = begun_with(b"PUT /v1/kv/a HTTP/1.1\r\n").await;
        for _ in 0..3 {
            assert!(!waits(&mut stream).await);
        }
    }
}
