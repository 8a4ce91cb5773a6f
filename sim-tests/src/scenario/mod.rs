//! A scenario: what cluster, what load, what faults, how long, and what is expected. With a seed it is one simulation.

use std::collections::BTreeMap;

use campanile_model::{Millis, TaskSpec, Timestamp};
use serde::{Deserialize, Serialize};

use crate::plan::PlannedFault;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// 3, 5 or 7.
    pub nodes: u32,
    /// True wall clock at the start.
    pub start: Timestamp,
    /// How long load and faults go on, in simulated time.
    pub span: Millis,
    pub pace: Pace,
    pub workload: Workload,
    /// Faults written by hand.
    pub faults: Vec<PlannedFault>,
    /// Faults drawn from the seed, beside those.
    pub swarm: Option<Swarm>,
    pub expect: Expect,
}

/// How patient the nodes are with each other. Long spans are affordable only when they are very patient: then the
/// verdict says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// The product's own timing.
    #[default]
    Normal,
    /// Heartbeats, elections and leases a hundred times slower.
    Coarse,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Tasks that are put at the start, by name.
    pub tasks: BTreeMap<String, TaskSpec>,
    /// Clients that put, change, pause, resume, trigger, delete and read tasks of their own, drawn from the seed.
    pub clients: u32,
    /// Operations of all clients together, in a second.
    pub operations_per_second: u32,
}

/// Which faults are drawn, and how often. The seed also decides which kinds are on at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Swarm {
    /// Names of kinds; empty for all.
    pub kinds: Vec<String>,
    /// Between two faults, on average.
    pub every: Millis,
    /// How long one lasts at most.
    pub longest: Millis,
}

impl Default for Swarm {
    fn default() -> Self {
        Self { kinds: Vec::new(), every: Millis::from_secs(5), longest: Millis::from_secs(15) }
    }
}

/// What must hold beside the invariants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// No fire is later than this after it was due.
    pub max_lateness: Option<Millis>,
    /// No occurrence is missed or coalesced.
    pub no_missed: bool,
    /// No attempt is made twice.
    pub no_repeats: bool,
    /// Every run succeeds.
    pub all_succeed: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            nodes: 3,
            // 2026-01-05T00:00:00Z, a Monday.
            start: Timestamp::from_millis(1_767_571_200_000),
            span: Millis::from_secs(60),
            pace: Pace::Normal,
            workload: Workload::default(),
            faults: Vec::new(),
            swarm: None,
            expect: Expect::default(),
        }
    }
}
