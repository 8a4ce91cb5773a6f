//! The nodes: each a machine of its own with an address, a disk and clocks that outlive the process on it.
//!
//! What happens to a machine is ordered here (kill, power cut, wipe); what a node does when it runs is the product's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use campanile_model::{NodeId, bound};
use campanile_raft::{Clock, Limits, Replica, ReplicaConfig, Role, SnapshotPolicy, Status, Timing};
use campanile_server::{Node, NodeConfig};
use campanile_store::Census;
use campanile_store::engine::MemDisk;
use madsim::runtime::Handle;
use rand::RngExt;
use tokio::sync::{mpsc, watch};

use super::observe::Names;
use super::standstill;
use crate::drive::recorder::Recorder;
use crate::history::{CONNECTIONS, CONNECTIONS_PER_HOST, Event, Members, NodeEvent, RaftState, Rows, TaskRows};
use crate::scenario::Pace;

/// How often a node's Raft state is looked at; at coarse pace, once in a minute.
const LOOK: Duration = Duration::from_millis(50);
/// After so many looks at least its state is digested, if it has changed; and after a twentieth of those it has had, as
/// digesting reads the whole of a state that grows.
const DIGEST_AFTER: u32 = 40;

/// A port for peers that none of them knows.
const ELSEWHERE: u16 = 7811;
/// After so many looks a leader's rows are counted.
const COUNT_EVERY: u32 = 100;

/// What a node last said of itself.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub term: u64,
    pub leads: bool,
    pub ready: bool,
    pub leader: Option<NodeId>,
    pub applied: u64,
    pub live_runs: u64,
    /// Members as this node knows them.
    pub members: Vec<NodeId>,
}

/// A node ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub node: NodeId,
    /// Told to, and not because anything failed.
    pub asked: bool,
}

/// One machine.
pub struct Host {
    pub id: NodeId,
    pub machine: madsim::task::NodeId,
    pub disk: MemDisk,
    pub clock: Clock,
    terminate: watch::Sender<u64>,
    /// Its next life listens for peers where they do not look for it.
    elsewhere: Arc<AtomicBool>,
    pub up: bool,
    /// Its process has been asked to end, and has not yet.
    stopping: bool,
}

/// All machines.
pub struct Cluster {
    pub hosts: BTreeMap<NodeId, Host>,
    pub founders: u32,
    /// What nodes sign with for tasks that have no secret.
    pub webhook_secret: Option<String>,
    pace: Pace,
    recorder: Recorder,
    names: Names,
    ended: mpsc::UnboundedSender<Ended>,
    seen: Arc<Mutex<BTreeMap<NodeId, Seen>>>,
    /// Added to the simulator's wall clock to get the scenario's.
    wall_shift_ms: i64,
    /// How many builds have come since the start, each with a peer protocol of its own.
    newest_build: u32,
}

/// What a life on a machine needs.
#[derive(Clone)]
struct Life {
    config: NodeConfig,
    disk: MemDisk,
    clock: Clock,
    recorder: Recorder,
    seen: Arc<Mutex<BTreeMap<NodeId, Seen>>>,
    ended: mpsc::UnboundedSender<Ended>,
    terminate: watch::Receiver<u64>,
    elsewhere: Arc<AtomicBool>,
    look_every: Duration,
}

impl Cluster {
    pub fn new(
        founders: u32,
        pace: Pace,
        recorder: Recorder,
        names: Names,
        wall_shift_ms: i64,
    ) -> (Self, mpsc::UnboundedReceiver<Ended>) {
        let (ended, endings) = mpsc::unbounded_channel();
        let seen = Arc::default();
        let hosts = BTreeMap::new();
        (
            Self {
                hosts,
                founders,
                webhook_secret: None,
                pace,
                recorder,
                names,
                ended,
                seen,
                wall_shift_ms,
                newest_build: 0,
            },
            endings,
        )
    }

    /// Builds a machine with an empty disk and starts the node on it.
    pub fn add(&mut self, id: NodeId) {
        let machine_ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, id.0 as u8));
        let disk = MemDisk::new();
        usual_disk(&disk);
        let clock = Clock::system();
        clock.shift(self.wall_shift_ms);
        let (terminate, terminated) = watch::channel(0);
        let elsewhere = Arc::new(AtomicBool::new(false));
        let life = Life {
            config: self.config(id),
            disk: disk.clone(),
            clock: clock.clone(),
            recorder: self.recorder.clone(),
            seen: self.seen.clone(),
            ended: self.ended.clone(),
            terminate: terminated,
            elsewhere: elsewhere.clone(),
            look_every: if self.pace == Pace::Coarse { LOOK * 1200 } else { LOOK },
        };
        let handle = Handle::current()
            .create_node()
            .name(format!("node-{id}"))
            .ip(machine_ip)
            .restart_on_panic()
            .init(move || live(life.clone()))
            .build();
        self.names.set(handle.id(), id);
        campanile_raft::rt::links::set_address(handle.id(), machine_ip);
        campanile_raft::rt::links::set_build(id.0, self.newest_build);
        self.hosts.insert(
            id,
            Host { id, machine: handle.id(), disk, clock, terminate, elsewhere, up: true, stopping: false },
        );
    }

    /// There is a newer build. Machines that are added have it, the others when they are upgraded: all of them.
    pub fn release(&mut self) -> Vec<NodeId> {
        self.newest_build += 1;
        self.hosts.keys().copied().collect()
    }

    /// Puts the newest build on a machine. If its process ran, it does not any more: whether it did.
    pub fn upgrade(&mut self, node: NodeId) -> bool {
        let ran = self.hosts.get(&node).is_some_and(|host| host.up);
        self.kill(node);
        campanile_raft::rt::links::set_build(node.0, self.newest_build);
        ran
    }

    /// Puts the newest build on all machines that do not have it.
    pub fn upgrade_all(&mut self) {
        let behind = |node: &NodeId| campanile_raft::rt::links::build(node.0) < self.newest_build;
        for node in self.hosts.keys().copied().filter(behind).collect::<Vec<_>>() {
            if self.upgrade(node) {
                self.start(node);
            }
        }
    }

    fn config(&self, id: NodeId) -> NodeConfig {
        let founder = id.0 <= u64::from(self.founders);
        let peers = (1..=u64::from(self.founders)).map(|id| (NodeId(id), format!("10.0.0.{id}:7801"))).collect();
        let api = format!("10.0.0.{id}:7701");
        let mut replica = ReplicaConfig::new(id, peers, format!("10.0.0.{id}:7801"), api.clone());
        replica.join = !founder;
        replica.snapshots = SnapshotPolicy {
            log_bytes: bound!(SnapshotLog, 64 << 10),
            interval: bound!(SnapshotInterval, Duration::from_secs(20)),
            keep_bytes: bound!(LogKept, 2 << 10),
            keep_bytes_needed: bound!(LogKeptNeeded, 4 << 10),
        };
        let limits = Limits::default();
        replica.limits.log_cache_bytes = bound!(LogCache, limits.log_cache_bytes);
        replica.limits.api_bytes = bound!(ApiLane, limits.api_bytes);
        if self.pace == Pace::Coarse {
            let slow = |span: Duration| span * 1000;
            replica.snapshots.interval = slow(replica.snapshots.interval);
            let timing = Timing::default();
            replica.timing = Timing {
                heartbeat: slow(timing.heartbeat),
                election_min: slow(timing.election_min),
                election_max: slow(timing.election_max),
                beat: slow(timing.beat),
                lease: slow(timing.lease),
                tick: timing.tick * 100,
                keep_alive: slow(timing.keep_alive),
            };
        }
        NodeConfig {
            listen: api,
            replica,
            catch_up_rate: 2000,
            http_connections: bound!(Connections, CONNECTIONS as usize),
            http_connections_per_host: bound!(ConnectionsPerHost, CONNECTIONS_PER_HOST as usize),
            webhook_secret: self.webhook_secret.clone(),
            min_free_disk_bytes: 1 << 20,
            drain_timeout: Duration::from_secs(30),
        }
    }

    /// The node that leads the highest term, as far as the nodes that run say.
    pub fn leader(&self) -> Option<NodeId> {
        let seen = self.seen_all();
        let leaders = seen.iter().filter(|(node, seen)| seen.leads && self.hosts.get(node).is_some_and(|host| host.up));
        leaders.max_by_key(|(_, seen)| seen.term).map(|(node, _)| *node)
    }

    pub fn seen_all(&self) -> MutexGuard<'_, BTreeMap<NodeId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn running(&self) -> Vec<NodeId> {
        self.hosts.values().filter(|host| host.up).map(|host| host.id).collect()
    }

    /// The members that run, as the leader knows them.
    pub fn members(&self) -> Vec<NodeId> {
        // The leader first: it looks through the same lock.
        let leader = self.leader();
        let members = leader.and_then(|leader| Some(self.seen_all().get(&leader)?.members.clone()));
        let runs = |node: &NodeId| self.hosts.get(node).is_some_and(|host| host.up);
        members.unwrap_or_default().into_iter().filter(runs).collect()
    }

    fn stop(&mut self, node: NodeId, event: NodeEvent) {
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if host.up {
            (host.up, host.stopping) = (false, false);
            Handle::current().kill(host.machine);
            self.recorder.record(Event::Node { node, what: event });
        }
        self.seen_all().remove(&node);
    }

    /// The process dies. Its disk and what the system had of it stay.
    pub fn kill(&mut self, node: NodeId) {
        self.stop(node, NodeEvent::Killed);
    }

    /// The power goes. Of what was not synced the oldest part may be there, as chance has it.
    pub fn power_cut(&mut self, node: NodeId) {
        self.stop(node, NodeEvent::PowerCut);
        self.lose_unsynced(node);
    }

    /// What was not synced is lost, all or part of it.
    pub fn lose_unsynced(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get(&node) else { return };
        let mut rng = campanile_raft::rt::rng();
        host.disk.power_off_sparing(|_, unsynced| match rng.random_range(0..3) {
            0 => 0,
            1 => unsynced,
            _ => rng.random_range(0..=unsynced),
        });
    }

    /// The node that ended by itself is no longer there.
    pub fn note_ended(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node)
            && host.up
        {
            (host.up, host.stopping) = (false, false);
            Handle::current().kill(host.machine);
        }
        self.seen_all().remove(&node);
    }

    /// Starts the node again, if it does not run.
    pub fn start(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node).filter(|host| !host.up) {
            host.up = true;
            Handle::current().restart(host.machine);
        }
    }

    /// Restarts a node that runs, under an address at which its peers do not look for it, or under the right one again.
    pub fn move_peer_port(&mut self, node: NodeId, elsewhere: bool) {
        let Some(host) = self.hosts.get(&node) else { return };
        host.elsewhere.store(elsewhere, Ordering::Relaxed);
        if host.up {
            self.kill(node);
            self.start(node);
        }
    }

    pub fn terminate(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get_mut(&node) {
            host.terminate.send_modify(|times| *times += 1);
            host.stopping = true;
        }
    }

    /// Whether any process has been asked to end, and has not yet.
    pub fn is_any_stopping(&self) -> bool {
        self.hosts.values().any(|host| host.up && host.stopping)
    }

    /// The process stands still.
    pub fn pause(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get(&node).filter(|host| host.up) {
            Handle::current().pause(host.machine);
            self.recorder.record(Event::Node { node, what: NodeEvent::Paused });
        }
    }

    pub fn resume(&mut self, node: NodeId) {
        if let Some(host) = self.hosts.get(&node).filter(|host| host.up) {
            Handle::current().resume(host.machine);
            self.recorder.record(Event::Node { node, what: NodeEvent::Resumed });
        }
    }

    /// Sets a node's wall clock wrong by so much.
    pub fn shift_clock(&self, node: NodeId, by_ms: i64) {
        if let Some(host) = self.hosts.get(&node) {
            host.clock.shift(self.wall_shift_ms + by_ms);
        }
    }

    /// A node's clocks, wall and monotonic, run fast by so many of a million; with 0 they are right again.
    pub fn drift_clocks(&self, node: NodeId, ppm: i32) {
        if let Some(host) = self.hosts.get(&node) {
            host.clock.drift(ppm);
            campanile_raft::clock::rates::set(host.machine, ppm);
        }
    }

    /// Takes a machine away for good.
    pub fn discard(&mut self, node: NodeId) {
        self.kill(node);
        self.hosts.remove(&node);
    }

    pub fn next_id(&self) -> NodeId {
        let last = self.hosts.keys().map(|id| id.0).max().unwrap_or(0);
        NodeId(last.max(u64::from(self.founders)) + 1)
    }
}

/// Syncs take what they take on a good disk.
pub fn usual_disk(disk: &MemDisk) {
    disk.set_sync_delay(|| {
        let micros = campanile_raft::rt::rng().random_range(200..2000);
        Box::pin(tokio::time::sleep(Duration::from_micros(micros)))
    });
}

/// One life of a node, from start to whatever ends it.
async fn live(mut life: Life) {
    let node = life.config.replica.node;
    life.terminate.mark_unchanged();
    if life.elsewhere.load(Ordering::Relaxed) {
        life.config.replica.peer_listen = format!("10.0.0.{node}:{ELSEWHERE}");
    }
    let (what, asked) = match Node::start(life.config.clone(), life.disk.attach(), life.clock.clone()).await {
        Err(error) => (error.to_string(), false),
        Ok(mut running) => {
            life.recorder.record(Event::Node { node, what: NodeEvent::Started });
            let looking = tokio::spawn(look(
                running.replica().clone(),
                life.recorder.clone(),
                life.seen.clone(),
                life.look_every,
            ));
            let fatal = tokio::select! {
                biased;
                error = running.fatal() => Some(error.to_string()),
                _ = life.terminate.changed() => None,
            };
            let how = match fatal {
                Some(error) => (error, false),
                None => match running.shutdown().await {
                    Ok(()) => ("asked to".to_owned(), true),
                    Err(error) => (error.to_string(), false),
                },
            };
            looking.abort();
            how
        }
    };
    life.recorder.record(Event::Node { node, what: NodeEvent::Stopped { reason: what } });
    // The world may be gone already; then nobody needs to know.
    let _ = life.ended.send(Ended { node, asked });
}

fn rows(node: NodeId, index: u64, census: Census) -> Rows {
    let Census { tasks, runs, first_key, first_timer } = census;
    let tasks = tasks.into_iter().map(|(task, rows)| TaskRows {
        task,
        fired: rows.fired,
        ranges: rows.ranges,
        versions: rows.versions,
    });
    Rows { node, index, tasks: tasks.collect(), runs, first_key, first_timer }
}

fn untold(node: NodeId, what: &str, error: &impl ToString) -> Event {
    Event::Untold { node, what: what.to_owned(), error: error.to_string() }
}

/// Whoever votes, and whoever does not yet.
fn members(node: NodeId, status: &Status) -> Members {
    let (learners, voters): (Vec<_>, Vec<_>) = status.nodes.iter().partition(|member| member.role == Role::Learner);
    let ids = |of: Vec<&campanile_raft::NodeStatus>| of.into_iter().map(|member| member.id).collect();
    let (term, index) = status.members_since;
    Members { node, term, index, joint: status.joint, voters: ids(voters), learners: ids(learners) }
}

/// Says how the node is, as often as it changes.
async fn look(replica: Replica, recorder: Recorder, seen: Arc<Mutex<BTreeMap<NodeId, Seen>>>, every: Duration) {
    let node = replica.node_id();
    let (mut said, mut said_members) = (None, None);
    let mut led = 0;
    let (mut digested, mut digest_at) = (0, DIGEST_AFTER);
    for round in 1_u32.. {
        standstill::note(recorder.now());
        let status = replica.status();
        let leadership = *replica.leadership().borrow();
        let view = replica.store().view();
        let live_runs = view.counts().map_or(0, |counts| counts.live_runs);
        let now = Seen {
            term: leadership.term,
            leads: leadership.is_leader,
            ready: leadership.ready,
            leader: leadership.leader,
            applied: status.applied,
            live_runs,
            members: status.nodes.iter().map(|member| member.id).collect(),
        };
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(node, now);
        let state = RaftState {
            node,
            term: status.term,
            voted_for: Some(status.voted_for).filter(|node| node.0 != 0),
            elected: status.elected,
            leads: leadership.is_leader,
            last: status.last_log,
            committed: status.committed,
            applied: status.applied,
            snapshot: status.snapshot,
            purged: status.purged,
        };
        if said.as_ref() != Some(&state) {
            recorder.record(Event::Raft(state.clone()));
            said = Some(state);
        }
        let members = members(node, &status);
        if said_members.as_ref() != Some(&members) {
            recorder.record(Event::Members(members.clone()));
            said_members = Some(members);
        }
        if leadership.ready && led != leadership.term {
            led = leadership.term;
            recorder.record(Event::Node { node, what: NodeEvent::Leads { term: led } });
        }
        if round % COUNT_EVERY == 0 && leadership.ready {
            recorder.record(match view.census() {
                Ok(census) => Event::Rows(rows(node, view.index(), census)),
                Err(error) => untold(node, "its rows", &error),
            });
        }
        if round >= digest_at && view.index() != digested {
            digested = view.index();
            digest_at = round + DIGEST_AFTER.max(round / 20);
            recorder.record(match view.digest() {
                Ok(digest) => Event::Digest { node, index: digested, digest: digest.to_string() },
                Err(error) => untold(node, "its digest", &error),
            });
        }
        // Not in step with what happens every so often: it would see always, or never, what is so for a moment.
        tokio::time::sleep(every + Duration::from_millis(u64::from(round % 7))).await;
    }
}
