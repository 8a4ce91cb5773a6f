//! A task name as an object by itself: what each request does to it, and what it may be answered.
//!
//! A task's status also changes without a request, at moments nobody sees: it finishes, pauses itself, is removed. So a
//! state holds the set of statuses that it may have by now, and an answer narrows it.

use campanile_model::api::{Change, TaskWritten};
use campanile_model::{OnFinish, TaskId, TaskSpec, TaskStatus};

use crate::expect::may_run_out;
use crate::history::{Action, Outcome};

/// Refusals that say something of the task.
pub const TELLING: [&str; 4] = ["task_not_found", "task_exists", "version_mismatch", "task_finished"];

pub struct Model {
    /// Receivers have answered 410, which pauses a task.
    pub gone: bool,
    /// It lasts long enough for finished tasks to be removed.
    pub expires: bool,
}

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// The statuses it may have, as bits.
    may_be: u8,
    /// The id of the task that bears the name; `None` if no answer has told it yet.
    id: Option<u64>,
    /// Ids rise with the log: that of the next task is above this.
    above: u64,
    version: u32,
    /// Its definition, as a place in the list of all that are put.
    spec: usize,
    triggers: u32,
}

const ABSENT: u8 = 1;
const ACTIVE: u8 = 2;
const PAUSED: u8 = 4;
const FINISHED: u8 = 8;
const PRESENT: u8 = ACTIVE | PAUSED | FINISHED;

fn bit(status: TaskStatus) -> u8 {
    match status {
        TaskStatus::Active => ACTIVE,
        TaskStatus::Paused => PAUSED,
        TaskStatus::Finished => FINISHED,
        TaskStatus::Deleted => ABSENT,
    }
}

impl State {
    pub fn absent() -> Self {
        Self { may_be: ABSENT, id: None, above: 0, version: 0, spec: 0, triggers: 0 }
    }

    /// As it is, if it can be one of these.
    fn only(&self, statuses: u8) -> Option<Self> {
        let may_be = self.may_be & statuses;
        let narrowed = Self { may_be, ..self.clone() };
        match may_be {
            0 => None,
            ABSENT => Some(narrowed.gone()),
            _ => Some(narrowed),
        }
    }

    /// The name is free.
    fn gone(&self) -> Self {
        Self { above: self.id.unwrap_or(self.above), ..Self::absent() }
    }

    /// As it is, if its task can have this id.
    fn named(mut self, id: u64) -> Option<Self> {
        match self.id {
            Some(known) => (known == id).then_some(self),
            None if id > self.above => {
                self.id = Some(id);
                Some(self)
            }
            None => None,
        }
    }
}

impl Model {
    /// The states after a request that got this answer; none if it cannot have got it here. Without an answer, the
    /// states if it took effect.
    pub fn step(&self, state: &State, action: &Action, outcome: Option<&Outcome>, specs: &[&TaskSpec]) -> Vec<State> {
        let state = self.by_itself(state, specs);
        match outcome {
            None if matches!(action, Action::Put { .. }) => put_unanswered(&state, action, specs),
            None => verb_unanswered(&state, action).into_iter().collect(),
            Some(outcome) => answered(&state, action, outcome, specs).into_iter().collect(),
        }
    }

    /// With all that the task may have become without anybody asking.
    fn by_itself(&self, state: &State, specs: &[&TaskSpec]) -> State {
        let mut state = state.clone();
        let Some(spec) = specs.get(state.spec).filter(|_| state.may_be & PRESENT != 0) else { return state };
        if state.may_be & ACTIVE != 0 && (self.gone || spec.pause_on_failure.is_some()) {
            state.may_be |= PAUSED;
        }
        if state.may_be & (ACTIVE | PAUSED) != 0 && may_run_out(spec) {
            state.may_be |= FINISHED;
        }
        let goes = spec.is_one_shot() || spec.on_finish == OnFinish::Delete;
        if state.may_be & FINISHED != 0 && self.expires && goes {
            state.may_be |= ABSENT;
        }
        state
    }
}

fn answered(state: &State, action: &Action, outcome: &Outcome, specs: &[&TaskSpec]) -> Option<State> {
    match outcome {
        Outcome::Refused { code, .. } => refused(state, action, code),
        Outcome::Written { task } => match action {
            Action::Put { .. } => put_answered(state, action, task, specs),
            _ => verb_answered(state, action, task),
        },
        Outcome::Triggered { triggered } => {
            let mut after = state.only(PRESENT)?.named(triggered.occurrence_id.task.0)?;
            after.triggers += 1;
            let manual = campanile_model::Origin::Manual(after.triggers);
            (triggered.occurrence_id.origin == manual).then_some(after)
        }
        Outcome::Read { task } => {
            let after = state.only(bit(task.state))?.named(task.id.0)?;
            let spec = specs.get(after.spec)?;
            (after.version == task.version && same_spec(spec, &task.spec)).then_some(after)
        }
        Outcome::Ledger { ledger } => state.only(PRESENT)?.named(ledger.task_id.0),
        Outcome::Runs { items, .. } => match items.first() {
            Some(run) => state.only(PRESENT)?.named(run.task_id.0),
            None => state.only(PRESENT),
        },
        Outcome::Preview { .. } => state.only(PRESENT),
        Outcome::Run { .. } | Outcome::Tasks { .. } | Outcome::Batch { .. } | Outcome::Unknown { .. } => None,
    }
}

/// A write with an idempotency key, or without a name, is a `POST`, which creates.
fn creates_only(action: &Action) -> bool {
    matches!(action, Action::Put { name, create_only, idempotency_key, .. }
        if *create_only || idempotency_key.is_some() || name.is_empty())
}

/// Whether a request makes the task if it is not there.
fn may_create(action: &Action) -> bool {
    matches!(action, Action::Put { name, if_version: None, .. } if name.parse::<TaskId>().is_err())
}

fn wanted_version(action: &Action) -> Option<u32> {
    match action {
        Action::Put { if_version, .. }
        | Action::Pause { if_version, .. }
        | Action::Resume { if_version, .. }
        | Action::Delete { if_version, .. } => *if_version,
        _ => None,
    }
}

fn refused(state: &State, action: &Action, code: &str) -> Option<State> {
    match code {
        // What may create finds a free name; what is an id's text is a name that nobody can take.
        "task_not_found" => state.only(ABSENT).filter(|_| !may_create(action)),
        "task_exists" => state.only(PRESENT).filter(|_| creates_only(action)),
        "version_mismatch" => {
            let wanted = wanted_version(action)?;
            state.only(PRESENT).filter(|state| state.version != wanted)
        }
        "task_finished" => {
            let stops = matches!(action, Action::Pause { .. } | Action::Resume { .. });
            state.only(FINISHED).filter(|_| stops)
        }
        _ => None,
    }
}

fn put_answered(state: &State, action: &Action, task: &TaskWritten, specs: &[&TaskSpec]) -> Option<State> {
    let Action::Put { spec, .. } = action else { return None };
    let place = specs.iter().position(|known| **known == **spec)?;
    let wanted = wanted_version(action);
    match task.change {
        Change::Created if wanted.is_none() && task.version == 1 => {
            let free = state.only(ABSENT)?;
            State { may_be: bit(task.state), version: 1, spec: place, ..free }.named(task.id.0)
        }
        Change::Updated | Change::Unchanged if creates_only(action) => None,
        Change::Updated => {
            let before = state.only(PRESENT)?.named(task.id.0)?;
            let may_become = if before.may_be & (ACTIVE | FINISHED) != 0 { ACTIVE | FINISHED } else { 0 };
            let fits = wanted.is_none_or(|wanted| wanted == before.version)
                && task.version == before.version + 1
                && bit(task.state) & (may_become | before.may_be & PAUSED) != 0
                && *specs.get(before.spec)? != &**spec;
            fits.then(|| State { may_be: bit(task.state), version: task.version, spec: place, ..before })
        }
        Change::Unchanged => {
            let before = state.only(bit(task.state))?.named(task.id.0)?;
            let fits = wanted.is_none_or(|wanted| wanted == before.version)
                && task.version == before.version
                && same_spec(specs.get(before.spec)?, spec);
            fits.then_some(before)
        }
        _ => None,
    }
}

fn verb_answered(state: &State, action: &Action, task: &TaskWritten) -> Option<State> {
    let (from, to) = match (action, task.change) {
        (Action::Pause { .. }, Change::Paused) => (ACTIVE, PAUSED),
        (Action::Pause { .. }, Change::Unchanged) => (PAUSED, PAUSED),
        // Resumed after its last occurrence, a task is finished.
        (Action::Resume { .. }, Change::Resumed) => (PAUSED, ACTIVE | FINISHED),
        (Action::Resume { .. }, Change::Unchanged) => (ACTIVE, ACTIVE),
        (Action::Delete { .. }, Change::Deleted) => (PRESENT, ABSENT),
        _ => return None,
    };
    let before = state.only(from)?.named(task.id.0)?;
    let may_be = to & bit(task.state);
    match may_be {
        _ if before.version != task.version => None,
        _ if wanted_version(action).is_some_and(|wanted| wanted != before.version) => None,
        0 => None,
        ABSENT => Some(before.gone()),
        _ => Some(State { may_be, ..before }),
    }
}

/// The states if a put that got no answer took effect.
fn put_unanswered(state: &State, action: &Action, specs: &[&TaskSpec]) -> Vec<State> {
    let Action::Put { spec, .. } = action else { return Vec::new() };
    let Some(place) = specs.iter().position(|known| **known == **spec) else { return Vec::new() };
    let wanted = wanted_version(action);
    let mut after = Vec::new();
    if let Some(free) = state.only(ABSENT).filter(|_| wanted.is_none()) {
        after.push(State { may_be: ACTIVE, version: 1, spec: place, ..free });
    }
    if let Some(before) = state.only(PRESENT).filter(|_| !creates_only(action))
        && wanted.is_none_or(|wanted| wanted == before.version)
        && specs.get(before.spec).is_some_and(|known| *known != &**spec)
    {
        let running = if before.may_be & (ACTIVE | FINISHED) != 0 { ACTIVE | FINISHED } else { 0 };
        let may_be = running | before.may_be & PAUSED;
        after.push(State { may_be, version: before.version + 1, spec: place, ..before });
    }
    after
}

/// The state if another request that got no answer took effect.
fn verb_unanswered(state: &State, action: &Action) -> Option<State> {
    if wanted_version(action).is_some_and(|wanted| wanted != state.version) {
        return None;
    }
    match action {
        Action::Pause { .. } => Some(State { may_be: PAUSED, ..state.only(ACTIVE)? }),
        Action::Resume { .. } => Some(State { may_be: ACTIVE | FINISHED, ..state.only(PAUSED)? }),
        Action::Delete { .. } => Some(state.only(PRESENT)?.gone()),
        Action::Trigger { .. } => {
            let before = state.only(PRESENT)?;
            Some(State { triggers: before.triggers + 1, ..before })
        }
        _ => None,
    }
}

/// Equal, but for secrets: reads do not show them.
pub fn same_spec(a: &TaskSpec, b: &TaskSpec) -> bool {
    without_secret(a) == without_secret(b)
}

fn without_secret(spec: &TaskSpec) -> TaskSpec {
    let mut spec = spec.clone();
    let campanile_model::Target::Http(target) = &mut spec.target;
    target.signing_secret = None;
    spec
}
