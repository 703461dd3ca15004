//! The requests of a connection run in the task that reads and writes it.
//!
//! hyper hands each request of an HTTP/2 connection to an executor. As a task of its own it would be woken by itself, most
//! often by another thread, the one that applied what it waits for, and wake the connection's task in turn. Here all that
//! became ready is one wake-up, the answers leave in one write, and what the two sides have to tell each other wakes
//! nobody: a task that wakes itself costs tokio a look for another thread that might run it.
//!
//! So the requests of one connection take turns on one core, as those of HTTP/1 do, and other connections have the others.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use hyper::rt::Executor;
use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// How often the two sides have their turns before other tasks of the thread have theirs.
const TURNS_MAX: usize = 8;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Requests that came in and do not run yet: hyper's executor for one connection.
#[derive(Clone, Default)]
pub struct Started(Arc<Mutex<Vec<Request>>>);

impl Started {
    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Started {
    fn execute(&self, request: F) {
        self.lock().push(Box::pin(request));
    }
}

/// One side of the task, the connection or its requests: whether it has something to do.
struct Side {
    due: AtomicBool,
    task: Arc<Task>,
}

/// What both sides are part of. It is woken unless it runs and will look by itself.
#[derive(Default)]
struct Task {
    runs: AtomicBool,
    waker: AtomicWaker,
}

impl Side {
    fn of(task: &Arc<Task>) -> Arc<Self> {
        Arc::new(Side {
            due: AtomicBool::new(true),
            task: task.clone(),
        })
    }

    /// Whether it is its turn, which is over with that.
    fn take_turn(&self) -> bool {
        self.due.swap(false, SeqCst)
    }

    fn is_due(&self) -> bool {
        self.due.load(SeqCst)
    }
}

impl Wake for Side {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.due.store(true, SeqCst);
        if !self.task.runs.load(SeqCst) {
            self.task.waker.wake();
        }
    }
}

/// Runs `connection` to its end, with the requests that it starts.
pub async fn run<C: Future>(connection: C, started: Started) -> C::Output {
    let mut connection = pin!(connection);
    let mut running = FuturesUnordered::new();
    let task = Arc::<Task>::default();
    let sides = [Side::of(&task), Side::of(&task)];
    let [wakes_connection, wakes_requests] = sides.clone().map(Waker::from);
    let [connection_side, requests_side] = sides;
    poll_fn(move |cx| {
        task.waker.register(cx.waker());
        task.runs.store(true, SeqCst);
        for _ in 0..TURNS_MAX {
            if connection_side.take_turn()
                && let Poll::Ready(ended) = connection
                    .as_mut()
                    .poll(&mut Context::from_waker(&wakes_connection))
            {
                return Poll::Ready(ended);
            }
            let new = mem::take(&mut *started.lock());
            if requests_side.take_turn() || !new.is_empty() {
                running.extend(new);
                let mut cx = Context::from_waker(&wakes_requests);
                while let Poll::Ready(Some(())) = running.poll_next_unpin(&mut cx) {}
            }
            if !connection_side.is_due() && !requests_side.is_due() {
                task.runs.store(false, SeqCst);
                // One that came in between was not told to the task.
                if !connection_side.is_due() && !requests_side.is_due() {
                    return Poll::Pending;
                }
                task.runs.store(true, SeqCst);
            }
        }
        task.runs.store(false, SeqCst);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::body::{Bytes, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::Barrier;

    /// Counts how often the task that is polled under it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Requests of one connection wait for each other here, so each has to run while the others do.
    #[tokio::test]
    async fn requests_of_one_connection_run_side_by_side() {
        const REQUESTS: usize = 100;
        let (near, far) = tokio::io::duplex(1 << 16);
        let together = Arc::new(Barrier::new(REQUESTS));
        let service = service_fn(move |_: hyper::Request<Incoming>| {
            let together = together.clone();
            async move {
                together.wait().await;
                Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(b"all here"))))
            }
        });
        let started = Started::default();
        let server = hyper::server::conn::http2::Builder::new(started.clone());
        let serving = tokio::spawn(run(server.serve_connection(TokioIo::new(near), service), started));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(far))
                .await
                .expect("shakes hands");
        tokio::spawn(connection);
        let asked = (0..REQUESTS).map(|_| {
            let mut sender = sender.clone();
            let request = hyper::Request::new(Empty::<Bytes>::new());
            async move { sender.send_request(request).await.expect("is answered") }
        });
        for answer in futures::future::join_all(asked).await {
            let body = answer.into_body().collect().await.expect("has a body").to_bytes();
            assert_eq!(body, "all here");
        }
        drop(sender);
        serving.await.expect("does not panic").expect("ends in order");
    }

    /// Polls the two sides by hand: what they tell each other wakes nobody, what comes from outside does.
    #[test]
    fn who_runs_already_is_not_woken() {
        let (told, mut hears) = futures::channel::oneshot::channel::<()>();
        let (asks, asked) = futures::channel::oneshot::channel::<()>();
        let started = Started::default();
        let begins = started.clone();
        let mut request = Some(async move {
            asked.await.expect("is asked");
            told.send(()).expect("is heard");
        });
        let connection = poll_fn(move |cx| {
            if let Some(request) = request.take() {
                begins.execute(request);
            }
            Pin::new(&mut hears).poll(cx)
        });
        let mut serving = pin!(run(connection, started));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        assert_eq!(woken.0.load(SeqCst), 0);
        asks.send(()).expect("somebody waits");
        assert_eq!(woken.0.load(SeqCst), 1);
        assert!(serving.as_mut().poll(&mut cx).is_ready());
        assert_eq!(woken.0.load(SeqCst), 1);
    }

    /// Others on the thread have their turns, too.
    #[test]
    fn one_that_is_always_ready_gives_way() {
        let started = Started::default();
        let connection = poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let mut serving = pin!(run(connection, started));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        assert!(
            serving
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(woken.0.load(SeqCst), 1);
    }
}
