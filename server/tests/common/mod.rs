//! What the tests share: a node in this process, and a plain HTTP client.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod http;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use campanile_model::NodeId;
use campanile_raft::{Clock, ReplicaConfig};
use campanile_server::{Node, NodeConfig};
use campanile_store::engine::mem::MemDisk;

/// A cluster of one node on a disk in memory, ready to take writes.
pub async fn single_node(change: impl FnOnce(&mut NodeConfig)) -> Node {
    single_node_on(&MemDisk::new(), change).await
}

pub async fn single_node_on(disk: &MemDisk, change: impl FnOnce(&mut NodeConfig)) -> Node {
    let peer = free_address();
    let cluster = BTreeMap::from([(NodeId(1), peer.clone())]);
    let mut config = NodeConfig {
        listen: "127.0.0.1:0".into(),
        replica: ReplicaConfig::new(NodeId(1), cluster, peer, String::new()),
        catch_up_rate: 2000,
        http_connections: 64,
        http_connections_per_host: 64,
        webhook_secret: None,
        min_free_disk_bytes: 0,
        drain_timeout: Duration::from_secs(5),
    };
    change(&mut config);
    let node = Node::start(config, disk.attach(), Clock::system()).await.unwrap();
    within("the node leads", async {
        while http::send(node.api_address(), "GET", "/readyz", &[], b"").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    node
}

/// An address nobody listens on, below the ports that outgoing connections take.
pub fn free_address() -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(8).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 27_000 + number % 5000);
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Waits for something that must happen soon.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.unwrap_or_else(|_| panic!("not in 30 s: {what}"))
}
