use campanile_model::TaskStatus;
use campanile_model::api::{Change, TaskView};

use super::super::minutes::*;
use super::*;

fn put_of(spec: TaskSpec, if_version: Option<u32>, create_only: bool) -> Action {
    Action::Put { name: "a".into(), spec: Box::new(spec), if_version, create_only, idempotency_key: None }
}

fn put(every: &str) -> Action {
    put_of(spec_every(every), None, false)
}

fn name() -> String {
    "a".into()
}

fn pause() -> Action {
    Action::Pause { name: name(), if_version: None }
}

fn resume() -> Action {
    Action::Resume { name: name(), if_version: None }
}

fn delete() -> Action {
    Action::Delete { name: name(), cancel_runs: false, if_version: None }
}

fn trigger() -> Action {
    Action::Trigger { name: name(), idempotency_key: None }
}

fn get() -> Action {
    Action::Get { name: name() }
}

fn read(task: u64, version: u32, every: &str, state: TaskStatus) -> Outcome {
    let task = TaskView {
        id: campanile_model::TaskId(task),
        namespace: "default".into(),
        name: name(),
        version,
        state,
        created_at: at_ms(0),
        updated_at: at_ms(0),
        next: None,
        decided_until: None,
        remaining_fires: None,
        tally: Default::default(),
        spec: spec_every(every),
    };
    Outcome::Read { task: Box::new(task) }
}

fn holds(operations: &[(u64, u64, Action, Outcome)]) -> bool {
    match check(&asked(operations)) {
        Finding::Held { .. } => true,
        Finding::Violated(_) => false,
        other => panic!("{other:?}"),
    }
}

use TaskStatus::{Active, Finished, Paused};

#[test]
fn a_life_in_order_is_accepted() {
    assert!(holds(&[
        (1, 2, get(), refused(404, "task_not_found")),
        (3, 4, put("1m"), written(7, 1, Change::Created)),
        (5, 6, put("1m"), written(7, 1, Change::Unchanged)),
        (7, 8, put_of(spec_every("1m"), None, true), refused(409, "task_exists")),
        (9, 10, put_of(spec_every("2m"), Some(3), false), refused(412, "version_mismatch")),
        (11, 12, put_of(spec_every("2m"), Some(1), false), written(7, 2, Change::Updated)),
        (13, 14, pause(), written(7, 2, Change::Paused)),
        (15, 16, get(), read(7, 2, "2m", Paused)),
        (17, 18, resume(), written(7, 2, Change::Resumed)),
        (19, 20, trigger(), triggered(7, 1)),
        (21, 22, delete(), written(7, 2, Change::Deleted)),
        (23, 24, pause(), refused(404, "task_not_found")),
        (25, 26, put("1m"), written(9, 1, Change::Created)),
    ]));
}

#[test]
fn a_stale_read_is_seen() {
    let write = [(1, 2, put("1m"), written(7, 1, Change::Created)), (3, 9, put("2m"), written(7, 2, Change::Updated))];
    let with = |at: u64, version, every| {
        let mut all = write.to_vec();
        all.push((at, at + 1, get(), read(7, version, every, Active)));
        holds(&all)
    };
    assert!(with(5, 1, "1m") && with(5, 2, "2m"), "while the update is on its way, both");
    assert!(with(10, 2, "2m"));
    assert!(!with(10, 1, "1m"));
    assert!(!with(5, 2, "1m"), "a version has one definition");
}

#[test]
fn reads_may_not_go_back() {
    assert!(!holds(&[
        (1, 2, put("1m"), written(7, 1, Change::Created)),
        (3, 20, put("2m"), unknown()),
        (4, 5, get(), read(7, 2, "2m", Active)),
        (6, 7, get(), read(7, 1, "1m", Active)),
    ]));
}

#[test]
fn an_unknown_write_permits_and_never_requires() {
    for (version, every, expected) in [(1, "1m", true), (2, "2m", true), (3, "2m", false)] {
        let found = holds(&[
            (1, 2, put("1m"), written(7, 1, Change::Created)),
            (3, 4, put("2m"), unknown()),
            (1_000_000, 1_000_001, get(), read(7, version, every, Active)),
        ]);
        assert_eq!(found, expected, "version {version}");
    }
    assert!(holds(&[(1, 2, put("1m"), unknown()), (9, 10, get(), refused(404, "task_not_found"))]));
    assert!(holds(&[(1, 2, put("1m"), unknown()), (9, 10, get(), read(7, 1, "1m", Active))]));
    // It may take effect after a deletion that was sent later.
    assert!(holds(&[
        (1, 2, put("1m"), written(7, 1, Change::Created)),
        (3, 4, put("2m"), unknown()),
        (5, 6, delete(), written(7, 1, Change::Deleted)),
        (7, 8, get(), read(8, 1, "2m", Active)),
    ]));
}

#[test]
fn lost_and_doubled_effects_are_seen() {
    let created = (1, 2, put("1m"), written(7, 1, Change::Created));
    assert!(!holds(&[created.clone(), (3, 4, get(), refused(404, "task_not_found"))]), "acknowledged and gone");
    assert!(!holds(&[created.clone(), (3, 4, put("2m"), written(7, 3, Change::Updated))]), "a version too many");
    assert!(!holds(&[created.clone(), (3, 4, put("1m"), written(7, 2, Change::Updated))]), "an equal put is none");
    assert!(!holds(&[created.clone(), (3, 4, put("2m"), written(8, 1, Change::Created))]), "created twice");
    assert!(!holds(&[created.clone(), (3, 4, trigger(), triggered(7, 2))]), "a trigger too many");
    assert!(!holds(&[created.clone(), (3, 4, get(), read(7, 1, "1m", Paused))]), "paused by nobody");
    assert!(!holds(&[created.clone(), (3, 4, get(), read(7, 1, "1m", Finished))]), "it has no end");
    let reused =
        [created, (3, 4, delete(), written(7, 1, Change::Deleted)), (5, 6, put("1m"), written(7, 1, Change::Created))];
    assert!(!holds(&reused), "an id is never used again");
}

#[test]
fn a_task_changes_by_itself_where_its_definition_permits() {
    let mut once = spec_every("1m");
    once.remaining = Some(2);
    once.pause_on_failure = Some(1);
    let created = (1, 2, put_of(once.clone(), None, false), written(7, 1, Change::Created));
    let seen = |state| {
        let Outcome::Read { mut task } = read(7, 1, "1m", state) else { unreachable!() };
        task.spec = once.clone();
        Outcome::Read { task }
    };
    assert!(holds(&[created.clone(), (3, 4, get(), seen(Paused)), (5, 6, get(), seen(Finished))]));
    assert!(holds(&[created.clone(), (3, 4, pause(), refused(409, "task_finished"))]));
    assert!(!holds(&[created, (3, 4, get(), seen(Finished)), (5, 6, get(), seen(Active))]));
}

#[test]
fn repeats_under_a_key_are_one_request() {
    let keyed = Action::Trigger { name: name(), idempotency_key: Some("k".into()) };
    assert!(holds(&[
        (1, 2, put("1m"), written(7, 1, Change::Created)),
        (3, 4, keyed.clone(), unknown()),
        (5, 6, keyed.clone(), triggered(7, 1)),
        (7, 8, trigger(), triggered(7, 2)),
        (9, 10, keyed, triggered(7, 1)),
    ]));
}

#[test]
fn what_is_too_much_is_said_and_not_passed() {
    // Forty updates without an answer, and a read that none of them explains.
    let mut operations = vec![(1, 2, put("1m"), written(7, 1, Change::Created))];
    operations.extend((0..40).map(|n| (3, 4, put(&format!("{}m", n + 2)), unknown())));
    operations.push((5, 6, get(), read(7, 30, "1m", Active)));
    assert!(matches!(check(&asked(&operations)), Finding::NotApplicable { .. }));
}

#[test]
fn long_histories_are_quick() {
    let mut operations = vec![(1, 2, put("1m"), written(7, 1, Change::Created))];
    for n in 0..1000u64 {
        let t = 10 + n * 10;
        let every = if n % 2 == 0 { "2m" } else { "1m" };
        let version = n as u32 + 2;
        operations.push((t, t + 5, put(every), written(7, version, Change::Updated)));
        operations.push((t + 1, t + 7, get(), read(7, version, every, Active)));
    }
    assert!(holds(&operations));
}
