//! Batches of puts into RocksDB with its default options, on one thread, without a log or a sync: what applying cannot
//! exceed by much.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rocksdb::{DB, WriteBatch, WriteOptions};

use crate::report::Row;

pub const NAME: &str = "rocksdb_batch_puts";
/// Rows of a batch, about what an entry of a thousand tasks writes.
const ROWS: u64 = 2000;
const VALUE: [u8; 150] = [0x5a; 150];

pub async fn measure(scratch: &Path, within: Duration) -> Result<Row> {
    let directory = tempfile::Builder::new().prefix("campanile-").tempdir_in(scratch)?;
    let path = directory.path().to_owned();
    let per_second = tokio::task::spawn_blocking(move || put(&path, within)).await??;
    let detail = format!("batches of {ROWS} rows of 16 + {} B, random keys, no cluster", VALUE.len());
    Ok(Row::new(NAME, per_second, "puts/s").detail(detail))
}

fn put(path: &Path, within: Duration) -> Result<f64> {
    let database = DB::open_default(path)?;
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    let started = Instant::now();
    let mut rows = 0;
    while started.elapsed() < within {
        let mut batch = WriteBatch::default();
        for row in rows..rows + ROWS {
            // Scattered, as the ids that a time index orders by are not.
            let scattered = row.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            batch.put([scattered.to_be_bytes(), row.to_be_bytes()].concat(), VALUE);
        }
        database.write_opt(batch, &options)?;
        rows += ROWS;
    }
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}
