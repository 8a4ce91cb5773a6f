//! What is known of each mutant so far: the result, and the file from which an interrupted run goes on.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::copy::write_whole;
use super::generate::Key;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// All seeds up to this one have been tried, or do not reach it.
    pub tried: u64,
    /// Seeds that reach it, of those.
    pub reached: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught: Option<Caught>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tested: Option<Tested>,
}

/// By the lowest seed that shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caught {
    pub seed: u64,
    /// The invariants, expectations or the crash.
    pub by: Vec<String>,
    pub why: String,
}

/// What the tests of its crate say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    /// The test that fails, if one does.
    pub by: Option<String>,
}

pub struct State {
    /// Of the tree, the mutants and the scenario.
    fingerprint: String,
    pub records: BTreeMap<Key, Record>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    fingerprint: String,
    records: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    record: Record,
}

impl State {
    pub fn new(fingerprint: String) -> Self {
        Self { fingerprint, records: BTreeMap::new() }
    }

    /// Refuses what was begun with another tree.
    pub fn read(file: &Path, fingerprint: String) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let stored: Stored =
            serde_json::from_str(&text).with_context(|| format!("{} is not of mutants", file.display()))?;
        if stored.fingerprint != fingerprint {
            bail!("{} was begun with another tree; remove it to begin anew", file.display());
        }
        let records = stored.records.into_iter().map(|line| (line.key, line.record)).collect();
        Ok(Self { fingerprint, records })
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let line = |(key, record): (&Key, &Record)| Line { key: key.clone(), record: record.clone() };
        let records = self.records.iter().map(line).collect();
        let stored = Stored { fingerprint: self.fingerprint.clone(), records };
        write_whole(file, &serde_json::to_string_pretty(&stored)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_read_again_and_not_for_another_tree() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let key =
            |nth| Key { file: "a.rs".into(), function: "f".into(), change: "delete !".into(), text: "!a".into(), nth };
        let mut state = State::new("a".into());
        let caught = Caught { seed: 3, by: vec!["crash".into()], why: "crash".into() };
        state.records.insert(key(1), Record { tried: 4, reached: 2, caught: Some(caught), tested: None });
        let tested = Some(Tested { by: None });
        state.records.insert(key(2), Record { tried: 4, reached: 0, caught: None, tested });
        state.write(&file).unwrap();
        assert_eq!(State::read(&file, "a".into()).unwrap().records, state.records);
        assert!(State::read(&file, "b".into()).err().unwrap().to_string().contains("another tree"));
    }
}
