//! The demo's work: a crontab imported through the command line, tasks that repeat, and one-shots submitted at a steady
//! rate; and the list of what all of it has to fire.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use campanile_client::{Client, Condition, TaskQuery};
use campanile_model::api::{Change, TaskWritten};
use campanile_model::limits::PAGE_ITEMS;
use campanile_model::{
    CatchUp, CatchUpPolicy, HttpTarget, Json, Millis, Schedule, Target, TaskId, TaskSpec, Timestamp,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::plan::{self, Active};
use crate::check::{Duty, Expected};
use crate::clock;
use crate::cluster::ProcessCluster;

/// One-shots submitted a second.
const ONE_SHOTS_PER_SECOND: u64 = 100;
/// A one-shot is due between these two after it is submitted.
const ONE_SHOT_MIN: Millis = Millis(200);
pub const ONE_SHOT_MAX: Millis = Millis(3000);
/// Submits under way at once; the tick waits when there are more, as while nobody leads.
const SUBMITS_IN_FLIGHT: usize = 256;
/// Periods of the tasks that repeat until the end.
const PERIODS: [Millis; 4] = [Millis(200), Millis(500), Millis(1000), Millis(3000)];
/// Fires of the task that repeats this often and no more.
const REMAINING: u32 = 7;

/// Tasks submitted so far and what they have to fire.
#[derive(Debug, Default)]
pub struct Ledger {
    pub tasks: Vec<TaskId>,
    /// Those of them that repeat, by name.
    repeating: Vec<(TaskId, String)>,
    pub expected: Expected,
    /// Submits that never got an answer; what became of them is looked up at the end.
    pub unanswered: Vec<(String, TaskSpec)>,
    /// Submits the cluster refused, and why.
    pub refused: Vec<String>,
}

/// Shared between the submitter and whoever shows progress.
pub type SharedLedger = Arc<Mutex<Ledger>>;

pub fn with<T>(ledger: &SharedLedger, act: impl FnOnce(&mut Ledger) -> T) -> T {
    act(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
}

fn target(url: &str) -> Target {
    let http =
        HttpTarget { url: url.into(), method: Default::default(), headers: Default::default(), signing_secret: None };
    Target::Http(http)
}

fn spec(url: &str, schedule: Schedule) -> TaskSpec {
    // Whatever an outage makes overdue has to fire, so that the expected set is exact.
    let catch_up = CatchUp { policy: CatchUpPolicy::FireAll, ..CatchUp::default() };
    TaskSpec { catch_up, ..TaskSpec::new(vec![schedule], target(url)) }
}

/// The tasks that a crontab made, and while they were written.
#[derive(Debug)]
pub struct Imported {
    tasks: Vec<(TaskId, String, Schedule)>,
    sent: Timestamp,
    acknowledged: Timestamp,
}

/// Imports a crontab with the program itself. Its webhooks go to `receiver` instead of 127.0.0.1:9000.
pub async fn import_crontab(cluster: &ProcessCluster, crontab: &str, receiver: &str) -> Result<Imported> {
    let path = cluster.directory().join("crontab");
    std::fs::write(&path, crontab.replace("127.0.0.1:9000", receiver))?;
    let sent = clock::now();
    run_import(cluster.binary(), &cluster.endpoints(), &path).await?;
    let acknowledged = clock::now();
    let client = cluster.client()?;
    let query = TaskQuery { limit: Some(PAGE_ITEMS), ..TaskQuery::default() };
    let page = client.list_tasks(&query).await.context("listing the imported tasks")?;
    ensure!(page.next_page_token.is_none(), "the crontab made more than {PAGE_ITEMS} tasks");
    let mut tasks = Vec::new();
    for task in page.items {
        for schedule in task.spec.schedules {
            tasks.push((task.id, task.name.clone(), schedule));
        }
    }
    Ok(Imported { tasks, sent, acknowledged })
}

async fn run_import(binary: &Path, endpoints: &[String], crontab: &Path) -> Result<()> {
    let mut command = std::process::Command::new(binary);
    command.args(["--endpoint", &endpoints.join(","), "import", "crontab"]).arg(crontab).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("running the import")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "campanile import crontab failed: {}", errors.trim_end());
    Ok(())
}

impl Imported {
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Pauses them all, so that what they had to fire is known.
    pub async fn stop(&self, client: &Client, ledger: &SharedLedger) -> Result<()> {
        for (task, name, schedule) in &self.tasks {
            let pause_sent = clock::now();
            client.pause_task(name, None).await.with_context(|| format!("pausing {name}"))?;
            let (sent, acknowledged) = (self.sent, self.acknowledged);
            let active = Active { sent, acknowledged, pause_sent, pause_acknowledged: clock::now() };
            let occurrences = active.occurrences(schedule).with_context(|| format!("the schedule of {name}"))?;
            with(ledger, |ledger| {
                ledger.tasks.push(*task);
                for (at, duty) in occurrences {
                    ledger.expected.scheduled(*task, at, duty);
                }
            });
        }
        Ok(())
    }
}

/// Creates the tasks that repeat from `start` until before `end`.
pub async fn create_repeating(
    client: &Client,
    url: &str,
    start: Timestamp,
    end: Timestamp,
    ledger: &SharedLedger,
) -> Result<usize> {
    let mut tasks: Vec<(String, TaskSpec, Vec<Timestamp>)> = PERIODS
        .into_iter()
        .map(|period| {
            let repeating = spec(url, Schedule::Every(period));
            let repeating = TaskSpec { start_at: Some(start), end_at: Some(end), ..repeating };
            (format!("every-{period}"), repeating, plan::every(start, period, end).collect())
        })
        .collect();
    let second = Millis::from_secs(1);
    let counted = spec(url, Schedule::Every(second));
    let counted = TaskSpec { start_at: Some(start), end_at: Some(end), remaining: Some(REMAINING), ..counted };
    tasks.push(("counted".into(), counted, plan::every(start, second, end).take(REMAINING as usize).collect()));
    let iso = spec(url, Schedule::Repeat(format!("R3/{start}/PT2S")));
    let iso = TaskSpec { end_at: Some(end), ..iso };
    tasks.push(("iso-8601".into(), iso, plan::every(start, Millis::from_secs(2), end).take(3).collect()));
    let count = tasks.len();
    for (name, spec, times) in tasks {
        let written =
            client.put_task(&name, &spec, Condition::None).await.with_context(|| format!("creating {name}"))?;
        with(ledger, |ledger| {
            ledger.tasks.push(written.id);
            ledger.repeating.push((written.id, name));
            for at in times {
                ledger.expected.scheduled(written.id, at, Duty::Fire);
            }
        });
    }
    ensure!(clock::now() < start, "creating {count} tasks took until after they had to start");
    Ok(count)
}

/// Pauses the repeating tasks before their end: what comes after need not fire, and what is due while the pause is
/// under way may fire or not.
pub async fn stop_repeating(client: &Client, ledger: &SharedLedger) -> Result<()> {
    for (task, name) in with(ledger, |ledger| ledger.repeating.clone()) {
        let sent = clock::now();
        match client.pause_task(&name, None).await {
            Ok(_) => {}
            // It had a limited number of fires, and has had them.
            Err(error) if error.code() == Some("task_finished") => continue,
            Err(error) => return Err(error).with_context(|| format!("pausing {name}")),
        }
        let acknowledged = clock::now();
        with(ledger, |ledger| ledger.expected.end(task, sent, acknowledged));
    }
    Ok(())
}

/// Submits one-shots at a steady rate until told to stop; returns when every submit has got its answer.
pub async fn submit_one_shots(client: Client, url: String, ledger: SharedLedger, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(SUBMITS_IN_FLIGHT));
    let mut ticks = interval(Duration::from_micros(1_000_000 / ONE_SHOTS_PER_SECOND));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tasks = Vec::new();
    for n in 0_u64.. {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
        }
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        // Spread over the range by a stride that is prime to its length.
        let delay = Millis(ONE_SHOT_MIN.0 + n * 7919 % (ONE_SHOT_MAX.0 - ONE_SHOT_MIN.0));
        let schedule =
            if n.is_multiple_of(2) { Schedule::Delay(delay) } else { Schedule::At(clock::now().saturating_add(delay)) };
        let payload = Json::from_value(&serde_json::json!({ "order": n }));
        let task = TaskSpec { payload: Some(payload), ..spec(&url, schedule) };
        let (client, ledger) = (client.clone(), ledger.clone());
        tasks.push(tokio::spawn(async move {
            submit(&client, format!("order-{n}"), task, &ledger).await;
            drop(permit);
        }));
    }
    for outcome in futures::future::join_all(tasks).await {
        if let Err(error) = outcome {
            with(&ledger, |ledger| ledger.refused.push(format!("a submit panicked: {error}")));
        }
    }
}

async fn submit(client: &Client, name: String, spec: TaskSpec, ledger: &SharedLedger) {
    match client.put_task(&name, &spec, Condition::None).await {
        Ok(written) => match due_of(client, &spec, &written).await {
            Ok(due) => with(ledger, |ledger| {
                ledger.tasks.push(written.id);
                ledger.expected.scheduled(written.id, due, Duty::Fire);
            }),
            Err(error) => with(ledger, |ledger| ledger.refused.push(format!("{name}: {error:#}"))),
        },
        Err(error) if error.is_retryable() => with(ledger, |ledger| ledger.unanswered.push((name, spec))),
        Err(error) => with(ledger, |ledger| ledger.refused.push(format!("{name}: {error}"))),
    }
}

/// When an acknowledged one-shot is due. A delay counts from when the version was written, which the answer tells.
async fn due_of(client: &Client, spec: &TaskSpec, written: &TaskWritten) -> Result<Timestamp> {
    match (&spec.schedules[..], written.next) {
        ([Schedule::At(at)], _) => Ok(*at),
        (_, Some(next)) if written.change == Change::Created => Ok(next.scheduled_at),
        ([Schedule::Delay(delay)], _) => {
            let view = client.get_task(&written.id.to_string()).await.context("reading it back")?;
            Ok(view.updated_at.saturating_add(*delay))
        }
        (other, _) => anyhow::bail!("{other:?} is no one-shot"),
    }
}

/// Looks up what became of the submits that got no answer: one that took effect may fire, and is not required to.
pub async fn resolve_unanswered(client: &Client, ledger: &SharedLedger, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    for (name, spec) in with(ledger, |ledger| std::mem::take(&mut ledger.unanswered)) {
        ensure!(Instant::now() < deadline, "looking up submits without an answer took too long");
        let view = match client.get_task(&name).await {
            Ok(view) => view,
            Err(error) if error.code() == Some("task_not_found") => continue,
            Err(error) => return Err(error).with_context(|| format!("looking up {name}")),
        };
        let due = match &spec.schedules[..] {
            [Schedule::Delay(delay)] => view.updated_at.saturating_add(*delay),
            [Schedule::At(at)] => *at,
            other => anyhow::bail!("{other:?} is no one-shot"),
        };
        with(ledger, |ledger| {
            ledger.tasks.push(view.id);
            ledger.expected.scheduled(view.id, due, Duty::Optional);
        });
    }
    Ok(())
}
