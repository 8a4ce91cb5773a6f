//! The verdict over a finished piece of work: what had to fire, what the cluster says it fired, and what arrived.
//!
//! Duties, in this order: the committed fires are exactly those expected; every fire arrived and nothing else did;
//! nothing was fired or sent early; every attempt arrived at most once, in order, and a further attempt only where the
//! earlier one's success was not committed. Pure: everything it judges is handed to it, so that it can be shown bad
//! histories. It must never believe the cluster about what was due.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use campanile_model::{AttemptRecord, AttemptResult, OccurrenceId, Origin, RunId, RunState, TaskId, Timestamp};

use crate::receiver::{Delivery, Received};

/// What must become of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It fires, once.
    Fire,
    /// It fires once or stands in the ledger as not fired: catch-up and overlap policies decide.
    Stand,
    /// It may fire or not: the answer to the write it comes from was lost, or came when it was due.
    Optional,
}

/// What was due, known from what was submitted.
#[derive(Clone, Debug, Default)]
pub struct Expected(BTreeMap<OccurrenceId, Duty>);

impl Expected {
    pub fn insert(&mut self, occurrence: OccurrenceId, duty: Duty) {
        self.0.insert(occurrence, duty);
    }

    /// An occurrence of one of the task's schedules.
    pub fn scheduled(&mut self, task: TaskId, scheduled_at: Timestamp, duty: Duty) {
        self.insert(OccurrenceId { task, scheduled_at, origin: Origin::Schedule }, duty);
    }

    /// A task was stopped by a write sent and acknowledged at these instants: what is later is not due at all, and what
    /// lies between may fire or not.
    pub fn end(&mut self, task: TaskId, sent: Timestamp, acknowledged: Timestamp) {
        self.0.retain(|id, _| id.task != task || id.scheduled_at <= acknowledged);
        for (_, duty) in self.0.iter_mut().filter(|(id, _)| id.task == task && id.scheduled_at >= sent) {
            *duty = Duty::Optional;
        }
    }

    /// Occurrences that must fire.
    pub fn must_fire(&self) -> usize {
        self.0.values().filter(|duty| **duty == Duty::Fire).count()
    }

    pub fn occurrences(&self) -> impl Iterator<Item = (OccurrenceId, Duty)> + '_ {
        self.0.iter().map(|(id, duty)| (*id, *duty))
    }
}

/// An occurrence that the cluster says has fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fire {
    pub occurrence: OccurrenceId,
    pub run: RunId,
    pub state: RunState,
    /// When the leader stamped it; read only for the runs that are looked at closely.
    pub fired_at: Option<Timestamp>,
    /// What became of its attempts; read only for the runs that are looked at closely.
    pub attempts: Vec<AttemptRecord>,
}

/// Occurrences that the cluster says have not fired, of one task, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse {
    pub task: TaskId,
    pub first: Timestamp,
    pub last: Timestamp,
    pub count: u64,
}

/// The cluster's own account.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    pub fires: Vec<Fire>,
    pub lapses: Vec<Lapse>,
    /// Tasks whose tally differs from the sum of their ledger, and how.
    pub unbalanced: Vec<String>,
}

/// Everything that is wrong, each with what it is wrong with; and some figures.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Occurrences that had to fire.
    pub expected: usize,
    /// Occurrences that have a committed fire.
    pub committed: usize,
    /// Different occurrences that arrived.
    pub received: usize,
    /// Occurrences that stand in the ledger as not fired.
    pub lapsed: u64,
    /// Runs of which more than one attempt was accepted: the outcome of the earlier one never reached the log.
    pub repeats: usize,
    /// Runs tried again after the receiver had refused an attempt.
    pub retries: usize,
    /// By kind.
    pub faults: BTreeMap<Fault, Vec<String>>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Due, and no committed fire.
    NotFired,
    /// Neither fired nor in the ledger.
    NotInLedger,
    /// Fired, and never due.
    UnexpectedFire,
    /// Two committed fires of one occurrence.
    FiredTwice,
    /// Stands in the ledger as fired and as not fired.
    FiredAndLapsed,
    /// Fired, and never arrived.
    NotReceived,
    /// Arrived without a committed fire.
    UnexpectedDelivery,
    /// Fired or arrived before its instant.
    Early,
    /// One attempt of one run arrived twice.
    SameAttemptTwice,
    /// An attempt of another run than the one the occurrence fired as.
    AnotherRun,
    /// A higher attempt whose token is not higher, or a lower attempt after a higher one.
    StaleAttempt,
    /// An attempt was sent after the success of an earlier one had been committed.
    RepeatAfterSuccess,
    /// The run was not brought to success, though an attempt was accepted.
    OutcomeLost,
    /// A task's tally is not the sum of its ledger.
    LedgerUnbalanced,
    /// A request that is no proper webhook.
    Malformed,
}

impl Fault {
    fn describe(self) -> &'static str {
        match self {
            Self::NotFired => "due but not fired",
            Self::NotInLedger => "neither fired nor in the ledger",
            Self::UnexpectedFire => "fired but never due",
            Self::FiredTwice => "fired twice",
            Self::FiredAndLapsed => "in the ledger both as fired and as not fired",
            Self::NotReceived => "fired but not received",
            Self::UnexpectedDelivery => "received but not fired",
            Self::Early => "early",
            Self::SameAttemptTwice => "one attempt received twice",
            Self::AnotherRun => "received from another run than fired",
            Self::StaleAttempt => "attempt or token out of order",
            Self::RepeatAfterSuccess => "sent again after a committed success",
            Self::OutcomeLost => "accepted but not recorded as succeeded",
            Self::LedgerUnbalanced => "ledger not balanced",
            Self::Malformed => "malformed request",
        }
    }
}

impl Verdict {
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }

    pub fn count(&self, fault: Fault) -> usize {
        self.faults.get(&fault).map_or(0, Vec::len)
    }

    fn fault(&mut self, fault: Fault, what: impl fmt::Display) {
        self.faults.entry(fault).or_default().push(what.to_string());
    }
}

/// One line a kind of fault, with a few examples; empty when all holds.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXAMPLES: usize = 3;
        for (fault, what) in &self.faults {
            let examples = what[..what.len().min(EXAMPLES)].join(", ");
            let more = if what.len() > EXAMPLES { ", …" } else { "" };
            writeln!(f, "{}: {} ({examples}{more})", fault.describe(), what.len())?;
        }
        Ok(())
    }
}

/// Judges finished work: call it when everything expected has been received and every run has ended.
pub fn judge(expected: &Expected, committed: &Committed, received: &Received) -> Verdict {
    let mut verdict = Verdict {
        expected: expected.must_fire(),
        lapsed: committed.lapses.iter().map(|lapse| lapse.count).sum(),
        ..Verdict::default()
    };
    let fires = judge_fires(expected, committed, &mut verdict);
    judge_deliveries(&fires, received, &mut verdict);
    for what in &committed.unbalanced {
        verdict.fault(Fault::LedgerUnbalanced, what);
    }
    for what in &received.malformed {
        verdict.fault(Fault::Malformed, what);
    }
    verdict
}

fn judge_fires<'a>(
    expected: &Expected,
    committed: &'a Committed,
    verdict: &mut Verdict,
) -> BTreeMap<OccurrenceId, &'a Fire> {
    let mut fires = BTreeMap::new();
    for fire in &committed.fires {
        let id = fire.occurrence;
        if fires.insert(id, fire).is_some() {
            verdict.fault(Fault::FiredTwice, id);
        }
        if !expected.0.contains_key(&id) {
            verdict.fault(Fault::UnexpectedFire, id);
        }
        if fire.fired_at.is_some_and(|fired_at| fired_at < id.scheduled_at) {
            verdict.fault(Fault::Early, id);
        }
    }
    let mut lapses: BTreeMap<TaskId, Vec<&Lapse>> = BTreeMap::new();
    for lapse in &committed.lapses {
        lapses.entry(lapse.task).or_default().push(lapse);
    }
    for (id, duty) in expected.occurrences() {
        let of_task = lapses.get(&id.task).map_or(&[][..], Vec::as_slice);
        let lapsed = of_task.iter().any(|lapse| (lapse.first..=lapse.last).contains(&id.scheduled_at));
        match (fires.contains_key(&id), lapsed, duty) {
            (true, true, _) => verdict.fault(Fault::FiredAndLapsed, id),
            (false, _, Duty::Fire) => verdict.fault(Fault::NotFired, id),
            (false, false, Duty::Stand) => verdict.fault(Fault::NotInLedger, id),
            (true, false, _) | (false, true, _) | (false, false, Duty::Optional) => {}
        }
    }
    verdict.committed = fires.len();
    fires
}

fn judge_deliveries(fires: &BTreeMap<OccurrenceId, &Fire>, received: &Received, verdict: &mut Verdict) {
    let mut by_occurrence: BTreeMap<OccurrenceId, Vec<&Delivery>> = BTreeMap::new();
    for delivery in &received.deliveries {
        by_occurrence.entry(delivery.occurrence).or_default().push(delivery);
        if delivery.lateness_us() < 0 {
            verdict.fault(Fault::Early, delivery.occurrence);
        }
    }
    verdict.received = by_occurrence.len();
    for id in fires.keys().filter(|id| !by_occurrence.contains_key(id)) {
        verdict.fault(Fault::NotReceived, id);
    }
    for (id, deliveries) in &by_occurrence {
        match fires.get(id) {
            Some(fire) => judge_run(fire, deliveries, verdict),
            None => verdict.fault(Fault::UnexpectedDelivery, id),
        }
    }
}

/// All deliveries of one occurrence, in the order they came.
fn judge_run(fire: &Fire, deliveries: &[&Delivery], verdict: &mut Verdict) {
    let id = fire.occurrence;
    let mut seen = BTreeSet::new();
    for delivery in deliveries {
        if delivery.run != fire.run {
            verdict.fault(Fault::AnotherRun, id);
        } else if !seen.insert(delivery.attempt) {
            verdict.fault(Fault::SameAttemptTwice, format!("{id} attempt {}", delivery.attempt));
        }
    }
    for pair in deliveries.windows(2) {
        // A repeat of one attempt has been named above.
        let in_order = pair[0].attempt < pair[1].attempt && pair[0].token < pair[1].token;
        if !in_order && pair[0].attempt != pair[1].attempt {
            verdict.fault(Fault::StaleAttempt, format!("{id} attempt {}", pair[1].attempt));
        }
    }
    let last = seen.last().copied().unwrap_or_default();
    let succeeded = fire.attempts.iter().find(|attempt| attempt.result == AttemptResult::Succeeded);
    if let Some(attempt) = succeeded.filter(|attempt| attempt.number < last) {
        verdict.fault(Fault::RepeatAfterSuccess, format!("{id} attempt {}", attempt.number));
    }
    let accepted = deliveries.iter().filter(|delivery| delivery.was_accepted()).count();
    if accepted > 0 && fire.state != RunState::Succeeded {
        verdict.fault(Fault::OutcomeLost, format!("{id} is {}", fire.state.as_str()));
    }
    if accepted > 1 {
        verdict.repeats += 1;
    }
    if accepted < deliveries.len() {
        verdict.retries += 1;
    }
}

/// Runs that the verdict needs the attempts of: those that arrived more than once.
pub fn runs_to_read_closely(received: &Received) -> BTreeSet<RunId> {
    let mut seen = BTreeSet::new();
    let again = received.deliveries.iter().filter(|delivery| !seen.insert(delivery.occurrence));
    again.map(|delivery| delivery.run).collect()
}

#[cfg(test)]
mod tests {
    use campanile_model::{NodeId, Token};

    use super::*;
    use crate::clock::Micros;

    fn id(task: u64) -> OccurrenceId {
        let scheduled_at = Timestamp::from_millis(1000);
        OccurrenceId { task: TaskId(task), scheduled_at, origin: Origin::Schedule }
    }

    fn fire(task: u64) -> Fire {
        let (run, state) = (RunId(task), RunState::Succeeded);
        Fire { occurrence: id(task), run, state, fired_at: Some(Timestamp::from_millis(1000)), attempts: Vec::new() }
    }

    fn delivery(task: u64, attempt: u32) -> Delivery {
        Delivery {
            occurrence: id(task),
            run: RunId(task),
            attempt,
            token: Token(u64::from(attempt)),
            scheduled_at: id(task).scheduled_at,
            received_at: Micros(1_000_000),
            answered: 200,
            task: "n".into(),
        }
    }

    fn attempt(number: u32, result: AttemptResult) -> AttemptRecord {
        let (token, ended_at) = (Token(u64::from(number)), Timestamp::from_millis(2000));
        AttemptRecord { number, token, node: NodeId(1), ended_at, result, status: None, error: String::new() }
    }

    struct History {
        expected: Expected,
        committed: Committed,
        received: Received,
    }

    /// Two occurrences, each fired and received once.
    fn good() -> History {
        let mut expected = Expected::default();
        expected.insert(id(1), Duty::Fire);
        expected.insert(id(2), Duty::Fire);
        let committed = Committed { fires: vec![fire(1), fire(2)], ..Committed::default() };
        let received = Received { deliveries: vec![delivery(1, 1), delivery(2, 1)], malformed: Vec::new() };
        History { expected, committed, received }
    }

    impl History {
        fn verdict(&self) -> Verdict {
            judge(&self.expected, &self.committed, &self.received)
        }

        fn lapse(&mut self, task: u64) {
            let at = id(task).scheduled_at;
            self.committed.lapses.push(Lapse { task: TaskId(task), first: at, last: at, count: 1 });
        }
    }

    #[test]
    fn a_good_history_holds() {
        let verdict = good().verdict();
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.expected, verdict.committed, verdict.received, verdict.repeats), (2, 2, 2, 0));
    }

    #[test]
    fn every_bad_history_is_rejected_by_name() {
        type Spoil = fn(&mut History);
        let cases: &[(Fault, Spoil)] = &[
            (Fault::NotFired, |h| h.expected.insert(id(3), Duty::Fire)),
            (Fault::NotFired, |h| {
                h.expected.insert(id(3), Duty::Fire);
                h.lapse(3);
            }),
            (Fault::NotInLedger, |h| h.expected.insert(id(3), Duty::Stand)),
            (Fault::UnexpectedFire, |h| {
                h.committed.fires.push(fire(3));
                h.received.deliveries.push(delivery(3, 1));
            }),
            (Fault::FiredTwice, |h| h.committed.fires.push(fire(2))),
            (Fault::FiredAndLapsed, |h| h.lapse(1)),
            (Fault::NotReceived, |h| drop(h.received.deliveries.pop())),
            (Fault::UnexpectedDelivery, |h| h.received.deliveries.push(delivery(3, 1))),
            (Fault::Early, |h| h.received.deliveries[0].received_at = Micros(999_999)),
            (Fault::Early, |h| h.committed.fires[0].fired_at = Some(Timestamp::from_millis(999))),
            (Fault::SameAttemptTwice, |h| h.received.deliveries.push(delivery(2, 1))),
            (Fault::AnotherRun, |h| h.received.deliveries[0].run = RunId(9)),
            (Fault::StaleAttempt, |h| h.received.deliveries.insert(0, delivery(1, 2))),
            (Fault::StaleAttempt, |h| {
                h.received.deliveries.push(Delivery { token: Token(1), ..delivery(1, 2) });
            }),
            (Fault::RepeatAfterSuccess, |h| {
                h.received.deliveries.push(delivery(1, 2));
                h.committed.fires[0].attempts = vec![attempt(1, AttemptResult::Succeeded)];
            }),
            (Fault::OutcomeLost, |h| h.committed.fires[0].state = RunState::Running),
            (Fault::LedgerUnbalanced, |h| h.committed.unbalanced.push("t1".into())),
            (Fault::Malformed, |h| h.received.malformed.push("GET /".into())),
        ];
        for (fault, spoil) in cases {
            let mut history = good();
            spoil(&mut history);
            let verdict = history.verdict();
            assert_eq!(verdict.faults.keys().collect::<Vec<_>>(), [fault], "{verdict}");
            assert!(verdict.to_string().starts_with(fault.describe()));
        }
    }

    #[test]
    fn a_repeat_whose_first_outcome_was_lost_is_counted_and_allowed() {
        let mut history = good();
        history.received.deliveries.push(delivery(1, 2));
        history.committed.fires[0].attempts =
            vec![attempt(1, AttemptResult::OutcomeUnknown), attempt(2, AttemptResult::Succeeded)];
        assert_eq!(runs_to_read_closely(&history.received).into_iter().collect::<Vec<_>>(), [RunId(1)]);
        let verdict = history.verdict();
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.repeats, verdict.retries), (1, 0));
    }

    #[test]
    fn a_retry_after_a_refusal_is_no_repeat() {
        let mut history = good();
        history.received.deliveries[0].answered = 500;
        history.received.deliveries.push(delivery(1, 2));
        let verdict = history.verdict();
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.repeats, verdict.retries), (0, 1));
    }

    #[test]
    fn policies_and_lost_answers_leave_room() {
        let mut history = good();
        history.expected.insert(id(3), Duty::Stand);
        history.lapse(3);
        history.expected.insert(id(4), Duty::Optional);
        history.expected.insert(id(2), Duty::Optional);
        let verdict = history.verdict();
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.expected, verdict.lapsed), (1, 1));
    }
}
