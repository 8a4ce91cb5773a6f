//! Clients: send what the plan says when it says so, to the node it says, once, and write down what they learn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use campanile_client::{Client, Condition, DeleteTask, Error, ErrorKind, NamedTask, RunQuery, RunsOnDelete};
use campanile_model::api::BatchLine;
use campanile_model::{NodeId, RunId, TaskSpec};

use super::reading;
use super::recorder::Recorder;
use crate::history::{Action, Event, Outcome, UNNAMED};
use crate::plan::PlannedOperation;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Numbers operations, and records them. Clones share the numbers.
#[derive(Clone)]
pub struct Clients {
    recorder: Recorder,
    /// API addresses, host and port.
    nodes: Arc<BTreeMap<NodeId, String>>,
    next: Arc<AtomicU64>,
    heard: Arc<Mutex<Heard>>,
}

/// What clients have learned that a plan cannot know: the ids of tasks without a name, and runs.
#[derive(Default)]
struct Heard {
    unnamed: BTreeMap<u32, String>,
    runs: BTreeMap<String, RunId>,
}

impl Clients {
    pub fn new(recorder: Recorder, nodes: BTreeMap<NodeId, String>) -> Self {
        Self { recorder, nodes: Arc::new(nodes), next: Arc::new(AtomicU64::new(1)), heard: Arc::default() }
    }

    /// The same clients, when these are the nodes.
    pub fn of(&self, nodes: BTreeMap<NodeId, String>) -> Self {
        Self { nodes: Arc::new(nodes), ..self.clone() }
    }

    /// Does what is planned, each operation when its time has come and in a task of its own, so that a slow answer holds
    /// nothing back. `any` picks the node of an operation that leaves it open.
    pub async fn perform_all(self, operations: Vec<PlannedOperation>, mut any: impl FnMut() -> NodeId) {
        let start = tokio::time::Instant::now();
        for operation in operations {
            tokio::time::sleep_until(start + operation.at.to_std()).await;
            let node = if operation.node == 0 { any() } else { NodeId(u64::from(operation.node)) };
            let clients = self.clone();
            tokio::spawn(async move {
                clients.perform(operation.client, node, operation.action).await;
            });
        }
    }

    /// One request to one node, never repeated; none where it is about what the client has not heard of. Of what has
    /// pages, as many requests as it wants pages, each to another node.
    async fn perform(&self, client: u32, node: NodeId, planned: Action) {
        let action = match self.resolved(client, node, planned.clone()).await {
            Ok(action) => action,
            Err(reason) => return self.recorder.record(Event::NotSent { client, node, action: planned, reason }),
        };
        let (mut op, mut token) = self.request(client, node, &action, None).await;
        let Some(page) = action.page() else { return };
        let nodes = self.nodes.keys().cycle().skip_while(|other| **other != node).skip(1);
        for node in nodes.take(page.pages.saturating_sub(1) as usize) {
            let Some(from) = token else { return };
            tokio::time::sleep(page.rest.to_std()).await;
            (op, token) = self.request(client, *node, &action.clone().of_page_after(op), Some(from)).await;
        }
    }

    /// Its number, and what asks for the page after it.
    async fn request(&self, client: u32, node: NodeId, action: &Action, page: Option<String>) -> (u64, Option<String>) {
        let op = self.next.fetch_add(1, Ordering::Relaxed);
        self.recorder.record(Event::Invoke { op, client, node, action: action.clone() });
        let address = self.nodes.get(&node).map_or("", String::as_str);
        let outcome = match connect(address) {
            Ok(to) => ask(&to, action.clone(), page).await.unwrap_or_else(|error| learned(&error)),
            Err(error) => Outcome::Unknown { reason: error.to_string() },
        };
        self.hear(client, action, &outcome);
        let next = outcome.next_page_token().map(str::to_owned);
        self.recorder.record(Event::Return { op, outcome });
        (op, next)
    }
}

impl Clients {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is really sent, or why nothing is.
    async fn resolved(&self, client: u32, node: NodeId, planned: Action) -> Result<Action, String> {
        let action = if planned.task_name() == Some(UNNAMED) {
            let id = self.heard().unnamed.get(&client).cloned();
            planned.of_task(id.ok_or("the client has heard of no task without a name")?)
        } else {
            planned
        };
        match action {
            Action::CancelRunOf { name } => Ok(Action::CancelRun { run: self.run_of(node, name).await? }),
            Action::GetRunOf { name } => Ok(Action::GetRun { run: self.run_of(node, name).await? }),
            action => Ok(action),
        }
    }

    /// One that a trigger's answer has told, once; else the newest in the list.
    async fn run_of(&self, node: NodeId, name: String) -> Result<RunId, String> {
        let told = self.heard().runs.remove(&name);
        if let Some(told) = told {
            return Ok(told);
        }
        let newest = RunQuery { limit: Some(1), ..RunQuery::default() };
        let list = async { connect(self.nodes.get(&node).map_or("", String::as_str))?.list_runs(&name, &newest).await };
        let page = list.await.map_err(|error: Error| format!("its runs were not listed: {error}"))?;
        page.items.first().map(|run| run.id).ok_or_else(|| "the task has no run".to_owned())
    }

    fn hear(&self, client: u32, action: &Action, outcome: &Outcome) {
        match (action, outcome) {
            (Action::Put { name, .. }, Outcome::Written { task }) if name.is_empty() => {
                self.heard().unnamed.insert(client, task.id.to_string());
            }
            (Action::Trigger { name, .. }, Outcome::Triggered { triggered }) => {
                self.heard().runs.insert(name.clone(), triggered.run);
            }
            _ => {}
        }
    }
}

/// A client of one node, by its API address, that tries once.
pub fn connect(address: &str) -> Result<Client, Error> {
    Client::builder([address])
        .retries(0)
        .deadline(PATIENCE)
        .attempt_timeout(PATIENCE)
        .connect_timeout(Duration::from_secs(2))
        .build()
}

async fn ask(to: &Client, action: Action, page: Option<String>) -> Result<Outcome, Error> {
    Ok(match action {
        Action::Put { name, spec, if_version, create_only, idempotency_key } => {
            let task = if idempotency_key.is_some() || name.is_empty() {
                to.create_task(&named(name, *spec), idempotency_key.as_deref()).await?
            } else {
                let condition = match if_version {
                    Some(version) => Condition::Version(version),
                    None if create_only => Condition::Absent,
                    None => Condition::None,
                };
                to.put_task(&name, &spec, condition).await?
            };
            Outcome::Written { task }
        }
        Action::PutBad { name, spec } => Outcome::Written { task: to.put_task(&name, &spec, Condition::None).await? },
        Action::Batch { lines } => {
            let tasks = lines.into_iter().filter_map(|line| match line {
                Action::Put { name, spec, .. } | Action::PutBad { name, spec } => Some(named(name, *spec)),
                _ => None,
            });
            let answers = to.create_batch(&tasks.collect::<Vec<_>>()).await?;
            Outcome::Batch { lines: answers.into_iter().map(of_line).collect() }
        }
        Action::Pause { name, if_version } => Outcome::Written { task: to.pause_task(&name, if_version).await? },
        Action::Resume { name, if_version } => Outcome::Written { task: to.resume_task(&name, if_version).await? },
        Action::Delete { name, cancel_runs, if_version } => {
            let runs = if cancel_runs { RunsOnDelete::Cancel } else { RunsOnDelete::Keep };
            let how = DeleteTask { runs, version: if_version };
            Outcome::Written { task: to.delete_task(&name, how).await? }
        }
        Action::Trigger { name, idempotency_key } => {
            Outcome::Triggered { triggered: to.trigger_task(&name, idempotency_key.as_deref()).await? }
        }
        Action::Get { name } => Outcome::Read { task: Box::new(to.get_task(&name).await?) },
        Action::CancelRun { run } => Outcome::Run { run: Box::new(to.cancel_run(run).await?) },
        Action::GetRun { run } => Outcome::Run { run: Box::new(to.get_run(run).await?) },
        Action::ListTasks { filter, page: paging } => reading::tasks(to, filter, &paging, page).await?,
        Action::ListRuns { name, state, page: paging } => reading::runs(to, &name, state, &paging, page).await?,
        Action::Ledger { name, filter, page: paging } => reading::ledger(to, &name, &filter, &paging, page).await?,
        Action::Preview { name, count, after } => {
            Outcome::Preview { items: to.preview_task(&name, count as usize, after).await?.items }
        }
        Action::PreviewSpec { spec, count, after } => {
            Outcome::Preview { items: to.preview(&spec, count as usize, after).await?.items }
        }
        // Resolved before they are sent.
        Action::CancelRunOf { .. } | Action::GetRunOf { .. } => Outcome::Unknown { reason: "not sent".into() },
    })
}

fn named(name: String, spec: TaskSpec) -> NamedTask {
    NamedTask { name: Some(name).filter(|name| !name.is_empty()), spec }
}

fn of_line(line: BatchLine) -> Outcome {
    match line {
        BatchLine::Written { task, .. } => Outcome::Written { task },
        BatchLine::Refused { status, error, .. } => Outcome::Refused { status, code: error.code },
    }
}

/// What a failed call tells. A refusal had no effect; of anything else nothing is known.
fn learned(error: &Error) -> Outcome {
    match (error.kind(), error.problem()) {
        (ErrorKind::Refused, Some(problem)) => Outcome::Refused { status: problem.status, code: problem.code.clone() },
        (ErrorKind::Unreachable, _) => Outcome::Refused { status: 0, code: "unreachable".into() },
        _ => Outcome::Unknown { reason: error.to_string() },
    }
}
