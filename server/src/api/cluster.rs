//! The cluster itself: status, members, leadership, digest.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use campanile_model::api::{AddNode, ClusterView, NodeView, Role, TransferLeader};
use campanile_model::{Code, NodeId, limits};
use campanile_raft::{MembershipError, rt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::extract::{Segments, body};
use super::problem::ApiError;
use super::{Api, ApiResult};

/// How long a change of members or leader may take before the answer says that it is still under way.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);

/// The cluster as this node sees it; answered without a leader too.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", responses((status = 200, body = ClusterView)))]
pub async fn status(State(api): State<Api>) -> ApiResult<Json<ClusterView>> {
    view(&api).map(Json)
}

fn view(api: &Api) -> ApiResult<ClusterView> {
    let status = api.replica.status();
    let state = api.view();
    let rows = state.nodes()?;
    let shards = state.shards()?;
    let counts = state.counts()?;
    let nodes = status
        .nodes
        .iter()
        .map(|node| NodeView {
            id: node.id,
            role: match node.role {
                campanile_raft::Role::Leader => Role::Leader,
                campanile_raft::Role::Follower => Role::Follower,
                campanile_raft::Role::Learner => Role::Learner,
            },
            api: node.api.clone(),
            peer: node.peer.clone(),
            lag: node.lag,
            clock_skew_ms: node.clock_skew_ms,
            up: rows.iter().any(|row| row.id == node.id && row.up),
            shards: shards.shards.iter().filter(|shard| shard.owner == node.id).count() as u32,
        })
        .collect();
    Ok(ClusterView {
        cluster_id: status.cluster.map(|cluster| cluster.to_string()).unwrap_or_default(),
        node: api.node,
        leader: status.leader,
        term: status.term,
        applied: status.applied,
        tzdb: campanile_timer::zone::tzdb_version().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        nodes,
        tasks: counts.tasks,
        live_runs: counts.live_runs,
    })
}

/// Takes a node in: it receives the log as a learner, then votes.
#[utoipa::path(post, path = "/v1/cluster/nodes", tag = "cluster", request_body = AddNode,
    responses((status = 200, body = ClusterView)))]
pub async fn add(State(api): State<Api>, request: Body) -> ApiResult<Json<ClusterView>> {
    let add: AddNode = read(request).await?;
    if add.id == NodeId(0) {
        return Err(ApiError::field(Code::InvalidField, "id", "node ids start at 1"));
    }
    if !add.peer.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(ApiError::field(Code::InvalidField, "peer", format!("{:?} is not host:port", add.peer)));
    }
    within(api.replica.add_node(add.id, add.peer)).await?;
    view(&api).map(Json)
}

/// Removes a node. Its id is never used again.
#[utoipa::path(delete, path = "/v1/cluster/nodes/{id}", tag = "cluster", params(("id", description = "Node id")),
    responses((status = 200, body = ClusterView)))]
pub async fn remove(State(api): State<Api>, Segments(id): Segments<u64>) -> ApiResult<Json<ClusterView>> {
    within(api.replica.remove_node(NodeId(id))).await?;
    view(&api).map(Json)
}

/// Hands leadership to another voter.
#[utoipa::path(post, path = "/v1/cluster/leader", tag = "cluster", request_body = TransferLeader,
    responses((status = 200, body = ClusterView)))]
pub async fn transfer(State(api): State<Api>, request: Body) -> ApiResult<Json<ClusterView>> {
    let transfer: TransferLeader = read(request).await?;
    within(api.replica.transfer_leader(transfer.to)).await?;
    view(&api).map(Json)
}

/// Digest of this node's replicated state at an applied index: equal on every node at an equal index.
#[utoipa::path(get, path = "/v1/cluster/digest", tag = "cluster", responses((status = 200)))]
pub async fn digest(State(api): State<Api>) -> ApiResult<Json<serde_json::Value>> {
    let view = api.view();
    let index = view.index();
    let digest = rt::run_blocking(move || view.digest())
        .await
        .map_err(|error| ApiError::new(Code::Internal, error.to_string()))??;
    Ok(Json(json!({ "index": index, "digest": digest.to_string() })))
}

async fn within(change: impl Future<Output = Result<(), MembershipError>>) -> ApiResult<()> {
    match rt::timeout(CHANGE_WITHIN, change).await {
        Some(result) => result.map_err(ApiError::from),
        None => Err(ApiError::new(
            Code::OutcomeUnknown,
            "the change has not finished in a minute; `cluster status` shows what has become of it",
        )),
    }
}

async fn read<T: DeserializeOwned>(request: Body) -> ApiResult<T> {
    let bytes = body(request, limits::BODY_BYTES).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let code = match error.classify() {
            serde_json::error::Category::Data if error.to_string().starts_with("unknown field") => Code::UnknownField,
            serde_json::error::Category::Data => Code::InvalidField,
            _ => Code::MalformedJson,
        };
        ApiError::new(code, error.to_string())
    })
}
