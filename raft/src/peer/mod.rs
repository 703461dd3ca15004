//! The peer transport: its own port, one connection to each peer and purpose.
//!
//! Heartbeats and votes, log entries, forwarded requests and snapshots each have their own connection ([`Lane`]), so
//! that a heartbeat never waits behind bulk data. Each begins with a handshake that names the protocol version, the
//! cluster and both nodes; a stranger is refused and logged. Every request has a deadline.

pub(crate) mod channel;
pub(crate) mod frame;
pub(crate) mod net;
pub(crate) mod network;
mod seldom;
pub(crate) mod server;
mod session;
mod transfer;
pub(crate) mod wire;

use crate::counters::Counters;
use crate::purge::Holds;
use crate::runtime::Tasks;
use crate::types::PeerNode;
use channel::Channel;
use frame::{HandshakeError, Hello, Lane};
use net::{Net, ReadHalf, WriteHalf};
use seldom::Seldom;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a connection and its handshake may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(1);

/// The roads to the other nodes.
pub(crate) struct Peers {
    pub(crate) net: Arc<dyn Net>,
    pub(crate) me: u64,
    pub(crate) cluster: Uuid,
    pub(crate) rpc_deadline: Duration,
    pub(crate) counters: Arc<Counters>,
    pub(crate) token: CancellationToken,
    pub(crate) tasks: Tasks,
    /// Told when a peer that was asked to take over leadership did not agree to it.
    pub(crate) declined: Notify,
    /// Told when a follower asks up to where it has to read.
    pub(crate) asked: Arc<Notify>,
    channels: Mutex<BTreeMap<(u64, Lane, String), Arc<Channel>>>,
    transfers: Mutex<BTreeMap<u64, Arc<Progress>>>,
    /// What is logged of connections that a peer refused, and of those refused here: who is refused soon comes again.
    refused_there: Seldom,
    refused_here: Seldom,
    /// What the log keeps for those who take a snapshot.
    pub(crate) holds: Holds,
}

/// How far the transfer of a snapshot is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) total_bytes: u64,
}

/// A transfer that is under way as long as this lives.
pub(crate) struct Transfer<'p> {
    peers: &'p Peers,
    target: u64,
    pub(crate) progress: Arc<Progress>,
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.peers.transfers().remove(&self.target);
    }
}

impl Peers {
    pub(crate) fn new(
        net: Arc<dyn Net>,
        (me, cluster): (u64, Uuid),
        rpc_deadline: Duration,
        counters: Arc<Counters>,
        token: CancellationToken,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Peers {
            net,
            me,
            cluster,
            rpc_deadline,
            counters,
            token,
            tasks,
            declined: Notify::new(),
            asked: Arc::default(),
            channels: Mutex::default(),
            transfers: Mutex::default(),
            refused_there: Seldom::default(),
            refused_here: Seldom::default(),
            holds: Holds::default(),
        })
    }

    fn transfers(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Progress>>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to send a snapshot of so many bytes that ends at the entry `last`; the log behind it is kept for `target`.
    pub(crate) fn begin_transfer(&self, target: u64, last: u64, total_bytes: u64) -> Transfer<'_> {
        let written = self.counters.log_synced_bytes.load(Relaxed);
        self.holds.begin(target, last, total_bytes, written);
        let progress = Arc::new(Progress {
            total_bytes,
            ..Progress::default()
        });
        self.transfers().insert(target, progress.clone());
        Transfer {
            peers: self,
            target,
            progress,
        }
    }

    /// How many bytes of a snapshot `target` was sent, and of how many, while one is under way.
    pub(crate) fn transfer_to(&self, target: u64) -> Option<(u64, u64)> {
        let transfers = self.transfers();
        let progress = transfers.get(&target)?;
        Some((progress.sent_bytes.load(Relaxed), progress.total_bytes))
    }

    /// The channel to `target` on `lane`.
    pub(crate) fn channel(self: &Arc<Self>, target: u64, node: &PeerNode, lane: Lane) -> Arc<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels
            .entry((target, lane, node.peer.clone()))
            .or_insert_with(|| Arc::new(Channel::new(Arc::downgrade(self), target, node.clone(), lane)))
            .clone()
    }

    /// Connects to `target` and shakes hands.
    pub(crate) async fn dial(
        &self,
        target: u64,
        node: &PeerNode,
        lane: Lane,
    ) -> Result<(ReadHalf, WriteHalf), HandshakeError> {
        let hello = Hello {
            lane,
            cluster: if lane == Lane::Join {
                Uuid::nil()
            } else {
                self.cluster
            },
            from: self.me,
            to: target,
        };
        // A receiver of bulk may be held up by its disk, and is not to begin anew for it.
        let patience = match lane {
            Lane::Snapshot => transfer::FRAME_DEADLINE,
            _ => net::PATIENCE,
        };
        let connect = async {
            let (mut read, mut write) = self.net.dial(&node.peer, patience).await?;
            frame::greet(&mut read, &mut write, &hello).await?;
            Ok((read, write))
        };
        let connected = tokio::time::timeout(DIAL_DEADLINE, connect)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        match &connected {
            Ok(_) => {
                self.counters.peer_connections.fetch_add(1, Relaxed);
            }
            Err(HandshakeError::Refused {
                verdict,
                cluster,
                node: there,
            }) => {
                self.counters.peer_refusals.fetch_add(1, Relaxed);
                if self.refused_there.is_due(Instant::now()) {
                    tracing::warn!(
                        target_node = target, address = %node.peer, ?verdict,
                        their_cluster = %cluster, their_node = there, our_cluster = %self.cluster,
                        "a peer refused the connection; others like it are counted, and logged every ten seconds"
                    );
                }
            }
            Err(HandshakeError::Io(error)) => {
                tracing::debug!(target_node = target, address = %node.peer, %error, "a peer cannot be reached");
            }
        }
        connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Arc<Peers> {
        let (token, tasks) = (CancellationToken::new(), Tasks::default());
        Peers::new(
            Arc::new(net::Tcp),
            (1, Uuid::nil()),
            DIAL_DEADLINE,
            Arc::default(),
            token,
            tasks,
        )
    }

    #[test]
    fn nothing_is_left_of_roads_that_nobody_uses() {
        let peers = peers();
        let channel = peers.channel(4, &PeerNode::default(), Lane::Join);
        let (left, road) = (Arc::downgrade(&peers), Arc::downgrade(&channel));
        drop((peers, channel));
        assert!(left.upgrade().is_none() && road.upgrade().is_none());
    }

    #[test]
    fn a_transfer_is_shown_as_long_as_it_lasts() {
        let peers = peers();
        assert_eq!(peers.transfer_to(4), None);
        let transfer = peers.begin_transfer(4, 7, 100);
        transfer.progress.sent_bytes.fetch_add(30, Relaxed);
        assert_eq!(peers.transfer_to(4), Some((30, 100)));
        assert_eq!(peers.transfer_to(5), None);
        drop(transfer);
        assert_eq!(peers.transfer_to(4), None);
    }
}
