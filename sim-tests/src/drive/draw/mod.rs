//! Draws a plan from a seed: who asks for what, and what goes wrong. The same for simulated nodes and real ones.

mod closing;
#[cfg(test)]
mod coverage_tests;
mod faults;
mod operations;
mod reads;
mod spec;

use campanile_model::sim::Bound;
use campanile_model::{Millis, Target, TaskSpec, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::history::Action;
use crate::plan::{Bounds, DrawnPlan, PlannedOperation};
use crate::scenario::{DRAWN, Pace, Scenario};
pub use closing::closing;
pub use faults::{KINDS, clock_error_ms};

/// Of the scenario's span, the end that is left free of new faults and operations.
const QUIET_PER_CENT: u64 = 5;

/// Half a minute before clocks change: in Berlin back (2026-10-25) and forward (2027-03-28), in New York back
/// (2026-11-01) and forward (2027-03-14), and on Lord Howe by half an hour back (2027-04-03).
const NIGHTS: [Timestamp; 5] = [
    Timestamp::from_millis(1_792_889_970_000),
    Timestamp::from_millis(1_806_195_570_000),
    Timestamp::from_millis(1_793_512_770_000),
    Timestamp::from_millis(1_805_007_570_000),
    Timestamp::from_millis(1_806_764_370_000),
];
/// One seed of so many begins in one of them, unless the scenario says when it begins.
const NIGHTS_EVERY: u64 = 4;

/// Below it, seeds are drawn whole. Above, they are variants: their lower half draws the world (nodes, faults, bounds,
/// when it begins), as it does by itself, and the whole seed what is asked for, and every chance in the simulation.
const WORLDS: u64 = 1 << 32;

/// The seed that draws the world of this one.
pub fn world(seed: u64) -> u64 {
    seed % WORLDS
}

/// The same world with other requests and chances, for each number from 1 on.
pub fn variant(seed: u64, number: u32) -> u64 {
    world(seed) + WORLDS * u64::from(number)
}

/// When a scenario begins under a seed, where the clock can be chosen.
pub fn start(scenario: &Scenario, seed: u64) -> Timestamp {
    let free = scenario.swarm.is_some() && scenario.start == Scenario::default().start;
    let seed = world(seed);
    let night = NIGHTS[(seed / NIGHTS_EVERY % NIGHTS.len() as u64) as usize];
    if free && seed.is_multiple_of(NIGHTS_EVERY) { night } else { scenario.start }
}

/// How many nodes a scenario has under a seed: three, mostly, for speed, where it leaves that open.
pub fn nodes(scenario: &Scenario, seed: u64) -> u32 {
    if scenario.nodes != DRAWN {
        return scenario.nodes;
    }
    match faults::stream(seed, *b"nodes---").random_range(0..100) {
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

/// What nodes sign with for tasks that have no secret of their own, under one seed in three.
pub fn webhook_secret(seed: u64) -> Option<String> {
    let signs = faults::stream(seed, *b"secrets-").random_bool(1.0 / 3.0);
    signs.then(|| "whsec_bm9kZXMgc2lnbiB3aXRoIHRoaXMgb25l".to_owned())
}

/// The plan of a scenario under a seed, when its workload begins at `start`.
pub fn plan(scenario: &Scenario, start: Timestamp, seed: u64) -> DrawnPlan {
    let scenario = &Scenario { nodes: nodes(scenario, seed), ..scenario.clone() };
    let mut rng = SmallRng::seed_from_u64(world(seed));
    // From a stream of their own, so that what is asked for and what goes wrong change apart.
    let mut operations = operations::operations(scenario, start, &mut faults::varied_stream(seed, *b"requests"));
    operations.sort_by_key(|operation| operation.at);
    let mut faults = scenario.faults.clone();
    if let Some(swarm) = &scenario.swarm {
        faults.extend(faults::swarm_faults(scenario, swarm, &mut rng));
        faults.extend(faults::upgrade(scenario, swarm, seed));
        faults.extend(faults::moody(swarm, seed));
        faults.extend(faults::losses(scenario, swarm, &faults, seed));
        faults.extend(faults::halves(scenario, swarm, seed));
        faults.extend(faults::members(scenario, swarm, &faults, seed));
    }
    faults.sort_by_key(|fault| fault.at);
    DrawnPlan { faults, operations, bounds: bounds(scenario, seed) }
}

/// Which bounds are small in a seed's world, and how small. Which share of them is drawn first, so that in some worlds
/// nearly none is and in others most are. Each has a stream of its own: another bound in the list changes nothing else.
fn bounds(scenario: &Scenario, seed: u64) -> Bounds {
    let mut bounds = Bounds::new();
    if scenario.swarm.is_some() && scenario.pace == Pace::Normal {
        let share = faults::stream(seed, *b"bounds--").random_range(0.05..0.65);
        for bound in Bound::ALL {
            let mut rng = SmallRng::seed_from_u64(world(seed) ^ xxhash_rust::xxh3::xxh3_64(bound.name().as_bytes()));
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
        action: operations::put(name.clone(), spec.clone()),
    });
    redirected(own.chain(planned).collect(), receiver)
}

/// The same operations with all their webhooks going to `receiver`, a host and a port.
pub fn redirected(mut operations: Vec<PlannedOperation>, receiver: &str) -> Vec<PlannedOperation> {
    for operation in &mut operations {
        redirect_all(&mut operation.action, receiver);
    }
    operations
}

fn redirect_all(action: &mut Action, receiver: &str) {
    match action {
        Action::Put { spec, .. } | Action::PutBad { spec, .. } | Action::PreviewSpec { spec, .. } => {
            redirect(spec, receiver);
        }
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

#[cfg(test)]
mod tests {
    use super::faults::{HALVES, LOSE, MOODY, REMOVE, UPGRADE, minority};
    use super::*;
    use crate::plan::{Fault, PlannedFault, RoleOf, Who};
    use crate::scenario::{self, Swarm};

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

    #[test]
    fn a_variant_has_the_same_world_and_other_requests() {
        let whole = scenario::read_str(scenario::DEFAULT, "default".as_ref()).unwrap();
        for seed in [4, 7, 121] {
            let other = variant(seed, 3);
            assert_eq!((world(seed), world(other), variant(other, 3)), (seed, seed, other));
            let (one, two) = (settled(&whole, seed), settled(&whole, other));
            assert_eq!((one.nodes, one.start), (two.nodes, two.start));
            let (one, two) = (plan(&whole, one.start, seed), plan(&whole, two.start, other));
            assert_eq!((&one.faults, &one.bounds), (&two.faults, &two.bounds));
            assert_ne!(one.operations, two.operations);
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
