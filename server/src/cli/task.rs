//! `task`: tasks, and what became of their occurrences.

use campanile_client::{Client, Condition, DeleteTask, LedgerQuery, NamedTask, RunQuery, RunsOnDelete, TaskQuery};
use campanile_model::api::{LedgerView, TaskView, TaskWritten};
use campanile_model::{Kind, RunState, TaskStatus, Timestamp};
use clap::{Args, Subcommand};

use super::definition::Definition;
use super::failure::Failure;
use super::output::{Output, or_dash, table, word};
use super::words::{self, words};

mod show;

#[derive(Debug, Subcommand)]
pub enum Task {
    /// Create a task; refused if the name is taken
    Create {
        /// Its name; without one the cluster gives an id only
        name: Option<String>,
        #[command(flatten)]
        definition: Definition,
    },
    /// Show a task
    Get {
        /// Its name, or its id
        name: String,
    },
    /// List tasks by name
    List(List),
    /// Change parts of a task by flags, or all of it by a file
    Update {
        /// Its name, or its id
        name: String,
        /// Only if the task is at this version
        #[arg(long, value_name = "NUMBER")]
        version: Option<u32>,
        #[command(flatten)]
        definition: Definition,
    },
    /// Delete a task; its live runs finish unless they are cancelled
    Delete {
        /// Its name, or its id
        name: String,
        /// Cancel its live runs
        #[arg(long)]
        cancel_runs: bool,
        /// Only if the task is at this version
        #[arg(long, value_name = "NUMBER")]
        version: Option<u32>,
    },
    /// Stop firing a task until it is resumed
    Pause {
        /// Its name, or its id
        name: String,
    },
    /// Fire a paused task again
    Resume {
        /// Its name, or its id
        name: String,
    },
    /// Fire a task now, beside its schedules
    Trigger {
        /// Its name, or its id
        name: String,
        /// Makes repeating this command safe; a random one is used otherwise, for repeats inside this call
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Show the occurrences to come of a task, or of a definition that is not written yet
    Preview(Preview),
    /// List a task's runs, newest first
    Runs(Runs),
    /// Show what became of each occurrence of a task, oldest first
    Ledger(Ledger),
}

/// Which part of a list.
#[derive(Clone, Debug, Args)]
pub struct Paging {
    /// Items on a page
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Go on where the page with this token ended
    #[arg(long, value_name = "TOKEN")]
    page_token: Option<String>,
    /// Follow the pages to the end
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub struct List {
    /// Names that begin with this
    #[arg(long)]
    prefix: Option<String>,
    /// In this state
    #[arg(long, value_parser = words::<TaskStatus>(words::TASK_STATES))]
    state: Option<TaskStatus>,
    /// Due at or after this instant
    #[arg(long, value_name = "INSTANT")]
    due_after: Option<Timestamp>,
    /// Due before this instant
    #[arg(long, value_name = "INSTANT")]
    due_before: Option<Timestamp>,
    /// With this label
    #[arg(long, value_name = "KEY=VALUE", value_parser = words::pair)]
    label: Option<(String, String)>,
    /// Accept a slightly old answer from any node
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, Args)]
pub struct Preview {
    /// Name or id of a task; without one the definition given is previewed
    #[arg(required_unless_present_any = ["file", "url"], conflicts_with_all = ["file", "url"])]
    name: Option<String>,
    /// How many occurrences to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: usize,
    /// Show those after this instant instead of from now on
    #[arg(long, value_name = "INSTANT")]
    after: Option<Timestamp>,
    #[command(flatten)]
    definition: Definition,
}

#[derive(Debug, Args)]
pub struct Runs {
    /// The task's name, or its id
    name: String,
    /// In this state
    #[arg(long, value_parser = words::<RunState>(words::RUN_STATES))]
    state: Option<RunState>,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, Args)]
pub struct Ledger {
    /// The task's name, or its id
    name: String,
    /// Occurrences at or after this instant
    #[arg(long, value_name = "INSTANT")]
    after: Option<Timestamp>,
    /// Occurrences before this instant
    #[arg(long, value_name = "INSTANT")]
    before: Option<Timestamp>,
    #[command(flatten)]
    paging: Paging,
}

impl Task {
    pub async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Create { name, definition } => create(client, output, name, definition).await,
            Self::Update { name, version, definition } => {
                let current = client.get_task(&name).await?;
                let version = version.unwrap_or(current.version);
                let spec = definition.change(current.spec)?;
                print_written(output, &client.put_task(&name, &spec, Condition::Version(version)).await?)
            }
            Self::Get { name } => output.print(&client.get_task(&name).await?, show::task),
            Self::List(list) => list.run(client, output).await,
            Self::Delete { name, cancel_runs, version } => {
                let runs = if cancel_runs { RunsOnDelete::Cancel } else { RunsOnDelete::Keep };
                print_written(output, &client.delete_task(&name, DeleteTask { runs, version }).await?)
            }
            Self::Pause { name } => print_written(output, &client.pause_task(&name, None).await?),
            Self::Resume { name } => print_written(output, &client.resume_task(&name, None).await?),
            Self::Trigger { name, idempotency_key } => {
                let key = idempotency_key.unwrap_or_else(random_key);
                let triggered = client.trigger_task(&name, Some(&key)).await?;
                output.print(&triggered, |t| format!("run {} of occurrence {}", t.run, t.occurrence_id))
            }
            Self::Preview(preview) => preview.run(client, output).await,
            Self::Runs(runs) => runs.run(client, output).await,
            Self::Ledger(ledger) => ledger.run(client, output).await,
        }
    }
}

async fn create(
    client: &Client,
    output: &mut Output,
    name: Option<String>,
    definition: Definition,
) -> Result<(), Failure> {
    let task = NamedTask { name, spec: definition.complete()? };
    // With a key the call can be repeated inside when an answer is lost.
    print_written(output, &client.create_task(&task, Some(&random_key())).await?)
}

/// An idempotency key that nobody else has.
fn random_key() -> String {
    format!("cli-{:032x}", rand::random::<u128>())
}

fn print_written(output: &mut Output, written: &TaskWritten) -> Result<(), Failure> {
    for warning in &written.warnings {
        output.note(&format!("warning: {}: {}", warning.code, warning.message));
    }
    output.print(written, show::written)
}

impl List {
    async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let mut query = TaskQuery {
            prefix: self.prefix,
            state: self.state,
            due_after: self.due_after,
            due_before: self.due_before,
            label: self.label,
            limit: self.paging.limit,
            page_token: self.paging.page_token,
            stale: self.stale,
        };
        let mut page = client.list_tasks(&query).await?;
        while self.paging.all && page.next_page_token.is_some() {
            query.page_token = page.next_page_token.take();
            let next = client.list_tasks(&query).await?;
            page.items.extend(next.items);
            page.next_page_token = next.next_page_token;
        }
        note_more(output, page.next_page_token.as_deref());
        let row = |task: &TaskView| {
            vec![
                task.name.clone(),
                word(task.state),
                show::schedules(&task.spec),
                or_dash(task.next.map(|next| next.scheduled_at)),
                show::target(&task.spec),
                task.version.to_string(),
            ]
        };
        output.print(&page, |page| {
            table(&["NAME", "STATE", "SCHEDULE", "NEXT", "TARGET", "VERSION"], page.items.iter().map(row))
        })
    }
}

/// Tells people that a list goes on.
fn note_more(output: &mut Output, token: Option<&str>) {
    if let Some(token) = token {
        output.note(&format!("there are more: --page-token {token}, or --all"));
    }
}

impl Preview {
    async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let preview = match self.name {
            Some(name) => client.preview_task(&name, self.count, self.after).await?,
            None => client.preview(&self.definition.complete()?, self.count, self.after).await?,
        };
        output.print(&preview, |preview| {
            let rows = preview.items.iter().map(|next| vec![next.scheduled_at.to_string(), next.due_at.to_string()]);
            table(&["SCHEDULED", "DUE"], rows)
        })
    }
}

impl Runs {
    async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let mut query = RunQuery { state: self.state, limit: self.paging.limit, page_token: self.paging.page_token };
        let mut page = client.list_runs(&self.name, &query).await?;
        while self.paging.all && page.next_page_token.is_some() {
            query.page_token = page.next_page_token.take();
            let next = client.list_runs(&self.name, &query).await?;
            page.items.extend(next.items);
            page.next_page_token = next.next_page_token;
        }
        note_more(output, page.next_page_token.as_deref());
        output.print(&page, |page| {
            let rows = page.items.iter().map(|run| {
                vec![
                    run.id.to_string(),
                    run.scheduled_at.to_string(),
                    word(run.origin),
                    run.state.as_str().into(),
                    run.attempt.to_string(),
                    format!("{} ms", run.fired_at.millis_from(run.due_at)),
                    run.node.to_string(),
                ]
            });
            table(&["RUN", "SCHEDULED", "ORIGIN", "STATE", "ATTEMPT", "LATE", "NODE"], rows)
        })
    }
}

impl Ledger {
    async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let mut query = LedgerQuery {
            after: self.after,
            before: self.before,
            limit: self.paging.limit,
            page_token: self.paging.page_token,
        };
        let mut ledger = client.ledger(&self.name, &query).await?;
        while self.paging.all && ledger.next_page_token.is_some() {
            query.page_token = ledger.next_page_token.take();
            let next = client.ledger(&self.name, &query).await?;
            // Totals are those of the last page read, which is the latest.
            let items = ledger.items.into_iter().chain(next.items).collect();
            ledger = LedgerView { items, ..next };
        }
        note_more(output, ledger.next_page_token.as_deref());
        output.print(&ledger, describe_ledger)
    }
}

fn describe_ledger(ledger: &LedgerView) -> String {
    let rows = ledger.items.iter().map(|line| {
        vec![
            line.scheduled_at.to_string(),
            if line.last == line.scheduled_at { String::new() } else { line.last.to_string() },
            line.count.to_string(),
            word(line.kind),
            match (line.kind, line.reason) {
                (Kind::Fired, _) | (_, None) => or_dash(line.run_state.map(RunState::as_str)),
                (_, Some(reason)) => word(reason),
            },
            or_dash(line.run),
        ]
    });
    let mut text = table(&["SCHEDULED", "UNTIL", "COUNT", "KIND", "REASON", "RUN"], rows);
    text.push_str(&format!("\n{} decided until {}", show::tally(&ledger.tally), or_dash(ledger.decided_until)));
    if ledger.folded.total() > 0 {
        text.push_str(&format!("\nof these, in no line any more: {}", show::tally(&ledger.folded)));
    }
    text
}
