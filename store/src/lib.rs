//! The replicated state of a node: engine, key layout, tables, `apply`, snapshots.
//!
//! 1. [`engine`] is the seam to the disk: RocksDB for real, an ordered map for simulation.
//! 2. [`Applier`] turns log entries into one write batch, replies and effects. It is the only writer of state.
//! 3. [`View`] reads one consistent state at a known log index.
//! 4. [`snapshot`] takes, sends, receives and installs a state as files.
//!
//! This crate knows no network, no Raft and no clock: whoever owns the log hands in entries in order together with an
//! opaque *mark* (its own applied position and membership), which is stored in the same batch.

mod apply;
mod digest;
pub mod effect;
pub mod engine;
pub mod error;
pub mod keys;
mod overlay;
pub mod snapshot;
mod store;
mod tables;
mod view;

pub use apply::Applier;
pub use digest::Digest;
pub use effect::{Effect, Effects, TaskTimer};
pub use error::{StoreError, StoreResult};
pub use keys::TimerKey;
pub use snapshot::{Manifest, ManifestFile, Received, Receiving, Snapshot};
pub use store::Store;
pub use tables::{Counts, TimerRow};
#[cfg(madsim)]
pub use view::{Census, TaskRows};
pub use view::{LedgerLine, LedgerQuery, Page, RunQuery, TaskQuery, View};
