//! What is removed, and when: timers, ledger lines with their runs, finished and deleted tasks, idempotency keys.
//! The leader decides how much at a time; what is still needed stays, whatever it asks for.

use std::ops::Bound;

use campanile_model::{
    DELETED_KEPT, FINISHED_KEPT, LedgerRow, OnFinish, Origin, Reply, TaskId, TaskState, TaskStatus, Timestamp, bound,
    planted, sometimes,
};

use super::context::{Answer, Apply};
use crate::keys;
use crate::tables;

impl Apply<'_> {
    /// No timer is ever entered below the time of its entry, so nothing can be lost up to there.
    pub fn trim_timers(&mut self, before: Timestamp) -> Answer {
        let before = before.min(self.time);
        if before > self.cached.globals.timers_trimmed_until && !planted!(TimersStay) {
            let start = keys::instant(self.cached.globals.timers_trimmed_until).to_vec();
            self.overlay.delete_range(keys::TIME, start, keys::instant(before).to_vec());
            self.cached.globals.timers_trimmed_until = before;
        }
        Ok(Reply::Done)
    }

    /// Replies the number of lines folded.
    pub fn trim_ledger(&mut self, id: TaskId, before: Timestamp, max_lines: u32) -> Answer {
        let Some(mut task) = tables::task(&self.read(), id)? else { return Ok(Reply::Lines { done: 0 }) };
        let done = self.fold_lines(&mut task, before, max_lines)?;
        if done > 0 {
            sometimes!(LedgerTrimmed);
            self.put(&task);
        }
        Ok(Reply::Lines { done })
    }

    /// Folds the oldest lines that lie wholly before `before`, up to the first whose run is live.
    fn fold_lines(&mut self, task: &mut TaskState, before: Timestamp, max_lines: u32) -> Answer<u32> {
        let rows = tables::oldest_ledger_rows(&self.read(), task.id, max_lines as usize)?;
        let mut done = 0;
        for (line, row) in rows {
            let version = match row {
                LedgerRow::Fired { .. } if line.scheduled_at >= before => break,
                LedgerRow::Fired { run } if tables::is_live(&self.read(), run)? => break,
                LedgerRow::Fired { run } => {
                    let version = tables::known_finished_run(&self.read(), run)?.version;
                    tables::delete_finished_run(self.overlay, run);
                    task.folded.fired += 1;
                    task.folded.triggered += u64::from(line.origin != Origin::Schedule);
                    version
                }
                LedgerRow::Range { last, .. } if last >= before => break,
                LedgerRow::Range { count, reason, version, .. } => {
                    task.folded.add(reason, count);
                    if task.open_line.is_some_and(|open| open.first == line.scheduled_at) {
                        task.open_line = None;
                    }
                    version
                }
            };
            tables::delete_ledger_row(self.overlay, line);
            self.release_version(task, version)?;
            done += 1;
        }
        task.lines -= done;
        Ok(done)
    }

    /// Replies `Done` when the task is gone or is to stay, and the number of lines removed while there are more.
    pub fn expire_task(&mut self, id: TaskId, max_lines: u32) -> Answer {
        let Some(mut task) = tables::task(&self.read(), id)? else { return Ok(Reply::Done) };
        if !self.is_expired(&task) {
            return Ok(Reply::Done);
        }
        let folded = self.fold_lines(&mut task, Timestamp::from_millis(i64::MAX), max_lines)?;
        if task.lines > 0 && folded == max_lines {
            sometimes!(TaskWentInParts);
            self.put(&task);
            return Ok(Reply::Lines { done: folded });
        }
        let one_shot_run = task.one_shot_run.map(|(_, run)| run);
        let one_shot_is_live = match one_shot_run {
            Some(run) => tables::is_live(&self.read(), run)?,
            None => false,
        };
        if task.lines > 0 || one_shot_is_live || !task.live.is_empty() {
            // A run is live: look again later.
            let deleted = task.status == TaskStatus::Deleted;
            let kept = if deleted { bound!(DeletedKept, DELETED_KEPT) } else { bound!(FinishedKept, FINISHED_KEPT) };
            self.arm_expiry(id, kept);
            self.put(&task);
            return Ok(Reply::Done);
        }
        if let Some(run) = one_shot_run {
            tables::delete_finished_run(self.overlay, run);
        }
        self.remove_task(&task);
        Ok(Reply::Done)
    }

    /// An expiry timer outlives the state it was made for; this tells whether the task still is to go.
    fn is_expired(&self, task: &TaskState) -> bool {
        match task.status {
            TaskStatus::Active | TaskStatus::Paused => false,
            TaskStatus::Deleted => !planted!(DeletedStays),
            TaskStatus::Finished => {
                let goes = task.one_shot || task.on_finish == OnFinish::Delete;
                let kept = bound!(FinishedKept, FINISHED_KEPT);
                // A one-shot is counted from its decision, any other from the end of its last run.
                let ended = if task.one_shot { task.version_at } else { task.last_ended };
                goes && ended.max(task.version_at).max(task.decided_until).saturating_add(kept) <= self.time
            }
        }
    }

    fn remove_task(&mut self, task: &TaskState) {
        // Superseded versions went with the last of their lines.
        tables::delete_spec(self.overlay, task.id, task.version);
        sometimes!(DeletedTaskWent, task.status == TaskStatus::Deleted);
        sometimes!(FinishedTaskWent, task.status == TaskStatus::Finished);
        if task.status != TaskStatus::Deleted {
            self.cached.globals.counts.tasks -= 1;
            tables::delete_name(self.overlay, task);
        }
        tables::delete_task(self.overlay, task.id);
    }

    /// Replies the number of keys forgotten. Keys that are still valid stay.
    pub fn expire_keys(&mut self, before: Timestamp, max_keys: u32) -> Answer {
        let before = before.min(self.time);
        let (lower, upper) = (keys::instant(self.cached.keys_expired_until), keys::instant(before));
        if lower >= upper || planted!(KeysStay) {
            return Ok(Reply::Lines { done: 0 });
        }
        let expired: Vec<Vec<u8>> = crate::engine::Read::scan(
            &self.read(),
            keys::IDEM_EXPIRY,
            Bound::Included(&lower),
            Bound::Excluded(&upper),
            false,
        )
        .take(max_keys as usize)
        .map(|row| row.map(|(key, _)| key))
        .collect::<Result<_, _>>()
        .map_err(crate::StoreError::from)?;
        let done = expired.len() as u32;
        sometimes!(KeysExpired, done > 0);
        if done < max_keys {
            self.cached.keys_expired_until = before;
        }
        for key in expired {
            let (at, named) = keys::read_key_expiry(&key)
                .ok_or_else(|| crate::StoreError::Corrupt(format!("key {key:02x?} in family idem_expiry")))?;
            if done == max_keys {
                // There may be more. All before this one are gone.
                self.cached.keys_expired_until = at;
            }
            self.overlay.delete(keys::IDEM, named.to_vec());
            self.overlay.delete(keys::IDEM_EXPIRY, key);
            self.cached.globals.counts.idempotency_keys -= 1;
        }
        Ok(Reply::Lines { done })
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;
    use crate::Effect;

    #[test]
    fn trimming_stops_at_a_live_run_and_keeps_the_balance() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let runs: Vec<_> = (2..6).map(|n| m.fire(id, next(60 * n)).unwrap()).collect();
        for run in [runs[0], runs[1], runs[3]] {
            m.outcome(run, Outcome::Succeeded);
        }
        let trim = |max_lines| Command::TrimLedger { task: id, before: at(9999), max_lines };
        assert_eq!(m.run(trim(1)), Reply::Lines { done: 1 });
        assert_eq!(m.run(trim(9)), Reply::Lines { done: 1 });
        let task = m.task(id);
        assert_eq!((task.lines, task.tally.fired, task.folded.fired), (2, 4, 2));
        assert_eq!(m.view().run(runs[0]).unwrap(), None);
        assert!(m.view().run(runs[3]).unwrap().is_some());
    }

    #[test]
    fn a_range_goes_when_all_of_it_is_old() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        m.decide(id, Decision::Lapse { last: at(180), count: 3, reason: Reason::Coalesced }, next(240));
        let trim = |before| Command::TrimLedger { task: id, before: at(before), max_lines: 9 };
        assert_eq!(m.run(trim(180)), Reply::Lines { done: 0 });
        assert_eq!(m.run(trim(181)), Reply::Lines { done: 1 });
        let task = m.task(id);
        assert_eq!((task.folded.coalesced, task.open_line), (3, None));
        m.decide(id, Decision::Lapse { last: at(240), count: 1, reason: Reason::Coalesced }, next(300));
        assert_eq!(m.task(id).tally.coalesced, 4);
    }

    #[test]
    fn many_lines_are_noticed() {
        let mut m = Machine::new();
        let retention = Retention { runs: 2, age: Millis(0) };
        let id = m.create("a", TaskSpec { retention, ..recurring() }, next(60));
        let noticed: Vec<_> = (2..8)
            .map(|n| {
                m.fire(id, next(60 * n));
                m.effects.contains(&Effect::TrimDue { task: id })
            })
            .collect();
        assert_eq!(noticed, [false, false, true, false, false, false]);
    }

    #[test]
    fn a_finished_one_shot_goes_after_a_day_unless_its_run_is_live() {
        let mut m = Machine::new();
        let id = m.create("a", one_shot(60), next(60));
        let run = m.fire(id, None).unwrap();
        let expire = Command::ExpireTask { task: id, max_lines: 10 };
        m.run(expire.clone());
        assert!(m.view().task(id).unwrap().is_some(), "not before its time");
        m.now = at(60).saturating_add(FINISHED_KEPT);
        m.run(expire.clone());
        assert!(m.view().task(id).unwrap().is_some(), "its run is live");
        assert!(matches!(m.effects[..], [Effect::ExpiryArmed { .. }]));
        m.outcome(run, Outcome::Succeeded);
        m.run(expire);
        assert_eq!(m.view().task(id).unwrap(), None);
        assert_eq!(m.view().run(run).unwrap(), None);
        assert_eq!(m.view().spec(id, 1).unwrap(), None);
        assert_eq!(m.view().find_task(&named("a")).unwrap(), None);
        assert_eq!(m.view().counts().unwrap(), Default::default());
    }

    #[test]
    fn a_finished_task_goes_a_day_after_its_last_run_though_that_was_triggered_by_hand() {
        let mut m = Machine::new();
        let spec = TaskSpec { on_finish: OnFinish::Delete, remaining: Some(1), ..recurring() };
        let id = m.create("a", spec, next(60));
        let run = m.fire(id, None).unwrap();
        m.outcome(run, Outcome::Succeeded);
        let finished = m.now;
        m.now = finished.saturating_add(Millis::from_secs(3600));
        m.run(Command::TriggerTask(TriggerTask { task: named("a"), idempotency: None }));
        let triggered = m.task(id).live[0];
        m.outcome(triggered, Outcome::Succeeded);
        let ended = m.now;
        assert!(m.effects.contains(&Effect::ExpiryArmed { task: id, wake_at: ended.saturating_add(FINISHED_KEPT) }));
        let expire = Command::ExpireTask { task: id, max_lines: 10 };
        m.now = finished.saturating_add(FINISHED_KEPT);
        m.run(expire.clone());
        assert!(m.view().task(id).unwrap().is_some(), "a day after it finished, not after its last run");
        m.now = ended.saturating_add(FINISHED_KEPT);
        m.run(expire);
        assert_eq!(m.view().task(id).unwrap(), None);
    }

    #[test]
    fn what_is_left_of_a_deleted_task_goes_soon_after_its_last_run() {
        let mut m = Machine::new();
        let id = m.create("a", recurring(), next(60));
        let run = m.fire(id, next(120)).unwrap();
        m.delete("a", false);
        let deleted_at = m.now;
        let kept = |m: &Machine| Effect::ExpiryArmed { task: id, wake_at: m.now.saturating_add(DELETED_KEPT) };
        assert!(m.effects.contains(&kept(&m)), "{:?}", m.effects);
        m.now = deleted_at.saturating_add(DELETED_KEPT);
        let expire = Command::ExpireTask { task: id, max_lines: 10 };
        m.run(expire.clone());
        assert_eq!(m.effects, [kept(&m)], "its run is live");
        m.outcome(run, Outcome::Succeeded);
        m.run(expire);
        assert_eq!((m.view().task(id).unwrap(), m.view().run(run).unwrap()), (None, None));
    }

    #[test]
    fn an_expiry_timer_that_came_too_late_does_nothing() {
        let mut m = Machine::new();
        let id = m.create("a", one_shot(60), next(60));
        let run = m.fire(id, None).unwrap();
        m.outcome(run, Outcome::Succeeded);
        m.put("a", recurring(), next(90_000));
        m.now = at(90_000).saturating_add(FINISHED_KEPT);
        assert_eq!(m.run(Command::ExpireTask { task: id, max_lines: 10 }), Reply::Done);
        assert_eq!(m.task(id).status, TaskStatus::Active);
    }

    #[test]
    fn a_name_taken_again_survives_the_end_of_its_first_bearer() {
        let mut m = Machine::new();
        let old = m.create("a", recurring(), next(60));
        m.delete("a", false);
        let new = m.create("a", recurring(), next(60));
        assert_eq!(m.run(Command::ExpireTask { task: old, max_lines: 10 }), Reply::Done);
        assert_eq!(m.view().task(old).unwrap(), None);
        assert_eq!(m.view().find_task(&named("a")).unwrap().unwrap().id, new);
    }

    #[test]
    fn timers_are_trimmed_up_to_now_and_never_come_back() {
        let mut m = Machine::new();
        m.create("a", one_shot(60), next(60));
        m.create("b", one_shot(90), next(90));
        m.now = at(70);
        m.run(Command::TrimTimers { before: at(1000) });
        assert_eq!(m.view().timers_trimmed_until(), at(70), "the future is not trimmed");
        let left: Vec<_> =
            m.view().timers(None, Timestamp::LAST, 9).unwrap().iter().map(|row| row.key.wake_at).collect();
        assert_eq!(left, [at(90)]);
        m.run(Command::TrimTimers { before: at(10) });
        assert_eq!(m.view().timers_trimmed_until(), at(70));
        m.create("late", one_shot(5), next(5));
        assert_eq!(m.view().timers(None, Timestamp::LAST, 1).unwrap()[0].key.wake_at, at(70));
    }

    #[test]
    fn keys_are_forgotten_when_they_have_expired() {
        let mut m = Machine::new();
        m.create("a", by_hand(), None);
        let keyed = |key: &str| {
            let idempotency = Some(Idempotency { key: key.into(), fingerprint: 1 });
            Command::TriggerTask(TriggerTask { task: named("a"), idempotency })
        };
        for key in ["x", "y", "z"] {
            m.run(keyed(key));
        }
        let expire = |max_keys| Command::ExpireKeys { before: Timestamp::LAST, max_keys };
        assert_eq!(m.run(expire(9)), Reply::Lines { done: 0 });
        m.now = m.now.saturating_add(limits::IDEMPOTENCY_TTL).saturating_add(Millis(1));
        assert_eq!(m.run(expire(0)), Reply::Lines { done: 0 }, "none asked for, none found");
        assert_eq!(m.run(expire(2)), Reply::Lines { done: 2 });
        assert_eq!(m.run(expire(2)), Reply::Lines { done: 1 });
        assert_eq!(m.view().counts().unwrap().idempotency_keys, 0);
        assert_eq!(m.view().idempotency("default", "z").unwrap(), None);
        m.run(keyed("x"));
        m.now = m.now.saturating_add(limits::IDEMPOTENCY_TTL).saturating_add(Millis(1));
        assert_eq!(m.run(expire(2)), Reply::Lines { done: 1 });
    }
}
