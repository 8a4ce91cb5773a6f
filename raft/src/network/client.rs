//! What openraft calls to reach a peer.
//!
//! Heartbeats and votes go over one connection, log replication over a second, snapshots over a third, so that bulk
//! never delays what keeps a leader in office.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use campanile_model::{NodeId, planted};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkV2};

use super::channel::{CallError, Channel};
use super::heartbeat::Heartbeats;
use super::snapshot::send_snapshot;
use super::stream::{self as frames, AppendRequest, AppendResult, FrameReader};
use super::wire::{self, Call, TransferAnswer, TransferMessage, VoteAnswer, VoteMessage};
use crate::form::VoteForm;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::state_machine::{Snapshot, SnapshotData};
use crate::types::{PeerNode, TypeConfig, Vote};

type Rpc = RPCError<TypeConfig>;

/// Between two attempts to open an append stream to a node that cannot be reached.
const APPEND_AGAIN: Duration = Duration::from_millis(50);
/// A follower that has been sent entries and acknowledges none for this long is given up on and tried anew.
const APPEND_SILENCE: Duration = Duration::from_secs(2);

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// Votes, heartbeats, beats, proposals: small and urgent.
    Control,
    Log,
    Snapshot,
}

/// The connections to all peers. Clones share them.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    metrics: Arc<Metrics>,
    keep_alive: Duration,
    channels: Mutex<BTreeMap<(NodeId, Traffic), Channel>>,
}

impl Peers {
    pub fn new(identity: Identity, metrics: Arc<Metrics>, keep_alive: Duration) -> Self {
        Self { inner: Arc::new(Inner { identity, metrics, keep_alive, channels: Mutex::default() }) }
    }

    /// The connection to a node at an address; one for each kind of traffic, shared by all who ask.
    pub fn channel(&self, to: NodeId, address: &str, traffic: Traffic) -> Channel {
        let mut channels = self.channels();
        if let Some(channel) = channels.get(&(to, traffic)).filter(|channel| channel.address() == address) {
            return channel.clone();
        }
        let inner = &self.inner;
        let (identity, metrics) = (inner.identity.clone(), inner.metrics.clone());
        let channel = Channel::new(identity, metrics, to, address.to_owned(), inner.keep_alive);
        channels.insert((to, traffic), channel.clone());
        channel
    }

    /// Lets go of connections to nodes that are no longer members.
    pub fn keep_only(&self, wanted: impl Fn(NodeId) -> bool) {
        self.channels().retain(|(node, _), _| wanted(*node));
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Traffic), Channel>> {
        self.inner.channels.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, Traffic::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        let peer = self.peer(target, node, Traffic::Control);
        Peer { heartbeats: Some(Heartbeats::new(peer.channel.clone())), ..peer }
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Peer {
        self.peer(target, node, Traffic::Snapshot)
    }
}

impl Peers {
    fn peer(&self, target: u64, node: &PeerNode, traffic: Traffic) -> Peer {
        Peer {
            channel: self.channel(NodeId(target), &node.peer, traffic),
            control: self.channel(NodeId(target), &node.peer, Traffic::Control),
            heartbeats: None,
            metrics: self.inner.metrics.clone(),
        }
    }
}

/// One peer, as openraft sees it.
pub struct Peer {
    channel: Channel,
    /// Votes are urgent whoever sends them.
    control: Channel,
    /// Where this is what sends heartbeats: each is, to openraft, a stream of one append request.
    heartbeats: Option<Heartbeats>,
    metrics: Arc<Metrics>,
}

fn rpc_error(error: CallError) -> Rpc {
    match error {
        CallError::Unreachable(_) | CallError::Refused { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        CallError::Lost(_) | CallError::TimedOut(_) => RPCError::Network(NetworkError::new(&error)),
    }
}

fn lost(error: io::Error) -> Rpc {
    RPCError::Network(NetworkError::new(&error))
}

impl Peer {
    async fn ask_for_vote(
        &self,
        call: Call,
        request: VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let message = VoteMessage {
            vote: VoteForm::from(&request.vote),
            last: request.last_log_id.map(Into::into),
            leadership_transfer: request.leadership_transfer,
        };
        let answer: VoteAnswer = self.control.call(call, &message, option.soft_ttl()).await.map_err(rpc_error)?;
        Ok(VoteResponse::new(Vote::from(answer.vote), answer.last.map(Into::into), answer.granted))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    /// Not used by openraft itself, which streams; one request over a stream of its own.
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Rpc> {
        let mut answers = self.stream_append(stream::iter([request]), option).await?;
        match answers.next().await {
            Some(result) => result.map(AppendEntriesResponse::from),
            None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// One full-duplex call: requests go out as openraft makes them, answers come back in order.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, Rpc>>, Rpc>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        if let Some(heartbeats) = &mut self.heartbeats {
            let answers = stream::unfold((heartbeats, input), |(heartbeats, mut input)| async move {
                let request = input.next().await?;
                let answer = heartbeats.send(&request).await.map_err(rpc_error);
                Some((answer, (heartbeats, input)))
            });
            return Box::pin(async move { Ok(answers.boxed()) });
        }
        let channel = self.channel.clone();
        Box::pin(async move {
            let sent = Arc::new(AtomicU64::new(0));
            let counter = sent.clone();
            #[cfg(madsim)]
            let address = channel.address().to_owned();
            let requests = input.map(move |request| {
                counter.fetch_add(1, Ordering::AcqRel);
                #[cfg(madsim)]
                crate::rt::links::sent(&address, wire::APPEND.path);
                Ok(frames::encode_append(&request))
            });
            let response = match channel.send(wire::APPEND, frames::body(requests)).await {
                Ok(response) => response,
                Err(error) => {
                    // openraft backs off where it makes requests, and none was asked for: without a pause here it
                    // would try again at once, and a dead follower would cost its leader a core.
                    if !planted!(DeadPeerWithoutPause) {
                        crate::clock::sleep(APPEND_AGAIN).await;
                    }
                    return Err(rpc_error(error));
                }
            };
            let answers = Answers { frames: FrameReader::new(response.into_body()), sent, received: 0 };
            let answers = stream::unfold(Some(answers), |answers| async move {
                let mut answers = answers?;
                match answers.next().await {
                    Ok(None) => None,
                    Ok(Some(answer)) => Some((Ok(answer), Some(answers))),
                    Err(error) => Some((Err(lost(error)), None)),
                }
            });
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.ask_for_vote(wire::VOTE, request, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        self.ask_for_vote(wire::PRE_VOTE, request, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = send_snapshot(&self.channel, vote, snapshot);
        match futures::future::select(std::pin::pin!(sending), std::pin::pin!(cancel)).await {
            futures::future::Either::Left((result, _)) => {
                let vote = result.map_err(|error| StreamingError::from(rpc_error(error)))?;
                self.metrics.snapshots_sent.add(1);
                Ok(SnapshotResponse::new(vote))
            }
            futures::future::Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Rpc> {
        let message = TransferMessage {
            from_leader: VoteForm::from(request.from_leader()),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(Into::into),
        };
        let answer = self.control.call(wire::TRANSFER, &message, option.soft_ttl()).await.map_err(rpc_error)?;
        Ok(match answer {
            TransferAnswer::Accepted => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: expected.into(), actual: actual.into() })
            }
            TransferAnswer::LogNotFlushed { expected, actual } => Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(Into::into),
                actual: actual.map(Into::into),
            }),
        })
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(200))))
    }
}

/// The answers of one append stream.
struct Answers {
    frames: FrameReader,
    sent: Arc<AtomicU64>,
    received: u64,
}

impl Answers {
    /// The next answer. While requests are unanswered the follower may not be silent for long; while none are, there is
    /// nothing to wait for but the leader's own next entry.
    async fn next(&mut self) -> io::Result<Option<AppendResult>> {
        loop {
            let owed_before = self.sent.load(Ordering::Acquire) > self.received;
            match self.frames.next_within(APPEND_SILENCE).await {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => {
                    self.received += 1;
                    return frames::decode_answer(&frame).map(Some);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !owed_before => {}
                Err(error) => return Err(error),
            }
        }
    }
}
