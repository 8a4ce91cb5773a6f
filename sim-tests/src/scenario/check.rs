//! What a scenario must be beyond its grammar: faults that exist and strike nodes that exist, numbers that mean
//! something, expectations that can be met.

use campanile_model::sim::Bound;
use campanile_model::{Code, Millis, NodeId, Rejection, TaskSpec};
use campanile_server::check_definition;

use super::{DRAWN, Scenario, faults, nearest};
use crate::drive::draw;
use crate::history::{Action, UNNAMED};
use crate::plan::{Fault as Kind, PlannedFault, RoleOf, Who};

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Keys and indices from the top of the file.
    pub path: Vec<String>,
    pub message: String,
}

impl Fault {
    pub fn new(path: impl IntoIterator<Item = impl ToString>, message: impl Into<String>) -> Self {
        Self { path: path.into_iter().map(|step| step.to_string()).collect(), message: message.into() }
    }
}

type Result<T = ()> = std::result::Result<T, Fault>;

fn must(condition: bool, path: &[&str], message: impl FnOnce() -> String) -> Result {
    if condition { Ok(()) } else { Err(Fault::new(path, message())) }
}

fn unknown<'c>(what: &str, given: &str, known: impl IntoIterator<Item = &'c str> + Clone) -> String {
    match nearest(given, known.clone()) {
        Some(near) => format!("unknown {what} {given:?}; did you mean {near:?}?"),
        None => format!("unknown {what} {given:?}; known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// One entry of `[[faults]]`.
pub fn fault(i: usize, table: &toml::Table) -> Result<PlannedFault> {
    let at = |field: Option<&str>, message: String| {
        let mut path = vec!["faults".to_string(), i.to_string()];
        path.extend(field.map(str::to_owned));
        Fault { path, message }
    };
    let name = match table.get("fault") {
        Some(toml::Value::String(name)) => name,
        Some(_) => return Err(at(Some("fault"), "`fault` is the name of a fault".into())),
        None => return Err(at(None, "this fault has no `fault` that names it".into())),
    };
    let kind = faults::by_name(name)
        .ok_or_else(|| at(Some("fault"), unknown("fault", name, faults::KINDS.iter().map(|kind| kind.name))))?;
    let known = || faults::COMMON.iter().chain(kind.fields).copied();
    for field in table.keys() {
        if !known().any(|name| name == field) {
            return Err(at(
                Some(field),
                unknown(&format!("field of the fault {name}"), field, known().collect::<Vec<_>>()),
            ));
        }
    }
    for field in kind.fields.iter().chain(&["at"]) {
        if !table.contains_key(*field) {
            return Err(at(None, format!("the fault {name} lacks `{field}`")));
        }
    }
    if let Some(node) = table.get("node") {
        let roles = ["leader", "follower", "any"];
        match node {
            toml::Value::Integer(_) => {}
            toml::Value::String(role) if roles.contains(&role.as_str()) => {}
            toml::Value::String(role) => return Err(at(Some("node"), unknown("role", role, roles))),
            _ => return Err(at(Some("node"), "`node` is a node's id, or leader, follower or any".into())),
        }
    }
    // Field by field first, so that an error has its place.
    for field in ["at", "for", "every", "sync", "min", "max", "by"] {
        if let Some(value) = table.get(field) {
            value.clone().try_into::<Millis>().map_err(|error| at(Some(field), error.message().into()))?;
        }
    }
    toml::Value::Table(table.clone()).try_into().map_err(|error: toml::de::Error| at(None, error.message().into()))
}

/// The whole.
pub fn scenario(scenario: &Scenario) -> Result {
    let Scenario { nodes, span, .. } = scenario;
    must(*nodes == DRAWN || (1..=7).contains(nodes), &["nodes"], || {
        format!("{nodes} nodes; a scenario has 1 to 7, or \"drawn\"")
    })?;
    let by_hand = !scenario.faults.is_empty() || !scenario.workload.operations.is_empty();
    must(*nodes != DRAWN || !by_hand, &["nodes"], || {
        "faults and operations written by hand need to know how many nodes there are".into()
    })?;
    must(span.0 > 0, &["span"], || "the span is empty".into())?;
    must(span.0 <= Millis::from_days(3660).0, &["span"], || format!("the span is {span}; ten years are the most"))?;
    workload(scenario)?;
    for (i, planned) in scenario.faults.iter().enumerate() {
        planned_fault(scenario, planned).map_err(|(field, message)| {
            let mut path = vec!["faults".to_string(), i.to_string()];
            path.push(field.into());
            Fault { path, message: format!("{}: {message}", planned.fault.name()) }
        })?;
    }
    losses(scenario)?;
    swarm(scenario)?;
    bounds(scenario)?;
    expectations(scenario)
}

/// Bounds that there are, and none so small that promises cannot be kept.
fn bounds(scenario: &Scenario) -> Result {
    for (name, amount) in &scenario.bounds {
        let path = ["bounds", name.as_str()];
        let Some(bound) = Bound::by_name(name) else {
            return Err(Fault::new(path, unknown("bound", name, Bound::ALL.iter().map(|bound| bound.name()))));
        };
        let least = *bound.small().start();
        must(*amount >= least, &path, || format!("{amount} is less than {least}, the least with which promises hold"))?;
    }
    Ok(())
}

fn workload(scenario: &Scenario) -> Result {
    let work = &scenario.workload;
    let path = |key| ["workload", key];
    must(!work.tasks.is_empty() || work.clients > 0 || !work.operations.is_empty(), &["workload"], || {
        "the workload is empty: no tasks, no clients, no operations".into()
    })?;
    must((work.clients == 0) == (work.operations_per_second == 0), &["workload"], || {
        "`clients` and `operations_per_second` belong together: one of them is 0".into()
    })?;
    must(work.clients <= 1000, &path("clients"), || "more than 1000 clients".into())?;
    must(work.operations_per_second <= 10_000, &path("operations_per_second"), || "more than 10000 a second".into())?;
    must(work.operations.is_empty() || work.clients == 0, &path("operations"), || {
        "operations written by hand exclude drawn ones: leave out `clients`".into()
    })?;
    must(work.operations.is_empty() || scenario.swarm.is_none(), &path("operations"), || {
        "operations written by hand exclude a swarm: write the faults out as well".into()
    })?;
    for (name, spec) in &work.tasks {
        definition(scenario, name, spec)
            .map_err(|message| Fault::new(["workload", "tasks", name], format!("task {name:?}: {message}")))?;
    }
    for (i, operation) in work.operations.iter().enumerate() {
        let place = |field: &str| vec!["workload".into(), "operations".into(), i.to_string(), field.into()];
        if operation.at >= scenario.span {
            let message = format!("the operation is at {}, and the span ends at {}", operation.at, scenario.span);
            return Err(Fault { path: place("at"), message });
        }
        if operation.node > scenario.nodes {
            let message = format!("there is no node {}; the nodes are 1 to {}", operation.node, scenario.nodes);
            return Err(Fault { path: place("node"), message });
        }
        let puts = match &operation.action {
            Action::Batch { lines } => lines,
            single => std::slice::from_ref(single),
        };
        for action in puts {
            let Action::Put { name, spec, .. } = action else { continue };
            // The cluster names those without a name.
            let checked = if name.is_empty() || name == UNNAMED { "unnamed" } else { name };
            match check_definition(checked, spec, scenario.start) {
                // When it is sent its occurrences may all be over: the cluster says so then.
                Err(refusal) if refusal.code == Code::NeverOccurs => {}
                refusal => refusal
                    .map_err(told)
                    .map_err(|message| Fault { path: place("action"), message: format!("task {name:?}: {message}") })?,
            }
        }
    }
    Ok(())
}

/// Whether the API takes it: else nothing would ever fire, and everything would hold.
fn definition(scenario: &Scenario, name: &str, spec: &TaskSpec) -> std::result::Result<(), String> {
    check_definition(name, spec, scenario.start).map_err(told)
}

fn told(refusal: Rejection) -> String {
    match refusal.field {
        Some(field) => format!("{field}: {}", refusal.message),
        None => refusal.message,
    }
}

type FieldResult = std::result::Result<(), (&'static str, String)>;

fn planned_fault(scenario: &Scenario, planned: &PlannedFault) -> FieldResult {
    let span = scenario.span;
    if planned.at >= span {
        return Err(("at", format!("begins at {}, and the span ends at {span}", planned.at)));
    }
    if planned.lasts == Some(Millis(0)) {
        return Err(("for", "lasts no time".into()));
    }
    let positive = |field, value: Millis| if value.0 > 0 { Ok(()) } else { Err((field, "must not be 0".into())) };
    let per_mille = |value: u32| match value {
        1..=1000 => Ok(()),
        _ => Err(("per_mille", format!("{value} of a thousand; 1 to 1000 mean something"))),
    };
    planned.fault.every().map_or(Ok(()), |every| positive("every", every))?;
    match &planned.fault {
        Kind::Partition { side } => side_of(scenario, "side", side)?,
        Kind::OneWay { from, to } => {
            side_of(scenario, "from", from)?;
            side_of(scenario, "to", to)?;
            if let Some(node) = from.iter().find(|node| to.contains(node)) {
                return Err(("to", format!("node {node} is on both sides")));
            }
        }
        Kind::Loss { per_mille: share } | Kind::Replay { per_mille: share } => per_mille(*share)?,
        Kind::ReceiverMoody { per_mille: share } => per_mille(*share)?,
        Kind::LoseNode { .. } if planned.lasts.is_some() => {
            return Err(("for", "a lost node never comes back; one that does is killed".into()));
        }
        Kind::Delay { min, max } if min > max => return Err(("min", format!("{min} is more than max, {max}"))),
        Kind::Delay { max, .. } => positive("max", *max)?,
        Kind::SlowDisk { sync, .. } => positive("sync", *sync)?,
        Kind::ClockJump { by_ms: 0, .. } => return Err(("by_ms", "a jump by 0 is none".into())),
        Kind::ClockDrift { ppm, .. } if *ppm == 0 || ppm.abs() > 500_000 => {
            return Err(("ppm", format!("{ppm} of a million; at most 500000 either way, and not 0")));
        }
        Kind::ReceiverAnswers { status } if !(200..=599).contains(status) => {
            return Err(("status", format!("{status} is not the HTTP status of an answer")));
        }
        Kind::ReceiverSlow { by } => positive("by", *by)?,
        _ => {}
    }
    who(&planned.fault).map_or(Ok(()), |node| exists(scenario, "node", node))
}

/// The node that a fault strikes by id.
fn who(fault: &Kind) -> Option<NodeId> {
    let who = match fault {
        Kind::InboundCut { node } | Kind::OutboundCut { node } => node,
        Kind::PeerPortClosed { node } | Kind::WrongAddress { node } => node,
        Kind::Isolate { node } | Kind::Flap { node, .. } | Kind::Clog { node } | Kind::Kill { node } => node,
        Kind::PowerCut { node } | Kind::RestartStorm { node, .. } | Kind::Pause { node } => node,
        Kind::Terminate { node } | Kind::LoseNode { node } | Kind::SlowDisk { node, .. } | Kind::FailSync { node } => {
            node
        }
        Kind::DiskErrors { node } | Kind::DiskFull { node } | Kind::BitFlip { node } => node,
        Kind::WipeDisk { node } | Kind::ClockJump { node, .. } | Kind::ClockDrift { node, .. } => node,
        Kind::ClockFreeze { node } | Kind::RemoveNode { node } => node,
        _ => return None,
    };
    match who {
        Who::Node(node) => Some(*node),
        Who::Role(RoleOf::Leader | RoleOf::Follower | RoleOf::Any) => None,
    }
}

/// Ids that the scenario can have: those of the start, and one for each node that joins.
fn exists(scenario: &Scenario, field: &'static str, node: NodeId) -> FieldResult {
    let joins = |planned: &&PlannedFault| matches!(planned.fault, Kind::AddNode | Kind::WipeDisk { .. });
    let last = u64::from(scenario.nodes) + scenario.faults.iter().filter(joins).count() as u64;
    match node.0 {
        id if (1..=last).contains(&id) => Ok(()),
        id => Err((field, format!("there is no node {id}; the nodes are 1 to {last}"))),
    }
}

fn side_of(scenario: &Scenario, field: &'static str, side: &[NodeId]) -> FieldResult {
    side.iter().try_for_each(|node| exists(scenario, field, *node))?;
    if side.is_empty() || side.len() >= scenario.nodes as usize {
        return Err((field, format!("has {} of {} nodes; a side is some of them", side.len(), scenario.nodes)));
    }
    Ok(())
}

/// Without a majority nothing is served any more, and the second phase would wait for it in vain.
fn losses(scenario: &Scenario) -> Result {
    let most = (scenario.nodes.max(1) as usize - 1) / 2;
    let mut losses = scenario.faults.iter().enumerate().filter(|(_, planned)| planned.fault.name() == "lose_node");
    match losses.nth(most) {
        None => Ok(()),
        Some((i, _)) => {
            let message = format!("lose_node: of {} nodes {most} can be lost; the rest is no majority", scenario.nodes);
            Err(Fault::new(["faults", &i.to_string(), "fault"], message))
        }
    }
}

fn swarm(scenario: &Scenario) -> Result {
    let Some(swarm) = &scenario.swarm else { return Ok(()) };
    for (i, name) in swarm.kinds.iter().enumerate() {
        let message = match faults::by_name(name) {
            None => unknown("fault", name, draw::KINDS),
            Some(_) if draw::KINDS.contains(&name.as_str()) => continue,
            Some(_) => format!("{name} is never drawn; write it under [[faults]]"),
        };
        return Err(Fault::new(["swarm", "kinds", &i.to_string()], message));
    }
    must(swarm.every.0 > 0, &["swarm", "every"], || "`every` must not be 0".into())?;
    must(swarm.longest.0 > 0, &["swarm", "longest"], || "`longest` must not be 0".into())
}

/// Those that no run could meet are mistakes, not tests.
fn expectations(scenario: &Scenario) -> Result {
    let expect = &scenario.expect;
    if let Some(lateness) = expect.max_lateness {
        must(lateness.0 >= 1, &["expect", "max_lateness"], || {
            "can never be met: a fire takes a commit, and no clock here is finer than 1ms".into()
        })?;
    }
    let ends = |planned: &PlannedFault| planned.lasts.is_some_and(|lasts| planned.at.0 + lasts.0 < scenario.span.0);
    let deaf = |fault: &Kind| matches!(fault, Kind::ReceiverGone | Kind::ReceiverHangs);
    let for_ever = scenario.faults.iter().find(|planned| deaf(&planned.fault) && !ends(planned));
    let failing = |fault: &Kind| matches!(fault, Kind::ReceiverAnswers { status } if *status >= 300);
    let fails = scenario.faults.iter().find(|planned| failing(&planned.fault) && !ends(planned));
    for (asked, name) in
        [(expect.no_missed, "no_missed"), (expect.all_succeed, "all_succeed"), (expect.no_repeats, "no_repeats")]
    {
        if let Some(fault) = for_ever.filter(|_| asked) {
            let (what, at) = (fault.fault.name(), fault.at);
            return Err(Fault::new(
                ["expect", name],
                format!("can never be met: {what} begins at {at} and never ends, so nothing is delivered any more"),
            ));
        }
    }
    match fails.filter(|_| expect.all_succeed) {
        Some(fault) => {
            let message = format!("can never be met: the receiver refuses everything from {} on", fault.at);
            Err(Fault::new(["expect", "all_succeed"], message))
        }
        None => Ok(()),
    }
}
