//! A node, embeddable: started on a disk and a clock, it replicates, answers, conducts when it leads, and delivers.
//! Nothing here is global, so many nodes may live in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use campanile_model::{NodeId, planted};
use campanile_raft::{Clock, MembershipError, Replica, ReplicaConfig, Role, StartError, rt};
use campanile_store::StoreError;
use campanile_store::engine::Disk;
use tokio::sync::{mpsc, oneshot};

use crate::api::{self, ApiState};
use crate::conductor::{self, ConductorConfig};
use crate::dispatcher::{Dispatcher, DispatcherConfig};
use crate::drain::{self, Drainer};
use crate::http_server;
use crate::metrics::Metrics;
use crate::plans::Plans;
use crate::prepare::Preparer;

/// A node heard within this time can be handed leadership.
const HEARD_LATELY: Duration = Duration::from_secs(1);
/// How often gauges are refreshed and the disk's space is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Everything a node is told.
#[derive(Clone)]
pub struct NodeConfig {
    /// Address the HTTP API listens on.
    pub listen: String,
    pub replica: ReplicaConfig,
    /// Overdue timers handled per second once a leader takes over.
    pub catch_up_rate: u32,
    /// Webhooks in flight at once, in all and to one host.
    pub http_connections: usize,
    pub http_connections_per_host: usize,
    /// Signs webhooks whose target has no secret of its own.
    pub webhook_secret: Option<String>,
    /// Writes are refused while the disk has less free than this.
    pub min_free_disk_bytes: u64,
    /// How long the attempts that it has been given may take once the node drains.
    pub drain_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error(transparent)]
    Start(#[from] StartError),
    /// The disk failed or lied, or consensus stopped: the node must not go on.
    #[error("{0}")]
    Fatal(String),
}

/// A running node. Dropping it does not stop it; [`Node::shutdown`] does.
pub struct Node {
    config: NodeConfig,
    replica: Replica,
    api: SocketAddr,
    /// Of the dispatcher, and then of the API.
    drain_dispatcher: Drainer,
    drain_api: Drainer,
    draining: Arc<AtomicBool>,
    dispatcher_ended: oneshot::Receiver<()>,
    server_ended: oneshot::Receiver<()>,
    fatal: mpsc::Receiver<String>,
}

impl Node {
    /// Starts a node on its disk. Returns once it listens; it may still have no leader.
    pub async fn start(mut config: NodeConfig, disk: Arc<dyn Disk>, clock: Clock) -> Result<Self, NodeError> {
        let listen = config.listen.clone();
        let listener = rt::Listener::bind(&listen)
            .await
            .map_err(|source| NodeError::Listen { address: listen.clone(), source })?;
        let address = listener.local_addr().map_err(|source| NodeError::Listen { address: listen, source })?;
        if config.replica.api_advertise.is_empty() {
            config.replica.api_advertise = address.to_string();
        }
        let node = config.replica.node;
        let plans = Arc::new(Plans::default());
        let metrics = Arc::new(Metrics::default());
        let preparer = Arc::new(Preparer::new(plans.clone(), rt::rng()));
        let replica = Replica::start(config.replica.clone(), disk.clone(), preparer, clock.clone()).await?;

        let (drain_dispatcher, dispatcher_drain) = drain::channel();
        let (drain_api, api_drain) = drain::channel();
        let draining = Arc::new(AtomicBool::new(false));
        let disk_full = Arc::new(AtomicBool::new(false));
        let (fatal_sender, fatal) = mpsc::channel(4);

        let dispatcher = Dispatcher::new(
            DispatcherConfig {
                node,
                connections: config.http_connections,
                connections_per_host: config.http_connections_per_host,
                webhook_secret: config.webhook_secret.clone(),
                tick: config.replica.timing.tick,
            },
            replica.clone(),
            clock.clone(),
            metrics.clone(),
            rt::rng(),
        );
        let dispatcher_ended = supervise("dispatcher", dispatcher.run(dispatcher_drain), fatal_sender.clone());
        let conductor = conductor::run(
            ConductorConfig { node, catch_up_rate: config.catch_up_rate, tick: config.replica.timing.tick },
            replica.clone(),
            clock.clone(),
            plans.clone(),
            metrics.clone(),
        );
        supervise("conductor", conductor, fatal_sender.clone());
        rt::spawn(watch_gauges(
            node,
            replica.clone(),
            disk,
            clock.clone(),
            metrics.clone(),
            disk_full.clone(),
            config.min_free_disk_bytes,
        ));
        let watched = replica.clone();
        rt::spawn(async move {
            let reason = watched.fatal().await;
            let _ = fatal_sender.send(reason).await;
        });

        let state = ApiState {
            node,
            replica: replica.clone(),
            clock: clock.clone(),
            plans,
            metrics: metrics.clone(),
            batches: api::Admission::default(),
            disk_full,
            draining: draining.clone(),
        };
        let (server_done, server_ended) = oneshot::channel();
        let server = http_server::serve(listener, api::router(state), metrics, api_drain);
        rt::spawn(async move {
            server.await;
            let _ = server_done.send(());
        });
        Ok(Self {
            config,
            replica,
            api: address,
            drain_dispatcher,
            drain_api,
            draining,
            dispatcher_ended,
            server_ended,
            fatal,
        })
    }

    /// The address the API listens on, with the port the system chose.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Ends when the node cannot go on.
    pub async fn fatal(&mut self) -> NodeError {
        match self.fatal.recv().await {
            Some(message) => NodeError::Fatal(message),
            None => std::future::pending().await,
        }
    }

    /// Drains and stops: leadership and shards go to other nodes, what this one has been given to deliver gets its time.
    /// Requests are answered until then, so that whoever sends them has time to notice that the node is not ready.
    ///
    /// Ends at once with what is fatal, if anything is meanwhile: a node without consensus neither votes nor records
    /// outcomes, and the sooner it is started again the sooner there may be a majority.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        let Self { config, replica, drain_dispatcher, drain_api, draining, .. } = self;
        let (dispatcher_ended, server_ended, mut fatal) = (self.dispatcher_ended, self.server_ended, self.fatal);
        draining.store(true, Ordering::Relaxed);
        replica.drain();
        let drained = async {
            hand_over(&replica).await;
            drain_dispatcher.drain();
            if rt::timeout(config.drain_timeout, dispatcher_ended).await.is_none() {
                tracing::warn!(after = ?config.drain_timeout, "attempts were left behind; they will be repeated");
            }
            drain_api.drain();
            let _ = server_ended.await;
            // It may have been elected while it drained.
            hand_over(&replica).await;
        };
        tokio::select! {
            biased;
            Some(message) = fatal.recv(), if !planted!(DrainIgnoresFailure) => return Err(NodeError::Fatal(message)),
            () = drained => {}
        }
        replica.shutdown().await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Leadership goes to the voter that is up and has the most of the log.
async fn hand_over(replica: &Replica) {
    let status = replica.status();
    if status.leader != Some(replica.node_id()) {
        return;
    }
    let up: BTreeMap<NodeId, u64> = status
        .nodes
        .iter()
        .filter(|node| node.role == Role::Follower && node.last_heard.is_some_and(|ago| ago < HEARD_LATELY))
        .filter_map(|node| node.lag.map(|lag| (node.id, lag)))
        .collect();
    let Some((&to, _)) = up.iter().min_by_key(|(_, lag)| **lag) else { return };
    match rt::timeout(Duration::from_secs(3), replica.transfer_leader(to)).await {
        Some(Ok(())) => tracing::info!(%to, "leadership handed over"),
        Some(Err(error)) => report_hand_over(&error),
        None => tracing::warn!(%to, "leadership was not taken over in time"),
    }
}

fn report_hand_over(error: &MembershipError) {
    tracing::warn!(%error, "leadership could not be handed over");
}

/// Runs a part of the node; its error is fatal to the whole.
fn supervise(
    name: &'static str,
    part: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    fatal: mpsc::Sender<String>,
) -> oneshot::Receiver<()> {
    let (done, ended) = oneshot::channel();
    rt::spawn(async move {
        if let Err(error) = part.await {
            // A full channel means that another part has failed already.
            let _ = fatal.try_send(format!("{name}: {error}"));
        }
        let _ = done.send(());
    });
    ended
}

/// Keeps gauges current, and refuses writes while the disk is nearly full.
async fn watch_gauges(
    node: NodeId,
    replica: Replica,
    disk: Arc<dyn Disk>,
    clock: Clock,
    metrics: Arc<Metrics>,
    disk_full: Arc<AtomicBool>,
    min_free_bytes: u64,
) {
    loop {
        metrics.show_status(node, &replica.status());
        if let Ok(counts) = replica.store().view().counts() {
            metrics.tasks.set(counts.tasks as i64);
            metrics.live_runs.set(counts.live_runs as i64);
        }
        match disk.space() {
            Ok(space) => {
                metrics.disk_free_bytes.set(i64::try_from(space.free_bytes).unwrap_or(i64::MAX));
                let full = space.free_bytes < min_free_bytes;
                if disk_full.swap(full, Ordering::Relaxed) != full {
                    if full {
                        tracing::error!(
                            free_bytes = space.free_bytes,
                            min_free_bytes,
                            "disk nearly full: writes are refused"
                        );
                    } else {
                        tracing::info!(free_bytes = space.free_bytes, "disk has room again: writes are taken");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the disk's free space cannot be read"),
        }
        clock.sleep(WATCH_EVERY).await;
    }
}
