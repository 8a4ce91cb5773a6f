//! What is asked of the simulator, and what it gives back. The same in every build; only `world` can carry it out.

use std::time::Duration;

use crate::history::{History, Timed};
use crate::plan::DrawnPlan;
use crate::scenario::Scenario;

/// One simulation.
#[derive(Clone, Debug)]
pub struct Order {
    pub scenario: Scenario,
    pub seed: u64,
    /// Sabotage to switch on.
    pub planted: Option<String>,
    /// What to do instead of what the seed would draw.
    pub plan: Option<DrawnPlan>,
}

#[derive(Clone, Debug)]
pub struct Simulated {
    pub history: History,
    /// Every call between nodes. Pictures show those around a failure.
    pub messages: Vec<Timed>,
    /// What was drawn, or given.
    pub plan: DrawnPlan,
    /// Over everything that happened, to the byte.
    pub trace_hash: u64,
    /// Simulated time, settling included.
    pub simulated: Duration,
}
