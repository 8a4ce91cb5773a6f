//! Mutants that change nothing anybody may rely on, each with its reason: `sim-tests/equivalent-mutants.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::generate::Key;
use super::instrument::Source;

pub const FILE: &str = "sim-tests/equivalent-mutants.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    equivalent: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: Key,
    reason: String,
}

/// The reasons by mutant. An entry that names no mutant is an error: what it spoke of has changed.
pub fn read(tree: &Path, sources: &[Source]) -> Result<BTreeMap<Key, String>> {
    let file = tree.join(FILE);
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    parse(&text, sources).with_context(|| file.display().to_string())
}

fn parse(text: &str, sources: &[Source]) -> Result<BTreeMap<Key, String>> {
    let listed: Listed = toml::from_str(text)?;
    let mut reasons = BTreeMap::new();
    for Entry { key, reason } in listed.equivalent {
        let known = sources.iter().flat_map(Source::mutants).any(|(_, mutant)| mutant.key == key);
        if !known {
            bail!("there is no such mutant: {key}");
        }
        if reason.trim().len() < 10 {
            bail!("no reason is given for {key}");
        }
        if reasons.insert(key.clone(), reason).is_some() {
            bail!("twice in the list: {key}");
        }
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::super::generate::generate;
    use super::*;

    fn listed(entries: &str) -> Result<usize> {
        let text = "fn f() -> impl Sized { g(a == b); h(a == b) }";
        let sites = generate("a.rs", text).unwrap().sites;
        let source = Source { file: "a.rs".into(), text: text.into(), sites, first: 1 };
        parse(entries, &[source]).map(|reasons| reasons.len())
    }

    fn entry(change: &str, nth: u32, reason: &str) -> String {
        format!(
            "[[equivalent]]\nfile = \"a.rs\"\nfunction = \"f\"\nchange = \"{change}\"\ntext = \"a == b\"\nnth = {nth}\n\
             reason = \"{reason}\"\n"
        )
    }

    #[test]
    fn each_entry_names_a_mutant_and_a_reason() {
        let good = |nth| entry("replace == with !=", nth, "both are always the same");
        assert_eq!(listed("").unwrap(), 0);
        assert_eq!(listed(&(good(1) + &good(2))).unwrap(), 2);
        for (bad, why) in [
            (good(3), "no such mutant"),
            (entry("replace == with <", 1, "both are always the same"), "no such mutant"),
            (entry("replace == with !=", 1, " "), "no reason"),
            (good(1) + &good(1), "twice"),
        ] {
            let error = listed(&bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_list_is_of_mutants_that_there_are() {
        let tree = Path::new("..");
        read(tree, &super::super::scope::sources(tree).unwrap()).unwrap();
    }
}
