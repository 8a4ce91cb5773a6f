//! When to take a snapshot: after so many bytes of log, or so much time, or when there is nothing else to do. And when
//! the log goes: from the disk what a snapshot covers, from memory all of it while nothing is written.
//!
//! Only what a snapshot covers can go, so snapshots bound the log and the time a restart replays. Entries vary too much
//! in size to count: one holds a heartbeat's clock or a thousand tasks. So the log is kept by bytes, for followers that
//! are behind. Where it no longer has what a follower lacks, that one is sent the state whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::SnapshotPolicy;
use crate::log_store::LogStore;
use crate::metrics::Metrics;
use crate::state_machine::Raft;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// If nothing is written from one look to the next, a snapshot is taken after this part of the log that it is otherwise
/// taken after, and the log's memtable is written out too: a node at rest holds few rows that are not in files, and has
/// little to replay at a start.
const QUIET: u64 = 16;

/// Positions that are remembered for each [`SnapshotPolicy::keep_bytes`] of log.
const GRAIN: u64 = 16;

/// Triggers snapshots and purges until the node stops.
pub async fn run(
    raft: Raft,
    log: LogStore,
    policy: SnapshotPolicy,
    clock: Clock,
    metrics: Arc<Metrics>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut taken_at = clock.instant();
    let mut bytes_then = metrics.log_bytes.get();
    let mut written = Written::default();
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = clock.sleep(LOOK) => {}
        }
        let bytes = metrics.log_bytes.get();
        let (last, applied, snapshot, purged, needed) = {
            let metrics = raft.data_metrics();
            let metrics = metrics.borrow_watched();
            // Of a leader: how far each follower has come.
            let followers = metrics.replication.iter().flatten();
            let needed = followers.map(|(_, matching)| matching.as_ref().map_or(0, |id| id.index)).min();
            (metrics.last_log, metrics.last_applied, metrics.snapshot, metrics.purged, needed)
        };
        let now = clock.instant();
        let quiet = bytes == written.bytes;
        if quiet {
            log.forget_written();
        }
        let enough = if quiet { policy.log_bytes / QUIET } else { policy.log_bytes };
        let much = bytes - bytes_then >= enough.max(1);
        let long = now.saturating_duration_since(taken_at) >= policy.interval && applied > snapshot;
        if much || long {
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
            if quiet && log.write_out().await.is_err() {
                return;
            }
            (taken_at, bytes_then) = (now, bytes);
        }
        written.note(bytes, last.map_or(0, |last| last.index), policy.keep_bytes / GRAIN);
        let upto = snapshot.and_then(|snapshot| written.purge(&policy, snapshot.index, needed.unwrap_or(u64::MAX)));
        if let Some(upto) = upto.filter(|upto| purged.is_none_or(|purged| *upto > purged.index))
            && raft.trigger().purge_log(upto).await.is_err()
        {
            return;
        }
    }
}

/// What was written to the log since the start: bytes, and the index that it then had come to, at some positions that
/// may still be in the log, oldest first.
#[derive(Default)]
struct Written {
    bytes: u64,
    positions: VecDeque<(u64, u64)>,
}

impl Written {
    /// Notes how far the log has come, if that is at least `grain` bytes further than the last position.
    fn note(&mut self, bytes: u64, index: u64, grain: u64) {
        self.bytes = bytes;
        if self.positions.back().is_none_or(|(last, _)| bytes - last >= grain.max(1)) {
            self.positions.push_back((bytes, index));
        }
    }

    /// The index up to which the log may go, if a snapshot is of `snapshot` and the follower furthest behind has it up
    /// to `needed`; positions before that are forgotten.
    fn purge(&mut self, policy: &SnapshotPolicy, snapshot: u64, needed: u64) -> Option<u64> {
        let mut upto = None;
        while let Some((bytes, index)) = self.positions.front().copied() {
            let keep = if needed < index { policy.keep_bytes_needed } else { policy.keep_bytes };
            if self.bytes - bytes < keep {
                break;
            }
            upto = Some(index.min(snapshot));
            if index > snapshot {
                break;
            }
            self.positions.pop_front();
        }
        upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SnapshotPolicy =
        SnapshotPolicy { log_bytes: 1000, interval: Duration::from_secs(1), keep_bytes: 160, keep_bytes_needed: 400 };
    const NOBODY: u64 = u64::MAX;

    /// A hundred entries of ten bytes, looked at after each.
    fn written() -> Written {
        let mut written = Written::default();
        for index in 0..=100 {
            written.note(index * 10, index, POLICY.keep_bytes / GRAIN);
        }
        written
    }

    #[test]
    fn so_many_bytes_are_kept_that_a_snapshot_covers() {
        assert_eq!(written().purge(&POLICY, 100, NOBODY), Some(84));
        assert_eq!(written().purge(&POLICY, 90, NOBODY), Some(84));
        // All that is not covered, if it is more.
        assert_eq!(written().purge(&POLICY, 50, NOBODY), Some(50));
        assert_eq!(Written::default().purge(&POLICY, 100, NOBODY), None);
    }

    #[test]
    fn more_is_kept_for_a_follower_that_needs_it_but_not_all() {
        assert_eq!(written().purge(&POLICY, 100, 70), Some(70));
        assert_eq!(written().purge(&POLICY, 100, 90), Some(84));
        assert_eq!(written().purge(&POLICY, 100, 5), Some(60));
        let mut behind = written();
        assert_eq!(behind.purge(&POLICY, 100, 70), Some(70));
        assert_eq!(behind.purge(&POLICY, 100, 70), None);
        assert_eq!(behind.purge(&POLICY, 100, 80), Some(80));
    }

    #[test]
    fn positions_are_apart_and_those_before_the_log_forgotten() {
        let mut written = Written::default();
        for index in 0..=1000 {
            written.note(index, index, 10);
        }
        assert_eq!(written.positions.len(), 101);
        assert_eq!(written.purge(&POLICY, 1000, NOBODY), Some(840));
        assert_eq!(written.positions.front(), Some(&(850, 850)));
    }
}
