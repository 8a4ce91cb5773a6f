//! How fast fires are committed and applied on all three nodes, and how late. Nothing is delivered meanwhile: the
//! receiver never answers, and a node may have one connection to it.
//!
//! Where not all have been applied a while after the last was due, the rate is that of those that were, and the row
//! says so; what is too late is caught up with at a bounded rate.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use campanile_client::Client;
use campanile_model::{Millis, NodeId, Timestamp};
use tokio::time::sleep;

use super::BenchOptions;
use super::tasks::{BATCH, batch_json, repeating_json};
use crate::clock;
use crate::exposition::Exposition;
use crate::load::{Endpoint, Load as Submit};
use crate::receiver::{Behaviour, Receiver};
use crate::report::{Floor, Row};

pub const BURST: &str = "fire_commit_burst";
pub const SCATTERED: &str = "fire_commit_scattered";
const CONNECTIONS: usize = 6;
/// For putting tasks in place before the first is due: a third of the rate that batches have to reach.
const PLACING_PER_SECOND: u64 = 20_000;
const SETTLE: Duration = Duration::from_secs(60);
/// How long fires may be late before they no longer count: then they are the backlog's.
const LATEST: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The receiver's answers take longer than the measurement.
const NEVER: Duration = Duration::from_secs(3600);
const POLL: Duration = Duration::from_millis(20);

/// One-shot tasks, submitted in the order in which they are due.
pub async fn burst(options: &BenchOptions) -> Result<Vec<Row>> {
    let (count, within) = options.size((1_000_000, Millis(10_000)), (100_000, Millis(2000)));
    let load = Load { count, within };
    let fired = fire(options, load, move |url, start, first| {
        batch_json(url, (first..first + BATCH as u64).map(|n| start.saturating_add(Millis(n * within.0 / count))))
    });
    Ok(vec![options.floor(fired.await?.row(BURST, load, "one-shot tasks in order"), Floor::AtLeast(60_000.0))])
}

/// Recurring tasks, submitted in an order that has nothing to do with that in which they are due.
pub async fn scattered(options: &BenchOptions) -> Result<Vec<Row>> {
    let (count, within) = options.size((500_000, Millis(10_000)), (60_000, Millis(2000)));
    let load = Load { count, within };
    let fired = fire(options, load, move |url, start, first| {
        let offset = |n: u64| Millis((n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % within.0);
        repeating_json(url, (first..first + BATCH as u64).map(|n| start.saturating_add(offset(n))))
    });
    let row = fired.await?.row(SCATTERED, load, "recurring tasks with scattered ids");
    Ok(vec![options.floor(row, Floor::AtLeast(30_000.0))])
}

/// So many fires, due evenly within this span.
#[derive(Clone, Copy)]
struct Load {
    count: u64,
    within: Millis,
}

struct Fired {
    applied: u64,
    /// From the first due instant until so many had been applied on all nodes.
    took: Duration,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Fired {
    fn row(&self, name: &str, load: Load, what: &str) -> Row {
        let (p50_ms, p99_ms, max_ms) = (Some(self.p50_ms), Some(self.p99_ms), Some(self.max_ms));
        let took = self.took.as_secs_f64();
        let row = Row { p50_ms, p99_ms, max_ms, ..Row::new(name, self.applied as f64 / took, "fires/s") };
        let within = load.within.to_std().as_secs();
        row.detail(format!(
            "{} {what}, due over {within} s, {} applied on all nodes after {took:.2} s; lateness of the commit, from a \
             histogram",
            load.count, self.applied
        ))
    }
}

async fn fire<F>(options: &BenchOptions, load: Load, batch: F) -> Result<Fired>
where
    F: Fn(&str, Timestamp, u64) -> Bytes + Send + Sync + 'static,
{
    let cluster = options.cluster_with(&["--http-connections-per-host", "1"]).await?;
    let receiver = Receiver::start()?;
    receiver.set_behaviour(Behaviour { delay: NEVER, ..Behaviour::default() });
    let placing = Duration::from_secs(2 + load.count / PLACING_PER_SECOND);
    let start = clock::now().saturating_add(placing.into());
    let (url, requests) = (receiver.url(), load.count / BATCH as u64);
    let submit = Submit::closed(Endpoint::Batch, CONNECTIONS, requests, placing);
    let body = move |n: u64| batch(&url, start, n * BATCH as u64);
    let submitted = submit.run(&cluster.endpoints(), body).await?;
    let in_place = submitted.requests == requests && clock::now() < start;
    ensure!(in_place, "putting {} tasks in place took longer than {} s", load.count, placing.as_secs());

    let leader = cluster.leader(SETTLE).await?;
    let ask = |id: NodeId| Client::builder([cluster.node(id).api.as_str()]).attempt_timeout(ASK_TIMEOUT).build();
    let nodes = cluster.ids().into_iter().map(ask).collect::<Result<Vec<Client>, _>>()?;
    sleep(load.within.to_std() + start.since(clock::now()).to_std()).await;
    let deadline = Instant::now() + LATEST;
    let mut applied = applied_everywhere(&nodes).await?;
    while applied < load.count && Instant::now() < deadline {
        sleep(POLL).await;
        applied = applied_everywhere(&nodes).await?;
    }
    let took = clock::now().since(start).to_std();
    figures(&ask(leader)?, applied, load.count, took).await
}

/// How many fires stand as live runs on every node.
async fn applied_everywhere(nodes: &[Client]) -> Result<u64> {
    let mut least = u64::MAX;
    for node in nodes {
        least = least.min(exposition(node).await?.value("campanile_live_runs")? as u64);
    }
    Ok(least)
}

async fn figures(leader: &Client, applied: u64, count: u64, took: Duration) -> Result<Fired> {
    let metrics = exposition(leader).await?;
    let decisions = metrics.value("campanile_decisions_total")? as u64;
    ensure!(decisions <= count, "the leader committed {decisions} decisions of {count}: something fired twice");
    let lateness = metrics.histogram("campanile_commit_lateness_seconds")?;
    let at = |quantile: f64| lateness.quantile(quantile).map(|seconds| seconds * 1000.0).context("an empty histogram");
    Ok(Fired { applied, took, p50_ms: at(0.5)?, p99_ms: at(0.99)?, max_ms: at(1.0)? })
}

async fn exposition(node: &Client) -> Result<Exposition> {
    Ok(Exposition::new(node.metrics().await?))
}
