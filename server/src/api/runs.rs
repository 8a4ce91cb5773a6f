//! Runs and the ledger: what fired, what became of it, and what did not fire and why.

use axum::Json;
use axum::extract::State;
use campanile_model::api::{LedgerLineView, LedgerView, Page, RunView};
use campanile_model::{Code, Command, OccurrenceId, Reply, RunId, RunState, Timestamp, planted};
use campanile_raft::Lane;
use campanile_store::{LedgerLine, LedgerQuery, RunQuery, View};
use serde::Deserialize;

use super::extract::{Consistency, Params, Segments, TaskPath, page_position, page_size, page_token};
use super::problem::ApiError;
use super::tasks::ReadParams;
use super::{Api, ApiResult};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsParams {
    state: Option<RunState>,
    limit: Option<usize>,
    page_token: Option<String>,
    #[serde(default)]
    consistency: Consistency,
}

/// A task's runs, newest first.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/tasks/{name}/runs", tag = "runs",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id"),
        ("state" = Option<String>, Query, description = "pending, running, retrying, succeeded, failed, cancelled, timed_out"),
        ("limit" = Option<usize>, Query, description = "Items on a page, 1 to 1000"),
        ("page_token" = Option<String>, Query, description = "From the page before")),
    responses((status = 200, body = Page<RunView>)))]
pub async fn list(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    Params(params): Params<RunsParams>,
) -> ApiResult<Json<Page<RunView>>> {
    api.barrier(params.consistency).await?;
    let view = api.view();
    let task = api.find(&view, &path.task())?;
    let list = format!("runs/{}?{:?}", task.id, params.state);
    let query = RunQuery {
        state: params.state,
        max: page_size(params.limit)?,
        after: page_position(&list, params.page_token.as_deref())?,
    };
    let page = view.runs_of(task.id, &query)?;
    let name = task.display_name();
    Ok(Json(Page {
        items: page.items.into_iter().map(|run| RunView::new(run, Some(name.clone()))).collect(),
        next_page_token: page.next.map(|position| page_token(&list, &position)),
    }))
}

#[derive(Deserialize)]
pub struct RunPath {
    ns: String,
    id: String,
}

impl RunPath {
    fn run(&self) -> ApiResult<RunId> {
        self.id.parse().map_err(|_| ApiError::new(Code::RunNotFound, format!("{:?} is not a run's id", self.id)))
    }
}

fn run_view(view: &View, id: RunId) -> ApiResult<RunView> {
    let run = view.run(id)?.ok_or_else(|| ApiError::new(Code::RunNotFound, format!("there is no run {id}")))?;
    let name = view.task(run.task)?.map(|task| task.display_name());
    Ok(RunView::new(run, name))
}

/// Reads a run.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/runs/{id}", tag = "runs",
    params(("ns", description = "Namespace"), ("id", description = "Run id")),
    responses((status = 200, body = RunView), (status = 404, body = campanile_model::api::Problem)))]
pub async fn get(
    State(api): State<Api>,
    Segments(path): Segments<RunPath>,
    Params(params): Params<ReadParams>,
) -> ApiResult<Json<RunView>> {
    api.namespace(&path.ns)?;
    let run = path.run()?;
    api.barrier(params.consistency).await?;
    Ok(Json(run_view(&api.view(), run)?))
}

/// Cancels a run. An attempt already sent cannot be recalled; its outcome is refused.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/runs/{id}/cancel", tag = "runs",
    params(("ns", description = "Namespace"), ("id", description = "Run id")),
    responses((status = 200, body = RunView),
        (status = 409, description = "The run has finished", body = campanile_model::api::Problem)))]
pub async fn cancel(State(api): State<Api>, Segments(path): Segments<RunPath>) -> ApiResult<Json<RunView>> {
    api.namespace(&path.ns)?;
    let run = path.run()?;
    match api.propose(Lane::Api, Command::CancelRun { run }).await? {
        Reply::Rejected(rejection) => Err(rejection.into()),
        _ => {
            // The run is cancelled by now: that it cannot be read is no refusal.
            let unread = |_| {
                let code = if planted!(CancelledIsRefused) { Code::NoLeader } else { Code::OutcomeUnknown };
                ApiError::new(code, "the run was to be cancelled and cannot be read")
            };
            api.barrier(Consistency::Linearizable).await.map_err(unread)?;
            // It may have gone since, with its task.
            Ok(Json(run_view(&api.view(), run).map_err(unread)?))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerParams {
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    limit: Option<usize>,
    page_token: Option<String>,
    #[serde(default)]
    consistency: Consistency,
}

/// A task's ledger, oldest first: every occurrence, and what became of it.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/tasks/{name}/ledger", tag = "runs",
    params(("ns", description = "Namespace"), ("name", description = "Task name or id"),
        ("after" = Option<String>, Query, description = "Scheduled at or after this instant"),
        ("before" = Option<String>, Query, description = "Scheduled before this instant"),
        ("limit" = Option<usize>, Query, description = "Lines on a page, 1 to 1000"),
        ("page_token" = Option<String>, Query, description = "From the page before")),
    responses((status = 200, body = LedgerView)))]
pub async fn ledger(
    State(api): State<Api>,
    Segments(path): Segments<TaskPath>,
    Params(params): Params<LedgerParams>,
) -> ApiResult<Json<LedgerView>> {
    api.barrier(params.consistency).await?;
    let view = api.view();
    let task = api.find(&view, &path.task())?;
    let list = format!("ledger/{}?{:?}{:?}", task.id, params.after, params.before);
    let query = LedgerQuery {
        from: params.after,
        until: params.before,
        max: page_size(params.limit)?,
        after: page_position(&list, params.page_token.as_deref())?,
    };
    let page = view.ledger(task.id, &query)?;
    let mut items = Vec::with_capacity(page.items.len());
    for line in page.items {
        items.push(line_view(&view, task.id, line)?);
    }
    Ok(Json(LedgerView {
        task_id: task.id,
        decided_until: (task.decided_until > Timestamp::MIN).then_some(task.decided_until),
        tally: task.tally,
        folded: task.folded,
        items,
        next_page_token: page.next.map(|position| page_token(&list, &position)),
    }))
}

fn line_view(view: &View, task: campanile_model::TaskId, line: LedgerLine) -> ApiResult<LedgerLineView> {
    let run_state = match line.run {
        Some(run) => view.run(run)?.map(|run| run.state),
        None => None,
    };
    let id = OccurrenceId { task, scheduled_at: line.scheduled_at, origin: line.origin };
    Ok(LedgerLineView {
        kind: line.kind,
        reason: line.reason,
        origin: line.origin.into(),
        scheduled_at: line.scheduled_at,
        last: line.last,
        count: line.count,
        version: line.version,
        occurrence_id: (line.count == 1).then_some(id),
        run: line.run,
        run_state,
    })
}
