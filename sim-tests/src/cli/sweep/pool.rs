//! Seeds handed out to processes, several at a time.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use anyhow::Result;

use crate::cli::Case;
use crate::cli::child::{Ended, Simulator, Trial};
use crate::cli::output::write_file;
use crate::drive::draw;
use crate::scenario::Scenario;

pub struct Pool<'p> {
    pub simulator: &'p Simulator,
    pub case: &'p Case,
    pub scenario: &'p Scenario,
    /// For files of no use afterwards.
    pub scratch: &'p Path,
    /// Per cent of the seeds that are run twice.
    pub recheck: u64,
    pub keep: Option<&'p Path>,
}

/// A seed's result.
pub struct Done {
    pub ended: Ended,
    /// The comparison with a second run, if there was one.
    pub again: Option<Again>,
    /// The timeline of a failing seed.
    pub kept: Option<PathBuf>,
}

pub struct Again {
    pub same: bool,
    pub difference: String,
}

impl Pool<'_> {
    /// Runs the seeds and tells of each as it ends, until there are no more or the listener has enough. It answers with
    /// seeds that are to be run before the others, or with `None` when it has enough.
    pub fn run(
        &self,
        seeds: VecDeque<u64>,
        jobs: usize,
        mut listener: impl FnMut(u64, Done) -> Result<Option<Vec<u64>>>,
    ) -> Result<()> {
        let queue = Mutex::new(seeds);
        let mut enough = false;
        // Those who run them go when the queue is empty: what the last seeds have led to comes after that.
        while !enough && !lock(&queue).is_empty() {
            enough = self.run_all(&queue, jobs, &mut listener)?;
        }
        Ok(())
    }

    /// Whether the listener has enough.
    fn run_all(
        &self,
        queue: &Mutex<VecDeque<u64>>,
        jobs: usize,
        listener: &mut impl FnMut(u64, Done) -> Result<Option<Vec<u64>>>,
    ) -> Result<bool> {
        let next = || lock(queue).pop_front();
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..jobs {
                let sender = sender.clone();
                scope.spawn(|| {
                    let sender = sender;
                    while let Some(seed) = next() {
                        // Nobody listens any more once the sweep is over.
                        if sender.send((seed, self.one(seed))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut enough = false;
            for (seed, done) in &receiver {
                match done.and_then(|done| listener(seed, done)) {
                    Ok(Some(first)) if !enough => first.into_iter().rev().for_each(|seed| lock(queue).push_front(seed)),
                    // What runs already is waited for and counted as well.
                    Ok(_) => {
                        enough = true;
                        lock(queue).clear();
                    }
                    Err(error) => {
                        lock(queue).clear();
                        return Err(error);
                    }
                }
            }
            Ok(enough)
        })
    }

    fn one(&self, seed: u64) -> Result<Done> {
        let trial = Trial {
            scenario: self.case.scenario.as_deref(),
            seed,
            planted: self.case.planted.as_deref(),
            ..Trial::default()
        };
        let ended = self.simulator.run(&trial)?;
        if ended.held() && !sampled(seed, self.recheck) {
            return Ok(Done { ended, again: None, kept: None });
        }
        let keep = self.keep.filter(|_| !ended.held());
        let files =
            keep.map(|folder| (folder.join(format!("seed-{seed}.jsonl")), folder.join(format!("seed-{seed}.html"))));
        // The second time with what the seed draws written out, which must not make a difference either.
        let written = self.scratch.join(format!("seed-{seed}.toml"));
        write_file(&written, &draw::written_out(self.scenario, seed).text()?)?;
        let second = self.simulator.run(&Trial {
            scenario: Some(&written),
            history: files.as_ref().map(|(history, _)| history.as_path()),
            report: files.as_ref().map(|(_, report)| report.as_path()),
            ..trial
        })?;
        let same = ended.trace() == second.trace() && ended.broken() == second.broken();
        let said = |ended: &Ended| format!("trace {}, {}", ended.trace().unwrap_or("none"), ended.why());
        let again = Again { same, difference: format!("{}; then {}", said(&ended), said(&second)) };
        Ok(Done { ended, again: Some(again), kept: files.map(|(_, report)| report) })
    }
}

fn lock(queue: &Mutex<VecDeque<u64>>) -> MutexGuard<'_, VecDeque<u64>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a seed is of the sample: by its value, so that a sweep that goes on takes the same ones.
fn sampled(seed: u64, per_cent: u64) -> bool {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 0xffff < per_cent * 0x10000 / 100
}
