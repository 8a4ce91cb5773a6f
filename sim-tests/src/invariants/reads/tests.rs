use campanile_model::api::{Change, LedgerLineView, LedgerView, NextView, OriginView, TaskWritten};
use campanile_model::sim::Bound;
use campanile_model::{
    AttemptResult, Kind, Millis, OccurrenceId, Origin, Reason, RunId, RunState, Tally, TaskSpec, TaskStatus, Timestamp,
};

use super::super::testing::*;
use crate::history::{Action, LedgerFilter, Outcome, Paging, RunRow, TaskFilter};

const NAME: &str = "reads";

fn name() -> String {
    "a".into()
}

fn get() -> Action {
    Action::Get { name: name() }
}

fn paging(limit: u32, follows: Option<u64>) -> Paging {
    Paging { limit: Some(limit), pages: 9, rest: Millis(0), follows }
}

/// The task is there and due at second 10; it is asked for at second 1.
fn asked() -> Script {
    Script::new().at(100).entry(3).task_due(3, 1, 10).at(1000).invoke(1, get())
}

#[test]
fn a_task_reads_as_it_was_at_one_time() {
    let paused = || asked().at(2000).entry(4).task_is(4, 1, TaskStatus::Paused).at(3000);
    accepts(NAME, paused().read(1, |_| {}));
    let as_before = asked().seen("a");
    accepts(NAME, paused().read(1, |task| *task = as_before.clone()));
    // Half of it before, half of it after.
    refuses(NAME, paused().read(1, |task| task.next = as_before.next));
    // It was paused before anybody asked.
    let late = || Script::new().at(100).entry(3).task_due(3, 1, 10).entry(4).task_is(4, 1, TaskStatus::Paused);
    refuses(NAME, late().at(1000).invoke(1, get()).read(1, |task| *task = as_before.clone()));
    // And is paused only later.
    let early = asked().at(2000).read(1, |task| (task.state, task.next) = (TaskStatus::Paused, None));
    refuses(NAME, early.at(3000).entry(4).task_is(4, 1, TaskStatus::Paused));
}

#[test]
fn a_write_is_answered_with_what_it_wrote() {
    let with = |change: fn(&mut TaskWritten)| {
        let pause = Action::Pause { name: name(), if_version: None };
        let script = Script::new().at(100).entry(3).task_due(3, 1, 10).at(1000).invoke(1, pause);
        let script =
            script.at(2000).entry(4).task_is(4, 1, TaskStatus::Paused).entry(5).task_is(5, 1, TaskStatus::Active);
        let mut task = TaskWritten {
            id: TASK,
            namespace: "default".into(),
            name: name(),
            version: 1,
            state: TaskStatus::Paused,
            change: Change::Paused,
            next: None,
            warnings: Vec::new(),
        };
        change(&mut task);
        script.at(3000).returned(1, Outcome::Written { task })
    };
    accepts(NAME, with(|_| {}));
    refuses(NAME, with(|task| task.version = 2));
    refuses(NAME, with(|task| task.state = TaskStatus::Finished));
    refuses(NAME, with(|task| task.name = "b".into()));
    refuses(NAME, with(|task| task.next = Some(NextView { scheduled_at: second(10), due_at: second(10) })));
    refuses(NAME, with(|task| task.id = campanile_model::TaskId(9)));
}

#[test]
fn every_field_of_a_task_is_looked_at() {
    let changes: [fn(&mut campanile_model::api::TaskView); 10] = [
        |task| task.id = campanile_model::TaskId(9),
        |task| task.namespace = "other".into(),
        |task| task.name = "b".into(),
        |task| task.version = 2,
        |task| task.created_at = second(1),
        |task| task.updated_at = second(1),
        |task| task.decided_until = None,
        |task| task.remaining_fires = Some(1),
        |task| task.tally.fired = 1,
        |task| task.next = None,
    ];
    accepts(NAME, asked().read(1, |_| {}));
    for (nth, change) in changes.into_iter().enumerate() {
        let found = std::panic::catch_unwind(|| refuses(NAME, asked().read(1, change)));
        assert!(found.is_ok(), "change {nth}");
    }
    let known = |hidden: &str| {
        let script = Script::new().at(50).invoke(9, put_with(|spec| secret(spec, "whsec_of_the_task"))).at(100);
        let script = script.entry(3).task_due(3, 1, 10).wrote(9, Change::Created, 1).at(1000).invoke(1, get());
        script.read(1, |task| secret(&mut task.spec, hidden))
    };
    accepts(NAME, known("whsec_***"));
    refuses(NAME, known("whsec_of_the_task"));
}

fn secret(spec: &mut TaskSpec, text: &str) {
    let campanile_model::Target::Http(target) = &mut spec.target;
    target.signing_secret = Some(text.into());
}

/// Tasks a to e, of which d is paused.
fn five() -> Script {
    let mut script = Script::new().at(100).entry(3).task_due(3, 1, 10);
    for (number, name) in (1..).zip(["b", "c", "d", "e"]) {
        let status = if name == "d" { TaskStatus::Paused } else { TaskStatus::Active };
        script = script.entry(3 + number).other_task(number, name, 3 + number, status);
    }
    script.at(1000)
}

/// A page is asked for and answered, a second later.
fn page(script: Script, op: u64, filter: TaskFilter, paging: Paging, names: &[&str], more: bool) -> Script {
    let items = names.iter().map(|name| script.seen(name)).collect();
    let next_page_token = more.then(|| "token".to_owned());
    let t = op * 2000;
    let script = script.at(t).invoke(op, Action::ListTasks { filter, page: paging });
    script.at(t + 1000).returned(op, Outcome::Tasks { items, next_page_token })
}

#[test]
fn a_list_has_all_of_it_once_and_in_order() {
    let all = |names: &[&str]| page(five(), 1, TaskFilter::default(), paging(9, None), names, false);
    accepts(NAME, all(&["a", "b", "c", "d", "e"]));
    refuses(NAME, all(&["a", "b", "c", "d"]));
    refuses(NAME, all(&["a", "b", "d", "e"]));
    refuses(NAME, all(&["b", "a", "c", "d", "e"]));
    refuses(NAME, all(&["a", "a", "b", "c", "d", "e"]));
    let first = |limit, names: &[&str]| page(five(), 1, TaskFilter::default(), paging(limit, None), names, true);
    accepts(NAME, first(2, &["a", "b"]));
    refuses(NAME, first(2, &["a", "c"]));
    refuses(NAME, first(2, &["a", "b", "c"]));
    refuses(NAME, first(3, &["a", "b"]));
}

#[test]
fn a_list_goes_on_where_it_ended() {
    let two = |names: &[&str], more| {
        let script = page(five(), 1, TaskFilter::default(), paging(2, None), &["a", "b"], true);
        page(script, 2, TaskFilter::default(), paging(2, Some(1)), names, more)
    };
    accepts(NAME, two(&["c", "d"], true));
    refuses(NAME, two(&["b", "c"], true));
    refuses(NAME, two(&["d", "e"], false));
    refuses(NAME, two(&["c", "d"], false));
}

#[test]
fn a_list_has_what_was_asked_for() {
    let paused = || TaskFilter { state: Some(TaskStatus::Paused), ..TaskFilter::default() };
    let of = |filter, names: &[&str]| page(five(), 1, filter, paging(9, None), names, false);
    accepts(NAME, of(paused(), &["d"]));
    refuses(NAME, of(paused(), &["a", "d"]));
    refuses(NAME, of(paused(), &[]));
    let due = |after, before| TaskFilter {
        due_after: Some(second(after)),
        due_before: Some(second(before)),
        ..TaskFilter::default()
    };
    accepts(NAME, of(due(10, 11), &["a"]));
    refuses(NAME, of(due(11, 20), &["a"]));
    refuses(NAME, of(due(5, 10), &["a"]));
    accepts(NAME, of(due(5, 10), &[]));
    let prefix = |prefix: &str| TaskFilter { prefix: Some(prefix.into()), ..TaskFilter::default() };
    accepts(NAME, of(prefix("e"), &["e"]));
    refuses(NAME, of(prefix("e"), &[]));
    refuses(NAME, of(prefix("x"), &["e"]));
    // Nobody knows what labels they bear.
    let label = TaskFilter { label: Some(("team".into(), "night".into())), ..TaskFilter::default() };
    accepts(NAME, of(label.clone(), &[]));
    refuses(NAME, of(label, &["a"]));
}

#[test]
fn labels_are_those_of_the_definition() {
    let filter = || TaskFilter { label: Some(("team".into(), "night".into())), ..TaskFilter::default() };
    let with = |bears: bool, shown: &[&str]| {
        let put = put_with(|spec| {
            if bears {
                spec.labels.insert("team".into(), "night".into());
            }
        });
        let script = Script::new().at(50).invoke(9, put.clone()).at(100).entry(3).task_due(3, 1, 10);
        let script = script.wrote(9, Change::Created, 1);
        let Action::Put { spec, .. } = put else { unreachable!() };
        let items =
            shown.iter().map(|name| campanile_model::api::TaskView { spec: (*spec).clone(), ..script.seen(name) });
        let items = items.collect();
        let script = script.at(1000).invoke(1, Action::ListTasks { filter: filter(), page: paging(9, None) });
        script.at(2000).returned(1, Outcome::Tasks { items, next_page_token: None })
    };
    accepts(NAME, with(true, &["a"]));
    refuses(NAME, with(true, &[]));
    refuses(NAME, with(false, &["a"]));
    accepts(NAME, with(false, &[]));
}

#[test]
fn all_of_a_page_is_as_at_one_time() {
    // b is paused, and then c: not the other way round.
    let with = |b: bool, c: bool, stale: bool, late: bool| {
        let script = five();
        let (b_before, c_before) = (script.seen("b"), script.seen("c"));
        let filter = TaskFilter { prefix: None, stale, ..TaskFilter::default() };
        let list = Action::ListTasks { filter, page: paging(9, None) };
        let script = if late { script } else { script.invoke(1, list.clone()) };
        let script = script.at(2000).entry(8).other_task(1, "b", 8, TaskStatus::Paused);
        let script = script.at(3000).entry(9).other_task(2, "c", 9, TaskStatus::Paused).at(4000);
        let script = if late { script.invoke(1, list) } else { script };
        let items = ["a", "b", "c", "d", "e"].map(|name| match name {
            "b" if !b => b_before.clone(),
            "c" if !c => c_before.clone(),
            _ => script.seen(name),
        });
        script.at(5000).returned(1, Outcome::Tasks { items: items.to_vec(), next_page_token: None })
    };
    accepts(NAME, with(false, false, false, false));
    accepts(NAME, with(true, false, false, false));
    accepts(NAME, with(true, true, false, false));
    refuses(NAME, with(false, true, false, false));
    refuses(NAME, with(true, false, false, true));
    accepts(NAME, with(true, false, true, true));
    refuses(NAME, with(false, true, true, true));
}

#[test]
fn a_page_that_ended_early_leaves_out_nothing_for_good() {
    let paused = || TaskFilter { state: Some(TaskStatus::Paused), ..TaskFilter::default() };
    let both = |small: bool, second: &[&str]| {
        let script = if small { five().small(Bound::ScanRows, 2) } else { five() };
        let script = page(script, 1, paused(), paging(9, None), &[], true);
        page(script, 2, paused(), paging(9, Some(1)), second, false)
    };
    accepts(NAME, both(true, &["d"]));
    refuses(NAME, both(true, &[]));
    refuses(NAME, both(false, &["d"]));
}

fn running() -> RunRow {
    fired(4, 1)
}

fn succeeded() -> RunRow {
    changed(&ended(&running(), 5, RunState::Succeeded), |row| row.last = Some(record(row, AttemptResult::Succeeded)))
}

/// A run at second 1 that ends at second 3.
fn with_run() -> Script {
    let script = Script::new().at(100).entry(3).task_due(3, 1, 1).at(1000).entry(4).task(4, 1, 1).row(&running());
    script.at(2000).invoke(1, Action::GetRun { run: running().run }).at(3000).entry(5).row(&succeeded()).at(4000)
}

fn run_view(row: &RunRow, change: impl FnOnce(&mut campanile_model::api::RunView)) -> Outcome {
    let mut run = view(row);
    run.task = Some(name());
    change(&mut run);
    Outcome::Run { run: Box::new(run) }
}

#[test]
fn a_run_reads_as_it_was_at_one_time() {
    for row in [running(), succeeded()] {
        accepts(NAME, with_run().returned(1, run_view(&row, |_| {})));
    }
    let changes: [fn(&mut campanile_model::api::RunView); 14] = [
        |run| run.attempts.clear(),
        |run| run.state = RunState::Failed,
        |run| run.attempt = 2,
        |run| run.fencing_token = campanile_model::Token(1),
        |run| run.node = campanile_model::NodeId(2),
        |run| run.finished_at = None,
        |run| run.retry_at = Some(second(9)),
        |run| run.version = 2,
        |run| run.due_at = second(2),
        |run| run.fired_at = second(2),
        |run| run.scheduled_at = second(2),
        |run| run.origin = OriginView::Manual,
        |run| run.task = None,
        |run| run.id = RunId(7),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let found = std::panic::catch_unwind(|| refuses(NAME, with_run().returned(1, run_view(&succeeded(), change))));
        assert!(found.is_ok(), "change {nth}");
    }
    // It has ended before it is asked for.
    let late = with_run().invoke(2, Action::GetRun { run: running().run });
    refuses(NAME, late.at(5000).returned(2, run_view(&running(), |_| {})));
    let cancelled = with_run().invoke(2, Action::CancelRun { run: running().run });
    refuses(NAME, cancelled.at(5000).returned(2, run_view(&succeeded(), |_| {})));
}

/// Runs at seconds 1 to 3, of which the second has failed, and a list of them.
fn runs(state: Option<RunState>, limit: u32, shown: &[i64], more: bool) -> Script {
    let mut script = Script::new().at(100).entry(3).task(3, 1, 0);
    script = script.final_task(1, |_| {});
    let row = |nth: i64| {
        let row = fired(3 + nth as u64, nth);
        if nth == 2 { ended(&row, row.index, RunState::Failed) } else { row }
    };
    for nth in 1..=3 {
        script = script.at(1000 * nth as u64).entry(3 + nth as u64).row(&row(nth));
    }
    let items = shown.iter().map(|nth| match run_view(&row(*nth), |run| run.attempts.clear()) {
        Outcome::Run { run } => *run,
        _ => unreachable!(),
    });
    let outcome = Outcome::Runs { items: items.collect(), next_page_token: more.then(|| "token".into()) };
    let list = Action::ListRuns { name: name(), state, page: paging(limit, None) };
    script.at(5000).invoke(1, list).at(6000).returned(1, outcome)
}

#[test]
fn runs_are_listed_newest_first() {
    accepts(NAME, runs(None, 9, &[3, 2, 1], false));
    accepts(NAME, runs(None, 2, &[3, 2], true));
    refuses(NAME, runs(None, 9, &[1, 2, 3], false));
    refuses(NAME, runs(None, 9, &[3, 1], false));
    refuses(NAME, runs(None, 2, &[3, 1], true));
    accepts(NAME, runs(Some(RunState::Failed), 9, &[2], false));
    refuses(NAME, runs(Some(RunState::Failed), 9, &[3, 2, 1], false));
    refuses(NAME, runs(Some(RunState::Running), 9, &[3], false));
}

fn fired_line(row: &RunRow) -> LedgerLineView {
    let OccurrenceId { scheduled_at, .. } = row.occurrence;
    LedgerLineView {
        kind: Kind::Fired,
        reason: None,
        origin: OriginView::Schedule,
        scheduled_at,
        last: scheduled_at,
        count: 1,
        version: None,
        occurrence_id: Some(row.occurrence),
        run: Some(row.run),
        run_state: Some(row.state),
    }
}

fn lapsed_line(first: i64, last: i64, count: u64, reason: Reason) -> LedgerLineView {
    let alone = OccurrenceId { task: TASK, scheduled_at: second(first), origin: Origin::Schedule };
    LedgerLineView {
        kind: reason.kind(),
        reason: Some(reason),
        origin: OriginView::Schedule,
        scheduled_at: second(first),
        last: second(last),
        count,
        version: Some(1),
        occurrence_id: (count == 1).then_some(alone),
        run: None,
        run_state: None,
    }
}

/// A run at second 1, then two occurrences that lapse one by one, then one of another kind; and a ledger.
fn ledger(filter: LedgerFilter, items: Vec<LedgerLineView>, more: bool) -> Script {
    ledger_with(filter, items, more, |_| {})
}

fn ledger_with(
    filter: LedgerFilter,
    items: Vec<LedgerLineView>,
    more: bool,
    change: impl FnOnce(&mut LedgerView),
) -> Script {
    let script = Script::new().at(100).entry(3).task(3, 1, 0).at(1000).entry(4).row(&running());
    let script = script.entry(5).lapse(5, 2, 2, Reason::Paused).entry(6).lapse(6, 3, 3, Reason::Paused);
    let script = script.entry(7).lapse(7, 4, 4, Reason::Coalesced);
    let tally = Tally { fired: 1, paused: 2, coalesced: 1, ..Tally::default() };
    let script = script.entry(8).task_counted(8, 4, tally);
    let mut ledger = LedgerView {
        task_id: TASK,
        decided_until: Some(second(4)),
        tally,
        folded: Tally::default(),
        items,
        next_page_token: more.then(|| "token".into()),
    };
    change(&mut ledger);
    let limit = if more { ledger.items.len() as u32 } else { 9 };
    let action = Action::Ledger { name: name(), filter, page: paging(limit, None) };
    script.at(5000).invoke(1, action).at(6000).returned(1, Outcome::Ledger { ledger: Box::new(ledger) })
}

#[test]
fn a_ledger_has_a_line_for_all_that_was_decided() {
    let all =
        || vec![fired_line(&running()), lapsed_line(2, 3, 2, Reason::Paused), lapsed_line(4, 4, 1, Reason::Coalesced)];
    let whole = |items| ledger(LedgerFilter::default(), items, false);
    accepts(NAME, whole(all()));
    let parted = [
        all()[0].clone(),
        lapsed_line(2, 2, 1, Reason::Paused),
        lapsed_line(3, 3, 1, Reason::Paused),
        all()[2].clone(),
    ];
    accepts(NAME, whole(parted.to_vec()));
    for left_out in 0..3 {
        let mut items = all();
        items.remove(left_out);
        refuses(NAME, whole(items));
    }
    let with = |change: fn(&mut Vec<LedgerLineView>)| {
        let mut items = all();
        change(&mut items);
        whole(items)
    };
    refuses(NAME, with(|items| items[0].run_state = Some(RunState::Failed)));
    refuses(NAME, with(|items| items[0].scheduled_at = second(0)));
    refuses(NAME, with(|items| items[1].count = 3));
    refuses(NAME, with(|items| items[1].reason = Some(Reason::Coalesced)));
    refuses(NAME, with(|items| items[1].version = Some(2)));
    refuses(NAME, with(|items| items[1].last = second(4)));
    refuses(NAME, with(|items| items.reverse()));
    refuses(NAME, ledger_with(LedgerFilter::default(), all(), false, |ledger| ledger.tally.fired = 2));
    refuses(NAME, ledger_with(LedgerFilter::default(), all(), false, |ledger| ledger.decided_until = None));
}

#[test]
fn a_ledger_may_be_asked_for_in_part() {
    let between = |after, before| LedgerFilter { after: Some(second(after)), before: Some(second(before)) };
    let range = || lapsed_line(2, 3, 2, Reason::Paused);
    accepts(NAME, ledger(between(3, 4), vec![range()], false));
    refuses(NAME, ledger(between(3, 4), vec![], false));
    refuses(NAME, ledger(between(3, 4), vec![fired_line(&running()), range()], false));
    refuses(NAME, ledger(between(3, 4), vec![range(), lapsed_line(4, 4, 1, Reason::Coalesced)], false));
    let default = LedgerFilter::default;
    accepts(NAME, ledger(default(), vec![fired_line(&running()), range()], true));
    refuses(NAME, ledger(default(), vec![fired_line(&running()), lapsed_line(4, 4, 1, Reason::Coalesced)], true));
}

fn occurrences(times: &[(i64, i64)]) -> Vec<NextView> {
    times.iter().map(|(at, due)| NextView { scheduled_at: millis(*at), due_at: millis(*due) }).collect()
}

/// A preview of a definition, asked for at second 1 and answered 5 ms later.
fn preview_of(change: fn(&mut TaskSpec), count: u32, after: Option<Timestamp>, times: &[(i64, i64)]) -> Script {
    let mut spec = spec();
    change(&mut spec);
    let action = Action::PreviewSpec { spec: Box::new(spec), count, after };
    let script = Script::new().entry(2).at(1000).invoke(1, action).at(1005);
    script.returned(1, Outcome::Preview { items: occurrences(times) })
}

#[test]
fn a_preview_is_right_by_some_clock_of_the_time() {
    let every = |times: &[(i64, i64)]| preview_of(|_| {}, 2, None, times);
    accepts(NAME, every(&[(11_000, 11_000), (21_000, 21_000)]));
    accepts(NAME, every(&[(11_005, 11_005), (21_005, 21_005)]));
    refuses(NAME, every(&[(11_006, 11_006), (21_006, 21_006)]));
    refuses(NAME, every(&[(11_000, 11_000), (21_001, 21_001)]));
    refuses(NAME, every(&[(11_000, 11_000), (31_000, 31_000)]));
    refuses(NAME, every(&[(11_000, 11_000)]));
    refuses(NAME, every(&[(11_000, 11_000), (21_000, 21_000), (31_000, 31_000)]));
    refuses(NAME, every(&[(11_000, 11_000), (21_000, 21_100)]));
    let later = |times: &[(i64, i64)]| preview_of(|_| {}, 1, Some(second(20)), times);
    accepts(NAME, later(&[(21_003, 21_003)]));
    refuses(NAME, later(&[(11_003, 11_003)]));
    let ends = |times: &[(i64, i64)]| preview_of(|spec| spec.end_at = Some(second(15)), 5, None, times);
    accepts(NAME, ends(&[(11_002, 11_002)]));
    refuses(NAME, ends(&[]));
}

#[test]
fn a_preview_is_by_the_clock_of_the_node_that_is_asked() {
    let jump =
        || crate::plan::Fault::ClockJump { node: crate::plan::Who::Node(campanile_model::NodeId(1)), by_ms: -900 };
    let with = |node, at: i64| {
        let action = Action::PreviewSpec { spec: Box::new(spec()), count: 1, after: None };
        let script = Script::new().entry(2).begin_at(node, 0, jump()).at(1000).invoke(1, action).at(1005);
        script.returned(1, Outcome::Preview { items: occurrences(&[(at, at)]) })
    };
    accepts(NAME, with(1, 10_100));
    accepts(NAME, with(1, 11_000));
    refuses(NAME, with(1, 10_099));
    refuses(NAME, with(2, 10_100));
}

#[test]
fn a_preview_knows_the_jitter() {
    let spread = crate::expect::spread_of("");
    let jitter = xxhash_rust::xxh3::xxh3_64_with_seed(b"jitter", spread) % 30_000;
    let jittered = |due: i64| preview_of(|spec| spec.jitter = Millis::from_secs(30), 1, None, &[(11_000, due)]);
    accepts(NAME, jittered(11_000 + jitter as i64));
    refuses(NAME, jittered(11_000));
}

#[test]
fn a_task_s_preview_goes_on_where_it_is_decided() {
    let with = |after: Option<Timestamp>, times: &[(i64, i64)]| {
        let script = Script::new().at(0).invoke(9, put()).entry(3).task_due(3, 1, 10).wrote(9, Change::Created, 1);
        let script = script.at(10_000).entry(4).task(4, 1, 10);
        let action = Action::Preview { name: name(), count: 2, after };
        script.at(10_500).invoke(1, action).at(10_600).returned(1, Outcome::Preview { items: occurrences(times) })
    };
    accepts(NAME, with(None, &[(20_000, 20_000), (30_000, 30_000)]));
    refuses(NAME, with(None, &[(10_000, 10_000), (20_000, 20_000)]));
    refuses(NAME, with(None, &[(30_000, 30_000), (40_000, 40_000)]));
    accepts(NAME, with(Some(second(0)), &[(20_000, 20_000), (30_000, 30_000)]));
    accepts(NAME, with(Some(second(35)), &[(40_000, 40_000), (50_000, 50_000)]));
    refuses(NAME, with(Some(second(35)), &[(20_000, 20_000), (30_000, 30_000)]));
}

#[test]
fn it_needs_a_log() {
    not_applicable(NAME, Script::new().real().invoke(1, get()).returned(1, Outcome::Unknown { reason: "lost".into() }));
}
