//! A simulated process: the tasks of one node between one start of it and its end.
//!
//! A task knows the process that it belongs to, and so do the tasks that it spawns. When the process ends, none of them
//! is polled again: each is dropped where it stands, as a kill does it.

use super::machine::MachineState;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

tokio::task_local! {
    static PROCESS: Arc<Process>;
}

/// What unwinds out of a process that cannot go on.
struct Died;

/// One life of a node.
pub(crate) struct Process {
    pub(crate) machine: Arc<MachineState>,
    ended: CancellationToken,
    cause: Mutex<Option<String>>,
    /// While it is stopped: the tasks that have become ready since.
    stopped: Mutex<Option<Vec<Waker>>>,
}

impl Process {
    pub(crate) fn new(machine: Arc<MachineState>) -> Arc<Self> {
        Arc::new(Process {
            machine,
            ended: CancellationToken::new(),
            cause: Mutex::default(),
            stopped: Mutex::default(),
        })
    }

    /// The process of the task that asks.
    pub(crate) fn current() -> Option<Arc<Process>> {
        PROCESS.try_with(Arc::clone).ok()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Why it ended.
    pub(crate) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops all its tasks where they are, or lets them go on.
    pub(crate) fn stop(&self, stop: bool) {
        let mut stopped = self.stopped();
        match (stop, &*stopped) {
            (true, None) => *stopped = Some(Vec::new()),
            (false, Some(_)) => {
                let ready = stopped.take();
                drop(stopped);
                ready.into_iter().flatten().for_each(Waker::wake);
            }
            _ => {}
        }
    }

    fn stopped(&self) -> MutexGuard<'_, Option<Vec<Waker>>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, unless it has ended.
    pub(crate) fn end(&self, cause: impl Into<String>) {
        if !self.has_ended() {
            let cause = cause.into();
            let machine = &self.machine;
            machine
                .world
                .note(|| format!("n{} the process ends: {cause}", machine.id));
            *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
            self.ended.cancel();
            self.stop(false);
        }
    }
}

/// Whether the task that asks belongs to a simulated process.
pub(crate) fn is_simulated() -> bool {
    PROCESS.try_with(|_| ()).is_ok()
}

/// Waits as long as the simulated disk takes to sync.
pub(crate) async fn disk_pause() {
    if let Some(process) = Process::current() {
        let pause = process.machine.disk.pause(&process.machine.world);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Ends the process of the task that asks, if it belongs to one, and does not return then.
pub(crate) fn die(what: &str, error: &dyn std::fmt::Display) {
    if let Some(process) = Process::current() {
        process.end(format!("{what}: {error}"));
        resume_unwind(Box::new(Died));
    }
}

/// A future that is polled within a process, and comes to `None` when the process ends first.
pub(crate) struct Within<F> {
    process: Arc<Process>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    future: Option<Pin<Box<F>>>,
}

impl<F> Within<F> {
    pub(crate) fn new(process: Arc<Process>, future: F) -> Self {
        Within {
            ended: Box::pin(process.ended.clone().cancelled_owned()),
            future: Some(Box::pin(future)),
            process,
        }
    }
}

impl<F> Drop for Within<F> {
    fn drop(&mut self) {
        let future = self.future.take();
        PROCESS.sync_scope(self.process.clone(), || drop(future));
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.ended.as_mut().poll(context).is_ready() {
            let future = this.future.take();
            PROCESS.sync_scope(this.process.clone(), || drop(future));
            return Poll::Ready(None);
        }
        if let Some(ready) = this.process.stopped().as_mut() {
            ready.push(context.waker().clone());
            return Poll::Pending;
        }
        let world = &this.process.machine.world;
        if world.spins() && !this.process.has_ended() {
            world.complain(format!(
                "n{} is busy without an end while no time passes",
                this.process.machine.id
            ));
            this.process.end("busy without an end");
        }
        let Some(future) = this.future.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            PROCESS.sync_scope(this.process.clone(), || future.as_mut().poll(context))
        }));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => {
                let future = this.future.take();
                PROCESS.sync_scope(this.process.clone(), || drop(future));
                Poll::Ready(Some(value))
            }
            Err(payload) => {
                if !payload.is::<Died>() {
                    let what = message(&*payload);
                    let machine = &this.process.machine;
                    machine
                        .world
                        .complain(format!("n{} panicked: {what}", machine.id));
                    this.process.end(format!("panicked: {what}"));
                }
                let future = this.future.take();
                PROCESS.sync_scope(this.process.clone(), || drop(future));
                Poll::Ready(None)
            }
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
