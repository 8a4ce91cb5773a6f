//! A copy of the tree, to which mutants are added. What is the same is not written again, so that it is not built again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xxhash_rust::xxh3::Xxh3;

use super::instrument::SWITCH;
use crate::cli::output::write_file;

/// Where the switch goes.
const HOME: &str = "model/src/lib.rs";

pub struct Tree {
    pub folder: PathBuf,
    /// Over every file of the tree that was copied.
    pub fingerprint: String,
}

/// Makes `folder` a copy of `tree`, with the switch in it. `keep` says which files are written later.
pub fn copy(tree: &Path, folder: &Path, keep: impl Fn(&str) -> bool) -> Result<Tree> {
    let mut files = BTreeSet::new();
    list(tree, "", &mut files)?;
    let mut hash = Xxh3::new();
    for file in &files {
        let mut bytes = std::fs::read(tree.join(file)).with_context(|| format!("cannot read {file}"))?;
        hash.update(file.as_bytes());
        hash.update(&bytes.len().to_le_bytes());
        hash.update(&bytes);
        if file == HOME {
            bytes.extend_from_slice(SWITCH.as_bytes());
        }
        if !keep(file) {
            write_if_other(&folder.join(file), &bytes)?;
        }
    }
    if folder.exists() {
        let mut old = BTreeSet::new();
        list(folder, "", &mut old)?;
        for file in old.difference(&files) {
            std::fs::remove_file(folder.join(file)).with_context(|| format!("cannot remove the old {file}"))?;
        }
    }
    Ok(Tree { folder: folder.to_owned(), fingerprint: format!("{:016x}", hash.digest()) })
}

pub fn write_if_other(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let why = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(why)?;
    }
    std::fs::write(path, bytes).with_context(why)
}

/// All files but what is hidden and what was built.
fn list(top: &Path, part: &str, files: &mut BTreeSet<String>) -> Result<()> {
    let folder = top.join(part);
    let why = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(&folder).with_context(why)? {
        let entry = entry.with_context(why)?;
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("a file of {} whose name is no text", folder.display()))?;
        if name.starts_with('.') || name == "target" {
            continue;
        }
        let path = if part.is_empty() { name.to_owned() } else { format!("{part}/{name}") };
        let kind = entry.file_type().with_context(why)?;
        if kind.is_dir() {
            list(top, &path, files)?;
        } else if kind.is_file() {
            files.insert(path);
        }
    }
    Ok(())
}

/// Something small to go on from, whole or not at all.
pub fn write_whole(file: &Path, text: &str) -> Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    write_file(Path::new(&new), text)?;
    std::fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_switch_and_nothing_old_and_leaves_what_is_the_same() {
        let home = tempfile::tempdir().unwrap();
        let (tree, folder) = (home.path().join("tree"), home.path().join("copy"));
        for file in ["model/src/lib.rs", "a/b.rs", "a/later.rs", "target/x", ".git/y"] {
            write_if_other(&tree.join(file), b"// text").unwrap();
        }
        let first = copy(&tree, &folder, |file| file == "a/later.rs").unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        assert!(read("model/src/lib.rs").unwrap().contains("pub mod mutant"));
        assert_eq!(read("a/b.rs").as_deref(), Some("// text"));
        assert_eq!([read("a/later.rs"), read("target/x"), read(".git/y")], [None, None, None]);
        let written = || std::fs::metadata(folder.join("model/src/lib.rs")).unwrap().modified().unwrap();
        let before = written();
        std::fs::remove_file(tree.join("a/b.rs")).unwrap();
        let second = copy(&tree, &folder, |_| false).unwrap();
        assert_eq!((read("a/b.rs"), written()), (None, before));
        assert_ne!(first.fingerprint, second.fingerprint);
    }
}
