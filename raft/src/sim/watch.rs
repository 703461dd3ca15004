//! A watched value whose waiters wake in the order in which they began to wait.
//!
//! tokio's own wakes them in an order that is random from run to run, and its seed is out of reach of stable builds.
//! This one has the part of its interface that is used, and serves openraft too.

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    closed: AtomicBool,
    receivers: AtomicUsize,
    changed: Notify,
}

/// A look at the value.
pub(crate) type Ref<'a, T> = RwLockReadGuard<'a, T>;

impl<T> Shared<T> {
    fn borrow(&self) -> Ref<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn modify(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        let modified = modify(&mut value);
        if modified {
            self.version.fetch_add(1, AcqRel);
        }
        drop(value);
        if modified {
            self.changed.notify_waiters();
        }
        modified
    }
}

/// Closes the channel with the last sender.
struct Open<T>(Arc<Shared<T>>);

impl<T> Drop for Open<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, std::sync::atomic::Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

/// The end that sets the value.
pub(crate) struct Sender<T>(Arc<Open<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Sender::new(T::default())
    }
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        Sender(Arc::new(Open(Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        }))))
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let shared = self.0.0.clone();
        shared.receivers.fetch_add(1, AcqRel);
        let seen = shared.version.load(Acquire);
        Receiver { shared, seen }
    }

    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        self.0.0.borrow()
    }

    pub(crate) fn send_replace(&self, value: T) -> T {
        let mut old = Some(value);
        self.0.0.modify(|current| {
            old = old.take().map(|value| std::mem::replace(current, value));
            true
        });
        old.expect("the value was replaced")
    }
}

/// An end that follows the value.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, AcqRel);
        Receiver {
            shared: self.shared.clone(),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, AcqRel);
    }
}

impl<T> Receiver<T> {
    pub(crate) fn mark_unchanged(&mut self) {
        self.seen = self.shared.version.load(Acquire);
    }

    fn see(&mut self) -> Ref<'_, T> {
        let value = self.shared.borrow();
        self.seen = self.shared.version.load(Acquire);
        value
    }

    pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let changed = self.shared.changed.notified();
            let version = self.shared.version.load(Acquire);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.closed.load(Acquire) {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    pub(crate) async fn wait_for(
        &mut self,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, RecvError> {
        loop {
            let holds = condition(&self.see());
            if holds {
                return Ok(self.see());
            }
            self.changed().await?;
        }
    }
}

/// The family of these channels, for openraft.
pub(crate) struct WatchChannels;

impl Watch for WatchChannels {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = Ref<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender::new(init);
        let receiver = sender.subscribe();
        (sender, receiver)
    }
}

impl<T: Send + Sync> WatchSender<WatchChannels, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.0.receivers.load(Acquire) == 0 {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.0.modify(modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Sender::subscribe(self)
    }
}

impl<T: Send + Sync> WatchReceiver<WatchChannels, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Receiver::changed(self).await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.shared.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.see()
    }
}
