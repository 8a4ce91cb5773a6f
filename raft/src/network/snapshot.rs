//! Snapshots between nodes: the manifest, then the files piece by piece, then the answer once it is installed.
//!
//! Neither side holds more than a piece in memory. Each gives up when the other does nothing for a while; how long the
//! whole takes is nobody's business.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use campanile_model::{bound, codec};
use campanile_store::Manifest;
use futures::{Stream, stream};
use http_body_util::{BodyExt, Limited};

use super::channel::{CallError, Channel};
use super::stream::{self as frames, FrameReader};
use super::wire::{self, SnapshotAnswer, SnapshotChunk, SnapshotHead};
use crate::clock;
use crate::form::VoteForm;
use crate::node::Node;
use crate::rt;
use crate::state_machine::{self, Snapshot, SnapshotData};
use crate::types::Vote;

const PIECE_BYTES: usize = 1 << 20;
/// How long the other side may do nothing.
const IDLE: Duration = Duration::from_secs(30);
/// How long the receiver may take to make it durable, switch to it, and answer.
const INSTALL: Duration = Duration::from_secs(300);

/// Sends this node's state. Answers the receiver's vote once it has installed it. What it gets may be further than what
/// openraft takes it to be: then the log goes on from there.
pub async fn send_snapshot(channel: &Channel, vote: Vote, snapshot: Snapshot) -> Result<Vote, CallError> {
    let SnapshotData::Own { store, at_least } = snapshot.snapshot else {
        return Err(CallError::Unreachable("only a snapshot of our own can be sent".into()));
    };
    let failed = |error: String| CallError::Unreachable(format!("no snapshot could be made: {error}"));
    let made = rt::run_blocking(move || store.snapshot(at_least)).await.map_err(|error| failed(error.to_string()))?;
    let snapshot = made.map_err(|error| failed(error.to_string()))?;
    let progress = Arc::new(Progress { pieces: AtomicU64::new(0), total: pieces_of(snapshot.manifest()) });
    let body = frames::body(outgoing(vote, snapshot, progress.clone()));
    let exchange = async {
        let response = channel.send(wire::SNAPSHOT, body).await?;
        let answer = Limited::new(response.into_body(), wire::SNAPSHOT.max_answer_bytes).collect().await;
        let answer = answer.map_err(|error| CallError::Lost(error.to_string()))?.to_bytes();
        let answer: SnapshotAnswer = codec::decode(&answer).map_err(|error| CallError::Lost(error.to_string()))?;
        Ok(answer.vote.into())
    };
    match futures::future::select(std::pin::pin!(exchange), std::pin::pin!(progress.stalled())).await {
        futures::future::Either::Left((result, _)) => result,
        futures::future::Either::Right((span, _)) => Err(CallError::TimedOut(span)),
    }
}

/// How much of a snapshot the receiver has taken.
struct Progress {
    pieces: AtomicU64,
    total: u64,
}

impl Progress {
    /// Ready when nothing has moved for too long.
    async fn stalled(&self) -> Duration {
        let mut seen = self.pieces.load(Ordering::Relaxed);
        let mut moved = clock::instant();
        loop {
            let patience = if seen >= self.total { INSTALL } else { IDLE };
            let left = patience.saturating_sub(crate::clock::instant().saturating_duration_since(moved));
            if left.is_zero() {
                return patience;
            }
            clock::sleep(left.min(Duration::from_secs(5))).await;
            let now = self.pieces.load(Ordering::Relaxed);
            if now != seen {
                (seen, moved) = (now, clock::instant());
            }
        }
    }
}

fn pieces_of(manifest: &Manifest) -> u64 {
    manifest.files.iter().map(|file| file.bytes.div_ceil(bound!(SnapshotPiece, PIECE_BYTES) as u64)).sum::<u64>() + 1
}

/// The frames of a snapshot: the head, then every file from its beginning to its end.
fn outgoing(
    vote: Vote,
    snapshot: Arc<campanile_store::Snapshot>,
    progress: Arc<Progress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    enum At {
        Head,
        File { file: usize, offset: u64 },
    }
    stream::try_unfold(At::Head, move |at| {
        let (snapshot, progress) = (snapshot.clone(), progress.clone());
        async move {
            progress.pieces.fetch_add(1, Ordering::Relaxed);
            let (mut file, offset) = match at {
                At::Head => {
                    let head =
                        SnapshotHead { vote: VoteForm::from(&vote), manifest: codec::encode(snapshot.manifest()) };
                    let head = frames::frame(|out| codec::encode_into(&head, out));
                    return Ok(Some((head, At::File { file: 0, offset: 0 })));
                }
                At::File { file, offset } => (file, offset),
            };
            // Empty files are made from the manifest.
            let files = &snapshot.manifest().files;
            while files.get(file).is_some_and(|wanted| offset == 0 && wanted.bytes == 0) {
                file += 1;
            }
            let Some(wanted) = files.get(file).map(|file| file.bytes) else { return Ok(None) };
            let bytes = {
                let snapshot = snapshot.clone();
                rt::run_blocking(move || snapshot.read(file, offset, bound!(SnapshotPiece, PIECE_BYTES)))
                    .await?
                    .map_err(io::Error::other)?
            };
            if bytes.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a snapshot's file is cut short"));
            }
            let end = offset + bytes.len() as u64;
            let chunk = SnapshotChunk { file: file as u32, offset, bytes };
            let frame = frames::frame(|out| codec::encode_into(&chunk, out));
            let next =
                if end >= wanted { At::File { file: file + 1, offset: 0 } } else { At::File { file, offset: end } };
            Ok(Some((frame, next)))
        }
    })
}

/// Receives a snapshot, checks it, and has openraft install it. Answers this node's vote.
pub async fn receive_snapshot(node: &Node, mut frames: FrameReader) -> io::Result<Vote> {
    // One at a time: the disk has room for one, and openraft installs one.
    let Ok(_only) = node.receiving.try_acquire() else {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another snapshot is on its way in"));
    };
    let head = frames.next_within(IDLE).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let head: SnapshotHead = codec::decode(&head).map_err(io::Error::other)?;
    let manifest: Manifest = codec::decode(&head.manifest).map_err(io::Error::other)?;
    let store = node.store.clone();
    let mut receiving = rt::run_blocking(move || store.receive_snapshot(manifest)).await?.map_err(io::Error::other)?;
    while let Some(frame) = frames.next_within(IDLE).await? {
        let chunk: SnapshotChunk = codec::decode(&frame).map_err(io::Error::other)?;
        receiving = rt::run_blocking(move || {
            receiving.write(chunk.file as usize, chunk.offset, &chunk.bytes).map(|()| receiving)
        })
        .await?
        .map_err(io::Error::other)?;
    }
    let received = rt::run_blocking(move || receiving.finish()).await?.map_err(io::Error::other)?;
    let snapshot = state_machine::received(received)?;
    let answer = node.raft.install_full_snapshot(head.vote.into(), snapshot).await;
    answer.map(|answer| answer.vote).map_err(|error| io::Error::other(error.to_string()))
}
