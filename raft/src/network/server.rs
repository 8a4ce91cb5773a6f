//! The peer listener: takes calls from other nodes and hands them to whoever answers.
//!
//! Nothing that arrives here may hurt the node. A call that is not ours is refused by name before its body is read;
//! bodies are bounded and have deadlines; what is not HTTP/2 ends its own connection; connections are counted.

use campanile_model::{NodeId, planted, sometimes};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use campanile_model::codec::{self, Versioned};
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, watch};

use super::channel::{Body, CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW};
use super::snapshot::receive_snapshot;
use super::stream::{self as frames, FrameReader};
use super::wire::{self, Call, HEADER_CLUSTER, HEADER_FROM, HEADER_PROTOCOL, HEADER_TO, protocol};
use crate::form::VoteForm;
use crate::leadership::address_of;
use crate::network::client::Traffic;
use crate::node::Node;
use crate::rt;
use openraft::raft::{TransferLeaderError, TransferLeaderRequest, VoteRequest};

/// Connections at one time, from all peers together.
const CONNECTIONS: usize = 256;
/// Calls at one time on one connection.
const CALLS_PER_CONNECTION: u32 = 512;
/// How long a connection may be open without one valid call.
const FIRST_CALL: Duration = Duration::from_secs(5);
/// How long the body of a small call may take to arrive.
const READ: Duration = Duration::from_secs(5);
/// Different refusals that are logged; then they are only counted.
const REFUSALS_LOGGED: usize = 64;

/// Why a call is not answered.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

struct Server {
    node: Arc<Node>,
    /// What has been refused, so that each is logged once.
    refused: Mutex<BTreeSet<String>>,
}

/// Accepts connections until `stop`.
pub async fn serve(listener: rt::Listener, node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let server = Arc::new(Server { node, refused: Mutex::default() });
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "cannot accept a peer's connection");
                server.node.clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::warn!(%from, "too many peer connections, one dropped");
            continue;
        };
        let (server, stop) = (server.clone(), stop.clone());
        rt::spawn(async move {
            server.connection(stream, from, stop).await;
            drop(slot);
        });
    }
}

impl Server {
    async fn connection(self: Arc<Self>, stream: rt::Stream, from: SocketAddr, mut stop: watch::Receiver<bool>) {
        let called = Arc::new(AtomicBool::new(false));
        let service = {
            let (server, called) = (self.clone(), called.clone());
            service_fn(move |request| {
                let (server, called) = (server.clone(), called.clone());
                async move { Ok::<_, Infallible>(server.respond(request, from, &called).await) }
            })
        };
        let connection = http2::Builder::new(rt::Executor)
            .timer(rt::Timer)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(self.node.keep_alive)
            .keep_alive_timeout(self.node.keep_alive)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let first_call = self.node.clock.sleep(FIRST_CALL);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => return,
            result = &mut connection => return self.ended(from, result),
            () = first_call => {}
        }
        if !called.load(Ordering::Relaxed) {
            tracing::debug!(%from, "peer connection closed: it made no call");
            return;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => {}
            result = &mut connection => self.ended(from, result),
        }
    }

    fn ended(&self, from: SocketAddr, result: hyper::Result<()>) {
        if let Err(error) = result {
            tracing::debug!(%from, %error, "peer connection ended");
        }
    }

    async fn respond(&self, request: Request<Incoming>, from: SocketAddr, called: &AtomicBool) -> Response<Body> {
        let result = match self.admit(&request) {
            Ok(call) => {
                called.store(true, Ordering::Relaxed);
                self.answer(call, request.into_body()).await
            }
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok(body) => Response::new(body),
            Err(refusal) => {
                self.note(from, &refusal);
                let reason = Full::new(Bytes::from(refusal.reason)).map_err(|never| match never {});
                let mut response = Response::new(reason.boxed_unsync());
                *response.status_mut() = refusal.status;
                response
            }
        }
    }

    fn note(&self, from: SocketAddr, refusal: &Refusal) {
        self.node.metrics.peer_calls_refused.add(1);
        let mut refused = self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if refused.len() < REFUSALS_LOGGED && refused.insert(format!("{} {}", from.ip(), refusal.reason)) {
            tracing::warn!(%from, reason = %refusal.reason, "peer call refused (logged once)");
        }
    }

    /// Checks everything that can be checked before the body is read.
    fn admit(&self, request: &Request<Incoming>) -> Result<Call, Refusal> {
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let us = self.node.identity.node();
        let (theirs, ours) = (header(HEADER_PROTOCOL), protocol(us));
        if theirs != ours {
            sometimes!(VersionsMet);
            let reason = format!("peer protocol {theirs:?} is not {ours:?}, which this node speaks");
            return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, reason));
        }
        let call = wire::CALLS.into_iter().find(|call| call.path == request.uri().path());
        let Some(call) = call.filter(|_| request.method() == Method::POST) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no such peer call"));
        };
        let to = header(HEADER_TO);
        if to != us.0.to_string() {
            return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, format!("this is node {us}, not node {to:?}")));
        }
        if header(HEADER_FROM).parse::<u64>().is_err() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the sender does not say which node it is"));
        }
        let theirs = header(HEADER_CLUSTER);
        match self.node.identity.cluster() {
            _ if call.outside_cluster => Ok(call),
            Some(ours) if ours.to_string() == theirs => Ok(call),
            Some(ours) => {
                let reason = format!("this node is of cluster {ours}, the sender of {theirs:?}");
                Err(Refusal::new(StatusCode::CONFLICT, reason))
            }
            None => Err(Refusal::new(StatusCode::CONFLICT, "this node is in no cluster")),
        }
    }

    async fn answer(&self, call: Call, body: Incoming) -> Result<Body, Refusal> {
        let node = &self.node;
        if call == wire::APPEND {
            return Ok(self.append(body));
        }
        if call == wire::SNAPSHOT {
            let vote = receive_snapshot(node, FrameReader::new(body)).await;
            let vote = vote.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("snapshot: {error}")))?;
            return Ok(encoded(&wire::SnapshotAnswer { vote: VoteForm::from(&vote) }));
        }
        let body = read_small(call, body).await?;
        Ok(match call.path {
            path if path == wire::VOTE.path => encoded(&self.vote(decoded(&body)?, false).await?),
            path if path == wire::PRE_VOTE.path => encoded(&self.vote(decoded(&body)?, true).await?),
            path if path == wire::TRANSFER.path => encoded(&self.transfer(decoded(&body)?).await?),
            path if path == wire::PROPOSE.path => encoded(&node.proposer.serve(decoded(&body)?).await),
            path if path == wire::READ_INDEX.path => encoded(&node.reads.serve().await),
            path if path == wire::BEAT.path => encoded(&node.beats.serve(decoded(&body)?)),
            path if path == wire::MEMBERS.path => encoded(&node.members.serve(decoded(&body)?).await),
            path if path == wire::FOUND.path => encoded(&node.formation.found(decoded(&body)?)),
            // `admit` lets no other call in.
            _ => encoded(&node.formation.hello()),
        })
    }

    /// Feeds the leader's stream to openraft and its answers back, until either ends.
    fn append(&self, body: Incoming) -> Body {
        // The stream of requests just ends when something does not decode: the leader sees its call end and retries.
        let requests = stream::unfold(FrameReader::new(body), |mut frames| async move {
            match frames.next().await {
                Ok(Some(frame)) => match frames::decode_append(frame) {
                    Ok(request) => Some((request, frames)),
                    Err(error) => {
                        tracing::warn!(%error, "append request does not decode");
                        None
                    }
                },
                Ok(None) | Err(_) => None,
            }
        });
        let answers = self.node.raft.stream_append(requests);
        frames::body(answers.map(|answer| match answer {
            Ok(result) => Ok(frames::encode_answer(&result)),
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        }))
    }

    async fn vote(&self, message: wire::VoteMessage, pre_vote: bool) -> Result<wire::VoteAnswer, Refusal> {
        let mut request = VoteRequest::new(message.vote.into(), message.last.map(Into::into));
        request.leadership_transfer = message.leadership_transfer;
        let raft = &self.node.raft;
        if pre_vote && !planted!(VotesForTheUnreachable) {
            self.must_reach(NodeId(message.vote.node)).await?;
        }
        let answer = if pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
        let answer = answer.map_err(|error| stopped(&error))?;
        Ok(wire::VoteAnswer {
            vote: VoteForm::from(&answer.vote),
            granted: answer.vote_granted || planted!(VoteAlwaysGranted),
            last: answer.last_log_id.map(Into::into),
        })
    }

    /// A node that this one cannot reach is not to lead it: it would send heartbeats, so that nobody else stands, and
    /// hear neither beats nor proposals. One whose address is not known here may be a voter that this node has not heard
    /// of yet.
    async fn must_reach(&self, candidate: NodeId) -> Result<(), Refusal> {
        let node = &self.node;
        let Some(address) = address_of(&node.raft, candidate) else { return Ok(()) };
        let channel = node.peers.channel(candidate, &address, Traffic::Control);
        match channel.ask::<wire::HelloAnswer>(wire::HELLO, node.reach_within).await {
            Ok(_) => Ok(()),
            Err(error) => {
                sometimes!(CandidateNotReached);
                let reason = format!("node {candidate} asks for a vote and cannot be reached: {error}");
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason))
            }
        }
    }

    async fn transfer(&self, message: wire::TransferMessage) -> Result<wire::TransferAnswer, Refusal> {
        let last = message.last.map(Into::into);
        let request = TransferLeaderRequest::new(message.from_leader.into(), message.to, last);
        let answer = self.node.raft.handle_transfer_leader(request).await.map_err(|error| stopped(&error))?;
        Ok(match answer {
            Ok(()) => wire::TransferAnswer::Accepted,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => wire::TransferAnswer::VoteChanged {
                expected: VoteForm::from(&expected),
                actual: VoteForm::from(&actual),
            },
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => wire::TransferAnswer::LogNotFlushed {
                expected: expected.map(Into::into),
                actual: actual.map(Into::into),
            },
        })
    }
}

fn stopped(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("raft has stopped: {error}"))
}

async fn read_small(call: Call, body: Incoming) -> Result<Bytes, Refusal> {
    match rt::timeout(READ, Limited::new(body, call.max_request_bytes).collect()).await {
        Some(Ok(body)) => Ok(body.to_bytes()),
        Some(Err(error)) => Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("{}: {error}", call.path))),
        None => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("{}: body took more than {READ:?}", call.path))),
    }
}

fn decoded<M: Versioned>(body: &[u8]) -> Result<M, Refusal> {
    codec::decode(body).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))
}

fn encoded<M: Versioned>(message: &M) -> Body {
    Full::new(Bytes::from(codec::encode(message))).map_err(|never| match never {}).boxed_unsync()
}
