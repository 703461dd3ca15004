//! Batches of proposals, on the leader. A batch of entries costs every node a sync, messages and wake-ups, however many
//! entries it has; so the more proposals go into the log together, the less each costs.
//!
//! One that comes while nothing is under way goes at once. While others are, those that come wait until they are as
//! many as those: one half is on its way while the other gathers, whatever the load. A proposal waits for
//! [`HELD_MAX`] at most, and not for others once enough bytes wait.

use crate::engine::Engine;
use crate::types::{Payload, Reply, TypeConfig};
use openraft::raft::ClientWriteResult;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long a proposal waits for others, at most.
const HELD_MAX: Duration = Duration::from_millis(2);
/// With so many bytes a batch is worth its sync.
const BATCH_BYTES_ENOUGH: usize = 64 << 10;

/// A proposal as consensus takes it.
pub(crate) struct Submission {
    pub(crate) payload: Payload,
    pub(crate) reply: Reply<ClientWriteResult<TypeConfig>>,
}

/// The proposals of this node that wait to be handed to consensus, and how many are under way there.
#[derive(Default)]
pub(crate) struct Batches {
    waiting: Mutex<Waiting>,
    /// Told when the first one waits, and when those that wait are due.
    stir: Notify,
}

#[derive(Default)]
struct Waiting {
    submissions: Vec<Submission>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    under_way: usize,
    closed: bool,
}

impl Waiting {
    fn held_until(&self) -> Option<Instant> {
        self.since.map(|since| since + HELD_MAX)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.submissions.len() >= self.under_way
            || self.bytes >= BATCH_BYTES_ENOUGH
            || self.held_until().is_some_and(|until| now >= until)
    }

    /// Those that wait, if they are due: they are under way then.
    fn take(&mut self, now: Instant) -> Vec<Submission> {
        if !self.is_due(now) {
            return Vec::new();
        }
        self.take_all()
    }

    fn take_all(&mut self) -> Vec<Submission> {
        self.under_way += self.submissions.len();
        self.bytes = 0;
        self.since = None;
        std::mem::take(&mut self.submissions)
    }
}

impl Batches {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one; gives it back if it is to be handed over now, by itself.
    fn add(&self, submission: Submission) -> Option<Submission> {
        let mut waiting = self.waiting();
        if waiting.under_way == 0 && waiting.submissions.is_empty() || waiting.closed {
            waiting.under_way += 1;
            return Some(submission);
        }
        let now = Instant::now();
        let first = waiting.submissions.is_empty();
        waiting.since.get_or_insert(now);
        waiting.bytes += submission.payload.bytes.len();
        waiting.submissions.push(submission);
        if first || waiting.is_due(now) {
            drop(waiting);
            self.stir.notify_one();
        }
        None
    }

    /// One that was handed over is not under way any more.
    pub(crate) fn ended(&self) {
        let mut waiting = self.waiting();
        waiting.under_way -= 1;
        if !waiting.submissions.is_empty() && waiting.submissions.len() >= waiting.under_way {
            drop(waiting);
            self.stir.notify_one();
        }
    }

    /// What is due once it is.
    async fn next(&self) -> Vec<Submission> {
        loop {
            let held_until = self.waiting().held_until();
            match held_until {
                None => self.stir.notified().await,
                // Either way it is looked at again.
                Some(until) => drop(timeout_at(until, self.stir.notified()).await),
            }
            let due = self.waiting().take(Instant::now());
            if !due.is_empty() {
                return due;
            }
        }
    }

    /// Lets go of those that wait: who proposed them does not learn what becomes of them. Nothing waits from now on.
    fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        let submissions = waiting.take_all();
        // Each ends as it is dropped, which takes the lock.
        drop(waiting);
        drop(submissions);
    }
}

impl Engine {
    /// Hands a proposal to consensus, now or with those that come next.
    pub(crate) async fn hand_over(&self, submission: Submission) {
        if let Some(Submission { payload, reply }) = self.batches.add(submission) {
            // When openraft has stopped, it drops the reply, which answers.
            drop(self.raft.client_write_ff(payload, Some(reply)).await);
        }
    }

    /// Hands over those that waited, until the engine stops. One task does it: were it one of those who propose, all of a
    /// batch would go with it when its client goes.
    pub(crate) async fn hand_over_batches(self: Arc<Self>) {
        let rounds = async {
            loop {
                for Submission { payload, reply } in self.batches.next().await {
                    drop(self.raft.client_write_ff(payload, Some(reply)).await);
                }
            }
        };
        let _: Option<()> = self.token().run_until_cancelled(rounds).await;
        self.batches.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::FutureExt;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    #[derive(Default)]
    struct Proposer {
        batches: Arc<Batches>,
        answered: Arc<AtomicUsize>,
    }

    impl Proposer {
        /// Proposes so many bytes; whether they go at once.
        fn propose(&self, bytes: usize) -> Option<Submission> {
            let (batches, answered) = (self.batches.clone(), self.answered.clone());
            self.batches.add(Submission {
                payload: Payload::from(Bytes::from(vec![0; bytes])),
                reply: Reply::new(move |_| {
                    batches.ended();
                    answered.fetch_add(1, Relaxed);
                }),
            })
        }

        /// What is due without waiting any longer.
        fn due(&self) -> Option<Vec<Submission>> {
            // Once for each word that there is something.
            (0..3).find_map(|_| self.batches.next().now_or_never())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_half_is_under_way_while_the_other_gathers() {
        let proposer = Proposer::default();
        let first = proposer.propose(1).expect("nothing is under way");
        assert!(proposer.propose(1).is_none(), "one is");
        let second = proposer.due().expect("as many as are under way");
        assert_eq!(second.len(), 1);
        assert!(proposer.propose(1).is_none());
        assert!(proposer.due().is_none(), "one waits, and two are under way");
        drop(first);
        let third = proposer.due().expect("one waits, and one is under way");
        drop((second, third));
        assert_eq!(proposer.answered.load(Relaxed), 3);
        assert!(proposer.propose(1).is_some(), "nothing is under way again");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let proposer = Proposer::default();
        let first = proposer.propose(1);
        assert!(proposer.propose(1).is_none());
        let second = proposer.due();
        assert!(proposer.propose(1).is_none());
        assert!(proposer.due().is_none(), "one waits, and two are under way");
        let begun = Instant::now();
        assert_eq!(proposer.batches.next().await.len(), 1);
        assert!(begun.elapsed() >= HELD_MAX);
        drop((first, second));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_large_does_not_wait() {
        let proposer = Proposer::default();
        let first = proposer.propose(1);
        assert!(proposer.propose(1).is_none());
        let second = proposer.due();
        assert!(proposer.propose(BATCH_BYTES_ENOUGH).is_none());
        assert_eq!(proposer.due().expect("enough bytes").len(), 1);
        drop((first, second));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_once_it_is_over() {
        let proposer = Proposer::default();
        let first = proposer.propose(1);
        assert!(proposer.propose(1).is_none());
        proposer.batches.close();
        assert_eq!(proposer.answered.load(Relaxed), 1, "the one that waited");
        assert!(proposer.propose(1).is_some());
        drop(first);
        assert_eq!(proposer.answered.load(Relaxed), 3);
    }
}
