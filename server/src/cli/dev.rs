//! `dev`: a cluster of child processes of this program, for trying things out.

use std::path::PathBuf;
use std::time::Duration;

use campanile_bench::cluster::{ClusterOptions, ProcessCluster};
use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::output::{Output, sheet};

/// Longer than a node takes to drain.
const SHUTDOWN: Duration = Duration::from_secs(40);

#[derive(Debug, Args)]
pub struct Dev {
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// API port of node 1; node N has the port N - 1 above, and its peers' port is 100 above that
    #[arg(long, value_name = "PORT", default_value_t = 7701)]
    base_port: u16,
    /// Directory of data and logs, kept for the next time; temporary when not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What is running, and where.
#[derive(Debug, Serialize)]
struct Running {
    endpoints: Vec<String>,
    directory: PathBuf,
}

impl Dev {
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let options = ClusterOptions {
            nodes: self.nodes,
            data: self.data,
            base_port: Some(self.base_port),
            ..ClusterOptions::new(this_program()?)
        };
        drive(async {
            let cluster = ProcessCluster::start(options).await.map_err(failed)?;
            let running = Running {
                endpoints: cluster.endpoints().iter().map(|api| format!("http://{api}")).collect(),
                directory: cluster.directory().to_owned(),
            };
            output.print(&running, describe)?;
            output.flush()?;
            output.note("Ctrl-C stops the nodes");
            tokio::signal::ctrl_c().await.map_err(|error| Failure::failed(format!("waiting for Ctrl-C: {error}")))?;
            cluster.shutdown(SHUTDOWN).await.map_err(failed)
        })
    }
}

fn describe(running: &Running) -> String {
    sheet(vec![
        ("endpoints", running.endpoints.join(" ")),
        ("data and logs", running.directory.display().to_string()),
        ("try", format!("campanile --endpoint {} cluster status", running.endpoints.join(","))),
    ])
}

/// The program that the nodes run: this one.
pub fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::unreadable("the path of this program", &error))
}

/// Runs what drives a cluster, on a runtime whose threads it may load.
pub fn drive<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
    runtime.block_on(work)
}

/// With all its causes.
pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    let error = error.into();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    Failure::failed(text)
}
