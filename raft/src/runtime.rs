//! openraft's view of the runtime: tokio's primitives behind its traits, with no difference between the real and the
//! simulated build.
//!
//! Deterministic under the simulator: time comes from [`crate::clock`], randomness from the operating system's generator
//! (which madsim answers), selection is biased, and no thread is started.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, mpsc, mutex, oneshot, watch};
use pin_project_lite::pin_project;
use rand::rngs::SmallRng;
use tokio::sync;

use crate::{clock, rt};

/// What the machine's monotonic clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub std::time::Instant);

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        self.0 += span;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0 - span)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0 - earlier.0
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, span: Duration) {
        self.0 -= span;
    }
}

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Self(clock::instant())
    }
}

/// The runtime openraft runs on.
#[derive(Debug)]
pub struct Runtime;

/// A deadline passed.
#[derive(Debug)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has passed")
    }
}

pin_project! {
    /// A future with a deadline.
    pub struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: tokio::time::Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(cx).map(|()| Err(Elapsed))
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, F: Future<Output = R> + Send> = Timeout<F>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = Mpsc;
    type Watch = Watch;
    type Oneshot = Oneshot;
    type Mutex<T: Send + 'static> = Mutex<T>;

    fn spawn<F>(future: F) -> Self::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(span: Duration) -> Self::Sleep {
        clock::timer(span)
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        clock::timer_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + Send>(span: Duration, future: F) -> Timeout<F> {
        Timeout { future, sleep: clock::timer(span) }
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future, sleep: clock::timer_until(deadline.0) }
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.is_panic()
    }

    fn thread_rng() -> SmallRng {
        rt::rng()
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    /// Only tests call this: a node runs inside the runtime of its program.
    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("start a test runtime");
        runtime.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        rt::run_blocking(work)
    }
}

/// Bounded channels.
#[derive(Debug)]
pub struct Mpsc;

pub struct MpscSender<T>(sync::mpsc::Sender<T>);
pub struct MpscReceiver<T>(sync::mpsc::Receiver<T>);
pub struct MpscWeakSender<T>(sync::mpsc::WeakSender<T>);

impl<T> Clone for MpscSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for MpscWeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl mpsc::Mpsc for Mpsc {
    type Sender<T: Send> = MpscSender<T>;
    type Receiver<T: Send> = MpscReceiver<T>;
    type WeakSender<T: Send> = MpscWeakSender<T>;

    fn channel<T: Send>(buffer: usize) -> (MpscSender<T>, MpscReceiver<T>) {
        let (sender, receiver) = sync::mpsc::channel(buffer);
        (MpscSender(sender), MpscReceiver(receiver))
    }
}

impl<T: Send> mpsc::MpscSender<Mpsc, T> for MpscSender<T> {
    async fn send(&self, message: T) -> Result<(), mpsc::SendError<T>> {
        self.0.send(message).await.map_err(|error| mpsc::SendError(error.0))
    }

    fn downgrade(&self) -> MpscWeakSender<T> {
        MpscWeakSender(self.0.downgrade())
    }
}

impl<T: Send> mpsc::MpscReceiver<T> for MpscReceiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, mpsc::TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            sync::mpsc::error::TryRecvError::Empty => mpsc::TryRecvError::Empty,
            sync::mpsc::error::TryRecvError::Disconnected => mpsc::TryRecvError::Disconnected,
        })
    }
}

impl<T: Send> mpsc::MpscWeakSender<Mpsc, T> for MpscWeakSender<T> {
    fn upgrade(&self) -> Option<MpscSender<T>> {
        self.0.upgrade().map(MpscSender)
    }
}

/// Channels that keep the latest value only.
#[derive(Debug)]
pub struct Watch;

pub struct WatchSender<T>(Arc<sync::watch::Sender<T>>);
pub struct WatchReceiver<T>(sync::watch::Receiver<T>);

impl<T> Clone for WatchSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WatchReceiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl watch::Watch for Watch {
    type Sender<T: Send + Sync> = WatchSender<T>;
    type Receiver<T: Send + Sync> = WatchReceiver<T>;
    type Ref<'a, T: Send + 'a> = sync::watch::Ref<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (WatchSender<T>, WatchReceiver<T>) {
        let (sender, receiver) = sync::watch::channel(init);
        (WatchSender(Arc::new(sender)), WatchReceiver(receiver))
    }
}

impl<T: Send + Sync> watch::WatchSender<Watch, T> for WatchSender<T> {
    fn send(&self, value: T) -> Result<(), watch::SendError<T>> {
        self.0.send(value).map_err(|error| watch::SendError(error.0))
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> sync::watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> WatchReceiver<T> {
        WatchReceiver(self.0.subscribe())
    }
}

impl<T: Send + Sync> watch::WatchReceiver<Watch, T> for WatchReceiver<T> {
    async fn changed(&mut self) -> Result<(), watch::RecvError> {
        self.0.changed().await.map_err(|_| watch::RecvError(()))
    }

    fn borrow_watched(&self) -> sync::watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn borrow_and_update(&mut self) -> sync::watch::Ref<'_, T> {
        self.0.borrow_and_update()
    }
}

/// Channels for one value.
#[derive(Debug)]
pub struct Oneshot;

pub struct OneshotSender<T>(sync::oneshot::Sender<T>);

impl oneshot::Oneshot for Oneshot {
    type Sender<T: Send> = OneshotSender<T>;
    type Receiver<T: Send> = sync::oneshot::Receiver<T>;
    type ReceiverError = sync::oneshot::error::RecvError;

    fn channel<T: Send>() -> (OneshotSender<T>, sync::oneshot::Receiver<T>) {
        let (sender, receiver) = sync::oneshot::channel();
        (OneshotSender(sender), receiver)
    }
}

impl<T: Send> oneshot::OneshotSender<T> for OneshotSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// A lock held across waits.
pub struct Mutex<T>(sync::Mutex<T>);

impl<T: Send + 'static> mutex::Mutex<T> for Mutex<T> {
    type Guard<'a> = sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    async fn lock(&self) -> Self::Guard<'_> {
        self.0.lock().await
    }
}
