//! `campanile-sim`.

#[cfg(madsim)]
fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let scenario = campanile_sim::scenario::Scenario {
        name: "default".into(),
        swarm: std::env::args().nth(2).map(|_| Default::default()),
        workload: campanile_sim::scenario::Workload { clients: 4, operations_per_second: 10, ..Default::default() },
        ..Default::default()
    };
    let order = campanile_sim::world::Order { scenario, seed, planted: None, plan: None };
    let started = std::time::Instant::now();
    let done = campanile_sim::world::simulate(&order).unwrap();
    eprintln!(
        "seed {seed} hash {:016x} events {} simulated {:?} {:?}",
        done.trace_hash,
        done.history.events.len(),
        done.simulated,
        started.elapsed()
    );
    let verdict = campanile_sim::invariants::check(&done.history);
    for (name, finding) in &verdict.findings {
        if let campanile_sim::verdict::Finding::Violated(violations) = finding {
            for violation in violations.iter().take(2) {
                eprintln!("VIOLATED {name} at {}: {}", violation.t, violation.what);
            }
        }
    }
    let file = std::fs::File::create(format!("/tmp/sim-{seed}.jsonl")).unwrap();
    campanile_sim::history::write(&done.history, std::io::BufWriter::new(file)).unwrap();
}

#[cfg(not(madsim))]
fn main() {}
