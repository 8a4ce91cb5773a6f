//! A node in this process that is told to stop.

mod common;

use std::time::Duration;

use campanile_store::engine::mem::MemDisk;
use common::http;
use serde_json::json;
use tokio::net::TcpListener;

/// Found by seed 201912: it went on without consensus, and without a vote for the others, until its attempts had ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_while_it_drains_ends_it_at_once() {
    let disk = MemDisk::new();
    // Longer than this test waits.
    let node = common::single_node_on(&disk, |config| config.drain_timeout = Duration::from_secs(300)).await;
    // Takes connections and never answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", hangs.local_addr().unwrap());
    let task = json!({"schedules": [{"every": "100ms"}], "target": {"http": {"url": url}}, "timeout": "10m"});
    let path = "/v1/namespaces/default/tasks/hangs";
    let answer = http::send(node.api_address(), "PUT", path, &[], task.to_string().as_bytes()).await;
    assert_eq!(answer.status, 201);
    let _attempt = common::within("an attempt", hangs.accept()).await.unwrap();
    let stopping = tokio::spawn(node.shutdown());
    // The next fire is to be synced.
    disk.fail_next_sync();
    let error = common::within("the node ends", stopping).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("sync"), "{error}");
}
