//! How many tasks a second are accepted, acknowledged after a majority has made them durable, and how long one
//! submit takes. The tasks are due far ahead, so that nothing fires meanwhile.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;

use super::BenchOptions;
use super::tasks::{BATCH, batch_json, far, task_json};
use crate::clock;
use crate::load::{Endpoint, Load};
use crate::report::{Floor, Row};

/// Nobody is called: the tasks are due in days.
const URL: &str = "http://127.0.0.1:9000/hook";
/// Different bodies, so that dues differ.
const SINGLE_BODIES: u64 = 4096;
const BATCH_BODIES: u64 = 16;
/// A batch run ends after this many tasks: later ones would meet a larger store than a short run's.
const BATCH_TASKS: u64 = 600_000;

pub fn single_name(connections: usize) -> String {
    format!("submit_single_{connections}")
}

/// The one at 64 connections is the headline.
pub fn batch_name(connections: usize) -> String {
    if connections == 64 { "submit_batch".into() } else { format!("submit_batch_{connections}") }
}

pub async fn single(options: &BenchOptions, connections: usize) -> Result<Vec<Row>> {
    let now = clock::now();
    let bodies: Vec<Bytes> = (0..SINGLE_BODIES).map(|n| task_json(URL, far(now, n)).into()).collect();
    let within = options.size(Duration::from_secs(8), Duration::from_secs(3));
    let load = Load::closed(Endpoint::Single, connections, u64::MAX, within);
    let cluster = options.cluster().await?;
    let submitted = load.run(&cluster.endpoints(), move |n| bodies[(n % SINGLE_BODIES) as usize].clone()).await?;
    let row = Row::new(single_name(connections), submitted.per_second(), "tasks/s").latencies(&submitted.latencies);
    Ok(vec![if connections == 64 { row.floor(Floor::AtLeast(10_000.0)) } else { row }])
}

pub async fn batch(options: &BenchOptions, connections: usize) -> Result<Vec<Row>> {
    let now = clock::now();
    let batch = |n| batch_json(URL, (0..BATCH as u64).map(|task| far(now, n * BATCH as u64 + task)));
    let bodies: Vec<Bytes> = (0..BATCH_BODIES).map(batch).collect();
    let requests = options.size(BATCH_TASKS, BATCH_TASKS / 4) / BATCH as u64;
    let within = options.size(Duration::from_secs(8), Duration::from_secs(3));
    let load = Load::closed(Endpoint::Batch, connections, requests, within);
    let cluster = options.cluster().await?;
    let submitted = load.run(&cluster.endpoints(), move |n| bodies[(n % BATCH_BODIES) as usize].clone()).await?;
    let detail = format!("{BATCH} tasks a request over {connections} connections; latency is a request's");
    let row = Row::new(batch_name(connections), submitted.per_second(), "tasks/s");
    let row = row.latencies(&submitted.latencies).detail(detail);
    Ok(vec![if connections == 64 { row.floor(Floor::AtLeast(60_000.0)) } else { row }])
}
