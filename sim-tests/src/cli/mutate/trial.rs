//! Running mutants: what a seed reaches at all, whether a seed shows a mutant, and whether a test does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::build::Program;
use super::copy::write_whole;
use super::instrument::{CHOSEN, REACHED};
use super::state::{Caught, Tested};
use crate::cli::child::{Ended, Limits, Process, Simulator, Trial};

/// A mutant that computes this many times as long as the slowest seed without one has no end.
const ENDLESS: u32 = 10;
const ENDLESS_AT_LEAST: Duration = Duration::from_secs(20);
/// Of address space: one that takes more would take everything.
const MEMORY: u64 = 6 << 30;

/// What a seed does without a mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reach {
    pub cpu_ms: u64,
    /// Why the seed does not hold, if it does not: then it says nothing of mutants.
    pub broken: Option<String>,
    /// Mutants whose place it comes to. With any other it would run as it does without.
    pub ids: BTreeSet<u32>,
}

pub struct Trials<'t> {
    pub simulator: &'t Simulator,
    /// Keeps what seeds reach, of this build.
    pub folder: PathBuf,
}

impl Trials<'_> {
    /// Runs a seed without a mutant, unless that has been done.
    pub fn reach(&self, seed: u64) -> Result<Reach> {
        let kept = self.folder.join(format!("seed-{seed}.json"));
        if kept.exists() {
            let text = std::fs::read_to_string(&kept).with_context(|| format!("cannot read {}", kept.display()))?;
            return serde_json::from_str(&text).with_context(|| format!("cannot read {}", kept.display()));
        }
        let noted = self.folder.join(format!("seed-{seed}.noted"));
        if noted.exists() {
            std::fs::remove_file(&noted).with_context(|| format!("cannot remove {}", noted.display()))?;
        }
        let ended =
            self.simulator.run(&Trial { seed, environment: &[(REACHED, noted.as_os_str())], ..Trial::default() })?;
        let cpu_ms = match &ended {
            Ended::Judged(summary) => summary.facts.cpu_ms.context("a verdict without its processor time")?,
            _ => 0,
        };
        let text = std::fs::read_to_string(&noted).with_context(|| format!("seed {seed} came to no mutant at all"))?;
        let ids = text.lines().map(str::parse).collect::<Result<_, _>>().context("what a seed reaches")?;
        let reach = Reach { cpu_ms, broken: (!ended.held()).then(|| ended.why()), ids };
        write_whole(&kept, &serde_json::to_string(&reach)?)?;
        Ok(reach)
    }

    /// The first of these seeds that shows the mutant.
    pub fn sweep(&self, id: u32, seeds: &[u64], limits: Limits) -> Result<Option<Caught>> {
        let chosen = id.to_string();
        for seed in seeds {
            let environment = [(CHOSEN, chosen.as_ref())];
            let trial = Trial { seed: *seed, environment: &environment, limits: Some(limits), ..Trial::default() };
            let ended = self.simulator.run(&trial)?;
            if !ended.held() {
                return Ok(Some(Caught { seed: *seed, by: ended.broken(), why: ended.why() }));
            }
        }
        Ok(None)
    }
}

/// What a mutant may take, after what seeds take without one.
pub fn limits(slowest: Duration) -> Limits {
    Limits { computing: (slowest * ENDLESS).max(ENDLESS_AT_LEAST), memory: Some(MEMORY) }
}

/// The tests of the product's crates, built from the copy.
pub struct Tests {
    /// By folder of the crate, those of the library first.
    programs: BTreeMap<String, Vec<(Program, Duration)>>,
    tree: PathBuf,
}

impl Tests {
    /// Those that pass without a mutant, and what is to be said of the others.
    pub fn new(programs: Vec<Program>, tree: &Path, mut note: impl FnMut(&str)) -> Result<Self> {
        let mut tests = Self { programs: BTreeMap::new(), tree: tree.to_owned() };
        for program in programs {
            note(&format!("{} of {}", program.target, program.package));
            let started = Instant::now();
            let failed = tests.failed(&program, 0, Limits { computing: Duration::from_secs(600), memory: None })?;
            match failed {
                None => tests.programs.entry(program.package.clone()).or_default().push((program, started.elapsed())),
                Some(test) => note(&format!("left out, it fails without a mutant: {} ({test})", program.target)),
            }
        }
        for programs in tests.programs.values_mut() {
            programs.sort_by_key(|(program, took)| (!program.is_library, *took));
        }
        Ok(tests)
    }

    /// Runs the tests of a crate until one fails. It must fail twice: some tests go by real time.
    pub fn test(&self, package: &str, id: u32) -> Result<Tested> {
        for (program, took) in self.programs.get(package).into_iter().flatten() {
            let limits = Limits { memory: None, ..limits(*took) };
            if let Some(first) = self.failed(program, id, limits)?
                && self.failed(program, id, limits)?.is_some()
            {
                return Ok(Tested { by: Some(format!("{}: {first}", program.target)) });
            }
        }
        Ok(Tested { by: None })
    }

    /// The first test that fails, or how the program ended.
    fn failed(&self, program: &Program, id: u32, limits: Limits) -> Result<Option<String>> {
        let mut command = Command::new(&program.path);
        command.current_dir(self.tree.join(&program.package)).env(CHOSEN, id.to_string());
        let (status, stdout, _) = Process::start(command, Some(limits))?.wait()?;
        let Some(status) = status else { return Ok(Some("endless".into())) };
        if status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&stdout);
        let failed = said.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
        Ok(Some(failed.map_or_else(|| status.to_string(), str::to_owned)))
    }
}

/// Does each piece of work on one of several threads, and tells of each as it is done.
pub fn each<T: Send, R: Send>(
    work: impl IntoIterator<Item = T>,
    jobs: usize,
    one: impl Fn(T) -> Result<R> + Sync,
    mut listener: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let queue: Mutex<VecDeque<T>> = Mutex::new(work.into_iter().collect());
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, queue, one) = (sender.clone(), &queue, &one);
            scope.spawn(move || {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(work) = next() {
                    // Nobody listens any more once one has failed.
                    if sender.send(one(work)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for done in &receiver {
            if let Err(error) = done.and_then(&mut listener) {
                queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(error);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_work_is_done_once_and_an_error_ends_it() {
        let mut sum = 0;
        each(
            1..=100,
            3,
            |n| Ok(n * 2),
            |n: u64| {
                sum += n;
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(sum, 10_100);
        let mut done = 0;
        let failing = |n| if n == 5 { anyhow::bail!("five") } else { Ok(n) };
        let ended = each(1..=1_000_000, 1, failing, |_: u64| {
            done += 1;
            Ok(())
        });
        assert_eq!((ended.unwrap_err().to_string().as_str(), done), ("five", 4));
    }

    #[test]
    fn the_limit_is_a_multiple_of_what_it_takes_without() {
        assert_eq!(limits(Duration::from_secs(1)).computing, ENDLESS_AT_LEAST);
        assert_eq!(limits(Duration::from_secs(30)).computing, Duration::from_secs(300));
    }
}
