//! `replay`: a seed twice, in two processes.

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;

use super::child::{Ended, Simulator, Trial};
use super::output::Output;
use super::{COMMIT, Case, End};
use crate::report::{self, Summary};

#[derive(Args)]
pub struct Replay {
    #[command(flatten)]
    case: Case,
    /// The seed
    #[arg(long)]
    seed: u64,
    /// The commit the seed was found with; another one is refused, because seeds mean something else there
    #[arg(long, value_name = "COMMIT")]
    build: Option<String>,
}

#[derive(Serialize)]
struct Replayed {
    same: bool,
    /// The trace hash of each run; absent where the process crashed.
    traces: [Option<String>; 2],
    held: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Box<Summary>>,
}

impl Replay {
    pub fn execute(self, simulator: &Simulator, out: Output) -> Result<End> {
        check_build(self.build.as_deref(), COMMIT)?;
        self.case.read()?;
        let trial = Trial {
            scenario: self.case.scenario.as_deref(),
            seed: self.seed,
            planted: self.case.planted.as_deref(),
            ..Trial::default()
        };
        let runs = [simulator.run(&trial)?, simulator.run(&trial)?];
        let traces = runs.each_ref().map(|run| run.trace().map(str::to_owned));
        let replayed = Replayed {
            // Two crashes are as alike as their last words.
            same: traces[0] == traces[1] && runs[0].why() == runs[1].why(),
            traces,
            held: runs.iter().all(Ended::held),
            crash: runs.iter().find(|run| !matches!(run, Ended::Judged(_))).map(Ended::why),
            verdict: runs.into_iter().find_map(|run| match run {
                Ended::Judged(summary) => Some(summary),
                _ => None,
            }),
        };
        out.print(&replayed, text)?;
        Ok(End::held(replayed.same && replayed.held))
    }
}

/// A seed of another commit is refused; where either is unknown there is nothing to compare.
fn check_build(wanted: Option<&str>, this: Option<&str>) -> Result<()> {
    match (wanted, this) {
        (Some(wanted), Some(this)) if wanted != this => {
            bail!(
                "the seed was found with commit {wanted}, and this program is of {this}: check that commit out and build it"
            )
        }
        _ => Ok(()),
    }
}

fn text(replayed: &Replayed) -> String {
    let mut out = replayed.verdict.as_ref().map_or_else(String::new, |summary| report::text(summary) + "\n");
    if let Some(crash) = &replayed.crash {
        out += &format!("{crash}\n\n");
    }
    let [first, second] = replayed.traces.each_ref().map(|trace| trace.as_deref().unwrap_or("none"));
    out + &match replayed.same {
        true => format!("Ran twice with the same trace: {first}"),
        false => format!("NOT DETERMINISTIC: the traces differ: {first} and {second}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_of_another_commit_is_refused() {
        assert!(check_build(Some("abc"), Some("def")).unwrap_err().to_string().contains("abc"));
        assert!(check_build(Some("abc"), Some("abc")).is_ok());
        assert!(check_build(Some("abc"), None).is_ok() && check_build(None, Some("abc")).is_ok());
    }
}
