//! What is asked of the simulator or of real processes, and what they give back. The same in every build; only `world` can
//! carry out the one, only `real` the other.

use std::path::PathBuf;
use std::time::Duration;

use crate::history::{History, Message};
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
    pub messages: Vec<Message>,
    /// What was drawn, or given.
    pub plan: DrawnPlan,
    /// Over everything that happened, to the byte.
    pub trace_hash: u64,
    /// Simulated time, settling included.
    pub simulated: Duration,
}

/// One run of real processes.
#[derive(Clone, Debug)]
pub struct RealOrder {
    pub scenario: Scenario,
    /// Decides what is asked of the cluster and done to it, and not what comes of it.
    pub seed: u64,
    /// The program `campanile`.
    pub binary: PathBuf,
    /// Where the nodes' logs are left, if anywhere.
    pub logs: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Driven {
    pub history: History,
    /// What was asked and done, without what had to be left out.
    pub plan: DrawnPlan,
}
