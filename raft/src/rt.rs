//! The seam to the runtime: tasks, threads, sockets and randomness, the same for real and in simulation.
//!
//! Nothing else in the node spawns a thread, opens a socket or draws a random number. What differs under the simulator
//! (no threads there, blocking work runs in place) differs here and nowhere else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::clock;

/// Runs a task on the current runtime. It ends by itself or with the runtime; nobody waits for it.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// How long a thread's end is waited for. A disk that hangs must not keep a process from exiting.
#[cfg(not(madsim))]
const JOIN_WITHIN: Duration = Duration::from_secs(5);

/// A thread that [`spawn_dedicated`] started. Dropping it waits for its end, so that no thread is still closing a
/// database when the process exits, which RocksDB answers with an abort. Drop what keeps its future going first.
#[must_use]
pub struct Dedicated {
    #[cfg(not(madsim))]
    thread: Option<std::thread::JoinHandle<()>>,
    /// Nothing is sent: it closes with the thread.
    #[cfg(not(madsim))]
    ended: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Dedicated {
    /// Lets it end by itself: it tells its end in another way.
    #[cfg(not(madsim))]
    pub fn detach(mut self) {
        self.thread = None;
    }

    #[cfg(madsim)]
    pub fn detach(self) {}
}

#[cfg(not(madsim))]
impl Drop for Dedicated {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id())
        else {
            return;
        };
        let ended = self.ended.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(JOIN_WITHIN) {
            tracing::warn!(thread = thread.thread().name(), "still busy; not waited for any longer");
            return;
        }
        // A panic over there has been printed, and whoever waited for its answers has an error.
        drop(thread.join());
    }
}

/// Runs a future that may block (an fsync, an apply) where blocking harms nobody else: a thread of its own.
#[cfg(not(madsim))]
pub fn spawn_dedicated(name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Dedicated> {
    // Without sockets: it then waits on a condition variable instead of in epoll.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (running, ended) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        runtime.block_on(future);
        drop((runtime, running));
    })?;
    Ok(Dedicated { thread: Some(thread), ended: std::sync::Mutex::new(ended) })
}

/// In simulation everything shares the one thread, and the simulated disk waits in virtual time.
#[cfg(madsim)]
pub fn spawn_dedicated(_name: &str, future: impl Future<Output = ()> + Send + 'static) -> io::Result<Dedicated> {
    tokio::spawn(future);
    Ok(Dedicated {})
}

/// Runs blocking work off the threads that serve requests.
#[cfg(not(madsim))]
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| io::Error::other(format!("blocking work: {error}")))
}

/// In simulation blocking work takes no time.
#[cfg(madsim)]
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    Ok(work())
}

/// A fresh generator seeded by the operating system, or by the simulator.
pub fn rng() -> SmallRng {
    rand::make_rng()
}

/// Waits for a future, at most `span`. `None` when the time is up.
pub async fn timeout<F: Future>(span: Duration, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock::sleep(span) => None,
    }
}

/// A TCP connection that sends at once and flushes only what was written.
///
/// The simulator's stream sends a message for every flush, even an empty one, and two hyper peers then answer each
/// other's flushes for ever; hence the flag.
#[derive(Debug)]
pub struct Stream {
    inner: TcpStream,
    unflushed: bool,
    #[cfg(madsim)]
    held: links::Held,
}

impl Stream {
    pub fn new(inner: TcpStream) -> io::Result<Self> {
        inner.set_nodelay(true)?;
        #[cfg(madsim)]
        let held = links::Held::new(&inner)?;
        Ok(Self {
            inner,
            unflushed: false,
            #[cfg(madsim)]
            held,
        })
    }
}

/// Connects to `host:port`, at most `deadline` long.
pub async fn connect(address: &str, deadline: Duration) -> io::Result<Stream> {
    let connecting = async {
        #[cfg(madsim)]
        {
            links::passable(address).await;
            if links::is_closed(address.parse().ok()) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        TcpStream::connect(address).await
    };
    match timeout(deadline, connecting).await {
        Some(stream) => Stream::new(stream?),
        None => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} in {deadline:?}"))),
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    pub async fn bind(address: &str) -> io::Result<Self> {
        Ok(Self { inner: TcpListener::bind(address).await? })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let (stream, peer) = self.inner.accept().await?;
        Ok((Stream::new(stream)?, peer))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        #[cfg(madsim)]
        self.held.check()?;
        #[cfg(madsim)]
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        #[cfg(madsim)]
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before && buf.remaining() > 0 {
            // The other side has hung up, but the news of it does not cross a cut either.
            ready!(self.held.poll_passable(cx));
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        #[cfg(madsim)]
        self.held.check()?;
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.unflushed |= written > 0;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What madsim's network does not model: a connection that is opened across a cut hangs instead of being refused, the
/// end of one does not cross a cut, a port may be closed, and a call may arrive twice.
#[cfg(madsim)]
pub mod links {
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, BTreeSet};
    use std::future::Future;
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use madsim::task::NodeId;
    use rand::RngExt;
    use tokio::net::TcpStream;

    /// How often a held connection looks whether it may go on.
    const LOOK: Duration = Duration::from_millis(20);

    thread_local! {
        static CUT: RefCell<BTreeSet<(IpAddr, IpAddr)>> = const { RefCell::new(BTreeSet::new()) };
        static MACHINES: RefCell<BTreeMap<NodeId, IpAddr>> = const { RefCell::new(BTreeMap::new()) };
        static CLOSED: RefCell<BTreeSet<SocketAddr>> = const { RefCell::new(BTreeSet::new()) };
        static REPLAY_PER_MILLE: Cell<u32> = const { Cell::new(0) };
        static LATER_BUILDS: RefCell<BTreeMap<u64, u32>> = const { RefCell::new(BTreeMap::new()) };
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Hears of every peer call that is sent: to which address, what it is, and whether a cut is in the way.
    type Watcher = Box<dyn FnMut(&str, &'static str, bool)>;

    /// Whom to tell of peer calls.
    pub fn watch(watcher: impl FnMut(&str, &'static str, bool) + 'static) {
        WATCHER.set(Some(Box::new(watcher)));
    }

    /// A peer call is sent.
    pub fn sent(address: &str, what: &'static str) {
        let cut = ends(address).is_some_and(|(ours, theirs)| is_cut(ours, theirs));
        WATCHER.with_borrow_mut(|watcher| watcher.as_mut().map(|watcher| watcher(address, what, cut)));
    }

    /// The addresses of this machine and of another.
    fn ends(address: &str) -> Option<(IpAddr, IpAddr)> {
        let machine = madsim::plugin::node();
        let ours = MACHINES.with_borrow(|machines| machines.get(&machine).copied())?;
        let theirs = address.parse::<SocketAddr>().ok()?.ip();
        Some((ours, theirs))
    }

    /// The address of a machine, so that connections from it can be told.
    pub fn set_address(machine: NodeId, address: IpAddr) {
        MACHINES.with_borrow_mut(|machines| machines.insert(machine, address));
    }

    pub fn set_cut(from: IpAddr, to: IpAddr, cut: bool) {
        CUT.with_borrow_mut(|links| if cut { links.insert((from, to)) } else { links.remove(&(from, to)) });
    }

    /// Closes a listening port for everybody, or opens it again. Who was connected there is not any more.
    pub fn set_closed(port: SocketAddr, closed: bool) {
        CLOSED.with_borrow_mut(|ports| if closed { ports.insert(port) } else { ports.remove(&port) });
    }

    pub fn is_closed(port: Option<SocketAddr>) -> bool {
        CLOSED.with_borrow(|ports| !ports.is_empty() && port.is_some_and(|port| ports.contains(&port)))
    }

    fn is_cut(one: IpAddr, other: IpAddr) -> bool {
        CUT.with_borrow(|links| links.contains(&(one, other)) || links.contains(&(other, one)))
    }

    /// Makes a node, by its id, be of the build that comes so many after this one, with a peer protocol of its own.
    pub fn set_build(node: u64, later: u32) {
        LATER_BUILDS.with_borrow_mut(|builds| builds.insert(node, later));
    }

    /// How many builds after this one a node is of.
    pub fn build(node: u64) -> u32 {
        LATER_BUILDS.with_borrow(|builds| builds.get(&node).copied().unwrap_or(0))
    }

    /// Of a thousand peer calls so many arrive twice.
    pub fn set_replay(per_mille: u32) {
        REPLAY_PER_MILLE.set(per_mille);
    }

    /// Whether this call is one that arrives twice, and how long after the first time.
    pub fn replay() -> Option<Duration> {
        let per_mille = REPLAY_PER_MILLE.get();
        let mut rng = super::rng();
        let twice = per_mille > 0 && rng.random_range(0..1000) < per_mille;
        twice.then(|| Duration::from_millis(rng.random_range(1..5000)))
    }

    /// Waits until messages pass between this machine and another, both ways.
    pub async fn passable(address: &str) {
        let Some((ours, theirs)) = ends(address) else { return };
        while is_cut(ours, theirs) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A connection that may have to wait before it notices its end.
    #[derive(Debug)]
    pub struct Held {
        ends: (SocketAddr, SocketAddr),
        /// It was connected to a port that has been closed since.
        broken: bool,
        wait: Option<Pin<Box<tokio::time::Sleep>>>,
    }

    impl Held {
        pub fn new(stream: &TcpStream) -> io::Result<Self> {
            Ok(Self { ends: (stream.local_addr()?, stream.peer_addr()?), broken: false, wait: None })
        }

        /// Fails once the port at either end is closed, and from then on.
        pub fn check(&mut self) -> io::Result<()> {
            self.broken |= is_closed(Some(self.ends.0)) || is_closed(Some(self.ends.1));
            if self.broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
        }

        pub fn poll_passable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            while is_cut(self.ends.0.ip(), self.ends.1.ip()) {
                let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(LOOK)));
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            Poll::Ready(())
        }
    }
}

/// Runs hyper's tasks. (hyper-util's own reaches for a tokio reactor that the simulator does not have.)
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Keeps hyper's time, for the same reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

struct Sleep(Pin<Box<tokio::time::Sleep>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}

impl hyper::rt::Timer for Timer {
    fn sleep(&self, span: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(clock::timer(span))))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
    }
}
