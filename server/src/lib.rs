//! A node of Campanile: configuration, HTTP API, conductor, dispatcher, and the embeddable [`Node`].
//!
//! This is the only crate that knows HTTP's outside face and what a webhook is. What it writes it proposes to the log
//! through `raft`; what it reads comes from a `store` view; when anything is due it asks `timer`.

mod api;
mod conductor;
pub mod config;
mod decide;
mod dispatcher;
mod drain;
mod error_pages;
mod http_server;
mod metrics;
mod node;
mod plans;
mod prepare;
mod secret;

pub use config::{ConfigError, ServeConfig, Settings};
pub use node::{Node, NodeConfig, NodeError};

#[cfg(not(madsim))]
mod serve;
#[cfg(not(madsim))]
pub use serve::{ServeError, serve};

/// What the API would refuse about a task's name and definition, without asking a cluster. `now` is when it would be
/// put.
pub fn check_definition(
    name: &str,
    spec: &campanile_model::TaskSpec,
    now: campanile_model::Timestamp,
) -> Result<(), campanile_model::Rejection> {
    api::definition::check_name(name)?;
    api::definition::check(spec, now)
}

/// The OpenAPI document of this build, as it is served: what there is to ask for.
pub fn openapi() -> serde_json::Result<serde_json::Value> {
    api::openapi::value()
}

/// The namespace that exists.
pub const DEFAULT_NAMESPACE: &str = "default";
