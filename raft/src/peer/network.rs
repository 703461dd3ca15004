//! openraft's network over the peer transport: the sending side.

use super::Peers;
use super::channel::{CallError, Channel};
use super::frame::{FrameReader, Lane};
use super::session::{Limits, LogConnection, Session};
use super::transfer::{self, Pace};
use super::wire::{self, kind};
use crate::catch_up::{self, CatchingUp};
use crate::state::snapshot::SnapshotHandle;
use crate::types::{LeaderId, LogId, PeerNode, TypeConfig, Vote};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use onward_statemachine::codec;
use openraft::OptionalSend;
use openraft::base::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// Between two tries to reach a peer for its log.
const REDIAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

pub(super) type Rpc = RPCError<TypeConfig>;
type Snapshot = openraft::storage::Snapshot<LeaderId, u64, PeerNode, SnapshotHandle>;

/// Makes the clients that openraft asks for.
#[derive(Clone)]
pub(crate) struct Factory {
    pub(crate) peers: Arc<Peers>,
    /// How fast snapshots are sent.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    /// How long the others elect nobody after they heard from a leader.
    pub(crate) lease: Duration,
    pub(crate) catching_up: Arc<CatchingUp>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    /// Each method of the client picks its lane, so heartbeats and snapshots need no clients of another kind.
    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Network {
        Network {
            control: self.peers.channel(target, node, Lane::Control),
            peers: self.peers.clone(),
            bytes_per_second: self.bytes_per_second,
            lease: self.lease,
            catching_up: self.catching_up.clone(),
            target,
            node: node.clone(),
            idle: None,
        }
    }
}

/// The way to one peer.
pub(crate) struct Network {
    peers: Arc<Peers>,
    bytes_per_second: Option<NonZeroU64>,
    lease: Duration,
    catching_up: Arc<CatchingUp>,
    target: u64,
    node: PeerNode,
    control: Arc<Channel>,
    /// A log connection whose last session ended in good order.
    idle: Option<LogConnection>,
}

fn rpc_error(error: &CallError) -> Rpc {
    match error {
        // openraft waits before it tries an unreachable peer again.
        CallError::NotSent(_) => RPCError::Unreachable(Unreachable::new(error)),
        CallError::Lost | CallError::Timeout | CallError::Failed(_) => {
            RPCError::Network(NetworkError::new(error))
        }
    }
}

pub(super) fn network_error(error: &io::Error) -> Rpc {
    RPCError::Network(NetworkError::new(error))
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Rpc> {
    wire::decode(body).map_err(|error| network_error(&error))
}

impl Network {
    async fn control<T: serde::de::DeserializeOwned>(
        &self,
        kind: u8,
        request: &impl serde::Serialize,
        option: &RPCOption,
    ) -> Result<T, Rpc> {
        let body = self
            .control
            .call(kind, &codec::encode(request), option.soft_ttl())
            .await
            .map_err(|error| rpc_error(&error))?;
        decode(&body)
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = SnapshotHandle;

    /// Heartbeats and probes; entries in bulk go through [`RaftNetworkV2::stream_append`].
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Rpc> {
        let until = Instant::now() + option.soft_ttl();
        let body = self
            .control
            .call_with(until, |id| wire::encode_append(id, &rpc))
            .await
            .map_err(|error| rpc_error(&error))?;
        decode(&body)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let connection = match self.idle.take() {
                Some(connection) => connection,
                None => {
                    let dialed = self.peers.dial(self.target, &self.node, Lane::Log).await;
                    if dialed.is_err() {
                        // openraft opens the stream again at once, and a refused connection fails at once.
                        tokio::time::sleep(REDIAL_PAUSE).await;
                    }
                    let (read, writer) =
                        dialed.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
                    let reader = FrameReader::new(read);
                    LogConnection { reader, writer }
                }
            };
            let limits = Limits::new(self.peers.rpc_deadline, self.lease);
            let asked = self.peers.asked.clone();
            let pace = catch_up::Pace::new(self.catching_up.clone(), self.target);
            let session = Session::start(connection, input, limits, asked, pace, &mut self.idle);
            let results = stream::unfold(Some(session), |session| async move {
                let mut session = session?;
                let result = session.next().await?;
                let goes_on = matches!(result, Ok(Ok(_)));
                Some((result, goes_on.then_some(session)))
            });
            Ok(results.boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.peers.counters.stand(rpc.vote.leader_id.term);
        self.control(kind::VOTE, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.control(kind::PRE_VOTE, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (peers, target, node) = (self.peers.clone(), self.target, self.node.clone());
        let pace = Pace::new(self.bytes_per_second);
        let send = async move {
            let (read, write) = peers
                .dial(target, &node, Lane::Snapshot)
                .await
                .map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
            let last = snapshot.meta.last_log_id.map_or(0, |id| id.index);
            let snapshot = snapshot.snapshot;
            let transfer = peers.begin_transfer(target, last, snapshot.manifest.bytes());
            let sent_bytes = &transfer.progress.sent_bytes;
            transfer::send(read, write, vote, &snapshot, pace, sent_bytes)
                .await
                .map_err(|error| StreamingError::Network(NetworkError::new(&error)))
        };
        let sent = async {
            self.peers
                .tasks
                .aside(send)
                .await
                .unwrap_or_else(|error| Err(StreamingError::Network(NetworkError::new(&error))))
        };
        tokio::select! {
            biased;
            sent = sent => {
                if sent.is_ok() {
                    self.catching_up.begin(self.target, Instant::now());
                    self.peers.counters.snapshots_sent.fetch_add(1, Relaxed);
                }
                sent
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Rpc> {
        let answer = self.control(kind::TRANSFER, &req, &option).await;
        if answer.is_err() {
            self.peers.declined.notify_waiters();
        }
        answer
    }
}

/// What a follower reports of one pipelined append.
pub(super) fn encode_append_result(result: &StreamAppendResult<TypeConfig>) -> Vec<u8> {
    codec::encode::<Result<Option<LogId>, openraft::raft::StreamAppendError<TypeConfig>>>(result)
}
