//! The processes: what is done to them, and the record of it. What is not running is never killed, paused or told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use campanile_bench::cluster::{ProcessCluster, describe_exit};
use campanile_client::Client;
use campanile_model::NodeId;

use super::senders::Senders;
use crate::drive::recorder::Recorder;
use crate::history::{Event, NodeEvent};

/// What the line of a panic says on standard error.
const PANICKED: &str = "' panicked at ";

/// What a node in all troubles may log, on the whole of a run.
const LOG_BYTES_PER_SECOND: u64 = 256 << 10;

pub struct Machines {
    cluster: ProcessCluster,
    recorder: Recorder,
    senders: Senders,
    /// Told to stop, and not done with it.
    stopping: BTreeSet<NodeId>,
}

impl Machines {
    /// Of a cluster that has just been started.
    pub fn new(cluster: ProcessCluster, recorder: Recorder, senders: Senders) -> Self {
        let machines = Self { cluster, recorder, senders, stopping: BTreeSet::new() };
        for node in machines.cluster.ids() {
            machines.has_started(node);
        }
        machines
    }

    fn has_started(&self, node: NodeId) {
        if let Some(pid) = self.cluster.node(node).pid() {
            self.senders.set(node, pid);
        }
        self.record(node, NodeEvent::Started);
    }

    fn record(&self, node: NodeId, what: NodeEvent) {
        self.recorder.record(Event::Node { node, what });
    }

    /// API addresses.
    pub fn apis(&self) -> BTreeMap<NodeId, String> {
        self.all().into_iter().map(|node| (node, self.cluster.node(node).api.clone())).collect()
    }

    /// Clients of one node each.
    pub fn clients(&self) -> BTreeMap<NodeId, Client> {
        self.all().into_iter().map(|node| (node, self.client(node))).collect()
    }

    pub fn client(&self, node: NodeId) -> Client {
        self.cluster.node(node).client.clone()
    }

    pub fn all(&self) -> Vec<NodeId> {
        self.cluster.ids()
    }

    pub fn is_running(&self, node: NodeId) -> bool {
        self.cluster.node(node).pid().is_some()
    }

    pub fn running(&self) -> Vec<NodeId> {
        self.all().into_iter().filter(|node| self.is_running(*node)).collect()
    }

    /// Whether it was told to stop and still runs.
    pub fn is_stopping(&self, node: NodeId) -> bool {
        self.stopping.contains(&node)
    }

    pub fn start(&mut self, node: NodeId) -> Result<()> {
        if !self.is_running(node) {
            self.cluster.spawn(node)?;
            self.has_started(node);
        }
        Ok(())
    }

    pub fn kill(&mut self, node: NodeId) -> Result<()> {
        if self.is_running(node) {
            self.cluster.kill9(node)?;
            self.stopping.remove(&node);
            self.record(node, NodeEvent::Killed);
        }
        Ok(())
    }

    pub fn pause(&mut self, node: NodeId) -> Result<()> {
        if self.is_running(node) && !self.cluster.node(node).is_paused() {
            self.cluster.pause(node)?;
            self.record(node, NodeEvent::Paused);
        }
        Ok(())
    }

    pub fn resume(&mut self, node: NodeId) -> Result<()> {
        if self.is_running(node) && self.cluster.node(node).is_paused() {
            // Recorded before: what it does next is not to precede it.
            self.record(node, NodeEvent::Resumed);
            self.cluster.cont(node)?;
        }
        Ok(())
    }

    /// Tells it to stop, which it does when it is done draining.
    pub fn terminate(&mut self, node: NodeId) -> Result<()> {
        if self.is_running(node) && self.stopping.insert(node) {
            self.cluster.terminate(node)?;
        }
        Ok(())
    }

    /// Nodes that have ended by themselves since this was last asked.
    pub fn reap(&mut self) -> Result<Vec<NodeId>> {
        let ended = self.cluster.ended()?;
        for (node, status) in &ended {
            let mut reason = describe_exit(*status);
            if !self.stopping.remove(node) {
                let log = self.cluster.node(*node).log_tail();
                reason = format!("{reason}: {}", log.lines().last().unwrap_or_default());
            }
            if status.code().is_none() {
                self.record(*node, NodeEvent::Broke { how: reason.clone() });
            }
            self.record(*node, NodeEvent::Stopped { reason });
        }
        Ok(ended.into_iter().map(|(node, _)| node).collect())
    }

    /// Records what has panicked, as the nodes' logs tell. To be asked once.
    pub fn record_panics(&self) -> Result<()> {
        for node in self.all() {
            let log = &self.cluster.node(node).log;
            let log = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
            for line in String::from_utf8_lossy(&log).lines().filter(|line| line.contains(PANICKED)) {
                self.record(node, NodeEvent::Broke { how: line.to_owned() });
            }
        }
        Ok(())
    }

    /// Records how much the nodes have logged in a run of this length. A node that repeats itself without end is one that
    /// does so with a whole core.
    pub fn record_logs(&self, seconds: u64) -> Result<()> {
        for node in self.all() {
            let log = &self.cluster.node(node).log;
            let most = fs::metadata(log).with_context(|| format!("reading {}", log.display()))?.len();
            let limit = LOG_BYTES_PER_SECOND * seconds.max(1);
            self.recorder.record(Event::Bound { node, name: "the log in bytes".into(), most, limit });
        }
        Ok(())
    }

    /// Copies the nodes' logs into a directory.
    pub fn keep_logs(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        for node in self.all() {
            let log = &self.cluster.node(node).log;
            let kept = directory.join(format!("node-{node}.log"));
            fs::copy(log, &kept).with_context(|| format!("copying {} to {}", log.display(), kept.display()))?;
        }
        Ok(())
    }
}
