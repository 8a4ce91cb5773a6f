//! `next`: when an expression is due. Pure arithmetic on this machine, by the code that nodes fire by.

use campanile_model::{Dst, Schedule, TaskSpec, Timestamp};
use campanile_timer::{Anchors, Plan, parse_expression, render};
use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::words::{DST, words};

#[derive(Debug, Args)]
pub struct Next {
    /// A cron expression of 5, 6 (seconds first) or 7 (years last) fields, @daily and the like, or an ISO 8601 repeat
    /// such as R3/2026-01-31T09:00:00+08:00/P1M
    #[arg(value_name = "EXPR")]
    expression: String,

    /// Time zone of a cron expression
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,

    /// How many occurrences to show
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,

    /// Show those after this RFC 3339 instant instead of from now on
    #[arg(long, value_name = "INSTANT")]
    after: Option<Timestamp>,

    /// What happens to times that a clock change skips or repeats
    #[arg(long, value_name = "POLICY", default_value = "vixie", value_parser = words::<Dst>(DST))]
    dst: Dst,
}

/// One occurrence.
#[derive(Debug, Serialize)]
struct Occurrence {
    /// With the offset of the schedule's zone.
    at: String,
    utc: Timestamp,
}

impl Next {
    pub fn run(self, output: &mut Output) -> Result<(), Failure> {
        let after = self.after.unwrap_or_else(|| Timestamp::from_jiff(jiff::Timestamp::now()));
        let schedule = parse_expression(&self.expression, &self.tz, self.dst)?;
        let occurrences = upcoming(&schedule, after, usize::from(self.count))?;
        if occurrences.len() < usize::from(self.count) {
            output.note("no occurrence follows");
        }
        output.print(&occurrences, |occurrences| {
            occurrences.iter().map(|occurrence| format!("{}\n", occurrence.at)).collect()
        })
    }
}

/// Up to `count` occurrences of a schedule that is written at `after`.
fn upcoming(schedule: &Schedule, after: Timestamp, count: usize) -> Result<Vec<Occurrence>, Failure> {
    let anchors = Anchors::new(after, 0);
    let spec = TaskSpec::new(vec![schedule.clone()], super::definition::http_target(String::new()));
    let plan = Plan::compile(&spec, anchors).map_err(|rejection| {
        // The expression is the whole of the input here; a path into a task would only puzzle.
        Failure::refused(rejection.code, rejection.message)
    })?;
    let instants = std::iter::successors(plan.next_after(after), |previous| plan.next_after(*previous));
    Ok(instants.take(count).map(|at| Occurrence { at: render(schedule, at), utc: at }).collect())
}
