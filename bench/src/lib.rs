//! Drives a real cluster of `campanile` processes from outside: the demo, the benchmarks, and the tools that process
//! tests are made of (a cluster to kill, a receiver to deliver to, a verdict over what both saw).
//!
//! It knows the HTTP API and the program's command line, and must never depend on how a node is built: no crate below
//! `client` and `model` is used here. It runs on a real machine only, never under the simulator.

pub mod account;
pub mod baselines;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod demo;
pub mod exposition;
pub mod latency;
pub mod load;
pub mod receiver;
pub mod report;
pub mod scenarios;
pub mod settle;
