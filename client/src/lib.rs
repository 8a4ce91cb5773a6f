//! The Rust SDK of Campanile: a typed client of the HTTP API.
//!
//! ```no_run
//! # async fn example() -> Result<(), campanile_client::Error> {
//! use campanile_client::{Client, Condition};
//! use campanile_client::model::{Schedule, TaskSpec};
//!
//! let client = Client::new(vec!["127.0.0.1:7701".into(), "127.0.0.1:7702".into(), "127.0.0.1:7703".into()])?;
//! let target = serde_json::from_str(r#"{"http": {"url": "http://127.0.0.1:9000/hook"}}"#).expect("a target");
//! let every = Schedule::Every("15m".parse().expect("a span"));
//! let spec = TaskSpec::new(vec![every], target);
//! let written = client.put_task("heartbeat", &spec, Condition::None).await?;
//! println!("version {} fires next at {:?}", written.version, written.next);
//! # Ok(())
//! # }
//! ```
//!
//! A client is given several endpoints and asks the one that answered last. When that one cannot be reached, or says
//! that it did nothing (no leader yet, shutting down), the next is asked; when all are busy it pauses as long as they
//! ask, within bounds. What it never does is send a write again whose answer was lost, unless a second time changes
//! nothing: a `PUT` or `DELETE` without condition, a pause or resume, or a write with an idempotency key. All other
//! such writes end as [`ErrorKind::OutcomeUnknown`].
//!
//! It runs on tokio and under the simulator alike, and must never start threads or read the system clock itself.

mod call;
mod client;
mod cluster;
mod error;
mod options;
mod path;
mod runs;
mod sender;
mod tasks;
mod transport;

/// The vocabulary: tasks, schedules, ids, and the JSON of the API.
pub use campanile_model as model;

pub use client::Client;
pub use cluster::Digest;
pub use error::{Error, ErrorKind, Result};
pub use options::ClientBuilder;
pub use runs::{LedgerQuery, RunQuery};
pub use tasks::{Condition, DeleteTask, NamedTask, RunsOnDelete, TaskQuery};
