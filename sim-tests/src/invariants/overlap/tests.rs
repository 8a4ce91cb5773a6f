use campanile_model::api::Change;
use campanile_model::{NodeId, Overlap, Reason, RunState, TaskStatus, limits};

use crate::history::{Action, RunRow};
use crate::invariants::testing::*;

const NAME: &str = "overlap";

/// The task is put by a client; its policy is known from there.
fn under(overlap: Overlap) -> Script {
    let put = put_with(|spec| spec.overlap = overlap);
    Script::new().invoke(1, put).wrote(1, Change::Created, 1).task(3, 1, 0)
}

/// Rows of one command, ended by the task's.
fn step(script: Script, rows: &[&RunRow]) -> Script {
    let index = rows.iter().map(|row| row.index).max().unwrap();
    rows.iter().fold(script, |script, row| script.row(row)).task(index, 1, 0)
}

fn waits(index: u64) -> RunRow {
    pending(&fired(index, 10 + index as i64))
}

fn cancelled(row: &RunRow, index: u64) -> RunRow {
    ended(row, index, RunState::Cancelled)
}

fn done(row: &RunRow, index: u64) -> RunRow {
    ended(row, index, RunState::Succeeded)
}

/// One runs, two wait.
fn three(overlap: Overlap) -> (Script, [RunRow; 3]) {
    let runs = [fired(5, 15), waits(6), waits(7)];
    (runs.iter().fold(under(overlap), |script, run| step(script, &[run])), runs)
}

#[test]
fn allow_runs_beside() {
    let (a, b) = (fired(5, 15), fired(6, 16));
    accepts(NAME, step(step(under(Overlap::Allow), &[&a]), &[&b]));
    refuses(NAME, step(step(under(Overlap::Allow), &[&a]), &[&waits(6)]));
    refuses(NAME, step(step(under(Overlap::Allow), &[&a]), &[&cancelled(&a, 6), &b]));
}

#[test]
fn skip_drops_what_overlaps_and_nothing_else() {
    let a = fired(5, 15);
    let live = || step(under(Overlap::Skip), &[&a]);
    let dropped = |script: Script, index| script.lapse(index, 16, 16, Reason::Overlap).task(index, 1, 16);
    accepts(NAME, dropped(live(), 6));
    refuses(NAME, step(live(), &[&fired(6, 16)]));
    accepts(NAME, step(live(), &[&triggered(6)]));
    let after = || step(live(), &[&done(&a, 6)]);
    accepts(NAME, step(after(), &[&fired(7, 17)]));
    refuses(NAME, dropped(after(), 7));
    refuses(NAME, dropped(step(under(Overlap::Allow), &[&a]), 6));
    // What the catch-up policy lets go is not looked at.
    accepts(NAME, after().lapse(7, 17, 17, Reason::Coalesced).task(7, 1, 17));
}

#[test]
fn buffer_one_keeps_the_latest() {
    let (a, b, c) = (fired(5, 15), waits(6), waits(7));
    let two = || step(step(under(Overlap::BufferOne), &[&a]), &[&b]);
    let replaced = || step(two(), &[&cancelled(&b, 7), &c]);
    accepts(NAME, replaced());
    refuses(NAME, step(two(), &[&c]));
    refuses(NAME, step(two(), &[&cancelled(&b, 7), &cancelled(&a, 7), &c]));
    refuses(NAME, step(step(under(Overlap::BufferOne), &[&a]), &[&fired(6, 16)]));
    accepts(NAME, step(replaced(), &[&done(&a, 8), &attempt(&c, 1, 8)]));
    refuses(NAME, step(replaced(), &[&done(&a, 8)]));
}

#[test]
fn buffer_all_starts_the_oldest_in_the_entry_that_ends_the_one_before() {
    let (_, [a, b, c]) = three(Overlap::BufferAll);
    let script = || three(Overlap::BufferAll).0;
    accepts(NAME, step(script(), &[&done(&a, 8), &attempt(&b, 1, 8)]));
    refuses(NAME, step(script(), &[&done(&a, 8), &attempt(&c, 1, 8)]));
    refuses(NAME, step(script(), &[&done(&a, 8)]));
    refuses(NAME, step(step(script(), &[&done(&a, 8)]), &[&attempt(&b, 1, 9)]));
    refuses(NAME, step(script(), &[&attempt(&b, 1, 8)]));
}

#[test]
fn the_buffer_has_a_bound() {
    let most = limits::BUFFERED_RUNS as u64;
    let full = || (6..6 + most).fold(step(under(Overlap::BufferAll), &[&fired(5, 15)]), |it, n| step(it, &[&waits(n)]));
    let next = 6 + most;
    accepts(NAME, full().lapse(next, 16, 16, Reason::BufferFull).task(next, 1, 16));
    refuses(NAME, step(full(), &[&waits(next)]));
    refuses(NAME, three(Overlap::BufferAll).0.lapse(8, 16, 16, Reason::BufferFull).task(8, 1, 16));
}

#[test]
fn cancel_other_leaves_none() {
    let (a, b, c) = (fired(5, 15), triggered(6), fired(7, 17));
    let one = || step(under(Overlap::CancelOther), &[&a]);
    accepts(NAME, step(step(one(), &[&cancelled(&a, 6), &b]), &[&cancelled(&b, 7), &c]));
    refuses(NAME, step(one(), &[&b]));
    refuses(NAME, step(one(), &[&waits(6)]));
}

#[test]
fn pause_and_update_cancel_what_waits_and_only_that() {
    let changes: [fn(Script) -> Script; 3] = [
        |script| script.task_is(8, 1, TaskStatus::Paused),
        |script| script.task(8, 2, 0),
        |script| script.task_is(8, 1, TaskStatus::Deleted),
    ];
    for change in changes {
        let (_, [a, b, c]) = three(Overlap::BufferAll);
        let asked = || three(Overlap::BufferAll).0.invoke(2, delete(false)).wrote(2, Change::Deleted, 1);
        let rows = |rows: &[&RunRow]| change(rows.iter().fold(asked(), |script, row| script.row(&cancelled(row, 8))));
        accepts(NAME, rows(&[&c, &b]));
        refuses(NAME, rows(&[&c]));
        refuses(NAME, rows(&[]));
        refuses(NAME, rows(&[&c, &b, &a]));
    }
    // A pause after too many failures comes with the end of a run, and there is nothing to start then.
    let (script, [a, b, c]) = three(Overlap::BufferAll);
    let rows = [ended(&a, 8, RunState::Failed), cancelled(&c, 8), cancelled(&b, 8)];
    accepts(NAME, rows.iter().fold(script, |script, row| script.row(row)).task_is(8, 1, TaskStatus::Paused));
}

fn delete(cancel_runs: bool) -> Action {
    Action::Delete { name: "a".into(), cancel_runs, if_version: None }
}

#[test]
fn a_delete_that_cancels_runs_cancels_all() {
    let (_, [a, b, c]) = three(Overlap::BufferAll);
    let deleted = |script: Script, rows: &[&RunRow]| {
        let rows = rows.iter().fold(script, |script, row| script.row(&cancelled(row, 8)));
        rows.task_is(8, 1, TaskStatus::Deleted)
    };
    let asked = || three(Overlap::BufferAll).0.invoke(2, delete(true));
    let acknowledged = || asked().invoke(3, delete(false)).wrote(2, Change::Deleted, 1);
    let ways: [&dyn Fn() -> Script; 2] = [&asked, &acknowledged];
    for script in ways {
        accepts(NAME, deleted(script(), &[&a, &b, &c]));
        refuses(NAME, deleted(script(), &[&a]));
        refuses(NAME, deleted(script(), &[&b, &c]));
    }
    // Where it may have been either, what was done tells.
    let either = || asked().invoke(3, delete(false));
    accepts(NAME, deleted(either(), &[&b, &c]));
    accepts(NAME, deleted(either(), &[&b, &c, &a]));
    refuses(NAME, deleted(either(), &[&b]));
    // It counts whatever the policy is.
    let lone = || step(under(Overlap::Allow), &[&a]).invoke(2, delete(true));
    accepts(NAME, deleted(lone(), &[&a]));
    refuses(NAME, deleted(lone(), &[]));
}

#[test]
fn whoever_is_cancelled_was_asked_for() {
    let (_, [a, b, _]) = three(Overlap::BufferAll);
    let asked = |row: &RunRow| three(Overlap::BufferAll).0.invoke(2, Action::CancelRun { run: row.run });
    accepts(NAME, step(asked(&a), &[&cancelled(&a, 8), &attempt(&b, 1, 8)]));
    accepts(NAME, step(asked(&b), &[&cancelled(&b, 8)]));
    refuses(NAME, step(asked(&a), &[&cancelled(&b, 8)]));
    refuses(NAME, step(asked(&b).refused(2), &[&cancelled(&b, 8)]));
    // A task that does not follow its runs has no row for it.
    let lone = || step(under(Overlap::Allow), &[&a]);
    accepts(NAME, lone().invoke(2, Action::CancelRun { run: a.run }).row(&cancelled(&a, 6)));
    refuses(NAME, lone().row(&cancelled(&a, 6)));
}

#[test]
fn a_request_beside_a_later_run() {
    let (a, b) = (fired(5, 15), fired(7, 17));
    let ran = || step(step(step(under(Overlap::CancelOther), &[&a]), &[&done(&a, 6)]), &[&b]);
    let beside = |ms, other: u64| {
        let by = changed(&a, |row| row.owner = NodeId(other));
        ran().at(10).apply(1, 6, 6).at(20).deliver(1, &b).at(ms).deliver(2, &by)
    };
    accepts(NAME, beside(73, 1));
    refuses(NAME, beside(74, 1));
    accepts(NAME, beside(74, 2));
    accepts(NAME, ran().at(10).apply(1, 6, 6).at(66).deliver(2, &a).at(67).deliver(1, &b));
}
