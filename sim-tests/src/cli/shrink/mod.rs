//! `shrink`: the smallest case of a seed that still fails in the same way.
//!
//! What the seed draws is written out; then faults, operations, tasks, small bounds and the span are taken away as long
//! as what was broken is still broken. Each trial is a process and a scenario file, and the file that is left is the
//! answer.
//!
//! Whatever is left out also moves all that comes by chance: a bug that needs two things to meet may not show any more
//! although it could. So other seeds are tried too, for the plan is written out and a seed decides only what comes by
//! chance: many where much is left out at once, one where single events are, and many again when that leads no further.
//!
//! Operations that are only needed in great number, because they fill the log, give way to one task that fires often:
//! with the faults of this seed, or, where it was an accident of this seed that those failed at all, with the faults of
//! another that is broken in the same way.

mod minimise;

use std::collections::BTreeSet;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};
use campanile_model::Millis;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::child::{Ended, Simulator, Trial};
use super::output::{Output, write_file};
use super::{Case, End, quoted};
use crate::drive::draw;
use crate::plan::{PlannedFault, PlannedOperation};
use crate::scenario::{self, Pace, Scenario};
use minimise::minimise;

/// Trials that the candidates of one step of the search share at first: many seeds for each while they are few.
const SHARED: u64 = 32;
/// Where that leaves out nothing more, each candidate is tried under so many seeds before it counts as holding.
const SEEDS: u64 = 12;
/// And where that does not either and more events than `LARGE` are left, under so many.
const MORE_SEEDS: u64 = 60;
const LARGE: usize = 20;
/// The task that is tried in the place of many operations, and how often it fires: what clients do at most, in a
/// coarse pace more seldom by as much as everything else.
const STANDING: &str = "standing-load";
const STANDING_EVERY: &str = "100ms";
const STANDING_EVERY_COARSE: &str = "6m";
/// The faults of so many other seeds are tried with that task, if more than `LARGE` events are left when operations have
/// been left out in pieces of this part of all.
const OTHER_SEEDS: u64 = 200;
const COARSE: usize = 64;
/// So few events are small enough: nothing more is tried for them.
const FEW: usize = 3;

#[derive(Args)]
pub struct Shrink {
    #[command(flatten)]
    case: Case,
    /// The seed that fails
    #[arg(long)]
    seed: u64,
    /// The most trials; what is smallest by then is the answer
    #[arg(long, value_name = "COUNT", default_value_t = 3000)]
    max_trials: u64,
    /// Write the smallest scenario to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Shrunk {
    /// Under which what is left fails; it may be another than the one that was given.
    seed: u64,
    broken: Vec<String>,
    why: String,
    /// Faults, operations and tasks: before, and now.
    events_before: usize,
    events: usize,
    trials: u64,
    scenario: String,
    replay: String,
}

impl Shrink {
    pub fn execute(self, simulator: &Simulator, out: Output) -> Result<End> {
        let folder = tempfile::tempdir().context("cannot make a temporary directory")?;
        let scenario = self.case.read()?;
        let mut search = Search {
            simulator,
            scenario: &scenario,
            seed: self.seed,
            planted: self.case.planted.as_deref(),
            file: folder.path().join("trial.toml"),
            wanted: BTreeSet::new(),
            seeds: None,
            jobs: thread::available_parallelism().map_or(1, NonZero::get) as u64,
            trials: 0,
            most: self.max_trials,
            last: None,
        };
        let ended = search.run(self.case.scenario.as_deref(), self.seed)?;
        if ended.held() {
            bail!("seed {} holds: there is nothing to shrink", self.seed);
        }
        search.wanted = ended.broken().into_iter().collect();
        let small = search.written_out(&scenario)?;
        let events_before = small.events();
        let small = search.smallest(small, |small, trials| {
            out.progress(&format!("{} events of {events_before} after {trials} trials", small.events()));
        })?;
        out.progress("");

        let Some(last) = search.last else { bail!("no trial failed") };
        let scenario = Scenario { seed: Some(search.seed), ..small.scenario() }.text()?;
        let file = self.out.as_ref().map_or_else(|| "smallest.toml".into(), |file| file.display().to_string());
        let smallest = Case { scenario: Some(PathBuf::from(&file)), planted: self.case.planted.clone() };
        let shrunk = Shrunk {
            seed: search.seed,
            broken: last.broken(),
            why: last.why(),
            events_before,
            events: small.events(),
            trials: search.trials,
            scenario,
            replay: smallest.replay_line(search.seed),
        };
        if let Some(file) = &self.out {
            write_file(file, &shrunk.scenario)?;
        }
        out.print(&shrunk, |shrunk| {
            let head = match &self.out {
                Some(file) => format!("# Written to {}", quoted(&file.display().to_string())),
                None => shrunk.scenario.clone(),
            };
            format!(
                "{head}\n# {} events of {} are left after {} trials, and still: {}\n# As {}: {}",
                shrunk.events,
                shrunk.events_before,
                shrunk.trials,
                shrunk.why,
                quoted(&file),
                shrunk.replay,
            )
        })?;
        Ok(End::Held)
    }
}

/// A case with nothing to draw, in parts that can be left out.
#[derive(Clone)]
struct Small {
    base: Scenario,
    faults: Vec<PlannedFault>,
    operations: Vec<PlannedOperation>,
    tasks: Vec<String>,
    /// Those that are other than usual.
    bounds: Vec<(String, u64)>,
    span: Millis,
}

impl Small {
    fn new(base: Scenario) -> Self {
        Self {
            faults: base.faults.clone(),
            operations: base.workload.operations.clone(),
            tasks: base.workload.tasks.keys().cloned().collect(),
            bounds: base.bounds.clone().into_iter().collect(),
            span: base.span,
            base,
        }
    }

    fn events(&self) -> usize {
        self.faults.len() + self.operations.len() + self.tasks.len()
    }

    fn scenario(&self) -> Scenario {
        let mut scenario = self.base.clone();
        scenario.faults.clone_from(&self.faults);
        scenario.workload.operations.clone_from(&self.operations);
        scenario.workload.tasks.retain(|name, _| self.tasks.contains(name));
        scenario.bounds = self.bounds.iter().cloned().collect();
        scenario.span = self.span;
        scenario
    }

    /// With a task that fires often instead of the operations.
    fn standing(&self) -> Self {
        let mut small = Self { base: standing(&self.base), operations: Vec::new(), ..self.clone() };
        if !small.tasks.iter().any(|name| name == STANDING) {
            small.tasks.push(STANDING.to_owned());
        }
        small
    }

    /// Without what begins after a shorter span.
    fn cut(&self, span: Millis) -> Self {
        let mut small = Self { span, ..self.clone() };
        small.faults.retain(|fault| fault.at < span);
        small.operations.retain(|operation| operation.at < span);
        small
    }
}

/// A scenario with a task that fires often instead of operations, written out or to be drawn.
fn standing(scenario: &Scenario) -> Scenario {
    let every = if scenario.pace == Pace::Coarse { STANDING_EVERY_COARSE } else { STANDING_EVERY };
    let url = format!("http://receiver/{STANDING}");
    let spec = json!({"schedules": [{"every": every}], "target": {"http": {"url": url}}});
    let spec = serde_json::from_value(spec).expect("a definition is well formed");
    let mut scenario = scenario.clone();
    scenario.workload.tasks.insert(STANDING.to_owned(), spec);
    scenario.workload.operations.clear();
    (scenario.workload.clients, scenario.workload.operations_per_second) = (0, 0);
    scenario
}

struct Search<'s> {
    simulator: &'s Simulator,
    /// As it was given: what seeds draw from.
    scenario: &'s Scenario,
    /// The one under which the smallest case failed.
    seed: u64,
    planted: Option<&'s str>,
    file: PathBuf,
    /// What was broken at first; one of it must be broken still.
    wanted: BTreeSet<String>,
    /// Under how many seeds every case is tried; none while it depends on how much is left out.
    seeds: Option<u64>,
    /// Processes at a time.
    jobs: u64,
    trials: u64,
    most: u64,
    /// The last trial that failed: always that of the smallest case.
    last: Option<Ended>,
}

impl Search<'_> {
    fn smallest(&mut self, mut small: Small, mut progress: impl FnMut(&Small, u64)) -> Result<Small> {
        let mut first = true;
        loop {
            let before = (small.events(), small.span);
            // A shorter span makes every later trial cheaper.
            small = self.shorter(small)?;
            progress(&small, self.trials);
            // Before anything is left out one by one: what only needs the log to grow may need hundreds of operations.
            if small.events() > LARGE && !small.operations.is_empty() {
                let standing = small.standing();
                if self.fails(&standing, self.seeds.unwrap_or(SHARED))? {
                    small = standing;
                    progress(&small, self.trials);
                }
            }
            let whole = small.clone();
            small.faults = minimise(&whole.faults, |faults, of| {
                self.tries(&Small { faults: faults.to_vec(), ..whole.clone() }, of)
            })?;
            progress(&small, self.trials);
            let whole = small.clone();
            small.operations = minimise(&whole.operations, |operations, of| {
                let case = || Small { operations: operations.to_vec(), ..whole.clone() };
                Ok((!first || of <= COARSE) && self.tries(&case(), of)?)
            })?;
            progress(&small, self.trials);
            if first
                && small.events() > LARGE
                && let Some(other) = self.other()?
            {
                small = other;
                progress(&small, self.trials);
            }
            let whole = small.clone();
            small.tasks =
                minimise(&whole.tasks, |tasks, of| self.tries(&Small { tasks: tasks.to_vec(), ..whole.clone() }, of))?;
            progress(&small, self.trials);
            let whole = small.clone();
            small.bounds = minimise(&whole.bounds, |bounds, of| {
                self.tries(&Small { bounds: bounds.to_vec(), ..whole.clone() }, of)
            })?;
            let stuck = (small.events(), small.span) == before;
            self.seeds = match self.seeds {
                _ if self.trials >= self.most => return Ok(small),
                _ if !stuck || first => None,
                None if small.events() > FEW => Some(SEEDS),
                Some(SEEDS) if small.events() > LARGE => Some(MORE_SEEDS),
                _ => return Ok(small),
            };
            first = false;
        }
    }

    /// What the seed draws, written out: it must fail as it did when it was drawn.
    fn written_out(&mut self, scenario: &Scenario) -> Result<Small> {
        let small = Small::new(draw::written_out(scenario, self.seed));
        if !self.fails(&small, 1)? {
            bail!("seed {} does not fail with what it draws written out: please report it", self.seed);
        }
        Ok(small)
    }

    /// What another seed draws, with a task that fires often instead of operations, if one is broken as the whole was.
    fn other(&mut self) -> Result<Option<Small>> {
        let scenario = standing(self.scenario);
        if !self.scenario_fails(&scenario, OTHER_SEEDS)? {
            return Ok(None);
        }
        self.written_out(&scenario).map(Some)
    }

    /// Cuts the span as far as it goes, to the second.
    fn shorter(&mut self, mut small: Small) -> Result<Small> {
        const STEP: u64 = 1000;
        let (mut holds, mut fails) = (0, small.span.0.div_ceil(STEP));
        while fails - holds > 1 {
            let middle = holds + (fails - holds) / 2;
            let cut = small.cut(Millis(middle * STEP));
            if self.tries(&cut, 8)? {
                (small, fails) = (cut, middle);
            } else {
                holds = middle;
            }
        }
        Ok(small)
    }

    /// Whether one of so many cases is broken as the whole was, under a fair number of seeds.
    fn tries(&mut self, small: &Small, of: usize) -> Result<bool> {
        self.fails(small, self.seeds.unwrap_or((SHARED / of as u64).clamp(1, SEEDS)))
    }

    /// Whether a case is broken as the whole was.
    fn fails(&mut self, small: &Small, seeds: u64) -> Result<bool> {
        self.scenario_fails(&small.scenario(), seeds)
    }

    /// The same of a scenario. One that nobody could write counts as holding.
    fn scenario_fails(&mut self, scenario: &Scenario, seeds: u64) -> Result<bool> {
        let text = scenario.text()?;
        if scenario::read_str(&text, &self.file).is_err() {
            return Ok(false);
        }
        write_file(&self.file, &text)?;
        let count = seeds.min(self.most - self.trials);
        let seeds: Vec<u64> = (0..count).map(|i| self.seed.wrapping_add(i)).collect();
        for seeds in seeds.chunks(self.jobs as usize) {
            self.trials += seeds.len() as u64;
            for (seed, ended) in seeds.iter().zip(self.run_all(seeds)) {
                let ended = ended?;
                if ended.broken().iter().any(|name| self.wanted.contains(name)) {
                    (self.seed, self.last) = (*seed, Some(ended));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The case that was written, under these seeds at a time.
    fn run_all(&self, seeds: &[u64]) -> Vec<Result<Ended>> {
        thread::scope(|scope| {
            let running: Vec<_> = seeds.iter().map(|seed| scope.spawn(|| self.run(Some(&self.file), *seed))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    fn run(&self, scenario: Option<&Path>, seed: u64) -> Result<Ended> {
        let trial = Trial { scenario, seed, planted: self.planted, ..Trial::default() };
        self.simulator.run(&trial)
    }
}
