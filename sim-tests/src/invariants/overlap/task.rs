//! One task while the log is replayed: its live runs in log order, and what the step that is being read has done.

use std::fmt::{self, Display};

use campanile_model::{Overlap, Reason, RunId, RunState, TaskStatus};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub run: RunId,
    pub state: RunState,
}

/// What becomes of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Now,
    Waits,
    Dropped(Reason),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("runs at once"),
            Self::Waits => f.write_str("waits"),
            Self::Dropped(reason) => write!(f, "is dropped as {reason:?}"),
        }
    }
}

#[derive(Debug, Default)]
pub struct Model {
    /// 0 until the task's first row.
    pub version: u32,
    pub status: Option<TaskStatus>,
    /// Of the version, if it is known.
    pub policy: Option<Overlap>,
    pub live: Vec<Live>,
    /// Those that were live when the step began, without those that have ended by themselves since.
    pub before: Vec<Live>,
    /// Cancelled in this step, and not accounted for.
    pub cancelled: Vec<RunId>,
}

impl Model {
    pub fn start(&mut self, run: RunId, state: RunState) {
        let live = Live { run, state };
        self.live.push(live);
        self.before.clone_from(&self.live);
    }

    pub fn set(&mut self, run: RunId, state: RunState) {
        for live in self.live.iter_mut().chain(&mut self.before).filter(|live| live.run == run) {
            live.state = state;
        }
    }

    pub fn cancel(&mut self, run: RunId) {
        self.live.retain(|live| live.run != run);
        self.cancelled.push(run);
    }

    pub fn end(&mut self, run: RunId) {
        self.live.retain(|live| live.run != run);
        self.before.retain(|live| live.run != run);
    }

    /// Those that waited when the step began.
    pub fn waiting(&self) -> Vec<RunId> {
        self.before.iter().filter(|live| live.state == RunState::Pending).map(|live| live.run).collect()
    }

    pub fn next_step(&mut self) {
        self.before.clone_from(&self.live);
    }
}

/// What the documentation promises for an occurrence that comes while these runs are live (docs/reference/tasks.md). A
/// trigger goes before `skip`, and where the buffer is full it is refused, which leaves no row.
pub fn place_of(policy: Overlap, scheduled: bool, live: &[Live], most_waiting: usize) -> Place {
    let waiting = live.iter().filter(|live| live.state == RunState::Pending).count();
    match policy {
        _ if live.is_empty() => Place::Now,
        Overlap::Allow | Overlap::CancelOther => Place::Now,
        Overlap::Skip if scheduled => Place::Dropped(Reason::Overlap),
        Overlap::Skip => Place::Now,
        Overlap::BufferOne => Place::Waits,
        Overlap::BufferAll if waiting >= most_waiting => Place::Dropped(Reason::BufferFull),
        Overlap::BufferAll => Place::Waits,
    }
}

/// Whom it cancels.
pub fn gives_way(policy: Overlap, live: &[Live]) -> Vec<RunId> {
    let gives_way = |live: &&Live| match policy {
        Overlap::CancelOther => true,
        Overlap::BufferOne => live.state == RunState::Pending,
        Overlap::Allow | Overlap::Skip | Overlap::BufferAll => false,
    };
    live.iter().filter(gives_way).map(|live| live.run).collect()
}
