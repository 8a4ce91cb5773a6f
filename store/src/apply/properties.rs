//! Random histories: whatever is asked for, in whatever order and however stale, the invariants hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use campanile_model::*;
use proptest::prelude::*;

use super::testing::*;
use crate::engine::mem::MemDisk;
use crate::{Applier, Digest, Effect, LedgerQuery, RunQuery, Store, View, keys};

/// One step of a history; the numbers pick among what is there.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Put { name: u8, kind: u8, overlap: u8, delay: u8 },
    Pause(u8),
    Resume(u8),
    Delete { name: u8, cancel: bool },
    Trigger { name: u8, key: u8 },
    Cancel(u8),
    Fire { pick: u8, stale: bool, gap: u8 },
    Lapse { pick: u8, reason: u8, count: u8, gap: u8 },
    Outcome { pick: u8, result: u8, stale: bool },
    Attempt { pick: u8, action: u8, stale: bool },
    NodeUp { node: u8, incarnation: u8 },
    NodeLost(u8),
    MoveShards(u8),
    NodeRemoved(u8),
    TrimTimers,
    TrimLedger { pick: u8, max: u8 },
    Expire { pick: u8, max: u8 },
    ExpireKeys(u8),
    Wait(u16),
}

pub fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, 0..4u8, 0..5u8, 0..9u8)
            .prop_map(|(name, kind, overlap, delay)| Step::Put { name, kind, overlap, delay }),
        1 => (0..4u8).prop_map(Step::Pause),
        1 => (0..4u8).prop_map(Step::Resume),
        1 => (0..4u8, any::<bool>()).prop_map(|(name, cancel)| Step::Delete { name, cancel }),
        2 => (0..4u8, 0..4u8).prop_map(|(name, key)| Step::Trigger { name, key }),
        1 => any::<u8>().prop_map(Step::Cancel),
        9 => (any::<u8>(), prop::bool::weighted(0.2), 1..5u8)
            .prop_map(|(pick, stale, gap)| Step::Fire { pick, stale, gap }),
        3 => (any::<u8>(), 0..6u8, 0..4u8, 0..5u8)
            .prop_map(|(pick, reason, count, gap)| Step::Lapse { pick, reason, count, gap }),
        9 => (any::<u8>(), 0..5u8, prop::bool::weighted(0.2))
            .prop_map(|(pick, result, stale)| Step::Outcome { pick, result, stale }),
        5 => (any::<u8>(), 0..4u8, prop::bool::weighted(0.2))
            .prop_map(|(pick, action, stale)| Step::Attempt { pick, action, stale }),
        1 => (1..3u8, 0..3u8).prop_map(|(node, incarnation)| Step::NodeUp { node, incarnation }),
        1 => (1..3u8).prop_map(Step::NodeLost),
        1 => (1..4u8).prop_map(Step::MoveShards),
        1 => (1..4u8).prop_map(Step::NodeRemoved),
        1 => Just(Step::TrimTimers),
        1 => (any::<u8>(), 0..4u8).prop_map(|(pick, max)| Step::TrimLedger { pick, max }),
        2 => (any::<u8>(), 0..4u8).prop_map(|(pick, max)| Step::Expire { pick, max }),
        1 => (0..4u8).prop_map(Step::ExpireKeys),
        6 => prop_oneof![4 => 0..20u16, 1 => 600..40_000u16].prop_map(Step::Wait),
    ]
}

fn pick<T>(items: &[T], number: u8) -> Option<&T> {
    (!items.is_empty()).then(|| &items[usize::from(number) % items.len()])
}

fn every_shard_to(node: u8) -> Vec<(ShardId, NodeId)> {
    (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(node.into()))).collect()
}

fn name(number: u8) -> String {
    // The last one is nobody's name, but may be somebody's id.
    if number == 3 { "t65536".into() } else { format!("task-{number}") }
}

fn seconds_after(instant: Timestamp, secs: u8) -> Next {
    let scheduled_at = instant.saturating_add(Millis::from_secs(u64::from(secs)));
    Next { scheduled_at, due_at: scheduled_at.saturating_add(Millis(u64::from(secs % 2) * 700)) }
}

/// What was seen along a history.
#[derive(Default)]
struct Witness {
    fired: BTreeMap<OccurrenceId, RunId>,
    attempts: BTreeMap<RunId, (u32, Token)>,
    ended: BTreeSet<RunId>,
    decided: BTreeMap<TaskId, Timestamp>,
}

impl Witness {
    fn watch(&mut self, effects: &[Effect], view: &View) {
        for effect in effects {
            match effect {
                Effect::AttemptReady { run } => {
                    let before = self.fired.insert(run.occurrence(), run.id);
                    assert!(before.is_none_or(|before| before == run.id), "{} fires twice", run.occurrence());
                    let (number, token) = self.attempts.insert(run.id, (run.attempt, run.token)).unwrap_or_default();
                    assert_eq!(run.attempt, number + 1, "attempts of {} have a gap", run.id);
                    assert!(run.token > token, "the token of {} goes back", run.id);
                    assert!(!self.ended.contains(&run.id), "{} goes on after its end", run.id);
                }
                Effect::RunEnded { run, .. } => assert!(self.ended.insert(*run), "{run} ends twice"),
                _ => {}
            }
        }
        for task in all_tasks(view) {
            let before = self.decided.insert(task.id, task.decided_until).unwrap_or(Timestamp::MIN);
            assert!(task.decided_until >= before, "what was decided of {} is open again", task.id);
        }
    }
}

fn all_tasks(view: &View) -> Vec<TaskState> {
    // Ids are places in the log, so the test knows them all: one entry makes at most one task.
    (1..=view.index())
        .flat_map(|index| (0..2).map(move |position| TaskId::at(LogPlace::new(index, position))))
        .filter_map(|id| view.task(id).unwrap())
        .collect()
}

/// What holds in every state.
fn check(view: &View) {
    let tasks = all_tasks(view);
    let live = view.live_runs(None, usize::MAX).unwrap();
    let counts = view.counts().unwrap();
    assert_eq!(counts.live_runs, live.len() as u64);
    assert_eq!(counts.tasks, tasks.iter().filter(|task| task.status != TaskStatus::Deleted).count() as u64);
    // What is kept of definitions: the current ones and those of a line, and nothing else.
    let mut versions = BTreeSet::new();
    let all_timers = view.timers(None, Timestamp::LAST, usize::MAX).unwrap();
    for task in &tasks {
        let query = LedgerQuery { max: usize::MAX, ..LedgerQuery::default() };
        let lines = view.ledger(task.id, &query).unwrap().items;
        let own = usize::from(task.one_shot_run.is_some());
        assert_eq!(task.lines as usize + own, lines.len(), "lines of {}", task.id);
        let listed: u64 = lines.iter().map(|line| line.count).sum();
        assert_eq!(task.tally.total(), listed + task.folded.total(), "ledger of {}", task.id);
        let fired = lines.iter().filter(|line| line.kind == Kind::Fired).count() as u64;
        assert_eq!(task.tally.fired, fired + task.folded.fired, "fires of {}", task.id);
        let scheduled: Vec<_> = lines.iter().filter(|line| line.origin == Origin::Schedule).collect();
        assert!(scheduled.is_sorted_by(|a, b| a.last < b.scheduled_at), "lines of {} overlap", task.id);
        let runs = view.runs_of(task.id, &RunQuery { max: usize::MAX, state: None, after: None }).unwrap().items;
        assert_eq!(runs.len() as u64, fired, "runs of {}", task.id);
        let of_lines = runs.iter().map(|run| run.version).chain(lines.iter().filter_map(|line| line.version));
        versions.extend(of_lines.chain([task.version]).map(|version| keys::version(task.id, version)));
        if let Some(next) = task.next {
            assert!(next.scheduled_at > task.decided_until, "{} is to decide twice", task.id);
            let armed = all_timers.iter().any(|row| {
                row.key.timer == Timer::Task(task.id)
                    && row.task.is_some_and(|timer| {
                        (timer.version, timer.next, timer.paused)
                            == (task.version, next, task.status == TaskStatus::Paused)
                    })
            });
            assert!(armed, "nothing wakes {} at {}", task.id, next.due_at);
        }
        let mine = live.iter().filter(|run| run.task == task.id);
        let waiting = mine.clone().filter(|run| run.state == RunState::Pending).count();
        assert!(waiting == 0 || waiting < mine.clone().count(), "{} waits for nothing", task.id);
        let listed = if task.tracks_runs() { mine.map(|run| run.id).collect() } else { Vec::new() };
        assert_eq!(task.live, listed, "live runs of {}", task.id);
    }
    let specs = view.read().scan(keys::SPECS, Bound::Unbounded, Bound::Unbounded, false);
    assert_eq!(specs.map(|row| row.unwrap().0).collect::<BTreeSet<_>>(), versions);
    let superseded = view.read().scan(keys::VERSIONS, Bound::Unbounded, Bound::Unbounded, false).count();
    assert_eq!(superseded, versions.len() - tasks.len());
    for run in &live {
        assert!(tasks.iter().any(|task| task.id == run.task), "{} has lost its task", run.id);
        assert!(view.spec(run.task, run.version).unwrap().is_some(), "{} has lost its version", run.id);
        if run.state == RunState::Retrying {
            let armed =
                all_timers.iter().any(|row| row.key.timer == Timer::Retry(run.id) && row.token == Some(run.token));
            assert!(armed, "nothing wakes {}", run.id);
        }
    }
}

/// The command that a step comes to in this state; `None` if there is nothing for it to be about.
fn command(step: Step, m: &Machine) -> Option<Command> {
    let view = m.view();
    let tasks = all_tasks(&view);
    let live = view.live_runs(None, usize::MAX).unwrap();
    Some(match step {
        Step::Put { name: number, kind, overlap, delay } => {
            let found = view.find_task(&named(&name(number))).unwrap();
            let decided = found.map_or(m.now, |task| task.decided_until.max(m.now));
            let next = Some(seconds_after(decided, delay + 1));
            let (mut spec, next) = match kind {
                0 => (one_shot(0), next),
                1 => (by_hand(), None),
                2 => (TaskSpec { remaining: Some(2), on_finish: OnFinish::Delete, ..recurring() }, next),
                _ => (TaskSpec { pause_on_failure: Some(2), ..recurring() }, next),
            };
            spec.overlap =
                [Overlap::Allow, Overlap::Skip, Overlap::BufferOne, Overlap::BufferAll, Overlap::CancelOther]
                    [usize::from(overlap)];
            Command::PutTask(Box::new(m.prepared_put(&name(number), spec, PutMode::Upsert, next)))
        }
        Step::Pause(number) => Command::PauseTask(PauseTask { task: named(&name(number)), if_version: None }),
        Step::Resume(number) => Command::ResumeTask(ResumeTask { task: named(&name(number)), if_version: None }),
        Step::Delete { name: number, cancel } => {
            Command::DeleteTask(DeleteTask { task: named(&name(number)), if_version: None, cancel_runs: cancel })
        }
        Step::Trigger { name: number, key } => {
            let key = (key > 0).then(|| Idempotency { key: format!("key-{key}"), fingerprint: u128::from(number) });
            Command::TriggerTask(TriggerTask { task: named(&name(number)), idempotency: key })
        }
        Step::Cancel(number) => Command::CancelRun { run: pick(&live, number)?.id },
        Step::Fire { pick: number, stale, gap } => {
            let armed: Vec<_> = tasks.iter().filter(|task| task.next.is_some()).collect();
            let task = pick(&armed, number)?;
            let scheduled_at = task.next?.scheduled_at;
            let following = (!task.one_shot).then(|| seconds_after(scheduled_at, gap));
            let version = task.version - u32::from(stale);
            let line = FireLine { task: task.id, version, scheduled_at, decision: Decision::Fire, next: following };
            // The second one is stale by the first.
            Command::Fire { lines: vec![line.clone(), line] }
        }
        Step::Lapse { pick: number, reason, count, gap } => {
            let armed: Vec<_> = tasks.iter().filter(|task| task.next.is_some()).collect();
            let task = pick(&armed, number)?;
            let scheduled_at = task.next?.scheduled_at;
            let reasons = [Reason::Overlap, Reason::BeyondWindow, Reason::PolicySkip, Reason::Coalesced];
            let reason = reasons.get(usize::from(reason)).copied().unwrap_or(Reason::Paused);
            let last = seconds_after(scheduled_at, count.saturating_sub(1)).scheduled_at;
            let decision = Decision::Lapse { last, count: u64::from(count), reason };
            let following = (!task.one_shot).then(|| seconds_after(last, gap));
            let line = FireLine { task: task.id, version: task.version, scheduled_at, decision, next: following };
            Command::Fire { lines: vec![line] }
        }
        Step::Outcome { pick: number, result, stale } => {
            let run = pick(&live, number)?;
            let result = [
                Outcome::Succeeded,
                Outcome::RetryAfter(Millis::from_secs(3)),
                Outcome::Failed,
                Outcome::TimedOut,
                Outcome::Gone,
            ][usize::from(result)];
            let token = Token(run.token.0 - u64::from(stale && run.token.0 > 0));
            let line = OutcomeLine { run: run.id, token, result, status: None, error: "because".into() };
            Command::Outcomes { lines: vec![line.clone(), line] }
        }
        Step::Attempt { pick: number, action, stale } => {
            let run = pick(&live, number)?;
            let action = [AttemptAction::Retry, AttemptAction::Repeat, AttemptAction::GiveUp, AttemptAction::Expire]
                [usize::from(action)];
            let expected = Token(run.token.0 + u64::from(stale));
            Command::Attempts { lines: vec![AttemptLine { run: run.id, expected, action }] }
        }
        Step::NodeUp { node, incarnation } => {
            Command::NodeUp { node: NodeId(node.into()), incarnation: incarnation.into(), shards: every_shard_to(node) }
        }
        Step::MoveShards(node) => Command::MoveShards { shards: every_shard_to(node) },
        Step::NodeLost(node) => Command::NodeLost { node: NodeId(node.into()), shards: Vec::new() },
        Step::NodeRemoved(node) => Command::NodeRemoved { node: NodeId(node.into()) },
        // As the conductor does: not beyond what is still to be decided.
        Step::TrimTimers => {
            let retries = live.iter().filter_map(|run| run.retry_at);
            let open = tasks.iter().filter_map(|task| task.next).map(|next| next.due_at).chain(retries).min();
            Command::TrimTimers { before: open.map_or(Timestamp::LAST, |open| open.min(m.now)) }
        }
        Step::TrimLedger { pick: number, max } => {
            Command::TrimLedger { task: pick(&tasks, number)?.id, before: m.now, max_lines: max.into() }
        }
        Step::Expire { pick: number, max } => {
            Command::ExpireTask { task: pick(&tasks, number)?.id, max_lines: max.into() }
        }
        Step::ExpireKeys(max) => Command::ExpireKeys { before: m.now, max_keys: max.into() },
        Step::Wait(_) => return None,
    })
}

/// Runs a history and returns its log.
pub fn live_through(steps: &[Step]) -> (Machine, Vec<(u64, Entry)>) {
    let mut m = Machine::new();
    let mut witness = Witness::default();
    let mut log = Vec::new();
    for step in steps {
        if let Step::Wait(secs) = step {
            m.now = m.now.saturating_add(Millis::from_secs(u64::from(*secs)));
        }
        let Some(command) = command(*step, &m) else { continue };
        m.run(command.clone());
        log.push((m.index, Entry { time: m.now, commands: vec![command] }));
        let view = m.view();
        witness.watch(&m.effects, &view);
        check(&view);
    }
    (m, log)
}

/// Replays a log on a new disk, `chunk` entries to a commit, the writer closed and opened again in between if asked.
fn replay(log: &[(u64, Entry)], chunk: usize, reopen: bool) -> Digest {
    let disk = MemDisk::new();
    let first = Machine::new();
    let mut store = Store::open(disk.attach()).unwrap();
    let shards = (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(1))).collect();
    let up = Command::NodeUp { node: NodeId(1), incarnation: 11, shards };
    let mut applier = store.applier();
    applier.apply(1, &Entry { time: at(0), commands: vec![up] }).unwrap();
    applier.commit(1, b"another mark").unwrap();
    assert_eq!(store.view().digest().unwrap(), first.view().digest().unwrap());
    for entries in log.chunks(chunk) {
        if reopen {
            // The disk lets nobody open it twice.
            drop((applier, store));
            store = Store::open(disk.attach()).unwrap();
            applier = store.applier();
        }
        for (index, entry) in entries {
            applier.apply(*index, entry).unwrap();
        }
        applier.commit(entries.last().unwrap().0, b"mark").unwrap();
    }
    store.view().digest().unwrap()
}

proptest! {
    #[test]
    fn invariants_hold_along_every_history(steps in proptest::collection::vec(any_step(), 1..80)) {
        let (m, log) = live_through(&steps);
        let digest = m.view().digest().unwrap();
        for (chunk, reopen) in [(1, true), (3, false), (7, true), (log.len().max(1), false)] {
            prop_assert_eq!(replay(&log, chunk, reopen), digest, "in chunks of {}", chunk);
        }
    }

    #[test]
    fn a_view_stays_as_it_was(
        before in proptest::collection::vec(any_step(), 1..40),
        after in proptest::collection::vec(any_step(), 1..40),
    ) {
        let (mut m, _) = live_through(&before);
        let view = m.view();
        let digest = view.digest().unwrap();
        let live = view.live_runs(None, usize::MAX).unwrap();
        for step in after {
            if let Some(command) = command(step, &m) {
                m.run(command);
                m.view().live_runs(None, usize::MAX).unwrap();
            }
        }
        prop_assert_eq!(view.digest().unwrap(), digest);
        prop_assert_eq!(view.live_runs(None, usize::MAX).unwrap(), live);
        check(&view);
    }
}

/// The applier is told about every entry once, in order.
#[test]
#[should_panic(expected = "comes after")]
fn an_entry_is_not_applied_twice() {
    let mut m = Machine::new();
    let applier: &mut Applier = &mut m.applier;
    applier.apply(1, &Entry { time: at(0), commands: Vec::new() }).unwrap();
}
