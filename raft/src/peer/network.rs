//! openraft's network over the peer transport: the sending side.

use super::Peers;
use super::channel::{CallError, Channel};
use super::frame::{FrameReader, Lane};
use super::net::{ReadHalf, WriteHalf};
use super::transfer::{self, Pace};
use super::wire::{self, kind};
use crate::runtime::within;
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
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between two tries to reach a peer for its log.
const REDIAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

type Rpc = RPCError<TypeConfig>;
type Snapshot = openraft::storage::Snapshot<LeaderId, u64, PeerNode, SnapshotHandle>;

/// Makes the clients that openraft asks for.
#[derive(Clone)]
pub(crate) struct Factory {
    pub(crate) peers: Arc<Peers>,
    /// How fast snapshots are sent.
    pub(crate) bytes_per_second: Option<NonZeroU64>,
    /// How long the others elect nobody after they heard from a leader.
    pub(crate) lease: Duration,
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
    target: u64,
    node: PeerNode,
    control: Arc<Channel>,
    /// A log connection whose last session ended in good order.
    idle: Option<LogConnection>,
}

struct LogConnection {
    reader: FrameReader<ReadHalf>,
    writer: WriteHalf,
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

fn network_error(error: &io::Error) -> Rpc {
    RPCError::Network(NetworkError::new(error))
}

fn decode<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Rpc> {
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
        let until = tokio::time::Instant::now() + option.soft_ttl();
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
            let limits = Limits {
                deadline: self.peers.rpc_deadline,
                answer_age_max: answer_age_max(self.lease),
                commit_wait: COMMIT_WAIT,
            };
            let asked = self.peers.asked.clone();
            let session = Session::start(connection, input, limits, asked, &mut self.idle);
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

/// How old an answer may be that could be taken for that to a later request. openraft gives a peer credit for the newest request
/// that an answer covers, and the leader a lease from when that one was sent; a request without entries is covered by the answer to
/// the one before it. Reads count on half of the lease, so a quarter is to spare.
fn answer_age_max(lease: Duration) -> Duration {
    lease / 4
}

/// A request that waits for its answer.
struct Sent {
    at: Instant,
    after: Option<LogId>,
    last: Option<LogId>,
}

impl Sent {
    fn of(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Sent {
            at: Instant::now(),
            after: request.prev_log_id,
            last: request
                .entries
                .last()
                .map(|entry| entry.log_id)
                .or(request.prev_log_id),
        }
    }

    /// Whether a follower that has everything up to `matching` has part of this, or all of it.
    fn is_covered(&self, matching: Option<LogId>) -> bool {
        self.last <= matching || self.after < matching
    }
}

/// The requests of one session without an answer, in order.
#[derive(Clone, Default)]
struct InFlight(Arc<Mutex<VecDeque<Sent>>>);

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the answer to the oldest request, `None` for one that says that it does not follow. Whether to keep it back, since
    /// it is old and a later request would get the credit: the answer to that one says as much, and more. openraft counts an
    /// answer in the same poll, on the one thread, so that no request comes in between.
    fn answer(&self, matching: Option<Option<LogId>>, age_max: Duration) -> bool {
        let mut sent = self.lock();
        let Some(answered) = sent.pop_front() else {
            return false;
        };
        matching.is_some_and(|matching| {
            answered.at.elapsed() > age_max && sent.iter().any(|later| later.is_covered(matching))
        })
    }
}

/// How long a request that tells of a commit, and brings no entries, may wait for one to go with it: each that goes by itself
/// wakes the follower once more. A follower that has to know, since somebody reads there, is told at once.
const COMMIT_WAIT: Duration = Duration::from_millis(1);

/// What bounds a session in time.
#[derive(Clone, Copy)]
struct Limits {
    /// How long the answer to what was sent may take.
    deadline: Duration,
    answer_age_max: Duration,
    commit_wait: Duration,
}

/// One session of pipelined appends: a task writes requests as openraft makes them, while the results are read here,
/// in the order of the requests because the connection and the receiver keep it.
struct Session<'s> {
    reader: Option<FrameReader<ReadHalf>>,
    in_flight: InFlight,
    /// Gives the writing half back once openraft has no more requests.
    written: Option<oneshot::Receiver<io::Result<WriteHalf>>>,
    writer: Option<WriteHalf>,
    task: JoinHandle<()>,
    limits: Limits,
    idle: &'s mut Option<LogConnection>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<'s> Session<'s> {
    fn start<S>(
        connection: LogConnection,
        input: S,
        limits: Limits,
        asked: Arc<Notify>,
        idle: &'s mut Option<LogConnection>,
    ) -> Self
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let in_flight = InFlight::default();
        let (done, written) = oneshot::channel();
        let (sent, mut writer) = (in_flight.clone(), connection.writer);
        let task = tokio::spawn(within(async move {
            let result = write_requests(&mut writer, input, &sent, limits.commit_wait, &asked).await;
            // The session may be over already.
            drop(done.send(result.map(|()| writer)));
        }));
        Session {
            reader: Some(connection.reader),
            in_flight,
            written: Some(written),
            writer: None,
            task,
            limits,
            idle,
        }
    }

    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, Rpc>> {
        loop {
            if self.written.is_none() && self.in_flight.lock().is_empty() {
                // Everything is answered: the connection serves the next session.
                if let (Some(reader), Some(writer)) = (self.reader.take(), self.writer.take()) {
                    *self.idle = Some(LogConnection { reader, writer });
                }
                return None;
            }
            let reader = self.reader.as_mut()?;
            let written = async {
                match self.written.as_mut() {
                    Some(written) => written.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                read = tokio::time::timeout(self.limits.deadline, reader.next()) => match read {
                    Ok(Ok(Some(frame))) => {
                        let answer = decode::<StreamAppendResult<TypeConfig>>(&frame.body);
                        let matching = answer.as_ref().ok().and_then(|result| result.as_ref().ok());
                        if !self.in_flight.answer(matching.copied(), self.limits.answer_age_max) {
                            return Some(answer);
                        }
                    }
                    Ok(Ok(None)) => return Some(Err(network_error(&io::ErrorKind::UnexpectedEof.into()))),
                    Ok(Err(error)) => return Some(Err(network_error(&error))),
                    // Silence is fine while nothing is asked.
                    Err(_) if self.in_flight.lock().is_empty() => {}
                    Err(_) => return Some(Err(network_error(&io::ErrorKind::TimedOut.into()))),
                },
                written = written => {
                    self.written = None;
                    match written {
                        Ok(Ok(writer)) => self.writer = Some(writer),
                        Ok(Err(error)) => return Some(Err(network_error(&error))),
                        Err(_) => return Some(Err(network_error(&io::ErrorKind::BrokenPipe.into()))),
                    }
                }
            }
        }
    }
}

async fn write_requests<S>(
    writer: &mut WriteHalf,
    input: S,
    sent: &InFlight,
    commit_wait: Duration,
    asked: &Notify,
) -> io::Result<()>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    let mut input = input.fuse();
    let mut id = 0;
    let mut bytes = Vec::new();
    let mut told = None;
    while let Some(request) = input.next().await {
        bytes.clear();
        let mut next = Some(request);
        let until = Instant::now() + commit_wait;
        while let Some(request) = next {
            sent.lock().push_back(Sent::of(&request));
            bytes.extend_from_slice(&wire::encode_append(id, &request));
            id += 1;
            let may_wait = request.entries.is_empty() && request.leader_commit > told;
            told = request.leader_commit;
            next = if may_wait {
                tokio::select! {
                    biased;
                    next = input.next() => next,
                    () = asked.notified() => None,
                    () = tokio::time::sleep_until(until) => None,
                }
            } else {
                None
            };
        }
        writer.write_all(&bytes).await?;
    }
    Ok(())
}

/// What a follower reports of one pipelined append.
pub(super) fn encode_append_result(result: &StreamAppendResult<TypeConfig>) -> Vec<u8> {
    codec::encode::<Result<Option<LogId>, openraft::raft::StreamAppendError<TypeConfig>>>(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::frame;
    use crate::types::Entry;
    use futures::FutureExt;
    use openraft::entry::RaftEntry;
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::sync::mpsc;

    fn up_to(index: u64) -> Option<LogId> {
        let leader = LeaderId { term: 1, node_id: 1 };
        Some(LogId::new(leader, index))
    }

    /// One that tells a follower with everything up to `index` of a commit, and brings nothing else.
    fn commit(index: u64) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new(1, 1),
            prev_log_id: up_to(index),
            entries: Vec::new(),
            leader_commit: up_to(index),
        }
    }

    struct Follower(DuplexStream);

    impl Follower {
        async fn is_sent(&mut self, requests: &Requests, request: AppendEntriesRequest<TypeConfig>) {
            requests.send(request).expect("is open");
            self.heard().await;
        }

        async fn heard(&mut self) {
            let mut some = [0; 4096];
            assert!(self.0.read(&mut some).await.expect("reads") > 0);
        }

        /// Whether nothing comes, however often the tasks that are ready run.
        async fn hears_nothing(&mut self) -> bool {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            self.heard().now_or_never().is_none()
        }

        async fn answer(&mut self, index: u64) {
            let bytes = encode_append_result(&Ok(up_to(index)));
            let frame = frame::encode(kind::ANSWER, 0, &bytes);
            self.0.write_all(&frame).await.expect("writes");
        }
    }

    type Requests = mpsc::UnboundedSender<AppendEntriesRequest<TypeConfig>>;

    const LIMITS: Limits = Limits {
        deadline: Duration::MAX,
        answer_age_max: Duration::MAX,
        commit_wait: COMMIT_WAIT,
    };

    fn session<'s>(
        idle: &'s mut Option<LogConnection>,
        limits: Limits,
        asked: &Arc<Notify>,
    ) -> (Session<'s>, Requests, Follower) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(near);
        let connection = LogConnection {
            reader: FrameReader::new(Box::new(read)),
            writer: Box::new(write),
        };
        let (requests, input) = mpsc::unbounded_channel();
        let input = stream::unfold(input, |mut input| async { Some((input.recv().await?, input)) });
        let session = Session::start(connection, input.boxed(), limits, asked.clone(), idle);
        (session, requests, Follower(far))
    }

    async fn passed_on(session: &mut Session<'_>) -> Option<LogId> {
        let answer = session.next().await.expect("goes on").expect("is well");
        answer.expect("follows")
    }

    #[tokio::test]
    async fn an_old_answer_gives_no_credit_to_a_later_request() {
        let mut idle = None;
        let limits = Limits {
            answer_age_max: Duration::ZERO,
            ..LIMITS
        };
        let (mut session, requests, mut follower) = session(&mut idle, limits, &Arc::default());
        for _ in 0..2 {
            follower.is_sent(&requests, commit(8)).await;
        }
        follower.answer(8).await;
        let early = tokio::time::timeout(Duration::from_millis(100), session.next()).await;
        assert!(
            early.is_err(),
            "the answer to the first passes for one to the second"
        );
        follower.answer(8).await;
        assert_eq!(passed_on(&mut session).await, up_to(8));

        // What is behind it is no part of what it covers.
        for index in [9, 10] {
            follower.is_sent(&requests, commit(index)).await;
        }
        follower.answer(9).await;
        assert_eq!(passed_on(&mut session).await, up_to(9));
    }

    #[tokio::test]
    async fn a_recent_answer_is_passed_on_whatever_is_under_way() {
        let mut idle = None;
        let (mut session, requests, mut follower) = session(&mut idle, LIMITS, &Arc::default());
        for _ in 0..2 {
            follower.is_sent(&requests, commit(7)).await;
        }
        follower.answer(7).await;
        assert_eq!(passed_on(&mut session).await, up_to(7));
    }

    #[tokio::test]
    async fn a_commit_waits_for_entries_to_go_with_or_for_somebody_who_asks() {
        let limits = Limits {
            commit_wait: Duration::from_secs(1 << 20),
            ..LIMITS
        };
        let (mut idle, asked) = (None, Arc::default());
        let (_session, requests, mut follower) = session(&mut idle, limits, &asked);
        requests.send(commit(7)).expect("is open");
        assert!(follower.hears_nothing().await);
        asked.notify_waiters();
        follower.heard().await;

        // One that tells of no other commit is a heartbeat, and goes at once.
        follower.is_sent(&requests, commit(7)).await;

        requests.send(commit(8)).expect("is open");
        assert!(follower.hears_nothing().await);
        let leader = LeaderId { term: 1, node_id: 1 };
        let entries = vec![Entry::new_blank(LogId::new(leader, 9))];
        let request = AppendEntriesRequest { entries, ..commit(8) };
        follower.is_sent(&requests, request).await;
    }
}
