//! Histories for the checkers' tests: one good run of a task that is due every minute, and scripted harm to it.

use campanile_model::api::{Change, LedgerLineView, LedgerView, OriginView, TaskView, TaskWritten, Triggered};
use campanile_model::{
    CatchUpPolicy, HttpTarget, Kind, LogPlace, Millis, NodeId, OccurrenceId, Origin, Overlap, Reason, RunId, RunState,
    Schedule, Tally, Target, TaskId, TaskSpec, TaskStatus, Timestamp, Token,
};

use crate::history::{Action, Delivery, Event, FORMAT, Header, History, Outcome, RunRow, Source, TaskRow, Timed};
use crate::plan::{Fault, PlannedFault};
use crate::verdict::Finding;

/// 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600_000;
const TASK: TaskId = TaskId(10 << 16);

pub fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_millis(EPOCH + ms)
}

pub fn spec_every(period: &str) -> TaskSpec {
    let target = HttpTarget {
        url: "http://r/".into(),
        method: Default::default(),
        headers: Default::default(),
        signing_secret: None,
    };
    TaskSpec::new(vec![Schedule::Every(period.parse().unwrap())], Target::Http(target))
}

pub fn empty() -> History {
    let header = Header {
        format: FORMAT,
        version: "test".into(),
        source: Source::Simulated,
        scenario: "test".into(),
        seed: None,
        planted: None,
        epoch_ms: EPOCH,
        nodes: vec![NodeId(1)],
        clock_error_ms: 0,
        lateness_bound_ms: 10_000,
        bounds: Default::default(),
        webhook_secret: None,
        left_out: Vec::new(),
    };
    History { header, events: Vec::new() }
}

/// All that a checker objects to, as one text; empty if it held.
pub fn told(finding: &Finding) -> String {
    match finding {
        Finding::Violated(violations) => {
            violations.iter().map(|violation| violation.what.as_str()).collect::<Vec<_>>().join("; ")
        }
        _ => String::new(),
    }
}

/// What happens otherwise than it should. Occurrences are counted from 1, a minute each.
#[derive(Default)]
pub struct Script {
    /// It is in no line.
    pub skip: Option<i64>,
    /// Fires at another instant, so many milliseconds later.
    pub shift: Option<(i64, i64)>,
    /// Fires twice.
    pub twice: Option<i64>,
    /// From the first on so many lapse, in a line that counts so many.
    pub lapse: Option<(i64, i64, u64, Reason)>,
    /// How long after the last of them was due that was decided.
    pub late_ms: i64,
    pub tally_off: u64,
    /// Nothing happens for so long at the end.
    pub idle_s: i64,
    /// A fault begins and never ends.
    pub broken: bool,
    pub policy: CatchUpPolicy,
    pub overlap: Overlap,
    /// Runs do not end.
    pub keep_live: bool,
    /// Its run says that it succeeded, and never arrived.
    pub undelivered: Option<i64>,
    pub delivery_late_ms: i64,
    /// How long it goes on; ten minutes if less.
    pub minutes: i64,
    /// Its run arrives again as this attempt.
    pub repeat: Option<(i64, u32)>,
}

struct Recorder {
    history: History,
    tally: Tally,
    index: u64,
    deliveries: u64,
}

impl Recorder {
    fn new() -> Self {
        Self { history: empty(), tally: Tally::default(), index: 9, deliveries: 0 }
    }

    fn push(&mut self, ms: i64, event: Event) {
        self.history.events.push(Timed { t: ms.unsigned_abs() * 1000, event });
    }

    fn entry(&mut self, ms: i64) {
        self.index += 1;
        self.push(ms, Event::Entry { index: self.index, term: 1, time: at_ms(ms) });
    }

    fn task(&mut self, ms: i64, version: u32, decided_ms: i64) {
        let row = TaskRow {
            index: self.index,
            task: TASK,
            name: "a".into(),
            version,
            status: TaskStatus::Active,
            next: None,
            decided_until: at_ms(decided_ms),
            remaining: None,
            tally: self.tally,
        };
        self.push(ms, Event::Task(row));
    }

    fn run(&mut self, ms: i64, version: u32, run: RunId, scheduled_ms: i64, state: RunState) {
        let row = RunRow {
            index: self.index,
            run,
            occurrence: OccurrenceId { task: TASK, scheduled_at: at_ms(scheduled_ms), origin: Origin::Schedule },
            version,
            due_at: at_ms(scheduled_ms),
            fired_at: at_ms(ms),
            state,
            attempt: 1,
            token: Token(run.0),
            owner: NodeId(1),
            epoch: 1,
            retry_at: None,
            finished_at: None,
            last: None,
        };
        self.push(ms, Event::Run(row));
    }

    fn fire(&mut self, ms: i64, version: u32, scheduled_ms: i64) -> RunId {
        self.entry(ms);
        let run = RunId::at(LogPlace::new(self.index, 0));
        self.tally.fired += 1;
        self.run(ms, version, run, scheduled_ms, RunState::Running);
        self.task(ms, version, scheduled_ms);
        run
    }

    /// The run that was fired last was due then.
    fn due(&mut self, ms: i64) {
        let rows = self.history.events.iter_mut().rev().filter_map(|timed| match &mut timed.event {
            Event::Run(row) => Some(row),
            _ => None,
        });
        rows.take(1).for_each(|row| row.due_at = at_ms(ms));
    }

    fn deliver(&mut self, ms: i64, run: RunId, attempt: u32) {
        self.deliveries += 1;
        let delivery = Delivery {
            delivery: self.deliveries,
            node: NodeId(1),
            task: TASK,
            run,
            occurrence: OccurrenceId { task: TASK, scheduled_at: at_ms(0), origin: Origin::Schedule },
            scheduled_at: at_ms(0),
            attempt,
            token: Token(run.0),
            signed: None,
            request: None,
        };
        self.push(ms, Event::Deliver(delivery));
    }

    fn put(&mut self, ms: i64, op: u64, spec: &TaskSpec, version: u32) {
        let action = Action::Put {
            name: "a".into(),
            spec: Box::new(spec.clone()),
            if_version: None,
            create_only: false,
            idempotency_key: None,
        };
        self.push(ms, Event::Invoke { op, client: 1, node: NodeId(1), action });
        let change = if version == 1 { Change::Created } else { Change::Updated };
        self.push(ms, Event::Return { op, outcome: written(TASK.0, version, change) });
    }

    fn finish(mut self) -> History {
        self.history.events.sort_by_key(|timed| timed.t);
        self.history
    }
}

/// A task that is due every minute, for ten minutes or as long as what lapses takes.
pub fn minutely(write: impl FnOnce(&mut Script)) -> History {
    let mut script = Script::default();
    write(&mut script);
    let mut spec = spec_every("1m");
    spec.catch_up.policy = script.policy;
    spec.overlap = script.overlap;
    let mut recorder = Recorder::new();
    recorder.entry(0);
    recorder.task(0, 1, 0);
    recorder.put(0, 1, &spec, 1);
    if script.broken {
        let planned = PlannedFault { at: Millis(0), lasts: None, fault: Fault::LeaderInMinority };
        recorder.push(0, Event::FaultBegins { id: 0, planned, nodes: vec![NodeId(1)] });
    }
    let lapsed = script.lapse.map_or(1..1, |(first, count, ..)| first..first + count);
    let decided_ms = (lapsed.end - 1) * 60_000 + script.late_ms;
    let end = (decided_ms / 60_000 + 1).max(10).max(script.minutes);
    for k in 1..=end {
        let due_ms = k * 60_000;
        if let Some((first, _, count, reason)) = script.lapse.filter(|_| lapsed.contains(&k)) {
            if k == lapsed.end - 1 {
                recorder.entry(decided_ms);
                recorder.tally.add(reason, count);
                let index = recorder.index;
                let (first, last) = (at_ms(first * 60_000), at_ms(due_ms));
                recorder.push(decided_ms, Event::Lapse { index, task: TASK, version: 1, first, last, count, reason });
                recorder.task(decided_ms, 1, due_ms);
            }
            continue;
        }
        if script.skip == Some(k) {
            continue;
        }
        let ms = if k < lapsed.start { due_ms } else { due_ms.max(decided_ms) };
        let shift = script.shift.filter(|(shifted, _)| *shifted == k).map_or(0, |(_, by)| by);
        for _ in 0..if script.twice == Some(k) { 2 } else { 1 } {
            let run = recorder.fire(ms, 1, due_ms + shift);
            if script.undelivered != Some(k) {
                recorder.deliver(ms + 20 + script.delivery_late_ms, run, 1);
            }
            if let Some((_, attempt)) = script.repeat.filter(|(repeated, _)| *repeated == k) {
                recorder.deliver(ms + 90, run, attempt);
            }
            if !script.keep_live {
                recorder.entry(ms + 100);
                recorder.run(ms + 100, 1, run, due_ms + shift, RunState::Succeeded);
            }
        }
    }
    if script.tally_off > 0 {
        recorder.tally.coalesced += script.tally_off;
        recorder.entry(end * 60_000 + 200);
        recorder.task(end * 60_000 + 200, 1, end * 60_000);
    }
    recorder.push(end * 60_000 + 30_000 + script.idle_s * 1000, Event::Converged);
    recorder.finish()
}

/// A second version is acknowledged at the end, and no entry writes it.
pub fn with_second_version(history: History) -> History {
    let mut recorder = Recorder { history, ..Recorder::new() };
    let ms = (recorder.history.end() / 1000).cast_signed();
    recorder.put(ms, 2, &spec_every("2m"), 2);
    recorder.finish()
}

/// An update while jitter, of 21,194 ms for this task, holds back the occurrence before it; then that one fires as the
/// new version's, or is lost.
pub fn jittered_update(fires_held: bool) -> History {
    let mut spec = spec_every("1m");
    spec.jitter = Millis::from_secs(30);
    let mut recorder = Recorder::new();
    recorder.entry(0);
    recorder.task(0, 1, 0);
    recorder.put(0, 1, &spec, 1);
    recorder.entry(75_000);
    recorder.task(75_000, 2, 59_999);
    spec.priority = 1;
    recorder.put(75_000, 2, &spec, 2);
    if fires_held {
        recorder.fire(81_194, 2, 60_000);
        recorder.due(81_194);
    }
    recorder.fire(141_194, 2, 120_000);
    recorder.due(141_194);
    recorder.finish()
}

/// Final state alone: decided for five minutes, with so many lines or counters.
pub fn final_only(entered: i64, folded: i64) -> History {
    let lines = (folded + 1..=5).filter(|k| entered == 5 || *k != 3).collect();
    final_state(lines, folded.unsigned_abs())
}

pub fn final_only_folded(until: i64, folded_until: i64, folded: u64) -> History {
    final_state((folded_until + 1..=until).collect(), folded)
}

fn final_state(lines: Vec<i64>, folded: u64) -> History {
    let folded = Tally { fired: folded, ..Tally::default() };
    let tally = Tally { fired: folded.fired + lines.len() as u64, ..Tally::default() };
    let decided_until = Some(at_ms(300_000));
    let line = |k: i64| LedgerLineView {
        kind: Kind::Fired,
        reason: None,
        origin: OriginView::Schedule,
        scheduled_at: at_ms(k * 60_000),
        last: at_ms(k * 60_000),
        count: 1,
        version: None,
        occurrence_id: None,
        run: Some(RunId(k.unsigned_abs())),
        run_state: Some(RunState::Succeeded),
    };
    let items = lines.into_iter().map(line).collect();
    let ledger = LedgerView { task_id: TASK, decided_until, tally, folded, items, next_page_token: None };
    let task = TaskView {
        id: TASK,
        namespace: "default".into(),
        name: "a".into(),
        version: 1,
        state: TaskStatus::Active,
        created_at: at_ms(0),
        updated_at: at_ms(0),
        next: None,
        decided_until,
        remaining_fires: None,
        tally,
        spec: spec_every("1m"),
    };
    let mut recorder = Recorder::new();
    recorder.push(330_000, Event::FinalTask { task: Box::new(task) });
    recorder.push(330_000, Event::FinalLedger { ledger });
    recorder.finish()
}

/// Requests with their times in microseconds.
pub fn asked(operations: &[(u64, u64, Action, Outcome)]) -> History {
    let mut history = empty();
    for (op, (invoked, returned, action, outcome)) in (1..).zip(operations) {
        let invoke = Event::Invoke { op, client: 1, node: NodeId(1), action: action.clone() };
        history.events.push(Timed { t: *invoked, event: invoke });
        history.events.push(Timed { t: *returned, event: Event::Return { op, outcome: outcome.clone() } });
    }
    history.events.sort_by_key(|timed| timed.t);
    history
}

pub fn written(task: u64, version: u32, change: Change) -> Outcome {
    let state = match change {
        Change::Paused => TaskStatus::Paused,
        Change::Deleted => TaskStatus::Deleted,
        _ => TaskStatus::Active,
    };
    let task = TaskWritten {
        id: TaskId(task),
        namespace: "default".into(),
        name: "a".into(),
        version,
        state,
        change,
        next: None,
        warnings: Vec::new(),
    };
    Outcome::Written { task }
}

pub fn triggered(task: u64, n: u32) -> Outcome {
    let occurrence_id = OccurrenceId { task: TaskId(task), scheduled_at: at_ms(0), origin: Origin::Manual(n) };
    Outcome::Triggered { triggered: Triggered { run: RunId(u64::from(n)), occurrence_id } }
}

pub fn refused(status: u16, code: &str) -> Outcome {
    Outcome::Refused { status, code: code.into() }
}

pub fn unknown() -> Outcome {
    Outcome::Unknown { reason: "no answer".into() }
}

/// A created task, and so many runs of it by hand.
pub fn with_manual_runs(history: History, runs: u32) -> History {
    let mut recorder = Recorder { history, ..Recorder::new() };
    recorder.entry(0);
    recorder.put(0, 100, &spec_every("1m"), 1);
    recorder.task(0, 1, 0);
    for n in 1..=runs {
        recorder.entry(1);
        let run = RunId::at(LogPlace::new(recorder.index, 0));
        recorder.run(1, 1, run, 0, RunState::Running);
        if let Some(Timed { event: Event::Run(row), .. }) = recorder.history.events.last_mut() {
            row.occurrence.origin = Origin::Manual(n);
        }
    }
    recorder.finish()
}
