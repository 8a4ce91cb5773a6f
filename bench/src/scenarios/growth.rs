//! What an operation costs while ever more tasks are pending: from ten thousand to ten million. Everything but disk
//! has to cost the same, so each operation's last row is its cost at the largest size as a multiple of that at the
//! reference size.
//!
//! Writes are told in processor time of all nodes, which says more than rates on a machine with other work; reads in
//! milliseconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use campanile_client::{Client, TaskQuery};
use campanile_model::Millis;
use tokio::time::sleep;

use super::BenchOptions;
use super::pending::{fill, largest_rss_mib, restart, settle};
use super::tasks::{far, task_json};
use super::{deliver, failover};
use crate::clock;
use crate::cluster::ProcessCluster;
use crate::exposition::Exposition;
use crate::latency::Latencies;
use crate::load::{Endpoint, Load};
use crate::report::{Floor, Row};

/// The operations, and the unit of their cost.
const OPERATIONS: [(&str, &str); 8] = [
    ("submit", "CPU us/task"),
    ("fire", "CPU us/task"),
    ("list", "ms (p50)"),
    ("read", "ms (p50)"),
    ("memory", "MiB"),
    ("start_up", "s (mean)"),
    ("snapshot", "s (p50)"),
    ("failover", "s (p50)"),
];
/// Nobody is called: these tasks are due in days.
const URL: &str = "http://127.0.0.1:9000/hook";
/// The cost at the largest size, as a multiple of that at the reference size, that still counts as flat.
pub const FLAT: f64 = 1.3;
const PER_SECOND: u64 = 1000;
/// A snapshot is taken so long after the last one, if anything was written; so often that one can be waited for.
const SNAPSHOT_INTERVAL: &str = "20s";
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(180);
const WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);
const START_UPS: u64 = 20;

/// One row for each operation.
pub fn names() -> Vec<String> {
    OPERATIONS.iter().map(|(operation, _)| name(operation)).collect()
}

fn name(operation: &str) -> String {
    format!("growth_{operation}")
}

pub async fn measure(options: &BenchOptions) -> Result<Vec<Row>> {
    let sizes: &[u64] = options.size(&[10_000, 100_000, 1_000_000, 10_000_000], &[2000, 10_000, 50_000]);
    let reference = sizes[1];
    let mut cluster = options.cluster_with(&["--snapshot-interval", SNAPSHOT_INTERVAL]).await?;
    let mut placed = 0;
    let mut costs: BTreeMap<u64, BTreeMap<&str, Cost>> = BTreeMap::new();
    for size in sizes.iter().copied() {
        fill(&cluster, placed, size).await?;
        placed = size;
        settle(&cluster).await?;
        costs.insert(size, costs_of(options, &mut cluster).await.with_context(|| format!("{size} tasks pending"))?);
    }
    let mut rows = Vec::new();
    for (operation, unit) in OPERATIONS {
        for (size, costs) in &costs {
            let cost = costs.get(operation).with_context(|| format!("{operation} was not measured"))?;
            let row = Row::new(format!("{}_{}k", name(operation), size / 1000), cost.value, unit);
            rows.push(row.latencies(&cost.latencies));
        }
        let of = |size: u64| costs[&size][operation].value;
        let largest = sizes[sizes.len() - 1];
        let row = Row::new(name(operation), of(largest) / of(reference), "times");
        let row = row.detail(format!("{largest} pending over {reference}, {unit}"));
        rows.push(options.floor(row, Floor::AtMost(FLAT)));
    }
    Ok(rows)
}

struct Cost {
    value: f64,
    latencies: Latencies,
}

impl From<f64> for Cost {
    fn from(value: f64) -> Self {
        Self { value, latencies: Latencies::default() }
    }
}

impl From<Latencies> for Cost {
    /// The median.
    fn from(latencies: Latencies) -> Self {
        Self { value: latencies.p50_ms(), latencies }
    }
}

async fn costs_of(options: &BenchOptions, cluster: &mut ProcessCluster) -> Result<BTreeMap<&'static str, Cost>> {
    let submit = submit(options, cluster).await?;
    let fire = fire(options, cluster).await?;
    let snapshot = snapshot(options, cluster).await?;
    // Of nodes at rest: what filling in and firing needed has been given back while snapshots were waited for.
    let memory = largest_rss_mib(cluster)?;
    let list = list(options, cluster).await?;
    let read = read(options, cluster).await?;
    let start_up = start_up(options, cluster).await?;
    let failover = failover(options, cluster).await?;
    Ok(BTreeMap::from([
        ("submit", submit),
        ("fire", fire),
        ("list", list),
        ("read", read),
        ("memory", memory.into()),
        ("start_up", start_up),
        ("snapshot", snapshot),
        ("failover", failover),
    ]))
}

async fn submit(options: &BenchOptions, cluster: &ProcessCluster) -> Result<Cost> {
    let count = options.size(10_000, 1000);
    let now = clock::now();
    let load = Load::closed(Endpoint::Single, 64, count, WITHIN);
    let before = cluster.cpu()?;
    let submitted = load.run(&cluster.endpoints(), move |n| -> Bytes { task_json(URL, far(now, n)).into() }).await?;
    ensure!(submitted.requests == count, "{count} submits took longer than {} s", WITHIN.as_secs());
    let cpu = cluster.cpu()?.saturating_sub(before);
    Ok(Cost { value: cpu_us(cpu, count), latencies: submitted.latencies })
}

/// From due to recorded, deliveries included.
async fn fire(options: &BenchOptions, cluster: &ProcessCluster) -> Result<Cost> {
    let count = options.size(10_000, 1000);
    let outcome = deliver::fire_on(cluster, count, |n| Millis(n * 1000 / PER_SECOND)).await?;
    Ok(Cost { value: cpu_us(outcome.cpu, count), latencies: outcome.lateness })
}

fn cpu_us(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / count as f64
}

/// How long the next snapshots of a follower take. The first has to read what merging has rewritten since tasks were
/// filled in, so it is not the only one.
async fn snapshot(options: &BenchOptions, cluster: &ProcessCluster) -> Result<Cost> {
    let leader = cluster.leader(WITHIN).await?;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).context("a cluster of one")?;
    let node = &cluster.node(follower).client;
    let mut took = Latencies::default();
    for _ in 0..options.size(5, 1) {
        let (taken, micros) = snapshots(node).await?;
        let deadline = Instant::now() + SNAPSHOT_WITHIN;
        loop {
            let (taken_now, micros_now) = snapshots(node).await?;
            if taken_now > taken {
                took.record_us(((micros_now - micros) / (taken_now - taken)) as i64);
                break;
            }
            ensure!(Instant::now() < deadline, "no snapshot was taken within {} s", SNAPSHOT_WITHIN.as_secs());
            sleep(POLL).await;
        }
    }
    Ok(Cost { value: took.p50_ms() / 1000.0, latencies: took })
}

async fn snapshots(node: &Client) -> Result<(f64, f64)> {
    let metrics = Exposition::new(node.metrics().await?);
    let value = |name: &str| metrics.value(&format!("campanile_raft_{name}_total"));
    Ok((value("snapshots_taken")?, value("snapshot_micros")?))
}

/// Pages of a hundred tasks, one after the other.
async fn list(options: &BenchOptions, cluster: &ProcessCluster) -> Result<Cost> {
    let client = cluster.client()?;
    let mut took = Latencies::default();
    let mut query = TaskQuery::default();
    for _ in 0..options.size(100, 10) {
        let asked = Instant::now();
        let page = client.list_tasks(&query).await?;
        took.record(asked.elapsed());
        query.page_token = page.next_page_token;
        if query.page_token.is_none() {
            break;
        }
    }
    Ok(took.into())
}

/// Single tasks from anywhere: those that are due next after some instants, in an order that has nothing to do with
/// that of their ids. One node is asked which they are, another is asked for them, so that it has not just read them.
/// Both are followers: a leader answers without asking another, and who leads changes from size to size.
async fn read(options: &BenchOptions, cluster: &ProcessCluster) -> Result<Cost> {
    let leader = cluster.leader(WITHIN).await?;
    let mut followers = cluster.ids().into_iter().filter(|id| *id != leader);
    let mut client = || -> Result<Client> {
        let follower = followers.next().context("a cluster without two followers")?;
        Ok(Client::new(vec![cluster.node(follower).api.clone()])?)
    };
    let (finder, reader) = (client()?, client()?);
    let now = clock::now();
    let mut took = Latencies::default();
    for n in 0..options.size(30, 3) {
        let query = TaskQuery { due_after: Some(far(now, n)), ..TaskQuery::default() };
        for task in finder.list_tasks(&query).await?.items {
            let asked = Instant::now();
            reader.get_task(&task.id.to_string()).await?;
            took.record(asked.elapsed());
        }
    }
    ensure!(!took.is_empty(), "no task was found to read");
    Ok(took.into())
}

/// How long a follower takes from a kill until it serves. The first time it also reads the log that was written since
/// its last snapshot, and each time it waits for one of the leader's next two heartbeats, so that it takes 0.08, 0.18 or
/// 0.26 s: only many kills have a figure.
async fn start_up(options: &BenchOptions, cluster: &mut ProcessCluster) -> Result<Cost> {
    let mut took = Latencies::default();
    for _ in 0..options.size(START_UPS, 1) {
        took.record(Duration::from_secs_f64(restart(cluster).await?));
    }
    Ok(Cost { value: took.mean_ms() / 1000.0, latencies: took })
}

async fn failover(options: &BenchOptions, cluster: &mut ProcessCluster) -> Result<Cost> {
    let kills = options.size(5, 1);
    let mut takeovers = Latencies::default();
    for n in 1..=kills {
        let (takeover_us, _) = failover::kill_once(cluster).await.with_context(|| format!("kill {n}"))?;
        takeovers.record_us(takeover_us);
    }
    Ok(Cost { value: takeovers.p50_ms() / 1000.0, latencies: takeovers })
}
