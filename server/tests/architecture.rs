//! The arrows between the crates only go down. What may depend on what is written here once, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Crate, and the crates of this workspace it may depend on.
const ARROWS: [(&str, &[&str]); 8] = [
    ("model", &[]),
    ("timer", &["model"]),
    ("store", &["model"]),
    ("raft", &["store", "model"]),
    ("client", &["model"]),
    ("bench", &["client", "model"]),
    ("server", &["raft", "store", "timer", "model", "client", "bench"]),
    ("sim-tests", &["server", "raft", "store", "timer", "model", "client", "bench"]),
];

fn manifest(path: &Path) -> toml::Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Workspace crates that a manifest depends on, other than for its tests.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let target = manifest.get("target").and_then(toml::Value::as_table);
    let targets = target.into_iter().flat_map(|table| table.values()).filter_map(toml::Value::as_table);
    std::iter::once(manifest)
        .chain(targets)
        .filter_map(|table| table.get("dependencies")?.as_table())
        .flat_map(|table| table.keys())
        .filter_map(|name| name.strip_prefix("campanile-").map(str::to_owned))
        .collect()
}

#[test]
fn arrows_only_go_down() {
    let root = Path::new("..");
    let workspace = manifest(&root.join("Cargo.toml"));
    let members: BTreeSet<&str> =
        workspace["workspace"]["members"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    assert_eq!(members, arrows.keys().copied().collect(), "a crate has no arrows yet");
    for (name, allowed) in arrows {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let found = dependencies(&manifest(&root.join(name).join("Cargo.toml")));
        let forbidden: Vec<_> = found.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{name} must not depend on {forbidden:?}");
    }
}
