//! Of which files mutants are made, and which of these are wanted.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::generate::generate;
use super::instrument::Source;

/// What decides: how state changes, what becomes of what is due, who delivers it, and who leads.
const SCOPE: &[&str] =
    &["raft/src", "server/src/conductor", "server/src/decide.rs", "server/src/dispatcher", "store/src/apply"];

/// All sources of a tree, their mutants numbered from 1.
pub fn sources(tree: &Path) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for part in SCOPE {
        list(tree, part, &mut files)?;
    }
    files.sort();
    let mut sources = Vec::new();
    let mut not_product = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(tree.join(&file)).with_context(|| format!("cannot read {file}"))?;
        let generated = generate(&file, &text)?;
        not_product.extend(generated.not_product.iter().flat_map(|module| paths(&file, module)));
        sources.push(Source { file, text, sites: generated.sites, first: 0 });
    }
    // What is only counted for people is not judged.
    sources.retain(|source| !not_product.contains(&source.file) && !source.file.ends_with("/metrics.rs"));
    let mut next = 1;
    for source in &mut sources {
        source.first = next;
        next += source.mutants().count() as u32;
    }
    if next == 1 {
        bail!("{} has no source of the product", tree.display());
    }
    Ok(sources)
}

fn list(tree: &Path, part: &str, files: &mut Vec<String>) -> Result<()> {
    let path = tree.join(part);
    let why = || format!("{} is not the top of the project: cannot read {part}", tree.display());
    if path.is_file() {
        if part.ends_with(".rs") {
            files.push(part.to_owned());
        }
        return Ok(());
    }
    for entry in std::fs::read_dir(&path).with_context(why)? {
        let name = entry.with_context(why)?.file_name();
        let name = name.to_str().with_context(|| format!("{part} has a file whose name is no text"))?;
        list(tree, &format!("{part}/{name}"), files)?;
    }
    Ok(())
}

/// Where a module that is declared in a file may be.
fn paths(file: &str, module: &str) -> [String; 2] {
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    let stem = name.trim_end_matches(".rs");
    let folder = if ["mod", "lib", "main"].contains(&stem) { folder.to_owned() } else { format!("{folder}/{stem}") };
    [format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")]
}

/// Whether a file is meant: by a part of its path, or by a pattern with `*` for anything.
pub fn matches(pattern: &str, file: &str) -> bool {
    if !pattern.contains('*') {
        return file.contains(pattern);
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|begin| file.strip_prefix(begin)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_meant_by_a_part_or_a_pattern() {
        let file = "store/src/apply/fire.rs";
        for (pattern, meant) in [
            ("apply", true),
            ("store/*/fire.rs", true),
            ("*fire.rs", true),
            ("store/*", true),
            ("s*e/*apply*.rs", true),
            ("raft", false),
            ("fire*", false),
            ("store/*/put.rs", false),
        ] {
            assert_eq!(matches(pattern, file), meant, "{pattern}");
        }
    }

    #[test]
    fn tests_and_metrics_are_not_of_the_product() {
        let sources = sources(Path::new("..")).unwrap();
        let has = |file: &str| sources.iter().any(|source| source.file == file);
        assert!(has("store/src/apply/fire.rs") && has("server/src/decide.rs") && has("raft/src/log_store/mod.rs"));
        for file in ["store/src/apply/testing.rs", "raft/src/storage_tests.rs", "raft/src/metrics.rs"] {
            assert!(!has(file), "{file}");
        }
        let mut ids = sources.iter().flat_map(|source| source.mutants().map(|(id, _)| id));
        assert!(ids.by_ref().eq(1..=sources.iter().map(|source| source.mutants().count() as u32).sum()));
    }
}
