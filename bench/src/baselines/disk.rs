//! Small appends to a file, each made durable, one after the other. Every write of the cluster needs a majority of its
//! nodes to do this once, shared by those that come together.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::latency::Latencies;
use crate::report::Row;

pub const NAME: &str = "fdatasync_appends";
const RECORD: [u8; 256] = [0x5a; 256];

pub async fn measure(scratch: &Path, within: Duration) -> Result<Row> {
    let file = tempfile::tempfile_in(scratch).with_context(|| format!("making a file in {}", scratch.display()))?;
    tokio::task::spawn_blocking(move || append(file, within)).await?
}

fn append(mut file: File, within: Duration) -> Result<Row> {
    let mut latencies = Latencies::default();
    let started = Instant::now();
    while started.elapsed() < within {
        let begun = Instant::now();
        file.write_all(&RECORD)?;
        file.sync_data()?;
        latencies.record(begun.elapsed());
    }
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    Ok(Row::new(NAME, per_second, "appends/s").latencies(&latencies).detail("256 B each, no cluster"))
}
