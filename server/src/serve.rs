//! `campanile serve`: a node as a process. Signals end it, and so does anything fatal.

use std::sync::Arc;
use std::time::Duration;

use campanile_raft::{Clock, ReplicaConfig, SnapshotPolicy, Timing};
use campanile_store::engine::FsDisk;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::ServeConfig;
use crate::node::{Node, NodeConfig, NodeError};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("data directory {path}: {source}")]
    Data { path: String, source: std::io::Error },
    #[error("signals cannot be handled: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Runs a node until SIGTERM or SIGINT, then drains it. A second signal ends it at once, and so does anything fatal.
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let disk = FsDisk::open(&config.data)
        .map_err(|source| ServeError::Data { path: config.data.display().to_string(), source })?;
    let node_id = config.node;
    let node_config = node_config(config);
    let start = Node::start(node_config, Arc::new(disk), Clock::system());
    let mut node = tokio::select! {
        node = start => node?,
        // An empty node may wait long for the others; nothing is lost by ending it.
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tracing::info!(node = %node_id, api = %node.api_address(), "serving");
    tokio::select! {
        error = node.fatal() => return Err(error.into()),
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    tokio::select! {
        ended = node.shutdown() => ended?,
        _ = terminate.recv() => tracing::warn!("second signal: stopping at once"),
        _ = interrupt.recv() => tracing::warn!("second signal: stopping at once"),
    }
    Ok(())
}

fn node_config(config: ServeConfig) -> NodeConfig {
    NodeConfig {
        listen: config.listen,
        replica: ReplicaConfig {
            join: config.join,
            timing: Timing {
                heartbeat: config.heartbeat.to_std(),
                election_min: config.election_min.to_std(),
                election_max: config.election_max.to_std(),
                ..Timing::default()
            },
            snapshots: SnapshotPolicy {
                interval: config.snapshot_interval.to_std(),
                ..SnapshotPolicy::after(config.snapshot_log_bytes)
            },
            max_clock_skew: config.max_clock_skew.to_std(),
            ..ReplicaConfig::new(config.node, config.cluster, config.peer, config.advertise_api.unwrap_or_default())
        },
        catch_up_rate: config.catch_up_rate,
        http_connections: config.http_connections,
        http_connections_per_host: config.http_connections_per_host,
        webhook_secret: config.webhook_secret,
        min_free_disk_bytes: config.min_free_disk,
        drain_timeout: Duration::from_millis(config.drain_timeout.0),
    }
}
