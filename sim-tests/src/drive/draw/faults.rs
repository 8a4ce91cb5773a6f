//! What goes wrong.

use campanile_model::{Millis, NodeId};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::{QUIET_PER_CENT, world};
use crate::plan::{Fault, PlannedFault, RoleOf, Who};
use crate::scenario::{Scenario, Swarm};

/// Faults drawn one after another. Which kinds there are at all is drawn first.
pub fn swarm_faults(scenario: &Scenario, swarm: &Swarm, rng: &mut SmallRng) -> Vec<PlannedFault> {
    let nodes = scenario.nodes as usize;
    let fits = |kind: &&str| !APART.contains(kind) && may_draw(swarm, kind) && is_possible(kind, nodes);
    let kinds: Vec<&str> = KINDS.into_iter().filter(fits).collect();
    let share = rng.random_range(0.15..0.9);
    let on: Vec<&str> = kinds.iter().copied().filter(|_| rng.random_bool(share)).collect();
    let mut faults = Vec::new();
    let mut replaced: usize = 0;
    let busy = scenario.span.0 * (100 - QUIET_PER_CENT) / 100;
    let mut at = rng.random_range(0..swarm.every.0 * 2);
    while at < busy && !on.is_empty() {
        let name = on[rng.random_range(0..on.len())];
        let lasts = rng.random_range(200..=swarm.longest.0.max(201));
        // A cluster of three survives one lost disk at a time, one of five two; the plan keeps to so many in all.
        let costly = matches!(name, "wipe_disk" | "bit_flip" | "add_node");
        if !costly || replaced < minority(nodes) {
            replaced += usize::from(costly);
            faults.push(PlannedFault { at: Millis(at), lasts: Some(Millis(lasts)), fault: fault(name, scenario, rng) });
        }
        at += rng.random_range(1..swarm.every.0 * 2);
    }
    faults
}

/// As many of so many nodes as the rest can do without.
pub fn minority(nodes: usize) -> usize {
    nodes.saturating_sub(1) / 2
}

/// Whether a cluster of so many nodes can be struck so, and serves again afterwards.
fn is_possible(kind: &str, nodes: usize) -> bool {
    match kind {
        // One node has no sides.
        "partition" | "one_way" => nodes > 1,
        // What nobody else has is lost for good.
        "wipe_disk" | "bit_flip" => minority(nodes) > 0,
        _ => true,
    }
}

fn may_draw(swarm: &Swarm, kind: &str) -> bool {
    swarm.kinds.is_empty() || swarm.kinds.iter().any(|wanted| wanted == kind)
}

/// Faults that a seed draws from streams of their own and not among the others: without one of them the rest of the
/// seed stays what it is.
const APART: [&str; 8] = [UPGRADE, MOODY, LOSE, HALVES[0], HALVES[1], HALVES[2], HALVES[3], REMOVE];
/// Nodes of which the others have only half.
pub const HALVES: [&str; 4] = ["inbound_cut", "outbound_cut", "peer_port_closed", "wrong_address"];
pub const REMOVE: &str = "remove_node";
pub const UPGRADE: &str = "rolling_upgrade";
pub const MOODY: &str = "receiver_moody";
pub const LOSE: &str = "lose_node";

/// What draws one part of a seed's world: the same for all its variants.
pub fn stream(seed: u64, name: [u8; 8]) -> SmallRng {
    varied_stream(world(seed), name)
}

/// What draws one part of what is asked for: another one in each variant.
pub fn varied_stream(seed: u64, name: [u8; 8]) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ u64::from_be_bytes(name))
}

/// A rolling upgrade, for one seed in five.
pub fn upgrade(scenario: &Scenario, swarm: &Swarm, seed: u64) -> Option<PlannedFault> {
    let mut rng = stream(seed, *b"upgrade!");
    if !may_draw(swarm, UPGRADE) || !rng.random_bool(0.2) {
        return None;
    }
    let at = Millis(rng.random_range(0..scenario.span.0 * (100 - QUIET_PER_CENT) / 100));
    let lasts = Some(Millis(rng.random_range(200..=swarm.longest.0.max(201))));
    Some(PlannedFault { at, lasts, fault: Fault::RollingUpgrade { every: Millis(rng.random_range(500..4000)) } })
}

/// Receivers err now and then all the time, some seeds' more than others'.
pub fn moody(swarm: &Swarm, seed: u64) -> Option<PlannedFault> {
    let per_mille = stream(seed, *b"moods---").random_range(0..60);
    let fault = Fault::ReceiverMoody { per_mille };
    (per_mille > 0 && may_draw(swarm, MOODY)).then_some(PlannedFault { at: Millis(0), lasts: None, fault })
}

/// For two seeds in five, a few times a node that the others cannot reach, or that cannot reach them.
pub fn halves(scenario: &Scenario, swarm: &Swarm, seed: u64) -> Vec<PlannedFault> {
    let mut rng = stream(seed, *b"halves--");
    if !rng.random_bool(0.4) {
        return Vec::new();
    }
    let busy = scenario.span.0 * (100 - QUIET_PER_CENT) / 100;
    let drawn = (0..rng.random_range(1..=3)).map(|_| {
        let name = HALVES[rng.random_range(0..HALVES.len())];
        // Half a leader does more harm than half of any other node.
        let node = Who::Role(if rng.random_bool(0.7) { RoleOf::Leader } else { RoleOf::Any });
        let fault = match name {
            "inbound_cut" => Fault::InboundCut { node },
            "outbound_cut" => Fault::OutboundCut { node },
            "peer_port_closed" => Fault::PeerPortClosed { node },
            _ => Fault::WrongAddress { node },
        };
        let at = Millis(rng.random_range(0..busy.max(1)));
        // Long enough to see whether the others come to go on without it.
        let lasts = Some(Millis(rng.random_range(2000..=swarm.longest.0.max(2001) + 5000)));
        PlannedFault { at, lasts, fault }
    });
    drawn.filter(|planned| may_draw(swarm, planned.fault.name())).collect()
}

/// Whether a seed has its members change again and again: one in four.
fn has_changes(seed: u64) -> bool {
    stream(seed, *b"changes-").random_bool(0.25)
}

/// Nodes that join and nodes that are taken out, whoever is cut off or down at the time: down to one, if it comes so.
/// The cluster refuses to be left without any.
pub fn members(scenario: &Scenario, swarm: &Swarm, faults: &[PlannedFault], seed: u64) -> Vec<PlannedFault> {
    // Where disks are lost, those that are left may be needed for a majority.
    let taken = faults.iter().any(|planned| planned.fault.changes_members() || planned.fault.name() == LOSE);
    if taken || !has_changes(seed) {
        return Vec::new();
    }
    let mut rng = stream(seed, *b"members-");
    let busy = scenario.span.0 * (100 - QUIET_PER_CENT) / 100;
    // Some seeds grow, others shrink.
    let grows = rng.random_range(0.1..0.8);
    let drawn = (0..rng.random_range(2..=6)).map(|_| {
        let at = Millis(rng.random_range(0..busy.max(1)));
        let who = [RoleOf::Leader, RoleOf::Follower, RoleOf::Any][rng.random_range(0..3)];
        let remove = Fault::RemoveNode { node: Who::Role(who) };
        let fault = if rng.random_bool(grows) { Fault::AddNode } else { remove };
        PlannedFault { at, lasts: Some(Millis(1000)), fault }
    });
    drawn.filter(|planned| may_draw(swarm, planned.fault.name())).collect()
}

/// Some nodes, less than half, that stay down when the faults end. They are lost in the quiet at the end, so that all
/// are there for the other faults.
pub fn losses(scenario: &Scenario, swarm: &Swarm, faults: &[PlannedFault], seed: u64) -> Vec<PlannedFault> {
    // Where members change, or are lost by hand, the rest may be needed for a majority.
    let taken = faults.iter().any(|planned| planned.fault.changes_members() || planned.fault.name() == LOSE);
    if taken || has_changes(seed) || !may_draw(swarm, LOSE) {
        return Vec::new();
    }
    let mut rng = stream(seed, *b"lost----");
    let mut nodes: Vec<NodeId> = (1..=u64::from(scenario.nodes)).map(NodeId).collect();
    nodes.shuffle(&mut rng);
    nodes.truncate(rng.random_range(0..=minority(nodes.len())));
    let quiet = scenario.span.0 * (100 - QUIET_PER_CENT) / 100..scenario.span.0;
    let lost = |node| PlannedFault {
        at: Millis(rng.random_range(quiet.clone())),
        lasts: None,
        fault: Fault::LoseNode { node: Who::Node(node) },
    };
    nodes.into_iter().map(lost).collect()
}

/// Kinds that can be drawn.
pub const KINDS: [&str; 41] = [
    "partition",
    "one_way",
    "isolate",
    "leader_in_minority",
    "leader_in_majority",
    "flap",
    "swizzle",
    "loss",
    "delay",
    "replay",
    "clog",
    "kill",
    "power_cut",
    "power_cut_all",
    "rolling_restart",
    "restart_storm",
    "pause",
    "terminate",
    "slow_disk",
    "fail_sync",
    "disk_errors",
    "disk_full",
    "bit_flip",
    "wipe_disk",
    "clock_jump",
    "clock_drift",
    "clock_freeze",
    "add_node",
    "transfer_leader",
    "receiver_hangs",
    "receiver_answers",
    "receiver_slow",
    "receiver_gone",
    UPGRADE,
    MOODY,
    LOSE,
    HALVES[0],
    HALVES[1],
    HALVES[2],
    HALVES[3],
    REMOVE,
];

fn fault(name: &str, scenario: &Scenario, rng: &mut SmallRng) -> Fault {
    let nodes: Vec<NodeId> = (1..=u64::from(scenario.nodes)).map(NodeId).collect();
    let node = match rng.random_range(0..3) {
        0 => Who::Role(RoleOf::Leader),
        1 => Who::Role(RoleOf::Follower),
        _ => Who::Role(RoleOf::Any),
    };
    // Some of the nodes, and neither none nor all.
    let some = |rng: &mut SmallRng| -> Vec<NodeId> {
        let mut side: Vec<NodeId> = nodes.iter().copied().filter(|_| rng.random_bool(0.5)).collect();
        if side.is_empty() {
            side.push(nodes[0]);
        } else if side.len() == nodes.len() {
            side.pop();
        }
        side
    };
    let one_way = |rng: &mut SmallRng| {
        let (from, mut to) = (some(rng), some(rng));
        to.retain(|node| !from.contains(node));
        if to.is_empty() {
            to = nodes.iter().copied().filter(|node| !from.contains(node)).collect();
        }
        Fault::OneWay { from, to }
    };
    let every = Millis(rng.random_range(500..4000));
    match name {
        "partition" => Fault::Partition { side: some(rng) },
        "one_way" => one_way(rng),
        "isolate" => Fault::Isolate { node },
        "leader_in_minority" => Fault::LeaderInMinority,
        "leader_in_majority" => Fault::LeaderInMajority,
        "flap" => Fault::Flap { node, every },
        "swizzle" => Fault::Swizzle { every },
        "loss" => Fault::Loss { per_mille: rng.random_range(1..300) },
        "delay" => Fault::Delay { min: Millis(1), max: Millis(rng.random_range(5..300)) },
        "replay" => Fault::Replay { per_mille: rng.random_range(1..300) },
        "clog" => Fault::Clog { node },
        "kill" => Fault::Kill { node },
        "power_cut" => Fault::PowerCut { node },
        "power_cut_all" => Fault::PowerCutAll,
        "rolling_restart" => Fault::RollingRestart { every },
        "restart_storm" => Fault::RestartStorm { node, every },
        "pause" => Fault::Pause { node },
        "terminate" => Fault::Terminate { node },
        "slow_disk" => Fault::SlowDisk { node, sync: Millis(rng.random_range(5..400)) },
        "fail_sync" => Fault::FailSync { node },
        "disk_errors" => Fault::DiskErrors { node },
        "disk_full" => Fault::DiskFull { node },
        "bit_flip" => Fault::BitFlip { node },
        "wipe_disk" => Fault::WipeDisk { node },
        "clock_jump" => Fault::ClockJump { node, by_ms: wrong(rng.random_range(-3000..3000)) },
        "clock_drift" => Fault::ClockDrift { node, ppm: wrong(rng.random_range(-20_000..20_000)) },
        "clock_freeze" => Fault::ClockFreeze { node },
        "add_node" => Fault::AddNode,
        "transfer_leader" => Fault::TransferLeader,
        "receiver_hangs" => Fault::ReceiverHangs,
        "receiver_answers" => Fault::ReceiverAnswers { status: [500, 503, 429, 404][rng.random_range(0..4)] },
        "receiver_slow" => Fault::ReceiverSlow { by: Millis(rng.random_range(100..5000)) },
        _ => Fault::ReceiverGone,
    }
}

/// A clock that is wrong by nothing is right.
fn wrong<T: Default + PartialEq + From<u8>>(by: T) -> T {
    if by == T::default() { T::from(1) } else { by }
}

/// How far a leader's clock may be off under these faults, in a cluster of so many.
///
/// A leader stamps while its clock is within 500 ms of the median of the reachable nodes' and has not jumped by more
/// than 500 ms since it was compared. So one wrong clock is bounded by both; several at a time can outvote right ones.
/// A cluster of one has nothing to compare with: once it has noticed that its clock jumped, it takes it for right.
pub fn clock_error_ms(faults: &[PlannedFault], nodes: u32) -> i64 {
    let wrong: Vec<&PlannedFault> = faults
        .iter()
        .filter(|planned| {
            matches!(planned.fault, Fault::ClockJump { .. } | Fault::ClockDrift { .. } | Fault::ClockFreeze { .. })
        })
        .collect();
    let end = |planned: &PlannedFault| planned.lasts.map_or(u64::MAX, |lasts| planned.at.0.saturating_add(lasts.0));
    // Comparisons made under one fault may still count in the seconds after it.
    let aftermath_ms = 2000;
    let overlap = wrong.iter().enumerate().any(|(i, one)| {
        wrong[i + 1..].iter().any(|other| {
            one.at.0 <= end(other).saturating_add(aftermath_ms) && other.at.0 <= end(one).saturating_add(aftermath_ms)
        })
    });
    let removals = faults.iter().filter(|planned| matches!(planned.fault, Fault::RemoveNode { .. })).count();
    let may_be_alone = nodes as usize <= 1 + removals;
    match wrong.len() {
        0 => 0,
        _ if overlap || may_be_alone => 4000,
        _ => 1100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jump(at: u64, lasts: u64) -> PlannedFault {
        let fault = Fault::ClockJump { node: Who::Role(RoleOf::Any), by_ms: 2500 };
        PlannedFault { at: Millis(at), lasts: Some(Millis(lasts)), fault }
    }

    #[test]
    fn one_wrong_clock_is_outvoted_unless_nobody_else_votes() {
        assert_eq!(clock_error_ms(&[], 1), 0);
        assert_eq!(clock_error_ms(&[jump(0, 1000)], 3), 1100);
        assert_eq!(clock_error_ms(&[jump(0, 1000), jump(3000, 1000)], 3), 4000);
        assert_eq!(clock_error_ms(&[jump(0, 1000), jump(3001, 1000)], 3), 1100);
        assert_eq!(clock_error_ms(&[jump(0, 1000)], 1), 4000);
        let fault = Fault::RemoveNode { node: Who::Role(RoleOf::Any) };
        let removal = PlannedFault { at: Millis(0), lasts: None, fault };
        assert_eq!(clock_error_ms(&[jump(0, 1000), removal.clone()], 2), 4000);
        assert_eq!(clock_error_ms(&[jump(0, 1000), removal], 3), 1100);
    }
}
