//! What the simulator sees inside a node, what it may break there, and what it wants to have seen.
//!
//! None of it is in a real build: there the macros expand to `false` and to nothing. In the simulated build the state
//! is the thread's, because one simulation has one thread, and one process has one simulation.

mod bounds;

pub use bounds::Bound;
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

/// Counts that something rare has happened, or that it has if so. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! sometimes {
    ($mark:ident) => {};
    ($mark:ident, $so:expr) => {};
}

/// Counts that something rare has happened, or that it has if so.
#[cfg(madsim)]
#[macro_export]
macro_rules! sometimes {
    ($mark:ident) => {
        $crate::sim::mark($crate::sim::Mark::$mark)
    };
    ($mark:ident, $so:expr) => {
        if $so {
            $crate::sim::mark($crate::sim::Mark::$mark)
        }
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
    ($name:expr, $most:expr, $limit:expr) => {};
}

/// Tells the simulator how full something bounded is, by name, with its limit.
#[cfg(madsim)]
#[macro_export]
macro_rules! filled {
    ($name:expr, $most:expr, $limit:expr) => {
        $crate::sim::filled($name, $most, $limit)
    };
}

/// Tells the simulator of a lease that a leader gives, as the fields of a `sim::Grant`. Nothing in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! granted {
    ($($field:ident: $value:expr),+ $(,)?) => {};
}

/// Tells the simulator of a lease that a leader gives, as the fields of a `sim::Grant`.
#[cfg(madsim)]
#[macro_export]
macro_rules! granted {
    ($($field:ident: $value:expr),+ $(,)?) => {
        $crate::sim::granted($crate::sim::Grant { $($field: $value),+ })
    };
}

/// A bound: its constant, or what this simulation has drawn in its place. The constant in a real build.
#[cfg(not(madsim))]
#[macro_export]
macro_rules! bound {
    ($bound:ident, $usual:expr) => {
        $usual
    };
}

/// A bound: its constant, or what this simulation has drawn in its place. It is the same on all nodes and for the whole
/// simulation, so `apply` may use it.
#[cfg(madsim)]
#[macro_export]
macro_rules! bound {
    ($bound:ident, $usual:expr) => {
        $crate::sim::bound($crate::sim::Bound::$bound, $usual)
    };
}

#[cfg(madsim)]
mod simulated {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::Bound;
    use crate::{Entry, Millis, NodeId, NodeState, Reason, Reply, Run, TaskId, TaskState, Timestamp};

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
            LoneLeaderUnconfirmed, "lone_leader_unconfirmed", "a leader that is the only voter waits for others to confirm it, and delivers nothing";
            UnheardLeaderStays, "unheard_leader_stays", "a leader that hears none of the others goes on leading";
            VotesForTheUnreachable, "votes_for_the_unreachable", "nodes vote for one that they cannot reach";
            KeysStay, "keys_stay", "idempotency keys that have run out are not removed";
            TimersStay, "timers_stay", "rows of the time index that are decided are not removed";
            DeletedStays, "deleted_stays", "what is left of a deleted task is not removed";
            DstTwice, "dst_twice", "a fixed time in a fold runs in both passes";
            SkipFiresAnyway, "skip_fires_anyway", "an occurrence fires beside a live run although overlap is skip";
            BufferReversed, "buffer_reversed", "of the runs that wait the newest starts first";
            BufferOneKeepsBoth, "buffer_one_keeps_both", "the run that waited is not cancelled when another takes its place";
            CancelOtherLeavesOne, "cancel_other_leaves_one", "cancel_other leaves the newest of the live runs";
            WaitingSurvivesDelete, "waiting_survives_delete", "a delete that cancels runs leaves those that wait";
            WaitingNotStarted, "waiting_not_started", "a run that waits is not started in the entry that ends the one before it, if that one failed";
            MarginAdded, "margin_added", "a node sends until its lease has ended, and its margin after that";
            FencedUnderLease, "fenced_under_lease", "a node is counted as lost while its lease may last";
            TimersLate, "timers_late", "every timer rings half a second late";
            CallsNotForwarded, "calls_not_forwarded", "a node that does not lead hands no write of a client on";
            PlacesNotCounted, "places_not_counted", "the connections to a host are not counted, and its bound is never met";
            ReasonNotTold, "reason_not_told", "the record of an attempt that failed does not say why";
            // From here on, bugs that were ours once: what was mended is undone.
            FoundStateNotSynced, "found_state_not_synced", "the state that a node finds when it starts counts as durable without a sync";
            DeadPeerWithoutPause, "dead_peer_without_pause", "a leader tries a follower that is down again without a pause";
            DecisionRepeated, "decision_repeated", "a decision that could not be committed is proposed again as it was, however old";
            DecisionWaitsForEver, "decision_waits_for_ever", "a decision in front of the log is never withdrawn, and stamped when its time has passed";
            NewClockTrusted, "new_clock_trusted", "a node trusts its clock from its start, before it was compared";
            UnheardClockTrusted, "unheard_clock_trusted", "a leader that hears no other voter holds its clock to be right";
            OldMeasurementTold, "old_measurement_told", "a follower that does not hear its leader tells its last measurement again, and it counts as new";
            DecisionOutlivesReign, "decision_outlives_reign", "a decision whose leader is deposed looks for another leader for five seconds";
            LeaderBeforeLostAgain, "leader_before_lost_again", "the leader before this one is lost after a moment's silence, though it has been heard";
            TimerForgottenByClock, "timer_forgotten_by_clock", "a timer that rang before the clock went back does not ring again";
            DecidedByDoubtedClock, "decided_by_doubted_clock", "the conductor decides by a clock that is in doubt";
            SettlesBeyondRemaining, "settles_beyond_remaining", "an update takes occurrences after the last remaining fire for decided";
            LostNodeGivenShards, "lost_node_given_shards", "a change of members leaves shards with a node that another one has fenced";
            LeaseBeforeFence, "lease_before_fence", "a node whose loss is on its way gets a lease for the tables before its fence";
            DrainNotTold, "drain_not_told", "a node that drains keeps its shards";
            ReportedMadeAgain, "reported_made_again", "an attempt whose outcome is on its way is made again when the tables still hold it";
            LateBeatCounts, "late_beat_counts", "what a beat says of clocks counts from when it arrives, even late or a second time";
            DrainIgnoresFailure, "drain_ignores_failure", "a node that drains goes on without consensus when its disk fails";
            RefusalShared, "refusal_shared", "a line of a batch that cannot be prepared is refused with all the others";
            SecondPassLost, "second_pass_lost", "the second pass of a schedule's very last time is lost";
            FinalIsRetried, "final_is_retried", "an answer that ends a run is tried again";
            BodyMustEnd, "body_must_end", "an answer counts as none while its body has not ended";
            TimeoutTripled, "timeout_tripled", "an attempt may last three times as long as it may";
            SentAfterEnd, "sent_after_end", "an attempt that is abandoned is sent once more, a little later";
            JitterForgotten, "jitter_forgotten", "a back-off is not drawn but the middle of its range";
            RetryWithoutBody, "retry_without_body", "a retry is sent without the payload";
            TriggerUsesRemaining, "trigger_uses_remaining", "a manual trigger counts against remaining";
            HeldBackForgotten, "held_back_forgotten", "an update forgets the occurrence that jitter still holds back";
            RangeTakesRuns, "range_takes_runs", "a range that is trimmed takes the runs with it that were triggered meanwhile";
            TrimsTheYoung, "trims_the_young", "retention does not look at how old a run is";
            GuardInverted, "guard_inverted", "a put is refused as a conflict if nothing came between, and taken if something did";
            MatchRefused, "match_refused", "a version that is asked for is never the task's";
            NegativePriorityRefused, "negative_priority_refused", "a priority below zero counts as out of range";
            PageSkipsOne, "page_skips_one", "a page of the list of tasks leaves out the first item after the page before";
            FilterPasses, "filter_passes", "a list of runs of one state has runs of the others in it";
            ListIsStale, "list_is_stale", "a list of tasks is answered from what the node has";
            PreviewWithoutJitter, "preview_without_jitter", "a preview forgets the jitter";
            ChangeLeftHalfMade, "change_left_half_made", "a change of members whose second step failed stays half made";
            RemovedLeaderDelivers, "removed_leader_delivers", "a leader that takes itself out of the voters delivers on";
            RemovalNotMade, "removal_not_made", "the removal of a node is acknowledged and not made";
            PauseOnFailureIgnored, "pause_on_failure_ignored", "a task goes on however often its runs fail";
            GoneNotPausing, "gone_not_pausing", "a task whose receiver is gone (410) goes on";
            DeadlineIgnored, "deadline_ignored", "attempts go on beyond their run's deadline";
            SignatureWrong, "signature_wrong", "webhooks are signed with something else than the secret";
            RetryAfterIgnored, "retry_after_ignored", "an attempt is tried again before its receiver wanted it";
            CancelledIsRefused, "cancelled_is_refused", "a cancel that was made and cannot be read is answered as a refusal";
            ResignedGoesOn, "resigned_goes_on", "a leader that hands leadership over goes on delivering";
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
            ChangeFinished, "change_finished", "a change of members that was left half made was finished";
            LeaderGaveUp, "leader_gave_up", "a leader that heard too few voters gave up its term";
            CandidateNotReached, "candidate_not_reached", "a node refused to vote for one that it could not reach";
            ForwardedOutcomeUnknown, "forwarded_outcome_unknown", "a forwarded write may or may not have been appended";
            PageFull, "page_full", "a page of a list did not hold all of it";
            PlanEvicted, "plan_evicted", "a compiled plan was forgotten to make room";
            LogCacheEvicted, "log_cache_evicted", "an entry of the log was left to the disk";
            LogPurgedWhole, "log_purged_whole", "nothing was left of a log but how far it had come";
            BufferFull, "buffer_full", "a task's buffer of waiting runs had no room";
            RunNotListed, "run_not_listed", "a task had more live runs than it lists";
            CatchUpInParts, "catch_up_in_parts", "more occurrences of a task were due than one entry decides";
            KeysExpired, "keys_expired", "idempotency keys ran out and were removed";
            KeysFull, "keys_full", "an idempotency key was refused because too many are remembered";
            DeletedTaskWent, "deleted_task_went", "the last of a deleted task was removed";
            FinishedTaskWent, "finished_task_went", "a finished task was removed";
            TaskWentInParts, "task_went_in_parts", "one entry did not remove all of a task";
            LedgerTrimmed, "ledger_trimmed", "ledger lines were folded into counters";
            TrimForgotten, "trim_forgotten", "a task that was to be trimmed had to say so again";
            AttemptForgotten, "attempt_forgotten", "the oldest attempt in a run's history made room";
            EffectsLagged, "effects_lagged", "somebody who follows effects fell behind and missed some";
            WindowInSteps, "window_in_steps", "the wheel was not filled to its horizon in one step";
            WindowFull, "window_full", "the wheel had no room for what is due inside its horizon";
            DispatcherFull, "dispatcher_full", "attempts were left in the tables because the queue was full";
            LaneFull, "lane_full", "a proposal was refused because its lane was full";
            LedAfterSnapshot, "led_after_snapshot", "a node led that had been sent its state in the same life";
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

    /// A lease that the leader which is running gives to a node, or counts for itself.
    #[derive(Clone, Copy, Debug)]
    pub struct Grant {
        pub node: NodeId,
        pub incarnation: u64,
        pub term: u64,
        /// From now, on the leader's monotonic clock.
        pub lasts: Duration,
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
    type Grants = Box<dyn FnMut(Grant)>;

    /// What a bound counts in.
    pub trait Amount {
        fn of(amount: u64) -> Self;
    }

    impl Amount for u64 {
        fn of(amount: u64) -> Self {
            amount
        }
    }

    impl Amount for usize {
        fn of(amount: u64) -> Self {
            amount as Self
        }
    }

    impl Amount for u32 {
        fn of(amount: u64) -> Self {
            Self::try_from(amount).unwrap_or(Self::MAX)
        }
    }

    impl Amount for Millis {
        fn of(amount: u64) -> Self {
            Self(amount)
        }
    }

    impl Amount for Duration {
        fn of(amount: u64) -> Self {
            Self::from_millis(amount)
        }
    }

    thread_local! {
        static BOUNDS: [Cell<Option<u64>>; Bound::ALL.len()] = const { [const { Cell::new(None) }; Bound::ALL.len()] };
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static MARKS: RefCell<BTreeMap<Mark, u64>> = const { RefCell::new(BTreeMap::new()) };
        static ROWS: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
        static GAUGE: RefCell<Option<Gauge>> = const { RefCell::new(None) };
        static GRANTS: RefCell<Option<Grants>> = const { RefCell::new(None) };
    }

    /// Sets a bound for this simulation; before it begins.
    pub fn set_bound(bound: Bound, amount: u64) {
        BOUNDS.with(|bounds| bounds[bound as usize].set(Some(amount)));
    }

    /// What was set, or the usual amount.
    pub fn bound<T: Amount>(bound: Bound, usual: T) -> T {
        BOUNDS.with(|bounds| bounds[bound as usize].get()).map_or(usual, T::of)
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

    /// Whom to tell of leases.
    pub fn grants(grants: impl FnMut(Grant) + 'static) {
        GRANTS.set(Some(Box::new(grants)));
    }

    pub fn granted(grant: Grant) {
        GRANTS.with_borrow_mut(|grants| grants.as_mut().map(|grants| grants(grant)));
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
