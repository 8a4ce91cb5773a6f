//! Three times as many tasks as the cluster can take, while others come due: what is accepted, how soon the rest is
//! told so, whether fires stay on time, and how soon it is over.
//!
//! The peak is what a closed loop reaches, the mean of one before the flood and one after it: some two million tasks are
//! made in all, and what the cluster takes becomes less as its files become more, flood or none.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use campanile_model::{Millis, Timestamp};

use super::BenchOptions;
use super::tasks::{BATCH, batch_json, far, submit_due, task_json};
use crate::clock;
use crate::latency::Latencies;
use crate::load::{Connection, Endpoint, Flood, Load};
use crate::receiver::Receiver;
use crate::report::{Floor, Row};

pub const THROUGHPUT: &str = "overload_throughput";
pub const REFUSAL: &str = "overload_refusal";
pub const LATENESS: &str = "overload_lateness";
pub const RECOVERY: &str = "overload_recovery";
/// Nobody is called by the flood: its tasks are due in days.
const URL: &str = "http://127.0.0.1:9000/hook";
const BODIES: u64 = 16;
/// Of the flood: enough that it is not held up by waiting for answers.
const CONNECTIONS: usize = 384;
const TIMES: f64 = 3.0;
/// Tasks that come due meanwhile.
const DUE_PER_SECOND: u64 = 200;
const AHEAD: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(30);
/// A submit that is answered within this is answered as if there were no flood.
const CALM: Duration = Duration::from_millis(50);

pub async fn measure(options: &BenchOptions) -> Result<Vec<Row>> {
    let within = options.size(Duration::from_secs(10), Duration::from_secs(4));
    let cluster = options.cluster().await?;
    let nodes = cluster.endpoints();
    let now = clock::now();
    let batch = |n| batch_json(URL, (0..BATCH as u64).map(|task| far(now, n * BATCH as u64 + task)));
    let bodies: Vec<Bytes> = (0..BODIES).map(batch).collect();
    let body = move |n: u64| bodies[(n % BODIES) as usize].clone();
    let closed_loop = Load::closed(Endpoint::Batch, 64, u64::MAX, within);
    let before = closed_loop.run(&nodes, body.clone()).await?.per_second();

    let receiver = Receiver::start()?;
    let start = clock::now().saturating_add(AHEAD.into());
    let count = within.as_secs() * DUE_PER_SECOND;
    let times: Vec<Timestamp> = (0..count).map(|n| start.saturating_add(Millis(n * 1000 / DUE_PER_SECOND))).collect();
    let placed = submit_due(&nodes, &receiver.url(), times, AHEAD).await?;
    let flood = Flood { per_second: TIMES * before / BATCH as f64 };
    let load = Load { flood: Some(flood), ..Load::closed(Endpoint::Batch, CONNECTIONS, u64::MAX, AHEAD + within) };
    let flooded = load.run(&nodes, body.clone()).await?;
    // Counted from the end of the flood, while its last requests still wait for their answers.
    let recovery = flooded.took.saturating_sub(AHEAD + within) + recovery(&nodes).await?;
    ensure!(receiver.wait_occurrences(placed.tasks.len(), SETTLE).await, "not all that came due was delivered");

    let after = closed_loop.run(&nodes, body).await?.per_second();

    let mut lateness = Latencies::default();
    for delivery in &receiver.received().deliveries {
        lateness.record_us(delivery.lateness_us());
    }
    let flooded_rate = flooded.per_second();
    let share = Row::new(THROUGHPUT, 2.0 * flooded_rate / (before + after), "of the peak");
    let refused = Row::new(REFUSAL, flooded.refusals.p99_ms(), "ms (p99)").latencies(&flooded.refusals);
    let late = Row::new(LATENESS, lateness.p99_ms(), "ms (p99)").latencies(&lateness);
    let over = Row::new(RECOVERY, recovery.as_secs_f64(), "s");
    let (accepted, refusals) = (flooded.requests, flooded.refusals.len());
    let detail = format!(
        "{CONNECTIONS} connections offer {TIMES:.0} times as many: {flooded_rate:.0} tasks/s accepted; a closed loop \
         made {before:.0} before and {after:.0} after; {accepted} batches accepted, {refusals} refused"
    );
    Ok(vec![
        options.floor(share, Floor::AtLeast(0.8)).detail(detail),
        options.floor(refused, Floor::AtMost(50.0)).detail("answers of 429 or 503"),
        late.detail(format!("{DUE_PER_SECOND}/s due during the flood, received minus due")),
        options.floor(over, Floor::AtMost(5.0)).detail("until a submit takes less than 50 ms again, on every node"),
    ])
}

/// How long it takes until a submit is answered as ever, on every node.
async fn recovery(nodes: &[String]) -> Result<Duration> {
    let ended = Instant::now();
    let mut recovered = Duration::ZERO;
    for node in nodes {
        let mut connection = Connection::open(node, Endpoint::Single).await?;
        loop {
            let sent = Instant::now();
            let (status, _) = connection.post(task_json(URL, far(clock::now(), 0)).into()).await?;
            if status.is_success() && sent.elapsed() < CALM {
                recovered = recovered.max(sent.duration_since(ended));
                break;
            }
            ensure!(ended.elapsed() < SETTLE, "{node} has not recovered after {} s", SETTLE.as_secs());
        }
    }
    Ok(recovered)
}
