//! A local webhook receiver that remembers what it got: the witness that the tests, the demo and the benchmarks compare
//! the cluster's own account with.
//!
//! It runs on a thread of its own, so that the load of whoever uses it does not show up as lateness. It must never
//! merge or drop what it receives: repeats are the verdict's business.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use campanile_model::{OccurrenceId, RunId, Timestamp, Token};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::clock::Micros;

/// One request that a node sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub occurrence: OccurrenceId,
    pub run: RunId,
    pub attempt: u32,
    pub token: Token,
    /// As the header says; always that of `occurrence`, or the request is malformed.
    pub scheduled_at: Timestamp,
    /// When its head had been read.
    pub received_at: Micros,
    /// The status it was answered with.
    pub answered: u16,
    /// The task's name.
    pub task: String,
}

impl Delivery {
    pub fn lateness_us(&self) -> i64 {
        self.received_at.after(self.scheduled_at)
    }

    pub fn was_accepted(&self) -> bool {
        (200..300).contains(&self.answered)
    }
}

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    pub status: StatusCode,
    /// Time taken before the answer.
    pub delay: Duration,
    /// Attempts up to this number of every run are answered with 500 instead.
    pub fail_first: u32,
}

impl Default for Behaviour {
    /// 200, at once.
    fn default() -> Self {
        Self { status: StatusCode::OK, delay: Duration::ZERO, fail_first: 0 }
    }
}

/// How much has come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub deliveries: usize,
    /// Different occurrences among them.
    pub occurrences: usize,
    /// Requests that were no proper webhook of a node.
    pub malformed: usize,
}

/// Everything received, in the order it came.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub deliveries: Vec<Delivery>,
    /// What was wrong with each request that was no proper webhook.
    pub malformed: Vec<String>,
}

#[derive(Debug, Default)]
struct Log {
    received: Received,
    occurrences: HashSet<OccurrenceId>,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Log>,
    behaviour: RwLock<Behaviour>,
    counts: watch::Sender<Counts>,
}

/// A running receiver; dropping it closes it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    counts: watch::Receiver<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// Listens on a free loopback port.
    pub fn start() -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Listens at an address; port 0 takes a free one.
    pub fn start_at(address: SocketAddr) -> Result<Self> {
        let listener = StdListener::bind(address).with_context(|| format!("listening at {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (sender, counts) = watch::channel(Counts::default());
        let shared = Arc::new(Shared { log: Mutex::default(), behaviour: RwLock::default(), counts: sender });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let on_thread = shared.clone();
        let thread = std::thread::Builder::new().name("receiver".into()).spawn(move || {
            // Dropping the runtime afterwards closes every connection.
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, on_thread) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, shared, counts, stop: Some(stop), thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that is received here.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers differently from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.shared.behaviour.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = behaviour;
    }

    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// All of it, so far.
    pub fn received(&self) -> Received {
        self.shared.log().received.clone()
    }

    /// All of it since the last time, which it then forgets: the counts begin anew.
    pub fn drain(&self) -> Received {
        let mut log = self.shared.log();
        self.shared.counts.send_replace(Counts::default());
        std::mem::take(&mut *log).received
    }

    /// The deliveries from the `start`-th on.
    pub fn deliveries_from(&self, start: usize) -> Vec<Delivery> {
        self.shared.log().received.deliveries.get(start..).unwrap_or_default().to_vec()
    }

    /// Whether `condition` holds of the counts within that time.
    pub async fn wait_for(&self, within: Duration, condition: impl FnMut(&Counts) -> bool) -> bool {
        let mut counts = self.counts.clone();
        matches!(timeout(within, counts.wait_for(condition)).await, Ok(Ok(_)))
    }

    /// Whether this many different occurrences come in within that time.
    pub async fn wait_occurrences(&self, count: usize, within: Duration) -> bool {
        self.wait_for(within, |counts| counts.occurrences >= count).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed, and shows in the counts.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn note(&self, outcome: Result<Delivery, String>) {
        let mut log = self.log();
        match outcome {
            Ok(delivery) => {
                log.occurrences.insert(delivery.occurrence);
                log.received.deliveries.push(delivery);
            }
            Err(fault) => log.received.malformed.push(fault),
        }
        // Still under the lock, so that counts never go back.
        self.counts.send_replace(Counts {
            deliveries: log.received.deliveries.len(),
            occurrences: log.occurrences.len(),
            malformed: log.received.malformed.len(),
        });
    }
}

async fn accept(listener: StdListener, shared: Arc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            shared.note(Err(format!("the receiver cannot listen: {error}")));
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, shared.clone()));
            }
            // Out of file descriptors, or a connection reset before it was taken: the next may fare better.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| answer(request, &shared));
    // A node that was killed breaks its connections; what it sent before has been noted.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let received_at = Micros::now();
    let behaviour = *shared.behaviour.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (head, body) = request.into_parts();
    let outcome = read_head(&head.headers, received_at).map(|delivery| {
        let fails = delivery.attempt <= behaviour.fail_first;
        let status = if fails { StatusCode::INTERNAL_SERVER_ERROR } else { behaviour.status };
        Delivery { answered: status.as_u16(), ..delivery }
    });
    let status = outcome.as_ref().map_or(StatusCode::BAD_REQUEST, |delivery| {
        StatusCode::from_u16(delivery.answered).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    });
    shared.note(outcome.map_err(|error| format!("{} {}: {error:#}", head.method, head.uri)));
    // Read to its end so that the connection can be used again; one that breaks off is the sender's loss.
    let _ = body.collect().await;
    if !behaviour.delay.is_zero() {
        sleep(behaviour.delay).await;
    }
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    Ok(response)
}

fn read_head(headers: &HeaderMap, received_at: Micros) -> Result<Delivery> {
    let occurrence: OccurrenceId = read(headers, "campanile-occurrence-id")?;
    let delivery = Delivery {
        occurrence,
        run: read(headers, "campanile-run-id")?,
        attempt: read(headers, "campanile-attempt")?,
        token: Token(read(headers, "campanile-fencing-token")?),
        scheduled_at: read(headers, "campanile-scheduled-at")?,
        received_at,
        answered: 0,
        task: read(headers, "campanile-task")?,
    };
    let id: OccurrenceId = read(headers, "webhook-id")?;
    anyhow::ensure!(id == occurrence, "webhook-id {id} is not the occurrence {occurrence}");
    let scheduled_at = delivery.scheduled_at;
    anyhow::ensure!(
        scheduled_at == occurrence.scheduled_at,
        "campanile-scheduled-at {scheduled_at} is not the instant of {occurrence}"
    );
    anyhow::ensure!(delivery.attempt > 0, "campanile-attempt is 0");
    Ok(delivery)
}

fn read<T: FromStr<Err: std::fmt::Display>>(headers: &HeaderMap, name: &'static str) -> Result<T> {
    let value = headers.get(name).with_context(|| format!("no header {name}"))?;
    let text = value.to_str().map_err(|_| anyhow!("header {name} is not text"))?;
    text.parse().map_err(|error| anyhow!("header {name}: {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn request(task: u64, attempt: u32) -> String {
        format!(
            "POST /hook HTTP/1.1\r\nhost: x\r\nwebhook-id: t{task}-1000\r\ncampanile-occurrence-id: t{task}-1000\r\n\
             campanile-run-id: r7\r\ncampanile-attempt: {attempt}\r\ncampanile-fencing-token: 9\r\ncampanile-task: n\r\n\
             campanile-scheduled-at: 1970-01-01T00:00:01Z\r\ncontent-length: 2\r\n\r\n{{}}"
        )
    }

    /// The statuses that requests on one connection are answered with.
    async fn send(receiver: &Receiver, requests: &[String]) -> Vec<u16> {
        let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
        let mut statuses = Vec::new();
        for request in requests {
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
            statuses.push(std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap());
        }
        statuses
    }

    #[tokio::test]
    async fn it_remembers_every_request_and_repeats_too() {
        let receiver = Receiver::start().unwrap();
        assert_eq!(send(&receiver, &[request(1, 1), request(2, 1), request(1, 2)]).await, [200, 200, 200]);
        assert!(receiver.wait_for(Duration::from_secs(5), |counts| counts.deliveries == 3).await);
        assert_eq!(receiver.counts(), Counts { deliveries: 3, occurrences: 2, malformed: 0 });
        let last = &receiver.deliveries_from(2)[0];
        assert_eq!((last.run, last.attempt, last.token, last.answered), (RunId(7), 2, Token(9), 200));
        assert_eq!(last.scheduled_at, Timestamp::from_millis(1000));
        assert!(last.lateness_us() > 0);
    }

    #[tokio::test]
    async fn it_behaves_as_told() {
        let receiver = Receiver::start().unwrap();
        receiver.set_behaviour(Behaviour { fail_first: 1, status: StatusCode::ACCEPTED, ..Behaviour::default() });
        assert_eq!(send(&receiver, &[request(1, 1), request(1, 2)]).await, [500, 202]);
        let accepted: Vec<_> = receiver.received().deliveries.iter().map(Delivery::was_accepted).collect();
        assert_eq!(accepted, [false, true]);
    }

    #[tokio::test]
    async fn what_is_no_webhook_is_kept_as_a_fault() {
        let receiver = Receiver::start().unwrap();
        let other_instant = request(1, 1).replace("00:00:01Z", "00:00:02Z");
        let other_id = request(1, 1).replace("webhook-id: t1", "webhook-id: t2");
        let bare = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned();
        assert_eq!(send(&receiver, &[other_instant, other_id, bare, request(3, 0)]).await, [400; 4]);
        assert_eq!(receiver.counts(), Counts { deliveries: 0, occurrences: 0, malformed: 4 });
    }
}
