//! What clients ask for.

use std::collections::BTreeMap;

use campanile_model::{Millis, TaskSpec, Timestamp};
use rand::RngExt;
use rand::rngs::SmallRng;

use super::QUIET_PER_CENT;
use super::reads;
use super::spec::{Scene, bad, changed, spec};
use crate::history::{Action, UNNAMED};
use crate::plan::PlannedOperation;
use crate::scenario::Scenario;

/// Tasks of each client that it keeps coming back to.
const NAMES: u32 = 4;
/// Of a hundred puts, so many change a part of what was put before under the name.
const CHANGES: u32 = 60;

pub fn operations(scenario: &Scenario, start: Timestamp, rng: &mut SmallRng) -> Vec<PlannedOperation> {
    let load = &scenario.workload;
    let mut operations = load.operations.clone();
    if load.clients == 0 || load.operations_per_second == 0 {
        return operations;
    }
    let busy = scenario.span.0 * (100 - QUIET_PER_CENT) / 100;
    let count = busy * u64::from(load.operations_per_second) / 1000;
    // In the order of time, so that what was put before is known.
    let mut times: Vec<u64> = (0..count).map(|_| rng.random_range(0..busy)).collect();
    times.sort_unstable();
    let mut draws = Draws { scene: Scene { pace: scenario.pace, start }, put: BTreeMap::new() };
    for at in times {
        let client = rng.random_range(1..=load.clients);
        let node = if rng.random_bool(0.7) { 0 } else { rng.random_range(1..=scenario.nodes) };
        operations.push(PlannedOperation { at: Millis(at), client, node, action: draws.action(rng, client) });
    }
    operations
}

pub fn put(name: String, spec: TaskSpec) -> Action {
    Action::Put { name, spec: Box::new(spec), if_version: None, create_only: false, idempotency_key: None }
}

struct Draws {
    scene: Scene,
    /// What was put last, by name.
    put: BTreeMap<String, TaskSpec>,
}

impl Draws {
    fn action(&mut self, rng: &mut SmallRng, client: u32) -> Action {
        let unnamed = rng.random_bool(0.06);
        let name = if unnamed { UNNAMED.into() } else { format!("c{client}-{}", rng.random_range(0..NAMES)) };
        // A condition that a task which is changed now and then meets now and then.
        let version = |rng: &mut SmallRng| rng.random_bool(0.15).then(|| rng.random_range(1..4));
        match rng.random_range(0..100) {
            0..36 => self.put(rng, client, name),
            36..38 => self.batch(rng, client),
            38..39 => Action::PutBad { name, spec: Box::new(bad(rng, self.scene)) },
            39..46 => Action::Pause { name, if_version: version(rng) },
            46..56 => Action::Resume { name, if_version: version(rng) },
            56..63 => Action::Delete { name, cancel_runs: rng.random_bool(0.4), if_version: version(rng) },
            63..76 => {
                let key = rng.random_bool(0.3).then(|| format!("t{client}-{}", rng.random_range(0..20)));
                // A key stands for one request: what the name means may have changed by the next.
                Action::Trigger { name, idempotency_key: key.filter(|_| !unnamed) }
            }
            76..80 => Action::CancelRunOf { name },
            80..83 => Action::GetRunOf { name },
            83..92 => Action::Get { name },
            92..95 => reads::tasks(rng, client, self.scene),
            95..97 => reads::runs(rng, name),
            97..98 => reads::ledger(rng, name, self.scene),
            98..99 => reads::preview(rng, name, self.scene),
            _ => {
                let spec = spec(rng, self.scene);
                reads::preview_spec(rng, spec, self.scene)
            }
        }
    }

    fn put(&mut self, rng: &mut SmallRng, client: u32, name: String) -> Action {
        // Half of them create one, the others change the last that the client has created.
        if name == UNNAMED && (rng.random_bool(0.5) || !self.put.contains_key(&name)) {
            let spec = self.spec(rng, &name);
            return put(String::new(), spec);
        }
        let spec = self.spec(rng, &name);
        let mut key = None;
        let (mut if_version, mut create_only) = (None, false);
        match rng.random_range(0..10) {
            0 => if_version = Some(rng.random_range(1..4)),
            1 if name != UNNAMED => create_only = true,
            2 if name != UNNAMED => key = Some(format!("k{client}-{}", rng.random_range(0..20))),
            _ => {}
        }
        Action::Put { name, spec: Box::new(spec), if_version, create_only, idempotency_key: key }
    }

    fn spec(&mut self, rng: &mut SmallRng, name: &str) -> TaskSpec {
        let spec = match self.put.get(name) {
            Some(before) if rng.random_range(0..100) < CHANGES => changed(before, rng, self.scene),
            _ => spec(rng, self.scene),
        };
        self.put.insert(name.to_owned(), spec.clone());
        spec
    }

    /// Some of the client's names, tasks without one, and lines that are refused among them.
    fn batch(&self, rng: &mut SmallRng, client: u32) -> Action {
        let mut lines = Vec::new();
        for number in 0..NAMES {
            lines.push(match rng.random_range(0..8) {
                0 => Action::PutBad { name: format!("c{client}-{number}"), spec: Box::new(bad(rng, self.scene)) },
                1 => put(String::new(), spec(rng, self.scene)),
                2..6 => {
                    let spec = Box::new(spec(rng, self.scene));
                    let (if_version, idempotency_key) = (None, None);
                    let name = format!("c{client}-{number}");
                    Action::Put { name, spec, if_version, create_only: true, idempotency_key }
                }
                _ => continue,
            });
        }
        if lines.is_empty() {
            lines.push(put(String::new(), spec(rng, self.scene)));
        }
        Action::Batch { lines }
    }
}
