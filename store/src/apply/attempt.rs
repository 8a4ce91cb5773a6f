//! `Attempts`: what follows a failed or lost attempt.

use campanile_model::{AttemptAction, AttemptLine, AttemptResult, Reply, RunState, Token, planted};

use super::context::{Answer, Apply};
use crate::effect::Effect;
use crate::tables;

impl Apply<'_> {
    pub fn attempts(&mut self, lines: &[AttemptLine]) -> Answer {
        let mut done = 0;
        for line in lines {
            done += u32::from(self.attempt(line)?);
        }
        Ok(Reply::Lines { done })
    }

    /// Whether the line took effect.
    fn attempt(&mut self, line: &AttemptLine) -> Answer<bool> {
        let Some(mut run) = tables::live_run(&self.read(), line.run)? else { return Ok(false) };
        if run.token != line.expected {
            return Ok(false);
        }
        let waits = run.state == RunState::Retrying;
        let lost = run.state == RunState::Running && self.is_void(run.owner, run.token);
        match line.action {
            AttemptAction::Retry if waits => {
                if let Some(wake_at) = run.retry_at.filter(|due| *due > self.time && !planted!(RetryTooEarly)) {
                    // The clock that found it due was ahead of the log's. Its row in the time index is still there.
                    self.emit(Effect::RetryArmed { run: run.id, token: run.token, wake_at });
                    return Ok(false);
                }
                let token = Token::at(self.next_place());
                self.hand_out(run, token);
            }
            AttemptAction::Expire if waits => {
                let run = self.end(run, RunState::Failed);
                self.tell_task(&run, false)?;
            }
            AttemptAction::Repeat if lost => {
                self.record_attempt(&mut run, AttemptResult::OutcomeUnknown, None, String::new());
                let token = Token::at(self.next_place());
                self.hand_out(run, token);
            }
            AttemptAction::GiveUp if lost => {
                self.record_attempt(&mut run, AttemptResult::OutcomeUnknown, None, String::new());
                let run = self.end(run, RunState::Failed);
                self.tell_task(&run, false)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;

    #[test]
    fn an_attempt_is_repeated_only_when_its_node_is_fenced() {
        let mut m = Machine::new();
        m.run(Command::NodeUp { node: NodeId(2), incarnation: 1, shards: Vec::new() });
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        let token = m.get_run(run).token;
        for action in [AttemptAction::Repeat, AttemptAction::GiveUp, AttemptAction::Retry, AttemptAction::Expire] {
            assert!(!m.attempt(run, token, action), "{action:?} of an attempt that runs");
        }
        let shards = (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(2))).collect();
        m.run(Command::NodeLost { node: NodeId(1), shards });
        assert!(m.attempt(run, token, AttemptAction::Repeat));
        assert!(!m.attempt(run, token, AttemptAction::Repeat), "the token is old by now");
        let repeated = m.get_run(run);
        assert_eq!((repeated.attempt, repeated.owner, repeated.epoch), (2, NodeId(2), 2));
        assert_eq!(repeated.attempts[0].result, AttemptResult::OutcomeUnknown);
        assert!(!m.outcome_with(run, token, Outcome::Succeeded));
        assert!(m.outcome(run, Outcome::Succeeded));
    }

    #[test]
    fn giving_up_says_that_the_outcome_is_unknown() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        let token = m.get_run(run).token;
        m.run(Command::NodeLost { node: NodeId(1), shards: Vec::new() });
        assert!(m.attempt(run, token, AttemptAction::GiveUp));
        let run = m.get_run(run);
        assert_eq!((run.state, run.attempts[0].result), (RunState::Failed, AttemptResult::OutcomeUnknown));
    }

    #[test]
    fn a_retry_waits_for_its_time_or_expires() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let (x, y) = (m.trigger("a"), m.trigger("a"));
        for run in [x, y] {
            m.outcome(run, Outcome::RetryAfter(Millis::from_secs(5)));
        }
        let (x_token, y_token) = (m.get_run(x).token, m.get_run(y).token);
        m.now = at(4);
        assert!(!m.attempt(x, x_token, AttemptAction::Retry));
        m.now = at(5);
        assert!(!m.attempt(x, y_token, AttemptAction::Retry));
        assert!(m.attempt(x, x_token, AttemptAction::Retry));
        assert!(m.attempt(y, y_token, AttemptAction::Expire));
        let expired = m.get_run(y);
        assert_eq!((expired.state, expired.attempts.len(), expired.retry_at), (RunState::Failed, 1, None));
    }

    #[test]
    fn what_nobody_owned_is_repeated_once_somebody_does() {
        let mut m = Machine::empty();
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        let token = m.get_run(run).token;
        let shards = (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(1))).collect();
        m.run(Command::NodeUp { node: NodeId(1), incarnation: 1, shards });
        assert!(m.effects.iter().any(|effect| matches!(effect, crate::Effect::NodeFenced { node: NodeId(0), .. })));
        assert!(m.attempt(run, token, AttemptAction::Repeat));
        assert_eq!(m.get_run(run).owner, NodeId(1));
    }
}
