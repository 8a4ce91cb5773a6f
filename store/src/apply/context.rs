//! What every command handler works with: the state as the entry has left it so far, ids, effects, rejections.

use campanile_model::{
    Code, Command, LogPlace, Millis, NodeId, Rejection, Reply, ShardId, ShardOwner, TaskChange, TaskId, TaskName,
    TaskReply, TaskState, Timestamp, Token, planted, sometimes,
};

use super::Cached;
use crate::effect::{Effect, TaskTimer};
use crate::engine::Read;
use crate::error::{StoreError, StoreResult};
use crate::overlay::{Layered, Overlay};
use crate::tables;

/// The one namespace there is.
pub(super) const NAMESPACE: &str = "default";

/// Why a handler stops early.
pub(super) enum Stop {
    /// The command is refused; nothing has been written for it.
    Rejected(Rejection),
    /// The node cannot go on.
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Answer<T = Reply> = Result<T, Stop>;

pub(super) fn reject<T>(code: Code, message: impl Into<String>) -> Answer<T> {
    Err(Stop::Rejected(Rejection::new(code, message)))
}

/// One entry being applied.
pub(super) struct Apply<'a> {
    /// The state before this batch.
    pub base: &'a dyn Read,
    pub overlay: &'a mut Overlay,
    pub cached: &'a mut Cached,
    effects: &'a mut Vec<Effect>,
    index: u64,
    /// The entry's time: the only clock there is.
    pub time: Timestamp,
    next_position: u32,
}

impl<'a> Apply<'a> {
    pub fn new(
        base: &'a dyn Read,
        overlay: &'a mut Overlay,
        cached: &'a mut Cached,
        effects: &'a mut Vec<Effect>,
        index: u64,
        time: Timestamp,
    ) -> Self {
        Self { base, overlay, cached, effects, index, time, next_position: 0 }
    }

    pub fn command(&mut self, command: &Command) -> StoreResult<Reply> {
        let answer = match command {
            Command::PutTask(put) => self.put_task(put),
            Command::PauseTask(pause) => self.pause_task(pause),
            Command::ResumeTask(resume) => self.resume_task(resume),
            Command::DeleteTask(delete) => self.delete_task(delete),
            Command::TriggerTask(trigger) => self.trigger_task(trigger),
            Command::CancelRun { run } => self.cancel_run(*run),
            Command::Fire { lines } => self.fire(lines),
            Command::Outcomes { lines } => self.outcomes(lines),
            Command::Attempts { lines } => self.attempts(lines),
            Command::NodeUp { node, incarnation, shards } => self.node_up(*node, *incarnation, shards),
            Command::NodeLost { node, shards } => self.node_lost(*node, shards),
            Command::MoveShards { shards } => self.shards_given(shards),
            Command::NodeRemoved { node } => self.node_removed(*node),
            Command::TrimTimers { before } => self.trim_timers(*before),
            Command::TrimLedger { task, before, max_lines } => self.trim_ledger(*task, *before, *max_lines),
            Command::ExpireTask { task, max_lines } => self.expire_task(*task, *max_lines),
            Command::ExpireKeys { before, max_keys } => self.expire_keys(*before, *max_keys),
        };
        match answer {
            Ok(reply) => Ok(reply),
            Err(Stop::Rejected(rejection)) => Ok(Reply::Rejected(rejection)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The state as this entry has left it so far.
    pub fn read(&self) -> Layered<'_> {
        Layered { base: self.base, overlay: self.overlay }
    }

    /// A place of the log that nothing else is named after.
    pub fn next_place(&mut self) -> LogPlace {
        let place = LogPlace::new(self.index, self.next_position);
        if !planted!(ReuseRunId) {
            self.next_position += 1;
        }
        place
    }

    pub fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub fn put(&mut self, task: &TaskState) {
        tables::put_task(self.overlay, task);
    }

    pub fn check_namespace(&self, namespace: &str) -> Answer<()> {
        if namespace == NAMESPACE {
            return Ok(());
        }
        reject(Code::NamespaceNotFound, format!("there is no namespace {namespace:?}"))
    }

    /// The task a client names, which must be there.
    pub fn existing_task(&self, name: &TaskName) -> Answer<TaskState> {
        self.check_namespace(&name.namespace)?;
        match tables::find_task(&self.read(), name)? {
            Some(task) => Ok(task),
            None => reject(Code::TaskNotFound, format!("there is no task {:?}", name.name)),
        }
    }

    /// No command may overtake an occurrence that is due: preparation decides it first, in the same entry.
    pub fn check_settled(&self, task: &TaskState) -> Answer<()> {
        match task.next {
            Some(next) if next.due_at <= self.time => {
                sometimes!(NotSettled);
                reject(Code::Conflict, format!("the occurrence due at {} is not decided yet", next.due_at))
            }
            _ => Ok(()),
        }
    }

    /// Enters the task's next occurrence, if there is one, in the time index.
    pub fn arm(&mut self, task: &TaskState) {
        let Some(next) = task.next else { return };
        let wake_at = next.due_at.max(self.time);
        let timer = TaskTimer::of(task, next);
        tables::put_task_timer(self.overlay, wake_at, task.id, &timer);
        self.emit(Effect::TaskArmed { task: task.id, wake_at, timer });
    }

    pub fn arm_expiry(&mut self, task: TaskId, kept: Millis) {
        let wake_at = self.time.saturating_add(kept);
        tables::put_expiry_timer(self.overlay, wake_at, task);
        self.emit(Effect::ExpiryArmed { task, wake_at });
    }

    /// Who delivers the task's runs now.
    pub fn shard_owner(&self, task: TaskId) -> ShardOwner {
        self.cached.shards.shards[usize::from(ShardId::of(task).0)]
    }

    /// Whether nobody can be working on the attempt any more: its node has been fenced since, or it never had one.
    pub fn is_void(&self, owner: NodeId, token: Token) -> bool {
        owner == NodeId::default() || self.cached.nodes.get(&owner).is_some_and(|node| token < node.fence)
    }
}

pub(super) fn check_version(task: &TaskState, wanted: Option<u32>) -> Answer<()> {
    match wanted {
        Some(version) if version != task.version || planted!(MatchRefused) => {
            reject(Code::VersionMismatch, format!("the task is at version {}, not {version}", task.version))
        }
        _ => Ok(()),
    }
}

pub(super) fn task_reply(task: &TaskState, change: TaskChange) -> Reply {
    Reply::Task(TaskReply { id: task.id, version: task.version, change, status: task.status, next: task.next })
}
