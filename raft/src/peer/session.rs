//! One session of pipelined appends to a follower: what is written when, and which answers count.

use super::frame::FrameReader;
use super::net::{ReadHalf, WriteHalf};
use super::network::{Rpc, decode, network_error};
use super::wire;
use crate::catch_up::Pace;
use crate::runtime::within;
use crate::types::{LogId, TypeConfig};
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A connection for appends.
pub(super) struct LogConnection {
    pub(super) reader: FrameReader<ReadHalf>,
    pub(super) writer: WriteHalf,
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
            last: last_of(request),
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
pub(super) struct Limits {
    /// How long the answer to what was sent may take.
    deadline: Duration,
    answer_age_max: Duration,
    commit_wait: Duration,
}

impl Limits {
    /// With a lease, how long the others elect nobody after they heard from a leader.
    pub(super) fn new(deadline: Duration, lease: Duration) -> Self {
        Limits {
            deadline,
            answer_age_max: answer_age_max(lease),
            commit_wait: COMMIT_WAIT,
        }
    }
}

/// One session of pipelined appends: a task writes requests as openraft makes them, while the results are read here,
/// in the order of the requests because the connection and the receiver keep it.
pub(super) struct Session<'s> {
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
    /// Begins to write what `input` has. `asked` is told when a follower has to know of a commit.
    pub(super) fn start<S>(
        connection: LogConnection,
        input: S,
        limits: Limits,
        asked: Arc<Notify>,
        pace: Pace,
        idle: &'s mut Option<LogConnection>,
    ) -> Self
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let in_flight = InFlight::default();
        let (done, written) = oneshot::channel();
        let (sent, mut writer) = (in_flight.clone(), connection.writer);
        let task = tokio::spawn(within(async move {
            let result = write_requests(&mut writer, input, &sent, limits.commit_wait, &asked, pace).await;
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

    /// The next result; `None` once all requests are answered and no more will come.
    pub(super) async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, Rpc>> {
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

/// Writes requests in order; one that may wait goes in one write with what follows it. Who catches up after a
/// snapshot is sent them at a pace.
async fn write_requests<S>(
    writer: &mut WriteHalf,
    input: S,
    sent: &InFlight,
    commit_wait: Duration,
    asked: &Notify,
    mut pace: Pace,
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
        let (mut entries, mut left) = (0, 0);
        let mut next = Some(request);
        let until = Instant::now() + commit_wait;
        while let Some(request) = next {
            sent.lock().push_back(Sent::of(&request));
            bytes.extend_from_slice(&wire::encode_append(id, &request));
            id += 1;
            entries = request.entries.len() as u64;
            left = left_after(&request);
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
        if let Some(due) = pace.next(entries, left, Instant::now()) {
            tokio::time::sleep_until(due).await;
        }
    }
    Ok(())
}

/// What a follower has that accepted a request.
fn last_of(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    let last = request.entries.last().map(|entry| entry.log_id);
    last.or(request.prev_log_id)
}

/// How many committed entries follow those of a request.
fn left_after(request: &AppendEntriesRequest<TypeConfig>) -> u64 {
    let index = |id: &Option<LogId>| id.map_or(0, |id| id.index);
    index(&request.leader_commit).saturating_sub(index(&last_of(request)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::frame;
    use crate::peer::network::encode_append_result;
    use crate::peer::wire::kind;
    use crate::types::{Entry, LeaderId, Vote};
    use futures::{FutureExt, stream};
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
        let session = Session::start(
            connection,
            input.boxed(),
            limits,
            asked.clone(),
            Pace::new(Arc::default(), 0),
            idle,
        );
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
