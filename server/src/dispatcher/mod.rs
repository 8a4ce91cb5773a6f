//! Every node's delivering part: it sends the attempts that the log has given this node, and reports how they ended.
//!
//! 1. [`Ready`](Effect::AttemptReady) effects name attempts; those of this node are queued per receiving host.
//! 2. An attempt is sent only under a valid lease: the leader has confirmed this incarnation of the node, which has
//!    followed the log that far, and the lease it granted has not run out on this node's own monotonic clock. Without
//!    one nothing is sent, and what was queued is forgotten, because the log gives it to somebody else.
//! 3. Outcomes go back in batches ([`outcomes`]). The log refuses the ones whose token is stale.
//! 4. A node that drains waits until its shards have gone to others, and then sends what it was given before.
//!
//! It decides nothing: whether and when to try again is computed here, but happens only by the log.

mod backoff;
mod hosts;
mod outcomes;
mod tls;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use campanile_model::{
    NodeId, Run, RunId, RunState, TaskId, TaskSpec, TaskState, Token, bound, filled, planted, sometimes,
};
use campanile_raft::{Clock, Delivery, EffectStream, Replica, rt};
use campanile_store::{Effect, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::drain::Drain;
use crate::metrics::Metrics;
use hosts::Hosts;
use outcomes::Reporter;
use rand::rngs::SmallRng;
pub use webhook::WebhookClient;

/// Batches of effects that may wait; beyond that the tables are read again.
const EFFECTS: usize = 4096;
/// Attempts queued in memory; beyond that they stay in the tables and are read again when the queue has drained.
const QUEUE: usize = 100_000;
/// Rows read in one step when the tables are read.
const PAGE: usize = 4096;
/// Definitions read together.
const READ_AT_ONCE: usize = 512;
/// How long a node that drains, and has nothing in flight, waits until its shards have gone to others.
const SHARDS_MOVE_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct DispatcherConfig {
    pub node: NodeId,
    /// Attempts in flight at once.
    pub connections: usize,
    /// Attempts in flight at once to one host.
    pub connections_per_host: usize,
    /// Signs webhooks whose target has no secret of its own.
    pub webhook_secret: Option<String>,
    /// Between two looks at what nothing announces: the lease above all.
    pub tick: Duration,
}

/// One attempt to be sent.
pub(crate) struct Attempt {
    pub run: Run,
    pub spec: Arc<TaskSpec>,
    pub task_name: Arc<str>,
}

pub struct Dispatcher {
    config: DispatcherConfig,
    replica: Replica,
    clock: Clock,
    metrics: Arc<Metrics>,
    client: WebhookClient,
    effects: EffectStream,
    reports: Reporter,
    ended: mpsc::UnboundedSender<(RunId, Token)>,
    ended_inbox: mpsc::UnboundedReceiver<(RunId, Token)>,
    /// This node's fence, while the log says that this incarnation of it is up.
    serving: Option<Token>,
    hosts: Hosts,
    /// Aborts of the attempts in flight, by run.
    in_flight: BTreeMap<RunId, InFlight>,
    /// Attempts that have been made and are being reported: to the tables they are still to be made. As many as reports
    /// may wait, and those whose end was missed with the effects until the tables are read.
    reported: BTreeMap<RunId, Token>,
    /// Effects up to this index have been seen by reading the tables.
    read_until: u64,
    /// This node knows what the log says of it up to this index.
    known: u64,
    /// Attempts have been left in the tables; they are read again from the start when there is room.
    left_in_tables: bool,
    specs: Specs,
    draining: Option<Draining>,
}

/// What is to be waited for before the node stops, other than attempts in flight.
struct Draining {
    /// Shards are still this node's: whatever is fired for them is, too, and there would be no end to it.
    owns_shards: bool,
    /// It stops in spite of them from here on.
    until: Instant,
}

struct InFlight {
    token: Token,
    host: Arc<str>,
    /// Dropped or sent: the attempt is abandoned.
    abandon: oneshot::Sender<()>,
}

impl Dispatcher {
    pub fn new(config: DispatcherConfig, replica: Replica, clock: Clock, metrics: Arc<Metrics>, rng: SmallRng) -> Self {
        let effects = replica.subscribe("dispatcher", bound!(DispatcherEffects, EFFECTS));
        let reports = Reporter::start(replica.clone(), clock.clone(), metrics.clone());
        let (ended, ended_inbox) = mpsc::unbounded_channel();
        let client = WebhookClient::new(clock.clone(), rng, config.webhook_secret.clone());
        Self {
            hosts: Hosts::new(config.connections, config.connections_per_host),
            config,
            replica,
            clock,
            metrics,
            client,
            effects,
            reports,
            ended,
            ended_inbox,
            serving: None,
            in_flight: BTreeMap::new(),
            reported: BTreeMap::new(),
            read_until: 0,
            known: 0,
            left_in_tables: false,
            specs: Specs::default(),
            draining: None,
        }
    }

    /// Runs until it is told to drain: then it takes nothing more and ends when all that it has been given has ended and
    /// been reported.
    pub async fn run(mut self, mut drain: Drain) -> Result<(), StoreError> {
        self.look_at_own_row()?;
        let mut tick = tokio::time::interval(self.config.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_drained() {
            tokio::select! {
                biased;
                Some((run, token)) = self.ended_inbox.recv() => {
                    self.finish(run, token);
                    // Whatever else has ended meanwhile, before the next sends.
                    while let Ok((run, token)) = self.ended_inbox.try_recv() {
                        self.finish(run, token);
                    }
                    self.send()?;
                }
                event = self.effects.next() => match event {
                    Some(event) => {
                        self.follow(event)?;
                        self.send()?;
                    }
                    None => break,
                },
                () = drain.asked(), if self.draining.is_none() => self.drain()?,
                _ = tick.tick() => self.send()?,
            }
        }
        self.reports.close().await;
        Ok(())
    }

    /// From here on it waits for its shards to go to others, if there are any.
    fn drain(&mut self) -> Result<(), StoreError> {
        let others = self.replica.store().view().nodes()?.iter().any(|node| node.up && node.id != self.config.node);
        let patience = if others { SHARDS_MOVE_WITHIN } else { Duration::ZERO };
        let draining = Draining { owns_shards: self.owns_shards()?, until: self.clock.instant() + patience };
        let (in_flight, queued) = (self.in_flight.len(), self.hosts.queued());
        tracing::info!(in_flight, queued, owns_shards = draining.owns_shards, "draining");
        self.draining = Some(draining);
        Ok(())
    }

    fn owns_shards(&self) -> Result<bool, StoreError> {
        Ok(self.replica.store().view().shards()?.shards.iter().any(|shard| shard.owner == self.config.node))
    }

    fn is_drained(&self) -> bool {
        let Some(draining) = &self.draining else { return false };
        let nothing_more = if draining.owns_shards {
            self.clock.instant() >= draining.until
        } else {
            let given = self.hosts.queued() > 0 || self.left_in_tables;
            !given || !self.may_deliver()
        };
        self.in_flight.is_empty() && nothing_more
    }

    fn may_deliver(&self) -> bool {
        self.serving.is_some() && self.replica.may_deliver(self.known)
    }

    fn follow(&mut self, event: Delivery) -> Result<(), StoreError> {
        let effects = match event {
            Delivery::Effects(effects) => effects,
            Delivery::Lagged => {
                tracing::warn!("dispatcher fell behind the log; reading the tables again");
                return self.look_at_own_row();
            }
        };
        // Gathered, because their definitions are read together.
        let mut ready = Vec::new();
        for effect in &effects.list {
            match effect {
                // What the tables had when they were read is queued already, if it still is to be sent.
                Effect::AttemptReady { .. } if effects.index <= self.read_until => {}
                Effect::AttemptReady { run }
                    if run.owner == self.config.node && self.serving.is_some_and(|fence| run.token >= fence) =>
                {
                    ready.push(Run::clone(run));
                }
                Effect::RunEnded { run, token, owner } => {
                    self.reported.remove(run);
                    if *owner == self.config.node {
                        self.queue(std::mem::take(&mut ready))?;
                        self.abandon(*run, *token);
                    }
                }
                Effect::RetryArmed { run, .. } => drop(self.reported.remove(run)),
                Effect::NodeFenced { node, .. } if *node == self.config.node => {
                    ready.clear();
                    self.look_at_own_row()?;
                }
                Effect::ShardsMoved => {
                    if self.serving.is_none() {
                        self.look_at_own_row()?;
                    }
                    let owns_shards = self.draining.is_some() && self.owns_shards()?;
                    if let Some(draining) = &mut self.draining {
                        draining.owns_shards = owns_shards;
                    }
                }
                _ => {}
            }
        }
        self.known = self.known.max(effects.index);
        self.queue(ready)
    }

    /// Reads from the tables whether this incarnation is up, and if so every attempt that is this node's.
    fn look_at_own_row(&mut self) -> Result<(), StoreError> {
        let view = self.replica.store().view();
        self.known = view.index();
        let incarnation = self.replica.incarnation();
        let row = view.nodes()?.into_iter().find(|node| node.id == self.config.node);
        let serving = row.filter(|row| row.up && row.incarnation == incarnation).map(|row| row.fence);
        if serving != self.serving {
            match serving {
                Some(fence) => tracing::info!(%fence, "delivering"),
                None => tracing::warn!("not delivering: this node is not up in the cluster's tables"),
            }
            // Whatever is older than the fence is somebody else's now.
            let fence = serving.unwrap_or(Token(u64::MAX));
            let void: Vec<RunId> =
                self.in_flight.iter().filter(|(_, flight)| flight.token < fence).map(|(run, _)| *run).collect();
            for run in void {
                sometimes!(SendAbandoned);
                self.abandon(run, Token(u64::MAX));
            }
            self.serving = serving;
        }
        self.hosts.clear();
        self.read_tables()
    }

    /// Queues attempts that only the tables hold, as far as there is room.
    fn read_tables(&mut self) -> Result<(), StoreError> {
        let view = self.replica.store().view();
        self.read_until = view.index();
        let Some(fence) = self.serving else { return Ok(()) };
        let mut after = None;
        let mut reported = BTreeMap::new();
        self.left_in_tables = false;
        loop {
            let most = bound!(DispatcherPage, PAGE);
            let page = view.live_runs(after, most)?;
            let full = page.len() == most;
            after = page.last().map(|run| run.id);
            let mine = page.into_iter().filter(|run| {
                let mine = run.owner == self.config.node && run.state == RunState::Running && run.token >= fence;
                if mine && self.reported.get(&run.id) == Some(&run.token) && !planted!(ReportedMadeAgain) {
                    reported.insert(run.id, run.token);
                    return false;
                }
                mine && !self.hosts.is_queued(run.id) && !self.in_flight.contains_key(&run.id)
            });
            let mine = mine.collect();
            self.queue(mine)?;
            if !full {
                // The end of the others was missed.
                self.reported = reported;
                return Ok(());
            }
            if self.left_in_tables {
                return Ok(());
            }
        }
    }

    /// Queues attempts, as far as there is room; the others stay in the tables.
    fn queue(&mut self, mut runs: Vec<Run>) -> Result<(), StoreError> {
        runs.retain(|run| self.in_flight.get(&run.id).is_none_or(|flight| flight.token < run.token));
        let room = bound!(DispatcherQueue, QUEUE).saturating_sub(self.hosts.queued());
        if runs.len() > room {
            sometimes!(DispatcherFull);
            self.left_in_tables = true;
            runs.truncate(room);
        }
        let known = self.specs.get(&self.replica, &runs)?;
        for (run, known) in runs.into_iter().zip(known) {
            let Some((spec, host, name)) = known else {
                tracing::error!(run = %run.id, task = %run.task, version = run.version, "a run's version is gone");
                continue;
            };
            self.hosts.push(host, Attempt { run, spec, task_name: name });
        }
        filled!("dispatcher queue", self.hosts.queued(), bound!(DispatcherQueue, QUEUE));
        filled!("dispatcher miscounted", self.hosts.miscounted(self.in_flight.len()), 0);
        Ok(())
    }

    /// Starts as many attempts as bounds and lease allow.
    fn send(&mut self) -> Result<(), StoreError> {
        self.metrics.serving.set(i64::from(self.may_deliver()));
        if self.serving.is_none() || self.draining.as_ref().is_some_and(|draining| draining.owns_shards) {
            return Ok(());
        }
        if self.left_in_tables && self.hosts.queued() < bound!(DispatcherQueue, QUEUE) / 2 {
            self.read_tables()?;
        }
        while self.hosts.has_ready() && self.may_deliver() {
            let Some((host, attempt)) = self.hosts.pop() else { break };
            self.start(host, attempt);
        }
        filled!("dispatcher miscounted", self.hosts.miscounted(self.in_flight.len()), 0);
        self.metrics.attempts_queued.set(self.hosts.queued() as i64);
        self.metrics.attempts_in_flight.set(self.in_flight.len() as i64);
        Ok(())
    }

    fn start(&mut self, host: Arc<str>, attempt: Attempt) {
        let (run, token) = (attempt.run.id, attempt.run.token);
        let (abandon, mut abandoned) = oneshot::channel();
        if let Some(before) = self.in_flight.insert(run, InFlight { token, host, abandon }) {
            // An earlier attempt of the same run: void, since the log has given out a higher token.
            self.hosts.release(&before.host);
            let _ = before.abandon.send(());
        }
        let (client, reports, ended) = (self.client.clone(), self.reports.sender(), self.ended.clone());
        let (clock, metrics) = (self.clock.clone(), self.metrics.clone());
        rt::spawn(async move {
            let lateness_ms = clock.now().millis_from(attempt.run.due_at).max(0);
            if attempt.run.attempt == 1 {
                metrics.delivery_lateness.observe(lateness_ms as f64 / 1000.0);
            }
            let line = tokio::select! {
                biased;
                _ = &mut abandoned => {
                    if planted!(SentAfterEnd) {
                        clock.sleep(Duration::from_millis(200)).await;
                        client.deliver(&attempt).await;
                    }
                    None
                }
                line = async {
                    if planted!(SentTwice) {
                        client.deliver(&attempt).await;
                    }
                    client.deliver(&attempt).await
                } => Some(line),
            };
            if let Some(line) = line {
                metrics.attempts_ended(&line.result);
                // The channel is bounded, so a log that does not answer holds up deliveries, not memory.
                let _ = reports.send(line).await;
                let _ = ended.send((run, token));
            }
        });
    }

    /// An attempt in flight has ended by itself.
    fn finish(&mut self, run: RunId, token: Token) {
        // A later attempt of the run may be in flight by now.
        if self.in_flight.get(&run).is_some_and(|flight| flight.token == token)
            && let Some(flight) = self.in_flight.remove(&run)
        {
            self.hosts.release(&flight.host);
            self.reported.insert(run, token);
        }
    }

    /// The run ended otherwise: cancelled, or void.
    fn abandon(&mut self, run: RunId, token: Token) {
        if self.in_flight.get(&run).is_some_and(|flight| flight.token <= token)
            && let Some(flight) = self.in_flight.remove(&run)
        {
            self.hosts.release(&flight.host);
            let _ = flight.abandon.send(());
        }
        self.hosts.forget(run);
    }
}

/// Versions of tasks at hand, so that a burst of one task's runs reads its definition once.
#[derive(Default)]
struct Specs {
    entries: BTreeMap<(TaskId, u32), Known>,
}

type Known = (Arc<TaskSpec>, Arc<str>, Arc<str>);

impl Specs {
    /// Definitions kept; then all are forgotten, which costs one read each.
    const MAX: usize = 4096;

    /// Of each run: the definition, the host it goes to, and the task's name.
    fn get(&mut self, replica: &Replica, runs: &[Run]) -> Result<Vec<Option<Known>>, StoreError> {
        let key = |run: &Run| (run.task, run.version);
        let kept: Vec<Option<Known>> = runs.iter().map(|run| self.entries.get(&key(run)).cloned()).collect();
        let missing: BTreeSet<_> =
            runs.iter().zip(&kept).filter(|(_, kept)| kept.is_none()).map(|(run, _)| key(run)).collect();
        let missing = Vec::from_iter(missing);
        let mut read = BTreeMap::new();
        for versions in missing.chunks(READ_AT_ONCE) {
            let view = replica.store().view();
            let tasks: Vec<TaskId> = versions.iter().map(|(task, _)| *task).collect();
            let rows = view.specs(versions)?.into_iter().zip(view.tasks(&tasks)?);
            for (version, (spec, state)) in versions.iter().zip(rows) {
                if let Some(spec) = spec {
                    read.insert(*version, self.remember(*version, spec, state));
                }
            }
        }
        let known = |(run, kept): (&Run, Option<Known>)| kept.or_else(|| read.get(&key(run)).cloned());
        Ok(runs.iter().zip(kept).map(known).collect())
    }

    fn remember(&mut self, key: (TaskId, u32), spec: TaskSpec, state: Option<TaskState>) -> Known {
        let name = state.map_or_else(|| key.0.to_string(), |state| state.display_name());
        let host = webhook::host(&spec.target);
        let known: Known = (Arc::new(spec), host.into(), name.into());
        if self.entries.len() >= bound!(DispatcherSpecs, Self::MAX) {
            self.entries.clear();
        }
        // A one-shot is sent once: remembering it would only push others out.
        if !known.0.is_one_shot() {
            self.entries.insert(key, known.clone());
        }
        known
    }
}
