//! A cluster in one process: replicas on disks in memory, over loopback.

#![allow(dead_code)] // each test program uses its own part of it

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use campanile_model::{
    Command, HttpMethod, HttpTarget, NodeId, PreparedPut, PutMode, PutTask, Rejection, Reply, Target, TaskChange,
    TaskName, TaskSpec, Timestamp,
};
use campanile_raft::{Clock, Lane, Leadership, Prepare, Prepared, Replica, ReplicaConfig};
use campanile_store::View;
use campanile_store::engine::mem::MemDisk;

/// Longer than anything here may take; nothing ever waits this long when it works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Fills in what a put needs: tasks here are manual, with no occurrences.
pub struct PrepareManual;

impl Prepare for PrepareManual {
    fn prepare(&self, view: &View, time: Timestamp, mut commands: Vec<Command>) -> Result<Prepared, Rejection> {
        for command in &mut commands {
            if let Command::PutTask(put) = command {
                let found = view.find_task(&put.task).expect("read the view");
                put.prepared = Some(PreparedPut {
                    since: time,
                    expected: found.map(|task| (task.id, task.version)),
                    unchanged: false,
                    next: None,
                    period: None,
                    spread: 0,
                });
            }
        }
        let replies = 0..commands.len();
        Ok(Prepared { commands, replies, refused: Vec::new() })
    }
}

pub fn task_name(name: &str) -> TaskName {
    TaskName { namespace: "default".into(), name: name.into() }
}

pub fn put(name: &str) -> Command {
    let target = HttpTarget {
        url: "http://127.0.0.1:9/".into(),
        method: HttpMethod::Post,
        headers: BTreeMap::new(),
        signing_secret: None,
    };
    Command::PutTask(Box::new(PutTask {
        task: task_name(name),
        spec: TaskSpec::new(Vec::new(), Target::Http(target)),
        mode: PutMode::Upsert,
        idempotency: None,
        prepared: None,
    }))
}

/// What became of one put.
pub fn change(replies: &[Reply]) -> TaskChange {
    match replies {
        [Reply::Task(reply)] => reply.change,
        other => panic!("one task reply expected, not {other:?}"),
    }
}

/// A node: its disk outlives the replica on it.
pub struct Host {
    pub id: NodeId,
    pub disk: MemDisk,
    pub clock: Clock,
    pub replica: Option<Replica>,
    pub config: ReplicaConfig,
}

impl Host {
    pub fn replica(&self) -> &Replica {
        self.replica.as_ref().expect("the node runs")
    }

    pub async fn start(&mut self) {
        let started =
            Replica::start(self.config.clone(), self.disk.attach(), Arc::new(PrepareManual), self.clock.clone()).await;
        self.replica = Some(started.unwrap_or_else(|error| panic!("node {} does not start: {error}", self.id)));
    }

    /// Stops the replica; what was not synced is lost.
    pub async fn kill(&mut self) {
        self.kill_sparing(|_, _| 0).await;
    }

    /// The same, but as much of what was not synced is there as `spare` says of each database.
    pub async fn kill_sparing(&mut self, spare: impl FnMut(&str, usize) -> usize) {
        if let Some(replica) = self.replica.take() {
            self.disk.power_off_sparing(spare);
            replica.shutdown().await;
        }
    }
}

pub struct Cluster {
    pub hosts: BTreeMap<u64, Host>,
}

/// Addresses nobody listens on. A list of them must be known before the first node starts, and a node that was killed
/// must find its own again: so they lie below the ports that outgoing connections take, and test processes begin at
/// different ones.
pub fn free_addresses(count: u64) -> BTreeMap<NodeId, String> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let ports = std::iter::repeat_with(|| {
        let number = std::process::id().wrapping_mul(8).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        27_000 + number % 5000
    });
    let free = ports.map(|port| format!("127.0.0.1:{port}")).filter(|at| std::net::TcpListener::bind(at).is_ok());
    (1..=count).map(NodeId).zip(free).collect()
}

pub fn host(id: u64, addresses: &BTreeMap<NodeId, String>) -> Host {
    let id = NodeId(id);
    let config =
        ReplicaConfig::new(id, addresses.clone(), addresses[&id].clone(), format!("127.0.0.1:{}", 7700 + id.0));
    Host { id, disk: MemDisk::new(), clock: Clock::system(), replica: None, config }
}

impl Cluster {
    /// Nodes that are configured but not started.
    pub fn configure(count: u64, adjust: impl Fn(&mut ReplicaConfig)) -> Self {
        let addresses = free_addresses(count);
        let hosts = (1..=count).map(|id| {
            let mut host = host(id, &addresses);
            adjust(&mut host.config);
            (id, host)
        });
        Self { hosts: hosts.collect() }
    }

    pub async fn start(count: u64) -> Self {
        Self::start_with(count, |_| ()).await
    }

    pub async fn start_with(count: u64, adjust: impl Fn(&mut ReplicaConfig)) -> Self {
        let mut cluster = Self::configure(count, adjust);
        for host in cluster.hosts.values_mut() {
            host.start().await;
        }
        cluster.leader().await;
        cluster
    }

    pub fn host(&mut self, id: u64) -> &mut Host {
        self.hosts.get_mut(&id).expect("a node of that id")
    }

    pub fn replica(&self, id: u64) -> &Replica {
        self.hosts[&id].replica()
    }

    pub fn running(&self) -> impl Iterator<Item = (u64, &Replica)> {
        self.hosts.iter().filter_map(|(id, host)| Some((*id, host.replica.as_ref()?)))
    }

    /// Waits until a running node leads and is ready, and all running nodes know it.
    pub async fn leader(&self) -> u64 {
        let found = async {
            loop {
                for (id, replica) in self.running() {
                    let now = *replica.leadership().borrow();
                    if now.ready && self.all_follow(NodeId(id), now.term) {
                        return id;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("a leader in time")
    }

    fn all_follow(&self, leader: NodeId, term: u64) -> bool {
        self.running().all(|(_, replica)| {
            let now = *replica.leadership().borrow();
            now.leader == Some(leader) && now.term == term
        })
    }

    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.running().map(|(id, _)| id).find(|id| *id != leader).expect("a follower runs")
    }

    /// Waits until every running node has applied as much as the one that has most, and compares their states.
    pub async fn converge(&self) {
        let same = async {
            loop {
                let views: Vec<View> = self.running().map(|(_, replica)| replica.store().view()).collect();
                let most = views.iter().map(View::index).max().unwrap_or(0);
                if views.iter().all(|view| view.index() == most) {
                    let digests: Vec<_> = views.iter().map(|view| view.digest().expect("digest")).collect();
                    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "states differ at index {most}");
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, same).await.expect("all nodes catch up in time");
    }

    pub async fn stop(mut self) {
        for host in self.hosts.values_mut() {
            host.kill().await;
        }
    }
}

/// Proposes one put and waits for its reply.
pub async fn put_on(replica: &Replica, name: &str) -> TaskChange {
    let replies = tokio::time::timeout(PATIENCE, replica.propose(Lane::Api, vec![put(name)])).await;
    change(&replies.expect("an answer in time").expect("the put is committed"))
}

/// Waits until the leadership of a replica is as wanted.
pub async fn wait_leadership(replica: &Replica, wanted: impl Fn(&Leadership) -> bool) -> Leadership {
    let mut leadership = replica.leadership();
    let reached = tokio::time::timeout(PATIENCE, leadership.wait_for(|now| wanted(now))).await;
    *reached.expect("in time").expect("the replica runs")
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let reached = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
