//! The OpenAPI document, generated from the handlers, and the pages that explain error codes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use campanile_model::api::{
    AddNode, BatchLine, ClusterView, LedgerView, Page, Preview, Problem, RunView, TaskView, TaskWritten,
    TransferLeader, Triggered,
};
use campanile_model::{Code, Millis, NodeId, OccurrenceId, Ratio, RunId, Schedule, TaskId, TaskSpec, Timestamp, Token};
use http::header::{CONTENT_TYPE, HeaderValue};
use utoipa::OpenApi;

use super::extract::Segments;
use super::problem::ApiError;
use super::{batch, cluster, runs, tasks};

#[derive(OpenApi)]
#[openapi(
    info(title = "Campanile", description = "A scheduling cluster that needs nothing beside itself. Errors are RFC 9457 problem details with a stable `code`, explained at `/v1/errors/{code}`."),
    paths(
        tasks::put, tasks::post, tasks::get, tasks::list, tasks::delete, tasks::pause, tasks::resume, tasks::trigger,
        tasks::preview, tasks::preview_definition, batch::post, runs::list, runs::get, runs::cancel, runs::ledger,
        cluster::status, cluster::add, cluster::remove, cluster::transfer, cluster::digest,
    ),
    components(schemas(
        AddNode, BatchLine, ClusterView, LedgerView, Page<RunView>, Page<TaskView>, Preview, Problem, RunView,
        TaskView, TaskWritten, TransferLeader, Triggered, TaskSpec, Schedule, Timestamp, Millis, Ratio, TaskId, RunId,
        OccurrenceId, Token, NodeId,
    ))
)]
struct Document;

/// The OpenAPI 3.1 document of this build.
pub async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// The same, for whoever walks through it.
pub fn value() -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(Document::openapi())
}

/// The page of an error code.
pub async fn error_page(Segments(code): Segments<String>) -> Response {
    let Some(code) = Code::ALL.into_iter().find(|known| known.as_str() == code) else {
        return ApiError::new(Code::NotFound, format!("there is no error code {code:?}")).into_response();
    };
    let mut response = crate::error_pages::page(code).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let schemas = &document["components"]["schemas"];
        // Every reference leads somewhere.
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.get(name).is_some(), "schema {name} is referred to but not there");
        }
    }
}
