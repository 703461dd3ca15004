//! What a node's tasks run on: tokio, and nothing more, in production, on a thread of their own (`thread`).
//!
//! With the feature `simulation` a task may belong to a simulated process (`sim::process`), and so do the tasks that it
//! spawns: they end with it, their blocking work is done in place after a simulated while, and what is random comes
//! from the seed. A task that belongs to none is treated as in production.

use std::io;
use tokio::runtime::Handle;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

#[cfg(feature = "simulation")]
pub(crate) use crate::sim::runtime::{Runtime, blocking, new_uuid, within};
#[cfg(feature = "simulation")]
pub(crate) use crate::sim::watch;
#[cfg(not(feature = "simulation"))]
pub(crate) use production::{Runtime, blocking, new_uuid, within};
#[cfg(not(feature = "simulation"))]
pub(crate) use tokio::sync::watch;

#[cfg(not(feature = "simulation"))]
mod production {
    use super::run_blocking;
    use std::io;
    use uuid::Uuid;

    /// What openraft runs on.
    pub(crate) use openraft::impls::TokioRuntime as Runtime;

    /// The future of a task that is spawned from this one.
    pub(crate) fn within<F>(future: F) -> F {
        future
    }

    /// Does work that blocks, off the threads that poll tasks.
    pub(crate) async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        run_blocking(work).await
    }

    /// A UUID version 7 that nobody has.
    pub(crate) fn new_uuid() -> Uuid {
        Uuid::now_v7()
    }
}

/// Does work on one of tokio's threads for what blocks.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// The tasks of a node.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    /// The threads beside that of consensus, where it has one to itself.
    pool: Option<Handle>,
}

impl Tasks {
    pub(crate) fn new(pool: Option<Handle>) -> Self {
        Tasks {
            tracker: TaskTracker::new(),
            pool,
        }
    }

    /// Does work in bulk, which would hold consensus up, on other threads. It ends with the future that waits for it.
    pub(crate) async fn aside<F>(&self, work: F) -> io::Result<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match &self.pool {
            None => Ok(work.await),
            Some(pool) => {
                let task = self.tracker.spawn_on(work, pool);
                AbortOnDropHandle::new(task).await.map_err(io::Error::other)
            }
        }
    }

    /// Runs a task.
    pub(crate) fn spawn<F>(&self, future: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tracker.spawn(within(future));
    }

    /// Nothing more is spawned that anybody waits for.
    pub(crate) fn close(&self) {
        self.tracker.close();
    }

    /// Waits until no task is left.
    pub(crate) async fn wait(&self) {
        self.tracker.wait().await;
    }
}
