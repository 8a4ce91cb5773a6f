//! The measurements, one file each; every one starts a cluster of its own, so that none inherits another's data.
//!
//! Bounded in count and time, and loopback only. A run whose work was not done, or not as promised, is an error and
//! never a figure.

mod deliver;
mod failover;
mod fire;
mod growth;
mod overload;
mod pending;
mod soak;
mod submit;
mod tasks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

pub use soak::SHORTEST as SHORTEST_SOAK;

use crate::baselines;
use crate::cluster::{ClusterOptions, ProcessCluster};
use crate::report::{Floor, Report, Row, load_average, merge};

#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The program `campanile`.
    pub binary: PathBuf,
    /// Rows to measure, by [`row_name`]; all when empty.
    pub only: Vec<String>,
    /// Smaller numbers.
    pub quick: bool,
    /// Ten million tasks as well, growth, and the soak.
    pub full: bool,
    /// How long the soak is; not shorter than [`SHORTEST_SOAK`].
    pub soak: Duration,
    /// Repetitions of what is shorter than 20 s.
    pub runs: u32,
    /// Where the nodes' directories are made, and removed.
    pub scratch: PathBuf,
}

impl BenchOptions {
    /// `quick` or the full size.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// What a row has to reach is said of its full size only.
    fn floor(&self, row: Row, floor: Floor) -> Row {
        if self.quick { row } else { row.floor(floor) }
    }

    /// A new cluster of three nodes, removed with its data when dropped.
    async fn cluster(&self) -> Result<ProcessCluster> {
        self.cluster_with(&[]).await
    }

    /// The same, with more arguments for every node.
    async fn cluster_with(&self, serve_args: &[&str]) -> Result<ProcessCluster> {
        let scratch = self.scratch.clone();
        let serve_args = serve_args.iter().map(|arg| (*arg).to_owned()).collect();
        ProcessCluster::start(ClusterOptions { scratch, serve_args, ..ClusterOptions::new(&self.binary) }).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    SubmitSingle { connections: usize },
    SubmitBatch { connections: usize },
    FireBurst,
    FireScattered,
    DeliverBurst,
    DeliverLargeBurst,
    PacedLateness,
    Overload,
    Failover,
    Pending,
    Growth,
    Soak,
}

/// In the order they are measured. `pending` and what follows come last because they leave the page cache full.
const SCENARIOS: [Scenario; 15] = [
    Scenario::SubmitSingle { connections: 1 },
    Scenario::SubmitSingle { connections: 64 },
    Scenario::SubmitSingle { connections: 256 },
    Scenario::SubmitBatch { connections: 1 },
    Scenario::SubmitBatch { connections: 64 },
    Scenario::FireBurst,
    Scenario::FireScattered,
    Scenario::DeliverBurst,
    Scenario::DeliverLargeBurst,
    Scenario::PacedLateness,
    Scenario::Overload,
    Scenario::Failover,
    Scenario::Pending,
    Scenario::Growth,
    Scenario::Soak,
];

impl Scenario {
    /// The rows it fills.
    fn names(self) -> Vec<String> {
        match self {
            Self::SubmitSingle { connections } => vec![submit::single_name(connections)],
            Self::SubmitBatch { connections } => vec![submit::batch_name(connections)],
            Self::FireBurst => vec![fire::BURST.into()],
            Self::FireScattered => vec![fire::SCATTERED.into()],
            Self::DeliverBurst => vec![deliver::BURST.into()],
            Self::DeliverLargeBurst => vec![deliver::LARGE_BURST.into()],
            Self::PacedLateness => vec![deliver::PACED.into()],
            Self::Overload => {
                vec![
                    overload::THROUGHPUT.into(),
                    overload::REFUSAL.into(),
                    overload::LATENESS.into(),
                    overload::RECOVERY.into(),
                ]
            }
            Self::Pending => vec![pending::RSS.into(), pending::DISK.into(), pending::RESTART.into()],
            Self::Failover => vec![failover::NAME.into()],
            Self::Growth => growth::names(),
            Self::Soak => {
                vec![soak::RSS.into(), soak::DISK.into(), soak::LOG.into(), soak::LATENESS.into(), soak::SUBMIT.into()]
            }
        }
    }

    /// Whether it is named, or nothing is and it belongs to every run, or to a full one.
    fn is_wanted(self, only: &[String], full: bool) -> bool {
        let wanted = |name: &String| only.iter().any(|wanted| stands_for(wanted, name));
        if only.is_empty() {
            return full || !matches!(self, Self::Growth | Self::Soak);
        }
        self.names().iter().any(wanted)
    }

    /// Too long to repeat.
    fn is_long(self) -> bool {
        !matches!(self, Self::SubmitSingle { .. } | Self::SubmitBatch { .. } | Self::DeliverBurst)
    }

    /// What a rate is set against.
    fn baseline(self) -> &'static str {
        match self {
            Self::SubmitSingle { .. } => baselines::APPENDS,
            Self::SubmitBatch { .. } | Self::FireBurst | Self::FireScattered => baselines::PUTS,
            Self::DeliverBurst | Self::DeliverLargeBurst => baselines::ECHO,
            // No rates.
            Self::PacedLateness | Self::Overload | Self::Failover => baselines::APPENDS,
            Self::Pending | Self::Growth | Self::Soak => baselines::APPENDS,
        }
    }

    async fn measure(self, options: &BenchOptions) -> Result<Vec<Row>> {
        match self {
            Self::SubmitSingle { connections } => submit::single(options, connections).await,
            Self::SubmitBatch { connections } => submit::batch(options, connections).await,
            Self::FireBurst => fire::burst(options).await,
            Self::FireScattered => fire::scattered(options).await,
            Self::DeliverBurst => deliver::burst(options).await,
            Self::DeliverLargeBurst => deliver::large_burst(options).await,
            Self::PacedLateness => deliver::paced(options).await,
            Self::Overload => overload::measure(options).await,
            Self::Pending => pending::measure(options).await,
            Self::Failover => failover::measure(options).await,
            Self::Growth => growth::measure(options).await,
            Self::Soak => soak::measure(options).await,
        }
    }
}

/// A name stands for itself and for all that begin with it and an underscore.
fn stands_for(wanted: &str, name: &str) -> bool {
    name.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// A name that stands for some rows; the refusal of another one lists all.
pub fn row_name(wanted: &str) -> Result<String, String> {
    let all: Vec<String> = SCENARIOS.iter().flat_map(|scenario| scenario.names()).collect();
    if all.iter().any(|name| stands_for(wanted, name)) {
        return Ok(wanted.to_owned());
    }
    Err(format!("there is no such row; there are {}", all.join(", ")))
}

/// Measures what is asked for; `note` is told what is being done.
pub async fn run(options: &BenchOptions, mut note: impl FnMut(&str)) -> Result<Report> {
    std::fs::create_dir_all(&options.scratch).with_context(|| format!("making {}", options.scratch.display()))?;
    let load = load_average();
    let within = options.size(Duration::from_secs(3), Duration::from_secs(1));
    let mut results = baselines::measure(&options.scratch, within, &mut note).await?;
    let baselines = results.clone();
    for scenario in SCENARIOS.into_iter().filter(|scenario| scenario.is_wanted(&options.only, options.full)) {
        let names = scenario.names().join(", ");
        let count = if scenario.is_long() { 1 } else { options.runs };
        let mut repetitions = Vec::new();
        for n in 1..=count {
            note(&format!("measuring {names} ({n} of {count})"));
            repetitions.push(scenario.measure(options).await.with_context(|| format!("measuring {names}"))?);
        }
        let baseline = baselines.iter().find(|row| row.name == scenario.baseline());
        results.extend(merge(repetitions).into_iter().map(|row| with_ratio(row, baseline)));
    }
    Ok(Report::new(load, results))
}

/// Rates are set against what the machine can do, measured in the same run.
fn with_ratio(row: Row, baseline: Option<&Row>) -> Row {
    match baseline {
        Some(baseline) if row.unit.ends_with("/s") => {
            Row { baseline: Some(baseline.name.clone()), ratio: Some(row.value / baseline.value), ..row }
        }
        _ => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_a_whole_family() {
        let wanted = |only: &str| {
            let only: Vec<String> = vec![only.into()];
            SCENARIOS
                .iter()
                .filter(|scenario| scenario.is_wanted(&only, false))
                .flat_map(|one| one.names())
                .collect::<Vec<_>>()
        };
        assert_eq!(wanted("submit_single"), ["submit_single_1", "submit_single_64", "submit_single_256"]);
        assert_eq!(wanted("submit_single_6"), [""; 0]);
        assert_eq!(wanted("submit_batch_1"), ["submit_batch_1"]);
        assert_eq!(wanted("pending_disk"), ["pending_rss", "pending_disk", "restart"]);
        assert_eq!(row_name("growth"), Ok("growth".into()));
        for unknown in ["", "submit_single_6", "nothing"] {
            assert!(row_name(unknown).is_err_and(|refusal| refusal.ends_with("soak_submit")), "{unknown:?}");
        }
    }

    #[test]
    fn what_takes_hours_is_measured_when_it_is_asked_for() {
        let count = |only: &[String], full| SCENARIOS.iter().filter(|one| one.is_wanted(only, full)).count();
        assert_eq!([count(&[], false), count(&[], true)], [SCENARIOS.len() - 2, SCENARIOS.len()]);
        assert_eq!(count(&["growth".into()], false), 1);
    }

    #[test]
    fn only_rates_have_a_ratio() {
        let baseline = Row::new("b", 250.0, "appends/s");
        assert_eq!(with_ratio(Row::new("a", 500.0, "tasks/s"), Some(&baseline)).ratio, Some(2.0));
        assert_eq!(with_ratio(Row::new("a", 500.0, "MiB"), Some(&baseline)).ratio, None);
    }
}
