//! Seeds that reach what few others do, kept in a file: they, and variants of them, are run before any others. What has
//! to meet for a rare mark has met in them already, and a bug that shows only there is found sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::output::write_file;
use crate::drive::draw::{variant, world};

/// Seeds kept for each mark.
const KEPT: usize = 2;
/// Variants of each that are run.
const VARIANTS: u32 = 2;
/// A mark is rare if at most one seed in so many reaches it...
const RARE: u64 = 20;
/// ...which so many seeds tell.
const TELLING: u64 = 40;

const HEAD: &str = "\
# Seeds of the default scenario that reach what few others do, by mark: what `campanile-sim sweep --corpus` runs first.
# `campanile-sim sweep --seeds 2000 --corpus-out FILE` writes it.

";

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    marks: BTreeMap<String, Vec<u64>>,
}

impl Corpus {
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no corpus", file.display()))
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        write_file(file, &format!("{HEAD}{}", toml::to_string(self)?))
    }

    /// Every seed of it once, each with its variants behind it.
    pub fn seeds(&self) -> Vec<u64> {
        let seeds: BTreeSet<u64> = self.marks.values().flatten().copied().collect();
        seeds.into_iter().flat_map(with_variants).collect()
    }
}

fn with_variants(seed: u64) -> impl Iterator<Item = u64> {
    [seed].into_iter().chain(variants(seed))
}

/// None of a variant: its siblings are run already.
fn variants(seed: u64) -> impl Iterator<Item = u64> {
    (1..=VARIANTS).filter(move |_| world(seed) == seed).map(move |number| variant(seed, number))
}

/// Which marks the seeds of a sweep have reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    seeds: u64,
    marks: BTreeMap<String, By>,
    /// Seeds whose variants have been asked for.
    varied: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct By {
    seeds: u64,
    first: Vec<u64>,
}

impl Reached {
    /// Notes what a seed has reached. The variants that are worth running next, because a mark is rare and few have
    /// reached it.
    pub fn note<'m>(&mut self, seed: u64, marks: impl Iterator<Item = &'m str>) -> Vec<u64> {
        self.seeds += 1;
        for mark in marks {
            let by = self.marks.entry(mark.to_owned()).or_default();
            by.seeds += 1;
            if by.first.len() < KEPT {
                by.first.push(seed);
            }
        }
        let rare: BTreeSet<u64> = self.rare().flat_map(|(_, by)| &by.first).copied().collect();
        let new: Vec<u64> = rare.difference(&self.varied).copied().collect();
        self.varied.extend(&new);
        new.into_iter().flat_map(variants).collect()
    }

    /// What these seeds are run with already.
    pub fn is_varied(&mut self, seeds: &[u64]) {
        self.varied.extend(seeds);
    }

    fn rare(&self) -> impl Iterator<Item = (&String, &By)> {
        self.marks.iter().filter(|(_, by)| self.seeds >= TELLING && by.seeds * RARE <= self.seeds)
    }

    pub fn corpus(&self) -> Corpus {
        Corpus { marks: self.rare().map(|(mark, by)| (mark.clone(), by.first.clone())).collect() }
    }

    /// The rare ones, and how many seeds have reached each.
    pub fn rare_marks(&self) -> Vec<(&str, u64)> {
        self.rare().map(|(mark, by)| (mark.as_str(), by.seeds)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_a_rare_mark_is_varied_once() {
        let mut reached = Reached::default();
        for seed in 1..TELLING {
            let marks = ["usual"].into_iter().chain((seed == 7).then_some("rare"));
            assert_eq!(reached.note(seed, marks), [0; 0], "too few to tell");
        }
        assert_eq!(reached.note(TELLING, ["usual"].into_iter()), [variant(7, 1), variant(7, 2)]);
        assert_eq!(reached.note(variant(7, 1), ["rare"].into_iter()), [0; 0]);
        assert_eq!(reached.note(99, ["other"].into_iter()), [variant(99, 1), variant(99, 2)]);
        assert_eq!(reached.rare_marks(), [("other", 1), ("rare", 2)]);
        let corpus = reached.corpus();
        assert_eq!(corpus.marks["rare"], [7, variant(7, 1)]);
        assert!(!corpus.marks.contains_key("usual"));
    }

    #[test]
    fn the_corpus_of_the_default_scenario_can_be_read() {
        let corpus = Corpus::read(Path::new("corpus.toml")).unwrap();
        assert!(corpus.marks.values().all(|seeds| (1..=KEPT).contains(&seeds.len())));
        #[cfg(madsim)]
        for mark in corpus.marks.keys() {
            let known = campanile_model::sim::Mark::ALL.iter().any(|known| known.name() == mark);
            assert!(known, "{mark} is no mark");
        }
    }

    #[test]
    fn a_corpus_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("corpus.toml");
        let corpus = Corpus { marks: [("a".to_owned(), vec![3, variant(8, 1)]), ("b".to_owned(), vec![3])].into() };
        corpus.write(&file).unwrap();
        assert_eq!(Corpus::read(&file).unwrap(), corpus);
        assert_eq!(corpus.seeds(), [3, variant(3, 1), variant(3, 2), variant(8, 1)]);
        std::fs::write(&file, "mark = 1").unwrap();
        assert!(Corpus::read(&file).is_err());
    }
}
