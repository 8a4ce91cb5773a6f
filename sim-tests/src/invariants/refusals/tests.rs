use campanile_model::sim::Bound;
use campanile_model::{Overlap, RunState, TaskStatus};

use super::super::testing::*;
use super::NAME;
use crate::history::{Action, Outcome, Paging};
use crate::plan::Fault;

fn name() -> String {
    "a".into()
}

fn refusal(status: u16, code: &str) -> Outcome {
    Outcome::Refused { status, code: code.into() }
}

/// A task of version 1 that became version 2 at second 2; something is asked at second 1 and refused at second 3.
fn asked(action: Action, status: u16, code: &str) -> Script {
    let script = Script::new().at(100).entry(3).task(3, 1, 0).at(1000).invoke(1, action);
    script.at(2000).entry(4).task(4, 2, 0).at(3000).returned(1, refusal(status, code))
}

/// As [`asked`], and the task is as `status` says from the beginning.
fn asked_while(status: TaskStatus, action: Action, code: &str) -> Script {
    let script = Script::new().at(100).entry(3).task(3, 1, 0).entry(4).task_is(4, 1, status);
    script
        .at(1000)
        .invoke(1, action)
        .at(2000)
        .returned(1, refusal(if code == "task_not_found" { 404 } else { 409 }, code))
}

fn put_if(if_version: Option<u32>, create_only: bool) -> Action {
    Action::Put { name: name(), spec: Box::new(spec()), if_version, create_only, idempotency_key: None }
}

fn pause() -> Action {
    Action::Pause { name: name(), if_version: None }
}

fn get() -> Action {
    Action::Get { name: name() }
}

fn trigger() -> Action {
    Action::Trigger { name: name(), idempotency_key: None }
}

#[test]
fn versions_and_names_are_those_of_the_time() {
    for (wanted, explained) in [(1, true), (2, true), (3, true)] {
        let script = asked(put_if(Some(wanted), false), 412, "version_mismatch");
        if explained { accepts(NAME, script) } else { refuses(NAME, script) }
    }
    // Version 1 was all there was.
    let before = |wanted| {
        let script = Script::new().at(100).entry(3).task(3, 1, 0).at(1000).invoke(1, put_if(Some(wanted), false));
        script.at(1500).returned(1, refusal(412, "version_mismatch")).at(2000).entry(4).task(4, 2, 0)
    };
    refuses(NAME, before(1));
    accepts(NAME, before(2));
    refuses(NAME, asked(put_if(None, false), 412, "version_mismatch"));
    accepts(NAME, asked(put_if(None, true), 409, "task_exists"));
    refuses(NAME, asked(put_if(None, false), 409, "task_exists"));
    refuses(NAME, asked(get(), 404, "task_not_found"));
    refuses(NAME, asked(put_if(None, true), 404, "task_exists"));
    refuses(NAME, asked(get(), 409, "made_up"));
    let free = |action| Script::new().entry(2).invoke(1, action).at(5).returned(1, refusal(404, "task_not_found"));
    accepts(NAME, free(get()));
    accepts(NAME, free(put_if(Some(1), false)));
    refuses(NAME, free(put_if(None, false)));
}

#[test]
fn a_deleted_task_is_not_found_and_a_finished_one_stays() {
    accepts(NAME, asked_while(TaskStatus::Deleted, get(), "task_not_found"));
    accepts(NAME, asked_while(TaskStatus::Finished, pause(), "task_finished"));
    refuses(NAME, asked_while(TaskStatus::Finished, get(), "task_finished"));
    refuses(NAME, asked_while(TaskStatus::Paused, pause(), "task_finished"));
    // One that nobody knows may have been of those that go, after a day.
    refuses(NAME, asked_while(TaskStatus::Finished, get(), "task_not_found"));
    let soon = Script::new().small(Bound::FinishedKept, 500).at(100).entry(3).task_is(3, 1, TaskStatus::Finished);
    let later =
        |script: Script| script.at(1000).invoke(1, get()).entry(4).at(2000).returned(1, refusal(404, "task_not_found"));
    accepts(NAME, later(soon));
}

#[test]
fn a_conflict_needs_as_many_changes_as_there_are_tries() {
    let with = |changes: u64| {
        let mut script = Script::new().at(100).entry(3).task(3, 1, 0).at(1000).invoke(1, put_if(None, false));
        for nth in 0..changes {
            script = script.entry(4 + nth).task(4 + nth, 1, nth as i64);
        }
        script.at(2000).returned(1, refusal(409, "conflict"))
    };
    refuses(NAME, with(0));
    refuses(NAME, with(4));
    accepts(NAME, with(5));
}

#[test]
fn a_definition_is_refused_for_its_own_fault() {
    let bad = |code: &str, change: fn(&mut campanile_model::TaskSpec)| {
        let Action::Put { name, spec, .. } = put_with(change) else { unreachable!() };
        asked(Action::PutBad { name, spec }, 400, code)
    };
    accepts(NAME, bad("invalid_field", |spec| spec.remaining = Some(0)));
    refuses(NAME, bad("limit_exceeded", |spec| spec.remaining = Some(0)));
    accepts(NAME, bad("limit_exceeded", |spec| spec.priority = 101));
    refuses(NAME, bad("never_occurs", |spec| spec.priority = 101));
    refuses(NAME, asked(put(), 400, "limit_exceeded"));
    let Action::Put { name, spec, .. } = put_with(|spec| spec.priority = 101) else { unreachable!() };
    let taken = asked(get(), 503, "no_leader").at(4000).invoke(2, Action::PutBad { name, spec });
    refuses(NAME, taken.wrote(2, campanile_model::api::Change::Updated, 3));
}

#[test]
fn too_much_is_refused_and_only_that() {
    let list = |limit| Action::ListRuns {
        name: name(),
        state: None,
        page: Paging { limit: Some(limit), pages: 1, rest: campanile_model::Millis(0), follows: None },
    };
    let preview = |count| Action::Preview { name: name(), count, after: None };
    for (few, beyond) in [(list(1), list(0)), (list(1000), list(1001)), (preview(1), preview(0))] {
        accepts(NAME, asked(beyond.clone(), 400, "limit_exceeded"));
        refuses(NAME, asked(beyond.clone(), 400, "invalid_field"));
        refuses(NAME, asked(few, 400, "limit_exceeded"));
        let answered = Script::new().entry(3).task(3, 1, 0).invoke(1, beyond);
        refuses(NAME, answered.returned(1, Outcome::Preview { items: Vec::new() }));
    }
}

#[test]
fn what_never_occurs_has_no_occurrence() {
    let once = |at_s: i64| put_with(|spec| spec.schedules = vec![campanile_model::Schedule::At(second(at_s))]);
    let until = |at_s: i64, end_s: i64| {
        let Action::Put { name, mut spec, .. } = once(at_s) else { unreachable!() };
        spec.end_at = Some(second(end_s));
        Action::Put { name, spec, if_version: None, create_only: false, idempotency_key: None }
    };
    accepts(NAME, asked(until(60, 50), 400, "never_occurs"));
    refuses(NAME, asked(until(50, 60), 400, "never_occurs"));
    refuses(NAME, asked(once(500_000), 400, "never_occurs"));
    // By the clock of the one moment it begins too late, of a later one not.
    let delayed = |delay_ms| {
        put_with(|spec| {
            spec.schedules = vec![campanile_model::Schedule::Delay(campanile_model::Millis(delay_ms))];
            spec.start_at = Some(second(10));
        })
    };
    accepts(NAME, asked(delayed(8000), 400, "never_occurs"));
    refuses(NAME, asked(delayed(9000), 400, "never_occurs"));
    refuses(NAME, asked(put(), 400, "never_occurs"));
}

#[test]
fn nobody_is_turned_away_without_trouble() {
    let troubled = |code| {
        let script = Script::new().begin(0, Fault::LeaderInMinority).entry(2).at(1000).invoke(1, get());
        script.at(2000).returned(1, refusal(503, code)).end(0)
    };
    for code in ["no_leader", "clock_skew", "shutting_down", "disk_full", "overloaded", "outcome_unknown"] {
        refuses(NAME, asked(get(), 503, code));
        accepts(NAME, troubled(code));
    }
    refuses(NAME, asked(get(), 0, "unreachable"));
    refuses(NAME, asked(get(), 500, "internal"));
    accepts(NAME, asked(get(), 503, "overloaded").small(Bound::ApiLane, 1024));
}

#[test]
fn a_buffer_is_full_when_as_many_wait() {
    let waiting = |runs: u64, overlap| {
        let mut script = Script::new().small(Bound::BufferedRuns, 2).at(100).entry(3).task(3, 1, 0);
        script = script.final_task(1, |task| task.spec.overlap = overlap);
        for nth in 0..runs {
            script = script.entry(4 + nth).row(&pending(&fired(4 + nth, 1)));
        }
        script.at(1000).invoke(1, trigger()).at(2000).returned(1, refusal(503, "overloaded"))
    };
    accepts(NAME, waiting(2, Overlap::BufferAll));
    refuses(NAME, waiting(1, Overlap::BufferAll));
    refuses(NAME, waiting(2, Overlap::Allow));
}

#[test]
fn keys_are_full_when_so_many_were_used() {
    let keyed = |key: &str| Action::Trigger { name: name(), idempotency_key: Some(key.into()) };
    let used = |keys: u64| {
        let mut script = Script::new().small(Bound::IdempotencyKeys, 3).at(100).entry(3).task(3, 1, 0);
        for nth in 0..keys {
            script = script.invoke(10 + nth, keyed(&format!("k{nth}"))).triggered(10 + nth, &fired(3, 1));
        }
        script.at(1000).invoke(1, keyed("another")).at(2000).returned(1, refusal(429, "quota_exceeded"))
    };
    accepts(NAME, used(3));
    refuses(NAME, used(2));
    refuses(NAME, asked(trigger(), 429, "quota_exceeded"));
    refuses(NAME, asked(trigger(), 422, "idempotency_mismatch"));
    accepts(NAME, asked(keyed("k"), 422, "idempotency_mismatch"));
}

#[test]
fn a_run_has_ended_or_gone() {
    let run = fired(4, 1);
    let about = |action: fn(campanile_model::RunId) -> Action, ends: bool, status, code| {
        let mut script = Script::new().at(100).entry(3).task(3, 1, 0).entry(4).row(&fired(4, 1));
        if ends {
            script = script.entry(5).row(&ended(&fired(4, 1), 5, RunState::Succeeded));
        }
        script.at(1000).invoke(1, action(fired(4, 1).run)).at(2000).returned(1, refusal(status, code))
    };
    let cancel = |run| Action::CancelRun { run };
    let get = |run| Action::GetRun { run };
    accepts(NAME, about(cancel, true, 409, "run_finished"));
    refuses(NAME, about(cancel, false, 409, "run_finished"));
    refuses(NAME, about(get, true, 409, "run_finished"));
    accepts(NAME, about(get, true, 404, "run_not_found"));
    refuses(NAME, about(get, false, 404, "run_not_found"));
    refuses(NAME, about(get, true, 404, "run_not_found").final_run(&ended(&run, 5, RunState::Succeeded)));
}

#[test]
fn a_list_goes_on_as_long_as_its_task_is_there() {
    let page = |follows| Paging { limit: Some(1), pages: 2, rest: campanile_model::Millis(0), follows };
    let list = |follows| Action::ListRuns { name: name(), state: None, page: page(follows) };
    let with = |remade: bool, follows| {
        let mut script = Script::new().at(100).entry(3).task(3, 1, 0).at(1000).invoke(1, list(None));
        script = script.returned(1, Outcome::Runs { items: Vec::new(), next_page_token: Some("token".into()) });
        if remade {
            script = script.at(2000).entry(4).task_is(4, 1, TaskStatus::Deleted);
            script = script.entry(5).other_task(1, "a", 5, TaskStatus::Active);
        }
        script.at(3000).invoke(2, list(follows)).at(4000).returned(2, refusal(400, "invalid_page_token"))
    };
    accepts(NAME, with(true, Some(1)));
    refuses(NAME, with(false, Some(1)));
    refuses(NAME, with(true, None));
}

#[test]
fn catching_up_has_something_to_catch_up_with() {
    let overdue = |script: Script, due_s: i64| {
        let script = script.at(100).entry(3).task_due(3, 1, due_s).at(2000).invoke(1, pause());
        script.at(3000).returned(1, refusal(503, "catching_up"))
    };
    let small = || Script::new().small(Bound::CatchUpPerEntry, 2);
    accepts(NAME, overdue(small(), 1));
    refuses(NAME, overdue(small(), 10));
    refuses(NAME, overdue(Script::new(), 1));
}

#[test]
fn without_a_log_definitions_are_judged_alone() {
    let unknown = Script::new().real().invoke(1, get()).at(5).returned(1, refusal(404, "task_not_found"));
    permits(NAME, unknown);
    let real = |code| Script::new().real().invoke(1, put()).at(5).returned(1, refusal(400, code));
    refuses(NAME, real("limit_exceeded"));
}
