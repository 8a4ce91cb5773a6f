use campanile_model::{LogPlace, Millis, NodeId, OccurrenceId, Origin, Reason, RunId, TaskId, Timestamp, Token};

use super::*;
use crate::history::{Delivery, FORMAT, Header, Source, Timed};
use crate::scenario::Expect;

const EPOCH: i64 = 1_767_571_200_000;

fn history(events: Vec<(u64, Event)>) -> History {
    History {
        header: Header {
            format: FORMAT,
            version: "0".into(),
            source: Source::Simulated,
            scenario: "s".into(),
            seed: Some(1),
            planted: None,
            epoch_ms: EPOCH,
            nodes: vec![NodeId(1), NodeId(2), NodeId(3)],
            clock_error_ms: 0,
            lateness_bound_ms: 5000,
            bounds: Default::default(),
            webhook_secret: None,
            left_out: Vec::new(),
        },
        events: events.into_iter().map(|(ms, event)| Timed { t: ms * 1000, event }).collect(),
    }
}

/// The row of the run that entry `fire` fired, as entry `index` left it; due one second in.
fn row(index: u64, fire: u64, state: RunState) -> Event {
    let due_at = Timestamp::from_millis(EPOCH + 1000);
    let run = RunId::at(LogPlace::new(fire, 0));
    Event::Run(RunRow {
        index,
        run,
        occurrence: OccurrenceId { task: TaskId(1), scheduled_at: due_at, origin: Origin::Schedule },
        version: 1,
        due_at,
        fired_at: due_at,
        state,
        attempt: 1,
        token: Token(run.0),
        owner: NodeId(1),
        epoch: 1,
        retry_at: None,
        finished_at: None,
        last: None,
    })
}

fn delivery(number: u64, attempt: u32) -> Event {
    let scheduled_at = Timestamp::from_millis(EPOCH + 1000);
    Event::Deliver(Delivery {
        delivery: number,
        node: NodeId(1),
        task: TaskId(1),
        run: RunId(1),
        occurrence: OccurrenceId { task: TaskId(1), scheduled_at, origin: Origin::Schedule },
        scheduled_at,
        attempt,
        token: Token(1),
        signed: None,
        request: None,
    })
}

fn lapse(reason: Reason) -> Event {
    let first = Timestamp::from_millis(EPOCH);
    Event::Lapse { index: 9, task: TaskId(1), version: 1, first, last: first, count: 3, reason }
}

/// The names of what is violated.
fn violated(expect: Expect, events: Vec<(u64, Event)>) -> Vec<String> {
    let scenario = Scenario { expect, ..Scenario::default() };
    match check(&scenario, &history(events)) {
        Finding::Violated(violations) => violations.into_iter().map(|violation| violation.invariant).collect(),
        Finding::Held { .. } => Vec::new(),
        Finding::NotApplicable { needs } => panic!("needs {needs}"),
    }
}

#[test]
fn expectations_are_met_or_named() {
    use RunState::{Failed, Running, Succeeded};
    let lateness = Expect { max_lateness: Some(Millis(100)), ..Expect::default() };
    let no_missed = Expect { no_missed: true, ..Expect::default() };
    let no_repeats = Expect { no_repeats: true, ..Expect::default() };
    let all_succeed = Expect { all_succeed: true, ..Expect::default() };
    for (expect, events, named) in [
        (&lateness, vec![(1100, row(5, 5, Running))], None),
        (&lateness, vec![(1101, row(5, 5, Running))], Some("max_lateness")),
        // A later row of the run is not its fire.
        (&lateness, vec![(1001, row(5, 5, Running)), (9000, row(7, 5, Succeeded))], None),
        (&no_missed, vec![(1000, lapse(Reason::Paused)), (1000, lapse(Reason::Overlap))], None),
        (&no_missed, vec![(1000, lapse(Reason::Coalesced))], Some("no_missed")),
        (&no_missed, vec![(1000, lapse(Reason::BeyondWindow))], Some("no_missed")),
        (&no_repeats, vec![(1000, delivery(1, 1)), (2000, delivery(2, 2))], None),
        (&no_repeats, vec![(1000, delivery(1, 1)), (2000, delivery(2, 1))], Some("no_repeats")),
        (&all_succeed, vec![(1000, row(5, 5, Running)), (1200, row(6, 5, Succeeded))], None),
        (&all_succeed, vec![(1000, row(5, 5, Running)), (1200, row(6, 5, Failed))], Some("all_succeed")),
        (&all_succeed, vec![(1000, row(5, 5, Running))], Some("all_succeed")),
        (&Expect::default(), vec![(9999, row(5, 5, Failed)), (9999, lapse(Reason::PolicySkip))], None),
    ] {
        let found = violated(expect.clone(), events.clone());
        assert_eq!(found.first().map(String::as_str), named, "{expect:?} {events:?}");
    }
    assert!(NAMES.iter().all(|name| {
        serde_json::to_value(Expect { max_lateness: Some(Millis(1)), ..Expect::default() }).unwrap().get(name).is_some()
    }));
}
