//! Tasks: write, read, list, and the verbs.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use campanile_model::api::{Change, NextView, Page, Preview, TaskView, TaskWritten, Triggered};
use campanile_model::{
    Code, Command, DeleteTask, PauseTask, PutMode, PutTask, Rejection, Reply, ResumeTask, TaskId, TaskName, TaskReply,
    TaskSpec, TaskState, TaskStatus, Timestamp, TriggerTask, limits, planted,
};
use campanile_raft::Lane;
use campanile_store::TaskQuery;
use campanile_timer::{Anchors, Plan};
use http::header::{ETAG, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::definition::{self, Definition};
use super::extract::{
    Consistency, Params, Segments, TaskPath, body, idempotency, if_match, page_position, page_size, page_token,
    put_mode,
};
use super::problem::ApiError;
use super::{Api, ApiResult};
use crate::secret;

/// Creates a task, or updates it to this definition.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/tasks/{name}", tag = "tasks", request_body = campanile_model::TaskSpec,
    params(("ns", description = "Namespace"), ("name", description = "Task name"),
        ("If-Match" = Option<String>, Header, description = "Update only if the task is at this version"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: create only")),
    responses((status = 201, body = TaskWritten), (status = 200, body = TaskWritten),
        (status = 412, description = "The task is at another version", body = campanile_model::api::Problem)))]
pub async fn put(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    headers: HeaderMap,
    request: Body,
) -> ApiResult<Response> {
    let mode = put_mode(&headers)?;
    let definition = definition::read(&body(request, limits::BODY_BYTES).await?, api.clock.now())?;
    let task = path.task();
    if definition.name.as_ref().is_some_and(|name| *name != task.name) {
        return Err(ApiError::field(Code::InvalidField, "name", "the name in the body is not the one in the path"));
    }
    if task.name.parse::<TaskId>().is_err() {
        definition::check_name(&task.name)?;
    } else if mode == PutMode::Upsert || mode == PutMode::Create {
        // An id names a task that is there; it cannot be taken as a name.
        api.barrier(Consistency::Linearizable).await?;
        api.find(&api.view(), &task)?;
    }
    write(&api, task, definition, mode, None).await
}

/// Creates a task. Without a name it is called by its id.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/tasks", tag = "tasks", request_body = campanile_model::TaskSpec,
    params(("ns", description = "Namespace"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for 10 minutes")),
    responses((status = 201, body = TaskWritten),
        (status = 409, description = "The name is taken", body = campanile_model::api::Problem),
        (status = 422, description = "The key was used for another request", body = campanile_model::api::Problem)))]
pub async fn post(
    State(api): State<Api>,
    Segments(ns): Segments<String>,
    headers: HeaderMap,
    request: Body,
) -> ApiResult<Response> {
    let bytes = body(request, limits::BODY_BYTES).await?;
    let idempotency = idempotency(&headers, &[b"create", ns.as_bytes(), &bytes])?;
    let definition = definition::read(&bytes, api.clock.now())?;
    if let Some(name) = &definition.name {
        definition::check_name(name)?;
    }
    let task = TaskName { namespace: ns, name: definition.name.clone().unwrap_or_default() };
    write(&api, task, definition, PutMode::Create, idempotency).await
}

async fn write(
    api: &Api,
    task: TaskName,
    definition: Definition,
    mode: PutMode,
    idempotency: Option<campanile_model::Idempotency>,
) -> ApiResult<Response> {
    let Definition { spec, warnings, .. } = definition;
    let put = PutTask { task: task.clone(), spec, mode, idempotency, prepared: None };
    let reply = api.propose(Lane::Api, Command::PutTask(Box::new(put))).await?;
    let mut written = written(&task, expect_task(reply)?);
    written.warnings = warnings;
    let status = if written.change == Change::Created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, Json(&written)).into_response();
    set_etag(&mut response, written.version);
    if status == StatusCode::CREATED
        && let Ok(location) =
            HeaderValue::from_str(&format!("/v1/namespaces/{}/tasks/{}", task.namespace, written.name))
    {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// The answer to a write, from the log's reply to it.
pub(super) fn written(task: &TaskName, reply: TaskReply) -> TaskWritten {
    TaskWritten {
        id: reply.id,
        namespace: task.namespace.clone(),
        name: if task.name.is_empty() { reply.id.to_string() } else { task.name.clone() },
        version: reply.version,
        state: reply.status,
        change: reply.change.into(),
        next: reply.next.map(NextView::from),
        warnings: Vec::new(),
    }
}

pub(super) fn expect_task(reply: Reply) -> Result<TaskReply, Rejection> {
    match reply {
        Reply::Task(reply) => Ok(reply),
        Reply::Rejected(rejection) => Err(rejection),
        other => Err(Rejection::new(Code::Internal, format!("the log answered {other:?} to a write of a task"))),
    }
}

fn set_etag(response: &mut Response, version: u32) {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, etag);
    }
}

/// Reads a task.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/tasks/{name}", tag = "tasks",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id"),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has")),
    responses((status = 200, body = TaskView), (status = 404, body = campanile_model::api::Problem)))]
pub async fn get(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    Params(params): Params<ReadParams>,
) -> ApiResult<Response> {
    api.barrier(params.consistency).await?;
    let view = api.view();
    let state = api.find(&view, &path.task())?;
    let version = state.version;
    let spec = view.spec(state.id, version)?;
    let mut response = Json(task_view(state, spec)?).into_response();
    set_etag(&mut response, version);
    Ok(response)
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadParams {
    #[serde(default)]
    pub consistency: Consistency,
}

/// A task with the definition that was found of its version.
fn task_view(state: TaskState, spec: Option<TaskSpec>) -> ApiResult<TaskView> {
    let mut spec = spec
        .ok_or_else(|| ApiError::new(Code::Internal, format!("task {} has no version {}", state.id, state.version)))?;
    secret::redact(&mut spec.target);
    Ok(TaskView {
        id: state.id,
        name: state.display_name(),
        namespace: state.namespace,
        version: state.version,
        state: state.status,
        created_at: state.created_at,
        updated_at: state.version_at,
        next: state.next.map(NextView::from),
        decided_until: (state.decided_until > Timestamp::MIN).then_some(state.decided_until),
        remaining_fires: state.remaining,
        tally: state.tally,
        spec,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    prefix: Option<String>,
    state: Option<TaskStatus>,
    due_after: Option<Timestamp>,
    due_before: Option<Timestamp>,
    label: Option<String>,
    limit: Option<usize>,
    page_token: Option<String>,
    #[serde(default)]
    consistency: Consistency,
}

/// Lists tasks by name.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/tasks", tag = "tasks",
    params(("ns", description = "Namespace"),
        ("prefix" = Option<String>, Query, description = "Names that start with this"),
        ("state" = Option<String>, Query, description = "active, paused or finished"),
        ("due_after" = Option<String>, Query, description = "Next occurrence due at or after this instant"),
        ("due_before" = Option<String>, Query, description = "Next occurrence due before this instant"),
        ("label" = Option<String>, Query, description = "key=value"),
        ("limit" = Option<usize>, Query, description = "Items on a page, 1 to 1000"),
        ("page_token" = Option<String>, Query, description = "From the page before"),
        ("consistency" = Option<String>, Query, description = "`stale`: what this node has")),
    responses((status = 200, body = Page<TaskView>)))]
pub async fn list(
    State(api): State<Api>,
    Segments(ns): Segments<String>,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<TaskView>>> {
    let label = params
        .label
        .as_deref()
        .map(|label| {
            label
                .split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| ApiError::field(Code::InvalidField, "label", "a label filter is key=value"))
        })
        .transpose()?;
    let list = format!(
        "tasks/{ns}?{:?}{:?}{:?}{:?}{:?}",
        params.prefix, params.state, params.due_after, params.due_before, params.label
    );
    let query = TaskQuery {
        name_prefix: params.prefix.unwrap_or_default(),
        status: params.state,
        due_from: params.due_after,
        due_until: params.due_before,
        label,
        max: page_size(params.limit)?,
        after: page_position(&list, params.page_token.as_deref())?,
        namespace: ns,
    };
    let consistency = if planted!(ListIsStale) { Consistency::Stale } else { params.consistency };
    api.barrier(consistency).await?;
    let view = api.view();
    api.namespace(&query.namespace)?;
    let page = view.list_tasks(&query)?;
    let versions: Vec<_> = page.items.iter().map(|state| (state.id, state.version)).collect();
    let specs = view.specs(&versions)?;
    let items =
        page.items.into_iter().zip(specs).map(|(state, spec)| task_view(state, spec)).collect::<ApiResult<_>>()?;
    Ok(Json(Page { items, next_page_token: page.next.map(|position| page_token(&list, &position)) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteParams {
    #[serde(default)]
    runs: RunsOfDeleted,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RunsOfDeleted {
    #[default]
    Keep,
    Cancel,
}

/// Deletes a task. Nothing fires under it once this is answered.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/tasks/{name}", tag = "tasks",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id"),
        ("runs" = Option<String>, Query, description = "keep (they finish) or cancel"),
        ("If-Match" = Option<String>, Header, description = "Only if the task is at this version")),
    responses((status = 200, body = TaskWritten), (status = 404, body = campanile_model::api::Problem)))]
pub async fn delete(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    Params(params): Params<DeleteParams>,
    headers: HeaderMap,
) -> ApiResult<Json<TaskWritten>> {
    let task = path.task();
    let command = Command::DeleteTask(DeleteTask {
        task: task.clone(),
        if_version: if_match(&headers)?,
        cancel_runs: params.runs == RunsOfDeleted::Cancel,
    });
    verb(&api, task, command).await
}

/// Pauses a task: its occurrences lapse until it is resumed.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/tasks/{name}/pause", tag = "tasks",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id")),
    responses((status = 200, body = TaskWritten)))]
pub async fn pause(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    headers: HeaderMap,
) -> ApiResult<Json<TaskWritten>> {
    let task = path.task();
    let command = Command::PauseTask(PauseTask { task: task.clone(), if_version: if_match(&headers)? });
    verb(&api, task, command).await
}

/// Resumes a paused task with its next occurrence.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/tasks/{name}/resume", tag = "tasks",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id")),
    responses((status = 200, body = TaskWritten)))]
pub async fn resume(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    headers: HeaderMap,
) -> ApiResult<Json<TaskWritten>> {
    let task = path.task();
    let command = Command::ResumeTask(ResumeTask { task: task.clone(), if_version: if_match(&headers)? });
    verb(&api, task, command).await
}

async fn verb(api: &Api, task: TaskName, command: Command) -> ApiResult<Json<TaskWritten>> {
    let reply = api.propose(Lane::Api, command).await?;
    Ok(Json(written(&task, expect_task(reply)?)))
}

/// Fires a task now, whatever its schedules and whether it is paused.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/tasks/{name}/trigger", tag = "tasks",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request safe for 10 minutes")),
    responses((status = 202, body = Triggered)))]
pub async fn trigger(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let task = path.task();
    let idempotency = idempotency(&headers, &[b"trigger", task.namespace.as_bytes(), task.name.as_bytes()])?;
    let reply = api.propose(Lane::Api, Command::TriggerTask(TriggerTask { task, idempotency })).await?;
    match reply {
        Reply::Run(run) => {
            let triggered = Triggered { run: run.run, occurrence_id: run.occurrence };
            Ok((StatusCode::ACCEPTED, Json(triggered)).into_response())
        }
        Reply::Rejected(rejection) => Err(rejection.into()),
        other => Err(ApiError::new(Code::Internal, format!("the log answered {other:?} to a trigger"))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewParams {
    count: Option<usize>,
    after: Option<Timestamp>,
    #[serde(default)]
    consistency: Consistency,
}

impl PreviewParams {
    fn count(&self) -> ApiResult<usize> {
        match self.count {
            None => Ok(10),
            Some(count) if (1..=limits::PREVIEW_COUNT).contains(&count) => Ok(count),
            Some(count) => Err(ApiError::field(
                Code::LimitExceeded,
                "count",
                format!("{count} is not between 1 and {}", limits::PREVIEW_COUNT),
            )),
        }
    }
}

/// The next occurrences of a task.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/tasks/{name}/preview", tag = "tasks",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id"),
        ("count" = Option<usize>, Query, description = "How many, 1 to 1000; 10 by default"),
        ("after" = Option<String>, Query, description = "After this instant; now by default")),
    responses((status = 200, body = Preview)))]
pub async fn preview(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    Params(params): Params<PreviewParams>,
) -> ApiResult<Json<Preview>> {
    let count = params.count()?;
    api.barrier(params.consistency).await?;
    let view = api.view();
    let state = api.find(&view, &path.task())?;
    let planned = api.plans.of(&view, &state).map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
    let after = params.after.unwrap_or_else(|| api.clock.now()).max(state.decided_until);
    Ok(Json(occurrences(&planned.plan, after, count)))
}

/// The next occurrences a definition would have, without writing it.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/preview", tag = "tasks", request_body = campanile_model::TaskSpec,
    params(("ns", description = "Namespace"),
        ("count" = Option<usize>, Query, description = "How many, 1 to 1000; 10 by default"),
        ("after" = Option<String>, Query, description = "After this instant; now by default")),
    responses((status = 200, body = Preview)))]
pub async fn preview_definition(
    State(api): State<Api>,
    Segments(ns): Segments<String>,
    Params(params): Params<PreviewParams>,
    request: Body,
) -> ApiResult<Json<Preview>> {
    let count = params.count()?;
    api.namespace(&ns)?;
    let now = api.clock.now();
    let definition = definition::read(&body(request, limits::BODY_BYTES).await?, now)?;
    let name = definition.name.unwrap_or_default();
    let spread = crate::prepare::spread_of(&TaskName { namespace: ns, name });
    let plan = Plan::compile(&definition.spec, Anchors::new(now, spread))?;
    Ok(Json(match params.after {
        Some(after) => occurrences(&plan, after, count),
        None => occurrences(&plan, Timestamp::MIN, count),
    }))
}

fn occurrences(plan: &Plan, after: Timestamp, count: usize) -> Preview {
    let first = plan.next(after);
    let items = std::iter::successors(first, |next| plan.next(next.scheduled_at)).map(|next| NextView {
        scheduled_at: next.scheduled_at,
        due_at: if planted!(PreviewWithoutJitter) { next.scheduled_at } else { next.due_at },
    });
    Preview { items: items.take(count).collect() }
}
