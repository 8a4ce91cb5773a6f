//! Compiled schedules, so that firing a recurring task parses nothing. A bounded cache over the store: version rows are
//! immutable, so an entry is never wrong, only absent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use campanile_model::{Rejection, TaskId, TaskSpec, TaskState, bound, sometimes};
use campanile_store::{StoreError, View};
use campanile_timer::{Anchors, Plan};

/// A version of a task with its schedules compiled.
pub struct Planned {
    pub spec: TaskSpec,
    pub plan: Plan,
}

/// Plans by task and version.
type Generation = HashMap<(TaskId, u32), Arc<Planned>>;

/// Entries of one generation; two generations are kept.
const ENTRIES: usize = 16_384;

/// Two generations: a hit in the old one moves to the young one, and when that is full the old one is forgotten.
/// Least-recently-used within a factor of two, with nothing to maintain on a hit.
#[derive(Default)]
pub struct Plans {
    generations: Mutex<[Generation; 2]>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row was written by a build whose rules this one does not share.
    #[error("stored definition of task {task} version {version} does not compile: {source}")]
    Compile { task: TaskId, version: u32, source: Rejection },
    #[error("task {task} has no version {version}")]
    Missing { task: TaskId, version: u32 },
}

impl Plans {
    /// The plan, if it is at hand.
    pub fn cached(&self, task: TaskId, version: u32) -> Option<Arc<Planned>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        let key = (task, version);
        if let Some(planned) = young.get(&key) {
            return Some(planned.clone());
        }
        let planned = old.remove(&key)?;
        Self::insert(&mut generations, key, planned.clone());
        Some(planned)
    }

    /// Puts the plans of these tasks' current versions at hand, which costs less together. One that cannot be used is
    /// left to whoever asks for it alone.
    pub fn load(&self, view: &View, tasks: &[TaskId]) -> Result<(), StoreError> {
        let states: Vec<TaskState> = view.tasks(tasks)?.into_iter().flatten().collect();
        let versions: Vec<(TaskId, u32)> = states.iter().map(|state| (state.id, state.version)).collect();
        for (state, spec) in states.iter().zip(view.specs(&versions)?) {
            if let Some(spec) = spec
                && let Ok(planned) = compile(state, spec)
            {
                self.keep(state, planned);
            }
        }
        Ok(())
    }

    /// The plan of the task's current version.
    pub fn of(&self, view: &View, state: &TaskState) -> Result<Arc<Planned>, PlanError> {
        if let Some(planned) = self.cached(state.id, state.version) {
            return Ok(planned);
        }
        let (task, version) = (state.id, state.version);
        let spec = view.spec(task, version)?.ok_or(PlanError::Missing { task, version })?;
        let planned = compile(state, spec).map_err(|source| PlanError::Compile { task, version, source })?;
        Ok(self.keep(state, planned))
    }

    fn keep(&self, state: &TaskState, planned: Planned) -> Arc<Planned> {
        let planned = Arc::new(planned);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        Self::insert(&mut generations, (state.id, state.version), planned.clone());
        planned
    }

    fn insert(generations: &mut [Generation; 2], key: (TaskId, u32), planned: Arc<Planned>) {
        if generations[0].len() >= bound!(Plans, ENTRIES) {
            sometimes!(PlanEvicted, !generations[1].is_empty());
            generations[1] = std::mem::take(&mut generations[0]);
        }
        generations[0].insert(key, planned);
    }
}

fn compile(state: &TaskState, spec: TaskSpec) -> Result<Planned, Rejection> {
    let TaskState { created_at, version_at, since, spread, .. } = *state;
    let anchors = Anchors { created_at, version_at, since, spread };
    let plan = Plan::compile(&spec, anchors)?;
    Ok(Planned { spec, plan })
}
