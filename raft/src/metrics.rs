//! Counters for whoever exports them. Plain atomics: counting never waits.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything this crate counts, since the process started.
macro_rules! metrics {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        impl Metrics {
            /// Name, what it counts, and its value.
            pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name.get()),)*]
            }
        }
    };
}

metrics! {
    /// Log entries written.
    log_entries,
    /// Bytes of log entries written.
    log_bytes,
    /// Fsyncs of the log.
    log_syncs,
    /// Log entries applied.
    applied_entries,
    /// State batches committed.
    applied_batches,
    /// Proposals taken in on this node.
    proposals,
    /// Proposals forwarded to the leader.
    proposals_forwarded,
    /// Proposals refused because a lane was full.
    proposals_overloaded,
    /// Proposals prepared again after a conflict.
    proposals_conflicted,
    /// Log entries proposed.
    entries_proposed,
    /// Linearizable reads served.
    reads,
    /// Confirmations of leadership made for reads.
    read_rounds,
    /// Snapshots taken.
    snapshots_taken,
    /// Microseconds spent taking snapshots.
    snapshot_micros,
    /// Snapshots received and installed.
    snapshots_installed,
    /// Snapshots sent.
    snapshots_sent,
    /// Peer calls refused: other cluster, other protocol version, or meant for another node.
    peer_calls_refused,
    /// Connections to peers made.
    peer_connects,
    /// Effects dropped because a subscriber was too slow.
    effects_lagged,
}
