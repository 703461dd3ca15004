//! The one thread that writes the log: drains the queue, writes it as one batch, syncs once, completes in order.
//! In simulation a task does the same, with a pause for the disk between writing and syncing.

use super::Shared;
use super::disk::Write;
use super::watermark::{Mark, Watermark};
use crate::fault::die;
use crate::types::{Entry, LogId, TypeConfig, Vote};
use onward_statemachine::mutant::{self, Mutant};
use openraft::storage::IOFlushed;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The most operations in one batch; a bound on RAM, far above what a sync gathers.
const BATCH_OPS_MAX: usize = 4096;

/// Something to be done to the log, in the order of the queue.
pub(super) enum Op {
    /// With the time at which it was queued.
    Append(Vec<Entry>, IOFlushed<TypeConfig>, Instant),
    Vote(Vote, oneshot::Sender<()>),
    Truncate(Option<LogId>, u64),
    Purge(LogId),
}

/// The queue and the thread behind it.
pub(super) struct Writer {
    queue: Arc<Queue>,
    /// `None` in simulation, and once it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
    #[cfg(feature = "simulation")]
    task: simulated::Signals,
}

#[derive(Default)]
struct QueueState {
    /// Bounded by the submissions under way on the leader, by count and bytes; by consensus' window on followers.
    ops: VecDeque<Op>,
    closed: bool,
}

impl Queue {
    fn wake(&self) {
        self.wake.notify_one();
        #[cfg(feature = "simulation")]
        self.task.wake();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for operations, no longer than `until`; `None` once the queue is closed and empty.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Op>> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.next() {
                return next;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Some(Vec::new()),
                Some(left) => {
                    let waited = self.wake.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl QueueState {
    /// What there is to do; `Some(None)` once there will be nothing more.
    #[expect(
        clippy::option_option,
        reason = "nothing yet, nothing more, and something are three answers"
    )]
    fn next(&mut self) -> Option<Option<Vec<Op>>> {
        if self.ops.is_empty() {
            return self.closed.then_some(None);
        }
        let count = self.ops.len().min(BATCH_OPS_MAX);
        Some(Some(self.ops.drain(..count).collect()))
    }
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>, watermark: Watermark) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let work = Work {
            queue: queue.clone(),
            shared,
            watermark,
            truncations: 0,
        };
        #[cfg(feature = "simulation")]
        if crate::sim::process::is_simulated() {
            tokio::spawn(crate::runtime::within(simulated::run(work)));
            let thread = Mutex::new(None);
            return Ok(Writer { queue, thread });
        }
        let thread = std::thread::Builder::new()
            .name("onward-log".to_owned())
            .spawn(move || work.run())?;
        Ok(Writer {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn queue(&self, op: Op) {
        let mut state = self.queue.lock();
        if state.closed {
            return;
        }
        let idle = state.ops.is_empty();
        state.ops.push_back(op);
        drop(state);
        if idle {
            self.queue.wake();
        }
    }

    /// Ends the writer without holding up a thread that polls tasks.
    pub(super) async fn end(self: Arc<Self>) -> io::Result<()> {
        #[cfg(feature = "simulation")]
        if crate::sim::process::is_simulated() {
            self.queue.lock().closed = true;
            self.queue.wake();
            self.queue.task.ended().await;
            return Ok(());
        }
        crate::runtime::blocking(move || self.close()).await
    }

    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            die("the log writer", "its thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// What completes once a batch is durable.
enum Done {
    Appended(IOFlushed<TypeConfig>),
    Voted(oneshot::Sender<()>),
}

/// Operations that are written at once.
struct Batch {
    writes: Vec<Write>,
    done: Vec<Done>,
    /// Up to where the log is durable after it.
    mark: Mark,
    /// Where the log ends before something is appended to it again, if it is cut.
    lowered: Option<Option<LogId>>,
    entry_count: u64,
    byte_count: u64,
    taken: Instant,
}

impl Batch {
    /// Whether somebody waits for it to be durable.
    fn sync(&self) -> bool {
        !self.done.is_empty() && !mutant::on(Mutant::AckBeforeSync)
    }
}

struct Work {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    watermark: Watermark,
    /// Truncations that are on the disk; the tail counts those that were asked for.
    truncations: u64,
}

impl Work {
    fn run(mut self) {
        while let Some(ops) = self.queue.take(self.watermark.due()) {
            if ops.is_empty() {
                self.idle();
            } else {
                let batch = self.gather(ops);
                self.write(&batch, batch.sync());
                self.complete(batch);
            }
        }
        self.finish();
    }

    /// Nothing is appended, and the watermark has something left to do.
    fn idle(&mut self) {
        let mark = self.watermark.mark();
        self.stop_on_error(|work| work.watermark.advance(mark, Instant::now()));
    }

    /// Nothing will be appended any more.
    fn finish(&mut self) {
        self.stop_on_error(|work| {
            let tail_committed = work.take_committed(work.watermark.mark().last);
            if let Some(committed) = tail_committed {
                work.shared.disk.write(&[committed], false)?;
            }
            work.shared.disk.sync()?;
            work.watermark.sync()
        });
    }

    fn stop_on_error(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = act(self) {
            die("writing the log", error);
        }
    }

    /// The note of what is committed, in a log that is written up to `last`. A majority of others may have committed what
    /// is still in the queue, in the place of entries that are on the disk: those must not pass for it.
    fn take_committed(&self, last: Option<LogId>) -> Option<Write> {
        let mut tail = self.shared.tail();
        if tail.committed > last {
            return None;
        }
        std::mem::take(&mut tail.committed_dirty).then(|| Write::Committed(tail.committed))
    }

    /// Makes one batch of operations.
    fn gather(&mut self, ops: Vec<Op>) -> Batch {
        let mut mark = self.watermark.mark();
        let mut lowest = mark.last;
        let mut writes = Vec::with_capacity(ops.len() + 1);
        let mut done = Vec::with_capacity(ops.len());
        let mut cut = false;
        let (mut entry_count, mut byte_count) = (0, 0);
        let taken = Instant::now();
        let waited = &self.shared.counters.steps.append;
        for op in ops {
            match op {
                Op::Append(entries, callback, queued) => {
                    waited.count_many(taken.saturating_duration_since(queued), entries.len() as u64);
                    mark.last = entries.last().map(|entry| entry.log_id).or(mark.last);
                    entry_count += entries.len() as u64;
                    byte_count += entries
                        .iter()
                        .map(|entry| super::record::size(entry) as u64)
                        .sum::<u64>();
                    writes.push(Write::Append(entries));
                    done.push(Done::Appended(callback));
                }
                Op::Vote(vote, voted) => {
                    if !mutant::on(Mutant::VoteNotPersisted) {
                        mark.vote = Some(vote);
                        writes.push(Write::Vote(vote));
                    }
                    done.push(Done::Voted(voted));
                }
                Op::Truncate(last, count) => {
                    mark.last = mark.last.min(last);
                    lowest = lowest.min(last);
                    cut = true;
                    self.truncations = count;
                    writes.push(Write::TruncateFrom(last.map_or(0, |id| id.index + 1)));
                }
                Op::Purge(upto) => {
                    mark.last = mark.last.max(Some(upto));
                    writes.push(Write::Purge(upto));
                }
            }
        }
        writes.extend(self.take_committed(mark.last));
        Batch {
            writes,
            done,
            mark,
            lowered: cut.then_some(lowest),
            entry_count,
            byte_count,
            taken,
        }
    }

    fn write(&mut self, batch: &Batch, sync: bool) {
        self.stop_on_error(|work| {
            if let Some(lowest) = batch.lowered {
                work.watermark.lower(lowest)?;
            }
            work.shared.disk.write(&batch.writes, sync)
        });
    }

    /// Answers for a batch that is written, and durable where it has to be.
    fn complete(&mut self, batch: Batch) {
        let (mark, sync) = (batch.mark, batch.sync());
        self.shared
            .tail()
            .wrote(mark.last.map_or(0, |id| id.index), self.truncations);
        let counters = &self.shared.counters;
        if sync {
            counters.log_syncs.fetch_add(1, Relaxed);
            counters.log_synced_entries.fetch_add(batch.entry_count, Relaxed);
            counters.log_synced_bytes.fetch_add(batch.byte_count, Relaxed);
            let took = batch.taken.elapsed();
            counters.log_sync.count(took);
            counters.steps.sync.count_many(took, batch.entry_count);
        }
        for done in batch.done {
            match done {
                Done::Appended(callback) => callback.io_completed(Ok(())),
                // The one who waited may be gone; the vote is durable all the same.
                Done::Voted(voted) => drop(voted.send(())),
            }
        }
        if sync {
            self.stop_on_error(|work| work.watermark.advance(mark, Instant::now()));
        }
    }
}

/// The task that takes the thread's place in simulation.
#[cfg(feature = "simulation")]
mod simulated {
    use super::Work;
    use crate::sim::process::disk_pause;
    use tokio::sync::Notify;

    #[derive(Default)]
    pub(super) struct Signals {
        wake: Notify,
        ended: Notify,
    }

    impl Signals {
        pub(super) fn wake(&self) {
            self.wake.notify_one();
        }

        pub(super) async fn ended(&self) {
            self.ended.notified().await;
        }
    }

    pub(super) async fn run(mut work: Work) {
        let queue = work.queue.clone();
        loop {
            let next = queue.lock().next();
            match next {
                Some(None) => break,
                Some(Some(ops)) => {
                    let batch = work.gather(ops);
                    work.write(&batch, false);
                    disk_pause().await;
                    if batch.sync() {
                        work.stop_on_error(|work| work.shared.disk.sync());
                    }
                    work.complete(batch);
                }
                None => match work.watermark.due() {
                    None => queue.task.wake.notified().await,
                    Some(due) => {
                        if tokio::time::timeout_at(due, queue.task.wake.notified())
                            .await
                            .is_err()
                        {
                            work.idle();
                        }
                    }
                },
            }
        }
        work.finish();
        queue.task.ended.notify_one();
    }
}
