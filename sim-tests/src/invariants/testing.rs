//! Histories for the tests, built line by line. Task 1 is `a`, created by entry 3 or thereabouts; time begins at
//! [`EPOCH`]; seconds and milliseconds count from there; node 1 owns everything; the bound on lateness is 2 s.

use campanile_model::api::{Change, LedgerLineView, LedgerView, NextView, RunView, TaskView, TaskWritten, Triggered};
use campanile_model::sim::Bound;
use campanile_model::{
    AttemptRecord, AttemptResult, HttpTarget, Kind, LogPlace, Millis, NodeId, OccurrenceId, Origin, Reason, RunId,
    RunState, Schedule, Tally, Target, TaskId, TaskSpec, TaskStatus, Timestamp, Token,
};

use super::{ALL, Facts};
use crate::history::*;
use crate::plan::{Fault, PlannedFault};
use crate::verdict::Finding;

pub const EPOCH: i64 = 1_767_571_200_000;
pub const TASK: TaskId = TaskId(3 << 16);

pub fn millis(since: i64) -> Timestamp {
    Timestamp::from_millis(EPOCH + since)
}

pub fn second(since: i64) -> Timestamp {
    millis(since * 1000)
}

pub fn place(index: u64) -> u64 {
    LogPlace::new(index, 0).0
}

/// A run that entry `index` fired on time, in its first attempt.
pub fn fired(index: u64, due_s: i64) -> RunRow {
    RunRow {
        index,
        run: RunId(place(index)),
        occurrence: OccurrenceId { task: TASK, scheduled_at: second(due_s), origin: Origin::Schedule },
        version: 1,
        due_at: second(due_s),
        fired_at: second(due_s),
        state: RunState::Running,
        attempt: 1,
        token: Token(place(index)),
        owner: NodeId(1),
        epoch: 1,
        retry_at: None,
        finished_at: None,
        last: None,
    }
}

/// A run of a trigger, at second 10.
pub fn triggered(index: u64) -> RunRow {
    changed(&fired(index, 10), |row| row.occurrence.origin = Origin::Manual(1))
}

pub fn changed(row: &RunRow, change: impl FnOnce(&mut RunRow)) -> RunRow {
    let mut row = row.clone();
    change(&mut row);
    row
}

pub fn attempt(row: &RunRow, attempt: u32, index: u64) -> RunRow {
    RunRow { index, attempt, token: Token(place(index)), state: RunState::Running, retry_at: None, ..row.clone() }
}

pub fn pending(row: &RunRow) -> RunRow {
    RunRow { state: RunState::Pending, attempt: 0, token: Token(0), owner: NodeId(0), ..row.clone() }
}

pub fn retrying(row: &RunRow, index: u64, at_s: i64) -> RunRow {
    RunRow { index, state: RunState::Retrying, retry_at: Some(second(at_s)), ..row.clone() }
}

/// Ended when it was fired.
pub fn ended(row: &RunRow, index: u64, state: RunState) -> RunRow {
    RunRow { index, state, retry_at: None, finished_at: Some(row.fired_at), ..row.clone() }
}

pub fn record(row: &RunRow, result: AttemptResult) -> AttemptRecord {
    AttemptRecord {
        number: row.attempt,
        token: row.token,
        node: row.owner,
        ended_at: row.fired_at,
        result,
        status: None,
        error: String::new(),
    }
}

/// The webhook of an attempt that was sent at that second, to a target without headers or payload.
pub fn request(row: &RunRow, at_s: i64) -> Request {
    let OccurrenceId { task, scheduled_at, .. } = row.occurrence;
    let headers = [
        ("webhook-id", row.occurrence.to_string()),
        ("webhook-timestamp", (EPOCH / 1000 + at_s).to_string()),
        ("campanile-occurrence-id", row.occurrence.to_string()),
        ("campanile-run-id", row.run.to_string()),
        ("campanile-task", "a".into()),
        ("campanile-task-id", task.to_string()),
        ("campanile-attempt", row.attempt.to_string()),
        ("campanile-fencing-token", row.token.to_string()),
        ("campanile-scheduled-at", scheduled_at.to_string()),
        ("user-agent", "campanile/0".into()),
    ];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Request { method: "POST".into(), path: "/".into(), headers, body: String::new() }
}

pub fn spec() -> TaskSpec {
    let target = Target::Http(HttpTarget {
        url: "http://receiver/".into(),
        method: Default::default(),
        headers: Default::default(),
        signing_secret: None,
    });
    TaskSpec::new(vec![Schedule::Every(Millis::from_secs(10))], target)
}

pub fn put() -> Action {
    put_with(|_| {})
}

pub fn put_with(change: impl FnOnce(&mut TaskSpec)) -> Action {
    let mut spec = spec();
    change(&mut spec);
    Action::Put { name: "a".into(), spec: Box::new(spec), if_version: None, create_only: false, idempotency_key: None }
}

/// A view of a run whose last attempt ended as its state says; only that attempt is recorded.
pub fn view(row: &RunRow) -> RunView {
    let result = match row.state {
        RunState::Succeeded => Some(AttemptResult::Succeeded),
        RunState::Cancelled => Some(AttemptResult::Cancelled),
        RunState::TimedOut => Some(AttemptResult::TimedOut),
        RunState::Failed | RunState::Retrying => Some(AttemptResult::Failed),
        RunState::Pending | RunState::Running => None,
    };
    RunView {
        id: row.run,
        occurrence_id: row.occurrence,
        task_id: row.occurrence.task,
        task: None,
        version: row.version,
        origin: row.occurrence.origin.into(),
        scheduled_at: row.occurrence.scheduled_at,
        due_at: row.due_at,
        fired_at: row.fired_at,
        state: row.state,
        attempt: row.attempt,
        fencing_token: row.token,
        node: row.owner,
        retry_at: row.retry_at,
        finished_at: row.finished_at,
        attempts: result.into_iter().map(|result| record(row, result)).collect(),
    }
}

/// A history being written.
pub struct Script {
    t: u64,
    history: History,
}

impl Script {
    pub fn new() -> Self {
        let header = Header {
            format: FORMAT,
            version: "0".into(),
            source: Source::Simulated,
            scenario: "test".into(),
            seed: None,
            planted: None,
            epoch_ms: EPOCH,
            nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
            clock_error_ms: 0,
            lateness_bound_ms: 2000,
            bounds: Default::default(),
            webhook_secret: None,
            left_out: Vec::new(),
        };
        Self { t: 0, history: History { header, events: Vec::new() } }
    }

    pub fn headed(header: Header) -> Self {
        Self { t: 0, history: History { header, events: Vec::new() } }
    }

    pub fn real(mut self) -> Self {
        self.history.header.source = Source::RealProcesses;
        self
    }

    pub fn clock_error(mut self, ms: i64) -> Self {
        self.history.header.clock_error_ms = ms;
        self
    }

    /// The bound was this small.
    pub fn small(mut self, bound: Bound, amount: u64) -> Self {
        self.history.header.bounds.insert(bound.name().to_owned(), amount);
        self
    }

    /// What follows happens at this time.
    pub fn at(mut self, ms: u64) -> Self {
        assert!(ms * 1000 >= self.t, "time goes back to {ms} ms");
        self.t = ms * 1000;
        self
    }

    pub fn event(mut self, event: Event) -> Self {
        self.history.events.push(Timed { t: self.t, event });
        self
    }

    pub fn done(self) -> History {
        self.history
    }

    pub fn entry(self, index: u64) -> Self {
        self.entry_of(index, 1)
    }

    /// An entry stamped now.
    pub fn entry_of(self, index: u64, term: u64) -> Self {
        let time = millis((self.t / 1000) as i64);
        self.event(Event::Entry { index, term, time })
    }

    fn task_row(self, index: u64, version: u32, status: TaskStatus, until_s: i64, due_s: Option<i64>) -> Self {
        let next = due_s.map(|at| NextAt { scheduled_at: second(at), due_at: second(at) });
        self.event(Event::Task(TaskRow {
            index,
            task: TASK,
            name: "a".into(),
            version,
            status,
            next,
            decided_until: second(until_s),
            remaining: None,
            tally: Tally::default(),
        }))
    }

    /// The task is active and decided until that second.
    pub fn task(self, index: u64, version: u32, until_s: i64) -> Self {
        self.task_row(index, version, TaskStatus::Active, until_s, None)
    }

    pub fn task_due(self, index: u64, version: u32, due_s: i64) -> Self {
        self.task_row(index, version, TaskStatus::Active, 0, Some(due_s))
    }

    /// The task is decided until that second, with so many of each kind.
    pub fn task_counted(self, index: u64, until_s: i64, tally: Tally) -> Self {
        let mut script = self.task(index, 1, until_s);
        if let Some(Timed { event: Event::Task(row), .. }) = script.history.events.last_mut() {
            row.tally = tally;
        }
        script
    }

    pub fn task_is(self, index: u64, version: u32, status: TaskStatus) -> Self {
        self.task_row(index, version, status, 0, None)
    }

    /// Another task than the one that everything else is about, as entry `index` leaves it.
    pub fn other_task(self, number: u64, name: &str, index: u64, status: TaskStatus) -> Self {
        self.event(Event::Task(TaskRow {
            index,
            task: TaskId(TASK.0 + number),
            name: name.into(),
            version: 1,
            status,
            next: None,
            decided_until: second(0),
            remaining: None,
            tally: Tally::default(),
        }))
    }

    /// A task as its last row is read.
    pub fn seen(&self, name: &str) -> TaskView {
        let stamp = |index: u64| {
            let mut stamps = self.history.events.iter().filter_map(|timed| match &timed.event {
                Event::Entry { index: of, time, .. } if *of == index => Some(*time),
                _ => None,
            });
            stamps.next_back().expect("an entry of a task's row")
        };
        let rows = self.history.events.iter().filter_map(|timed| match &timed.event {
            Event::Task(row) if row.name == name => Some(row),
            _ => None,
        });
        let rows: Vec<&TaskRow> = rows.collect();
        let last = rows.last().expect("a row of the task");
        let of_version = rows.iter().find(|row| row.version == last.version).expect("its own");
        TaskView {
            id: last.task,
            namespace: "default".into(),
            name: name.into(),
            version: last.version,
            state: last.status,
            created_at: stamp(rows[0].index),
            updated_at: stamp(of_version.index),
            next: last.next.map(|next| NextView { scheduled_at: next.scheduled_at, due_at: next.due_at }),
            decided_until: Some(last.decided_until),
            remaining_fires: last.remaining,
            tally: last.tally,
            spec: spec(),
        }
    }

    /// An operation is answered with the task as its last row is.
    pub fn read(self, op: u64, change: impl FnOnce(&mut TaskView)) -> Self {
        let mut task = self.seen("a");
        change(&mut task);
        self.returned(op, Outcome::Read { task: Box::new(task) })
    }

    pub fn row(self, row: &RunRow) -> Self {
        self.event(Event::Run(row.clone()))
    }

    pub fn lapse(self, index: u64, first_s: i64, last_s: i64, reason: Reason) -> Self {
        let (first, last) = (second(first_s), second(last_s));
        self.event(Event::Lapse { index, task: TASK, version: 1, first, last, count: 1, reason })
    }

    pub fn node_row(self, index: u64, node: u64, incarnation: u64, fence: u64, up: bool) -> Self {
        let fence = Token(place(fence));
        self.event(Event::NodeRow { index, node: NodeId(node), incarnation, fence, up })
    }

    /// The leader, of term 1, gives a node a lease for so many milliseconds.
    pub fn lease(self, node: u64, incarnation: u64, by: u64, lasts_ms: u64) -> Self {
        self.lease_of_term(node, incarnation, by, 1, lasts_ms)
    }

    pub fn lease_of_term(self, node: u64, incarnation: u64, by: u64, term: u64, lasts_ms: u64) -> Self {
        let (node, by, lasts_us) = (NodeId(node), NodeId(by), lasts_ms * 1000);
        self.event(Event::Lease { node, incarnation, by, term, lasts_us })
    }

    pub fn apply(self, node: u64, index: u64, hash: u64) -> Self {
        self.event(Event::Apply { node: NodeId(node), index, hash })
    }

    pub fn digest(self, node: u64, index: u64, digest: &str) -> Self {
        self.event(Event::Digest { node: NodeId(node), index, digest: digest.into() })
    }

    /// A Raft state that is all zeros except for what is set.
    pub fn raft(self, node: u64, term: u64, set: impl FnOnce(&mut RaftState)) -> Self {
        let mut state = RaftState {
            node: NodeId(node),
            term,
            voted_for: None,
            elected: false,
            leads: false,
            last: 0,
            committed: 0,
            applied: 0,
            snapshot: 0,
            purged: 0,
        };
        set(&mut state);
        self.event(Event::Raft(state))
    }

    /// A node has taken in a snapshot of that entry.
    pub fn snapshot(self, node: u64, index: u64) -> Self {
        self.raft(node, 1, |state| {
            (state.last, state.committed, state.applied, state.snapshot) = (index, index, index, index);
            state.voted_for = Some(NodeId(1));
        })
    }

    pub fn node(self, node: u64, what: NodeEvent) -> Self {
        self.event(Event::Node { node: NodeId(node), what })
    }

    pub fn killed(self, node: u64) -> Self {
        self.node(node, NodeEvent::Killed)
    }

    pub fn started(self, node: u64) -> Self {
        self.node(node, NodeEvent::Started)
    }

    pub fn deliver(self, delivery: u64, row: &RunRow) -> Self {
        self.delivery(delivery, row, |_| {})
    }

    pub fn delivery(self, delivery: u64, row: &RunRow, change: impl FnOnce(&mut Delivery)) -> Self {
        let mut it = Delivery {
            delivery,
            node: row.owner,
            task: row.occurrence.task,
            run: row.run,
            occurrence: row.occurrence,
            scheduled_at: row.occurrence.scheduled_at,
            attempt: row.attempt,
            token: row.token,
            signed: None,
            request: None,
        };
        change(&mut it);
        self.event(Event::Deliver(it))
    }

    pub fn answer(self, delivery: u64, status: u16) -> Self {
        self.event(Event::Answer { delivery, status, retry_after: None })
    }

    pub fn begin(self, id: usize, fault: Fault) -> Self {
        let planned = PlannedFault { at: Millis(self.t / 1000), lasts: None, fault };
        self.event(Event::FaultBegins { id, planned, nodes: Vec::new() })
    }

    /// As [`Self::begin`], at one node.
    pub fn begin_at(self, node: u64, id: usize, fault: Fault) -> Self {
        let planned = PlannedFault { at: Millis(self.t / 1000), lasts: None, fault };
        self.event(Event::FaultBegins { id, planned, nodes: vec![NodeId(node)] })
    }

    pub fn end(self, id: usize) -> Self {
        self.event(Event::FaultEnds { id })
    }

    pub fn healed(self) -> Self {
        self.event(Event::Healed { nodes: vec![NodeId(1), NodeId(2)] })
    }

    pub fn converged(self) -> Self {
        self.event(Event::Converged)
    }

    pub fn invoke(self, op: u64, action: Action) -> Self {
        self.event(Event::Invoke { op, client: 1, node: NodeId(1), action })
    }

    pub fn returned(self, op: u64, outcome: Outcome) -> Self {
        self.event(Event::Return { op, outcome })
    }

    pub fn refused(self, op: u64) -> Self {
        self.returned(op, Outcome::Refused { status: 409, code: "conflict".into() })
    }

    /// The operation on the task is acknowledged, with the next occurrence of its last row.
    pub fn wrote(self, op: u64, change: Change, version: u32) -> Self {
        let rows = self.history.events.iter().rev().filter_map(|timed| match &timed.event {
            Event::Task(row) if row.task == TASK => row.next,
            _ => None,
        });
        let next = rows.map(|next| NextView { scheduled_at: next.scheduled_at, due_at: next.due_at }).next();
        let task = TaskWritten {
            id: TASK,
            namespace: "default".into(),
            name: "a".into(),
            version,
            state: TaskStatus::Active,
            change,
            next,
            warnings: Vec::new(),
        };
        self.returned(op, Outcome::Written { task })
    }

    /// An operator asks a node for a change.
    pub fn ask(self, call: u64, change: u64, node: u64, wanted: Wanted) -> Self {
        self.event(Event::Ask { call, change, node: NodeId(node), wanted })
    }

    pub fn told(self, call: u64, answer: Told) -> Self {
        self.event(Event::Told { call, answer })
    }

    /// A node knows of the voters that the entry `index` of term 1 made.
    pub fn members(self, node: u64, index: u64, voters: &[u64]) -> Self {
        let voters = voters.iter().copied().map(NodeId).collect();
        let (node, term, joint, learners) = (NodeId(node), 1, false, Vec::new());
        self.event(Event::Members(Members { node, term, index, joint, voters, learners }))
    }

    pub fn triggered(self, op: u64, row: &RunRow) -> Self {
        self.returned(op, Outcome::Triggered { triggered: Triggered { run: row.run, occurrence_id: row.occurrence } })
    }

    pub fn read_run(self, op: u64, row: &RunRow) -> Self {
        self.returned(op, Outcome::Run { run: Box::new(view(row)) })
    }

    /// Task `number` in the end; 1 is the one that everything else is about.
    pub fn final_task(self, number: u64, change: impl FnOnce(&mut TaskView)) -> Self {
        let mut task = TaskView {
            id: TaskId(TASK.0 + number - 1),
            namespace: "default".into(),
            name: if number == 1 { "a".into() } else { format!("a{number}") },
            version: 1,
            state: TaskStatus::Active,
            created_at: second(0),
            updated_at: second(0),
            next: None,
            decided_until: None,
            remaining_fires: None,
            tally: Tally::default(),
            spec: spec(),
        };
        change(&mut task);
        self.event(Event::FinalTask { task: Box::new(task) })
    }

    pub fn final_run(self, row: &RunRow) -> Self {
        self.final_view(row, |_| {})
    }

    pub fn final_view(self, row: &RunRow, change: impl FnOnce(&mut RunView)) -> Self {
        let mut run = view(row);
        change(&mut run);
        self.event(Event::FinalRun { run: Box::new(run) })
    }

    /// The task's ledger in the end, of which so many fires were folded.
    pub fn folded(self, fired: u64) -> Self {
        let folded = Tally { fired, ..Tally::default() };
        let items = Vec::new();
        let ledger =
            LedgerView { task_id: TASK, decided_until: None, tally: folded, folded, items, next_page_token: None };
        self.event(Event::FinalLedger { ledger })
    }

    /// The leader's rows: the task's, its definition, and what is changed.
    pub fn rows(self, index: u64, change: impl FnOnce(&mut Rows)) -> Self {
        let tasks = vec![TaskRows { task: TASK, fired: 0, ranges: 0, versions: 1 }];
        let mut rows = Rows { node: NodeId(1), index, tasks, runs: 0, first_key: None, first_timer: None };
        change(&mut rows);
        self.event(Event::Rows(rows))
    }

    /// The task's ledger in the end, with a line for each of these runs, which have succeeded.
    pub fn ledger(self, runs: &[RunRow]) -> Self {
        let line = |run: &RunRow| LedgerLineView {
            kind: Kind::Fired,
            reason: None,
            origin: run.occurrence.origin.into(),
            scheduled_at: run.occurrence.scheduled_at,
            last: run.occurrence.scheduled_at,
            count: 1,
            version: None,
            occurrence_id: Some(run.occurrence),
            run: Some(run.run),
            run_state: Some(RunState::Succeeded),
        };
        let tally = Tally { fired: runs.len() as u64, ..Tally::default() };
        let (items, folded) = (runs.iter().map(line).collect(), Tally::default());
        let ledger = LedgerView { task_id: TASK, decided_until: None, tally, folded, items, next_page_token: None };
        self.event(Event::FinalLedger { ledger })
    }

    pub fn bound(self, name: &str, most: u64, limit: u64) -> Self {
        self.event(Event::Bound { node: NodeId(1), name: name.into(), most, limit })
    }
}

/// A quiet history with something for every checker: a task is put and fires, nodes agree, one takes in a snapshot.
pub fn calm() -> History {
    let history = long(1);
    let runs = [fired(4, 10), attempt(&fired(6, 20), 2, 8)];
    let asked = Action::Get { name: "nobody".into() };
    let unknown = Outcome::Refused { status: 404, code: "task_not_found".into() };
    let mut script = Script { t: history.end(), history }.event(Event::Closing).invoke(90, asked).returned(90, unknown);
    for (run, index) in runs.iter().zip([5, 9]) {
        script = script.final_view(&ended(run, index, RunState::Succeeded), |view| {
            view.attempts[0].status = Some(200);
            if run.attempt == 2 {
                let first = record(&fired(6, 20), AttemptResult::Failed);
                view.attempts.insert(0, AttemptRecord { status: Some(500), error: "answered 500".into(), ..first });
                view.attempts[1].ended_at = second(21);
            }
        });
    }
    script.ledger(&runs).done()
}

/// The same, with so many fires.
pub fn long(fires: u64) -> History {
    let mut script = Script::new()
        .started(1)
        .started(2)
        .started(3)
        .members(1, 1, &[1, 2, 3])
        .raft(1, 1, |state| (state.leads, state.voted_for) = (true, Some(NodeId(1))))
        .node(1, NodeEvent::Leads { term: 1 })
        .at(100)
        .entry(2)
        .node_row(2, 1, 1, 2, true)
        .node_row(2, 3, 1, 2, true)
        .lease(1, 1, 1, 1_000_000_000)
        .lease(3, 1, 1, 1500)
        .invoke(1, put())
        .at(200)
        .entry(3)
        .task_row(3, 1, TaskStatus::Active, 0, Some(10))
        .apply(1, 3, 3)
        .at(300)
        .wrote(1, Change::Created, 1)
        .invoke(2, Action::Get { name: "a".into() })
        .read(2, |_| {})
        .invoke(
            3,
            Action::Put {
                create_only: true,
                name: "a".into(),
                spec: Box::new(spec()),
                if_version: None,
                idempotency_key: None,
            },
        )
        .returned(3, Outcome::Refused { status: 409, code: "task_exists".into() });
    for nth in 0..fires {
        let (index, due) = (4 + 2 * nth, 10 + 10 * nth as i64);
        let run = fired(index, due);
        let done = changed(&ended(&run, index + 1, RunState::Succeeded), |row| {
            row.last = Some(AttemptRecord { status: Some(200), ..record(&run, AttemptResult::Succeeded) });
        });
        script = script
            .at(due as u64 * 1000)
            .entry(index)
            .task_row(index, 1, TaskStatus::Active, due, Some(due + 10))
            .row(&run);
        script = script.apply(1, index, index).deliver(nth + 1, &run).answer(nth + 1, 200);
        script = script.entry(index + 1).row(&done).apply(1, index + 1, 0);
    }
    // One more, whose first attempt fails.
    let (index, due) = (4 + 2 * fires, 10 + 10 * fires as i64);
    let run = fired(index, due);
    let delivery = fires + 1;
    let waits = changed(&retrying(&run, index + 1, due + 1), |row| {
        let failed = record(row, AttemptResult::Failed);
        row.last = Some(AttemptRecord { status: Some(500), error: "answered 500".into(), ..failed });
    });
    let again = attempt(&waits, 2, index + 2);
    let done = changed(&ended(&again, index + 3, RunState::Succeeded), |row| {
        let ended_at = second(due + 1);
        row.finished_at = Some(ended_at);
        row.last = Some(AttemptRecord { ended_at, status: Some(200), ..record(&again, AttemptResult::Succeeded) });
    });
    script = script
        .at(due as u64 * 1000)
        .entry(index)
        .task_row(index, 1, TaskStatus::Active, due, Some(due + 10))
        .row(&run)
        .apply(1, index, index);
    script = script.deliver(delivery, &run).answer(delivery, 500).entry(index + 1).row(&waits).apply(1, index + 1, 0);
    script = script.at((due as u64 + 1) * 1000).entry(index + 2).row(&again).apply(1, index + 2, 0);
    script = script.delivery(delivery + 1, &again, |delivery| {
        delivery.request = Some(Box::new(request(&again, due + 1)));
    });
    script = script.answer(delivery + 1, 200).entry(index + 3).row(&done).apply(1, index + 3, 0);
    let last = index + 3;
    script = script.node_row(last, 3, 1, last, false);
    script = script.snapshot(1, last).snapshot(3, last).digest(1, last, "d").digest(3, last, "d");
    script = script.rows(last, |rows| rows.tasks[0].fired = fires);
    let whole = Event::FinalState { node: NodeId(1), read: FinalRead::Whole };
    // It leads already.
    script = script.ask(1, 1, 2, Wanted::TransferLeader { to: NodeId(1) }).told(1, Told::Done);
    script.bound("queue", 1, 10).healed().converged().final_task(1, |_| {}).event(whole).done()
}

fn finding(name: &str, script: Script) -> Finding {
    let history = script.done();
    let (_, check) = ALL.iter().find(|(known, _)| *known == name).expect("a registered invariant");
    check(&Facts::new(&history))
}

#[track_caller]
pub fn accepts(name: &str, script: Script) {
    match finding(name, script) {
        Finding::Held { checked } => assert!(checked > 0, "{name} looked at nothing"),
        other => panic!("{name} does not accept: {other:?}"),
    }
}

/// As [`accepts`], where there may be nothing that the checker is about.
#[track_caller]
pub fn permits(name: &str, script: Script) {
    let found = finding(name, script);
    assert!(!matches!(found, Finding::Violated(_)), "{name} does not permit: {found:?}");
}

#[track_caller]
pub fn refuses(name: &str, script: Script) {
    match finding(name, script) {
        Finding::Violated(violations) => {
            assert!(violations.iter().all(|violation| violation.invariant == name), "{violations:?}");
        }
        other => panic!("{name} does not refuse: {other:?}"),
    }
}

#[track_caller]
pub fn not_applicable(name: &str, script: Script) {
    let found = finding(name, script);
    assert!(matches!(found, Finding::NotApplicable { .. }), "{name}: {found:?}");
}
