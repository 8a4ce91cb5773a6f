//! The simulator: a whole cluster in one process, faults, histories, and the checkers that judge them.
//!
//! What judges (`history`, `plan`, `invariants`, `expectations`) is plain code over data and builds everywhere, so that
//! the same checkers read what the simulator recorded and what real processes did. What simulates (`world`) builds with
//! `--cfg madsim` only.

pub mod cli;
pub mod expect;
pub mod expectations;
pub mod history;
pub mod invariants;
pub mod order;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod verdict;
#[cfg(madsim)]
pub mod world;
