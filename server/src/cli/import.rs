//! `import`: tasks from other programs' files. Idempotent by name: a second import changes nothing.

use campanile_client::{Client, Condition};
use campanile_model::api::Change;
use campanile_model::{Dst, Target, TaskId, TaskSpec, Timestamp};
use campanile_timer::crontab::{self, Entry};
use campanile_timer::{Anchors, Plan};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::connection::Connection;
use super::definition::{http_target, read_text};
use super::failure::{Exit, Failure};
use super::output::{Output, or_dash, table, word};
use super::words::{DST, words};

#[derive(Debug, Subcommand)]
pub enum Import {
    /// Make a task of every line of a crontab: five fields or a nickname, then [METHOD] URL
    Crontab(Crontab),
}

impl Import {
    pub fn run(self, connection: &Connection, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Crontab(crontab) => crontab.run(connection, output),
        }
    }
}

#[derive(Debug, Args)]
pub struct Crontab {
    /// The crontab, or - for standard input
    file: String,
    /// Time zone of the lines before the first CRON_TZ=
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// What happens to times that a clock change skips or repeats
    #[arg(long, value_name = "POLICY", default_value = "vixie", value_parser = words::<Dst>(DST))]
    dst: Dst,
    /// Check the file and show what it means; asks no cluster
    #[arg(long)]
    dry_run: bool,
}

/// What became of one line.
#[derive(Debug, Serialize)]
struct Line {
    line: usize,
    name: String,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<TaskId>,
    next: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Created,
    Updated,
    Unchanged,
    /// Of a dry run.
    Valid,
    Failed,
}

impl Crontab {
    fn run(self, connection: &Connection, output: &mut Output) -> Result<(), Failure> {
        let entries = self.entries()?;
        let mut lines = Vec::with_capacity(entries.len());
        if self.dry_run {
            let now = Timestamp::from_jiff(jiff::Timestamp::now());
            for entry in &entries {
                lines.push(check(entry, now));
            }
        } else {
            connection.block_on(async |client| {
                for entry in &entries {
                    let line = import(client, entry).await;
                    let stop = line.error.as_ref().is_some_and(|error| error.exit() == Exit::Unreachable);
                    lines.push(line);
                    if stop {
                        break;
                    }
                }
                Ok(())
            })?;
        }
        output.print(lines.as_slice(), describe)?;
        // The exit status is that of the worst line: an unknown outcome before a refusal.
        let worst = lines.into_iter().filter_map(|line| line.error).max_by_key(|error| error.exit() as u8);
        match worst {
            None => Ok(()),
            Some(worst) => {
                output.flush()?;
                Err(worst.with_hint("lines that were written stay; import again to write the rest"))
            }
        }
    }

    /// All lines, or the faults of all that have one: a crontab is taken whole or not at all.
    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        campanile_timer::zone::find(&self.tz)?;
        let text = read_text(&self.file)?;
        let (entries, faults): (Vec<_>, Vec<_>) =
            crontab::parse(&text, &self.tz, self.dst).into_iter().partition(Result::is_ok);
        let faults: Vec<String> = faults.into_iter().filter_map(Result::err).map(|fault| fault.to_string()).collect();
        if !faults.is_empty() {
            let detail = format!("{}: nothing was imported\n  {}", self.file, faults.join("\n  "));
            return Err(Failure::refused(campanile_model::Code::InvalidSchedule, detail));
        }
        Ok(entries.into_iter().filter_map(Result::ok).collect())
    }
}

/// The definition a line makes. A task that exists keeps what a crontab cannot say: payload, labels, policies.
fn definition(entry: &Entry, current: Option<&TaskSpec>) -> TaskSpec {
    let mut spec = current.cloned().unwrap_or_else(|| TaskSpec::new(Vec::new(), http_target(entry.url.clone())));
    let Target::Http(http) = &mut spec.target;
    http.url = entry.url.clone();
    http.method = entry.method;
    spec.schedules = vec![entry.schedule.clone()];
    spec
}

fn check(entry: &Entry, now: Timestamp) -> Line {
    let anchors = Anchors::new(now, 0);
    match Plan::compile(&definition(entry, None), anchors) {
        Ok(plan) => Line { next: plan.next_after(now), ..line(entry, Outcome::Valid) },
        Err(rejection) => Line { error: Some(rejection.into()), ..line(entry, Outcome::Failed) },
    }
}

async fn import(client: &Client, entry: &Entry) -> Line {
    match write(client, entry).await {
        Ok(line) => line,
        Err(error) => Line { error: Some(error.into()), ..line(entry, Outcome::Failed) },
    }
}

async fn write(client: &Client, entry: &Entry) -> campanile_client::Result<Line> {
    let current = match client.get_task(&entry.name).await {
        Ok(task) => Some(task),
        Err(error) if error.code() == Some("task_not_found") => None,
        Err(error) => return Err(error),
    };
    let spec = definition(entry, current.as_ref().map(|task| &task.spec));
    if let Some(task) = current.as_ref().filter(|task| task.spec == spec) {
        let next = task.next.map(|next| next.scheduled_at);
        return Ok(Line { id: Some(task.id), next, ..line(entry, Outcome::Unchanged) });
    }
    let condition = current.map_or(Condition::Absent, |task| Condition::Version(task.version));
    let written = client.put_task(&entry.name, &spec, condition).await?;
    let result = match written.change {
        Change::Created => Outcome::Created,
        Change::Unchanged => Outcome::Unchanged,
        _ => Outcome::Updated,
    };
    let next = written.next.map(|next| next.scheduled_at);
    Ok(Line { id: Some(written.id), next, ..line(entry, result) })
}

fn line(entry: &Entry, result: Outcome) -> Line {
    Line { line: entry.line, name: entry.name.clone(), result, id: None, next: None, error: None }
}

fn describe(lines: &[Line]) -> String {
    let rows = lines.iter().map(|line| {
        vec![
            line.line.to_string(),
            word(line.result),
            line.name.clone(),
            or_dash(line.next),
            line.error.as_ref().map(|error| error.detail().to_owned()).unwrap_or_default(),
        ]
    });
    let mut text = table(&["LINE", "RESULT", "NAME", "NEXT", ""], rows);
    let count = |result| lines.iter().filter(|line| line.result == result).count();
    let counts: Vec<String> = [Outcome::Created, Outcome::Updated, Outcome::Unchanged, Outcome::Valid, Outcome::Failed]
        .into_iter()
        .map(|result| (count(result), word(result)))
        .filter(|(count, _)| *count > 0)
        .map(|(count, result)| format!("{count} {result}"))
        .collect();
    text.push_str(&format!("\n{}\n", if counts.is_empty() { "no tasks".into() } else { counts.join(", ") }));
    text
}
