//! How long a task's definition is kept: while it is the current one, and while a ledger line is of that version, for
//! a run finishes under the definition that fired it. Lines are counted, so that no version has to be looked for: the
//! current one's in the task's row, which a fire writes anyway, a superseded one's in a row of its own.

use campanile_model::TaskState;

use super::context::Apply;
use crate::error::StoreResult;
use crate::tables;

impl Apply<'_> {
    /// The task is about to get its next version.
    pub fn supersede_version(&mut self, task: &mut TaskState) {
        match std::mem::take(&mut task.version_lines) {
            0 => tables::delete_spec(self.overlay, task.id, task.version),
            lines => tables::put_version_lines(self.overlay, task.id, task.version, lines),
        }
    }

    /// A ledger line of this version is gone.
    pub fn release_version(&mut self, task: &mut TaskState, version: u32) -> StoreResult<()> {
        if version == task.version {
            task.version_lines -= 1;
            return Ok(());
        }
        match tables::known_version_lines(&self.read(), task.id, version)? - 1 {
            0 => tables::delete_version(self.overlay, task.id, version),
            lines => tables::put_version_lines(self.overlay, task.id, version, lines),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;

    /// The versions of a task that are kept.
    fn kept(m: &Machine, id: TaskId) -> Vec<u32> {
        let newest = m.view().task(id).unwrap().map_or(99, |task| task.version);
        (1..=newest).filter(|version| m.view().spec(id, *version).unwrap().is_some()).collect()
    }

    #[test]
    fn a_version_under_which_nothing_was_decided_goes_with_its_update() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        for secs in 61..90 {
            m.put("a", recurring(), next(secs));
        }
        assert_eq!(kept(&m, id), [30]);
    }

    #[test]
    fn a_version_is_kept_while_a_line_is_of_it() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let first = m.fire(id, next(120)).unwrap();
        m.put("a", recurring(), next(121));
        m.decide(id, Decision::Lapse { last: at(121), count: 1, reason: Reason::PolicySkip }, next(180));
        m.decide(id, Decision::Lapse { last: at(180), count: 1, reason: Reason::PolicySkip }, next(240));
        m.put("a", recurring(), next(241));
        let trigger = m.trigger("a");
        m.put("a", recurring(), next(242));
        assert_eq!(kept(&m, id), [1, 2, 3, 4]);
        let trim = |max_lines| Command::TrimLedger { task: id, before: at(9999), max_lines };
        m.run(trim(9));
        assert_eq!(kept(&m, id), [1, 2, 3, 4], "its run is live");
        m.outcome(first, Outcome::Succeeded);
        m.run(trim(1));
        assert_eq!(kept(&m, id), [2, 3, 4]);
        m.run(trim(1));
        assert_eq!(kept(&m, id), [3, 4]);
        m.outcome(trigger, Outcome::Succeeded);
        m.run(trim(1));
        assert_eq!(kept(&m, id), [4], "the current one stays");
        let last = m.fire(id, next(300)).unwrap();
        m.outcome(last, Outcome::Succeeded);
        m.run(trim(1));
        assert_eq!(kept(&m, id), [4]);
    }

    #[test]
    fn a_one_shot_keeps_the_version_that_fired_it() {
        let mut m = Machine::new();
        let id = m.create("a", one_shot(10), next(10));
        let first = m.fire(id, None).unwrap();
        m.outcome(first, Outcome::Succeeded);
        m.put("a", one_shot(20), next(20));
        assert_eq!(kept(&m, id), [1, 2]);
        let second = m.fire(id, None).unwrap();
        m.put("a", recurring(), next(60));
        assert_eq!(kept(&m, id), [1, 2, 3]);
        m.outcome(second, Outcome::Succeeded);
        m.run(Command::TrimLedger { task: id, before: at(9999), max_lines: 9 });
        assert_eq!(kept(&m, id), [3]);
    }

    #[test]
    fn nothing_is_left_of_a_deleted_task() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        for secs in [120, 180, 240] {
            m.fire(id, next(secs));
            m.put("a", recurring(), next(secs + 1));
        }
        m.delete("a", false);
        for run in m.view().live_runs(None, 9).unwrap() {
            m.outcome(run.id, Outcome::Succeeded);
        }
        assert_eq!(kept(&m, id), [1, 2, 3, 4]);
        while m.run(Command::ExpireTask { task: id, max_lines: 1 }) != Reply::Done {}
        assert!(m.view().task(id).unwrap().is_none());
        assert!(kept(&m, id).is_empty());
    }
}
