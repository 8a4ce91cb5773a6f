//! The cluster in a bottle: real nodes on simulated machines, from one seed, in one thread.
//!
//! One simulation per process: madsim's second one in a process differs from its first. Nothing here may read a real
//! clock, start a thread, open a real socket or iterate in hash order.

pub mod allocator;
mod cluster;
mod nemesis;
mod network;
mod observe;
mod receiver;
mod settle;
mod standstill;
mod trace;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use campanile_model::sim::{self, Bound, Bug};
use campanile_model::{Millis, NodeId};
use campanile_raft::rt;
use campanile_store::engine::mem::DiskWork;
use madsim::runtime::{Handle, NodeHandle, Runtime};
use rand::RngExt;
use tokio::task::JoinHandle;

use crate::drive::clients::{self, Clients};
use crate::drive::draw;
use crate::drive::final_state;
use crate::drive::receiver::Receiver;
use crate::drive::recorder::Recorder;
use crate::history::{Event, FORMAT, Header, History, LeftOut, Message, Source, Timed};
use crate::order::{Order, Simulated, Work};
use crate::plan::{DrawnPlan, PlannedOperation};
use crate::scenario::{Pace, Scenario};

use cluster::Cluster;
use nemesis::Nemesis;
use observe::Names;

/// Simulates. Call it once per process.
///
/// The work is done in a thread of its own: std seeds its hash maps once per thread, and madsim can do that only where
/// none has been made yet.
pub fn simulate(order: &Order) -> Simulated {
    let order = order.clone();
    // What the nodes log goes to standard error, if it is asked for by RUST_LOG. It does not touch the trace.
    // If it was set up already it stays as it is.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().try_init().ok();
    // The plan is drawn here, so that the thread makes the same hash maps whether its plan was drawn or written by hand.
    let scenario = draw::settled(&order.scenario, order.seed);
    let plan = scenario.plan().unwrap_or_else(|| draw::plan(&scenario, scenario.start, order.seed));
    standstill::watch();
    let simulated = std::thread::spawn(move || simulate_here(&order, scenario, plan)).join();
    standstill::over();
    match simulated {
        Ok(simulated) => simulated,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn simulate_here(order: &Order, scenario: Scenario, plan: DrawnPlan) -> Simulated {
    let webhook_secret = draw::webhook_secret(order.seed);
    let runtime = Runtime::with_seed_and_config(order.seed, madsim::Config::default());
    // The command line refuses names there are not.
    sim::plant(order.planted.as_deref().and_then(Bug::by_name));
    for (bound, amount) in &plan.bounds {
        sim::set_bound(Bound::by_name(bound).expect("a scenario names bounds that there are"), *amount);
    }
    let bounds = plan.bounds.clone();
    let clock_error_ms = draw::clock_error_ms(&plan.faults, scenario.nodes);
    let allocated = allocator::allocations();
    let Ran { events, messages, network_messages, simulated, disks, missed } =
        runtime.block_on(World::run(scenario.clone(), plan, webhook_secret.clone(), order.seed));
    let disk = |of: fn(&DiskWork) -> u64| disks.iter().map(of).sum();
    let work = Work {
        entries: events.iter().filter(|timed| matches!(timed.event, Event::Entry { .. })).count() as u64,
        calls: messages.len() as u64,
        packets: network_messages,
        syncs: disk(|work| work.syncs),
        batches: disk(|work| work.batches),
        rows_written: disk(|work| work.rows_written),
        bytes_written: disk(|work| work.bytes_written),
        rows_read: disk(|work| work.rows_read),
        allocations: allocator::allocations() - allocated,
    };
    let header = Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        source: Source::Simulated,
        scenario: order.scenario.name.clone(),
        seed: Some(order.seed),
        planted: order.planted.clone(),
        epoch_ms: scenario.start.as_millis(),
        nodes: (1..=u64::from(scenario.nodes)).map(NodeId).collect(),
        clock_error_ms,
        lateness_bound_ms: lateness_bound(&scenario).0 as i64,
        bounds,
        webhook_secret,
        left_out: missed,
    };
    let trace_hash = trace::trace_hash(&events, network_messages);
    Simulated { history: History { header, events }, messages, trace_hash, simulated, work }
}

/// After the faults have ended, what is due fires within this time.
fn lateness_bound(scenario: &Scenario) -> Millis {
    match scenario.pace {
        Pace::Normal => Millis::from_secs(15),
        Pace::Coarse => Millis::from_secs(6000),
    }
}

/// The machine that reads the final state.
const READER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 6, 1));
/// How often the final state is asked for, and the pause after a failure: a leader may change just then.
const FINAL_READS: u32 = 5;
const FINAL_PAUSE: Duration = Duration::from_secs(2);
/// Items on one page of it: few, so that lists have pages.
const FINAL_PAGE: usize = 7;

/// After a cluster has converged, until nothing is left of what was wrong.
const CALM_DOWN: Duration = Duration::from_secs(3);

struct World;

/// What came of it.
struct Ran {
    events: Vec<Timed>,
    /// Calls between nodes.
    messages: Vec<Message>,
    /// How many packets there were.
    network_messages: u64,
    simulated: Duration,
    /// Of every machine's disk.
    disks: Vec<DiskWork>,
    /// Planned faults that struck nobody.
    missed: Vec<LeftOut>,
}

impl World {
    async fn run(scenario: Scenario, plan: DrawnPlan, webhook_secret: Option<String>, seed: u64) -> Ran {
        let started = tokio::time::Instant::now();
        let recorder = Recorder::since(started);
        let names = Names::default();
        let gauges = observe::start(recorder.clone(), names.clone());
        let shift = scenario.start.as_millis() - wall_ms();
        let (mut cluster, endings) = Cluster::new(scenario.nodes, scenario.pace, recorder.clone(), names, shift);
        cluster.webhook_secret = webhook_secret;
        let receiver = start_receiver(recorder.clone());
        for id in 1..=u64::from(scenario.nodes) {
            cluster.add(NodeId(id));
        }
        let mut nemesis = Nemesis::new(cluster, endings, receiver.clone(), recorder.clone(), plan.faults);
        let patience = if scenario.pace == Pace::Coarse { 6000 } else { 20 };
        let all: Vec<NodeId> = nemesis.cluster.running();
        settle::converge(&mut nemesis, &all, Duration::from_secs(patience), &recorder).await;

        let clients = ClientMachine::start(&recorder);
        let operations = draw::all_operations(&scenario, plan.operations, receiver::ADDRESS);
        let founders: Vec<NodeId> = (1..=u64::from(scenario.nodes)).map(NodeId).collect();
        let load = clients.perform(operations, founders);
        nemesis.run(scenario.span.to_std()).await;

        let nodes = nemesis.end_all();
        let bound = lateness_bound(&scenario).to_std() * 6;
        nemesis.see_out(bound).await;
        recorder.record(Event::Healed { nodes: nodes.clone() });
        let converged = settle::converge(&mut nemesis, &nodes, bound, &recorder).await;
        // Who leads is known, but a clock that has just been put right has yet to be trusted again.
        let has_closing = converged && scenario.closing && scenario.pace == Pace::Normal;
        if has_closing {
            nemesis.tend(CALM_DOWN).await;
        }
        let closing = has_closing.then(|| {
            recorder.record(Event::Closing);
            let members = nemesis.cluster.members();
            let round = draw::closing(&members, scenario.start.saturating_add(millis_of(recorder.now())), seed);
            clients.perform(draw::redirected(round, receiver::ADDRESS), members)
        });
        // Long enough for every fire that was due to show, and for the closing round; from here on a missing one is
        // missing.
        nemesis.tend(lateness_bound(&scenario).to_std()).await;
        settle::converge(&mut nemesis, &nodes, bound, &recorder).await;
        load.abort();
        closing.inspect(JoinHandle::abort);
        if converged {
            read_final_state(&mut nemesis, &recorder).await;
        }
        for (mark, count) in sim::marks() {
            recorder.record(Event::Sometimes { mark: mark.name().to_owned(), count });
        }
        gauges.record(&recorder);
        Ran {
            messages: recorder.take_messages(),
            events: recorder.take(),
            network_messages: madsim::net::NetSim::current().stat().msg_count,
            simulated: started.elapsed(),
            disks: nemesis.cluster.hosts.values().map(|host| host.disk.work()).collect(),
            missed: nemesis.missed(),
        }
    }
}

/// Reads the final state from a machine of its own: the simulator's has no address, and nobody could answer it.
async fn read_final_state(nemesis: &mut Nemesis, recorder: &Recorder) {
    let machine = Handle::current().create_node().name("reader").ip(READER).build();
    for _ in 0..FINAL_READS {
        // Where nobody leads there is nobody to ask: node 0 does not answer, and that is told like any other failure.
        let node = nemesis.cluster.leader().unwrap_or_default();
        final_state::begin(node, recorder);
        let reading = machine.spawn(async move {
            let read = async { final_state::read(&connect(node)?, Some(FINAL_PAGE)).await };
            read.await.map_err(|error: campanile_client::Error| error.to_string())
        });
        let read = reading.await.unwrap_or_else(|error| Err(error.to_string()));
        let failed = read.is_err();
        final_state::record(read, node, recorder);
        if !failed {
            return;
        }
        nemesis.tend(FINAL_PAUSE).await;
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn start_receiver(recorder: Recorder) -> Receiver {
    let receiver = Receiver::new(recorder);
    let machine = Handle::current().create_node().name("receiver").ip("10.0.9.1".parse().expect("an address")).build();
    machine.spawn(receiver::serve(receiver.clone()));
    receiver
}

/// The clients' machine.
struct ClientMachine {
    machine: NodeHandle,
    clients: Clients,
}

impl ClientMachine {
    fn start(recorder: &Recorder) -> Self {
        let machine =
            Handle::current().create_node().name("clients").ip("10.0.8.1".parse().expect("an address")).build();
        Self { machine, clients: Clients::new(recorder.clone(), BTreeMap::new()) }
    }

    /// Performs operations when these are the nodes to ask.
    fn perform(&self, operations: Vec<PlannedOperation>, nodes: Vec<NodeId>) -> JoinHandle<()> {
        let clients = self.clients.of(nodes.iter().map(|node| (*node, api_address(*node))).collect());
        let any = move || nodes.get(rt::rng().random_range(0..nodes.len().max(1))).copied().unwrap_or_default();
        self.machine.spawn(clients.perform_all(operations, any))
    }
}

fn millis_of(micros: u64) -> Millis {
    Millis(micros / 1000)
}

fn api_address(node: NodeId) -> String {
    format!("10.0.0.{}:7701", node.0)
}

/// Where its peers look for it.
fn peer_address(node: NodeId) -> String {
    format!("10.0.0.{}:7801", node.0)
}

/// A client of one node that tries once.
fn connect(node: NodeId) -> Result<campanile_client::Client, campanile_client::Error> {
    clients::connect(&api_address(node))
}
