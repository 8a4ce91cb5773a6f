//! The benchmark's task: a webhook with 64 bytes of payload, due once, without name or labels; and requests made of
//! many of them.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use campanile_model::api::BatchLine;
use campanile_model::{Millis, TaskId, Timestamp};

use crate::check::{Duty, Expected};
use crate::load::{Endpoint, Load};

/// Tasks of one batch request.
pub const BATCH: usize = 1000;
/// Connections over which tasks are put in place when that is not what is measured.
const LOADERS: usize = 6;
/// A string of 62 characters is 64 bytes of JSON.
pub const PAYLOAD: &str = "0123456789012345678901234567890123456789012345678901234567 end";

/// The task as JSON, due at an instant.
pub fn task_json(url: &str, at: Timestamp) -> String {
    format!(r#"{{"schedules":[{{"at":"{at}"}}],"target":{{"http":{{"url":"{url}"}}}},"payload":"{PAYLOAD}"}}"#)
}

/// A batch of tasks that recur every ten minutes from these instants on.
pub fn repeating_json(url: &str, starts: impl IntoIterator<Item = Timestamp>) -> Bytes {
    let mut lines = String::new();
    for start in starts {
        // Writing into a string cannot fail.
        let _ = writeln!(
            lines,
            r#"{{"schedules":[{{"repeat":"R/{start}/PT10M"}}],"target":{{"http":{{"url":"{url}"}}}},"payload":"{PAYLOAD}"}}"#
        );
    }
    lines.into()
}

/// A batch of tasks, due at these instants.
pub fn batch_json(url: &str, times: impl IntoIterator<Item = Timestamp>) -> Bytes {
    let mut lines = String::new();
    for at in times {
        // Writing into a string cannot fail.
        let _ = writeln!(lines, "{}", task_json(url, at));
    }
    lines.into()
}

/// The n-th of instants far ahead, spread over a month in an order that has nothing to do with that of submission.
pub fn far(now: Timestamp, n: u64) -> Timestamp {
    const DAY_MS: u64 = 86_400_000;
    let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (30 * DAY_MS);
    now.saturating_add(Millis(DAY_MS + spread))
}

/// Puts tasks in place, due at these instants, and tells what they have to fire.
pub async fn submit_due(nodes: &[String], url: &str, times: Vec<Timestamp>, within: Duration) -> Result<Placed> {
    let bodies: Vec<Bytes> = times.chunks(BATCH).map(|times| batch_json(url, times.iter().copied())).collect();
    let requests = bodies.len() as u64;
    let load = Load { keep_answers: true, ..Load::closed(Endpoint::Batch, LOADERS, requests, within) };
    let submitted = load.run(nodes, move |n| bodies[n as usize].clone()).await?;
    ensure!(submitted.requests == requests, "only {} of {requests} batches were accepted in time", submitted.requests);
    let mut placed = Placed::default();
    for answer in &submitted.answers {
        placed.take(answer)?;
    }
    ensure!(placed.tasks.len() == times.len(), "{} tasks were made of {}", placed.tasks.len(), times.len());
    Ok(placed)
}

/// Tasks that were acknowledged, and what they have to fire.
#[derive(Debug, Default)]
pub struct Placed {
    pub tasks: Vec<TaskId>,
    pub expected: Expected,
}

impl Placed {
    fn take(&mut self, answer: &Bytes) -> Result<()> {
        for line in serde_json::Deserializer::from_slice(answer).into_iter::<BatchLine>() {
            match line.context("a line of a batch's answer")? {
                BatchLine::Written { task, .. } => {
                    let next = task.next.with_context(|| format!("{} was due before it was acknowledged", task.id))?;
                    self.tasks.push(task.id);
                    self.expected.scheduled(task.id, next.scheduled_at, Duty::Fire);
                }
                BatchLine::Refused { error, .. } => bail!("a task was refused: {}: {}", error.code, error.detail),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::TaskSpec;

    use super::*;

    #[test]
    fn the_task_is_a_definition_with_64_bytes_of_payload() {
        let at = Timestamp::from_millis(1_800_000_000_123);
        let spec: TaskSpec = serde_json::from_str(&task_json("http://127.0.0.1:9000/hook", at)).unwrap();
        assert!(spec.is_one_shot());
        assert_eq!(spec.payload.unwrap().len(), 64);
        assert_eq!(spec.schedules, [campanile_model::Schedule::At(at)]);
    }

    #[test]
    fn a_batch_is_one_task_a_line() {
        let lines = batch_json("http://x", [Timestamp::from_millis(0), Timestamp::from_millis(1)]);
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn far_is_between_one_day_and_a_month_ahead() {
        let now = Timestamp::from_millis(0);
        for n in 0..1000 {
            let days = far(now, n).as_millis() / 86_400_000;
            assert!((1..=31).contains(&days));
        }
    }
}
