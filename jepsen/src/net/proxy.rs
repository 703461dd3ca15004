//! A stretch of wire for each pair of nodes and direction, as a program: what the kernel here cannot do to packets is
//! done to streams.
//!
//! Every node has a front: the address that its peers know. A connection to it is taken on to the node itself, and what
//! travels on it is held up as the [`Shape`] of its direction says: from the one that connected, and back to it.

use super::owner::Senders;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How much is taken up at once.
const PIECE_BYTES: usize = 16 << 10;
/// How many pieces may be under way in one direction; then the sender waits, as for a full window.
const PIECES_MAX: usize = 256;
/// How often a slow drip drips.
const DRIP: Duration = Duration::from_millis(20);

/// What a direction does to what travels in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// How much later everything arrives.
    pub delay: Duration,
    /// How much later still, at most, at random.
    pub jitter: Duration,
    /// How much passes in a second.
    pub bytes_per_second: Option<u32>,
    /// Whether anything passes.
    pub passage: Passage,
}

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passage {
    /// All does.
    #[default]
    Open,
    /// Nothing does; connections stay, and what waits arrives once it is open again.
    Held,
    /// Connections break off, and new ones do at once.
    Reset,
}

/// One direction between two nodes.
pub(super) struct Link {
    shape: watch::Sender<Shape>,
    /// How many reasons there are that nothing passes, whatever the shape is.
    cuts: watch::Sender<u8>,
    /// How many pieces and connections were not let through just so.
    touched: AtomicU64,
}

impl Link {
    pub(super) fn set(&self, shape: Shape) {
        self.shape.send_replace(shape);
    }

    /// One more reason, or one less.
    pub(super) fn cut(&self, cut: bool) {
        self.cuts.send_modify(|cuts| *cuts = counted(*cuts, cut));
    }

    pub(super) fn heal(&self) {
        self.shape.send_replace(Shape::default());
        self.cuts.send_replace(0);
    }

    pub(super) fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    fn shape(&self) -> Shape {
        *self.shape.borrow()
    }

    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until something passes.
    async fn open(&self) {
        while *self.cuts.borrow() > 0 || self.shape().passage != Passage::Open {
            self.touch();
            let (mut cuts, mut shape) = (self.cuts.subscribe(), self.shape.subscribe());
            let whole = cuts.wait_for(|cuts| *cuts == 0);
            whole.await.expect("the link outlives its connections");
            let open = shape.wait_for(|shape| shape.passage == Passage::Open);
            open.await.expect("the link outlives its connections");
        }
    }

    /// Waits until connections break off.
    async fn reset(&self) {
        self.shape
            .subscribe()
            .wait_for(|shape| shape.passage == Passage::Reset)
            .await
            .expect("the link outlives its connections");
    }
}

/// A number of reasons, with one more or one less.
pub(super) fn counted(reasons: u8, more: bool) -> u8 {
    if more {
        reasons.saturating_add(1)
    } else {
        reasons.saturating_sub(1)
    }
}

/// All directions, by sender and receiver.
pub(super) type Links = Arc<BTreeMap<(u64, u64), Arc<Link>>>;

/// The directions between `nodes` nodes, all open.
pub(super) fn links(nodes: u64) -> Links {
    let pairs = (1..=nodes).flat_map(|from| (1..=nodes).map(move |to| (from, to)));
    let link = |pair| {
        let link = Link {
            shape: watch::Sender::default(),
            cuts: watch::Sender::default(),
            touched: AtomicU64::new(0),
        };
        (pair, Arc::new(link))
    };
    Arc::new(pairs.filter(|(from, to)| from != to).map(link).collect())
}

/// Takes connections of peers on to `node`, which listens on `behind`.
pub(super) async fn front(
    listener: TcpListener,
    node: u64,
    behind: SocketAddr,
    links: Links,
    senders: Senders,
) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(DRIP).await;
            continue;
        };
        let (links, senders) = (links.clone(), senders.clone());
        tokio::spawn(async move {
            // Whoever is no node of the cluster has no business here.
            let Some(sender) = senders.sender_of(from).await else {
                return;
            };
            let (Some(there), Some(back)) = (links.get(&(sender, node)), links.get(&(node, sender))) else {
                return;
            };
            carry(stream, behind, there, back).await;
        });
    }
}

/// Takes one connection on, until it ends or breaks off.
async fn carry(stream: TcpStream, behind: SocketAddr, there: &Arc<Link>, back: &Arc<Link>) {
    let broken = async {
        tokio::select! {
            () = there.reset() => there.touch(),
            () = back.reset() => back.touch(),
        }
    };
    let forward = async {
        // A connection takes a message in each direction.
        there.open().await;
        back.open().await;
        let ahead = TcpStream::connect(behind).await?;
        ahead.set_nodelay(true)?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(ahead)
    };
    tokio::pin!(broken);
    let ahead = tokio::select! {
        ahead = forward => ahead,
        () = &mut broken => Err(io::ErrorKind::ConnectionReset.into()),
    };
    let Ok(ahead) = ahead else {
        return abort(&stream);
    };
    let (near, far) = (stream.into_split(), ahead.into_split());
    let (mut from_near, mut to_near) = near;
    let (mut from_far, mut to_far) = far;
    let both = async {
        tokio::try_join!(
            pump(&mut from_near, &mut to_far, there),
            pump(&mut from_far, &mut to_near, back)
        )
    };
    let orderly = tokio::select! {
        ended = both => ended.is_ok(),
        () = &mut broken => false,
    };
    if !orderly {
        abort(from_near.as_ref());
        abort(from_far.as_ref());
    }
}

/// Makes the end of a connection a reset.
fn abort(stream: &TcpStream) {
    // One that is gone already needs none.
    let _ = stream.set_zero_linger();
}

/// Carries one direction of one connection.
async fn pump(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, link: &Link) -> io::Result<()> {
    let (queue, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let mut jitter = ChaCha8Rng::seed_from_u64(0);
    let take_up = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let bytes = from.read(&mut piece).await?;
            if bytes == 0 {
                return Ok::<_, io::Error>(());
            }
            piece.truncate(bytes);
            let shape = link.shape();
            let mut delay = shape.delay;
            if !shape.jitter.is_zero() {
                delay += jitter.random_range(Duration::ZERO..shape.jitter);
            }
            if !delay.is_zero() {
                link.touch();
            }
            if queue.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let deliver = async {
        while let Some((due, piece)) = waiting.recv().await {
            tokio::time::sleep_until(due).await;
            write(to, &piece, link).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(take_up, deliver).map(drop)
}

/// Writes a piece as fast as the link lets it.
async fn write(to: &mut OwnedWriteHalf, mut piece: &[u8], link: &Link) -> io::Result<()> {
    while !piece.is_empty() {
        link.open().await;
        let Some(rate) = link.shape().bytes_per_second else {
            return to.write_all(piece).await;
        };
        let drop_bytes = (rate as usize * DRIP.as_millis() as usize / 1000).clamp(1, piece.len());
        to.write_all(&piece[..drop_bytes]).await?;
        piece = &piece[drop_bytes..];
        link.touch();
        tokio::time::sleep(DRIP).await;
    }
    Ok(())
}
