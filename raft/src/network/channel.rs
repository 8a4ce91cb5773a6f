//! A connection to one peer: made when it is needed, re-made with back-off when it is lost.
//!
//! Errors tell whether the call can have reached the peer, because only what surely did not may be sent again.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use campanile_model::NodeId;
use campanile_model::codec::{self, Versioned};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;

use super::wire::{Call, HEADER_CLUSTER, HEADER_FROM, HEADER_PROTOCOL, HEADER_TO, protocol};
use crate::clock::instant;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::rt;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

const CONNECT: Duration = Duration::from_millis(1000);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A peer that has answered nothing on a connection for this long, while calls waited, gets a new connection.
const SILENCE: Duration = Duration::from_millis(1500);
/// Bytes a peer may have sent that we have not read yet: of one call, and of a connection.
pub const STREAM_WINDOW: u32 = 4 << 20;
pub const CONNECTION_WINDOW: u32 = 8 << 20;
pub const MAX_FRAME: u32 = 256 << 10;

#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The call was never sent.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer refused the call by name, and did nothing.
    #[error("refused with {status}: {reason}")]
    Refused { status: u16, reason: String },
    /// The call was sent, and what became of it is not known.
    #[error("lost: {0}")]
    Lost(String),
    #[error("no answer in {0:?}")]
    TimedOut(Duration),
}

impl CallError {
    /// Whether the call surely had no effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Refused { .. })
    }
}

/// Calls to one peer over one connection. Clones share it.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    metrics: Arc<Metrics>,
    to: NodeId,
    address: String,
    keep_alive: Duration,
    link: Mutex<Link>,
    /// When the peer last answered on the current connection.
    heard: std::sync::Mutex<Instant>,
}

#[derive(Default)]
struct Link {
    sender: Option<SendRequest<Body>>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Channel {
    pub fn new(identity: Identity, metrics: Arc<Metrics>, to: NodeId, address: String, keep_alive: Duration) -> Self {
        let heard = std::sync::Mutex::new(instant());
        Self { inner: Arc::new(Inner { identity, metrics, to, address, keep_alive, link: Mutex::default(), heard }) }
    }

    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Asks and waits for the answer, at most `deadline`.
    pub async fn call<Q: Versioned, A: Versioned>(
        &self,
        call: Call,
        message: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        self.call_encoded(call, codec::encode(message).into(), deadline).await
    }

    /// The same without a message.
    pub async fn ask<A: Versioned>(&self, call: Call, deadline: Duration) -> Result<A, CallError> {
        self.call_encoded(call, Bytes::new(), deadline).await
    }

    async fn call_encoded<A: Versioned>(&self, call: Call, body: Bytes, deadline: Duration) -> Result<A, CallError> {
        #[cfg(madsim)]
        let sent = body.clone();
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        let exchange = async {
            let response = self.send(call, body).await?;
            let collected = Limited::new(response.into_body(), call.max_answer_bytes).collect().await;
            let bytes = collected.map_err(|error| CallError::Lost(error.to_string()))?.to_bytes();
            codec::decode(&bytes).map_err(|error| CallError::Lost(error.to_string()))
        };
        let result = match rt::timeout(deadline, exchange).await {
            Some(result) => result,
            None => Err(CallError::TimedOut(deadline)),
        };
        #[cfg(madsim)]
        if !result.as_ref().is_err_and(CallError::had_no_effect) {
            self.perhaps_replay(call, sent);
        }
        result
    }

    /// Sends a call again that was sent already, if the simulator's network delivers it twice.
    #[cfg(madsim)]
    fn perhaps_replay(&self, call: Call, body: Bytes) {
        let Some(later) = rt::links::replay() else { return };
        let channel = self.clone();
        rt::spawn(async move {
            tokio::time::sleep(later).await;
            let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
            // Nobody waits for the answer to a call that went astray.
            drop(channel.send(call, body).await);
        });
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&self, call: Call, body: Body) -> Result<Response<Incoming>, CallError> {
        let mut sender = self.connected().await?;
        let request = self.request(call, body)?;
        // Dropped at a deadline of the caller's, the guard still notices a connection that has gone silent.
        let guard = Silence { channel: self, answered: false };
        // Appends are counted where they are made: one call carries many.
        #[cfg(madsim)]
        if call != super::wire::APPEND {
            rt::links::sent(&self.inner.address, call.path);
        }
        let response = sender.send_request(request).await.map_err(|error| {
            // hyper says when a request was not even begun.
            if error.is_canceled() {
                CallError::Unreachable(error.to_string())
            } else {
                CallError::Lost(error.to_string())
            }
        });
        guard.answered();
        let response = response?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let reason = match Limited::new(response.into_body(), 4096).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => String::new(),
        };
        Err(CallError::Refused { status, reason })
    }

    fn request(&self, call: Call, body: Body) -> Result<Request<Body>, CallError> {
        let inner = &self.inner;
        let cluster = inner.identity.cluster().map_or_else(|| "none".to_owned(), |cluster| cluster.to_string());
        Request::post(format!("http://{}{}", inner.address, call.path))
            .header(HEADER_PROTOCOL, &*protocol(inner.identity.node()))
            .header(HEADER_CLUSTER, cluster)
            .header(HEADER_FROM, inner.identity.node().0)
            .header(HEADER_TO, inner.to.0)
            .body(body)
            .map_err(|error| CallError::Unreachable(format!("{}: {error}", inner.address)))
    }

    /// The connection, made anew if there is none.
    async fn connected(&self) -> Result<SendRequest<Body>, CallError> {
        let mut link = self.inner.link.lock().await;
        if let Some(sender) = link.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        if link.not_before.is_some_and(|moment| instant() < moment) {
            return Err(CallError::Unreachable(format!("{} failed a moment ago", self.inner.address)));
        }
        match self.connect().await {
            Ok(sender) => {
                *link = Link { sender: Some(sender.clone()), ..Link::default() };
                Ok(sender)
            }
            Err(error) => {
                let backoff = BACKOFF_MIN.saturating_mul(1 << link.failures.min(8)).min(BACKOFF_MAX);
                *link = Link { sender: None, failures: link.failures + 1, not_before: Some(instant() + backoff) };
                Err(CallError::Unreachable(format!("{}: {error}", self.inner.address)))
            }
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Body>> {
        let stream = rt::connect(&self.inner.address, CONNECT).await?;
        let handshake = http2::Builder::new(rt::Executor)
            .timer(rt::Timer)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .keep_alive_interval(self.inner.keep_alive)
            .keep_alive_timeout(self.inner.keep_alive)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = match rt::timeout(CONNECT, handshake).await {
            Some(result) => result.map_err(io::Error::other)?,
            None => return Err(io::ErrorKind::TimedOut.into()),
        };
        let to = self.inner.to;
        rt::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(node = to.0, %error, "connection to peer lost");
            }
        });
        self.inner.metrics.peer_connects.add(1);
        *self.heard() = instant();
        Ok(sender)
    }

    /// The peer has answered, on a call that stays open.
    pub fn note_answer(&self) {
        *self.heard() = instant();
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.inner.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Watches one call for the sake of the connection.
struct Silence<'a> {
    channel: &'a Channel,
    answered: bool,
}

impl Silence<'_> {
    fn answered(mut self) {
        self.answered = true;
        self.channel.note_answer();
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        if self.answered || instant().saturating_duration_since(*self.channel.heard()) < SILENCE {
            return;
        }
        // A lock that is held means that somebody is connecting anew already.
        if let Ok(mut link) = self.channel.inner.link.try_lock() {
            link.sender = None;
        }
    }
}
