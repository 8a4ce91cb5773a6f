//! What the simulator sees inside a node, what it may break there, and what it wants to have seen.
//!
//! None of it is in a real build: there the macros expand to `false` and to nothing. In the simulated build the state
//! is the thread's, because one simulation has one thread, and one process has one simulation.

#[cfg(madsim)]
pub use simulated::*;

/// Whether a sabotage is switched on. Always `false` in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

/// Whether a sabotage is switched on.
#[cfg(madsim)]
#[macro_export]
macro_rules! planted {
    ($bug:ident) => {
        $crate::sim::is_planted($crate::sim::Bug::$bug)
    };
}

/// Counts that something rare has happened. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! sometimes {
    ($mark:ident) => {};
}

/// Counts that something rare has happened.
#[cfg(madsim)]
#[macro_export]
macro_rules! sometimes {
    ($mark:ident) => {
        $crate::sim::mark($crate::sim::Mark::$mark)
    };
}

/// Tells the simulator of a row that is written, as a value of `sim::Row`. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! wrote {
    ($row:ident, $value:expr) => {};
}

/// Tells the simulator of a row that is written, as a value of `sim::Row`.
#[cfg(madsim)]
#[macro_export]
macro_rules! wrote {
    ($row:ident, $value:expr) => {
        $crate::sim::wrote($crate::sim::Row::$row($value))
    };
}

/// Tells the simulator how full something bounded is, by name, with its limit. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! filled {
    ($name:literal, $most:expr, $limit:expr) => {};
}

/// Tells the simulator how full something bounded is, by name, with its limit.
#[cfg(madsim)]
#[macro_export]
macro_rules! filled {
    ($name:literal, $most:expr, $limit:expr) => {
        $crate::sim::filled($name, $most, $limit)
    };
}

#[cfg(madsim)]
mod simulated {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use crate::{Entry, NodeState, Reason, Reply, Run, TaskId, TaskState, Timestamp};

    /// Defines an enum with a name and a sentence for each of its values.
    macro_rules! named {
        ($(#[$doc:meta])* $name:ident { $($value:ident, $text:literal, $about:literal;)* }) => {
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $name { $(#[doc = $about] $value,)* }

            impl $name {
                pub const ALL: &[Self] = &[$(Self::$value,)*];

                pub fn name(self) -> &'static str {
                    match self { $(Self::$value => $text,)* }
                }

                pub fn about(self) -> &'static str {
                    match self { $(Self::$value => $about,)* }
                }

                pub fn by_name(name: &str) -> Option<Self> {
                    Self::ALL.iter().copied().find(|value| value.name() == name)
                }
            }
        };
    }

    named! {
        /// A sabotage that can be switched on, to see whether the checkers notice.
        Bug {
            SkipCompareAndSet, "skip_compare_and_set", "a fire is applied without looking whether the occurrence is still due";
            EarlyFire, "early_fire", "a fire is applied before its occurrence is due by the log's time";
            PausedFires, "paused_fires", "a paused task fires";
            OldVersionFires, "old_version_fires", "a fire decided under an old version is applied";
            RemainingNotCounted, "remaining_not_counted", "fires are not counted against remaining";
            LedgerLineMissing, "ledger_line_missing", "an occurrence that does not fire is not entered in the ledger";
            FireNotCounted, "fire_not_counted", "a fire is missing in the task's tally";
            StaleTokenAccepted, "stale_token_accepted", "an outcome with an old token is accepted";
            ForgetTheFence, "forget_the_fence", "an outcome of a fenced node is accepted";
            RetryTooEarly, "retry_too_early", "a retry starts before its back-off is over";
            ReuseRunId, "reuse_run_id", "two runs of one entry get the same id";
            AttemptNumberSkipped, "attempt_number_skipped", "a second attempt is numbered three";
            FinishedRunStaysLive, "finished_run_stays_live", "a finished run can be finished again";
            ShardOwnerWithoutEpoch, "shard_owner_without_epoch", "a lost node is not fenced when its shards move";
            IdempotencyForgotten, "idempotency_forgotten", "idempotency keys are not remembered";
            DeleteKeepsFiring, "delete_keeps_firing", "a deleted task goes on firing";
            PauseNotStored, "pause_not_stored", "a pause is acknowledged and not stored";
            AckBeforeFsync, "ack_before_fsync", "the log answers before it has synced";
            LeaderRestored, "leader_restored", "a restarted leader leads its old term again";
            VoteAlwaysGranted, "vote_always_granted", "every vote asked for is granted";
            EntrySkipped, "entry_skipped", "followers leave out an entry now and then";
            ReadWithoutQuorum, "read_without_quorum", "a leader answers reads without asking whether it still leads";
            DeliversWithoutLease, "delivers_without_lease", "a node delivers although its lease has ended";
            ClockNotCompared, "clock_not_compared", "a leader stamps however wrong its clock is";
            GapNotTold, "gap_not_told", "nobody is told that a snapshot has replaced the state";
            ProposalTakenTwice, "proposal_taken_twice", "a forwarded write that arrives twice is done twice";
            UnknownIsRetried, "unknown_is_retried", "a forwarded write whose answer was lost is sent again";
            RetryForgotten, "retry_forgotten", "the conductor does not arm retries";
            OrphansForgotten, "orphans_forgotten", "attempts of a lost node are not repeated";
            EffectDropped, "effect_dropped", "the conductor misses effects of some tasks";
            WindowEdgeLost, "window_edge_lost", "what becomes due just inside the window's edge is not armed";
            WindowIgnored, "window_ignored", "what is beyond its catch-up window fires";
            SkipsWhatIsDue, "skips_what_is_due", "an occurrence in seven is skipped for no reason";
            AtMostOnceRepeated, "at_most_once_repeated", "an attempt of a task delivered at most once is repeated";
            AttemptsUnbounded, "attempts_unbounded", "attempts go on beyond their number";
            BackoffIgnored, "backoff_ignored", "a failed attempt is tried again at once";
            OutcomeDropped, "outcome_dropped", "an outcome that was not committed at first is forgotten";
            SentTwice, "sent_twice", "an attempt is sent twice";
            OccurrenceSkipped, "occurrence_skipped", "an interval is passed over now and then";
            DstTwice, "dst_twice", "a fixed time in a fold runs in both passes";
            FinalIsRetried, "final_is_retried", "an answer that ends a run is tried again";
            TimeoutTripled, "timeout_tripled", "an attempt may last three times as long as it may";
            SentAfterEnd, "sent_after_end", "an attempt that is abandoned is sent once more";
            JitterForgotten, "jitter_forgotten", "a back-off is not drawn but the middle of its range";
            RetryWithoutBody, "retry_without_body", "a retry is sent without the payload";
            TriggerUsesRemaining, "trigger_uses_remaining", "a manual trigger counts against remaining";
            TrimsTheYoung, "trims_the_young", "retention does not look at how old a run is";
        }
    }

    named! {
        /// Something rare that a sweep must have seen, or its seeds prove little.
        Mark {
            FireWasNoOp, "fire_was_no_op", "a fire line found its occurrence decided already";
            OutcomeAfterFence, "outcome_after_fence", "a node reported an outcome after it had been fenced";
            SnapshotInstalled, "snapshot_installed", "a node's state was replaced by a snapshot";
            StateAheadOfLog, "state_ahead_of_log", "a power failure kept the state and lost the end of the log";
            ClockDistrusted, "clock_distrusted", "a node distrusted its clock after a jump";
            LogTruncated, "log_truncated", "a follower cut off entries that another leader had not committed";
            DeposedWhileFiring, "deposed_while_firing", "a leader was deposed while its fires were on their way";
            AttemptRepeated, "attempt_repeated", "attempts of a lost node were repeated";
            SendAbandoned, "send_abandoned", "a node gave up a send because its lease was somebody else's";
            NotSettled, "not_settled", "a change met an occurrence that was due and not decided";
            AnswerRecalled, "answer_recalled", "a request with a known idempotency key got its first answer again";
            LogFailed, "log_failed", "a node stopped because its log could not be written";
            ProposalArrivedTwice, "proposal_arrived_twice", "the network delivered a forwarded write twice";
            VersionsMet, "versions_met", "a node refused a call from one that speaks another peer protocol";
            ForwardedOutcomeUnknown, "forwarded_outcome_unknown", "a forwarded write may or may not have been appended";
        }
    }

    /// A row as a log entry left it.
    #[derive(Clone, Debug)]
    pub enum Row {
        Task(Box<TaskState>),
        Run(Box<Run>),
        Lapse(Lapse),
        Node(NodeState),
    }

    /// Occurrences of a task that did not fire.
    #[derive(Clone, Copy, Debug)]
    pub struct Lapse {
        pub task: TaskId,
        pub version: u32,
        pub first: Timestamp,
        pub last: Timestamp,
        pub count: u64,
        pub reason: Reason,
    }

    /// An entry that a node has applied.
    #[derive(Debug)]
    pub struct Applied<'a> {
        pub index: u64,
        pub term: u64,
        pub entry: &'a Entry,
        pub replies: &'a [Reply],
        pub rows: Vec<Row>,
    }

    type Observer = Box<dyn FnMut(Applied<'_>)>;
    type Gauge = Box<dyn FnMut(&'static str, usize, usize)>;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static MARKS: RefCell<BTreeMap<Mark, u64>> = const { RefCell::new(BTreeMap::new()) };
        static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
        static GAUGE: RefCell<Option<Gauge>> = const { RefCell::new(None) };
    }

    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    pub fn mark(mark: Mark) {
        MARKS.with_borrow_mut(|marks| *marks.entry(mark).or_default() += 1);
    }

    /// How often each mark was hit, the others with zero.
    pub fn marks() -> BTreeMap<Mark, u64> {
        MARKS.with_borrow(|hit| Mark::ALL.iter().map(|mark| (*mark, hit.get(mark).copied().unwrap_or(0))).collect())
    }

    /// Whom to tell of every entry that any node applies.
    pub fn observe(observer: impl FnMut(Applied<'_>) + 'static) {
        OBSERVER.set(Some(Box::new(observer)));
    }

    /// Whom to tell how full what is bounded is: its name, its content, its limit.
    pub fn gauge(gauge: impl FnMut(&'static str, usize, usize) + 'static) {
        GAUGE.set(Some(Box::new(gauge)));
    }

    pub fn filled(name: &'static str, most: usize, limit: usize) {
        GAUGE.with_borrow_mut(|gauge| gauge.as_mut().map(|gauge| gauge(name, most, limit)));
    }

    /// The store tells of a row it writes.
    pub fn wrote(row: Row) {
        ROWS.with_borrow_mut(|rows| rows.push(row));
    }

    /// The state machine tells of an entry it has applied, right after it.
    pub fn applied(index: u64, term: u64, entry: &Entry, replies: &[Reply]) {
        let rows = ROWS.take();
        OBSERVER.with_borrow_mut(|observer| {
            if let Some(observer) = observer {
                observer(Applied { index, term, entry, replies, rows });
            }
        });
    }
}
