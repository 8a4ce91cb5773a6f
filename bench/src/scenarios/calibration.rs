//! What the disk alone can do: small appends, each made durable, one after the other. Every write of the cluster needs
//! a majority of its nodes to do this once, shared by those that come together.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::BenchOptions;
use crate::latency::Latencies;
use crate::report::Row;

pub const NAME: &str = "fdatasync_appends";
const RECORD: [u8; 256] = [0x5a; 256];

pub async fn measure(options: &BenchOptions) -> Result<Row> {
    let within = options.size(Duration::from_secs(3), Duration::from_secs(1));
    let directory = &options.scratch;
    let file = tempfile::tempfile_in(directory).with_context(|| format!("making a file in {}", directory.display()))?;
    tokio::task::spawn_blocking(move || append(file, within)).await?
}

fn append(mut file: File, within: Duration) -> Result<Row> {
    let mut latencies = Latencies::default();
    let started = Instant::now();
    while started.elapsed() < within {
        let begun = Instant::now();
        file.write_all(&RECORD)?;
        file.sync_data()?;
        latencies.record_us(i64::try_from(begun.elapsed().as_micros()).unwrap_or(i64::MAX));
    }
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    Ok(Row::new(NAME, per_second, "appends/s").latencies(&latencies).detail("256 B each, no cluster"))
}
