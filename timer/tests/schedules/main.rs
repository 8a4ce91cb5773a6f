//! Schedules asked for their next times, through the crate's public face.

mod conformance;
mod dst;
mod plans;
mod properties;
mod refusals;
mod repeats;
mod support;
