//! The vocabulary of Campanile as types: ids, tasks, runs, commands and their replies, limits, error codes.
//!
//! Everything here is data. Nothing in this crate reads a clock, draws a random number, or does I/O, and no type here
//! knows how it is stored or sent beyond its encoding ([`codec`]).

pub mod api;
pub mod codec;
mod command;
mod error;
mod ids;
mod json;
pub mod limits;
#[cfg(feature = "openapi")]
mod openapi;
mod run;
mod schedule;
pub mod sim;
mod state;
mod task;
mod time;

pub use command::*;
pub use error::{Code, Rejection};
pub use ids::{LogPlace, NodeId, OccurrenceId, Origin, ParseIdError, RunId, ShardId, TaskId, Token};
pub use json::Json;
pub use run::*;
pub use schedule::{Dst, Schedule};
pub use state::*;
pub use task::*;
pub use time::{Millis, ParseTimeError, Timestamp};
