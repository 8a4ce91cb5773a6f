//! What this machine can do without a cluster, measured in the same run: the rates that the rows are set against, so
//! that a figure means something on another machine, or on this one when it is busy.
//!
//! Redis is a system of its own: a single process that syncs every write. It is measured where it is installed.

mod disk;
mod echo;
mod redis;
mod rocksdb;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::report::Row;

pub use disk::NAME as APPENDS;
pub use echo::NAME as ECHO;
pub use rocksdb::NAME as PUTS;

/// Measures them all, each for this long, on the disk that `scratch` is on.
pub async fn measure(scratch: &Path, within: Duration, mut note: impl FnMut(&str)) -> Result<Vec<Row>> {
    note("calibrating: the disk's synced appends");
    let mut rows = vec![disk::measure(scratch, within).await?];
    note("calibrating: RocksDB without a cluster");
    rows.push(rocksdb::measure(scratch, within).await?);
    note("calibrating: HTTP over loopback");
    rows.push(echo::measure(within).await?);
    match redis::measure(scratch, within).await? {
        Some(row) => rows.push(row),
        None => note("redis-server is not installed: not compared with it"),
    }
    Ok(rows)
}
