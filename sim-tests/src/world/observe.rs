//! Turns what the nodes' state machines apply into events: rows once for each entry, a hash for each node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use campanile_model::codec::{self, Versioned};
use campanile_model::sim::{self, Applied, Row};
use campanile_model::{NodeId, TaskState};
use xxhash_rust::xxh3::Xxh3;

use crate::drive::recorder::Recorder;
use crate::history::{Event, RunRow, TaskRow};

/// Which node a madsim node is. Clones share it.
#[derive(Clone, Default)]
pub struct Names {
    names: Arc<Mutex<BTreeMap<String, NodeId>>>,
}

impl Names {
    pub fn set(&self, machine: madsim::task::NodeId, node: NodeId) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(machine.to_string(), node);
    }

    fn current(&self) -> NodeId {
        let machine = madsim::plugin::node().to_string();
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&machine).copied().unwrap_or_default()
    }
}

/// Records everything that is applied from now on.
pub fn start(recorder: Recorder, names: Names) {
    let mut seen = BTreeSet::new();
    sim::observe(move |applied| {
        let node = names.current();
        let hash = hash(&applied);
        if seen.insert(applied.index) {
            record_rows(&recorder, &applied);
        }
        recorder.record(Event::Apply { node, index: applied.index, hash });
    });
}

fn record_rows(recorder: &Recorder, applied: &Applied<'_>) {
    let index = applied.index;
    recorder.record(Event::Entry { index, term: applied.term, time: applied.entry.time });
    for row in &applied.rows {
        recorder.record(match row {
            Row::Task(task) => Event::Task(task_row(index, task)),
            Row::Run(run) => Event::Run(RunRow {
                index,
                run: run.id,
                occurrence: run.occurrence(),
                version: run.version,
                due_at: run.due_at,
                fired_at: run.fired_at,
                state: run.state,
                attempt: run.attempt,
                token: run.token,
                owner: run.owner,
                epoch: run.epoch,
                retry_at: run.retry_at,
                finished_at: run.finished_at,
            }),
            Row::Lapse(lapse) => Event::Lapse {
                index,
                task: lapse.task,
                version: lapse.version,
                first: lapse.first,
                last: lapse.last,
                count: lapse.count,
                reason: lapse.reason,
            },
            Row::Node(node) => {
                Event::NodeRow { index, node: node.id, incarnation: node.incarnation, fence: node.fence, up: node.up }
            }
        });
    }
}

fn task_row(index: u64, task: &TaskState) -> TaskRow {
    TaskRow {
        index,
        task: task.id,
        name: task.name.clone(),
        version: task.version,
        status: task.status,
        next: task.next.map(Into::into),
        decided_until: task.decided_until,
        remaining: task.remaining,
        tally: task.tally,
    }
}

fn hash(applied: &Applied<'_>) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&applied.term.to_be_bytes());
    hasher.update(&codec::encode(applied.entry));
    for reply in applied.replies {
        hasher.update(format!("{reply:?}").as_bytes());
    }
    for row in &applied.rows {
        match row {
            Row::Task(task) => update(&mut hasher, task.as_ref()),
            Row::Run(run) => update(&mut hasher, run.as_ref()),
            Row::Node(node) => update(&mut hasher, node),
            Row::Lapse(lapse) => hasher.update(format!("{lapse:?}").as_bytes()),
        }
    }
    hasher.digest()
}

fn update<T: Versioned>(hasher: &mut Xxh3, row: &T) {
    hasher.update(&codec::encode(row));
}
