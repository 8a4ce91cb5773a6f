//! From due to delivered: a burst due within one second, and a steady pace. Webhooks go to a local receiver, outcomes
//! are recorded, and the ledger is compared with what arrived before there is a figure.

use std::time::Duration;

use anyhow::{Result, ensure};
use campanile_model::{Millis, Timestamp};
use tokio::time::sleep;

use super::BenchOptions;
use super::tasks::{Placed, submit_due};
use crate::account::{self, Runs};
use crate::check::{judge, runs_to_read_closely};
use crate::clock;
use crate::cluster::ProcessCluster;
use crate::latency::Latencies;
use crate::receiver::{Delivery, Receiver};
use crate::report::{Floor, Row};
use crate::settle;

pub const BURST: &str = "deliver_http_20k";
pub const LARGE_BURST: &str = "deliver_http_100k";
pub const PACED: &str = "paced_lateness";
/// For putting tasks in place before the first is due, at a tenth of the rate that batches have to reach.
const PLACING_PER_SECOND: u64 = 3000;
const SETTLE: Duration = Duration::from_secs(60);

pub async fn burst(options: &BenchOptions) -> Result<Vec<Row>> {
    burst_of(options, BURST, options.size(20_000, 5_000)).await
}

pub async fn large_burst(options: &BenchOptions) -> Result<Vec<Row>> {
    burst_of(options, LARGE_BURST, options.size(100_000, 20_000)).await
}

async fn burst_of(options: &BenchOptions, name: &str, count: u64) -> Result<Vec<Row>> {
    // Spread evenly over one second.
    let outcome = fire(options, count, |n| Millis(n * 1000 / count)).await?;
    let seconds = outcome.last_us as f64 / 1e6;
    let row = Row::new(name, count as f64 / seconds, "deliveries/s").latencies(&outcome.lateness);
    let row = options.floor(row, Floor::AtLeast(8000.0));
    Ok(vec![
        row.detail(format!("{count} due in one second, the last delivered {seconds:.2} s after the first was due")),
    ])
}

pub async fn paced(options: &BenchOptions) -> Result<Vec<Row>> {
    const PER_SECOND: u64 = 1000;
    let seconds: u64 = options.size(30, 5);
    let outcome = fire(options, PER_SECOND * seconds, |n| Millis(n * 1000 / PER_SECOND)).await?;
    let p99_ms = outcome.lateness.p99_ms();
    let row = Row::new(PACED, p99_ms, "ms (p99)").latencies(&outcome.lateness).floor(Floor::AtMost(20.0));
    Ok(vec![row.detail(format!("{PER_SECOND}/s for {seconds} s, received minus due"))])
}

pub struct Outcome {
    pub lateness: Latencies,
    /// Arrival of the last delivery after the first due instant.
    last_us: i64,
    /// Processor time of all nodes from the first due instant until all had ended.
    pub cpu: Duration,
}

async fn fire(options: &BenchOptions, count: u64, offset: impl Fn(u64) -> Millis) -> Result<Outcome> {
    fire_on(&options.cluster().await?, count, offset).await
}

/// Puts tasks in place, due at `offset(n)` after an instant ahead, and waits until all have fired and ended.
pub async fn fire_on(cluster: &ProcessCluster, count: u64, offset: impl Fn(u64) -> Millis) -> Result<Outcome> {
    let receiver = Receiver::start()?;
    let placing = Duration::from_secs(2 + count / PLACING_PER_SECOND);
    let start = clock::now().saturating_add(placing.into());
    let times: Vec<Timestamp> = (0..count).map(|n| start.saturating_add(offset(n))).collect();
    let last = times.iter().max().copied().unwrap_or(start);
    let placed = submit_due(&cluster.endpoints(), &receiver.url(), times, placing).await?;
    ensure!(clock::now() < start, "putting {count} tasks in place took longer than {} s", placing.as_secs());

    sleep(start.since(clock::now()).to_std()).await;
    let cpu_before = cluster.cpu()?;
    let due_in = last.since(clock::now()).to_std();
    receiver.wait_occurrences(placed.tasks.len(), due_in + SETTLE).await;
    settle::runs_ended(cluster, SETTLE).await?;
    let cpu = cluster.cpu()?.saturating_sub(cpu_before);
    verify(cluster, &receiver, &placed).await?;
    let mut lateness = Latencies::default();
    let deliveries = receiver.received().deliveries;
    for delivery in &deliveries {
        lateness.record_us(delivery.lateness_us());
    }
    let last_us = deliveries.iter().map(|delivery: &Delivery| delivery.received_at.after(start)).max();
    Ok(Outcome { lateness, last_us: last_us.unwrap_or_default(), cpu })
}

/// No figure without the promise: every occurrence once, and no repeat where nothing had failed.
async fn verify(cluster: &ProcessCluster, receiver: &Receiver, placed: &Placed) -> Result<()> {
    let received = receiver.received();
    let close = Runs::Only(runs_to_read_closely(&received));
    let committed = account::read(&cluster.client()?, &placed.tasks, &close).await?;
    let verdict = judge(&placed.expected, &committed, &received);
    ensure!(verdict.holds(), "not as promised:\n{verdict}");
    ensure!(verdict.repeats == 0, "{} deliveries were repeated without a fault", verdict.repeats);
    Ok(())
}
