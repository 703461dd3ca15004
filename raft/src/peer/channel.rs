//! A connection that carries many requests at once: each has an id, and its answer finds it by that.

use super::Peers;
use super::frame::{self, FrameReader, Lane};
use super::net::{ReadHalf, WriteHalf};
use super::wire::kind;
use crate::types::PeerNode;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For this long after a failed dial, requests fail at once instead of dialling again.
const DIAL_PAUSE: Duration = Duration::from_millis(50);
/// The most frames that are written at once.
const WRITE_FRAMES_MAX: usize = 1024;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It never left this node.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("the connection was lost before the answer")]
    Lost,
    #[error("no answer in time")]
    Timeout,
    /// It arrived and failed there.
    #[error("{0}")]
    Failed(String),
}

/// The road to one peer for one purpose; connects when it is used.
pub(crate) struct Channel {
    /// Its owner, which it must not keep alive.
    peers: Weak<Peers>,
    target: u64,
    node: PeerNode,
    lane: Lane,
    link: tokio::sync::Mutex<Road>,
}

#[derive(Default)]
struct Road {
    link: Option<Arc<Link>>,
    failed: Option<(Instant, String)>,
}

struct Link {
    /// Bounded by who calls: each call waits for its answer, and proposals and reads under way are bounded on this node.
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    next_id: AtomicU64,
    /// Cancelled when the connection is gone.
    gone: CancellationToken,
}

/// Requests without an answer yet; `None` once the connection is gone and no answer can come.
type Waiting = Arc<Mutex<Option<Waiters>>>;
type Waiters = BTreeMap<u64, oneshot::Sender<Result<Bytes, String>>>;

fn waiting(waiting: &Waiting) -> MutexGuard<'_, Option<Waiters>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    pub(super) fn new(peers: Weak<Peers>, target: u64, node: PeerNode, lane: Lane) -> Self {
        Channel {
            peers,
            target,
            node,
            lane,
            link: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&self, kind: u8, body: &[u8], deadline: Duration) -> Result<Bytes, CallError> {
        let until = Instant::now() + deadline;
        self.call_with(until, |id| frame::encode(kind, id, body)).await
    }

    /// As [`Channel::call`], with a frame that is made once its id is known.
    pub(crate) async fn call_with(
        &self,
        until: Instant,
        make: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<Bytes, CallError> {
        let link = tokio::time::timeout_at(until, self.link())
            .await
            .map_err(|_| CallError::NotSent("no connection in time".to_owned()))??;
        let id = link.next_id.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        match waiting(&link.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, answer),
            None => return Err(CallError::NotSent("the connection was just lost".to_owned())),
        };
        if link.frames.send(make(id)).is_err() {
            return Err(CallError::NotSent("the connection was just lost".to_owned()));
        }
        match tokio::time::timeout_at(until, answered).await {
            Ok(Ok(Ok(body))) => Ok(body),
            Ok(Ok(Err(reason))) => Err(CallError::Failed(reason)),
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => {
                if let Some(waiting) = waiting(&link.waiting).as_mut() {
                    waiting.remove(&id);
                }
                Err(CallError::Timeout)
            }
        }
    }

    async fn link(&self) -> Result<Arc<Link>, CallError> {
        let mut road = self.link.lock().await;
        if let Some(link) = road.link.as_ref().filter(|link| !link.gone.is_cancelled()) {
            return Ok(link.clone());
        }
        if let Some((at, reason)) = &road.failed
            && at.elapsed() < DIAL_PAUSE
        {
            return Err(CallError::NotSent(reason.clone()));
        }
        let Some(peers) = self.peers.upgrade() else {
            return Err(CallError::NotSent("this node is shutting down".to_owned()));
        };
        match peers.dial(self.target, &self.node, self.lane).await {
            Ok((read, write)) => {
                let link = Arc::new(Link::start(&peers, read, write));
                *road = Road {
                    link: Some(link.clone()),
                    failed: None,
                };
                Ok(link)
            }
            Err(error) => {
                let reason = error.to_string();
                *road = Road {
                    link: None,
                    failed: Some((Instant::now(), reason.clone())),
                };
                Err(CallError::NotSent(reason))
            }
        }
    }
}

impl Link {
    fn start(peers: &Peers, read: ReadHalf, write: WriteHalf) -> Link {
        let (frames, queue) = mpsc::unbounded_channel();
        let link = Link {
            frames,
            waiting: Arc::new(Mutex::new(Some(BTreeMap::new()))),
            next_id: AtomicU64::new(0),
            gone: peers.token.child_token(),
        };
        let (gone, answers) = (link.gone.clone(), link.waiting.clone());
        peers.tasks.spawn({
            let gone = gone.clone();
            async move {
                // Why it ended is told to those who wait: their answer is lost.
                drop(gone.run_until_cancelled(write_frames(write, queue, |_| {})).await);
                gone.cancel();
            }
        });
        peers.tasks.spawn(async move {
            drop(gone.run_until_cancelled(read_answers(read, &answers)).await);
            gone.cancel();
            waiting(&answers).take();
        });
        link
    }
}

/// Writes frames as they come, as many at once as there are when everything else that is ready has run: those who ask
/// at the same time share a packet. What `written` is told has left.
pub(super) async fn write_frames<F: AsRef<[u8]>>(
    mut write: WriteHalf,
    mut queue: mpsc::UnboundedReceiver<F>,
    written: impl Fn(&[F]),
) -> io::Result<()> {
    let mut frames = Vec::new();
    let mut joined = Vec::new();
    while queue.recv_many(&mut frames, WRITE_FRAMES_MAX).await > 0 {
        tokio::task::yield_now().await;
        while frames.len() < WRITE_FRAMES_MAX
            && let Ok(frame) = queue.try_recv()
        {
            frames.push(frame);
        }
        if let [frame] = &frames[..] {
            write.write_all(frame.as_ref()).await?;
        } else {
            joined.clear();
            for frame in &frames {
                joined.extend_from_slice(frame.as_ref());
            }
            write.write_all(&joined).await?;
        }
        written(&frames);
        frames.clear();
    }
    Ok(())
}

async fn read_answers(read: ReadHalf, answers: &Waiting) -> io::Result<()> {
    let mut reader = FrameReader::new(read);
    while let Some(frame) = reader.next().await? {
        let waiter = waiting(answers)
            .as_mut()
            .and_then(|waiting| waiting.remove(&frame.id));
        let answer = match frame.kind {
            kind::FAILED => Err(String::from_utf8_lossy(&frame.body).into_owned()),
            _ => Ok(frame.body),
        };
        if let Some(waiter) = waiter {
            // One who gave up waiting no longer cares.
            drop(waiter.send(answer));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::AsyncWrite;

    /// Notes what each write brings.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<Vec<u8>>>>);

    impl AsyncWrite for Written {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().expect("no test panics here").push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn frames_of_those_who_are_ready_leave_together() {
        let written = Written::default();
        let (frames, queue) = mpsc::unbounded_channel();
        frames.send(vec![1]).expect("is open");
        let writer = tokio::spawn(write_frames(Box::new(written.clone()), queue, |_| {}));
        let other = tokio::spawn(async move { frames.send(vec![2]) });
        other.await.expect("ends").expect("was open");
        writer.await.expect("ends").expect("writes");
        assert_eq!(*written.0.lock().expect("no test panics here"), [vec![1, 2]]);
    }
}
