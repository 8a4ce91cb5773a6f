//! Applies committed entries to the store, makes it durable, and installs snapshots of others.
//!
//! One task owns the store's only writer and runs where blocking harms nobody. Entries are applied in chunks: one
//! engine batch each, written together with the mark (how far, and the membership there). Only after a batch is written
//! are its effects published and its proposers answered.
//!
//! What openraft calls building a snapshot is making the state durable: the log before that may go, and whoever needs it
//! gets the state instead. The files that such a node is sent are made when it is sent them (see `network::snapshot`):
//! in most lives of a cluster nobody ever is.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use campanile_model::codec;
use campanile_model::{Reply, bound, planted};
use campanile_store::{Applier, Received, Store, StoreError};

use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::effects::Publisher;
use crate::fatal::Fatal;
use crate::form::{Mark, RecordError, record_bytes};
use crate::metrics::Metrics;
use crate::rt;
use crate::types::{Applied, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Entries applied in one step, before those after them are looked at: this many or this large.
const CHUNK_ENTRIES: usize = 256;
const CHUNK_BYTES: usize = 4 << 20;
/// A batch that has grown to this is written.
const BATCH_BYTES: usize = 4 << 20;

/// A snapshot as openraft passes it around: a handle on files, never the bytes.
pub enum SnapshotData {
    /// This node's state as it is when it is sent, at this index or a later one.
    Own { store: Store, at_least: u64 },
    /// One received whole, to be installed.
    Received(Box<Received>),
}

/// How far a state is, and who the members are there.
#[derive(Clone, Debug, Default)]
pub struct Position {
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
}

impl Position {
    /// Reads the mark a state carries; an empty state has none.
    pub fn decode(mark: Option<&[u8]>) -> Result<Self, RecordError> {
        let Some(mark) = mark.filter(|mark| !mark.is_empty()) else { return Ok(Self::default()) };
        let mark: Mark = codec::decode(mark)?;
        Ok(Self { applied: mark.applied(), membership: mark.membership()? })
    }

    fn encode(&self) -> Vec<u8> {
        codec::encode(&Mark::new(self.applied, &self.membership))
    }

    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    pub fn index(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.index)
    }
}

/// How far the state is known to be durable. Clones are the same.
#[derive(Clone)]
struct Durable(Arc<Mutex<Position>>);

impl Durable {
    fn new(position: Position) -> Self {
        Self(Arc::new(Mutex::new(position)))
    }

    fn get(&self) -> Position {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Never back: a snapshot may have been installed while the state before it was made durable.
    fn advance(&self, position: Position) {
        let mut durable = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if position.index() > durable.index() {
            *durable = position;
        }
    }
}

/// Work for the task that owns the writer.
enum Work {
    Apply { chunk: Vec<EntryResponder<TypeConfig>>, done: oneshot::Sender<io::Result<()>> },
    Install { received: Box<Received>, done: oneshot::Sender<io::Result<()>> },
}

/// openraft's state machine: hands work to the task that owns the writer.
#[derive(Clone)]
pub struct StateMachine {
    store: Store,
    work: mpsc::Sender<Work>,
    position: watch::Receiver<Position>,
    durable: Durable,
    metrics: Arc<Metrics>,
    fatal: Fatal,
    /// The writer's. After the work, whose end ends it.
    _thread: Arc<rt::Dedicated>,
}

impl StateMachine {
    /// Takes the store's writer and starts its task. The store is durable as it is.
    pub fn start(
        store: Store,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        fatal: Fatal,
    ) -> Result<Self, crate::error::StartError> {
        let (_, mark) = store.mark()?;
        let position = Position::decode(mark.as_deref()).map_err(invalid)?;
        let (sender, receiver) = watch::channel(position.clone());
        let durable = Durable::new(position.clone());
        let (work, queue) = mpsc::channel(1);
        let writer = Writer {
            applier: store.applier(),
            store: store.clone(),
            position,
            published: sender,
            durable: durable.clone(),
            publisher,
            metrics: metrics.clone(),
        };
        let thread = Arc::new(rt::spawn_dedicated("campanile-apply", writer.run(queue))?);
        Ok(Self { store, work, position: receiver, durable, metrics, fatal, _thread: thread })
    }

    /// How far this node has applied, as soon as it has.
    pub fn position(&self) -> watch::Receiver<Position> {
        self.position.clone()
    }

    async fn submit(&self, work: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Work) -> io::Result<()> {
        let (done, finished) = oneshot::channel();
        let stopped = || io::Error::other("the state's writer has stopped");
        let result = match self.work.send(work(done)).await {
            Ok(()) => finished.await.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(stopped()),
        };
        result.map_err(|error| self.fail(error))
    }

    fn fail(&self, error: io::Error) -> io::Error {
        self.fatal.raise(format!("state: {error}"));
        error
    }
}

fn io_error(error: StoreError) -> io::Error {
    match error {
        StoreError::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

fn invalid(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What openraft is told of a state that is durable so far.
fn own(store: &Store, durable: &Position) -> Snapshot {
    Snapshot { meta: durable.meta(), snapshot: SnapshotData::Own { store: store.clone(), at_least: durable.index() } }
}

/// What openraft is told of a snapshot that was received.
pub fn received(received: Received) -> io::Result<Snapshot> {
    let position = Position::decode(Some(&received.manifest().mark)).map_err(invalid)?;
    Ok(Snapshot { meta: position.meta(), snapshot: SnapshotData::Received(Box::new(received)) })
}

/// Receives a snapshot from this very process.
fn copy_in(store: &Store, snapshot: &campanile_store::Snapshot) -> Result<Received, StoreError> {
    const PIECE_BYTES: usize = 1 << 20;
    let mut receiving = store.receive_snapshot(snapshot.manifest().clone())?;
    for file in 0..snapshot.manifest().files.len() {
        let mut offset = 0;
        loop {
            let piece = snapshot.read(file, offset, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            receiving.write(file, offset, &piece)?;
            offset += piece.len() as u64;
        }
    }
    receiving.finish()
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let position = self.position.borrow().clone();
        Ok((position.applied, position.membership))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let first = first?;
            let mut bytes = record_bytes(&first.0);
            let mut chunk = vec![first];
            // As many more as are there without waiting.
            while chunk.len() < bound!(ApplyEntries, CHUNK_ENTRIES) && bytes < CHUNK_BYTES {
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let next = next?;
                bytes += record_bytes(&next.0);
                chunk.push(next);
            }
            self.submit(|done| Work::Apply { chunk, done }).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: self.store.clone(),
            durable: self.durable.clone(),
            metrics: self.metrics.clone(),
            fatal: self.fatal.clone(),
        }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        match snapshot {
            SnapshotData::Received(received) => self.submit(|done| Work::Install { received, done }).await,
            SnapshotData::Own { store: source, at_least } => {
                // openraft puts back a snapshot that the state is behind. Our state never is; in openraft's own tests it
                // is that of another.
                let store = self.store.clone();
                let copied = rt::run_blocking(move || copy_in(&store, &*source.snapshot(at_least)?)).await?;
                let received = copied.map_err(io_error)?;
                self.submit(|done| Work::Install { received: Box::new(received), done }).await
            }
        }
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let durable = self.durable.get();
        Ok(durable.applied.is_some().then(|| own(&self.store, &durable)))
    }
}

/// Makes the state durable while applying goes on.
pub struct SnapshotBuilder {
    store: Store,
    durable: Durable,
    metrics: Arc<Metrics>,
    fatal: Fatal,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (store, started) = (self.store.clone(), clock::instant());
        let flushed = rt::run_blocking(move || store.flush()).await?.map_err(io_error);
        let (index, mark) = flushed.inspect_err(|error| self.fatal.raise(format!("snapshot: {error}")))?;
        let took = clock::instant().saturating_duration_since(started);
        self.metrics.snapshots_taken.add(1);
        self.metrics.snapshot_micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));

        let position = Position::decode(mark.as_deref()).map_err(invalid)?;
        self.durable.advance(position.clone());
        // The log after what was made for a node before this may go now.
        let store = self.store.clone();
        rt::run_blocking(move || store.release_snapshots_before(index)).await?;
        Ok(own(&self.store, &position))
    }
}

/// The task that owns the writer.
struct Writer {
    applier: Applier,
    store: Store,
    position: Position,
    published: watch::Sender<Position>,
    durable: Durable,
    publisher: Publisher,
    metrics: Arc<Metrics>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        while let Some(work) = queue.recv().await {
            // Whoever waits for `done` may have been cancelled; the work is done all the same.
            match work {
                Work::Apply { chunk, done } => drop(done.send(self.apply(chunk))),
                Work::Install { received, done } => drop(done.send(self.install(*received))),
            }
        }
        self.publisher.close();
    }

    fn apply(&mut self, chunk: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut answers = Vec::with_capacity(chunk.len());
        for (entry, responder) in chunk {
            let replies = self.apply_entry(&entry, responder.is_some())?;
            self.position.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                answers.push((responder, replies));
            }
            self.metrics.applied_entries.add(1);
            if self.applier.pending_bytes() >= bound!(ApplyBatch, BATCH_BYTES) {
                self.commit(&mut answers)?;
            }
        }
        self.commit(&mut answers)
    }

    /// `is_asked`: somebody on this node waits for the replies.
    fn apply_entry(&mut self, entry: &Entry, is_asked: bool) -> io::Result<Vec<Reply>> {
        match &entry.payload {
            EntryPayload::Blank => Ok(Vec::new()),
            EntryPayload::Normal(_) if planted!(EntrySkipped) && !is_asked && entry.log_id.index % 50 == 7 => {
                Ok(Vec::new())
            }
            EntryPayload::Normal(proposal) => {
                let commands = proposal.decode().map_err(|error| invalid(error.into()))?;
                let replies = self.applier.apply(entry.log_id.index, &commands).map_err(io_error)?;
                #[cfg(madsim)]
                campanile_model::sim::applied(
                    entry.log_id.index,
                    crate::types::term_of(&entry.log_id),
                    &commands,
                    &replies,
                );
                Ok(replies)
            }
            EntryPayload::Membership(membership) => {
                self.position.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Ok(Vec::new())
            }
        }
    }

    fn commit(&mut self, answers: &mut Vec<(ApplyResponder<TypeConfig>, Vec<Reply>)>) -> io::Result<()> {
        if self.position.applied == self.published.borrow().applied {
            return Ok(());
        }
        let effects = self.applier.commit(self.position.index(), &self.position.encode()).map_err(io_error)?;
        self.metrics.applied_batches.add(1);
        self.publisher.publish(effects);
        self.published.send_replace(self.position.clone());
        for (responder, replies) in answers.drain(..) {
            responder.send(Applied(replies));
        }
        Ok(())
    }

    fn install(&mut self, received: Received) -> io::Result<()> {
        self.store.install_snapshot(received).map_err(io_error)?;
        let (_, mark) = self.store.mark().map_err(io_error)?;
        self.position = Position::decode(mark.as_deref()).map_err(invalid)?;
        self.durable.advance(self.position.clone());
        self.metrics.snapshots_installed.add(1);
        self.publisher.publish_gap();
        self.published.send_replace(self.position.clone());
        Ok(())
    }
}
