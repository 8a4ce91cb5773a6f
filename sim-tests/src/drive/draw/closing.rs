//! What is asked of a cluster in which nothing is wrong any more: the closing round of a scenario.
//!
//! It is the same for every seed but for the nodes that are asked, some definitions and the run numbers, so that every
//! checker has something to look at in every run, whatever the faults left of the rest ([`crate::invariants`] says how
//! much, at least). Its runs are over a few seconds after its last occurrence, so that the cluster can converge again.

use campanile_model::{Millis, NodeId, TaskSpec, Timestamp};
use rand::RngExt;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use super::faults::varied_stream;
use super::operations::put;
use super::spec::{Scene, bad, read};
use crate::drive::mood::CLOSING;
use crate::history::{Action, LedgerFilter, Paging, TaskFilter};
use crate::plan::PlannedOperation;
use crate::scenario::Pace;

/// No occurrence of it is later.
const LAST: Millis = Millis::from_secs(10);
/// The number of its client, apart from those of plans.
const CLIENT: u32 = 1000;

/// The operations of the round, when it begins at `start` and these nodes are members.
pub fn closing(nodes: &[NodeId], start: Timestamp, seed: u64) -> Vec<PlannedOperation> {
    let mut rng = varied_stream(seed, *b"closing-");
    let mut operations: Vec<PlannedOperation> = actions(&mut rng, start)
        .into_iter()
        .map(|(at, action)| {
            let node = nodes.get(rng.random_range(0..nodes.len().max(1))).map_or(0, |node| node.0 as u32);
            PlannedOperation { at: Millis(at), client: CLIENT, node, action }
        })
        .collect();
    operations.sort_by_key(|operation| operation.at);
    operations
}

fn actions(rng: &mut SmallRng, start: Timestamp) -> Vec<(u64, Action)> {
    let end_at = start.saturating_add(LAST).to_string();
    let task = |path: &str, schedules: Value, more: Value| -> TaskSpec {
        let mut fields = json!({
            "schedules": schedules,
            "target": {"http": {"url": format!("http://receiver{path}")}},
            "end_at": end_at,
            "timeout": "1s",
            "payload": {"closing": path},
        });
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        match fields {
            Value::Object(fields) => read(fields),
            _ => unreachable!("it was written as an object"),
        }
    };
    let every = |millis: u64| json!([{"every": format!("{millis}ms")}]);
    let [steady, failing, slow, waiting, few, last, kept, cron, once] =
        ["steady", "failing", "slow", "waiting", "few", "last", "kept", "cron", "once"]
            .map(|it| format!("closing-{it}"));
    let retry = json!({"max_attempts": 4, "initial": "200ms", "factor": 2, "max": "600ms", "jitter": 0.5});
    let definitions = [
        (&steady, task("/hook", every(400), json!({}))),
        (&failing, task(CLOSING.failing, every(900), json!({"retry": retry.clone()}))),
        (&slow, task(CLOSING.slow, every(600), json!({"overlap": "skip", "retry": {"max_attempts": 1}}))),
        (&waiting, task(CLOSING.slow, every(700), json!({"overlap": "buffer_one", "retry": {"max_attempts": 1}}))),
        (&few, task("/hook", every(500), json!({"remaining": 4}))),
        (&last, task("/hook", every(300), json!({"remaining": 2, "on_finish": "delete"}))),
        (&kept, task("/hook", every(350), json!({"retention": {"runs": 3, "age": "2s"}}))),
        (
            &cron,
            task("/hook", json!([{"cron": "* * * * * *", "time_zone": "Europe/Berlin"}]), json!({"jitter": "700ms"})),
        ),
        (&once, task("/hook", json!([{"delay": "5s"}, {"delay": "7s"}]), json!({"end_at": null}))),
    ];
    let mut actions: Vec<(u64, Action)> = Vec::new();
    let mut at = |at: u64, action: Action| actions.push((at + rng.random_range(0..50), action));
    for (number, (name, spec)) in definitions.iter().enumerate() {
        at(number as u64 * 60, put((*name).clone(), spec.clone()));
    }
    let labelled = |name: &String, revision: u32| {
        let found = definitions.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec.clone());
        let mut spec = found.unwrap_or_else(|| definitions[0].1.clone());
        spec.labels.insert("revision".to_owned(), revision.to_string());
        Box::new(spec)
    };
    let on_version = |name: &String, revision: u32, if_version: u32| Action::Put {
        name: name.clone(),
        spec: labelled(name, revision),
        if_version: Some(if_version),
        create_only: false,
        idempotency_key: None,
    };
    let create = |name: &String, key: Option<&str>| Action::Put {
        name: name.clone(),
        spec: labelled(name, 9),
        if_version: None,
        create_only: key.is_none(),
        idempotency_key: key.map(str::to_owned),
    };
    let trigger = |name: &String, key: Option<&str>| Action::Trigger {
        name: name.clone(),
        idempotency_key: key.map(str::to_owned),
    };
    // Twice by one key: done once.
    at(1_500, trigger(&steady, Some("closing-1")));
    at(1_800, trigger(&steady, Some("closing-1")));
    // The first of these three is done, and the others are refused.
    at(2_100, on_version(&steady, 1, 1));
    at(2_300, on_version(&steady, 2, 1));
    at(2_500, create(&steady, None));
    at(2_700, Action::Pause { name: cron.clone(), if_version: None });
    at(2_900, Action::Get { name: cron.clone() });
    at(4_700, Action::Resume { name: cron.clone(), if_version: Some(1) });
    at(3_100, trigger(&slow, None));
    at(3_300, Action::CancelRunOf { name: slow.clone() });
    at(3_500, trigger(&steady, None));
    at(3_700, Action::GetRunOf { name: steady.clone() });
    let unnamed = put(String::new(), task("/hook", json!([{"delay": "1s"}]), json!({"end_at": null})));
    let scene = Scene { pace: Pace::Normal, start };
    let lines = vec![
        create(&"closing-batch".to_owned(), None),
        unnamed,
        Action::PutBad { name: "closing-bad".to_owned(), spec: Box::new(bad(rng, scene)) },
    ];
    let mut at = |at: u64, action: Action| actions.push((at + rng.random_range(0..50), action));
    at(4_000, Action::Batch { lines });
    at(4_300, create(&"closing-keyed".to_owned(), Some("closing-2")));
    at(4_600, create(&"closing-keyed".to_owned(), Some("closing-2")));
    at(
        5_000,
        Action::PutBad {
            name: failing.clone(),
            spec: Box::new(TaskSpec { priority: 101, ..definitions[0].1.clone() }),
        },
    );
    at(6_000, Action::Get { name: steady.clone() });
    let page = |limit| Paging { limit: Some(limit), pages: 3, rest: Millis(100), follows: None };
    let prefix = TaskFilter { prefix: Some("closing-".to_owned()), ..TaskFilter::default() };
    at(6_200, Action::ListTasks { filter: prefix, page: page(4) });
    at(6_400, Action::ListRuns { name: steady.clone(), state: None, page: page(5) });
    at(6_600, Action::Ledger { name: steady.clone(), filter: LedgerFilter::default(), page: page(6) });
    at(6_800, Action::Preview { name: cron.clone(), count: 5, after: None });
    at(6_900, Action::PreviewSpec { spec: Box::new(definitions[7].1.clone()), count: 5, after: None });
    at(7_000, Action::Delete { name: waiting.clone(), cancel_runs: true, if_version: None });
    at(7_300, Action::Get { name: waiting.clone() });
    at(8_000, Action::Delete { name: failing.clone(), cancel_runs: false, if_version: Some(1) });
    at(9_000, Action::Get { name: kept.clone() });
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_over_in_its_time_and_asks_members_only() {
        for seed in 0..50 {
            let nodes = [NodeId(2), NodeId(9)];
            let round = closing(&nodes, Timestamp::from_millis(0), seed);
            assert!(round.is_sorted_by_key(|operation| operation.at));
            assert!(round.iter().all(|operation| operation.at < LAST && [2, 9].contains(&operation.node)));
            assert!(round.iter().any(|operation| operation.node == 2) && round.len() == 35);
            assert_eq!(round, closing(&nodes, Timestamp::from_millis(0), seed));
        }
    }
}
