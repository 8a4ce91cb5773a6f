//! Calls on tasks.

use bytes::Bytes;
use campanile_model::api::{BatchLine, Page, Preview, TaskView, TaskWritten, Triggered};
use campanile_model::{TaskSpec, TaskStatus, Timestamp};
use http::Method;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use serde::Serialize;

use crate::call::{Call, Effect};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::path::Target;

/// What must hold for a write to take place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    None,
    /// The task does not exist yet.
    Absent,
    /// The task exists, in this version.
    Version(u32),
}

impl Condition {
    fn apply(self, call: Call) -> Result<Call> {
        // A repeated conditional write would meet its own first effect and call it somebody else's.
        match self {
            Self::None => Ok(call),
            Self::Absent => Ok(Call { effect: Effect::Once, ..call.header(IF_NONE_MATCH, "*")? }),
            Self::Version(version) => {
                Ok(Call { effect: Effect::Once, ..call.header(IF_MATCH, &format!("\"{version}\""))? })
            }
        }
    }
}

/// A definition beside the name it is created under; without one the cluster gives an id only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamedTask {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(flatten)]
    pub spec: TaskSpec,
}

/// Which tasks to list; the default is all, a page at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskQuery {
    pub prefix: Option<String>,
    pub state: Option<TaskStatus>,
    /// Inclusive.
    pub due_after: Option<Timestamp>,
    /// Exclusive.
    pub due_before: Option<Timestamp>,
    /// Key and value.
    pub label: Option<(String, String)>,
    pub limit: Option<usize>,
    /// Of the page before.
    pub page_token: Option<String>,
    /// Answer from what the node has, which may be a little old.
    pub stale: bool,
}

impl TaskQuery {
    fn append(&self, target: Target) -> Result<Target> {
        let state = self.state.map(state_text).transpose()?;
        Ok(target
            .query("prefix", self.prefix.as_ref())
            .query("state", state)
            .query("due_after", self.due_after)
            .query("due_before", self.due_before)
            .query("label", self.label.as_ref().map(|(key, value)| format!("{key}={value}")))
            .query("limit", self.limit)
            .query("page_token", self.page_token.as_ref())
            .query("consistency", self.stale.then_some("stale")))
    }
}

fn state_text(state: TaskStatus) -> Result<&'static str> {
    match state {
        TaskStatus::Active => Ok("active"),
        TaskStatus::Paused => Ok("paused"),
        TaskStatus::Finished => Ok("finished"),
        TaskStatus::Deleted => Err(Error::new(ErrorKind::InvalidRequest, "deleted tasks cannot be listed")),
    }
}

/// How to delete a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteTask {
    pub runs: RunsOnDelete,
    /// Only this version.
    pub version: Option<u32>,
}

/// What becomes of the live runs of a deleted task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunsOnDelete {
    #[default]
    Keep,
    Cancel,
}

impl Client {
    fn task(&self, name: &str) -> Target {
        self.target().then("/tasks").segment(name)
    }

    /// Creates or updates a task. A definition equal to the current one changes nothing.
    pub async fn put_task(&self, name: &str, spec: &TaskSpec, condition: Condition) -> Result<TaskWritten> {
        let call = Call::new(Method::PUT, self.task(name).finish(), Effect::Idempotent).json(spec)?;
        self.send(condition.apply(call)?).await?.json()
    }

    /// Creates a task, named or not. With an idempotency key a lost answer is safe to ask for again.
    pub async fn create_task(&self, task: &NamedTask, idempotency_key: Option<&str>) -> Result<TaskWritten> {
        let target = self.target().then("/tasks").finish();
        let call = Call::new(Method::POST, target, Effect::Once).json(task)?.idempotency_key(idempotency_key)?;
        self.send(call).await?.json()
    }

    /// Creates many tasks, up to [`campanile_model::limits::BATCH_TASKS`] at once. The answer has a line for each, in
    /// order; some may be refused while others are written.
    pub async fn create_batch(&self, tasks: &[NamedTask]) -> Result<Vec<BatchLine>> {
        let mut body = Vec::new();
        for task in tasks {
            serde_json::to_writer(&mut body, task).map_err(|error| {
                Error::new(ErrorKind::InvalidRequest, "a definition is not JSON").with_source(error)
            })?;
            body.push(b'\n');
        }
        self.create_batch_raw(body.into()).await
    }

    /// [`create_batch`](Self::create_batch) of lines that are JSON already, each ended by a newline.
    pub async fn create_batch_raw(&self, lines: Bytes) -> Result<Vec<BatchLine>> {
        let target = self.target().then("/tasks:batch").finish();
        let call = Call::new(Method::POST, target, Effect::Once).raw("application/x-ndjson", lines);
        let answer = self.send(call).await?;
        serde_json::Deserializer::from_slice(&answer.body).into_iter().collect::<serde_json::Result<_>>().map_err(
            |error| {
                Error::new(ErrorKind::InvalidAnswer, format!("a line of the batch's answer: {error}"))
                    .with_source(error)
            },
        )
    }

    pub async fn get_task(&self, name: &str) -> Result<TaskView> {
        self.send(Call::get(self.task(name).finish())).await?.json()
    }

    pub async fn list_tasks(&self, query: &TaskQuery) -> Result<Page<TaskView>> {
        let target = query.append(self.target().then("/tasks"))?.finish();
        self.send(Call::get(target)).await?.json()
    }

    /// Deletes a task. When an answer was lost and the call repeated, a task that is gone by then is reported as
    /// `task_not_found`.
    pub async fn delete_task(&self, name: &str, how: DeleteTask) -> Result<TaskWritten> {
        let runs = (how.runs == RunsOnDelete::Cancel).then_some("cancel");
        let target = self.task(name).query("runs", runs).finish();
        let call = Call::new(Method::DELETE, target, Effect::Idempotent);
        self.send(how.version.map_or(Condition::None, Condition::Version).apply(call)?).await?.json()
    }

    /// Pauses a task; with a version, only that one.
    pub async fn pause_task(&self, name: &str, version: Option<u32>) -> Result<TaskWritten> {
        let call = Call::new(Method::POST, self.task(name).then("/pause").finish(), Effect::Idempotent);
        self.send(version.map_or(Condition::None, Condition::Version).apply(call)?).await?.json()
    }

    /// Resumes a task; with a version, only that one.
    pub async fn resume_task(&self, name: &str, version: Option<u32>) -> Result<TaskWritten> {
        let call = Call::new(Method::POST, self.task(name).then("/resume").finish(), Effect::Idempotent);
        self.send(version.map_or(Condition::None, Condition::Version).apply(call)?).await?.json()
    }

    /// Fires a task now, beside its schedules. With an idempotency key a lost answer is safe to ask for again.
    pub async fn trigger_task(&self, name: &str, idempotency_key: Option<&str>) -> Result<Triggered> {
        let target = self.task(name).then("/trigger").finish();
        let call = Call::new(Method::POST, target, Effect::Once).idempotency_key(idempotency_key)?;
        self.send(call).await?.json()
    }

    /// The occurrences to come of a task, after an instant or from now on.
    pub async fn preview_task(&self, name: &str, count: usize, after: Option<Timestamp>) -> Result<Preview> {
        let target = self.task(name).then("/preview").query("count", Some(count)).query("after", after).finish();
        self.send(Call::get(target)).await?.json()
    }

    /// The occurrences that a definition would have. Writes nothing.
    pub async fn preview(&self, spec: &TaskSpec, count: usize, after: Option<Timestamp>) -> Result<Preview> {
        let target = self.target().then("/preview").query("count", Some(count)).query("after", after).finish();
        self.send(Call::new(Method::POST, target, Effect::None).json(spec)?).await?.json()
    }
}
