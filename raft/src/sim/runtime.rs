//! The runtime of nodes in a build with simulation: tokio, whose tasks stay within their process, and whose chance is
//! the seed's.

use super::process::{Process, Within};
use super::watch::WatchChannels;
use crate::runtime::run_blocking;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use std::io;
use std::time::Duration;
use uuid::Uuid;

/// The future of a task that is spawned from this one.
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let process = Process::current();
    async move {
        match process {
            None => future.await,
            Some(process) => match Within::new(process, future).await {
                Some(value) => value,
                // A process that has ended answers nobody.
                None => std::future::pending().await,
            },
        }
    }
}

/// Does work that blocks: in place, after a while, in a simulated process.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if Process::current().is_none() {
        return run_blocking(work).await;
    }
    super::process::disk_pause().await;
    Ok(work())
}

/// A UUID version 7 that nobody has.
pub(crate) fn new_uuid() -> Uuid {
    let Some(process) = Process::current() else {
        return Uuid::now_v7();
    };
    let mut random = [0; 10];
    process.machine.world.random(|rng| rng.fill_bytes(&mut random));
    let now = process.machine.now();
    uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid()
}

/// What openraft runs on.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = ChaCha8Rng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = WatchChannels;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        tokio::spawn(within(future))
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> ChaCha8Rng {
        let seed = match Process::current() {
            Some(process) => process.machine.world.random(Rng::next_u64),
            None => rand::rng().next_u64(),
        };
        ChaCha8Rng::seed_from_u64(seed)
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
