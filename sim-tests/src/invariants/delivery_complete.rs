//! A run that is recorded as succeeded has arrived and was answered so; what arrives is of an attempt that was
//! committed before; and no run is forgotten: in a converged history one that has not finished is still within its
//! time, or waits for another of its task.

use std::collections::BTreeSet;

use campanile_model::{Millis, RunId, RunState, TaskId, Timestamp, Token};

use super::index::{At, Delivered, Facts, RunFacts};
use super::report::Report;
use crate::verdict::Finding;

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("delivery_complete");
    for (id, run) in &facts.runs {
        for delivered in &run.deliveries {
            was_committed(facts, *id, run, delivered, &mut report);
        }
        if let Some(last) = Last::of(run).filter(|last| last.state == RunState::Succeeded) {
            // What only the final state tells may have come about while that was read: its time is when the reading began.
            let by = if run.rows.is_empty() { u64::MAX } else { last.t };
            let arrived = run
                .deliveries
                .iter()
                .any(|delivered| delivered.it.token == last.token && delivered.t <= by && delivered.answered_success());
            report.hold(arrived, last.t, || {
                format!("run {id} has succeeded under token {}, which no receiver has answered so", last.token)
            });
        }
    }
    if facts.converged.is_some() {
        nothing_is_forgotten(facts, &mut report);
    }
    report.finish_if_any("deliveries, or runs")
}

/// A run as it was last seen.
struct Last {
    t: u64,
    task: TaskId,
    version: u32,
    state: RunState,
    token: Token,
    retry_at: Option<Timestamp>,
    /// When its last step was taken, as far as is known.
    since: u64,
}

impl Last {
    fn of(run: &RunFacts) -> Option<Self> {
        let by_the_log = run.rows.last().map(|At { t, it: row }| Self {
            t: *t,
            task: row.occurrence.task,
            version: row.version,
            state: row.state,
            token: row.token,
            retry_at: row.retry_at,
            since: *t,
        });
        // Without a log the time of a step is not known; then only what arrived last is.
        by_the_log.or_else(|| {
            run.in_the_end.map(|At { t, it: view }| Self {
                t,
                task: view.task_id,
                version: view.version,
                state: view.state,
                token: view.fencing_token,
                retry_at: view.retry_at,
                since: run.deliveries.last().map_or(t, |delivered| delivered.t),
            })
        })
    }
}

fn was_committed(facts: &Facts, id: RunId, run: &RunFacts, delivered: &Delivered, report: &mut Report) {
    let it = delivered.it;
    if facts.has_log() {
        let row = run.handed_out(it.token);
        let held = row.is_some_and(|row| {
            row.t <= delivered.t && (row.it.attempt, row.it.occurrence) == (it.attempt, it.occurrence) && it.attempt > 0
        });
        report.hold(held, delivered.t, || {
            format!("attempt {} of run {id} under token {} arrived and was not committed before", it.attempt, it.token)
        });
    } else if let Some(end) = run.in_the_end {
        report.hold(end.it.occurrence_id == it.occurrence, delivered.t, || {
            format!("run {id} arrived as of occurrence {} and is of {}", it.occurrence, end.it.occurrence_id)
        });
    }
    let fits = (it.occurrence.task, it.occurrence.scheduled_at) == (it.task, it.scheduled_at);
    report.hold(fits && it.signed != Some(false), delivered.t, || {
        format!("delivery {} of run {id} contradicts itself or is wrongly signed", it.delivery)
    });
}

fn nothing_is_forgotten(facts: &Facts, report: &mut Report) {
    let end = facts.history.end();
    let lasts = || facts.runs.iter().filter_map(|(id, run)| Some((id, Last::of(run)?)));
    let at_work: BTreeSet<TaskId> = lasts()
        .filter(|(_, last)| matches!(last.state, RunState::Running | RunState::Retrying))
        .map(|(_, last)| last.task)
        .collect();
    for (id, last) in lasts() {
        let deadline = match last.state {
            RunState::Running => within(facts, last.since, timeout(facts, &last)),
            RunState::Retrying => {
                within(facts, last.retry_at.map_or(last.since, |retry_at| facts.since_start(retry_at)), Millis(0))
            }
            RunState::Pending if at_work.contains(&last.task) => u64::MAX,
            RunState::Pending => within(facts, last.since, Millis(0)),
            _ => u64::MAX,
        };
        report
            .hold(end <= deadline, end, || format!("run {id} is {} in the end and was forgotten", last.state.as_str()));
    }
}

/// By when something is over that began at `from` and takes so long: sooner or later than that by the bound on
/// lateness, and by as long again as receivers were in trouble. With few connections its turn comes first, and that is
/// sure only of well receivers.
fn within(facts: &Facts, from: u64, takes: Millis) -> u64 {
    let turn = facts.turn();
    let from = if turn > 0 { from.max(facts.healed.unwrap_or_default()).saturating_add(turn) } else { from };
    let takes = takes.0.saturating_mul(1000);
    let over = facts.deadline(from).saturating_add(takes);
    let quiet = facts.receiver_troubles.first_quiet(from, takes + facts.bound());
    over.max(quiet.saturating_add(takes).saturating_add(facts.bound()))
}

fn timeout(facts: &Facts, last: &Last) -> Millis {
    facts.spec(last.task, last.version).map_or(Millis::from_secs(30), |spec| spec.timeout)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::{Event, FinalRead};
    use crate::plan::Fault;
    use campanile_model::NodeId;

    const NAME: &str = "delivery_complete";

    fn running() -> Script {
        Script::new().at(10_000).entry(5).row(&fired(5, 10))
    }

    #[test]
    fn a_success_that_never_arrived() {
        let run = fired(5, 10);
        let end = ended(&run, 6, RunState::Succeeded);
        accepts(NAME, running().deliver(1, &run).answer(1, 204).row(&end));
        refuses(NAME, running().row(&end));
        refuses(NAME, running().deliver(1, &run).row(&end));
        refuses(NAME, running().deliver(1, &run).answer(1, 500).row(&end));
        refuses(NAME, running().row(&end).at(10_001).deliver(1, &run).answer(1, 200));
        accepts(NAME, Script::new().real().deliver(1, &run).answer(1, 200).final_run(&end));
        let begun = FinalRead::Begun;
        let reading = Script::new().real().event(Event::FinalState { node: NodeId(1), read: begun }).at(20_000);
        accepts(NAME, reading.deliver(1, &run).answer(1, 200).final_run(&end));
        refuses(NAME, Script::new().real().final_run(&end));
    }

    #[test]
    fn an_arrival_that_was_not_committed() {
        let run = fired(5, 10);
        accepts(NAME, running().deliver(1, &run));
        refuses(NAME, Script::new().entry(5).deliver(1, &run));
        refuses(NAME, Script::new().entry(5).deliver(1, &run).at(1).row(&run));
        refuses(NAME, running().deliver(1, &attempt(&run, 2, 6)));
        refuses(NAME, running().deliver(1, &changed(&run, |row| row.attempt = 2)));
        refuses(NAME, running().delivery(1, &run, |it| it.scheduled_at = second(11)));
        refuses(NAME, running().delivery(1, &run, |it| it.signed = Some(false)));
        let other = changed(&run, |row| row.occurrence = fired(6, 20).occurrence);
        refuses(NAME, Script::new().real().deliver(1, &other).final_run(&run));
    }

    #[test]
    fn a_run_that_is_forgotten() {
        // Timeout 30 s, bound 2 s.
        accepts(NAME, running().at(42_000).converged());
        refuses(NAME, running().at(42_001).converged());
        permits(NAME, running().at(42_001).entry(6));
        let hung = || running().begin(0, Fault::ReceiverHangs).at(60_000).end(0);
        accepts(NAME, hung().at(92_000).converged());
        refuses(NAME, hung().at(92_001).converged());
    }

    #[test]
    fn a_retry_that_is_forgotten() {
        let retry = || running().row(&retrying(&fired(5, 10), 6, 20));
        accepts(NAME, retry().at(22_000).converged());
        refuses(NAME, retry().at(22_001).converged());
    }

    #[test]
    fn a_run_that_waits_for_nothing() {
        let waits = || Script::new().at(10_000).row(&pending(&fired(5, 10))).at(20_000);
        refuses(NAME, waits().converged());
        accepts(NAME, waits().row(&fired(6, 20)).converged());
    }
}
