//! The near future in memory: a timing wheel fed from the time index on disk as its far edge moves, and from the
//! effects of what is applied meanwhile. What lies beyond the edge waits on disk, so memory follows the window and not
//! the number of tasks.

use std::time::Duration;

use campanile_model::{Millis, RunId, TaskId, Timer, Timestamp, Token, bound, filled, planted, sometimes};
use campanile_store::{StoreError, TaskTimer, TimerKey, TimerRow, View};
use campanile_timer::Wheel;

/// How far ahead the wheel is filled.
const HORIZON: Millis = Millis::from_secs(30);
/// Timers in the wheel at most; with more due inside the horizon the edge moves more slowly.
const CAPACITY: usize = 200_000;
/// Rows read from the time index in one step.
const STEP: usize = 8192;
/// Steps in one go, so that a long read does not hold up what is due.
const STEPS: usize = 4;
/// Longest sleep when nothing is due: new timers wake the loop by their effects anyway.
const IDLE: Duration = Duration::from_secs(1);

/// A timer of the wheel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Armed {
    Task(TaskId, TaskTimer),
    Retry(RunId, Token),
    Expire(TaskId),
}

pub(crate) struct Window {
    wheel: Wheel<Armed>,
    /// Rows up to here, inclusive, are in the wheel (or were); later ones are on disk only.
    edge: Option<TimerKey>,
    /// The whole of the index before this instant has been read.
    filled_until: Timestamp,
}

impl Window {
    /// An empty window that starts at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { wheel: Wheel::new(now), edge: None, filled_until: Timestamp::MIN }
    }

    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// How long until a timer is due.
    pub fn until_due(&self, now: Timestamp) -> Duration {
        let late = Millis(if planted!(TimersLate) { 500 } else { 0 });
        self.wheel.next_deadline().map_or(IDLE, |due| due.saturating_add(late).since(now).to_std().min(IDLE))
    }

    pub fn first_due(&self) -> Option<Timestamp> {
        self.wheel.next_deadline()
    }

    pub fn advance(&mut self, now: Timestamp) -> Vec<(Timestamp, Armed)> {
        let now = if planted!(EarlyFire) { now.saturating_add(Millis(120)) } else { now };
        let now = if planted!(TimersLate) { now.saturating_sub(Millis(500)) } else { now };
        let mut due = Vec::new();
        self.wheel.advance(now, &mut due);
        due
    }

    pub fn arm_task(&mut self, task: TaskId, wake_at: Timestamp, timer: TaskTimer) {
        self.arm(TimerKey { wake_at, timer: Timer::Task(task) }, Armed::Task(task, timer));
    }

    pub fn arm_retry(&mut self, run: RunId, wake_at: Timestamp, token: Token) {
        self.arm(TimerKey { wake_at, timer: Timer::Retry(run) }, Armed::Retry(run, token));
    }

    pub fn arm_expiry(&mut self, task: TaskId, wake_at: Timestamp) {
        self.arm(TimerKey { wake_at, timer: Timer::Expire(task) }, Armed::Expire(task));
    }

    /// Takes a timer that lies inside the window; one beyond the edge will be read from disk.
    fn arm(&mut self, key: TimerKey, armed: Armed) {
        let inside = key.wake_at < self.filled_until || self.edge.is_some_and(|edge| key <= edge);
        if !inside {
            return;
        }
        if self.wheel.len() >= 2 * bound!(WindowTimers, CAPACITY) {
            // More arrived inside the window than it may hold: start over from disk, which has them all.
            sometimes!(WindowFull);
            tracing::warn!(timers = self.wheel.len(), "window overflowed; reading it again from disk");
            self.wheel.clear(self.wheel.now());
            self.edge = None;
            self.filled_until = Timestamp::MIN;
            return;
        }
        self.wheel.insert(key.wake_at, armed);
        filled!("conductor window", self.wheel.len(), 2 * bound!(WindowTimers, CAPACITY));
    }

    /// Whether the edge has come too near, and there is room.
    pub fn wants_filling(&self, now: Timestamp) -> bool {
        let far_enough = now.saturating_add(Millis(bound!(WindowHorizon, HORIZON).0 / 4 * 3));
        self.filled_until < far_enough && self.wheel.len() < bound!(WindowTimers, CAPACITY)
    }

    /// Moves the edge towards `now` plus the horizon. Rows before `from` are the backlog's.
    pub fn fill(&mut self, view: &View, from: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let until = now.saturating_add(bound!(WindowHorizon, HORIZON));
        for _ in 0..STEPS {
            if self.wants_filling(now) {
                self.step(view, from, until)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, view: &View, from: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let after = self.edge.or(Some(before(from)));
        // Filling begins below the capacity, and is not to go beyond twice as much.
        let step = bound!(WindowStep, STEP).min(bound!(WindowTimers, CAPACITY));
        let rows = view.timers(after, until, step)?;
        for row in &rows {
            if let Some(armed) = armed(row) {
                self.wheel.insert(row.key.wake_at, armed);
            }
        }
        filled!("conductor window", self.wheel.len(), 2 * bound!(WindowTimers, CAPACITY));
        match rows.last() {
            Some(last) if rows.len() == step => {
                sometimes!(WindowInSteps);
                self.edge = Some(last.key);
                // Everything with an earlier instant than the last row has been read.
                self.filled_until = last.key.wake_at;
            }
            _ => {
                let until = if planted!(WindowEdgeLost) { until.saturating_add(Millis(5000)) } else { until };
                self.edge = Some(before(until));
                self.filled_until = until;
            }
        }
        Ok(())
    }
}

/// The last key before every key of an instant, so that a scan after it starts with that instant.
pub(crate) fn before(instant: Timestamp) -> TimerKey {
    TimerKey { wake_at: instant.saturating_sub(Millis(1)), timer: Timer::Expire(TaskId(u64::MAX)) }
}

/// The timer of a row of the time index.
pub(crate) fn armed(row: &TimerRow) -> Option<Armed> {
    match row.key.timer {
        Timer::Task(task) => row.task.map(|timer| Armed::Task(task, timer)),
        Timer::Retry(run) => row.token.map(|token| Armed::Retry(run, token)),
        Timer::Expire(task) => Some(Armed::Expire(task)),
    }
}
