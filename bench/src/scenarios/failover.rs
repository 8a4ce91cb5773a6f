//! How long firing stops when the leader is killed with -9 under load: from the kill to the first delivery of something
//! that came due after it. Nothing may be lost or doubled meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use campanile_model::{Millis, Timestamp};
use tokio::time::{Instant, sleep_until};

use super::BenchOptions;
use super::tasks::submit_due;
use crate::account::{self, Runs};
use crate::check::{judge, runs_to_read_closely};
use crate::clock::{self, Micros};
use crate::cluster::ProcessCluster;
use crate::latency::Latencies;
use crate::receiver::Receiver;
use crate::report::{Floor, Row};
use crate::settle;

pub const NAME: &str = "failover";
const PER_SECOND: u64 = 1000;
/// Tasks are due from this long after they are submitted, for the length of a round.
const AHEAD: Duration = Duration::from_secs(4);
const ROUND: Duration = Duration::from_secs(6);
/// The leader is killed this long after the first is due.
const KILL_AFTER: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(30);

pub async fn measure(options: &BenchOptions) -> Result<Vec<Row>> {
    let kills: u32 = options.size(30, 2);
    let mut cluster = options.cluster().await?;
    let mut takeovers = Latencies::default();
    let mut repeats = 0;
    for n in 1..=kills {
        let (takeover_us, again) = kill_once(&mut cluster).await.with_context(|| format!("kill {n}"))?;
        takeovers.record_us(takeover_us);
        repeats += again;
    }
    let row = Row::new(NAME, takeovers.p99_ms() / 1000.0, "s (p99)").latencies(&takeovers).floor(Floor::AtMost(1.5));
    Ok(vec![row.detail(format!("{kills} kills under {PER_SECOND}/s, none lost, none doubled, {repeats} repeats"))])
}

/// One round with one kill: microseconds to the next fire on time, and repeats.
pub async fn kill_once(cluster: &mut ProcessCluster) -> Result<(i64, usize)> {
    // One receiver a round, so that each is judged alone.
    let receiver = Receiver::start()?;
    let start = clock::now().saturating_add(AHEAD.into());
    let kill_at = Instant::now() + AHEAD + KILL_AFTER;
    let count = ROUND.as_secs() * PER_SECOND;
    let times: Vec<Timestamp> = (0..count).map(|n| start.saturating_add(Millis(n * 1000 / PER_SECOND))).collect();
    let placed = submit_due(&cluster.endpoints(), &receiver.url(), times, AHEAD).await?;
    ensure!(clock::now() < start, "putting {count} tasks in place took longer than {} s", AHEAD.as_secs());

    sleep_until(kill_at).await;
    let leader = cluster.leader(READY).await?;
    cluster.kill9(leader)?;
    let killed = Micros::now();
    receiver.wait_occurrences(placed.tasks.len(), ROUND + SETTLE).await;
    settle::runs_ended(cluster, SETTLE).await?;
    cluster.restart(leader, READY).await?;

    let received = receiver.received();
    let close = Runs::Only(runs_to_read_closely(&received));
    let committed = account::read(&cluster.client()?, &placed.tasks, &close).await?;
    let verdict = judge(&placed.expected, &committed, &received);
    ensure!(verdict.holds(), "not as promised:\n{verdict}");
    // Only the next leader can have fired what came due after the kill.
    let after = received.deliveries.iter().filter(|delivery| killed.after(delivery.scheduled_at) < 0);
    let first = after.map(|delivery| delivery.received_at).min().context("nothing was due after the kill")?;
    Ok((first.0 - killed.0, verdict.repeats))
}
