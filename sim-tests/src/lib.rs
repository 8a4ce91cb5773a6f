//! The simulator: a whole cluster in one process, faults, histories, and the checkers that judge them.
//!
//! What judges (`history`, `plan`, `invariants`, `expectations`) is plain code over data and builds everywhere, so that
//! the same checkers read what the simulator recorded and what real processes did. What simulates (`world`) builds with
//! `--cfg madsim` only, what drives real processes (`real`) without it only; what both share is `drive`.

pub mod cli;
pub mod drive;
pub mod expect;
pub mod expectations;
pub mod history;
pub mod invariants;
pub mod order;
pub mod plan;
#[cfg(not(madsim))]
pub mod real;
pub mod report;
pub mod returned;
pub mod scenario;
pub mod verdict;
#[cfg(madsim)]
pub mod world;
