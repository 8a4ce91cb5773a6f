//! `run`: one seed, in this process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use rustix::time::{ClockId, clock_gettime};

use super::output::{Output, write_file, write_with};
use super::{Case, End, names, simulator};
use crate::drive::draw;
use crate::history::{self, History};
use crate::order::Order;
use crate::report::{self, Facts, Judgement, Summary};
use crate::scenario::Scenario;
use crate::verdict::Verdict;
use crate::{expectations, invariants};

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    case: Case,
    /// Everything that is drawn is drawn from it [default: the scenario's, else 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Write the scenario with all that the seed draws, each fault and operation, to edit and run
    #[arg(long, value_name = "FILE")]
    scenario_out: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
}

/// What else is made of a judged history.
#[derive(Args)]
pub struct Files {
    /// Write the history, as JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Write the timeline, as HTML
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the verdict for CI, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl Run {
    pub fn execute(self, out: Output) -> Result<End> {
        let scenario = self.case.read()?;
        let seed = self.seed.or(scenario.seed).unwrap_or(1);
        if let Some(planted) = &self.case.planted {
            names::check_planted(planted, &simulator::planted()?)?;
        }
        if let Some(file) = &self.scenario_out {
            let written = Scenario { seed: Some(seed), ..draw::written_out(&scenario, seed) };
            write_file(file, &written.text()?)?;
        }
        let (started, computed) = (Instant::now(), cpu_time());
        let order = Order { scenario, seed, planted: self.case.planted.clone() };
        let mut simulated = simulator::simulate(&order)?;
        let (real, cpu) = (started.elapsed(), cpu_time().saturating_sub(computed));
        let facts = Facts {
            pace: Some(order.scenario.pace),
            trace_hash: Some(format!("{:016x}", simulated.trace_hash)),
            simulated_ms: Some(simulated.simulated.as_millis() as u64),
            real_ms: Some(real.as_millis() as u64),
            cpu_ms: Some(cpu.as_millis() as u64),
            work: Some(simulated.work),
            replay: Some(self.case.replay_line(seed)),
        };
        let verdict = judge(&simulated.history, Some(&order.scenario));
        simulated.history.add_messages(simulated.messages, &verdict);
        let summary = Summary::of(&simulated.history, &verdict, facts);
        self.files.write(&simulated.history, &summary)?;
        out.print(&summary, report::text)?;
        Ok(End::held(summary.held))
    }
}

/// How long this process has computed.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// What the invariants say, and the scenario's expectations where it is known.
pub fn judge(history: &History, scenario: Option<&Scenario>) -> Verdict {
    let mut verdict = invariants::check(history);
    if let Some(scenario) = scenario.filter(|scenario| scenario.expect != Default::default()) {
        verdict.findings.push(("expectations", expectations::check(scenario, history)));
    }
    verdict
}

impl Files {
    pub fn write(&self, history: &History, summary: &Summary) -> Result<()> {
        if let Some(file) = &self.history {
            write_with(file, |out| history::write(history, out))?;
        }
        if let Some(file) = &self.report {
            write_file(file, &report::html(history, summary))?;
        }
        if let Some(file) = &self.junit {
            write_file(file, &report::junit(&suite(summary), &cases(summary)))?;
        }
        Ok(())
    }
}

fn suite(summary: &Summary) -> String {
    let seed = summary.seed.map_or_else(String::new, |seed| format!(", seed {seed}"));
    format!("{}{seed}", summary.scenario)
}

/// One case for each invariant, and one for each kind of fault that was left out.
pub fn cases(summary: &Summary) -> Vec<report::Case> {
    let replay = summary.facts.replay.as_deref().unwrap_or_default();
    let seconds = summary.facts.real_ms.map_or(0.0, |ms| ms as f64 / 1000.0) / summary.findings.len().max(1) as f64;
    let case = |line: &report::FindingLine| {
        let mut case = report::Case { name: line.name.clone(), seconds, ..Default::default() };
        match &line.judgement {
            Judgement::Held { .. } => {}
            Judgement::NotApplicable { needs } => case.skipped = Some(format!("needs {needs}")),
            Judgement::Violated { violations } => {
                let lines: String =
                    violations.iter().map(|violation| format!("at {} µs: {}\n", violation.t, violation.what)).collect();
                let first = violations.first().map_or_else(String::new, |violation| violation.what.clone());
                case.failure = Some((first, format!("{lines}{replay}")));
            }
        }
        case
    };
    let left_out = summary.left_out.iter().map(|left| report::Case {
        name: format!("fault {}", left.fault),
        skipped: Some(left.why.clone()),
        ..Default::default()
    });
    summary.findings.iter().map(case).chain(left_out).collect()
}
