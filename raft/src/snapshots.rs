//! When to take a snapshot: after so many bytes of log, or so much time.
//!
//! Only then can the log before it go, so this is also what bounds the log and the time a restart replays.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::SnapshotPolicy;
use crate::metrics::Metrics;
use crate::state_machine::Raft;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Triggers snapshots until the node stops.
pub async fn run(
    raft: Raft,
    policy: SnapshotPolicy,
    clock: Clock,
    metrics: Arc<Metrics>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut taken_at = clock.instant();
    let mut bytes_then = metrics.log_bytes.get();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = clock.sleep(LOOK) => {}
        }
        let (applied, snapshot) = {
            let metrics = raft.data_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.last_applied, metrics.snapshot)
        };
        let bytes = metrics.log_bytes.get();
        let now = clock.instant();
        let much = bytes - bytes_then >= policy.log_bytes;
        let long = now.saturating_duration_since(taken_at) >= policy.interval && applied > snapshot;
        if much || long {
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
            (taken_at, bytes_then) = (now, bytes);
        }
    }
}
