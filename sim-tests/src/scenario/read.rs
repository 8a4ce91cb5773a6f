//! Scenario files: TOML, beside which definitions may stand in a crontab or in a directory of task files.
//!
//! What cannot be read or cannot be meant is one error with file, line and column, and where a name is unknown the
//! known one that is nearest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use campanile_model::api::READ_ONLY_FIELDS;
use campanile_model::{Dst, HttpTarget, Millis, Target, TaskSpec, Timestamp};
use campanile_timer::crontab;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::check::{self, Fault as At};
use super::{Expect, Pace, Scenario, Swarm, Workload, nearest};
use crate::plan::{Bounds, PlannedOperation};

#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("cannot read {}: {error}", file.display())]
    Unreadable { file: PathBuf, error: std::io::Error },
    #[error("{}:{line}:{column}: {message}", file.display())]
    At { file: PathBuf, line: usize, column: usize, message: String },
}

/// Reads a scenario and everything it names.
pub fn read(file: &Path) -> Result<Scenario, ScenarioError> {
    read_str(&read_text(file)?, file)
}

/// Reads the text of a scenario; what it names is looked for beside `file`.
pub fn read_str(text: &str, file: &Path) -> Result<Scenario, ScenarioError> {
    let source = Source { file, text };
    let document = DeTable::parse(text).map_err(|error| source.error(&error))?;
    let document = document.into_inner();
    let found: File = toml::from_str(text).map_err(|error| source.error(&error))?;
    let refused = |at: At| source.at(position(&document, &at.path), at.message);

    let faults = found
        .faults
        .iter()
        .enumerate()
        .map(|(i, table)| check::fault(i, table).map_err(refused))
        .collect::<Result<Vec<_>, _>>()?;
    let FileWorkload { mut tasks, crontab, tasks_dir, clients, operations_per_second, operations } = found.workload;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut add = |name: String, spec: TaskSpec, key: &str| match tasks.insert(name.clone(), spec) {
        None => Ok(()),
        Some(_) => Err(refused(At::new(["workload", key], format!("the task {name:?} is defined twice")))),
    };
    if let Some(path) = crontab {
        let entries = read_crontab(&folder.join(path), |message| refused(At::new(["workload", "crontab"], message)))?;
        entries.into_iter().try_for_each(|(name, spec)| add(name, spec, "crontab"))?;
    }
    if let Some(path) = tasks_dir {
        let read = read_tasks(&folder.join(path), |message| refused(At::new(["workload", "tasks_dir"], message)))?;
        read.into_iter().try_for_each(|(name, spec)| add(name, spec, "tasks_dir"))?;
    }

    let default = Scenario::default();
    let stem = || file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let scenario = Scenario {
        name: found.name.unwrap_or_else(stem),
        about: found.about,
        nodes: found.nodes.unwrap_or(default.nodes),
        start: found.start.unwrap_or(default.start),
        span: found.span.unwrap_or(default.span),
        pace: found.pace,
        seed: found.seed,
        workload: Workload { tasks, clients, operations_per_second, operations },
        faults,
        swarm: found.swarm,
        bounds: found.bounds,
        closing: found.closing,
        expect: found.expect,
    };
    check::scenario(&scenario).map_err(refused)?;
    Ok(scenario)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    #[serde(default)]
    about: String,
    #[serde(default, deserialize_with = "super::size::optional")]
    nodes: Option<u32>,
    start: Option<Timestamp>,
    span: Option<Millis>,
    #[serde(default)]
    pace: Pace,
    seed: Option<u64>,
    #[serde(default)]
    workload: FileWorkload,
    /// Taken apart by hand: a flattened enum would lose the place of an error.
    #[serde(default)]
    faults: Vec<toml::Table>,
    swarm: Option<Swarm>,
    #[serde(default)]
    bounds: Bounds,
    #[serde(default)]
    closing: bool,
    #[serde(default)]
    expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileWorkload {
    tasks: BTreeMap<String, TaskSpec>,
    crontab: Option<PathBuf>,
    tasks_dir: Option<PathBuf>,
    clients: u32,
    operations_per_second: u32,
    operations: Vec<PlannedOperation>,
}

fn read_text(file: &Path) -> Result<String, ScenarioError> {
    std::fs::read_to_string(file).map_err(|error| ScenarioError::Unreadable { file: file.into(), error })
}

/// The tasks that `campanile import crontab` would make of a file.
fn read_crontab(
    file: &Path,
    refused: impl Fn(String) -> ScenarioError,
) -> Result<Vec<(String, TaskSpec)>, ScenarioError> {
    let text = read_text(file)?;
    let mut tasks = Vec::new();
    for entry in crontab::parse(&text, "UTC", Dst::default()) {
        let entry = entry.map_err(|error| ScenarioError::At {
            file: file.into(),
            line: error.line,
            column: 1,
            message: error.message,
        })?;
        let target =
            HttpTarget { url: entry.url, method: entry.method, headers: BTreeMap::new(), signing_secret: None };
        tasks.push((entry.name, TaskSpec::new(vec![entry.schedule], Target::Http(target))));
    }
    if tasks.is_empty() {
        return Err(refused(format!("{} defines no task", file.display())));
    }
    Ok(tasks)
}

/// Every task file of a directory, by name. Other files are passed over.
fn read_tasks(
    folder: &Path,
    refused: impl Fn(String) -> ScenarioError,
) -> Result<Vec<(String, TaskSpec)>, ScenarioError> {
    let unreadable = |error| ScenarioError::Unreadable { file: folder.into(), error };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml" || extension == "json") {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(refused(format!("{} has no task file (.toml or .json)", folder.display())));
    }
    files.sort();
    files.iter().map(|file| read_task(file)).collect()
}

/// A definition as `PUT` takes it, and its name; without one the file's. What the cluster adds when it shows a task is
/// passed over.
fn read_task(file: &Path) -> Result<(String, TaskSpec), ScenarioError> {
    let text = read_text(file)?;
    let source = Source { file, text: &text };
    let stem = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    if file.extension().is_some_and(|extension| extension == "json") {
        let at = |error: serde_json::Error| ScenarioError::At {
            file: file.into(),
            line: error.line().max(1),
            column: error.column().max(1),
            message: with_hint(&error.to_string()),
        };
        let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).map_err(at)?;
        let name = fields.get("name").and_then(|name| name.as_str()).unwrap_or(&stem).to_string();
        fields.retain(|field, _| !READ_ONLY_FIELDS.contains(&field.as_str()));
        return Ok((name, serde_json::from_value(fields.into()).map_err(at)?));
    }
    let mut document = DeTable::parse(&text).map_err(|error| source.error(&error))?;
    let name = document
        .get_ref()
        .iter()
        .find(|(key, _)| key.get_ref() == "name")
        .and_then(|(_, value)| value.get_ref().as_str().map(str::to_owned));
    let fields = std::mem::take(document.get_mut());
    *document.get_mut() =
        fields.into_iter().filter(|(key, _)| !READ_ONLY_FIELDS.contains(&key.get_ref().as_ref())).collect();
    let spec = TaskSpec::deserialize(toml::Deserializer::from(document)).map_err(|error| source.error(&error))?;
    Ok((name.unwrap_or(stem), spec))
}

/// A file that is being read.
struct Source<'s> {
    file: &'s Path,
    text: &'s str,
}

impl Source<'_> {
    fn error(&self, error: &toml::de::Error) -> ScenarioError {
        self.at(error.span().map_or(0, |span| span.start), with_hint(error.message()))
    }

    fn at(&self, offset: usize, message: String) -> ScenarioError {
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ScenarioError::At {
            file: self.file.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }
}

/// Where a path of keys and indices stands, or as much of it as there is.
fn position(document: &DeTable<'_>, path: &[String]) -> usize {
    fn below(value: &DeValue<'_>, path: &[String], found: usize) -> usize {
        let Some((step, rest)) = path.split_first() else { return found };
        if let Some(table) = value.as_table() {
            return in_table(table, step, rest, found);
        }
        let element = step.parse().ok().and_then(|i: usize| value.as_array()?.get(i));
        element.map_or(found, |element| below(element.get_ref(), rest, element.span().start))
    }
    fn in_table(table: &DeTable<'_>, step: &str, rest: &[String], found: usize) -> usize {
        let entry = table.iter().find(|(key, _)| key.get_ref() == step);
        entry.map_or(found, |(key, value)| below(value.get_ref(), rest, key.span().start))
    }
    path.split_first().map_or(0, |(step, rest)| in_table(document, step, rest, 0))
}

/// Adds the nearest known name to the message about an unknown one.
fn with_hint(message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let known = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let near = names.next().filter(|_| known).and_then(|given| nearest(given, names));
    // The caret and the copy of the line that some errors carry are not one line.
    let message = message.lines().next().unwrap_or_default();
    near.map_or_else(|| message.to_string(), |near| format!("{message}; did you mean `{near}`?"))
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
