//! The HTTP face of a node. Every node answers everything: writes are forwarded to the leader, reads wait until this
//! node has applied what was acknowledged before them.
//!
//! A handler takes a request apart, proposes or reads, and puts the answer together. It holds no state of its own and
//! decides nothing that the log decides.

mod admission;
mod batch;
mod cluster;
pub mod definition;
mod extract;
pub mod openapi;
pub mod problem;
mod runs;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use campanile_model::{Code, Command, NodeId, Reply, TaskName, TaskState};
use campanile_raft::{Clock, Lane, Replica};
use campanile_store::View;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::metrics::{Metrics, RequestLabels};
use crate::plans::Plans;
pub use admission::Admission;
use extract::Consistency;
use problem::ApiError;

pub type ApiResult<T> = Result<T, ApiError>;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api(Arc<ApiState>);

pub struct ApiState {
    pub node: NodeId,
    pub replica: Replica,
    pub clock: Clock,
    pub plans: Arc<Plans>,
    pub metrics: Arc<Metrics>,
    pub batches: Admission,
    /// Set while the disk has less free than it must: writes are refused.
    pub disk_full: Arc<AtomicBool>,
    /// Set once the node is draining.
    pub draining: Arc<AtomicBool>,
}

impl std::ops::Deref for Api {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.0
    }
}

impl Api {
    /// Commits one command and gives the log's reply to it.
    async fn propose(&self, lane: Lane, command: Command) -> ApiResult<Reply> {
        self.propose_all(lane, vec![command])
            .await?
            .pop()
            .ok_or_else(|| ApiError::new(Code::Internal, "the log answered nothing"))
    }

    async fn propose_all(&self, lane: Lane, commands: Vec<Command>) -> ApiResult<Vec<Reply>> {
        if self.disk_full.load(Ordering::Relaxed) {
            return Err(ApiError::new(Code::DiskFull, "this node's disk is nearly full; nothing is written"));
        }
        Ok(self.replica.propose(lane, commands).await?)
    }

    /// After this, [`Api::view`] shows every write acknowledged before, unless staleness is asked for.
    async fn barrier(&self, consistency: Consistency) -> ApiResult<()> {
        match consistency {
            Consistency::Stale => Ok(()),
            Consistency::Linearizable => Ok(self.replica.read_barrier().await?),
        }
    }

    fn view(&self) -> View {
        self.replica.store().view()
    }

    fn namespace(&self, namespace: &str) -> ApiResult<()> {
        if namespace == crate::DEFAULT_NAMESPACE {
            return Ok(());
        }
        Err(ApiError::new(Code::NamespaceNotFound, format!("there is no namespace {namespace:?}")))
    }

    fn find(&self, view: &View, task: &TaskName) -> ApiResult<TaskState> {
        self.namespace(&task.namespace)?;
        view.find_task(task)?
            .ok_or_else(|| ApiError::new(Code::TaskNotFound, format!("there is no task {:?}", task.name)))
    }
}

/// All routes of a node.
pub fn router(state: ApiState) -> Router {
    let api = Api(Arc::new(state));
    Router::new()
        .route("/v1/namespaces/{ns}/tasks", get(tasks::list).post(tasks::post))
        .route("/v1/namespaces/{ns}/tasks:batch", post(batch::post))
        .route("/v1/namespaces/{ns}/tasks/{name}", get(tasks::get).put(tasks::put).delete(tasks::delete))
        .route("/v1/namespaces/{ns}/tasks/{name}/pause", post(tasks::pause))
        .route("/v1/namespaces/{ns}/tasks/{name}/resume", post(tasks::resume))
        .route("/v1/namespaces/{ns}/tasks/{name}/trigger", post(tasks::trigger))
        .route("/v1/namespaces/{ns}/tasks/{name}/preview", get(tasks::preview))
        .route("/v1/namespaces/{ns}/tasks/{name}/runs", get(runs::list))
        .route("/v1/namespaces/{ns}/tasks/{name}/ledger", get(runs::ledger))
        .route("/v1/namespaces/{ns}/preview", post(tasks::preview_definition))
        .route("/v1/namespaces/{ns}/runs/{id}", get(runs::get))
        .route("/v1/namespaces/{ns}/runs/{id}/cancel", post(runs::cancel))
        .route("/v1/cluster", get(cluster::status))
        .route("/v1/cluster/nodes", post(cluster::add))
        .route("/v1/cluster/nodes/{id}", delete(cluster::remove))
        .route("/v1/cluster/leader", post(cluster::transfer))
        .route("/v1/cluster/digest", get(cluster::digest))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/errors/{code}", get(openapi::error_page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(api.clone(), measure))
        .with_state(api)
}

/// The process answers.
async fn livez() -> &'static str {
    "ok\n"
}

/// The node can take writes: there is a leader, and what it has committed is applied here.
async fn readyz(State(api): State<Api>) -> Response {
    if api.draining.load(Ordering::Relaxed) {
        return ApiError::new(Code::ShuttingDown, "this node is shutting down").into_response();
    }
    match api.replica.read_barrier().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => ApiError::new(Code::NotReady, error.to_string()).into_response(),
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    let mut response = api.metrics.render(api.replica.metrics(), &api.replica.databases()).into_response();
    let openmetrics = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, openmetrics);
    response
}

async fn not_found(request: Request) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is nothing at {}", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, format!("{} does not take {}", request.uri().path(), request.method()))
}

/// Counts and times requests.
async fn measure(State(api): State<Api>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let started = api.clock.instant();
    let response = next.run(request).await;
    api.metrics.request_seconds.observe((api.clock.instant() - started).as_secs_f64());
    let labels = RequestLabels { route: route.unwrap_or_default(), status: response.status().as_u16() };
    api.metrics.requests.get_or_create(&labels).inc();
    response
}
