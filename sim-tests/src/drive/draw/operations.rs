//! What clients ask for.

use campanile_model::{Millis, TaskSpec, Timestamp};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::QUIET_PER_CENT;
use super::spec::spec;
use crate::history::Action;
use crate::plan::PlannedOperation;
use crate::scenario::{Pace, Scenario};

/// Tasks of each client that it keeps coming back to.
const NAMES: u32 = 4;

pub fn operations(scenario: &Scenario, start: Timestamp, rng: &mut SmallRng) -> Vec<PlannedOperation> {
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

pub fn put(name: String, spec: TaskSpec) -> Action {
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
