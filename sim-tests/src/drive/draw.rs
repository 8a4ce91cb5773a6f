//! Draws a plan from a seed: who asks for what, and what goes wrong. The same for simulated nodes and real ones.

use campanile_model::sim::Bound;
use campanile_model::{Millis, NodeId, Target, TaskSpec, Timestamp};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::history::Action;
use crate::plan::{Bounds, DrawnPlan, Fault, PlannedFault, PlannedOperation, RoleOf, Who};
use crate::scenario::{DRAWN, Pace, Scenario, Swarm};

/// Tasks of each client that it keeps coming back to.
const NAMES: u32 = 4;
/// Of the scenario's span, the end that is left free of new faults and operations.
const QUIET_PER_CENT: u64 = 5;

/// Half a minute before the clocks of Berlin go back, in October 2026.
const BEFORE_A_FOLD: Timestamp = Timestamp::from_millis(1_792_889_970_000);
/// So many seeds of four begin there, unless the scenario says when it begins.
const FOLDS_OF_FOUR: u64 = 1;

/// When a scenario begins under a seed, where the clock can be chosen.
pub fn start(scenario: &Scenario, seed: u64) -> Timestamp {
    let free = scenario.swarm.is_some() && scenario.start == Scenario::default().start;
    if free && seed % 4 < FOLDS_OF_FOUR { BEFORE_A_FOLD } else { scenario.start }
}

/// How many nodes a scenario has under a seed: three, mostly, for speed, where it leaves that open.
pub fn nodes(scenario: &Scenario, seed: u64) -> u32 {
    if scenario.nodes != DRAWN {
        return scenario.nodes;
    }
    match stream(seed, *b"nodes---").random_range(0..100) {
        0..60 => 3,
        60..72 => 1,
        72..82 => 2,
        82..86 => 4,
        86..94 => 5,
        94..97 => 6,
        _ => 7,
    }
}

/// A scenario with what a seed decides about the cluster itself: how many nodes, and when it begins.
pub fn settled(scenario: &Scenario, seed: u64) -> Scenario {
    Scenario { start: start(scenario, seed), nodes: nodes(scenario, seed), ..scenario.clone() }
}

/// The plan of a scenario under a seed, when its workload begins at `start`.
pub fn plan(scenario: &Scenario, start: Timestamp, seed: u64) -> DrawnPlan {
    let scenario = &Scenario { nodes: nodes(scenario, seed), ..scenario.clone() };
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut operations = operations(scenario, start, &mut rng);
    operations.sort_by_key(|operation| operation.at);
    let mut faults = scenario.faults.clone();
    if let Some(swarm) = &scenario.swarm {
        faults.extend(swarm_faults(scenario, swarm, &mut rng));
        faults.extend(upgrade(scenario, swarm, seed));
        faults.extend(moody(swarm, seed));
        faults.extend(losses(scenario, swarm, &faults, seed));
        faults.extend(halves(scenario, swarm, seed));
        faults.extend(members(scenario, swarm, &faults, seed));
    }
    faults.sort_by_key(|fault| fault.at);
    DrawnPlan { faults, operations, bounds: bounds(scenario, seed) }
}

/// Which bounds are small in a seed's world, and how small. Which share of them is drawn first, so that in some worlds
/// nearly none is and in others most are. Each has a stream of its own: another bound in the list changes nothing else.
fn bounds(scenario: &Scenario, seed: u64) -> Bounds {
    let mut bounds = Bounds::new();
    if scenario.swarm.is_some() && scenario.pace == Pace::Normal {
        let share = stream(seed, *b"bounds--").random_range(0.05..0.65);
        for bound in Bound::ALL {
            let mut rng = SmallRng::seed_from_u64(seed ^ xxhash_rust::xxh3::xxh3_64(bound.name().as_bytes()));
            if rng.random_bool(share) {
                bounds.insert(bound.name().to_owned(), rng.random_range(bound.small()));
            }
        }
    }
    bounds.extend(scenario.bounds.clone());
    bounds
}

/// A scenario as a seed draws it, written out: there is nothing left to draw, and the seed does the same with it.
pub fn written_out(scenario: &Scenario, seed: u64) -> Scenario {
    let settled = settled(scenario, seed);
    let plan = scenario.plan().unwrap_or_else(|| plan(scenario, settled.start, seed));
    settled.with_plan(&plan)
}

/// The puts of the scenario's own tasks, then the plan's operations; all webhooks go to `receiver`, a host and a port.
pub fn all_operations(scenario: &Scenario, planned: Vec<PlannedOperation>, receiver: &str) -> Vec<PlannedOperation> {
    let own = scenario.workload.tasks.iter().map(|(name, spec)| PlannedOperation {
        at: Millis(0),
        client: 0,
        node: 0,
        action: put(name.clone(), spec.clone()),
    });
    let mut operations: Vec<PlannedOperation> = own.chain(planned).collect();
    for operation in &mut operations {
        redirect_all(&mut operation.action, receiver);
    }
    operations
}

fn redirect_all(action: &mut Action, receiver: &str) {
    match action {
        Action::Put { spec, .. } => redirect(spec, receiver),
        Action::Batch { lines } => lines.iter_mut().for_each(|line| redirect_all(line, receiver)),
        _ => {}
    }
}

/// There is one receiver: whatever host a definition names, that is where its webhooks go.
fn redirect(spec: &mut TaskSpec, receiver: &str) {
    let Target::Http(target) = &mut spec.target;
    let path = target.url.splitn(4, '/').nth(3).unwrap_or_default();
    target.url = format!("http://{receiver}/{path}");
}

fn operations(scenario: &Scenario, start: Timestamp, rng: &mut SmallRng) -> Vec<PlannedOperation> {
    let load = &scenario.workload;
    let mut operations = load.operations.clone();
    if load.clients == 0 || load.operations_per_second == 0 {
        return operations;
    }
    let busy = scenario.span.0 * (100 - QUIET_PER_CENT) / 100;
    let count = busy * u64::from(load.operations_per_second) / 1000;
    for _ in 0..count {
        let client = rng.random_range(1..=load.clients);
        let at = Millis(rng.random_range(0..busy));
        let node = if rng.random_bool(0.7) { 0 } else { rng.random_range(1..=scenario.nodes) };
        operations.push(PlannedOperation { at, client, node, action: action(rng, client, scenario.pace, start) });
    }
    operations
}

fn put(name: String, spec: TaskSpec) -> Action {
    Action::Put { name, spec: Box::new(spec), if_version: None, create_only: false, idempotency_key: None }
}

fn action(rng: &mut SmallRng, client: u32, pace: Pace, start: Timestamp) -> Action {
    let name = format!("c{client}-{}", rng.random_range(0..NAMES));
    match rng.random_range(0..100) {
        0..40 => {
            let mut key = None;
            let (mut if_version, mut create_only) = (None, false);
            match rng.random_range(0..10) {
                0 => if_version = Some(rng.random_range(1..4)),
                1 => create_only = true,
                2 => key = Some(format!("k{client}-{}", rng.random_range(0..20))),
                _ => {}
            }
            Action::Put { name, spec: Box::new(spec(rng, pace, start)), if_version, create_only, idempotency_key: key }
        }
        40..48 => Action::Pause { name, if_version: None },
        48..58 => Action::Resume { name, if_version: None },
        58..66 => Action::Delete { name, cancel_runs: rng.random_bool(0.3), if_version: None },
        66..80 => {
            let key = rng.random_bool(0.3).then(|| format!("t{client}-{}", rng.random_range(0..20)));
            Action::Trigger { name, idempotency_key: key }
        }
        _ => Action::Get { name },
    }
}

/// A definition. It is written as clients write it, in JSON.
fn spec(rng: &mut SmallRng, pace: Pace, start: Timestamp) -> TaskSpec {
    let after = |seconds: u64| start.saturating_add(Millis::from_secs(seconds)).to_string();
    let schedule = |rng: &mut SmallRng| -> Value {
        let slow = if pace == Pace::Coarse { 3600 } else { 1 };
        match rng.random_range(0..10) {
            0 | 1 => json!({"delay": format!("{}ms", rng.random_range(0..8000) * slow)}),
            2 => json!({"at": after(rng.random_range(1..60))}),
            3..6 => json!({"every": format!("{}ms", rng.random_range(700..6000) * slow)}),
            6 => {
                let (count, first, period) = (rng.random_range(1..6), rng.random_range(1..50), rng.random_range(1..5));
                json!({"repeat": format!("R{count}/{}/PT{period}S", after(first))})
            }
            7 if rng.random_bool(0.5) => {
                // Fixed times in the hour that the clocks of Berlin go through twice, if it is that night.
                let first = rng.random_range(0..30);
                json!({"cron": format!("{first},{} 0 2 * * *", first + 29), "time_zone": "Europe/Berlin"})
            }
            7 => {
                let (first, step) = (rng.random_range(0..9), rng.random_range(1..6));
                json!({"cron": format!("{first}-59/{step} * * * * *"), "time_zone": "Europe/Berlin"})
            }
            _ => json!({"cron": format!("*/{} * * * * *", rng.random_range(1..8))}),
        }
    };
    let count = if rng.random_bool(0.8) { 1 } else { 2 };
    let schedules: Vec<Value> = (0..count).map(|_| schedule(rng)).collect();
    let overlap = ["allow", "allow", "allow", "skip", "buffer_one", "buffer_all", "cancel_other"];
    let catch_up = ["fire_once", "fire_all", "skip"];
    let mut spec = json!({
        "schedules": schedules,
        "target": {"http": {"url": "http://receiver/hook"}},
        "payload": {"n": rng.random_range(0..1000)},
        "overlap": overlap[rng.random_range(0..overlap.len())],
        "timeout": format!("{}ms", rng.random_range(800..4000)),
        "catch_up": {"grace": format!("{}ms", rng.random_range(1000..10_000)), "window": format!("{}s", rng.random_range(3..90)), "policy": catch_up[rng.random_range(0..catch_up.len())]},
        "retry": {"max_attempts": rng.random_range(1..5), "initial": "300ms", "factor": 2, "max": "3s", "jitter": 0.2},
    });
    let fields = spec.as_object_mut().expect("an object was made above");
    if rng.random_bool(0.15) {
        fields.insert("remaining".into(), json!(rng.random_range(1..8)));
    }
    if rng.random_bool(0.1) {
        fields.insert("jitter".into(), json!(format!("{}ms", rng.random_range(1..900))));
    }
    if rng.random_bool(0.1) {
        fields.insert("delivery".into(), json!("at_most_once"));
    }
    serde_json::from_value(spec).expect("drawn definitions are well formed")
}

/// Faults drawn one after another. Which kinds there are at all is drawn first.
fn swarm_faults(scenario: &Scenario, swarm: &Swarm, rng: &mut SmallRng) -> Vec<PlannedFault> {
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
fn minority(nodes: usize) -> usize {
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
const HALVES: [&str; 4] = ["inbound_cut", "outbound_cut", "peer_port_closed", "wrong_address"];
const REMOVE: &str = "remove_node";
const UPGRADE: &str = "rolling_upgrade";
const MOODY: &str = "receiver_moody";
const LOSE: &str = "lose_node";

fn stream(seed: u64, name: [u8; 8]) -> SmallRng {
    SmallRng::seed_from_u64(seed ^ u64::from_be_bytes(name))
}

/// A rolling upgrade, for one seed in five.
fn upgrade(scenario: &Scenario, swarm: &Swarm, seed: u64) -> Option<PlannedFault> {
    let mut rng = stream(seed, *b"upgrade!");
    if !may_draw(swarm, UPGRADE) || !rng.random_bool(0.2) {
        return None;
    }
    let at = Millis(rng.random_range(0..scenario.span.0 * (100 - QUIET_PER_CENT) / 100));
    let lasts = Some(Millis(rng.random_range(200..=swarm.longest.0.max(201))));
    Some(PlannedFault { at, lasts, fault: Fault::RollingUpgrade { every: Millis(rng.random_range(500..4000)) } })
}

/// Receivers err now and then all the time, some seeds' more than others'.
fn moody(swarm: &Swarm, seed: u64) -> Option<PlannedFault> {
    let per_mille = stream(seed, *b"moods---").random_range(0..60);
    let fault = Fault::ReceiverMoody { per_mille };
    (per_mille > 0 && may_draw(swarm, MOODY)).then_some(PlannedFault { at: Millis(0), lasts: None, fault })
}

/// For two seeds in five, a few times a node that the others cannot reach, or that cannot reach them.
fn halves(scenario: &Scenario, swarm: &Swarm, seed: u64) -> Vec<PlannedFault> {
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
fn members(scenario: &Scenario, swarm: &Swarm, faults: &[PlannedFault], seed: u64) -> Vec<PlannedFault> {
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
fn losses(scenario: &Scenario, swarm: &Swarm, faults: &[PlannedFault], seed: u64) -> Vec<PlannedFault> {
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

/// How far a leader's clock may be off under these faults.
///
/// A leader stamps while its clock is within 500 ms of the median of the reachable nodes' and has not jumped by more
/// than 500 ms since it was compared. So one wrong clock is bounded by both; several at a time can outvote right ones.
pub fn clock_error_ms(faults: &[PlannedFault]) -> i64 {
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
    match wrong.len() {
        0 => 0,
        _ if overlap => 4000,
        _ => 1100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    fn with(kinds: impl IntoIterator<Item = &'static str>) -> Scenario {
        let kinds = kinds.into_iter().map(str::to_owned).collect();
        Scenario { swarm: Some(Swarm { kinds, ..Swarm::default() }), ..Scenario::default() }
    }

    /// Seeds that found something go on finding it.
    #[test]
    fn a_fault_that_is_drawn_apart_changes_nothing_else_of_a_seed() {
        let whole = with([]);
        let halves = HALVES.map(|half| (half, 5..40));
        for (apart, seeds) in [(UPGRADE, 10..30), (MOODY, 90..101), (LOSE, 10..60)].into_iter().chain(halves) {
            let without = with(KINDS.into_iter().filter(|kind| *kind != apart));
            let mut having = 0;
            for seed in 0..100 {
                let mut plan = plan(&whole, whole.start, seed);
                let drawn = plan.faults.len();
                plan.faults.retain(|planned| planned.fault.name() != apart);
                having += u32::from(plan.faults.len() < drawn);
                assert_eq!(plan, super::plan(&without, without.start, seed));
            }
            assert!(seeds.contains(&having), "{apart}: {having} of 100 seeds");
        }
    }

    #[test]
    fn worlds_are_small_in_different_ways() {
        let whole = with([]);
        let worlds: Vec<Bounds> = (0..200).map(|seed| bounds(&whole, seed)).collect();
        for bound in Bound::ALL {
            let small: Vec<u64> = worlds.iter().filter_map(|world| world.get(bound.name()).copied()).collect();
            assert!((30..130).contains(&small.len()), "{} is small in {} of 200 worlds", bound.name(), small.len());
            assert!(small.iter().all(|amount| bound.small().contains(amount)));
        }
        let sizes: Vec<usize> = worlds.iter().map(Bounds::len).collect();
        assert!(sizes.iter().any(|size| *size < 6) && sizes.iter().any(|size| *size > Bound::ALL.len() / 2));
        let calm = Scenario { swarm: None, ..whole.clone() };
        assert_eq!(bounds(&calm, 1), Bounds::new(), "what is not drawn is usual");
        let coarse = Scenario { pace: Pace::Coarse, ..whole.clone() };
        assert_eq!(bounds(&coarse, 1), Bounds::new());
        let by_hand = Scenario { bounds: Bounds::from([("plans".to_owned(), 99)]), ..whole };
        assert!((0..9).all(|seed| bounds(&by_hand, seed)["plans"] == 99));
    }

    #[test]
    fn a_majority_is_never_lost() {
        for nodes in 1..=7 {
            let scenario = Scenario { nodes, ..with([LOSE]) };
            let (mut most, end) = (0, scenario.span);
            for seed in 0..100 {
                let lost = plan(&scenario, scenario.start, seed).faults;
                assert!(lost.iter().all(|planned| planned.at < end && planned.lasts.is_none()));
                most = most.max(lost.len());
            }
            assert_eq!(most, (nodes as usize - 1) / 2);
            let by_hand = Fault::LoseNode { node: Who::Role(RoleOf::Leader) };
            for fault in [by_hand, Fault::AddNode] {
                let faults = vec![PlannedFault { at: Millis(0), lasts: None, fault }];
                let scenario = Scenario { faults, ..scenario.clone() };
                assert!((0..100).all(|seed| plan(&scenario, scenario.start, seed).faults.len() == 1));
            }
        }
    }

    #[test]
    fn every_size_is_drawn_and_three_most_often() {
        let open = Scenario { nodes: DRAWN, ..with([]) };
        let drawn: Vec<u32> = (0..500).map(|seed| nodes(&open, seed)).collect();
        let count = |size| drawn.iter().filter(|drawn| **drawn == size).count();
        assert!((1..=7).all(|size| count(size) > 5) && (250..350).contains(&count(3)));
        assert!((0..100).all(|seed| nodes(&with([]), seed) == 3));
    }

    /// What nobody else has is never taken away, and nobody is cut off from nobody.
    #[test]
    fn what_is_drawn_leaves_a_cluster_of_any_size_its_data() {
        let names = |nodes, seed| -> Vec<&'static str> {
            let scenario = Scenario { nodes, ..with([]) };
            plan(&scenario, scenario.start, seed).faults.iter().map(|planned| planned.fault.name()).collect()
        };
        let disks = |names: &[&str]| names.iter().filter(|name| matches!(**name, "wipe_disk" | "bit_flip")).count();
        for nodes in 1..=7 {
            let seeds: Vec<Vec<&str>> = (0..200).map(|seed| names(nodes, seed)).collect();
            assert_eq!(seeds.iter().map(|names| disks(names)).max(), Some(minority(nodes as usize)));
            assert!(seeds.iter().filter(|names| names.contains(&REMOVE)).all(|names| disks(names) == 0));
            assert_eq!(seeds.iter().flatten().any(|name| *name == "partition"), nodes > 1);
        }
    }

    /// What a seed does is all in what it draws, and that can be written out: else `shrink` could not take it apart.
    #[test]
    fn a_seed_written_out_is_the_seed() {
        let whole = scenario::read_str(scenario::DEFAULT, "default".as_ref()).unwrap();
        for seed in 0..200 {
            let text = written_out(&whole, seed).text().unwrap();
            let written = scenario::read_str(&text, "written".as_ref()).unwrap();
            let start = super::start(&whole, seed);
            assert_eq!((written.plan(), super::start(&written, seed)), (Some(plan(&whole, start, seed)), start));
            assert_eq!(written.nodes, nodes(&whole, seed));
            assert_eq!((&written.workload.tasks, written.span), (&whole.workload.tasks, whole.span));
            assert_eq!(written_out(&written, seed), written);
        }
        // One seed in four begins in a night in which the clocks go back. The swarm, which says so, is not in it any more.
        assert_ne!(super::start(&whole, 3), super::start(&whole, 4));
    }
}
