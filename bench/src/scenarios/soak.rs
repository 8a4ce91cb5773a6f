//! An hour at half load: recurring tasks fire all the time, new ones come in, as many are deleted, and retention takes
//! what is old. Memory, disk and latencies have to stay where they are; how much they rise in an hour is told.
//!
//! Every delivery has to be what its task was to fire next: a gap or a repeat ends the measurement with an error.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use campanile_client::{Client, DeleteTask};
use campanile_model::api::BatchLine;
use campanile_model::{Millis, TaskId, Timestamp};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::BenchOptions;
use super::pending::{largest_disk_mib, largest_log_mib, largest_rss_mib};
use super::tasks::PAYLOAD;
use crate::clock;
use crate::latency::Latencies;
use crate::receiver::Receiver;
use crate::report::Row;

pub const RSS: &str = "soak_rss";
pub const DISK: &str = "soak_disk";
pub const LOG: &str = "soak_disk_log";
pub const LATENESS: &str = "soak_lateness";
pub const SUBMIT: &str = "soak_submit";
/// Tasks that recur, each once in a period.
const TASKS: u64 = 20_000;
const PERIOD: Millis = Millis(10_000);
/// Tasks that come and go every second.
const TURNOVER: u64 = 50;
/// The first are due so long after they are put in place.
const AHEAD: Millis = Millis(15_000);
/// Deletes on their way at one time.
const PARALLEL: usize = 16;
/// Samples of a whole soak; the first quarter of them is warming up.
const SAMPLES: u32 = 120;
/// What is on its way when the soak ends has this long to arrive, and may be this late.
const SETTLE: Duration = Duration::from_secs(15);
const LATEST: Millis = Millis(10_000);
/// A shorter one has too few samples for a slope.
pub const SHORTEST: Duration = Duration::from_secs(60);

pub async fn measure(options: &BenchOptions) -> Result<Vec<Row>> {
    let cluster = options.cluster().await?;
    let receiver = Receiver::start()?;
    let mut soak = Soak {
        client: cluster.client()?,
        url: receiver.url(),
        tasks: VecDeque::new(),
        due: Due::default(),
        submits: Latencies::default(),
    };
    let tasks = options.size(TASKS, TASKS / 10);
    while (soak.tasks.len() as u64) < tasks {
        soak.insert(1000.min(tasks - soak.tasks.len() as u64)).await?;
    }
    sleep(AHEAD.to_std()).await;
    // Counted from here on.
    soak.submits = Latencies::default();
    let started = Instant::now();
    let cpu_before = cluster.cpu()?;
    let mut samples: Vec<Sample> = Vec::new();
    let (mut fires, mut lateness, mut submits) = (0, Latencies::default(), Latencies::default());
    let mut late = Latencies::default();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while started.elapsed() < options.soak {
        second.tick().await;
        soak.insert(TURNOVER).await?;
        late.add(&soak.take(&receiver)?);
        soak.delete(TURNOVER).await?;
        if started.elapsed() >= options.soak * (samples.len() as u32 + 1) / SAMPLES {
            let late = std::mem::take(&mut late);
            let submitted = std::mem::take(&mut soak.submits);
            samples.push(Sample {
                hours: started.elapsed().as_secs_f64() / 3600.0,
                rss_mib: largest_rss_mib(&cluster)?,
                disk_mib: largest_disk_mib(&cluster)?,
                log_mib: largest_log_mib(&cluster)?,
                lateness_ms: late.p99_ms(),
                submit_ms: submitted.p99_ms(),
            });
            fires += late.len();
            lateness.add(&late);
            submits.add(&submitted);
        }
    }
    let took = started.elapsed();
    let cores = cluster.cpu()?.saturating_sub(cpu_before).as_secs_f64() / took.as_secs_f64();
    sleep(SETTLE).await;
    soak.take(&receiver)?;
    soak.due.check_none_before(clock::now(), LATEST)?;

    let load = format!(
        "{fires} fires in {:.0} s, {TURNOVER} tasks put in and {TURNOVER} deleted a second, nodes on {cores:.2} cores",
        took.as_secs_f64()
    );
    let row = |name: &str, unit, what: &str, of: fn(&Sample) -> f64| {
        let steady = &samples[samples.len() / 4..];
        let (first, last) = (steady.first().map_or(0.0, of), steady.last().map_or(0.0, of));
        let points: Vec<(f64, f64)> = steady.iter().map(|sample| (sample.hours, of(sample))).collect();
        Row::new(name, slope(&points), unit)
            .detail(format!("{what}: {first:.1} after warming up, {last:.1} in the end"))
    };
    Ok(vec![
        row(RSS, "MiB/h", "largest node's memory", |sample| sample.rss_mib),
        row(DISK, "MiB/h", "largest node's disk", |sample| sample.disk_mib),
        row(LOG, "MiB/h", "of it the Raft log, from one snapshot to the next", |sample| sample.log_mib),
        row(LATENESS, "ms/h (p99)", &load, |sample| sample.lateness_ms).latencies(&lateness),
        row(SUBMIT, "ms/h (p99)", "a batch of 50", |sample| sample.submit_ms).latencies(&submits),
    ])
}

struct Sample {
    hours: f64,
    rss_mib: f64,
    disk_mib: f64,
    log_mib: f64,
    lateness_ms: f64,
    submit_ms: f64,
}

/// Of the straight line with the least squares; 0 of fewer than two points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if points.len() < 2 || spread == 0.0 {
        return 0.0;
    }
    points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread
}

/// What each task is to fire next.
#[derive(Default)]
struct Due(HashMap<TaskId, Timestamp>);

impl Due {
    /// What arrives of a task is what it is to fire next; of others it says nothing.
    fn arrived(&mut self, task: TaskId, at: Timestamp) -> Result<()> {
        let Some(next) = self.0.get_mut(&task) else { return Ok(()) };
        ensure!(at == *next, "{task} fired for {at}, and not for {next}");
        *next = next.saturating_add(PERIOD);
        Ok(())
    }

    /// Nothing that has been due for so long is missing.
    fn check_none_before(&self, now: Timestamp, latest: Millis) -> Result<()> {
        match self.0.iter().find(|(_, next)| next.saturating_add(latest) < now) {
            Some((task, next)) => bail!("{task} has not fired for {next}"),
            None => Ok(()),
        }
    }
}

struct Soak {
    client: Client,
    url: String,
    /// Those that fire, oldest first.
    tasks: VecDeque<TaskId>,
    due: Due,
    /// Of batches.
    submits: Latencies,
}

impl Soak {
    async fn insert(&mut self, count: u64) -> Result<()> {
        let start = clock::now().saturating_add(AHEAD);
        let lines = batch(&self.url, count, |n| start.saturating_add(Millis(n * PERIOD.0 / count)));
        let sent = Instant::now();
        for line in self.client.create_batch_raw(lines).await? {
            match line {
                BatchLine::Written { task, .. } => {
                    self.tasks.push_back(task.id);
                    let next = task.next.with_context(|| format!("{} is never due", task.id))?;
                    self.due.0.insert(task.id, next.scheduled_at);
                }
                BatchLine::Refused { error, .. } => bail!("a task was refused: {}: {}", error.code, error.detail),
            }
        }
        self.submits.record(sent.elapsed());
        Ok(())
    }

    /// The oldest go. What they fired just before may still arrive, and is not looked at.
    async fn delete(&mut self, count: u64) -> Result<()> {
        let gone: Vec<TaskId> = self.tasks.drain(..(count as usize).min(self.tasks.len())).collect();
        let deletes = gone.into_iter().map(|task| delete(&self.client, task, self.due.0.remove(&task)));
        stream::iter(deletes).buffer_unordered(PARALLEL).try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// Looks at what has arrived since the last time.
    fn take(&mut self, receiver: &Receiver) -> Result<Latencies> {
        let received = receiver.drain();
        ensure!(received.malformed.is_empty(), "no proper webhook: {}", received.malformed[0]);
        let mut lateness = Latencies::default();
        for delivery in received.deliveries {
            lateness.record_us(delivery.lateness_us());
            self.due.arrived(delivery.occurrence.task, delivery.scheduled_at)?;
        }
        Ok(lateness)
    }
}

/// The client repeats a delete whose answer was lost, and then the task is not there any more. Its fires tell whether it
/// was until now: `next` is due, and not long since.
async fn delete(client: &Client, task: TaskId, next: Option<Timestamp>) -> Result<()> {
    match client.delete_task(&task.to_string(), DeleteTask::default()).await {
        Err(error) if error.code() == Some("task_not_found") => {
            let is_fresh = next.is_some_and(|next| next.saturating_add(LATEST) >= clock::now());
            ensure!(is_fresh, "{task} is not there, and has not fired for {next:?}");
            Ok(())
        }
        answer => Ok(answer.map(drop)?),
    }
}

/// Tasks that recur from `at(n)` on, and keep what ended within the last minute.
fn batch(url: &str, count: u64, at: impl Fn(u64) -> Timestamp) -> Bytes {
    let (mut lines, period) = (String::new(), PERIOD.0 / 1000);
    for n in 0..count {
        let start = at(n);
        // Writing into a string cannot fail.
        let _ = writeln!(
            lines,
            r#"{{"schedules":[{{"repeat":"R/{start}/PT{period}S"}}],"target":{{"http":{{"url":"{url}"}}}},"payload":"{PAYLOAD}","retention":{{"runs":1,"age":"1m"}}}}"#
        );
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use campanile_model::TaskSpec;

    use super::*;

    #[test]
    fn a_line_has_its_slope() {
        assert_eq!(slope(&[(0.0, 5.0), (1.0, 7.0), (2.0, 9.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 4.0), (1.0, 4.0)]), 0.0);
        assert_eq!([slope(&[]), slope(&[(1.0, 3.0)])], [0.0, 0.0]);
    }

    #[test]
    fn gaps_and_repeats_and_what_never_came_are_found() {
        let at = |periods: u64| Timestamp::from_millis(0).saturating_add(Millis(periods * PERIOD.0));
        let mut due = Due(HashMap::from([(TaskId(1), at(1))]));
        assert!(due.arrived(TaskId(1), at(2)).is_err(), "the first is missing");
        due.arrived(TaskId(1), at(1)).unwrap();
        assert!(due.arrived(TaskId(1), at(1)).is_err(), "a repeat");
        assert!(due.arrived(TaskId(1), at(3)).is_err(), "a gap");
        due.arrived(TaskId(2), at(7)).unwrap();
        due.check_none_before(at(3), PERIOD).unwrap();
        assert!(due.check_none_before(at(4), PERIOD).is_err(), "what was due at 2 never came");
    }

    #[test]
    fn the_tasks_are_definitions() {
        let lines = batch("http://127.0.0.1:9000/hook", 2, |n| Timestamp::from_millis(n as i64));
        let specs: Vec<TaskSpec> =
            serde_json::Deserializer::from_slice(&lines).into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(specs.len(), 2);
        assert_eq!(specs[0].retention.runs, 1);
    }
}
