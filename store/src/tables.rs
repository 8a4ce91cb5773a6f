//! The rows as types: reading over any consistent state, writing into the batch being built.
//!
//! Nothing here decides anything. A row that does not decode is corruption, which is fatal to the node.

use std::ops::Bound;

use bincode::{Decode, Encode};
use campanile_model::codec::{self, Versioned};
use campanile_model::{
    IdempotencyRow, LedgerRow, NodeState, Run, RunId, ShardId, ShardOwner, ShardTable, TaskId, TaskName, TaskSpec,
    TaskState, TaskStatus, Timer, Timestamp, Token, wrote,
};

use crate::effect::TaskTimer;
use crate::engine::{Family, KeyValue, Read};
use crate::error::{StoreError, StoreResult};
use crate::keys::{self, LineKey, TimerKey};
use crate::overlay::Overlay;

/// How far the state has been applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Position {
    pub index: u64,
    /// Raft's own words about that index.
    pub mark: Vec<u8>,
}

impl Versioned for Position {
    const NAME: &'static str = "applied position";
}

/// What belongs to no row in particular.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Globals {
    /// Time of the last entry.
    pub time: Timestamp,
    /// Timers before this instant are gone from the time index.
    pub timers_trimmed_until: Timestamp,
    pub counts: Counts,
}

impl Default for Globals {
    fn default() -> Self {
        Self { time: Timestamp::MIN, timers_trimmed_until: Timestamp::MIN, counts: Counts::default() }
    }
}

impl Versioned for Globals {
    const NAME: &'static str = "global counters";
}

/// Rows counted as they come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    /// Tasks that clients can see.
    pub tasks: u64,
    pub live_runs: u64,
    pub idempotency_keys: u64,
}

/// What a name stands for.
#[derive(Debug, Encode, Decode)]
pub(crate) struct NameRow {
    task: TaskId,
}

impl Versioned for NameRow {
    const NAME: &'static str = "task name";
}

/// What keeps a superseded version of a task.
#[derive(Debug, Encode, Decode)]
pub(crate) struct VersionRow {
    /// Ledger lines of this version.
    lines: u32,
}

impl Versioned for VersionRow {
    const NAME: &'static str = "superseded version";
}

/// What the time index holds of a retry.
#[derive(Debug, Encode, Decode)]
pub(crate) struct RetryTimer {
    token: Token,
}

impl Versioned for RetryTimer {
    const NAME: &'static str = "retry timer";
}

impl Versioned for TaskTimer {
    const NAME: &'static str = "task timer";
    /// Builds before the first release wrote 1, without `grace`, and 2, without `period`.
    const VERSION: u8 = 3;
}

/// A row of the time index. It is stale, and to be ignored, if the task or run it speaks of no longer agrees with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRow {
    pub key: TimerKey,
    /// For [`Timer::Task`].
    pub task: Option<TaskTimer>,
    /// For [`Timer::Retry`]: the attempt after which the run waits.
    pub token: Option<Token>,
}

pub(crate) fn decode<T: Versioned>(bytes: &[u8]) -> StoreResult<T> {
    codec::decode(bytes).map_err(|source| StoreError::Codec { what: T::NAME, source })
}

fn get<T: Versioned>(read: &dyn Read, family: Family, key: &[u8]) -> StoreResult<Option<T>> {
    read.get(family, key)?.map(|bytes| decode(&bytes)).transpose()
}

/// The rows under these keys, in the order of the keys.
fn get_many<T: Versioned, K: AsRef<[u8]>>(read: &dyn Read, family: Family, keys: &[K]) -> StoreResult<Vec<Option<T>>> {
    let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
    let rows = read.get_many(family, &keys)?;
    rows.into_iter().map(|row| row.map(|bytes| decode(&bytes)).transpose()).collect()
}

/// The row as a batch leaves it, where `below` is what the engine has: read before, together with others.
fn over<T: Versioned>(overlay: &Overlay, below: Option<T>, family: Family, key: &[u8]) -> StoreResult<Option<T>> {
    match overlay.change(family, key) {
        Some(change) => change.map(decode).transpose(),
        None => Ok(below),
    }
}

fn put<T: Versioned>(overlay: &mut Overlay, family: Family, key: Vec<u8>, row: &T) {
    overlay.put(family, key, codec::encode(row));
}

/// A key that does not read as its family's keys do.
fn bad_key(family: Family, key: &[u8]) -> StoreError {
    StoreError::Corrupt(format!("key {key:02x?} in family {}", family.0))
}

// Reading.

pub(crate) fn position(read: &dyn Read) -> StoreResult<Option<Position>> {
    get(read, keys::META, keys::POSITION)
}

pub(crate) fn globals(read: &dyn Read) -> StoreResult<Globals> {
    Ok(get(read, keys::META, keys::GLOBALS)?.unwrap_or_default())
}

/// The shard table; before the first node is up, nobody owns a shard.
pub(crate) fn shards(read: &dyn Read) -> StoreResult<ShardTable> {
    let table = get(read, keys::META, keys::SHARDS)?;
    Ok(table.unwrap_or_else(|| ShardTable { shards: vec![ShardOwner::default(); usize::from(ShardId::COUNT)] }))
}

pub(crate) fn name(read: &dyn Read, namespace: &str, name: &str) -> StoreResult<Option<TaskId>> {
    let row: Option<NameRow> = get(read, keys::NAMES, &keys::named(namespace, name))?;
    Ok(row.map(|row| row.task))
}

pub(crate) fn read_name(value: &[u8]) -> StoreResult<TaskId> {
    decode::<NameRow>(value).map(|row| row.task)
}

pub(crate) fn task(read: &dyn Read, id: TaskId) -> StoreResult<Option<TaskState>> {
    get(read, keys::TASKS, &keys::task(id))
}

/// The tasks of these ids, in their order.
pub(crate) fn tasks(read: &dyn Read, ids: &[TaskId]) -> StoreResult<Vec<Option<TaskState>>> {
    let keys: Vec<_> = ids.iter().map(|id| keys::task(*id)).collect();
    get_many(read, keys::TASKS, &keys)
}

/// The task, where `below` is what the engine has of it.
pub(crate) fn task_over(overlay: &Overlay, below: Option<TaskState>, id: TaskId) -> StoreResult<Option<TaskState>> {
    over(overlay, below, keys::TASKS, &keys::task(id))
}

/// A task that another row speaks of, so it must be there.
pub(crate) fn known_task(read: &dyn Read, id: TaskId) -> StoreResult<TaskState> {
    task(read, id)?.ok_or_else(|| StoreError::Corrupt(format!("task {id} has no row")))
}

/// The same for tasks of which other rows speak.
pub(crate) fn known_tasks(read: &dyn Read, ids: &[TaskId]) -> StoreResult<Vec<TaskState>> {
    let found = tasks(read, ids)?.into_iter().zip(ids);
    found.map(|(task, id)| task.ok_or_else(|| StoreError::Corrupt(format!("task {id} has no row")))).collect()
}

/// The task that clients mean by this name, which may be an id's text. Deleted tasks are invisible.
pub(crate) fn find_task(read: &dyn Read, wanted: &TaskName) -> StoreResult<Option<TaskState>> {
    let found = match wanted.name.parse::<TaskId>() {
        Ok(id) => task(read, id)?,
        Err(_) => match name(read, &wanted.namespace, &wanted.name)? {
            Some(id) => Some(known_task(read, id)?),
            None => None,
        },
    };
    Ok(found.filter(|task| task.namespace == wanted.namespace && task.status != TaskStatus::Deleted))
}

pub(crate) fn spec(read: &dyn Read, id: TaskId, version: u32) -> StoreResult<Option<TaskSpec>> {
    get(read, keys::SPECS, &keys::version(id, version))
}

/// These versions of tasks, in their order.
pub(crate) fn specs(read: &dyn Read, versions: &[(TaskId, u32)]) -> StoreResult<Vec<Option<TaskSpec>>> {
    let keys: Vec<_> = versions.iter().map(|(id, version)| keys::version(*id, *version)).collect();
    get_many(read, keys::SPECS, &keys)
}

/// The current definition of a task that is there.
pub(crate) fn known_spec(read: &dyn Read, id: TaskId, version: u32) -> StoreResult<TaskSpec> {
    spec(read, id, version)?.ok_or_else(|| StoreError::Corrupt(format!("version {version} of task {id} has no row")))
}

/// The current definitions of tasks that are there.
pub(crate) fn known_specs(read: &dyn Read, versions: &[(TaskId, u32)]) -> StoreResult<Vec<TaskSpec>> {
    let missing = |(id, version)| StoreError::Corrupt(format!("version {version} of task {id} has no row"));
    let found = specs(read, versions)?.into_iter().zip(versions);
    found.map(|(spec, of)| spec.ok_or_else(|| missing(*of))).collect()
}

/// Ledger lines of a superseded version that still has some.
pub(crate) fn known_version_lines(read: &dyn Read, id: TaskId, version: u32) -> StoreResult<u32> {
    let row: Option<VersionRow> = get(read, keys::VERSIONS, &keys::version(id, version))?;
    row.map(|row| row.lines)
        .ok_or_else(|| StoreError::Corrupt(format!("version {version} of task {id} has lines and no count of them")))
}

pub(crate) fn live_run(read: &dyn Read, id: RunId) -> StoreResult<Option<Run>> {
    get(read, keys::LIVE, &keys::run(id))
}

/// The live runs among these, in their order.
pub(crate) fn live_runs(read: &dyn Read, ids: &[RunId]) -> StoreResult<Vec<Option<Run>>> {
    let keys: Vec<_> = ids.iter().map(|id| keys::run(*id)).collect();
    get_many(read, keys::LIVE, &keys)
}

/// The live run, where `below` is what the engine has of it.
pub(crate) fn live_run_over(overlay: &Overlay, below: Option<Run>, id: RunId) -> StoreResult<Option<Run>> {
    over(overlay, below, keys::LIVE, &keys::run(id))
}

/// A run that its task lists as live.
pub(crate) fn known_live_run(read: &dyn Read, id: RunId) -> StoreResult<Run> {
    live_run(read, id)?.ok_or_else(|| StoreError::Corrupt(format!("run {id} is listed as live and has no row")))
}

pub(crate) fn is_live(read: &dyn Read, id: RunId) -> StoreResult<bool> {
    Ok(read.get(keys::LIVE, &keys::run(id))?.is_some())
}

pub(crate) fn finished_run(read: &dyn Read, id: RunId) -> StoreResult<Option<Run>> {
    get(read, keys::RUNS, &keys::run(id))
}

/// A run that is not live and that its task's ledger names.
pub(crate) fn known_finished_run(read: &dyn Read, id: RunId) -> StoreResult<Run> {
    finished_run(read, id)?.ok_or_else(|| StoreError::Corrupt(format!("run {id} is in the ledger and has no row")))
}

pub(crate) fn ledger_row(read: &dyn Read, line: LineKey) -> StoreResult<Option<LedgerRow>> {
    get(read, keys::LEDGER, &keys::ledger(line))
}

pub(crate) fn read_ledger_row((key, value): KeyValue) -> StoreResult<(LineKey, LedgerRow)> {
    let line = keys::read_ledger(&key).ok_or_else(|| bad_key(keys::LEDGER, &key))?;
    Ok((line, decode(&value)?))
}

/// The oldest ledger rows of a task, at most `max`.
pub(crate) fn oldest_ledger_rows(read: &dyn Read, task: TaskId, max: usize) -> StoreResult<Vec<(LineKey, LedgerRow)>> {
    ledger_rows(read, task, max, false)
}

/// The newest ledger rows of a task, newest first, at most `max`.
pub(crate) fn newest_ledger_rows(read: &dyn Read, task: TaskId, max: usize) -> StoreResult<Vec<(LineKey, LedgerRow)>> {
    ledger_rows(read, task, max, true)
}

fn ledger_rows(
    read: &dyn Read,
    task: TaskId,
    max: usize,
    newest_first: bool,
) -> StoreResult<Vec<(LineKey, LedgerRow)>> {
    let lower = keys::task(task);
    let end = keys::after_prefix(&lower);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let rows = read.scan(keys::LEDGER, Bound::Included(&lower), upper, newest_first);
    rows.take(max).map(|row| read_ledger_row(row?)).collect()
}

pub(crate) fn idempotency(read: &dyn Read, named: &[u8]) -> StoreResult<Option<IdempotencyRow>> {
    get(read, keys::IDEM, named)
}

pub(crate) fn nodes(read: &dyn Read) -> StoreResult<Vec<NodeState>> {
    read.scan(keys::NODES, Bound::Unbounded, Bound::Unbounded, false).map(|row| decode(&row?.1)).collect()
}

pub(crate) fn read_timer((key, value): KeyValue) -> StoreResult<TimerRow> {
    let key = keys::read_timer(&key).ok_or_else(|| bad_key(keys::TIME, &key))?;
    Ok(match key.timer {
        Timer::Task(_) => TimerRow { key, task: Some(decode(&value)?), token: None },
        Timer::Retry(_) => TimerRow { key, task: None, token: Some(decode::<RetryTimer>(&value)?.token) },
        Timer::Expire(_) => TimerRow { key, task: None, token: None },
    })
}

// Writing.

pub(crate) fn put_position(overlay: &mut Overlay, position: &Position) {
    put(overlay, keys::META, keys::POSITION.to_vec(), position);
}

pub(crate) fn put_globals(overlay: &mut Overlay, globals: &Globals) {
    put(overlay, keys::META, keys::GLOBALS.to_vec(), globals);
}

pub(crate) fn put_shards(overlay: &mut Overlay, table: &ShardTable) {
    put(overlay, keys::META, keys::SHARDS.to_vec(), table);
}

/// A task's row in the list of names; one without a name has a row there too, so that lists find it.
fn name_key(task: &TaskState) -> Vec<u8> {
    match task.name.as_str() {
        "" => keys::unnamed(&task.namespace, task.id),
        name => keys::named(&task.namespace, name),
    }
}

pub(crate) fn put_name(overlay: &mut Overlay, task: &TaskState) {
    put(overlay, keys::NAMES, name_key(task), &NameRow { task: task.id });
}

pub(crate) fn delete_name(overlay: &mut Overlay, task: &TaskState) {
    overlay.delete(keys::NAMES, name_key(task));
}

pub(crate) fn put_task(overlay: &mut Overlay, task: &TaskState) {
    wrote!(Task, Box::new(task.clone()));
    put(overlay, keys::TASKS, keys::task(task.id).to_vec(), task);
}

pub(crate) fn delete_task(overlay: &mut Overlay, id: TaskId) {
    overlay.delete(keys::TASKS, keys::task(id).to_vec());
}

pub(crate) fn put_spec(overlay: &mut Overlay, id: TaskId, version: u32, spec: &TaskSpec) {
    put(overlay, keys::SPECS, keys::version(id, version), spec);
}

pub(crate) fn delete_spec(overlay: &mut Overlay, id: TaskId, version: u32) {
    overlay.delete(keys::SPECS, keys::version(id, version));
}

pub(crate) fn put_version_lines(overlay: &mut Overlay, id: TaskId, version: u32, lines: u32) {
    put(overlay, keys::VERSIONS, keys::version(id, version), &VersionRow { lines });
}

/// A superseded version that nothing refers to any more.
pub(crate) fn delete_version(overlay: &mut Overlay, id: TaskId, version: u32) {
    overlay.delete(keys::VERSIONS, keys::version(id, version));
    delete_spec(overlay, id, version);
}

pub(crate) fn put_live_run(overlay: &mut Overlay, run: &Run) {
    wrote!(Run, Box::new(run.clone()));
    put(overlay, keys::LIVE, keys::run(run.id).to_vec(), run);
}

/// Moves a run from `live` to `runs`.
pub(crate) fn move_finished_run(overlay: &mut Overlay, run: &Run) {
    wrote!(Run, Box::new(run.clone()));
    overlay.delete(keys::LIVE, keys::run(run.id).to_vec());
    put(overlay, keys::RUNS, keys::run(run.id).to_vec(), run);
}

pub(crate) fn delete_finished_run(overlay: &mut Overlay, id: RunId) {
    overlay.delete(keys::RUNS, keys::run(id).to_vec());
}

pub(crate) fn put_ledger_row(overlay: &mut Overlay, line: LineKey, row: &LedgerRow) {
    put(overlay, keys::LEDGER, keys::ledger(line), row);
}

pub(crate) fn delete_ledger_row(overlay: &mut Overlay, line: LineKey) {
    overlay.delete(keys::LEDGER, keys::ledger(line));
}

pub(crate) fn put_idempotency(overlay: &mut Overlay, named: Vec<u8>, row: &IdempotencyRow) {
    put(overlay, keys::IDEM, named, row);
}

pub(crate) fn put_node(overlay: &mut Overlay, node: &NodeState) {
    wrote!(Node, node.clone());
    put(overlay, keys::NODES, keys::node(node.id).to_vec(), node);
}

pub(crate) fn put_task_timer(overlay: &mut Overlay, wake_at: Timestamp, task: TaskId, timer: &TaskTimer) {
    put(overlay, keys::TIME, keys::timer(TimerKey { wake_at, timer: Timer::Task(task) }), timer);
}

pub(crate) fn put_retry_timer(overlay: &mut Overlay, wake_at: Timestamp, run: RunId, token: Token) {
    put(overlay, keys::TIME, keys::timer(TimerKey { wake_at, timer: Timer::Retry(run) }), &RetryTimer { token });
}

/// The key says it all; the row is empty.
pub(crate) fn put_expiry_timer(overlay: &mut Overlay, wake_at: Timestamp, task: TaskId) {
    overlay.put(keys::TIME, keys::timer(TimerKey { wake_at, timer: Timer::Expire(task) }), Vec::new());
}
