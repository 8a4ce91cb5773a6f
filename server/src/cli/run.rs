//! `run`: runs, one by one. `task runs` lists them.

use campanile_client::Client;
use campanile_model::RunId;
use campanile_model::api::RunView;
use clap::Subcommand;

use super::failure::Failure;
use super::output::{Output, or_dash, sheet, table, word};

#[derive(Debug, Subcommand)]
pub enum Run {
    /// Show a run and its attempts
    Get {
        /// The run's id, such as r81923
        id: RunId,
    },
    /// End a live run; an attempt that was already sent cannot be recalled
    Cancel {
        /// The run's id, such as r81923
        id: RunId,
    },
}

impl Run {
    pub async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let run = match self {
            Self::Get { id } => client.get_run(id).await?,
            Self::Cancel { id } => client.cancel_run(id).await?,
        };
        output.print(&run, describe)
    }
}

fn describe(run: &RunView) -> String {
    let mut text = sheet(vec![
        ("run", run.id.to_string()),
        ("task", run.task.clone().unwrap_or_else(|| run.task_id.to_string())),
        ("occurrence", run.occurrence_id.to_string()),
        ("version", run.version.to_string()),
        ("origin", word(run.origin)),
        ("state", run.state.as_str().into()),
        ("scheduled at", run.scheduled_at.to_string()),
        ("due at", run.due_at.to_string()),
        ("fired at", run.fired_at.to_string()),
        ("retry at", run.retry_at.map(|at| at.to_string()).unwrap_or_default()),
        ("finished at", run.finished_at.map(|at| at.to_string()).unwrap_or_default()),
        ("attempt", format!("{} on node {}, fencing token {}", run.attempt, run.node, run.fencing_token)),
    ]);
    if !run.attempts.is_empty() {
        let rows = run.attempts.iter().map(|attempt| {
            vec![
                attempt.number.to_string(),
                word(attempt.result),
                or_dash(attempt.status),
                attempt.node.to_string(),
                attempt.ended_at.to_string(),
                attempt.error.clone(),
            ]
        });
        text.push('\n');
        text.push_str(&table(&["ATTEMPT", "RESULT", "STATUS", "NODE", "ENDED", "ERROR"], rows));
    }
    text
}
