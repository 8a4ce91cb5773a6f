//! Faults that a cluster of real processes must survive: nothing lost, nothing doubled, nothing early, every ledger
//! balanced. What was due is known here, from what was submitted; the cluster is never asked.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use campanile_bench::account::{self, Runs};
use campanile_bench::check::{Duty, Expected, Verdict, judge, runs_to_read_closely};
use campanile_bench::cluster::{ClusterOptions, ProcessCluster};
use campanile_bench::receiver::{Behaviour, Receiver};
use campanile_bench::settle;
use campanile_client::{Client, Condition, DeleteTask, LedgerQuery, NamedTask};
use campanile_model::api::BatchLine;
use campanile_model::{
    CatchUp, CatchUpPolicy, HttpTarget, Millis, NodeId, OccurrenceId, Origin, Schedule, Target, TaskId, TaskSpec,
    Timestamp,
};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// One cluster at a time: three nodes and a receiver are enough for two cores.
static MACHINE: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

const SOON: Duration = Duration::from_secs(30);

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as i64)
}

async fn sleep_until(instant: Timestamp) {
    sleep(instant.since(now()).to_std()).await;
}

fn hook(receiver: &Receiver, schedule: Schedule) -> TaskSpec {
    let target = HttpTarget {
        url: receiver.url(),
        method: Default::default(),
        headers: Default::default(),
        signing_secret: None,
    };
    TaskSpec::new(vec![schedule], Target::Http(target))
}

/// A cluster, a receiver, and what is due.
struct Work {
    cluster: ProcessCluster,
    client: Client,
    receiver: Receiver,
    expected: Expected,
    tasks: Vec<TaskId>,
}

impl Work {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(serve_args: &[&str]) -> Self {
        let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_campanile"));
        options.serve_args = serve_args.iter().map(|arg| String::from(*arg)).collect();
        let cluster = ProcessCluster::start(options).await.unwrap();
        let client = cluster.client().unwrap();
        let receiver = Receiver::start().unwrap();
        Self { cluster, client, receiver, expected: Expected::default(), tasks: Vec::new() }
    }

    /// One-shots at equal distances over a span that begins at `from`.
    async fn submit_one_shots(&mut self, count: i64, from: Timestamp, over: Millis) {
        let instants = (0..count).map(|n| from.saturating_add(Millis(over.0 * n as u64 / count as u64)));
        let instants: Vec<Timestamp> = instants.collect();
        let tasks: Vec<NamedTask> =
            instants.iter().map(|at| NamedTask { name: None, spec: hook(&self.receiver, Schedule::At(*at)) }).collect();
        let lines = self.client.create_batch(&tasks).await.unwrap();
        assert_eq!(lines.len(), tasks.len());
        for (line, at) in lines.iter().zip(instants) {
            let BatchLine::Written { task, .. } = line else { panic!("{line:?}") };
            self.expect(task.id, at, Duty::Fire);
        }
    }

    fn expect(&mut self, task: TaskId, scheduled_at: Timestamp, duty: Duty) {
        self.expected.insert(OccurrenceId { task, scheduled_at, origin: Origin::Schedule }, duty);
        if self.tasks.last() != Some(&task) {
            self.tasks.push(task);
        }
    }

    async fn leader(&self) -> NodeId {
        self.cluster.leader(SOON).await.unwrap()
    }

    async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        self.cluster.ids().into_iter().find(|id| *id != leader).unwrap()
    }

    /// Waits until all has arrived and ended, then judges it. Panics unless everything holds.
    async fn settle(&self) -> Verdict {
        let must = self.expected.must_fire();
        assert!(
            self.receiver.wait_occurrences(must, Duration::from_secs(60)).await,
            "{:?} arrived of {must}",
            self.receiver.counts()
        );
        settle::runs_ended(&self.cluster, SOON).await.unwrap();
        let received = self.receiver.received();
        let closely = Runs::Only(runs_to_read_closely(&received));
        let committed = account::read(&self.client, &self.tasks, &closely).await.unwrap();
        let verdict = judge(&self.expected, &committed, &received);
        assert!(verdict.holds(), "{verdict}");
        println!("{verdict}");
        verdict
    }

    /// Every running node comes to the same state.
    async fn converge(&self) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let mut digests = Vec::new();
            for id in self.cluster.ids() {
                digests.push(self.cluster.node(id).client.digest().await.ok());
            }
            if digests.iter().all(|digest| digest.is_some() && *digest == digests[0]) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "no common state: {digests:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_killed_while_a_thousand_come_due() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let from = now().saturating_add(Millis::from_secs(2));
    work.submit_one_shots(1000, from, Millis::from_secs(10)).await;
    sleep_until(from.saturating_add(Millis::from_secs(5))).await;
    let leader = work.leader().await;
    work.cluster.kill9(leader).unwrap();
    work.settle().await;
    work.cluster.restart(leader, SOON).await.unwrap();
    work.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_killed_and_brought_back() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let from = now().saturating_add(Millis::from_secs(2));
    work.submit_one_shots(600, from, Millis::from_secs(6)).await;
    sleep_until(from.saturating_add(Millis::from_secs(2))).await;
    let follower = work.follower().await;
    work.cluster.kill9(follower).unwrap();
    sleep_until(from.saturating_add(Millis::from_secs(4))).await;
    work.cluster.restart(follower, SOON).await.unwrap();
    work.settle().await;
    work.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_killed_at_once() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let from = now().saturating_add(Millis::from_secs(2));
    work.submit_one_shots(600, from, Millis::from_secs(6)).await;
    sleep_until(from.saturating_add(Millis::from_secs(3))).await;
    for id in work.cluster.ids() {
        work.cluster.kill9(id).unwrap();
    }
    for id in work.cluster.ids() {
        work.cluster.spawn(id).unwrap();
    }
    work.cluster.wait_all_ready(SOON).await.unwrap();
    work.settle().await;
    work.converge().await;
}

/// An outage that spans due times: what is older than the grace when the cluster is back follows each task's policy,
/// and the ledger accounts for every occurrence.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_any_node() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let period = Millis::from_secs(5);
    let window = Millis::from_hours(1);
    let policies = [
        ("all", CatchUpPolicy::FireAll, window),
        ("once", CatchUpPolicy::FireOnce, window),
        ("skip", CatchUpPolicy::Skip, window),
        ("short", CatchUpPolicy::FireAll, Millis::from_secs(30)),
    ];
    let start_at = Timestamp::from_millis((now().as_millis() / 5000 + 1) * 5000);
    // Eighteen occurrences: the outage takes most of them.
    let end_at = start_at.saturating_add(Millis::from_secs(90));
    let mut ids = BTreeMap::new();
    for (name, policy, window) in policies {
        let mut spec = hook(&work.receiver, Schedule::Every(period));
        spec.catch_up = CatchUp { grace: Millis::from_secs(10), window, policy };
        spec.start_at = Some(start_at);
        spec.end_at = Some(end_at);
        let id = work.client.put_task(name, &spec, Condition::None).await.unwrap().id;
        ids.insert(name, id);
        let duty = if name == "all" { Duty::Fire } else { Duty::Stand };
        for n in 0..18 {
            work.expect(id, start_at.saturating_add(Millis(period.0 * n)), duty);
        }
    }
    sleep_until(start_at.saturating_add(Millis::from_secs(7))).await;
    for id in work.cluster.ids() {
        work.cluster.kill9(id).unwrap();
    }
    sleep(Duration::from_secs(60)).await;
    for id in work.cluster.ids() {
        work.cluster.spawn(id).unwrap();
    }
    work.cluster.wait_all_ready(SOON).await.unwrap();
    sleep_until(end_at).await;
    let verdict = work.settle().await;
    let ledger = |name: &str| {
        let (client, id) = (work.client.clone(), ids[name]);
        async move { client.ledger(&id.to_string(), &LedgerQuery::default()).await.unwrap().tally }
    };
    let (all, once, skip, short) =
        (ledger("all").await, ledger("once").await, ledger("skip").await, ledger("short").await);
    for tally in [&all, &once, &skip, &short] {
        assert_eq!(tally.total(), 18, "{tally:?}");
    }
    assert_eq!(all.fired, 18, "{all:?}");
    assert!(once.coalesced >= 7 && once.policy_skip == 0, "{once:?}");
    assert!(skip.policy_skip >= 8 && skip.coalesced == 0, "{skip:?}");
    assert!(short.beyond_window >= 4 && short.fired >= 6, "{short:?}");
    assert_eq!(verdict.lapsed, once.coalesced + skip.policy_skip + short.beyond_window);
    work.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_follower_comes_back_as_a_new_node() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let from = now().saturating_add(Millis::from_secs(2));
    work.submit_one_shots(800, from, Millis::from_secs(8)).await;
    let follower = work.follower().await;
    work.cluster.kill9(follower).unwrap();
    work.cluster.wipe(follower).unwrap();
    // Under its old id it would be a voter that has forgotten its votes: it must not take part.
    work.cluster.spawn(follower).unwrap();
    let refused = work.cluster.wait_exit(follower, SOON).await;
    if let Ok(status) = refused {
        assert!(!status.success());
    } else {
        assert!(work.cluster.node(follower).client.ready().await.is_err());
        work.cluster.kill9(follower).unwrap();
    }
    let joining = work.cluster.spawn_joining().unwrap();
    work.cluster.add(joining, SOON).await.unwrap();
    work.cluster.remove(follower).await.unwrap();
    work.settle().await;
    work.converge().await;
    let view = work.cluster.leader_view(SOON).await.unwrap();
    assert_eq!(view.nodes.len(), 3, "{:?}", view.nodes);
    assert!(view.nodes.iter().any(|node| node.id == joining));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_wiped_nodes_form_no_second_cluster() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let before = work.cluster.leader_view(SOON).await.unwrap().cluster_id;
    let ids = work.cluster.ids();
    for id in &ids {
        work.cluster.kill9(*id).unwrap();
    }
    for id in &ids[..2] {
        work.cluster.wipe(*id).unwrap();
        work.cluster.spawn(*id).unwrap();
    }
    // First without the third, then with it.
    for third in [false, true] {
        if third {
            work.cluster.spawn(ids[2]).unwrap();
        }
        sleep(Duration::from_secs(4)).await;
        for id in &ids[..2] {
            let node = work.cluster.node(*id);
            assert!(node.client.ready().await.is_err(), "node {id} serves after it was wiped");
            if let Ok(view) = node.client.cluster().await {
                assert_eq!((view.cluster_id.as_str(), view.leader), ("", None), "node {id}");
            }
        }
    }
    let third = work.cluster.node(ids[2]).client.cluster().await.unwrap();
    assert_eq!((third.cluster_id, third.leader), (before, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_cluster_or_node_is_refused() {
    let _machine = MACHINE.lock().await;
    let mut ours = Work::start().await;
    let mut theirs = Work::start().await;
    let (id, other) = (NodeId(2), NodeId(3));
    ours.cluster.kill9(id).unwrap();
    theirs.cluster.kill9(id).unwrap();
    theirs.cluster.kill9(other).unwrap();
    let swap = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::remove_dir_all(to).unwrap();
        std::fs::rename(from, to).unwrap();
    };
    // Data of the same node of another cluster.
    swap(&theirs.cluster.node(id).data, &ours.cluster.node(id).data);
    ours.cluster.spawn(id).unwrap();
    let status = ours.cluster.wait_exit(id, SOON).await.unwrap();
    assert!(!status.success());
    let log = ours.cluster.node(id).log_tail();
    assert!(log.contains("cluster"), "{log}");
    // Data of another node.
    swap(&theirs.cluster.node(other).data, &ours.cluster.node(id).data);
    ours.cluster.spawn(id).unwrap();
    let status = ours.cluster.wait_exit(id, SOON).await.unwrap();
    assert!(!status.success());
    let log = ours.cluster.node(id).log_tail();
    assert!(log.contains("belongs to node 3"), "{log}");
}

/// Deliveries that are not the first of their run.
fn later_attempts(work: &Work) -> usize {
    work.receiver.received().deliveries.iter().filter(|delivery| delivery.attempt > 1).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_hands_over_and_lets_attempts_finish() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    work.receiver.set_behaviour(Behaviour { delay: Duration::from_secs(8), ..Behaviour::default() });
    let from = now().saturating_add(Millis::from_secs(1));
    work.submit_one_shots(90, from, Millis::from_secs(1)).await;
    // Every one is on its way, and none is answered yet.
    assert!(work.receiver.wait_occurrences(90, SOON).await);
    let leader = work.leader().await;
    work.cluster.terminate(leader).unwrap();
    // It says that it goes, and answers on.
    let stops = Client::builder([work.cluster.node(leader).api.as_str()]).retries(0).build().unwrap();
    let not_ready = async {
        loop {
            match stops.ready().await {
                Ok(()) => sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    };
    let not_ready = tokio::time::timeout(SOON, not_ready).await.unwrap();
    assert_eq!(not_ready.code().map(ToString::to_string).as_deref(), Some("shutting_down"), "{not_ready}");
    assert_eq!(stops.cluster().await.unwrap().nodes.len(), 3);
    // What comes due while it waits is the others', all shards of it.
    work.submit_one_shots(60, now().saturating_add(Millis::from_secs(3)), Millis::from_secs(1)).await;
    let status = work.cluster.wait_exit(leader, Duration::from_secs(35)).await.unwrap();
    assert!(status.success(), "{status}: {}", work.cluster.node(leader).log_tail());
    let log = work.cluster.node(leader).log_tail();
    assert!(log.contains("leadership handed over"), "{log}");
    work.settle().await;
    assert_eq!(later_attempts(&work), 0, "nothing had to be tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_told_to_stop_delivers_what_it_was_given() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start_with(&["--http-connections-per-host", "10"]).await;
    work.receiver.set_behaviour(Behaviour { delay: Duration::from_secs(1), ..Behaviour::default() });
    // Two in three wait for a connection, a third of them at the node that stops.
    work.submit_one_shots(90, now().saturating_add(Millis::from_secs(1)), Millis(100)).await;
    assert!(work.receiver.wait_occurrences(30, SOON).await);
    let follower = work.follower().await;
    work.cluster.terminate(follower).unwrap();
    let status = work.cluster.wait_exit(follower, Duration::from_secs(35)).await.unwrap();
    assert!(status.success(), "{status}: {}", work.cluster.node(follower).log_tail());
    work.settle().await;
    assert_eq!(later_attempts(&work), 0, "nothing had to be tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_unknown_outcome_is_safe_to_repeat() {
    let _machine = MACHINE.lock().await;
    let mut work = Work::start().await;
    let leader = work.leader().await;
    let others: Vec<NodeId> = work.cluster.ids().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        work.cluster.pause(*id).unwrap();
    }
    let spec = hook(&work.receiver, Schedule::Every(Millis::from_hours(1)));
    let task = NamedTask { name: Some("once".into()), spec };
    let api = [work.cluster.node(leader).api.as_str()];
    let alone = Client::builder(api).retries(0).attempt_timeout(Duration::from_secs(40)).build().unwrap();
    let error = alone.create_task(&task, Some("key-1")).await.unwrap_err();
    let code = error.code().unwrap_or_default().to_owned();
    assert!(["outcome_unknown", "no_leader"].contains(&code.as_str()), "{error}");
    assert!(error.is_retryable());
    for id in &others {
        work.cluster.cont(*id).unwrap();
    }
    work.cluster.wait_all_ready(SOON).await.unwrap();
    let first = work.client.create_task(&task, Some("key-1")).await.unwrap();
    let again = work.client.create_task(&task, Some("key-1")).await.unwrap();
    assert_eq!(first.id, again.id);
    work.client.delete_task("once", DeleteTask::default()).await.unwrap();
}
