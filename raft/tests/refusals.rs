//! What must not get in: other clusters, other protocols, garbage; and what must stop a node.

mod common;

use std::time::Duration;

use bytes::Bytes;
use campanile_model::{NodeId, TaskChange};
use campanile_raft::{Lane, ProposeError, rt};
use common::*;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Calls a node with these headers; answers status and reason.
async fn call(address: &str, path: &str, headers: &[(&str, &str)], body: &'static [u8]) -> (u16, String) {
    let stream = rt::connect(address, PATIENCE).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(rt::Executor, TokioIo::new(stream)).await.unwrap();
    rt::spawn(async move { drop(connection.await) });
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from_static(body))).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let reason = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&reason).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_by_name() {
    let cluster = Cluster::start(1).await;
    let address = cluster.replica(1).peer_addr().to_string();
    let ours = cluster.replica(1).cluster_id().unwrap().to_string();
    let other = "0123456789abcdef0123456789abcdef";
    let headers = |protocol, cluster, to| {
        [
            ("campanile-protocol", protocol),
            ("campanile-cluster", cluster),
            ("campanile-from", "9"),
            ("campanile-to", to),
        ]
    };
    for (path, headers, status, word) in [
        ("/peer/vote", headers("4", ours.as_str(), "1"), 426, "protocol"),
        ("/peer/vote", headers("5", other, "1"), 409, "cluster"),
        ("/peer/append", headers("5", other, "1"), 409, "cluster"),
        ("/peer/propose", headers("5", "none", "1"), 409, "cluster"),
        ("/peer/vote", headers("5", ours.as_str(), "2"), 421, "node 1"),
        ("/peer/nothing", headers("5", ours.as_str(), "1"), 404, "no such"),
        ("/peer/vote", headers("5", ours.as_str(), "1"), 400, "vote request"),
        ("/peer/propose", headers("5", ours.as_str(), "1"), 400, "proposal"),
        ("/peer/snapshot", headers("5", ours.as_str(), "1"), 400, "snapshot"),
    ] {
        let (got, reason) = call(&address, path, &headers, b"\x07garbage").await;
        assert_eq!(got, status, "{path}: {reason}");
        assert!(reason.contains(word), "{path}: {reason}");
    }
    let large = vec![1; 70 << 10].leak();
    let (status, _) = call(&address, "/peer/vote", &headers("5", &ours, "1"), large).await;
    assert_eq!(status, 413);
    assert_eq!(put_on(cluster.replica(1), "unharmed").await, TaskChange::Created);
    assert!(cluster.replica(1).metrics().peer_calls_refused.get() >= 10);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_peer_port_harms_nobody() {
    let cluster = Cluster::start(1).await;
    let address = cluster.replica(1).peer_addr();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let huge_frame = [preface.clone(), vec![0xff; 64 << 10]].concat();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 100_000], preface, huge_frame] {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // The node may hang up at any byte.
        drop(stream.write_all(&bytes).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        let hung_up = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(hung_up.is_ok(), "the connection is closed");
    }
    assert_eq!(put_on(cluster.replica(1), "unharmed").await, TaskChange::Created);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_stops_the_node_and_only_it() {
    let mut cluster = Cluster::start(3).await;
    let broken = cluster.follower().await;
    cluster.host(broken).disk.fail_next_sync();
    let leader = cluster.leader().await;
    put_on(cluster.replica(leader), "x").await;
    let reason = tokio::time::timeout(PATIENCE, cluster.replica(broken).fatal()).await.unwrap();
    assert!(reason.contains("sync"), "{reason}");
    put_on(cluster.replica(leader), "y").await;
    cluster.host(broken).kill().await;
    cluster.host(broken).start().await;
    cluster.leader().await;
    cluster.converge().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_lane_pushes_back() {
    let cluster = Cluster::start_with(1, |config| config.limits.backlog_bytes = 4096).await;
    let replica = cluster.replica(1).clone();
    let many = (0..200).map(|n| {
        let replica = replica.clone();
        async move { replica.propose(Lane::Backlog, vec![put(&format!("b{n}"))]).await }
    });
    let results = futures::future::join_all(many).await;
    let refused = results.iter().filter(|result| matches!(result, Err(ProposeError::Overloaded { .. }))).count();
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert!(refused > 0 && done > 0 && refused + done == 200, "{refused} refused, {done} done");
    assert_eq!(put_on(&replica, "another lane").await, TaskChange::Created);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_appended_has_no_unknown_outcome() {
    // One entry of a lane in flight at a time.
    let mut cluster = Cluster::start_with(3, |config| config.limits.entries_in_flight = 4).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = cluster.running().map(|(id, _)| id).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.host(*id).kill().await;
    }
    let replica = cluster.replica(leader).clone();
    let before = replica.status().last_log;
    let appended = tokio::spawn({
        let replica = replica.clone();
        async move { replica.propose(Lane::Api, vec![put("appended")]).await }
    });
    until("it is appended", || replica.status().last_log > before).await;
    let refused = replica.propose(Lane::Api, vec![put("never")]).await;
    assert!(matches!(refused, Err(ProposeError::Overloaded { .. } | ProposeError::NoLeader)), "{refused:?}");
    for id in &others {
        cluster.host(*id).start().await;
    }
    cluster.leader().await;
    cluster.converge().await;
    let view = cluster.replica(leader).store().view();
    assert!(view.find_task(&task_name("never")).unwrap().is_none());
    let appended = appended.await.unwrap();
    assert!(matches!(appended, Ok(_) | Err(ProposeError::OutcomeUnknown)), "it may be kept or not: {appended:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_wrong_clock_stops_stamping_and_hands_over() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    until("everybody's clock is measured", || {
        cluster.replica(leader).status().nodes.iter().all(|node| node.clock_skew_ms.is_some())
    })
    .await;
    cluster.hosts[&leader].clock.shift(60_000);
    // At once, before anybody has compared clocks.
    let refused = cluster.replica(leader).propose(Lane::Fire, vec![put("early")]).await;
    assert_eq!(refused, Err(ProposeError::ClockSkew));
    let follower = cluster.running().map(|(id, _)| id).find(|id| *id != leader).unwrap();
    wait_leadership(cluster.replica(follower), |now| now.leader.is_some_and(|now| now != NodeId(leader))).await;
    put_on(cluster.replica(follower), "stamped by a good clock").await;
    let stamped = cluster.replica(follower).store().view().time();
    let ahead_ms = stamped.millis_from(cluster.hosts[&follower].clock.now());
    assert!(ahead_ms < 10_000, "time did not jump with the wrong clock, but is {ahead_ms} ms ahead");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_gets_no_lease_and_is_remembered_until_its_last_one_has_ended() {
    let mut cluster = Cluster::start_with(3, |config| config.timing.lease = Duration::from_millis(900)).await;
    let leader = cluster.leader().await;
    let removed = cluster.follower().await;
    let (leads, goes) = (cluster.replica(leader).clone(), cluster.replica(removed).clone());
    until("the leader has heard everybody", || leads.heard().values().all(|heard| heard.incarnation != 0)).await;
    let up = || cluster.running().map(|(id, replica)| (NodeId(id), replica.incarnation())).collect();
    leads.grant_leases(up(), 0);
    until("it has a lease", || goes.may_deliver(0)).await;
    leads.remove_node(NodeId(removed)).await.unwrap();
    // The conductor does not know yet.
    leads.grant_leases(up(), 0);
    until("its lease has run out, although it goes on beating", || {
        let (may_deliver, heard) = (goes.may_deliver(0), leads.heard().get(&NodeId(removed)).copied());
        assert!(!may_deliver || heard.is_some_and(|heard| !heard.is_member), "it is forgotten and delivers");
        !may_deliver
    })
    .await;
    until("it is forgotten", || !leads.heard().contains_key(&NodeId(removed))).await;
    cluster.host(removed).kill().await;
    cluster.hosts.remove(&removed);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_run_out_without_a_quorum() {
    let mut cluster = Cluster::start_with(3, |config| config.timing.lease = Duration::from_millis(900)).await;
    let leader = cluster.leader().await;
    until("the leader has heard everybody", || {
        cluster.replica(leader).heard().values().all(|heard| heard.incarnation != 0)
    })
    .await;
    for (id, replica) in cluster.running() {
        assert!(!replica.may_deliver(u64::MAX), "node {id} has a lease that nobody granted");
    }
    let up = cluster.running().map(|(id, replica)| (NodeId(id), replica.incarnation())).collect();
    cluster.replica(leader).grant_leases(up, 1000);
    for (id, replica) in cluster.running() {
        until(&format!("node {id} has a lease"), || {
            assert!(!replica.may_deliver(999), "node {id} delivers, and does not know that it is up");
            replica.may_deliver(1000)
        })
        .await;
    }
    let others: Vec<u64> = cluster.running().map(|(id, _)| id).filter(|id| *id != leader).collect();
    for id in others {
        cluster.host(id).kill().await;
    }
    let replica = cluster.replica(leader).clone();
    until("the leader's own lease has run out", || !replica.may_deliver(u64::MAX)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_hears_who_is_about_to_stop() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let stops = cluster.follower().await;
    let drains = |id| cluster.replica(leader).heard().get(&NodeId(id)).map(|heard| heard.drains);
    until("the leader has heard everybody", || {
        cluster.replica(leader).heard().values().all(|heard| heard.incarnation != 0 && !heard.drains)
    })
    .await;
    cluster.replica(stops).drain();
    until("it is heard", || drains(stops) == Some(true)).await;
    assert_eq!(cluster.replica(leader).heard().values().filter(|heard| heard.drains).count(), 1);
    cluster.stop().await;
}
