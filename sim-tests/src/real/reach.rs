//! Which faults real processes on this machine can be given, and the account of those they cannot.

use std::collections::BTreeMap;

use campanile_model::Millis;

use super::site::Site;
use crate::drive::draw;
use crate::history::LeftOut;
use crate::plan::DrawnPlan;
use crate::scenario::{Scenario, faults};

/// Faults that need nodes with networks of their own.
pub const CUTS: [&str; 7] =
    ["partition", "one_way", "isolate", "leader_in_minority", "leader_in_majority", "flap", "swizzle"];
/// Faults that need nodes with disks of their own.
pub const DISKS: [&str; 1] = ["disk_full"];
/// Faults that every machine can do.
const ALWAYS: [&str; 14] = [
    "kill",
    "power_cut",
    "power_cut_all",
    "rolling_restart",
    "restart_storm",
    "pause",
    "terminate",
    "lose_node",
    "transfer_leader",
    "receiver_hangs",
    "receiver_answers",
    "receiver_slow",
    "receiver_gone",
    "receiver_moody",
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
        let why = match faults::by_name(kind).map(|kind| kind.group) {
            Some("network") => "messages between real processes can only be cut off whole",
            Some("disk") if kind != "wipe_disk" => "a real disk cannot be told to fail",
            Some("process") if kind == "rolling_upgrade" => "all real processes are of the same build",
            Some("clock") => "real processes share the clock of this machine",
            Some("disk" | "membership") => "the members of a cluster of real processes stay the same",
            _ => "nobody knows how to do it to real processes",
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
        let late = || format!("it begins after the span of {span}");
        plan.faults.retain(|planned| {
            let kind = planned.fault.name();
            let why = if planned.at < span { self.why_not(kind) } else { Some(late()) };
            let can = why.is_none();
            if let Some(why) = why {
                self.note(kind, why);
            } else if matches!(kind, "power_cut" | "power_cut_all") {
                self.note(kind, "done as a kill: what the process wrote stays in the kernel's hands".into());
            }
            can
        });
        plan.operations.retain(|operation| {
            let in_time = operation.at < span;
            if !in_time {
                self.note("operation", late());
            }
            in_time
        });
    }

    /// One more planned fault that was not done as asked.
    pub fn note(&mut self, kind: &str, why: String) {
        *self.left_out.entry((kind.to_owned(), why)).or_default() += 1;
    }

    pub fn into_left_out(self) -> Vec<LeftOut> {
        self.left_out.into_iter().map(|((fault, why), count)| LeftOut { fault, count, why }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Fault, PlannedFault, PlannedOperation, RoleOf, Who};
    use crate::scenario::Swarm;

    fn reach(no_network: Option<&str>) -> Reach {
        let no_network = no_network.map(str::to_owned);
        Reach { no_network, no_disks: None, left_out: BTreeMap::new() }
    }

    #[test]
    fn every_kind_can_be_done_or_has_a_reason_of_its_own() {
        let reach = reach(None);
        for kind in faults::KINDS {
            let able = ALWAYS.iter().chain(&CUTS).chain(&DISKS).any(|able| *able == kind.name);
            let why_not = reach.why_not(kind.name);
            assert_eq!(able, why_not.is_none(), "{}: {why_not:?}", kind.name);
            assert!(why_not.is_none_or(|why| !why.contains("nobody knows")), "{}", kind.name);
        }
    }

    #[test]
    fn a_swarm_draws_what_can_be_done_and_the_rest_is_listed() {
        let kinds = ["kill", "isolate", "clock_jump"].map(str::to_owned).to_vec();
        let swarm = Some(Swarm { kinds, ..Swarm::default() });
        let mut scenario = Scenario { swarm, ..Scenario::default() };
        let mut able = reach(None);
        able.restrict(&mut scenario);
        assert_eq!(scenario.swarm.as_ref().unwrap().kinds, ["kill", "isolate"]);
        assert_eq!(able.into_left_out().len(), 1);
        let mut cannot = reach(Some("not root"));
        cannot.restrict(&mut scenario);
        assert_eq!(scenario.swarm.as_ref().unwrap().kinds, ["kill"]);
        let left = LeftOut { fault: "isolate".into(), count: 0, why: "not root".into() };
        assert_eq!(cannot.into_left_out(), [left]);
        scenario.swarm.as_mut().unwrap().kinds = vec!["clock_freeze".into()];
        reach(None).restrict(&mut scenario);
        assert_eq!(scenario.swarm, None);
    }

    #[test]
    fn what_is_planned_and_cannot_be_done_is_taken_out_and_counted() {
        let node = Who::Role(RoleOf::Leader);
        let at = |seconds, fault| PlannedFault { at: Millis::from_secs(seconds), lasts: None, fault };
        let faults = vec![
            at(1, Fault::Kill { node }),
            at(2, Fault::ClockFreeze { node }),
            at(3, Fault::ClockFreeze { node }),
            at(4, Fault::PowerCut { node }),
            at(30, Fault::Kill { node }),
        ];
        let action = crate::history::Action::Get { name: "a".into() };
        let operation = PlannedOperation { at: Millis::from_secs(30), client: 1, node: 0, action };
        let mut plan = DrawnPlan { faults, operations: vec![operation], ..DrawnPlan::default() };
        let mut reach = reach(None);
        reach.prune(&mut plan, Millis::from_secs(20));
        let kept: Vec<&str> = plan.faults.iter().map(|planned| planned.fault.name()).collect();
        assert_eq!((kept, plan.operations.len()), (vec!["kill", "power_cut"], 0));
        let counts: Vec<(String, u64)> =
            reach.into_left_out().into_iter().map(|left| (left.fault, left.count)).collect();
        let expected = [("clock_freeze", 2), ("kill", 1), ("operation", 1), ("power_cut", 1)];
        assert_eq!(counts, expected.map(|(fault, count)| (fault.to_owned(), count)));
    }
}
