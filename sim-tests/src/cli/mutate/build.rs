//! Builds the copy with all mutants in it. Those that do not compile are found by rustc's errors, left out, and the
//! rest is built again, until there is no error.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::copy::{self, Tree};
use super::generate::Key;
use super::instrument::{Piece, Source};
use crate::cli::output::Output;

/// Each crate has its errors after the one below it, and borrows are checked after types.
const MOST_ROUNDS: usize = 40;

/// A build of the copy.
#[derive(Clone, Copy)]
pub struct Recipe<'b> {
    /// As people call it.
    pub name: &'b str,
    /// Of cargo.
    pub arguments: &'b [&'b str],
    pub flags: Option<&'b str>,
    /// Where it is built, and what does not compile in it is kept.
    pub folder: &'b Path,
}

pub struct Built {
    pub programs: Vec<Program>,
    /// Mutants that do not compile.
    pub unviable: BTreeSet<u32>,
}

/// A program that was built.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// Folder of its crate, from the top of the tree.
    pub package: String,
    pub target: String,
    pub is_library: bool,
}

#[derive(Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
enum Said {
    CompilerMessage {
        message: Diagnostic,
    },
    CompilerArtifact {
        executable: Option<PathBuf>,
        manifest_path: PathBuf,
        target: Target,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    rendered: Option<String>,
    spans: Vec<Span>,
}

#[derive(Clone, Debug, Deserialize)]
struct Span {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

type Pieces = BTreeMap<String, Vec<Piece>>;

pub fn build(tree: &Tree, sources: &[Source], recipe: &Recipe<'_>, out: Output) -> Result<Built> {
    let kept = recipe.folder.join("unviable.json");
    let mut unviable = read_unviable(&kept, sources)?;
    for round in 1..=MOST_ROUNDS {
        let left = unviable.len();
        out.progress(&format!("{}: building, round {round}, {left} mutants do not compile", recipe.name));
        let mut pieces = Pieces::new();
        for source in sources {
            let new = source.instrument(&unviable);
            copy::write_if_other(&tree.folder.join(&source.file), new.text.as_bytes())?;
            pieces.insert(source.file.clone(), new.pieces);
        }
        let (programs, errors) = cargo(tree, recipe)?;
        let Some(programs) = programs else {
            let culprits: BTreeSet<u32> = errors.iter().flat_map(|error| culprits(error, &pieces)).collect();
            if culprits.is_empty() {
                let first = errors.first().map(|error| error.rendered.as_ref().unwrap_or(&error.message));
                let first = first.map_or("", String::as_str);
                bail!("{}: the copy does not compile, and no mutant is to blame\n{first}", recipe.name);
            }
            unviable.extend(culprits);
            copy::write_whole(&kept, &serde_json::to_string_pretty(&keys(sources, &unviable))?)?;
            continue;
        };
        out.progress("");
        return Ok(Built { programs, unviable });
    }
    bail!("{}: there still are errors after {MOST_ROUNDS} rounds", recipe.name)
}

fn keys<'s>(sources: &'s [Source], unviable: &BTreeSet<u32>) -> Vec<&'s Key> {
    let mutants = sources.iter().flat_map(Source::mutants);
    mutants.filter(|(id, _)| unviable.contains(id)).map(|(_, mutant)| &mutant.key).collect()
}

/// What did not compile the last time most likely does not now.
fn read_unviable(file: &Path, sources: &[Source]) -> Result<BTreeSet<u32>> {
    if !file.exists() {
        return Ok(BTreeSet::new());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let known: BTreeSet<Key> =
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", file.display()))?;
    let mutants = sources.iter().flat_map(Source::mutants);
    Ok(mutants.filter(|(_, mutant)| known.contains(&mutant.key)).map(|(id, _)| id).collect())
}

/// The programs, unless there are errors.
fn cargo(tree: &Tree, recipe: &Recipe<'_>) -> Result<(Option<Vec<Program>>, Vec<Diagnostic>)> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&program);
    command.args(recipe.arguments).args(["--locked", "--message-format", "json"]);
    command.current_dir(&tree.folder).env("CARGO_TARGET_DIR", recipe.folder.join("target")).env_remove("RUSTFLAGS");
    if let Some(flags) = recipe.flags {
        command.env("RUSTFLAGS", flags);
    }
    let run = command.stdin(Stdio::null()).output();
    let run = run.with_context(|| format!("cannot start {}", Path::new(&program).display()))?;
    let (mut programs, mut errors) = (Vec::new(), Vec::new());
    for line in String::from_utf8_lossy(&run.stdout).lines().filter(|line| line.starts_with('{')) {
        match serde_json::from_str(line).context("what cargo says")? {
            Said::CompilerMessage { message } if message.level == "error" => errors.push(message),
            Said::CompilerArtifact { executable: Some(path), manifest_path, target } => {
                programs.push(Program::of(tree, path, &manifest_path, target)?);
            }
            _ => {}
        }
    }
    if run.status.success() {
        return Ok((Some(programs), errors));
    }
    if errors.is_empty() {
        bail!("{}: cargo failed: {}", recipe.name, String::from_utf8_lossy(&run.stderr).trim());
    }
    Ok((None, errors))
}

impl Program {
    fn of(tree: &Tree, path: PathBuf, manifest: &Path, target: Target) -> Result<Self> {
        let package = manifest.parent().and_then(|folder| folder.strip_prefix(&tree.folder).ok());
        let package = package.and_then(Path::to_str).with_context(|| format!("{} is elsewhere", manifest.display()))?;
        let is_library = target.kind.iter().any(|kind| kind == "lib");
        Ok(Self { path, package: package.to_owned(), target: target.name, is_library })
    }
}

/// The mutants that an error is about: those whose own text it points at; else the innermost place it lies in; else
/// all of the function, because what a mutant does to borrows may show elsewhere in it.
fn culprits(error: &Diagnostic, pieces: &Pieces) -> BTreeSet<u32> {
    let primary = || error.spans.iter().filter(|span| span.is_primary);
    for spans in [primary().collect::<Vec<_>>(), error.spans.iter().collect()] {
        let found: BTreeSet<u32> = spans.iter().filter_map(|span| pointed_at(span, pieces)).collect();
        if !found.is_empty() {
            return found;
        }
    }
    for span in primary() {
        let file = pieces.get(&span.file_name).map(Vec::as_slice).unwrap_or_default();
        let around = file.iter().filter(|piece| piece.site.start <= span.byte_start && span.byte_end <= piece.site.end);
        if let Some(innermost) = around.min_by_key(|piece| piece.site.len()) {
            return file.iter().filter(|piece| piece.site == innermost.site).map(|piece| piece.id).collect();
        }
    }
    primary().flat_map(|span| in_function(span, pieces)).collect()
}

/// The mutant whose own text a span is in, or begins in: the innermost. A span that holds all of that text and more says
/// nothing of it.
fn pointed_at(span: &Span, pieces: &Pieces) -> Option<u32> {
    let place = span.byte_start..span.byte_end;
    let about = |own: &Range<usize>| {
        let overlaps = own.start < place.end && place.start < own.end;
        let holds = place.start <= own.start && own.end <= place.end;
        overlaps && (!holds || *own == place)
    };
    let file = pieces.get(&span.file_name)?;
    file.iter().filter(|piece| about(&piece.own)).min_by_key(|piece| piece.own.len()).map(|piece| piece.id)
}

/// All mutants of the function in which a span is: that of the nearest piece before it.
fn in_function(span: &Span, pieces: &Pieces) -> BTreeSet<u32> {
    let Some(file) = pieces.get(&span.file_name) else { return BTreeSet::new() };
    let before = file.iter().filter(|piece| piece.own.start <= span.byte_start).max_by_key(|piece| piece.own.start);
    let Some(nearest) = before.or(file.first()) else { return BTreeSet::new() };
    file.iter().filter(|piece| piece.function == nearest.function).map(|piece| piece.id).collect()
}

#[cfg(test)]
mod tests {
    use super::super::generate::generate;
    use super::*;

    const TEXT: &str = "fn f() -> bool { let a = !(b == c); d(); a }\nfn g() -> impl Sized { e + 1 }";

    fn made() -> (String, Pieces) {
        let sites = generate("a.rs", TEXT).unwrap().sites;
        let new = Source { file: "a.rs".into(), text: TEXT.into(), sites, first: 1 }.instrument(&BTreeSet::new());
        (new.text, Pieces::from([("a.rs".into(), new.pieces)]))
    }

    fn blamed(points_at: &[(&str, bool)]) -> Vec<u32> {
        let (text, pieces) = made();
        let spans = points_at.iter().map(|(part, is_primary)| {
            let byte_start = text.find(part).unwrap_or_else(|| panic!("{part} in {text}"));
            Span { file_name: "a.rs".into(), byte_start, byte_end: byte_start + part.len(), is_primary: *is_primary }
        });
        let error =
            Diagnostic { level: "error".into(), message: String::new(), rendered: None, spans: spans.collect() };
        culprits(&error, &pieces).into_iter().collect()
    }

    #[test]
    fn an_error_is_laid_to_the_mutant_whose_text_it_is_in() {
        let (text, _) = made();
        assert!(text.contains("_ => { (b == c) }") && text.contains("_ => { (b) != (c) }"), "{text}");
        assert_eq!(blamed(&[("return true", true)]), [1]);
        assert_eq!(blamed(&[("(b) != (c)", true)]), [4]);
        assert_eq!(blamed(&[("!=", true)]), [4]);
        assert_eq!(blamed(&[("!((match", true), ("(b) != (c)", false)]), [4], "a note says it");
        assert_eq!(blamed(&[(" a }", true), ("d()", false)]), [5], "what is left out is missed later");
    }

    #[test]
    fn an_error_beside_the_mutants_is_laid_to_the_innermost_place_or_the_function() {
        assert_eq!(blamed(&[("{ b == c }", true)]), [4]);
        assert_eq!(blamed(&[(" a }", true)]), [1, 2, 3, 4, 5]);
        assert_eq!(blamed(&[("e + 1", true)]), [6, 7]);
    }

    #[test]
    fn what_did_not_compile_is_remembered_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("unviable.json");
        let source = |text: &str| {
            vec![Source {
                file: "a.rs".into(),
                text: text.into(),
                sites: generate("a.rs", text).unwrap().sites,
                first: 1,
            }]
        };
        let before = source(TEXT);
        copy::write_whole(&file, &serde_json::to_string(&keys(&before, &[4, 6].into())).unwrap()).unwrap();
        assert_eq!(read_unviable(&file, &before).unwrap(), [4, 6].into());
        let after = source(&format!("fn new() -> bool {{ true }} {TEXT}"));
        assert_eq!(read_unviable(&file, &after).unwrap(), [5, 7].into());
    }
}
