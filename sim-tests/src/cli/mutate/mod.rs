//! `mutate`: how much of the product's code the sweep watches, measured by changes that nobody chose.
//!
//! A change (a mutant) of the code that no seed and no test notices shows what is not watched. All mutants are in one
//! build of a copy of the tree, each behind a switch, so that the product's own source has none of them and a thousand
//! need no thousand builds (docs/decisions/0013-mutants-in-one-build.md).
//!
//! 1. [`generate`] finds them, [`instrument`] writes them, [`build`] leaves out those that do not compile.
//! 2. A seed is first run without a mutant: it must hold, and says which places it comes to ([`trial`]). A mutant whose
//!    place it does not come to need not be run with it.
//! 3. Mutants are tried in waves of more and more seeds, so that a run that is interrupted says most; then by tests.

mod build;
mod copy;
mod equivalents;
mod generate;
mod instrument;
mod operators;
mod report;
mod scope;
mod state;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use xxhash_rust::xxh3::xxh3_64;

use super::End;
use super::child::Simulator;
use super::output::{Output, write_file};
use build::{Built, Recipe};
use generate::{Key, Mutant};
use instrument::Source;
use report::{Fate, Line, Report};
use state::{Record, State};
use trial::{Reach, Tests, Trials};

/// A wave goes on to this many times the seeds of the one before it.
const WAVE: u64 = 4;

#[derive(Args)]
pub struct Mutate {
    /// Only mutants of these files: a part of the path, or a pattern with `*`; may be given several times
    #[arg(long, value_name = "PATTERN")]
    file: Vec<String>,
    /// Only this many of them, the same ones each time
    #[arg(long, value_name = "COUNT")]
    sample: Option<usize>,
    /// Each mutant is tried with seeds 1 to this one, until one fails
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    seeds: u64,
    /// Ask the tests of its crate about each mutant that no seed has shown
    #[arg(long)]
    tests: bool,
    /// Processes at a time [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    jobs: Option<usize>,
    /// Keep in this file what is done, and go on from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Write the report to this file: JSON if it is so named, else Markdown
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Only list the mutants
    #[arg(long)]
    list: bool,
    /// Top of the project
    #[arg(long, value_name = "DIR", default_value = ".")]
    tree: PathBuf,
    /// Where the copy is made and built [default: target/mutate in the tree]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
}

/// A mutant that is tried.
#[derive(Clone)]
struct Wanted {
    id: u32,
    mutant: Mutant,
}

impl Mutate {
    pub fn execute(self, out: Output) -> Result<End> {
        let tree = self.tree.canonicalize().with_context(|| format!("cannot find {}", self.tree.display()))?;
        let sources = scope::sources(&tree)?;
        let reasons = equivalents::read(&tree, &sources)?;
        if self.list {
            let mut wanted = self.wanted(&sources, &BTreeSet::new())?;
            wanted.sort_by_key(|wanted| wanted.id);
            let keys: Vec<&Key> = wanted.iter().map(|wanted| &wanted.mutant.key).collect();
            out.print(&keys, |keys| keys.iter().map(|key| format!("{key}\n")).collect())?;
            return Ok(End::Held);
        }
        let work = self.work.clone().unwrap_or_else(|| tree.join("target/mutate"));
        std::fs::create_dir_all(&work).with_context(|| format!("cannot make {}", work.display()))?;
        let work = work.canonicalize().with_context(|| format!("cannot find {}", work.display()))?;

        let folder = work.join("sim");
        let recipe = Recipe {
            name: "simulator",
            arguments: &["build", "--release", "-p", "campanile-sim-tests"],
            flags: Some("--cfg madsim"),
            folder: &folder,
        };
        let (built, fingerprint) = self.build(&tree, &sources, &recipe, out)?;
        let program = built.programs.iter().find(|program| program.target == "campanile-sim");
        let simulator = Simulator::new(Some(program.context("cargo built no simulator")?.path.clone()))?;
        let mut wanted = self.wanted(&sources, &built.unviable)?;
        let mut state = match &self.resume {
            Some(file) if file.exists() => State::read(file, fingerprint.clone())?,
            _ => State::new(fingerprint.clone()),
        };

        let reached = folder.join("reached").join(&fingerprint);
        std::fs::create_dir_all(&reached).with_context(|| format!("cannot make {}", reached.display()))?;
        let trials = Trials { simulator: &simulator, folder: reached };
        // What is known to change nothing is not waited for.
        let tried: Vec<Wanted> = wanted.iter().filter(|mutant| !reasons.contains_key(mutant.key())).cloned().collect();
        let broken_seeds = self.sweep(&trials, &tried, &mut state, out)?;
        if self.tests {
            self.test(&tree, &work, &sources, &tried, &mut state, out)?;
        }
        self.save(&state)?;

        let unknown = Record::default();
        wanted.sort_by_key(|wanted| wanted.id);
        let lines = wanted.into_iter().map(|Wanted { mutant: Mutant { key, line, .. }, .. }| {
            let fate = Fate::of(state.records.get(&key).unwrap_or(&unknown), reasons.get(&key));
            Line { key, line, fate }
        });
        let report = Report::new(self.seeds, self.tests, built.unviable.len(), broken_seeds, lines.collect());
        if let Some(file) = &self.out {
            let is_json = file.extension().is_some_and(|extension| extension == "json");
            write_file(file, &if is_json { serde_json::to_string_pretty(&report)? } else { report.markdown() })?;
        }
        out.progress("");
        out.print(&report, Report::markdown)?;
        Ok(End::held(report.all.missed == 0))
    }

    /// Copies the tree and builds it, with what identifies the two.
    fn build(&self, tree: &Path, sources: &[Source], recipe: &Recipe<'_>, out: Output) -> Result<(Built, String)> {
        let files: BTreeSet<&str> = sources.iter().map(|source| source.file.as_str()).collect();
        let copied = copy::copy(tree, &recipe.folder.join("tree"), |file| files.contains(file))?;
        let built = build::build(&copied, sources, recipe, out)?;
        let unviable: Vec<u8> = built.unviable.iter().flat_map(|id| id.to_le_bytes()).collect();
        let fingerprint = format!("{}-{:016x}", copied.fingerprint, xxh3_64(&unviable));
        let all: usize = sources.iter().map(|source| source.mutants().count()).sum();
        out.note(&format!("{}: {all} mutants, {} of them do not compile", recipe.name, built.unviable.len()));
        Ok((built, fingerprint))
    }

    /// Those that were asked for, in an order of their own.
    fn wanted(&self, sources: &[Source], unviable: &BTreeSet<u32>) -> Result<Vec<Wanted>> {
        let meant = |file: &str| self.file.is_empty() || self.file.iter().any(|pattern| scope::matches(pattern, file));
        let mutants = sources.iter().filter(|source| meant(&source.file)).flat_map(Source::mutants);
        let viable = mutants.filter(|(id, _)| !unviable.contains(id));
        let mut wanted: Vec<Wanted> = viable.map(|(id, mutant)| Wanted { id, mutant: mutant.clone() }).collect();
        if wanted.is_empty() {
            bail!("no mutant is meant by --file {}", self.file.join(" --file "));
        }
        // By name, so that a change of one file does not draw others in the next; and shuffled, so that a wave that is
        // interrupted has tried some of every file.
        wanted.sort_by_cached_key(|wanted| xxh3_64(wanted.mutant.key.to_string().as_bytes()));
        wanted.truncate(self.sample.unwrap_or(usize::MAX));
        Ok(wanted)
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }

    /// Tries mutants with seeds; gives the seeds that do not hold by themselves.
    fn sweep(
        &self,
        trials: &Trials<'_>,
        wanted: &[Wanted],
        state: &mut State,
        out: Output,
    ) -> Result<BTreeMap<u64, String>> {
        let mut broken = BTreeMap::new();
        let mut reaches: BTreeMap<u64, Reach> = BTreeMap::new();
        let (mut slowest, mut saved) = (Duration::ZERO, Instant::now());
        let mut until = 0;
        while until < self.seeds {
            let from = until + 1;
            until = (until.max(1) * if from == 1 { 1 } else { WAVE }).min(self.seeds);
            trial::each(
                from..=until,
                self.jobs(),
                |seed| Ok((seed, trials.reach(seed)?)),
                |(seed, reach)| {
                    out.progress(&format!("seed {seed} without a mutant"));
                    slowest = slowest.max(Duration::from_millis(reach.cpu_ms));
                    if let Some(why) = reach.broken {
                        out.note(&format!("seed {seed} does not hold without a mutant: {why}"));
                        broken.insert(seed, why);
                    } else {
                        reaches.insert(seed, reach);
                    }
                    Ok(())
                },
            )?;
            if reaches.is_empty() {
                bail!("no seed holds without a mutant");
            }
            let limits = trial::limits(slowest);
            let todo: Vec<(&Wanted, Vec<u64>)> = wanted
                .iter()
                .filter_map(|mutant| {
                    let record = state.records.entry(mutant.key().clone()).or_default();
                    let open = record.caught.is_none() && record.tried < until;
                    let seeds = reaches.range(record.tried + 1..=until.max(record.tried + 1));
                    let seeds = seeds.filter(|(_, reach)| reach.ids.contains(&mutant.id)).map(|(seed, _)| *seed);
                    open.then(|| (mutant, seeds.collect()))
                })
                .collect();
            let (all, mut done) = (todo.len(), 0);
            let one = |(mutant, seeds): (&Wanted, Vec<u64>)| {
                Ok((mutant.key().clone(), seeds.len() as u64, trials.sweep(mutant.id, &seeds, limits)?))
            };
            trial::each(todo, self.jobs(), one, |(key, reached, caught)| {
                done += 1;
                let record = state.records.entry(key).or_default();
                record.tried = until;
                record.reached += reached;
                record.caught = caught;
                out.progress(&format!("seeds {from} to {until}: {done} of {all} mutants"));
                if saved.elapsed() > Duration::from_secs(5) {
                    self.save(state)?;
                    saved = Instant::now();
                }
                Ok(())
            })?;
            self.save(state)?;
            let known = wanted.iter().filter(|mutant| state.records[mutant.key()].caught.is_some()).count();
            out.note(&format!("seeds 1 to {until}: {known} of {} caught", wanted.len()));
        }
        Ok(broken)
    }

    /// Asks the tests about those that no seed has shown.
    fn test(
        &self,
        tree: &Path,
        work: &Path,
        sources: &[Source],
        wanted: &[Wanted],
        state: &mut State,
        out: Output,
    ) -> Result<()> {
        let crates: BTreeSet<&str> = sources.iter().map(|source| package(&source.file)).collect();
        let names: Vec<String> = crates.iter().map(|name| format!("campanile-{name}")).collect();
        let packages = names.iter().flat_map(|name| ["-p", name]);
        let arguments: Vec<&str> = ["test", "--no-run", "--lib", "--tests"].into_iter().chain(packages).collect();
        let folder = work.join("tests");
        let recipe = Recipe { name: "tests", arguments: &arguments, flags: None, folder: &folder };
        let (built, _) = self.build(tree, sources, &recipe, out)?;
        let programs = built.programs.into_iter().filter(|program| crates.contains(program.package.as_str()));
        let tests = Tests::new(programs.collect(), &folder.join("tree"), |text| out.note(text))?;
        let todo: Vec<&Wanted> = wanted
            .iter()
            .filter(|mutant| !built.unviable.contains(&mutant.id))
            .filter(|mutant| {
                let record = &state.records[mutant.key()];
                record.caught.is_none() && record.tested.is_none()
            })
            .collect();
        let (all, mut done) = (todo.len(), 0);
        let one = |mutant: &Wanted| Ok((mutant.key().clone(), tests.test(package(&mutant.key().file), mutant.id)?));
        trial::each(todo, self.jobs(), one, |(key, tested)| {
            done += 1;
            out.progress(&format!("tests: {done} of {all} mutants"));
            state.records.entry(key).or_default().tested = Some(tested);
            self.save(state)
        })
    }

    fn save(&self, state: &State) -> Result<()> {
        self.resume.as_ref().map_or(Ok(()), |file| state.write(file))
    }
}

impl Wanted {
    fn key(&self) -> &Key {
        &self.mutant.key
    }
}

/// The folder of a file's crate.
fn package(file: &str) -> &str {
    file.split('/').next().unwrap_or(file)
}
