//! The black box: the program `campanile` itself, as separate processes with RocksDB and sockets, under the faults that a
//! real machine can be made to have. The same plans, clients, receiver, histories and checkers as in the simulator.
//!
//! Time is real here, so a seed decides what is asked and done, never what comes of it. What cannot be done on this
//! machine is left out and listed in the history's header; it is never passed over in silence. Nothing looks into a node
//! other than through its HTTP API, its signals and its exit status.

mod disks;
mod machines;
mod nemesis;
mod network;
mod reach;
mod receiver;
mod senders;
mod site;
mod watch;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use campanile_bench::clock::Micros;
use campanile_bench::cluster::ProcessCluster;
use campanile_model::{Millis, NodeId, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::drive::clients::{self, Clients};
use crate::drive::draw;
use crate::drive::final_state;
use crate::drive::receiver::Receiver;
use crate::drive::recorder::Recorder;
use crate::history::{Event, FORMAT, Header, History, Source};
use crate::order::{Driven, RealOrder};
use crate::scenario::{DRAWN, Pace, Scenario};

use machines::Machines;
use nemesis::Nemesis;
use reach::Reach;
use senders::Senders;
use site::Site;
use watch::Watch;

/// After the faults have ended, what is due fires within this time; as in the simulator.
const LATENESS_BOUND: Millis = Millis::from_secs(15);
/// How long the nodes may take to agree at the start.
const START: Duration = Duration::from_secs(20);
/// How long they may take to agree and to owe nothing once the faults are over.
const CONVERGE: Duration = Duration::from_secs(90);
/// How often the final state is tried to be read.
const READS: u32 = 5;
/// So that what is drawn on the way does not repeat what the plan was drawn from.
const NOT_THE_PLAN: u64 = 0x5245_414c;

/// Drives a cluster of real processes. `say` is told now and then how far it is. Ends early, with nothing left behind,
/// when this process is told to stop.
pub fn drive(order: &RealOrder, say: &(dyn Fn(&str) + Sync)) -> Result<Driven> {
    ensure!(order.scenario.span.0 > 0, "the span is empty");
    ensure!(order.scenario.pace == Pace::Normal, "real processes have no coarse pace: their time is everybody's");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            // Before anything is made that would be left behind.
            biased;
            signal = told_to_stop() => bail!("ended by {}", signal?),
            driven = run(order, say) => driven,
        }
    })
}

async fn told_to_stop() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hang_up.recv() => "SIGHUP",
    })
}

async fn run(order: &RealOrder, say: &(dyn Fn(&str) + Sync)) -> Result<Driven> {
    let mut scenario = order.scenario.clone();
    if scenario.nodes == DRAWN {
        // Real processes are slow: they are as many as a seed has most often.
        scenario.nodes = Scenario::default().nodes;
    }
    let site = Site::prepare(&scenario)?;
    let mut reach = Reach::of(&site);
    reach.restrict(&mut scenario);
    let rng = SmallRng::seed_from_u64(order.seed ^ NOT_THE_PLAN);

    let (recorder, epoch) = begin();
    let receiver = Receiver::new(recorder.clone());
    let listener = TcpListener::bind((site.host(), 0)).await.context("listening for webhooks")?;
    let hook = listener.local_addr()?.to_string();
    let senders = Senders::new(site.has_network());
    tokio::spawn(receiver::serve(listener, receiver.clone(), senders.clone()));
    say("starting the nodes");
    let cluster = ProcessCluster::start(site.options(&order.binary, scenario.nodes)).await?;
    let machines = Machines::new(cluster, recorder.clone(), senders);
    let apis = machines.apis();
    let watch = Watch::start(machines.clients(), &recorder);

    let start = now();
    let mut plan = draw::plan(&scenario, start, order.seed);
    reach.prune(&mut plan, scenario.span);
    let operations = draw::all_operations(&scenario, plan.operations.clone(), &hook);
    let faults = plan.faults.clone();
    let mut nemesis = Nemesis::new(machines, &site, watch, receiver.clone(), recorder.clone(), faults, rng);
    let all: Vec<NodeId> = apis.keys().copied().collect();
    ensure!(nemesis.converge(&all, START, say).await?, "the nodes did not agree at the start");
    recorder.record(Event::Converged);

    let nodes = u64::from(scenario.nodes);
    let mut picks = SmallRng::seed_from_u64(order.seed ^ NOT_THE_PLAN ^ 1);
    let any = move || NodeId(picks.random_range(1..=nodes));
    tokio::spawn(Clients::new(recorder.clone(), apis.clone()).perform_all(operations, any));
    nemesis.run(scenario.span.to_std(), say).await?;

    let healed = nemesis.end_all()?;
    recorder.record(Event::Healed { nodes: healed.clone() });
    if nemesis.converge(&healed, CONVERGE, say).await? {
        // Long enough for every fire that is due to show, and for every client to have given up.
        nemesis.tend(LATENESS_BOUND.to_std(), say).await?;
        // What has not come to rest and cannot be read has not converged, and the checkers say so.
        if nemesis.converge(&healed, CONVERGE, say).await? && read_final(&mut nemesis, &recorder, say).await? {
            recorder.record(Event::Converged);
        }
    }
    nemesis.machines.record_panics()?;
    nemesis.machines.record_logs(recorder.now() / 1_000_000)?;
    for kind in nemesis.missed() {
        reach.note(kind, "there was no node to strike".into());
    }
    if let Some(logs) = &order.logs {
        nemesis.machines.keep_logs(logs)?;
    }
    let header = Header {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        source: Source::RealProcesses,
        scenario: scenario.name.clone(),
        seed: Some(order.seed),
        planted: None,
        epoch_ms: epoch.as_millis(),
        nodes: all,
        clock_error_ms: clock_error_ms(&recorder, epoch),
        lateness_bound_ms: LATENESS_BOUND.0.cast_signed(),
        bounds: Default::default(),
        webhook_secret: None,
        left_out: reach.into_left_out(),
    };
    Ok(Driven { history: History { header, events: recorder.take() }, plan })
}

/// Reads the final state from the leader. Leadership may move meanwhile: then it is read again from the start.
async fn read_final(nemesis: &mut Nemesis<'_>, recorder: &Recorder, say: &dyn Fn(&str)) -> Result<bool> {
    for _ in 0..READS {
        say("reading the final state");
        let leader = nemesis.leader().and_then(|node| Some((node, nemesis.machines.apis().remove(&node)?)));
        if let Some((node, leader)) = leader {
            final_state::begin(node, recorder);
            let read = final_state::read(&clients::connect(&leader)?, None).await.map_err(|error| error.to_string());
            let whole = read.is_ok();
            final_state::record(read, node, recorder);
            if whole {
                return Ok(true);
            }
        }
        nemesis.tend(Duration::from_secs(1), say).await?;
    }
    Ok(false)
}

fn now() -> Timestamp {
    Timestamp::from_millis(Micros::now().0.div_euclid(1000))
}

/// A recorder whose time begins with a whole millisecond of the wall clock, and that millisecond.
fn begin() -> (Recorder, Timestamp) {
    let wall = Micros::now().0;
    let into = Duration::from_micros(wall.rem_euclid(1000).unsigned_abs());
    let instant = Instant::now();
    let start = instant.checked_sub(into).unwrap_or(instant);
    (Recorder::since(start), Timestamp::from_millis(wall.div_euclid(1000)))
}

/// How far the wall clock, which the nodes read, has come away from the recorder's since the beginning.
fn clock_error_ms(recorder: &Recorder, epoch: Timestamp) -> i64 {
    let recorded = recorder.now() / 1000;
    let off = now().millis_from(epoch) - i64::try_from(recorded).unwrap_or(i64::MAX);
    // A millisecond is what rounding makes.
    if off.abs() <= 1 { 0 } else { off.abs() }
}
