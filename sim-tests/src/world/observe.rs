//! Turns what happens inside the nodes into events: what their state machines apply (rows once for each entry, a hash
//! for each node), the calls they send each other, how full they are, and what they panic of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use campanile_model::codec::{self, Versioned};
use campanile_model::sim::{self, Applied, Grant, Row};
use campanile_model::{NodeId, TaskState};
use campanile_raft::rt::links;
use xxhash_rust::xxh3::Xxh3;

use crate::drive::recorder::Recorder;
use crate::history::{Event, Message, NodeEvent, RunRow, TaskRow};

/// A leader's own lease is told again when it has grown by so many microseconds.
const LEASE_GROWS: u64 = 500;

/// Which node a madsim node is. Clones share it.
#[derive(Clone, Default)]
pub struct Names {
    names: Arc<Mutex<BTreeMap<madsim::task::NodeId, NodeId>>>,
}

impl Names {
    pub fn set(&self, machine: madsim::task::NodeId, node: NodeId) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(machine, node);
    }

    fn current(&self) -> NodeId {
        let machine = madsim::plugin::node();
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(&machine).copied().unwrap_or_default()
    }
}

/// The fullest that bounded things have been, and their limits. Clones share it.
#[derive(Clone, Default)]
pub struct Gauges {
    gauges: Arc<Mutex<BTreeMap<(NodeId, &'static str), Gauge>>>,
}

#[derive(Default)]
struct Gauge {
    most: u64,
    limit: u64,
}

impl Gauges {
    fn note(&self, node: NodeId, name: &'static str, most: usize, limit: usize) {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = gauges.entry((node, name)).or_default();
        gauge.most = gauge.most.max(most as u64);
        gauge.limit = limit as u64;
    }

    /// Records them all.
    pub fn record(&self, recorder: &Recorder) {
        for ((node, name), gauge) in &*self.gauges.lock().unwrap_or_else(PoisonError::into_inner) {
            let (name, most, limit) = ((*name).to_owned(), gauge.most, gauge.limit);
            recorder.record(Event::Bound { node: *node, name, most, limit });
        }
    }
}

/// Records everything that is applied from now on.
pub fn start(recorder: Recorder, names: Names) -> Gauges {
    watch_panics(recorder.clone(), names.clone());
    watch_messages(recorder.clone(), names.clone());
    let gauges = Gauges::default();
    let (noted, of) = (gauges.clone(), names.clone());
    sim::gauge(move |name, most, limit| noted.note(of.current(), name, most, limit));
    watch_leases(recorder.clone(), names.clone());
    let mut seen = BTreeSet::new();
    sim::observe(move |applied| {
        let node = names.current();
        let hash = hash(&applied);
        if seen.insert(applied.index) {
            record_rows(&recorder, &applied);
        }
        recorder.record(Event::Apply { node, index: applied.index, hash });
    });
    gauges
}

/// A node that panics is a finding. Its machine restarts it, and the simulation goes on.
fn watch_panics(recorder: Recorder, names: Names) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        // Outside a simulated task the panic is the simulator's own, and ends it.
        if madsim::runtime::Handle::try_current().is_ok() {
            let node = names.current();
            if node != NodeId::default() {
                recorder.record(Event::Node { node, what: NodeEvent::Broke { how: panic.to_string() } });
            }
        }
    }));
}

/// A leader counts its own lease whenever it delivers: told is what is new of it.
fn watch_leases(recorder: Recorder, names: Names) {
    let mut own: BTreeMap<NodeId, u64> = BTreeMap::new();
    sim::grants(move |Grant { node, incarnation, term, lasts }| {
        let by = names.current();
        let lasts_us = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        if by == node {
            let (now, told) = (recorder.now(), own.entry(node).or_default());
            let until = now.saturating_add(lasts_us);
            let is_new = if lasts_us == 0 { *told > now } else { until >= told.saturating_add(LEASE_GROWS) };
            if !is_new {
                return;
            }
            *told = until;
        } else if lasts_us == 0 {
            return;
        }
        recorder.record(Event::Lease { node, incarnation, by, term, lasts_us });
    });
}

fn watch_messages(recorder: Recorder, names: Names) {
    links::watch(move |address, what, dropped| {
        let to = address.parse().map(|address: SocketAddr| address.ip());
        let Ok(IpAddr::V4(to)) = to else { return };
        let what = what.rsplit('/').next().unwrap_or(what);
        let to = NodeId(u64::from(to.octets()[3]));
        recorder.record_message(Message { t: recorder.now(), from: names.current(), to, what, dropped });
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
                last: run.attempts.last().cloned(),
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
        // As clients see it: a task without a name is called by its id.
        name: if task.name.is_empty() { task.id.to_string() } else { task.name.clone() },
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
