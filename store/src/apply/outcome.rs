//! `Outcomes`: attempts that ended, reported by the nodes that delivered them.

use campanile_model::{
    AttemptResult, Millis, Outcome, OutcomeLine, Reply, Run, RunId, RunState, TaskId, TaskState, planted, sometimes,
};

use super::context::{Answer, Apply};
use crate::effect::Effect;
use crate::tables;

impl Apply<'_> {
    pub fn outcomes(&mut self, lines: &[OutcomeLine]) -> Answer {
        let mut accepted = Vec::with_capacity(lines.len());
        let runs: Vec<RunId> = lines.iter().map(|line| line.run).collect();
        let runs = tables::live_runs(self.base, &runs)?;
        // A run's task is only looked at once the outcome counts, but most outcomes do.
        let tasks: Vec<TaskId> = runs.iter().flatten().map(|run| run.task).collect();
        let mut tasks = tables::tasks(self.base, &tasks)?.into_iter();
        for (line, run) in lines.iter().zip(runs) {
            let task = run.as_ref().and_then(|_| tasks.next()).flatten();
            accepted.push(self.outcome(line, run, task)?);
        }
        Ok(Reply::Outcomes { accepted })
    }

    /// Whether the outcome was accepted. It must be of the run's current attempt, and its node must not have been
    /// fenced since that began: then the attempt counts as unknown, whatever the node says.
    /// The run and its task are as they were before this batch.
    fn outcome(&mut self, line: &OutcomeLine, run: Option<Run>, task: Option<TaskState>) -> Answer<bool> {
        let Some(mut run) = tables::live_run_over(self.overlay, run, line.run)? else { return Ok(false) };
        let stale = run.token != line.token && !planted!(StaleTokenAccepted);
        let void = self.is_void(run.owner, run.token);
        if void {
            sometimes!(OutcomeAfterFence);
        }
        if run.state != RunState::Running || stale || (void && !planted!(ForgetTheFence)) {
            return Ok(false);
        }
        let result = match line.result {
            Outcome::Succeeded => AttemptResult::Succeeded,
            Outcome::TimedOut => AttemptResult::TimedOut,
            Outcome::RetryAfter(_) | Outcome::Failed | Outcome::Gone => AttemptResult::Failed,
        };
        self.record_attempt(&mut run, result, line.status, line.error.clone());
        let (state, gone) = match line.result {
            Outcome::RetryAfter(delay) => {
                self.retry_after(run, delay);
                return Ok(true);
            }
            Outcome::Succeeded => (RunState::Succeeded, false),
            Outcome::Failed => (RunState::Failed, false),
            Outcome::TimedOut => (RunState::TimedOut, false),
            Outcome::Gone => (RunState::Failed, true),
        };
        let run = self.end(run, state);
        // One that the batch itself has made was not there to be read.
        let known = tables::task_over(self.overlay, task, run.task)?;
        let task = known.map_or_else(|| tables::known_task(&self.read(), run.task), Ok)?;
        self.tell(task, &run, gone)?;
        Ok(true)
    }

    fn retry_after(&mut self, mut run: Run, delay: Millis) {
        let wake_at = self.time.saturating_add(delay);
        run.state = RunState::Retrying;
        run.retry_at = Some(wake_at);
        tables::put_live_run(self.overlay, &run);
        tables::put_retry_timer(self.overlay, wake_at, run.id, run.token);
        self.emit(Effect::RetryArmed { run: run.id, token: run.token, wake_at });
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;

    #[test]
    fn only_the_current_attempt_may_report_and_once() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        let token = m.get_run(run).token;
        assert!(!m.outcome_with(run, Token(token.0 - 1), Outcome::Succeeded));
        assert!(!m.outcome_with(run, Token(token.0 + 1), Outcome::Succeeded));
        assert!(m.outcome_with(run, token, Outcome::Succeeded));
        assert!(!m.outcome_with(run, token, Outcome::Failed));
        let run = m.get_run(run);
        assert_eq!((run.state, run.attempts.len()), (RunState::Succeeded, 1));
        assert_eq!(run.finished_at, Some(m.now));
    }

    #[test]
    fn lines_of_one_command_see_what_those_before_them_did() {
        let mut m = Machine::new();
        let id = m.create("a", TaskSpec { pause_on_failure: Some(2), ..by_hand() }, None);
        let runs = [m.trigger("a"), m.trigger("a")];
        let lines = [runs[0], runs[0], runs[1]].map(|run| OutcomeLine {
            run,
            token: m.get_run(run).token,
            result: Outcome::Failed,
            status: None,
            error: String::new(),
        });
        let accepted = vec![true, false, true];
        assert_eq!(m.run(Command::Outcomes { lines: lines.to_vec() }), Reply::Outcomes { accepted });
        assert_eq!((m.task(id).failures, m.task(id).status), (2, TaskStatus::Paused));
    }

    #[test]
    fn a_fenced_node_may_not_report() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        m.run(Command::NodeUp { node: NodeId(1), incarnation: 12, shards: Vec::new() });
        assert!(!m.outcome(run, Outcome::Succeeded), "its node was restarted since");
        let after = m.trigger("a");
        assert!(m.outcome(after, Outcome::Succeeded));
    }

    #[test]
    fn failures_in_a_row_pause_the_task() {
        let mut m = Machine::new();
        let spec = TaskSpec { pause_on_failure: Some(2), ..recurring() };
        let id = m.create("a", spec, next(60));
        for (result, failures) in [(Outcome::Failed, 1), (Outcome::Succeeded, 0), (Outcome::TimedOut, 1)] {
            let run = m.trigger("a");
            m.outcome(run, result);
            assert_eq!((m.task(id).failures, m.task(id).status), (failures, TaskStatus::Active));
        }
        let run = m.trigger("a");
        m.outcome(run, Outcome::Failed);
        assert_eq!(m.task(id).status, TaskStatus::Paused);
        m.resume("a");
        assert_eq!(m.task(id).failures, 0);
    }

    #[test]
    fn a_receiver_that_is_gone_pauses_the_version_it_was_given() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let old = m.trigger("a");
        m.put("a", recurring(), next(61));
        m.outcome(old, Outcome::Gone);
        assert_eq!(m.task(id).status, TaskStatus::Active);
        let run = m.trigger("a");
        m.outcome(run, Outcome::Gone);
        assert_eq!((m.task(id).status, m.get_run(run).state), (TaskStatus::Paused, RunState::Failed));
    }

    #[test]
    fn the_history_keeps_the_latest_attempts() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        for _ in 0..limits::ATTEMPT_HISTORY + 2 {
            m.outcome(run, Outcome::RetryAfter(Millis(0)));
            let token = m.get_run(run).token;
            assert!(m.attempt(run, token, AttemptAction::Retry));
        }
        let run = m.get_run(run);
        assert_eq!(run.attempt as usize, limits::ATTEMPT_HISTORY + 3);
        let numbers: Vec<_> = run.attempts.iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, (3..=12).collect::<Vec<_>>());
    }
}
