//! Coverage by construction: what exists is what the schema says, and what a sweep's plans never draw is an error,
//! alone and followed by an update, a pause, a delete, a change of leader and a restart.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::plan::Fault;
use crate::scenario;

/// As many as a sweep has that proves a build.
const SEEDS: u64 = 500;

/// What no plan draws, and why.
const NEVER_DRAWN: [(&str, &str); 5] = [
    ("get /v1/cluster", "asked by the nemesis and when a cluster is to converge"),
    ("get /v1/cluster/digest", "computed by the simulator at every node"),
    ("post /v1/cluster/nodes", "the nemesis's: add_node"),
    ("delete /v1/cluster/nodes/{id}", "the nemesis's: remove_node"),
    ("post /v1/cluster/leader", "the nemesis's: transfer_leader"),
];

/// Parameters that no plan draws, and why.
const NEVER_ASKED: [(&str, &str, &str); 1] =
    [("get /v1/namespaces/{ns}/tasks/{name}", "consistency", "clients have no stale reads of one task")];

/// Every field of a schema, as `a.b`, and every variant of those that have some, as `a.b=variant`.
fn fields(document: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return fields(document, &document["components"]["schemas"][name], path, found);
    }
    for of in ["oneOf", "allOf", "anyOf"] {
        for part in schema[of].as_array().into_iter().flatten() {
            fields(document, part, path, found);
        }
    }
    for variant in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        found.insert(format!("{path}={variant}"));
    }
    if schema["items"].is_object() {
        fields(document, &schema["items"], path, found);
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.insert(path.clone());
        fields(document, part, &path, found);
    }
}

/// The same of a definition that was drawn.
fn drawn(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(parts) => {
            for (name, part) in parts {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.insert(path.clone());
                drawn(part, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| drawn(item, path, found)),
        Value::String(text) => {
            found.insert(format!("{path}={text}"));
        }
        _ => {}
    }
}

/// The routes by which an action goes.
fn routes(action: &Action) -> &'static [&'static str] {
    match action {
        Action::Put { name, idempotency_key, .. } if name.is_empty() || idempotency_key.is_some() => {
            &["post /v1/namespaces/{ns}/tasks"]
        }
        Action::Put { .. } | Action::PutBad { .. } => &["put /v1/namespaces/{ns}/tasks/{name}"],
        Action::Batch { .. } => &["post /v1/namespaces/{ns}/tasks:batch"],
        Action::Pause { .. } => &["post /v1/namespaces/{ns}/tasks/{name}/pause"],
        Action::Resume { .. } => &["post /v1/namespaces/{ns}/tasks/{name}/resume"],
        Action::Delete { .. } => &["delete /v1/namespaces/{ns}/tasks/{name}"],
        Action::Trigger { .. } => &["post /v1/namespaces/{ns}/tasks/{name}/trigger"],
        Action::Get { .. } => &["get /v1/namespaces/{ns}/tasks/{name}"],
        // What the client has not heard of it looks for in the list.
        Action::CancelRun { .. } | Action::CancelRunOf { .. } => {
            &["post /v1/namespaces/{ns}/runs/{id}/cancel", "get /v1/namespaces/{ns}/tasks/{name}/runs"]
        }
        Action::ListTasks { .. } => &["get /v1/namespaces/{ns}/tasks"],
        Action::ListRuns { .. } => &["get /v1/namespaces/{ns}/tasks/{name}/runs"],
        Action::Ledger { .. } => &["get /v1/namespaces/{ns}/tasks/{name}/ledger"],
        Action::Preview { .. } => &["get /v1/namespaces/{ns}/tasks/{name}/preview"],
        Action::PreviewSpec { .. } => &["post /v1/namespaces/{ns}/preview"],
        Action::GetRun { .. } | Action::GetRunOf { .. } => {
            &["get /v1/namespaces/{ns}/runs/{id}", "get /v1/namespaces/{ns}/tasks/{name}/runs"]
        }
    }
}

/// What is asked for in the query of an action's route.
fn parameters(action: &Action) -> Vec<&'static str> {
    let given =
        |of: &[(bool, &'static str)]| of.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect::<Vec<_>>();
    let mut found = match action {
        Action::ListTasks { filter, .. } => given(&[
            (filter.prefix.is_some(), "prefix"),
            (filter.state.is_some(), "state"),
            (filter.due_after.is_some(), "due_after"),
            (filter.due_before.is_some(), "due_before"),
            (filter.label.is_some(), "label"),
            (filter.stale, "consistency"),
        ]),
        Action::ListRuns { state, .. } => given(&[(state.is_some(), "state")]),
        Action::Ledger { filter, .. } => {
            given(&[(filter.after.is_some(), "after"), (filter.before.is_some(), "before")])
        }
        Action::Preview { after, .. } | Action::PreviewSpec { after, .. } => {
            given(&[(true, "count"), (after.is_some(), "after")])
        }
        Action::Delete { cancel_runs, .. } => given(&[(*cancel_runs, "runs")]),
        _ => Vec::new(),
    };
    if let Some(page) = action.page() {
        found.extend(given(&[(page.limit.is_some(), "limit"), (page.pages > 1, "page_token")]));
    }
    found
}

/// What may happen to a task whose definition has this or that.
const EVENTS: [&str; 5] = ["update", "pause", "delete", "leader change", "restart"];

fn event_of(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::TransferLeader | Fault::LeaderInMinority | Fault::Isolate { .. } => Some("leader change"),
        Fault::Kill { .. } | Fault::PowerCut { .. } | Fault::PowerCutAll | Fault::RollingRestart { .. } => {
            Some("restart")
        }
        _ => None,
    }
}

/// What the plans of a sweep draw of definitions, alone and with what follows; and the routes they take.
fn sweep() -> (BTreeSet<String>, BTreeSet<(&'static str, String)>, BTreeSet<&'static str>) {
    let scenario = scenario::read_str(scenario::DEFAULT, "default".as_ref()).unwrap();
    let (mut alone, mut followed, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..SEEDS {
        let plan = plan(&scenario, start(&scenario, seed), seed);
        let mut put: BTreeMap<String, (Millis, BTreeSet<String>)> = BTreeMap::new();
        for operation in &plan.operations {
            taken.extend(routes(&operation.action));
            let event = match &operation.action {
                Action::Put { .. } => "update",
                Action::Pause { .. } => "pause",
                Action::Delete { .. } => "delete",
                _ => continue,
            };
            let Some(name) = operation.action.task_name() else { continue };
            if let Some((_, has)) = put.get(name) {
                followed.extend(has.iter().map(|part| (event, part.clone())));
            }
            if let Action::Put { spec, .. } = &operation.action {
                let mut has = BTreeSet::new();
                drawn(&serde_json::to_value(spec).unwrap(), "", &mut has);
                alone.extend(has.iter().cloned());
                put.insert(name.to_owned(), (operation.at, has));
            }
        }
        for (at, has) in put.values() {
            let later = plan.faults.iter().filter(|planned| planned.at > *at);
            for event in later.filter_map(|planned| event_of(&planned.fault)).collect::<BTreeSet<_>>() {
                followed.extend(has.iter().map(|part| (event, part.clone())));
            }
        }
    }
    (alone, followed, taken)
}

/// Which parameters the plans of a sweep give to which routes.
fn asked() -> BTreeSet<(&'static str, &'static str)> {
    let scenario = scenario::read_str(scenario::DEFAULT, "default".as_ref()).unwrap();
    let plans = (0..SEEDS / 5).map(|seed| plan(&scenario, start(&scenario, seed), seed));
    let operations = plans.flat_map(|plan| plan.operations);
    let given = operations.flat_map(|operation| {
        let routes = routes(&operation.action);
        parameters(&operation.action).into_iter().flat_map(move |name| routes.iter().map(move |route| (*route, name)))
    });
    given.collect()
}

#[test]
fn everything_that_exists_is_drawn() {
    let document = campanile_server::openapi().unwrap();
    let mut all = BTreeSet::new();
    fields(&document, &document["components"]["schemas"]["TaskSpec"], "", &mut all);
    assert!(all.len() > 50 && all.contains("schedules.dst=twice"), "the schema was not understood: {all:?}");
    let (alone, followed, taken) = sweep();
    let never: Vec<&String> = all.iter().filter(|part| !alone.contains(*part)).collect();
    assert!(never.is_empty(), "no seed of {SEEDS} draws {never:?}");
    for event in EVENTS {
        let never: Vec<&String> = all.iter().filter(|part| !followed.contains(&(event, (*part).clone()))).collect();
        assert!(never.is_empty(), "no seed of {SEEDS} draws, followed by the event {event}, {never:?}");
    }
    let excepted: BTreeSet<&str> = NEVER_DRAWN.iter().map(|(route, _)| *route).collect();
    let mut known = BTreeSet::new();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for verb in verbs.as_object().unwrap().keys() {
            let route = format!("{verb} {path}");
            let is_drawn = taken.contains(route.as_str());
            assert!(is_drawn != excepted.contains(route.as_str()), "{route}: drawn {is_drawn}, against NEVER_DRAWN");
            known.insert(route);
        }
    }
    let asked = asked();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            for name in parameters.filter(|part| part["in"] == "query").filter_map(|part| part["name"].as_str()) {
                let route = format!("{verb} {path}");
                let is_drawn = asked.contains(&(route.as_str(), name));
                let excepted = NEVER_ASKED.iter().any(|(of, parameter, _)| (*of, *parameter) == (route.as_str(), name));
                assert!(is_drawn != excepted, "{route}, {name}: drawn {is_drawn}, against NEVER_ASKED");
            }
        }
    }
    let gone: Vec<&&str> = excepted.iter().chain(&taken).filter(|route| !known.contains(**route)).collect();
    assert!(gone.is_empty(), "there are no such routes: {gone:?}");
}
