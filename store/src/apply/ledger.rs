//! The ledger: every occurrence decided gets a line, or a share in one, and is counted.

use campanile_model::{LedgerRow, OpenLine, Origin, Reason, Run, TaskState, Timestamp, bound, limits, planted, wrote};

use super::context::{Answer, Apply};
use crate::effect::Effect;
use crate::keys::LineKey;
use crate::tables;

/// Ledger lines above the retained number between two reminders to trim them.
const TRIM_EVERY: u32 = 64;

impl Apply<'_> {
    /// The occurrence fired as this run. A one-shot keeps the line in its own row.
    pub fn enter_fired(&mut self, task: &mut TaskState, run: &Run) {
        task.tally.fired += u64::from(!planted!(FireNotCounted));
        task.version_lines += 1;
        if run.origin != Origin::Schedule {
            task.tally.triggered += 1;
        } else if task.one_shot {
            assert!(task.one_shot_run.is_none(), "one-shot {} fires a second time", task.id);
            task.one_shot_run = Some((run.scheduled_at, run.id));
            return;
        }
        let line = LineKey { task: task.id, scheduled_at: run.scheduled_at, origin: run.origin };
        self.add_line(task, line, &LedgerRow::Fired { run: run.id });
    }

    /// The `count` occurrences from `first` to `last` do not fire. They join the line before them if that is alike.
    /// A manual trigger between the two has a line of its own and does not part them.
    pub fn enter_lapsed(
        &mut self,
        task: &mut TaskState,
        (first, last): (Timestamp, Timestamp),
        count: u64,
        reason: Reason,
    ) -> Answer<()> {
        if planted!(LedgerLineMissing) {
            return Ok(());
        }
        task.tally.add(reason, count);
        let version = task.version;
        wrote!(Lapse, campanile_model::sim::Lapse { task: task.id, version, first, last, count, reason });
        if let Some(open) = task.open_line
            && (open.reason, open.version) == (reason, version)
        {
            let line = LineKey { task: task.id, scheduled_at: open.first, origin: Origin::Schedule };
            match tables::ledger_row(&self.read(), line)? {
                Some(LedgerRow::Range { last: before, count: counted, .. }) => {
                    assert!(before < first, "line {line:?} reaches {before} and is to be extended from {first}");
                    let row = LedgerRow::Range { last, count: counted + count, reason, version };
                    tables::put_ledger_row(self.overlay, line, &row);
                }
                row => panic!("open line {line:?} is {row:?}"),
            }
            return Ok(());
        }
        let line = LineKey { task: task.id, scheduled_at: first, origin: Origin::Schedule };
        self.add_line(task, line, &LedgerRow::Range { last, count, reason, version });
        task.version_lines += 1;
        task.open_line = Some(OpenLine { first, reason, version });
        Ok(())
    }

    /// Before a one-shot gets a new version, its line moves to the ledger, to make room for the next one's.
    pub fn keep_one_shot_line(&mut self, task: &mut TaskState) {
        if let Some((scheduled_at, run)) = task.one_shot_run.take() {
            let line = LineKey { task: task.id, scheduled_at, origin: Origin::Schedule };
            self.add_line(task, line, &LedgerRow::Fired { run });
        }
    }

    fn add_line(&mut self, task: &mut TaskState, line: LineKey, row: &LedgerRow) {
        tables::put_ledger_row(self.overlay, line, row);
        task.lines += 1;
        let kept = task.retention.runs.min(bound!(LedgerLines, limits::LEDGER_LINES));
        if task.lines > kept && (task.lines - kept - 1).is_multiple_of(bound!(TrimEvery, TRIM_EVERY)) {
            self.emit(Effect::TrimDue { task: task.id });
        }
    }
}
