//! The thread that a node's consensus has to itself.
//!
//! Consensus, its connections and what it applies wait for each other at every step of a write; on one thread none of
//! these steps wakes another one. What the rest of the process is busy with does not hold it up either. It must not
//! block, then: heartbeats are sent and heard on it. What may take long is done elsewhere ([`crate::runtime::blocking`],
//! [`crate::runtime::Tasks::aside`]).

use std::io;
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// A thread with a runtime of its own, which ends with it.
pub(crate) struct Thread {
    handle: Handle,
    stop: CancellationToken,
    joined: Option<JoinHandle<()>>,
}

impl Thread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let joined = std::thread::Builder::new()
            .name("onward-raft".to_owned())
            .spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Thread {
            handle,
            stop,
            joined: Some(joined),
        })
    }

    /// Runs a future there, with all that it spawns.
    pub(crate) async fn run<F>(&self, future: F) -> io::Result<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(future).await.map_err(io::Error::other)
    }

    /// Ends the thread and every task on it, and waits for that.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.joined.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::warn!("the thread of consensus did not end well");
            }
        }
    }
}

impl Drop for Thread {
    /// Whoever does not wait leaves it to end by itself.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
