//! What a task costs while it waits: resident memory of a node, bytes on its disk, and time when a node restarts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tokio::time::sleep;

use super::BenchOptions;
use super::growth::FLAT;
use super::tasks::{BATCH, batch_json, far};
use crate::clock;
use crate::cluster::{NodeProcess, ProcessCluster, disk_bytes};
use crate::load::{Endpoint, Load};
use crate::report::{Floor, Row};

pub const RSS: &str = "pending_rss";
pub const DISK: &str = "pending_disk";
pub const RESTART: &str = "restart";
const URL: &str = "http://127.0.0.1:9000/hook";
const CONNECTIONS: usize = 6;
/// A cluster whose disk use has not changed for this long, nor its memory by more than [`RSS_NOISE`], has settled: it
/// has written out, merged, purged and given back what it is going to.
const STEADY: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(60);
const READY: Duration = Duration::from_secs(60);
const MIB: f64 = (1 << 20) as f64;
/// Of all nodes together, in bytes.
const RSS_NOISE: u64 = MIB as u64;

pub async fn measure(options: &BenchOptions) -> Result<Vec<Row>> {
    let sizes: &[u64] = match (options.quick, options.full) {
        (true, _) => &[20_000, 100_000],
        (false, false) => &[100_000, 1_000_000],
        (false, true) => &[100_000, 1_000_000, 10_000_000],
    };
    let mut cluster = options.cluster().await?;
    let (mut rows, mut rss) = (Vec::new(), Vec::new());
    let mut placed = 0;
    for (at, size) in sizes.iter().enumerate() {
        fill(&cluster, placed, *size).await?;
        placed = *size;
        settle(&cluster).await?;
        // The largest size has the plain name; the smaller ones say theirs.
        let is_last = at + 1 == sizes.len();
        let name = |name: &str| if is_last { name.to_owned() } else { format!("{name}_{}k", size / 1000) };
        let rss_mib = largest_rss_mib(&cluster)?;
        let disk_mib = largest_disk_mib(&cluster)?;
        let rss_row = Row::new(name(RSS), rss_mib, "MiB").detail(format!("largest node, {size} tasks pending"));
        let most = if options.full { 512.0 } else { 300.0 };
        rows.push(if is_last { options.floor(rss_row, Floor::AtMost(most)) } else { rss_row });
        let disk_row = Row::new(name(DISK), disk_mib * MIB / *size as f64, "B/task");
        let disk_row = disk_row.detail(format!("{disk_mib:.0} MiB, Raft log included, {size} tasks pending"));
        // With fewer tasks most of it is the log, which is as large whatever is pending.
        rows.push(if is_last && options.full { options.floor(disk_row, Floor::AtMost(250.0)) } else { disk_row });
        rss.push(rss_mib);
    }
    if let (true, [smallest, .., largest]) = (options.full, &rss[..]) {
        let row = Row::new(format!("{RSS}_growth"), largest / smallest, "times");
        let row = row.detail(format!("{placed} tasks pending over {}", sizes[0]));
        rows.push(options.floor(row, Floor::AtMost(FLAT)));
    }
    let seconds = restart(&mut cluster).await?;
    let row = Row::new(RESTART, seconds, "s");
    let row = row.detail(format!("a follower with {placed} tasks pending, from kill -9 until it is ready"));
    rows.push(options.floor(row, Floor::AtMost(10.0)));
    Ok(rows)
}

pub fn largest_rss_mib(cluster: &ProcessCluster) -> Result<f64> {
    largest_mib(cluster, NodeProcess::rss_bytes)
}

pub fn largest_disk_mib(cluster: &ProcessCluster) -> Result<f64> {
    largest_mib(cluster, NodeProcess::disk_bytes)
}

/// The part of it that is the Raft log.
pub fn largest_log_mib(cluster: &ProcessCluster) -> Result<f64> {
    largest_mib(cluster, |node| disk_bytes(&node.data.join("log")))
}

fn largest_mib(cluster: &ProcessCluster, bytes: impl Fn(&NodeProcess) -> Result<u64>) -> Result<f64> {
    let bytes = cluster.ids().into_iter().map(|id| bytes(cluster.node(id))).collect::<Result<Vec<_>>>()?;
    Ok(bytes.into_iter().max().unwrap_or_default() as f64 / MIB)
}

/// Kills a follower and starts it again: seconds from the kill until it serves.
pub async fn restart(cluster: &mut ProcessCluster) -> Result<f64> {
    let leader = cluster.leader(READY).await?;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).context("a cluster of one")?;
    let killed = Instant::now();
    cluster.restart(follower, READY).await?;
    Ok(killed.elapsed().as_secs_f64())
}

/// Adds tasks until there are `size`.
pub async fn fill(cluster: &ProcessCluster, placed: u64, size: u64) -> Result<()> {
    let now = clock::now();
    let first = placed / BATCH as u64;
    let requests = size / BATCH as u64 - first;
    let within = Duration::from_secs(30 + size / 5000);
    let load = Load::closed(Endpoint::Batch, CONNECTIONS, requests, within);
    let body = move |n: u64| -> Bytes {
        let start = (first + n) * BATCH as u64;
        batch_json(URL, (start..start + BATCH as u64).map(|task| far(now, task)))
    };
    let submitted = load.run(&cluster.endpoints(), body).await?;
    ensure!(submitted.requests == requests, "{size} tasks were not in place after {} s", within.as_secs());
    Ok(())
}

/// Waits until no node's disk use and memory change any more, or long enough.
pub async fn settle(cluster: &ProcessCluster) -> Result<()> {
    let sum = |bytes: fn(&NodeProcess) -> Result<u64>| -> Result<u64> {
        cluster.ids().into_iter().map(|id| bytes(cluster.node(id))).sum()
    };
    let deadline = Instant::now() + SETTLE;
    let mut before = (0, 0);
    loop {
        let now = (sum(NodeProcess::disk_bytes)?, sum(NodeProcess::rss_bytes)?);
        let is_steady = now.0 == before.0 && now.1.abs_diff(before.1) <= RSS_NOISE;
        if is_steady || Instant::now() >= deadline {
            return Ok(());
        }
        before = now;
        sleep(STEADY).await;
    }
}
