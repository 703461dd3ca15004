//! The receiving side of the peer transport.

use super::channel::write_frames;
use super::frame::{self, Frame, FrameReader, Hello, Lane, Verdict};
use super::net::{Listen, ReadHalf, WriteHalf};
use super::network::encode_append_result;
use super::transfer;
use super::wire::{self, FoundRequest, MemberRequest, Proposed, kind};
use crate::counters::Counters;
use crate::engine::Engine;
use crate::member::PATIENCE;
use crate::types::TypeConfig;
use futures::{FutureExt, StreamExt, stream};
use onward_statemachine::{Envelope, codec};
use openraft::raft::VoteRequest;
use openraft::storage::Snapshot;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::Instant;
use tracing::Instrument;

/// How long a stranger may take to introduce itself.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// A pause after a failed accept, which is most likely a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PROMISED: &str =
    "this node was started just now, and what it acknowledged to a leader before may still hold";
const NOT_CAUGHT_UP: &str = "this node began without a log and has not caught up with a leader yet";

/// Serves peers until the engine stops.
pub(crate) async fn serve(engine: Arc<Engine>, listener: Box<dyn Listen>) {
    while let Some(accepted) = engine.token().run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((read, write, from)) => {
                let serving = serve_connection(engine.clone(), read, write, from);
                let token = engine.token().clone();
                engine
                    .tasks()
                    .spawn(async move { token.run_until_cancelled_owned(serving).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a peer connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(engine: Arc<Engine>, mut read: ReadHalf, mut write: WriteHalf, from: SocketAddr) {
    let greeted = tokio::time::timeout(HELLO_DEADLINE, welcome(&engine, &mut read, &mut write, from));
    let hello = match greeted.await {
        Ok(Ok(Some(hello))) => hello,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            return tracing::debug!(%from, %error, "a peer connection ended before its handshake");
        }
        Err(_) => return tracing::debug!(%from, "a peer connection did not introduce itself in time"),
    };
    let reader = FrameReader::new(read);
    let ended = match hello.lane {
        Lane::Log => serve_log(&engine, reader, write, hello.from).await,
        Lane::Snapshot => serve_snapshot(&engine, reader, write).await,
        Lane::Control | Lane::Forward | Lane::Join => serve_requests(&engine, reader, write, &hello).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%from, node = hello.from, lane = ?hello.lane, %error, "a peer connection ended");
    }
}

/// Checks who it is; `None` after a refusal.
async fn welcome(
    engine: &Engine,
    read: &mut ReadHalf,
    write: &mut WriteHalf,
    from: SocketAddr,
) -> io::Result<Option<Hello>> {
    let hello = frame::read_hello(read).await?;
    let (cluster, me) = (engine.cluster_id(), engine.id());
    let verdict = match &hello {
        None => Verdict::WrongProtocol,
        Some(hello) if hello.lane == Lane::Join => Verdict::Welcome,
        Some(hello) if hello.cluster != cluster => Verdict::WrongCluster,
        Some(hello) if hello.to != me => Verdict::WrongNode,
        Some(_) => Verdict::Welcome,
    };
    frame::answer(write, verdict, cluster, me).await?;
    if verdict == Verdict::Welcome {
        return Ok(hello);
    }
    engine.counters().peer_refusals.fetch_add(1, Relaxed);
    if engine.peers.refused_here.is_due(Instant::now()) {
        tracing::warn!(
            %from, ?verdict, their_node = ?hello.map(|hello| hello.from), wanted_node = ?hello.map(|hello| hello.to),
            their_cluster = ?hello.map(|hello| hello.cluster), our_node = me, our_cluster = %cluster,
            "a peer connection was refused; others like it are counted, and logged every ten seconds"
        );
    }
    Ok(None)
}

/// For how long after one that says something new an answer that does not may wait for the next: to a request that told of
/// a commit, and brought no entries. Each that goes by itself wakes the leader once more. Where nothing is written, answers
/// to heartbeats go at once. By default it is much less than what makes an answer an old one (`answer_age_max`).
const QUIET_ANSWER_WAIT: Duration = Duration::from_millis(20);

/// Pipelined appends: requests go into openraft as they arrive, and results go back in the same order.
async fn serve_log(
    engine: &Arc<Engine>,
    reader: FrameReader<ReadHalf>,
    mut write: WriteHalf,
    from: u64,
) -> io::Result<()> {
    let hearing = engine.clone();
    let requests = stream::unfold(reader, move |mut reader| {
        let engine = hearing.clone();
        async move {
            let next = engine.token().run_until_cancelled(reader.next()).await?;
            match next.and_then(|frame| frame.map(|frame| wire::decode_append(frame.body)).transpose()) {
                Ok(Some(request)) => {
                    engine.hear(from, &request);
                    Some((request, reader))
                }
                Ok(None) => None,
                Err(error) => {
                    tracing::debug!(node = from, %error, "a log connection ended");
                    None
                }
            }
        }
    });
    let mut results = std::pin::pin!(engine.raft().stream_append(requests).fuse());
    let mut id = 0;
    let mut bytes = Vec::new();
    let mut told = None;
    let mut news_at = Instant::now();
    while let Some(result) = results.next().await {
        let mut next = Some(result);
        let mut has_news = false;
        bytes.clear();
        while let Some(result) = next {
            let Ok(result) = result else { return Ok(()) };
            bytes.extend_from_slice(&frame::encode(kind::ANSWER, id, &encode_append_result(&result)));
            id += 1;
            let tells = result.ok();
            has_news |= tells.is_none() || tells != told;
            told = tells;
            next = results.next().now_or_never().flatten();
            if next.is_none() && !has_news {
                let waited = tokio::time::timeout_at(news_at + QUIET_ANSWER_WAIT, results.next()).await;
                next = waited.ok().flatten();
            }
        }
        if has_news {
            news_at = Instant::now();
        }
        write.write_all(&bytes).await?;
    }
    Ok(())
}

async fn serve_snapshot(
    engine: &Engine,
    reader: FrameReader<ReadHalf>,
    mut write: WriteHalf,
) -> io::Result<()> {
    let state = engine.state();
    let own = engine.room.own();
    let has_room = move |bytes| own.is_none_or(|own| own.has_room_for(bytes));
    let received = transfer::receive(reader, state.files().clone(), state.snapshot_root(), has_room);
    let answer = match engine.tasks().aside(received).await? {
        Ok((vote, handle)) => {
            let meta = handle.manifest.meta()?;
            let snapshot = Snapshot {
                meta,
                snapshot: handle,
            };
            match engine.raft().install_full_snapshot(vote, snapshot).await {
                Ok(response) => frame::encode(kind::ANSWER, 0, &codec::encode(&response)),
                Err(error) => frame::encode(kind::FAILED, 0, error.to_string().as_bytes()),
            }
        }
        Err(error) => {
            tracing::warn!(%error, "a snapshot could not be received");
            frame::encode(kind::FAILED, 0, error.to_string().as_bytes())
        }
    };
    write.write_all(&answer).await
}

/// An answer on its way to the connection of who asked.
struct Answer {
    frame: Vec<u8>,
    /// When the entry was applied that it tells the outcome of.
    applied: Option<Instant>,
}

impl From<Vec<u8>> for Answer {
    fn from(frame: Vec<u8>) -> Self {
        Answer { frame, applied: None }
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// Counts the last step of those writes whose outcome has just been written to a connection.
fn count_replies(counters: &Counters, answers: &[Answer]) {
    let now = Instant::now();
    for applied in answers.iter().filter_map(|answer| answer.applied) {
        counters.steps.reply.count(now.saturating_duration_since(applied));
    }
}

/// Requests that are answered by id, in any order.
async fn serve_requests(
    engine: &Arc<Engine>,
    mut reader: FrameReader<ReadHalf>,
    write: WriteHalf,
    hello: &Hello,
) -> io::Result<()> {
    // Bounded by the peer: it has no more requests under way than its own limits let it, and each has one answer.
    let (answers, queue) = mpsc::unbounded_channel();
    let token = engine.token().clone();
    let counters = engine.counters().clone();
    let written = move |answers: &[Answer]| count_replies(&counters, answers);
    engine.tasks().spawn(async move {
        let writing = write_frames(write, queue, written);
        token.run_until_cancelled_owned(writing).await
    });
    while let Some(frame) = reader.next().await? {
        match (hello.lane, frame.kind) {
            (Lane::Forward, kind::PROPOSE) => propose(engine, frame, &answers, hello.from).await,
            (Lane::Control, _) => {
                let from = hello.from;
                serve_later(engine, frame, &answers, move |engine, frame| {
                    control(engine, frame, from)
                });
            }
            (Lane::Forward, kind::READ_INDEX) => serve_later(engine, frame, &answers, read_index),
            (Lane::Forward, kind::MEMBER) => serve_later(engine, frame, &answers, member_here),
            (Lane::Join, kind::FOUND) => serve_later(engine, frame, &answers, found),
            (Lane::Join, kind::MEMBER) => serve_later(engine, frame, &answers, member_anywhere),
            (_, kind) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a request of kind {kind} does not belong on this connection"),
                ));
            }
        }
    }
    Ok(())
}

/// A forwarded proposal: no task of its own; the answer is sent by whoever applies the entry.
async fn propose(engine: &Arc<Engine>, frame: Frame, answers: &UnboundedSender<Answer>, from: u64) {
    engine.counters().proposals_served_for_peers.fetch_add(1, Relaxed);
    let (id, answers) = (frame.id, answers.clone());
    match wire::decode::<Envelope>(&frame.body) {
        Ok(envelope) => {
            let answer = move |proposed: Proposed| {
                let applied = matches!(proposed, Proposed::Done(_)).then(Instant::now);
                let frame = frame::encode(kind::ANSWER, id, &codec::encode(&proposed));
                // Where the connection is gone, the one who asked tries again under the same id.
                drop(answers.send(Answer { frame, applied }));
            };
            let span = tracing::debug_span!("forwarded", command_id = %envelope.command_id, from);
            engine.submit(envelope, answer).instrument(span).await;
        }
        Err(error) => {
            let failed = frame::encode(kind::FAILED, id, error.to_string().as_bytes());
            drop(answers.send(failed.into()));
        }
    }
}

fn serve_later<F, Served>(engine: &Arc<Engine>, frame: Frame, answers: &UnboundedSender<Answer>, serve: F)
where
    F: FnOnce(Arc<Engine>, Frame) -> Served + Send + 'static,
    Served: Future<Output = Result<Vec<u8>, String>> + Send,
{
    let (engine, answers, id) = (engine.clone(), answers.clone(), frame.id);
    let token = engine.token().clone();
    let tasks = engine.tasks().clone();
    tasks.spawn(async move {
        let answer = match token.run_until_cancelled(serve(engine, frame)).await {
            Some(Ok(body)) => frame::encode(kind::ANSWER, id, &body),
            Some(Err(reason)) => frame::encode(kind::FAILED, id, reason.as_bytes()),
            None => return,
        };
        drop(answers.send(answer.into()));
    });
}

async fn control(engine: Arc<Engine>, frame: Frame, from: u64) -> Result<Vec<u8>, String> {
    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let raft = engine.raft();
    match frame.kind {
        kind::APPEND => {
            let request = wire::decode_append(frame.body).map_err(text)?;
            engine.hear(from, &request);
            let response = raft.append_entries(request).await.map_err(text)?;
            Ok(codec::encode(&response))
        }
        kind::REPORT => {
            let report = wire::decode(&frame.body).map_err(text)?;
            Ok(engine.hear_report(from, report))
        }
        kind::VOTE => {
            let request = votable(&engine, &frame).await?;
            Ok(codec::encode(&raft.vote(request).await.map_err(text)?))
        }
        kind::PRE_VOTE => {
            let request = votable(&engine, &frame).await?;
            Ok(codec::encode(&raft.pre_vote(request).await.map_err(text)?))
        }
        kind::TRANSFER if !engine.trust.settled() => Err(NOT_CAUGHT_UP.to_owned()),
        kind::TRANSFER if engine.closing.is_cancelled() => Err("this node is shutting down".to_owned()),
        kind::TRANSFER => {
            let request = wire::decode(&frame.body).map_err(text)?;
            let response = raft.handle_transfer_leader(request).await.map_err(text)?;
            Ok(codec::encode(&response))
        }
        kind::CLOCK => Ok(codec::encode(&engine.clock.own())),
        kind => Err(format!("no request has kind {kind}")),
    }
}

/// A request for a vote, unless this node may not vote yet.
async fn votable(engine: &Engine, frame: &Frame) -> Result<VoteRequest<TypeConfig>, String> {
    let request: VoteRequest<TypeConfig> = wire::decode(&frame.body).map_err(|error| error.to_string())?;
    // One that the leader itself asks for is not against what it counts on.
    if !request.leadership_transfer && engine.promise.holds(Instant::now()) {
        return Err(PROMISED.to_owned());
    }
    let applied = engine.state().applied();
    if engine.trust.may_vote(applied) {
        engine.form_before_voting().await;
        return Ok(request);
    }
    let note = engine.trust.note().display().to_string();
    tracing::warn!(
        candidate = %request.vote,
        note,
        "this node began without a log in a cluster that has one, and votes once a leader has caught it up"
    );
    Err(NOT_CAUGHT_UP.to_owned())
}

async fn read_index(engine: Arc<Engine>, _frame: Frame) -> Result<Vec<u8>, String> {
    let index = engine.read_index_here().await;
    engine.peers.asked.notify_waiters();
    index.map(|index| codec::encode(&index))
}

async fn found(engine: Arc<Engine>, frame: Frame) -> Result<Vec<u8>, String> {
    let request: FoundRequest = wire::decode(&frame.body).map_err(|error| error.to_string())?;
    Ok(codec::encode(&engine.answer_founder(request).await))
}

async fn member_here(engine: Arc<Engine>, frame: Frame) -> Result<Vec<u8>, String> {
    let request: MemberRequest = wire::decode(&frame.body).map_err(|error| error.to_string())?;
    Ok(codec::encode(&engine.change_members_here(request).await))
}

async fn member_anywhere(engine: Arc<Engine>, frame: Frame) -> Result<Vec<u8>, String> {
    let request: MemberRequest = wire::decode(&frame.body).map_err(|error| error.to_string())?;
    let answer = match request {
        // Who asks this will not wait for an election.
        MemberRequest::Known { .. } => engine.change_members_here(request).await,
        MemberRequest::Standing { id, cluster } => engine.tell_standing(id, cluster),
        request => engine.change_members(request, Instant::now() + PATIENCE).await,
    };
    Ok(codec::encode(&answer))
}
