//! The bounds that a simulation may draw small, so that an ordinary seed reaches them: at their usual size most of them
//! are not reached in a minute, and what happens at a bound that is never reached has never been tried.
//!
//! Whatever is drawn, the promises hold. So a bound's smallest value is one with which they can: a queue has room for
//! one thing at least, a page one row, a time is longer than a commit takes.

use std::ops::RangeInclusive;

/// Defines the bounds: name, values when small, what it is a bound of. Times are in milliseconds, sizes in bytes.
macro_rules! bounds {
    ($($bound:ident, $name:literal, $small:expr, $about:literal;)*) => {
        /// A bound that can be drawn small.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bound { $(#[doc = $about] $bound,)* }

        impl Bound {
            pub const ALL: &[Self] = &[$(Self::$bound,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$bound => $name,)* }
            }

            pub fn about(self) -> &'static str {
                match self { $(Self::$bound => $about,)* }
            }

            /// What it is when it is small.
            pub fn small(self) -> RangeInclusive<u64> {
                match self { $(Self::$bound => $small,)* }
            }

            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|bound| bound.name() == name)
            }
        }
    };
}

bounds! {
    BufferedRuns, "buffered_runs", 1..=4, "runs that `buffer_all` holds back";
    TrackedRuns, "tracked_runs", 2..=6, "live runs that a task lists";
    AttemptHistory, "attempt_history", 1..=3, "attempts kept in a run's history";
    LedgerLines, "ledger_lines", 4..=20, "ledger lines kept of a task, whatever its retention says";
    TrimEvery, "trim_every", 1..=6, "ledger lines between two reminders to trim them";
    IdempotencyTtl, "idempotency_ttl_ms", 2_000..=15_000, "how long an idempotency key is remembered";
    IdempotencyKeys, "idempotency_keys", 3..=20, "idempotency keys remembered";
    FinishedKept, "finished_kept_ms", 2_000..=20_000, "how long a finished task is kept that goes by itself";
    DeletedKept, "deleted_kept_ms", 1_000..=10_000, "how long what is left of a deleted task is kept";
    PageItems, "page_items", 1..=5, "items on one page of a list when the client does not say";
    ScanRows, "scan_rows", 2..=10, "rows that one page of a list looks at";
    CatchUpPerEntry, "catch_up_per_entry", 1..=8, "occurrences of one task decided in one entry";

    WindowHorizon, "window_horizon_ms", 1_000..=6_000, "how far ahead the wheel is filled";
    WindowTimers, "window_timers", 16..=64, "timers in the wheel";
    WindowStep, "window_step", 4..=16, "rows of the time index that the wheel is filled with in one step";
    LateAfter, "late_after_ms", 1_500..=4_000, "overdue by more than this is the backlog's";
    PlansTogether, "plans_together", 1..=4, "plans read together";
    Plans, "plans", 1..=6, "compiled plans kept, of one generation";
    FireLines, "fire_lines", 2..=8, "decisions of one command";
    WaitingLines, "waiting_lines", 8..=32, "decisions that may wait for their command";
    Expiries, "expiries", 1..=4, "tasks removed by one entry";
    ExpireLines, "expire_lines", 1..=4, "ledger lines that one entry removes of a task that goes";
    WaitingExpiries, "waiting_expiries", 4..=16, "tasks that may wait to be removed";
    HousekeepingEvery, "housekeeping_every_ms", 500..=3_000, "between two looks at the time index and the keys";
    HousekeepingStep, "housekeeping_step", 1..=8, "rows of the time index that housekeeping looks at in one step";
    RemovedPerEntry, "removed_per_entry", 1..=5, "ledger lines, or keys, that one entry removes";
    TrimQueue, "trim_queue", 1..=3, "tasks remembered to be trimmed";
    TrimTogether, "trim_together", 1..=2, "tasks trimmed by one job";
    OrphansPage, "orphans_page", 1..=4, "live runs that are looked at for a lost owner in one step";
    ConductorEffects, "conductor_effects", 2..=8, "batches of effects that may wait for the conductor";

    DispatcherQueue, "dispatcher_queue", 2..=6, "attempts queued in memory";
    DispatcherPage, "dispatcher_page", 1..=4, "live runs that the dispatcher reads in one step";
    DispatcherSpecs, "dispatcher_specs", 1..=4, "definitions that the dispatcher has at hand";
    DispatcherEffects, "dispatcher_effects", 2..=8, "batches of effects that may wait for the dispatcher";
    Connections, "connections", 4..=12, "webhook deliveries that a node has in flight";
    ConnectionsPerHost, "connections_per_host", 2..=6, "of these, those to one host";
    OutcomesWaiting, "outcomes_waiting", 1..=4, "reports of ended attempts that may wait";
    OutcomeLines, "outcome_lines", 1..=4, "reports of one command";

    LogCache, "log_cache_bytes", 0..=2_048, "the log's tail in memory";
    LogRead, "log_read_bytes", 128..=2_048, "what is read of the log at one time";
    LogBatch, "log_batch_bytes", 256..=4_096, "what is written to the log at one time";
    ApplyEntries, "apply_entries", 1..=4, "entries applied in one step";
    ApplyBatch, "apply_batch_bytes", 256..=4_096, "a batch of rows that has grown to this is written";
    EntryBytes, "entry_bytes", 256..=4_096, "proposals put together in one entry";
    ApiLane, "api_lane_bytes", 1_024..=8_192, "clients' writes that wait or are in flight";
    ForwardedCommands, "forwarded_commands", 1..=8, "commands forwarded in one call";
    ForwardedRemembered, "forwarded_remembered", 16..=64, "numbers of forwarded proposals remembered of each sender";
    ReadsWaiting, "reads_waiting", 4..=16, "reads that may wait for their index";
    SnapshotPiece, "snapshot_piece_bytes", 256..=4_096, "a piece of a snapshot that is sent";
    SnapshotLog, "snapshot_log_bytes", 2_048..=16_384, "a snapshot is taken after so much log";
    SnapshotInterval, "snapshot_interval_ms", 2_000..=8_000, "a snapshot is taken after so long";
    LogKept, "log_kept_bytes", 0..=512, "log that is kept although a snapshot covers it";
    LogKeptNeeded, "log_kept_needed_bytes", 0..=1_024, "log that is kept for a follower that needs it";
}
