//! Members come and go: snapshots for those far behind, learners, removal, transfer, formation.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use campanile_model::{NodeId, TaskChange};
use campanile_raft::{MembershipError, ReplicaConfig, Role, StartError};
use common::*;

fn keep_few(config: &mut ReplicaConfig) {
    (config.snapshots.keep_bytes, config.snapshots.keep_bytes_needed) = (0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_away_past_the_purge_catches_up_by_snapshot() {
    let mut cluster = Cluster::start_with(3, keep_few).await;
    let away = cluster.follower().await;
    cluster.host(away).kill().await;
    let leader = cluster.leader().await;
    for n in 0..40 {
        put_on(cluster.replica(leader), &format!("x{n}")).await;
    }
    cluster.replica(leader).trigger_snapshot().await;
    let purged_beyond = cluster.replica(leader).status().applied - 5;
    until("the leader purges its log", || cluster.replica(leader).status().purged >= purged_beyond).await;
    put_on(cluster.replica(leader), "after").await;

    cluster.host(away).start().await;
    cluster.leader().await;
    cluster.converge().await;
    assert_eq!(cluster.replica(away).metrics().snapshots_installed.get(), 1);
    put_on(cluster.replica(away), "and on").await;
    cluster.converge().await;

    // The files that were made to be sent are gone with the next snapshot.
    let disk = cluster.hosts[&leader].disk.attach();
    let sent = || disk.list_dirs("snapshots").unwrap().len();
    assert_eq!(sent(), 1);
    cluster.replica(leader).trigger_snapshot().await;
    until("what was sent is gone", || sent() == 0).await;

    // What was installed survives a power failure, with the log that followed.
    cluster.host(away).kill().await;
    cluster.host(away).start().await;
    cluster.leader().await;
    cluster.converge().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_joins_is_promoted_and_may_replace_another() {
    let mut cluster = Cluster::start_with(3, keep_few).await;
    let leader = cluster.leader().await;
    for n in 0..20 {
        put_on(cluster.replica(leader), &format!("x{n}")).await;
    }
    let newcomer = free_addresses(1).remove(&NodeId(1)).unwrap();
    let mut addresses = cluster.hosts[&1].config.cluster.clone();
    addresses.insert(NodeId(4), newcomer.clone());

    // Not before it is there.
    let through = cluster.follower().await;
    let refused = cluster.replica(through).add_node(NodeId(4), newcomer.clone()).await;
    assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");

    let mut host = host(4, &addresses);
    host.config.join = true;
    host.start().await;
    until("the newcomer knows the cluster", || host.replica().cluster_id().is_some()).await;
    cluster.hosts.insert(4, host);
    cluster.replica(through).add_node(NodeId(4), newcomer).await.unwrap();
    cluster.leader().await;
    let status = cluster.replica(leader).status();
    assert!(status.nodes.iter().any(|node| node.id == NodeId(4) && node.role == Role::Follower), "{status:?}");
    cluster.converge().await;

    cluster.replica(4).transfer_leader(NodeId(4)).await.unwrap();
    assert_eq!(cluster.leader().await, 4);
    assert_eq!(put_on(cluster.replica(4), "led by 4").await, TaskChange::Created);

    cluster.replica(4).remove_node(NodeId(1)).await.unwrap();
    cluster.host(1).kill().await;
    cluster.hosts.remove(&1);
    cluster.leader().await;
    assert!(cluster.replica(4).status().nodes.iter().all(|node| node.id != NodeId(1)));
    assert_eq!(put_on(cluster.replica(4), "without 1").await, TaskChange::Created);
    cluster.converge().await;

    // Its id is not used again, although nobody ever said that node 1 is up, and the disk is empty.
    let address = free_addresses(1).remove(&NodeId(1)).unwrap();
    addresses.insert(NodeId(1), address.clone());
    let mut wiped = common::host(1, &addresses);
    wiped.config.join = true;
    wiped.start().await;
    until("the wiped node knows the cluster", || wiped.replica().cluster_id().is_some()).await;
    let refused = cluster.replica(4).add_node(NodeId(1), address).await;
    assert_eq!(refused, Err(MembershipError::Refused("node 1 was a member before; ids are not used again".into())));
    wiped.kill().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_removes_itself_and_another_takes_over() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.replica(leader).remove_node(NodeId(leader)).await.unwrap();
    let other = cluster.running().map(|(id, _)| id).find(|id| *id != leader).unwrap();
    wait_leadership(cluster.replica(other), |now| now.leader.is_some_and(|now| now != NodeId(leader))).await;
    cluster.host(leader).kill().await;
    cluster.hosts.remove(&leader);
    assert_eq!(put_on(cluster.replica(other), "without it").await, TaskChange::Created);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_is_a_cluster() {
    let cluster = Cluster::start(1).await;
    assert_eq!(put_on(cluster.replica(1), "alone").await, TaskChange::Created);
    cluster.replica(1).read_barrier().await.unwrap();
    cluster.replica(1).heard();
    cluster.replica(1).grant_leases([(NodeId(1), cluster.replica(1).incarnation())].into(), 0);
    until("it has a lease from itself", || cluster.replica(1).may_deliver(0)).await;
    let refused = cluster.replica(1).remove_node(NodeId(1)).await;
    assert_eq!(refused, Err(MembershipError::LastVoter(NodeId(1))));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formation_waits_for_everybody() {
    let mut cluster = Cluster::configure(3, |_| ());
    cluster.host(1).start().await;
    cluster.host(2).start().await;
    // Two of three are there; several rounds of greetings later there is still no cluster.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(cluster.running().all(|(_, replica)| replica.cluster_id().is_none()));
    cluster.host(3).start().await;
    cluster.leader().await;
    let ids: Vec<_> = cluster.running().map(|(_, replica)| replica.cluster_id()).collect();
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_wiped_nodes_never_form_a_second_cluster() {
    let mut cluster = Cluster::start(3).await;
    put_on(cluster.replica(cluster.leader().await), "precious").await;
    for id in [1, 2] {
        cluster.host(id).kill().await;
        cluster.host(id).disk = campanile_store::engine::MemDisk::new();
        cluster.host(id).start().await;
    }
    // Node 3 has the data. With it up, and then with it down, the empty ones only wait.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    cluster.host(3).kill().await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    for id in [1, 2] {
        let replica = cluster.replica(id);
        assert_eq!((replica.cluster_id(), replica.status().term), (None, 0), "node {id} takes part in nothing");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_to_start_as_somebody_else() {
    let mut cluster = Cluster::start(1).await;
    put_on(cluster.replica(1), "x").await;
    cluster.host(1).kill().await;
    let disk = cluster.host(1).disk.clone();

    let addresses: BTreeMap<_, _> = free_addresses(2);
    let mut other = host(2, &addresses);
    other.disk = disk.clone();
    let refused = start_error(&other).await;
    assert!(matches!(refused, StartError::OtherNode { found: NodeId(1), configured: NodeId(2) }), "{refused}");

    // The same disk among nodes of another cluster.
    let mut others = Cluster::start(1).await;
    let theirs = others.host(1).config.peer_listen.clone();
    let mut ours = cluster.hosts.remove(&1).unwrap();
    ours.config.cluster.insert(NodeId(2), theirs.clone());
    // That node answers as 1, so it is asked under the id it has.
    ours.config.cluster.remove(&NodeId(2));
    let mut lost = host(3, &BTreeMap::from([(NodeId(1), theirs), (NodeId(3), addresses[&NodeId(2)].clone())]));
    lost.config.join = true;
    lost.start().await;
    until("it knows its cluster", || lost.replica().cluster_id().is_some()).await;
    lost.kill().await;
    others.host(1).kill().await;
    others.host(1).disk = disk;
    others.host(1).start().await;
    let refused = start_error(&lost).await;
    assert!(matches!(refused, StartError::OtherCluster { peer: NodeId(1), .. }), "{refused}");
    others.stop().await;
}

async fn start_error(host: &Host) -> StartError {
    let started = campanile_raft::Replica::start(
        host.config.clone(),
        host.disk.attach(),
        std::sync::Arc::new(PrepareManual),
        host.clock.clone(),
    );
    match started.await {
        Ok(_) => panic!("node {} starts", host.id),
        Err(error) => error,
    }
}
