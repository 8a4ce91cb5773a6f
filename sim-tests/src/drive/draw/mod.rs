//! Draws a plan from a seed: who asks for what, and what goes wrong. The same for simulated nodes and real ones.

#[cfg(test)]
mod coverage_tests;
mod faults;
mod operations;
mod spec;

use campanile_model::{Millis, Target, TaskSpec, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::history::Action;
use crate::plan::{DrawnPlan, PlannedOperation};
use crate::scenario::Scenario;
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

/// When a scenario begins under a seed, where the clock can be chosen.
pub fn start(scenario: &Scenario, seed: u64) -> Timestamp {
    let free = scenario.swarm.is_some() && scenario.start == Scenario::default().start;
    let night = NIGHTS[(seed / NIGHTS_EVERY % NIGHTS.len() as u64) as usize];
    if free && seed.is_multiple_of(NIGHTS_EVERY) { night } else { scenario.start }
}

/// What nodes sign with for tasks that have no secret of their own, under one seed in three.
pub fn webhook_secret(seed: u64) -> Option<String> {
    let signs = faults::stream(seed, *b"secrets-").random_bool(1.0 / 3.0);
    signs.then(|| "whsec_bm9kZXMgc2lnbiB3aXRoIHRoaXMgb25l".to_owned())
}

/// The plan of a scenario under a seed, when its workload begins at `start`.
pub fn plan(scenario: &Scenario, start: Timestamp, seed: u64) -> DrawnPlan {
    let mut rng = SmallRng::seed_from_u64(seed);
    // From a stream of their own, so that what is asked for and what goes wrong change apart.
    let mut operations = operations::operations(scenario, start, &mut faults::stream(seed, *b"requests"));
    operations.sort_by_key(|operation| operation.at);
    let mut faults = scenario.faults.clone();
    if let Some(swarm) = &scenario.swarm {
        faults.extend(faults::swarm_faults(scenario, swarm, &mut rng));
        faults.extend(faults::upgrade(scenario, swarm, seed));
        faults.extend(faults::moody(swarm, seed));
        faults.extend(faults::losses(scenario, swarm, &faults, seed));
    }
    faults.sort_by_key(|fault| fault.at);
    DrawnPlan { faults, operations }
}

/// A scenario as a seed draws it, written out: there is nothing left to draw, and the seed does the same with it.
pub fn written_out(scenario: &Scenario, seed: u64) -> Scenario {
    let start = start(scenario, seed);
    let plan = scenario.plan().unwrap_or_else(|| plan(scenario, start, seed));
    Scenario { start, ..scenario.with_plan(&plan) }
}

/// The puts of the scenario's own tasks, then the plan's operations; all webhooks go to `receiver`, a host and a port.
pub fn all_operations(scenario: &Scenario, planned: Vec<PlannedOperation>, receiver: &str) -> Vec<PlannedOperation> {
    let own = scenario.workload.tasks.iter().map(|(name, spec)| PlannedOperation {
        at: Millis(0),
        client: 0,
        node: 0,
        action: operations::put(name.clone(), spec.clone()),
    });
    let mut operations: Vec<PlannedOperation> = own.chain(planned).collect();
    for operation in &mut operations {
        redirect_all(&mut operation.action, receiver);
    }
    operations
}

fn redirect_all(action: &mut Action, receiver: &str) {
    match action {
        Action::Put { spec, .. } | Action::PutBad { spec, .. } => redirect(spec, receiver),
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
    use campanile_model::NodeId;

    use super::faults::{LOSE, MOODY, UPGRADE};
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
        for (apart, seeds) in [(UPGRADE, 10..30), (MOODY, 90..101), (LOSE, 20..60)] {
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
    fn a_majority_is_never_lost() {
        for nodes in [3, 5, 7] {
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

    /// What a seed does is all in what it draws, and that can be written out: else `shrink` could not take it apart.
    #[test]
    fn a_seed_written_out_is_the_seed() {
        let whole = scenario::read_str(scenario::DEFAULT, "default".as_ref()).unwrap();
        for seed in 0..200 {
            let text = written_out(&whole, seed).text().unwrap();
            let written = scenario::read_str(&text, "written".as_ref()).unwrap();
            let start = super::start(&whole, seed);
            assert_eq!((written.plan(), super::start(&written, seed)), (Some(plan(&whole, start, seed)), start));
            assert_eq!((&written.workload.tasks, written.span), (&whole.workload.tasks, whole.span));
            assert_eq!(written_out(&written, seed), written);
        }
        // One seed in four begins in a night in which clocks change. The swarm, which says so, is not in it any more.
        assert_ne!(super::start(&whole, 3), super::start(&whole, 4));
    }
}
