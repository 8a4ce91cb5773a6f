//! What a sweep knows so far: its result, and the small file from which it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli::corpus::Reached;
use crate::cli::output::write_file;
use crate::report::{FindingLine, Judgement};

/// After so many seeds every checker has had something to look at, or is blind.
const BUSY_AFTER: u64 = 40;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    #[serde(flatten)]
    pub identity: Identity,
    /// All seeds from `first` up to this one, without it, are done.
    first: u64,
    through: u64,
    /// Those after it that are done as well.
    beyond: BTreeSet<u64>,
    pub failures: Vec<Failure>,
    pub rechecked: u64,
    /// Seeds that ran differently the second time.
    pub differing: Vec<u64>,
    /// How often each mark was hit, over all seeds.
    pub marks: BTreeMap<String, u64>,
    /// How many things each checker looked at, over all seeds.
    #[serde(default)]
    pub checked: BTreeMap<String, u64>,
    /// By which seeds.
    #[serde(default)]
    pub reached: Reached,
    pub simulated_ms: u64,
    pub seconds: f64,
}

/// What must be the same for two halves to be one sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub version: String,
    pub commit: Option<String>,
    /// Hash of the scenario and all it names.
    pub scenario: String,
    pub planted: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub seed: u64,
    pub broken: Vec<String>,
    pub why: String,
    pub replay: String,
}

impl State {
    pub fn new(identity: Identity, first: u64) -> Self {
        Self {
            identity,
            first,
            through: first,
            beyond: BTreeSet::new(),
            failures: Vec::new(),
            rechecked: 0,
            differing: Vec::new(),
            marks: BTreeMap::new(),
            checked: BTreeMap::new(),
            reached: Reached::default(),
            simulated_ms: 0,
            seconds: 0.0,
        }
    }

    /// Refuses what another sweep has left.
    pub fn read(file: &Path, identity: Identity) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let state: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is not of a sweep", file.display()))?;
        if state.identity != identity {
            bail!(
                "{} was begun with another build, scenario or planted bug; remove it to begin anew\n  \
                 then: {:?}\n  now:  {identity:?}",
                file.display(),
                state.identity
            );
        }
        Ok(state)
    }

    /// Whole or not at all: a sweep may be ended at any moment.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        write_file(Path::new(&new), &serde_json::to_string_pretty(self)?)?;
        std::fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
    }

    pub fn is_done(&self, seed: u64) -> bool {
        (self.first..self.through).contains(&seed) || self.beyond.contains(&seed)
    }

    pub fn add(&mut self, seed: u64) {
        self.beyond.insert(seed);
        while self.beyond.remove(&self.through) {
            self.through += 1;
        }
    }

    /// Seeds done.
    pub fn count(&self) -> u64 {
        self.through - self.first + self.beyond.len() as u64
    }

    /// Notes how much each checker looked at under one seed.
    pub fn looked(&mut self, findings: &[FindingLine]) {
        for line in findings {
            let more = match &line.judgement {
                Judgement::Held { checked } => *checked,
                Judgement::Violated { violations } => violations.len() as u64,
                Judgement::NotApplicable { .. } => 0,
            };
            *self.checked.entry(line.name.clone()).or_default() += more;
        }
    }

    /// Checkers that have looked at nothing, when that is no accident any more.
    pub fn idle(&self) -> impl Iterator<Item = &str> {
        let many = self.count() >= BUSY_AFTER;
        self.checked.iter().filter(move |(_, checked)| many && **checked == 0).map(|(name, _)| name.as_str())
    }

    pub fn never_hit(&self) -> impl Iterator<Item = &str> {
        self.marks.iter().filter(|(_, count)| **count == 0).map(|(mark, _)| mark.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(scenario: &str) -> Identity {
        Identity { version: "1".into(), commit: None, scenario: scenario.into(), planted: None }
    }

    #[test]
    fn seeds_done_out_of_order_are_counted_once() {
        let mut state = State::new(identity("a"), 5);
        for seed in [7, 5, 9, 6] {
            state.add(seed);
        }
        assert_eq!((state.through, state.count()), (8, 4));
        let done: Vec<u64> = (0..12).filter(|seed| state.is_done(*seed)).collect();
        assert_eq!(done, [5, 6, 7, 9]);
    }

    #[test]
    fn a_checker_that_never_looked_at_anything_is_told() {
        let line = |name: &str, judgement| FindingLine { name: name.into(), judgement };
        let mut state = State::new(identity("a"), 1);
        state.looked(&[
            line("busy", Judgement::Held { checked: 3 }),
            line("idle", Judgement::Held { checked: 0 }),
            line("blind", Judgement::NotApplicable { needs: "a log".into() }),
        ]);
        assert_eq!(state.idle().count(), 0, "one seed proves nothing");
        (1..=BUSY_AFTER).for_each(|seed| state.add(seed));
        assert_eq!(state.idle().collect::<Vec<_>>(), ["blind", "idle"]);
        state.looked(&[line("idle", Judgement::Held { checked: 1 })]);
        assert_eq!(state.idle().collect::<Vec<_>>(), ["blind"]);
    }

    #[test]
    fn a_file_of_another_sweep_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let mut state = State::new(identity("a"), 1);
        state.add(1);
        state.write(&file).unwrap();
        assert_eq!(State::read(&file, identity("a")).unwrap(), state);
        assert!(State::read(&file, identity("b")).unwrap_err().to_string().contains("another build"));
    }
}
