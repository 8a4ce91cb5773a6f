//! Waiting for work to come to rest, so that what is read afterwards will not change.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::cluster::ProcessCluster;

/// Waits until the leader knows of no run that has not ended.
pub async fn runs_ended(cluster: &ProcessCluster, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let live = cluster.leader_view(left).await?.live_runs;
        if live == 0 {
            return Ok(());
        }
        ensure!(!left.is_zero(), "{live} runs have not ended after {} ms", within.as_millis());
        sleep(Duration::from_millis(20)).await;
    }
}
