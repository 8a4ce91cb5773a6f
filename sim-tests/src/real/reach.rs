//! Which faults real processes on this machine can be given, and the account of those they cannot.

use std::collections::BTreeMap;

use campanile_model::Millis;

use super::site::Site;
use crate::drive::draw;
use crate::history::LeftOut;
use crate::plan::DrawnPlan;
use crate::scenario::Scenario;

/// Faults that need nodes with networks of their own.
pub const CUTS: [&str; 7] =
    ["partition", "one_way", "isolate", "leader_in_minority", "leader_in_majority", "flap", "swizzle"];
/// Faults that need nodes with disks of their own.
pub const DISKS: [&str; 1] = ["disk_full"];
/// Faults that every machine can do.
const ALWAYS: [&str; 12] = [
    "kill",
    "power_cut",
    "power_cut_all",
    "rolling_restart",
    "restart_storm",
    "pause",
    "terminate",
    "transfer_leader",
    "receiver_hangs",
    "receiver_answers",
    "receiver_slow",
    "receiver_gone",
];

/// The kinds that a scenario may strike with.
pub fn wanted(scenario: &Scenario) -> Vec<String> {
    let by_hand = scenario.faults.iter().map(|planned| planned.fault.name().to_owned());
    by_hand.chain(drawn(scenario)).collect()
}

/// The kinds that its swarm may draw.
fn drawn(scenario: &Scenario) -> Vec<String> {
    match &scenario.swarm {
        None => Vec::new(),
        Some(swarm) if swarm.kinds.is_empty() => draw::KINDS.iter().map(|kind| (*kind).to_owned()).collect(),
        Some(swarm) => swarm.kinds.clone(),
    }
}

pub struct Reach {
    /// Why there is no network to cut.
    no_network: Option<String>,
    no_disks: Option<String>,
    /// Planned faults by kind and reason.
    left_out: BTreeMap<(String, String), u64>,
}

impl Reach {
    pub fn of(site: &Site) -> Self {
        let why = |reason: &str| reason.to_owned();
        Self {
            no_network: site.network().err().map(why),
            no_disks: site.disks().err().map(why),
            left_out: BTreeMap::new(),
        }
    }

    /// Why a kind cannot be done here.
    fn why_not(&self, kind: &str) -> Option<String> {
        if ALWAYS.contains(&kind) {
            return None;
        }
        if CUTS.contains(&kind) {
            return self.no_network.clone();
        }
        if DISKS.contains(&kind) {
            return self.no_disks.clone();
        }
        let why = match kind {
            "loss" | "delay" | "replay" | "clog" => "messages between real processes can only be cut off whole",
            "slow_disk" | "fail_sync" | "disk_errors" | "bit_flip" => "a real disk cannot be told to fail",
            "clock_jump" | "clock_drift" | "clock_freeze" => "real processes share the clock of this machine",
            _ => "the members of a cluster of real processes stay the same",
        };
        Some(why.to_owned())
    }

    /// Lets the swarm draw only what can be done, so that a seed strikes as often as it is meant to.
    pub fn restrict(&mut self, scenario: &mut Scenario) {
        let drawn = drawn(scenario);
        let Some(swarm) = &mut scenario.swarm else { return };
        swarm.kinds = Vec::new();
        for kind in drawn {
            match self.why_not(&kind) {
                None => swarm.kinds.push(kind),
                Some(why) => {
                    self.left_out.entry((kind, why)).or_default();
                }
            }
        }
        if swarm.kinds.is_empty() {
            scenario.swarm = None;
        }
    }

    /// Takes out what cannot be done.
    pub fn prune(&mut self, plan: &mut DrawnPlan, span: Millis) {
        plan.faults.retain(|planned| {
            let kind = planned.fault.name();
            let late = (planned.at >= span).then(|| format!("it begins after the span of {span}"));
            if matches!(kind, "power_cut" | "power_cut_all") {
                let why = "done as a kill: what the process wrote stays in the kernel's hands".to_owned();
                self.note(kind, why);
            }
            let Some(why) = late.or_else(|| self.why_not(kind)) else { return true };
            self.note(kind, why);
            false
        });
        let before = plan.operations.len();
        plan.operations.retain(|operation| operation.at < span);
        let cut = before - plan.operations.len();
        if cut > 0 {
            *self.left_out.entry(("operation".into(), format!("it begins after the span of {span}"))).or_default() +=
                cut as u64;
        }
    }

    /// One more planned fault that was not done as asked.
    pub fn note(&mut self, kind: &str, why: String) {
        *self.left_out.entry((kind.to_owned(), why)).or_default() += 1;
    }

    pub fn into_left_out(self) -> Vec<LeftOut> {
        self.left_out.into_iter().map(|((fault, why), count)| LeftOut { fault, count, why }).collect()
    }
}
