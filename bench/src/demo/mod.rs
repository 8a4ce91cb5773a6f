//! The demo: three processes, real work, the leader killed half way, and a verdict at the end.
//!
//! Duties, in order: start the cluster and a receiver; give it a crontab, repeating tasks and a steady stream of
//! one-shots; show how it goes; kill the leader with -9 and bring it back; stop the work, let it settle, and judge what
//! fired and arrived against what was due.

mod plan;
mod screen;
mod watch;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use campanile_model::{Millis, NodeId};
use tokio::sync::watch as tokio_watch;
use tokio::time::{Instant, interval, sleep_until};

use crate::account::{self, Runs};
use crate::check::{Verdict, judge};
use crate::clock::{self, Micros};
use crate::cluster::{ClusterOptions, ProcessCluster};
use crate::latency::Latencies;
use crate::receiver::Receiver;
use screen::{Screen, print};
use watch::Watch;
use work::SharedLedger;

/// Where the example crontab's webhooks go.
const RECEIVER: &str = "127.0.0.1:9000";
/// When the leader is killed if the demo has no end of its own.
const KILL_AFTER: Duration = Duration::from_secs(15);
/// How long the killed leader stays away.
const AWAY: Duration = Duration::from_secs(4);
/// Long enough for creating the repeating tasks.
const HEAD_START: Millis = Millis(2000);
/// How long what is overdue at the end may take to arrive.
const SETTLE: Duration = Duration::from_secs(30);
const LEADER_WAIT: Duration = Duration::from_secs(10);
const SHUTDOWN: Duration = Duration::from_secs(40);
/// The shortest demo: the one-shots need time to come due on both sides of the kill.
const SHORTEST: Duration = Duration::from_secs(10);
/// Repeating tasks of a demo without an end are given this one.
const FAR: Millis = Millis::from_hours(1);

#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The program `campanile`.
    pub binary: PathBuf,
    /// Ends by itself after this; otherwise on Ctrl-C.
    pub duration: Option<Duration>,
    /// Text of the crontab to import.
    pub crontab: String,
    /// Where data and logs go and stay; a temporary directory when absent.
    pub data: Option<PathBuf>,
}

/// Runs the demo; whether all held. Ctrl-C ends a demo without a duration with its verdict, any other at once.
pub async fn run(options: DemoOptions) -> Result<bool> {
    if let Some(duration) = options.duration {
        ensure!(duration >= SHORTEST, "a demo takes at least {} s", SHORTEST.as_secs());
    }
    let screen = Screen::new();
    let interrupted = async { tokio::signal::ctrl_c().await.context("waiting for Ctrl-C") };
    let Some(duration) = options.duration else { return perform(options, &screen, interrupted).await };
    tokio::select! {
        outcome = perform(options, &screen, async { tokio::time::sleep(duration).await; Ok(()) }) => outcome,
        signal = interrupted => {
            screen.finish();
            signal?;
            print("interrupted; everything is stopped");
            Ok(false)
        }
    }
}

async fn perform(options: DemoOptions, screen: &Screen, end: impl Future<Output = Result<()>>) -> Result<bool> {
    let data = options.data;
    let mut cluster = ProcessCluster::start(ClusterOptions { data, ..ClusterOptions::new(options.binary) }).await?;
    let receiver = start_receiver()?;
    introduce(&cluster, &receiver, screen);

    let client = cluster.client()?;
    let ledger = SharedLedger::default();
    let imported = work::import_crontab(&cluster, &options.crontab, &receiver.address().to_string()).await?;
    screen.event(format!("imported {} tasks of the crontab", imported.len()));
    let now = clock::now();
    let (start, stop) =
        (now.saturating_add(HEAD_START), now.saturating_add(options.duration.map_or(FAR, Millis::from)));
    let repeating = work::create_repeating(&client, &receiver.url(), start, stop, &ledger).await?;
    screen.event(format!("created {repeating} repeating tasks; submitting one-shots"));
    let (stop_submits, stopped) = tokio_watch::channel(false);
    let submits = tokio::spawn(work::submit_one_shots(client.clone(), receiver.url(), ledger.clone(), stopped));

    let mut watch = Watch::new(&cluster, &receiver, &ledger);
    let kill_after = options.duration.map_or(KILL_AFTER, |duration| duration / 2);
    show_with_a_kill(&mut cluster, &mut watch, screen, kill_after, end).await?;

    screen.event("stopping the work");
    stop_submits.send_replace(true);
    submits.await.context("the submitter")?;
    imported.stop(&client, &ledger).await?;
    if options.duration.is_none() {
        work::stop_repeating(&client, &ledger).await?;
    }
    work::resolve_unanswered(&client, &ledger, SETTLE).await?;
    let verdict = settle_and_judge(&cluster, &receiver, &ledger, screen).await?;
    screen.finish();
    let refused = work::with(&ledger, |ledger| std::mem::take(&mut ledger.refused));
    summarise(&verdict, &watch, &refused);
    cluster.shutdown(SHUTDOWN).await.context("stopping the nodes")?;
    let took_over = watch.takeover_ms().is_some() || !watch.was_killed();
    Ok(verdict.holds() && refused.is_empty() && took_over)
}

/// At the port the example crontab names, or at a free one.
fn start_receiver() -> Result<Receiver> {
    let address: SocketAddr = RECEIVER.parse()?;
    Receiver::start_at(address).or_else(|_| Receiver::start())
}

fn introduce(cluster: &ProcessCluster, receiver: &Receiver, screen: &Screen) {
    for id in cluster.ids() {
        let node = cluster.node(id);
        let pid = node.pid().unwrap_or_default();
        screen.event(format!("node {id}: http://{}  pid {pid}  log {}", node.api, node.log.display()));
    }
    screen.event(format!("receiver: {}", receiver.url()));
}

/// Shows progress until the end, and meanwhile kills the leader and brings it back.
async fn show_with_a_kill(
    cluster: &mut ProcessCluster,
    watch: &mut Watch<'_>,
    screen: &Screen,
    kill_after: Duration,
    end: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut ticks = interval(Duration::from_millis(100));
    let mut tick = 0_u32;
    let mut kill_at = Some(Instant::now() + kill_after);
    let mut restart: Option<(NodeId, Instant)> = None;
    tokio::pin!(end);
    loop {
        tokio::select! {
            outcome = &mut end => {
                outcome?;
                if let Some((id, _)) = restart {
                    bring_back(cluster, watch, screen, id)?;
                }
                return Ok(());
            }
            () = at(kill_at) => {
                kill_at = None;
                let view = cluster.leader_view(LEADER_WAIT).await?;
                let pid = cluster.node(view.node).pid().unwrap_or_default();
                cluster.kill9(view.node)?;
                watch.killed(view.node, Micros::now());
                screen.event(format!("killed the leader: kill -9 {pid} (node {}, term {})", view.node, view.term));
                restart = Some((view.node, Instant::now() + AWAY));
            }
            () = at(restart.map(|(_, when)| when)) => {
                if let Some((id, _)) = restart.take() {
                    bring_back(cluster, watch, screen, id)?;
                }
            }
            _ = ticks.tick() => {
                if let Some(event) = watch.look().await {
                    screen.event(event);
                }
                if tick.is_multiple_of(10) {
                    screen.status(watch.line());
                }
                tick += 1;
            }
        }
    }
}

fn bring_back(cluster: &mut ProcessCluster, watch: &mut Watch<'_>, screen: &Screen, id: NodeId) -> Result<()> {
    cluster.spawn(id)?;
    watch.restarted(id);
    screen.event(format!("started node {id} again"));
    Ok(())
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits until all that is due has arrived and every run has ended, then judges.
async fn settle_and_judge(
    cluster: &ProcessCluster,
    receiver: &Receiver,
    ledger: &SharedLedger,
    screen: &Screen,
) -> Result<Verdict> {
    let (tasks, expected) = work::with(ledger, |ledger| (ledger.tasks.clone(), ledger.expected.clone()));
    // What is missing then, the verdict names.
    receiver.wait_occurrences(expected.must_fire(), SETTLE).await;
    crate::settle::runs_ended(cluster, SETTLE).await?;
    screen.event(format!("reading the runs and ledgers of {} tasks", tasks.len()));
    let committed = account::read(&cluster.client()?, &tasks, &Runs::All).await?;
    Ok(judge(&expected, &committed, &receiver.received()))
}

fn summarise(verdict: &Verdict, watch: &Watch<'_>, refused: &[String]) {
    let takeover = match (watch.was_killed(), watch.takeover_ms()) {
        (false, _) => "not killed".into(),
        (true, Some(millis)) => format!("killed; the next fire on time {millis:.0} ms later"),
        (true, None) => "killed; no fire after that".into(),
    };
    let lateness = |latencies: &Latencies| if latencies.is_empty() { "-".into() } else { latencies.to_string() };
    print("");
    print(&format!("expected      {:>8} occurrences", verdict.expected));
    print(&format!("fired         {:>8} (committed)", verdict.committed));
    print(&format!("received      {:>8} different occurrences", verdict.received));
    print(&format!("early         {:>8}", verdict.count(crate::check::Fault::Early)));
    print(&format!(
        "repeats       {:>8} (a higher attempt; the outcome of the one before was not committed)",
        verdict.repeats
    ));
    print(&format!("lateness      {}", lateness(watch.steady())));
    print(&format!("  in takeover {}", lateness(watch.in_takeover())));
    print(&format!("leader        {takeover}"));
    for refusal in refused.iter().take(3) {
        print(&format!("submit refused: {refusal}"));
    }
    if verdict.holds() {
        print("every occurrence fired exactly once");
    } else {
        print(&format!("NOT as promised:\n{verdict}"));
    }
}
