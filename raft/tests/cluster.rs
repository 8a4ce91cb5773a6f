//! Three replicas in one process: election, proposals, failover, reads.

mod common;

use std::time::Duration;

use campanile_model::TaskChange;
use campanile_raft::Lane;
use common::*;

#[tokio::test(flavor = "multi_thread")]
async fn elects_proposes_from_anywhere_and_survives_its_leader() {
    let mut cluster = Cluster::start(3).await;
    let follower = cluster.follower().await;
    assert_eq!(put_on(cluster.replica(follower), "a").await, TaskChange::Created);
    assert_eq!(put_on(cluster.replica(cluster.leader().await), "a").await, TaskChange::Updated);

    let leader = cluster.leader().await;
    let clock = cluster.hosts[&leader].clock.clone();
    let died = clock.instant();
    cluster.host(leader).kill().await;
    let survivor = cluster.follower().await;
    assert_eq!(put_on(cluster.replica(survivor), "b").await, TaskChange::Created);
    let gap = clock.instant() - died;
    assert!(gap < Duration::from_millis(3000), "took {gap:?}; 1.5 s are promised on a machine that is not busy");
    assert_eq!(put_on(cluster.replica(survivor), "a").await, TaskChange::Updated, "what was acknowledged is there");

    cluster.host(leader).start().await;
    cluster.leader().await;
    cluster.converge().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_what_was_just_acknowledged() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.replica(cluster.leader().await);
    // One follower is behind: the others acknowledge without it, and a read there has to wait.
    let slow = cluster.follower().await;
    cluster.hosts[&slow].disk.set_sync_delay(|| Box::pin(tokio::time::sleep(Duration::from_millis(50))));
    for round in 0..10 {
        let name = format!("t{round}-x");
        put_on(leader, &name).await;
        for (id, replica) in cluster.running() {
            replica.read_barrier().await.unwrap();
            let found = replica.store().view().find_task(&task_name(&name)).unwrap();
            assert!(found.is_some(), "node {id} does not see {name}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_share_entries_and_fsyncs() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.replica(cluster.leader().await).clone();
    let before = (leader.metrics().log_syncs.get(), leader.metrics().entries_proposed.get());
    let proposals = (0..500).map(|n| {
        let leader = leader.clone();
        async move { change(&leader.propose(Lane::Api, vec![put(&format!("n{n}"))]).await.unwrap()) }
    });
    let changes = futures::future::join_all(proposals).await;
    assert!(changes.iter().all(|change| *change == TaskChange::Created));
    let entries = leader.metrics().entries_proposed.get() - before.1;
    let syncs = leader.metrics().log_syncs.get() - before.0;
    assert!(entries < 100 && syncs < 100, "{entries} entries and {syncs} fsyncs for 500 proposals");
    cluster.converge().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_outlived_the_end_of_its_log_starts_again() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let slow = cluster.follower().await;
    put_on(cluster.replica(leader), "before").await;
    cluster.converge().await;
    // The others commit, and this one applies, what its own disk is still busy with.
    cluster.hosts[&slow].disk.set_sync_delay(|| Box::pin(tokio::time::sleep(Duration::from_secs(3600))));
    put_on(cluster.replica(leader), "a").await;
    put_on(cluster.replica(leader), "b").await;
    cluster.converge().await;
    cluster.host(slow).kill_sparing(|database, unsynced| if database == "log" { 0 } else { unsynced }).await;

    cluster.hosts[&slow].disk.set_sync_delay(|| Box::pin(std::future::ready(())));
    cluster.host(slow).start().await;
    until("its log begins after its state", || cluster.replica(slow).status().purged > 0).await;
    let status = cluster.replica(slow).status();
    assert!(status.snapshot >= status.purged, "what is purged is in no snapshot: {status:?}");
    put_on(cluster.replica(slow), "after").await;
    cluster.converge().await;
    cluster.stop().await;
}
