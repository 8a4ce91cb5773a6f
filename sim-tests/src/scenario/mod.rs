//! A scenario: what cluster, what load, what faults, how long, and what is expected. With a seed it is one simulation.

use std::collections::BTreeMap;

use campanile_model::{Millis, TaskSpec, Timestamp};
use serde::{Deserialize, Serialize};

mod check;
pub mod faults;
mod nearest;
mod read;

pub use nearest::nearest;
pub use read::{ScenarioError, read, read_str};

use crate::plan::{Bounds, DrawnPlan, PlannedFault, PlannedOperation};

/// The scenario of a run for which none is given.
pub const DEFAULT: &str = include_str!("../../scenarios/default.toml");

/// The number of nodes of a scenario that leaves it to the seed; written `"drawn"`.
pub const DRAWN: u32 = 0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// 1 to 7, or [`DRAWN`].
    #[serde(with = "size")]
    pub nodes: u32,
    /// True wall clock at the start.
    pub start: Timestamp,
    /// How long load and faults go on, in simulated time.
    pub span: Millis,
    pub pace: Pace,
    /// The seed of a run for which none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    pub workload: Workload,
    /// Faults written by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<PlannedFault>,
    /// Faults drawn from the seed, beside those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swarm: Option<Swarm>,
    /// Bounds of the product that are other than usual. With a swarm, others are drawn beside them.
    #[serde(skip_serializing_if = "Bounds::is_empty")]
    pub bounds: Bounds,
    /// Whether a closing round follows when the cluster has healed: operations that have to be served, and tasks that
    /// have to ring at once, as nothing is wrong any more. Not at coarse pace.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub closing: bool,
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
    /// Heartbeats, elections and leases a thousand times slower.
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
    /// Operations written by hand, or left over by `shrink`; then nothing is drawn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<PlannedOperation>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
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
            seed: None,
            workload: Workload::default(),
            faults: Vec::new(),
            swarm: None,
            bounds: Bounds::new(),
            closing: false,
            expect: Expect::default(),
        }
    }
}

impl Scenario {
    /// The plan, where the scenario has written it out: then a seed draws neither faults nor operations.
    pub fn plan(&self) -> Option<DrawnPlan> {
        (!self.workload.operations.is_empty()).then(|| DrawnPlan {
            faults: self.faults.clone(),
            operations: self.workload.operations.clone(),
            bounds: self.bounds.clone(),
        })
    }

    /// The same scenario with this plan written out.
    pub fn with_plan(&self, plan: &DrawnPlan) -> Self {
        let mut scenario = self.clone();
        scenario.faults.clone_from(&plan.faults);
        scenario.workload.operations.clone_from(&plan.operations);
        scenario.bounds.clone_from(&plan.bounds);
        (scenario.workload.clients, scenario.workload.operations_per_second) = (0, 0);
        scenario.swarm = None;
        scenario
    }

    /// The scenario as a file, with everything it named written out.
    pub fn text(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// A number of nodes in a file: a number, or `"drawn"`.
mod size {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::DRAWN;

    const WORD: &str = "drawn";

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number of nodes, or \"drawn\"")]
    enum Written {
        Number(u32),
        Word(Word),
    }

    #[derive(Deserialize)]
    enum Word {
        #[serde(rename = "drawn")]
        Drawn,
    }

    pub fn serialize<S: Serializer>(nodes: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        if *nodes == DRAWN { serializer.serialize_str(WORD) } else { serializer.serialize_u32(*nodes) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        match Written::deserialize(deserializer)? {
            // No nodes are none, and not any number of them.
            Written::Number(DRAWN) => Err(serde::de::Error::custom("0 nodes; a scenario has 1 to 7, or \"drawn\"")),
            Written::Number(nodes) => Ok(nodes),
            Written::Word(Word::Drawn) => Ok(DRAWN),
        }
    }

    /// As a field that may be absent.
    pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        deserialize(deserializer).map(Some)
    }
}
