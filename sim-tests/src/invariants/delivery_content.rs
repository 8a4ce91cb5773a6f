//! What a receiver gets is what the run's version says: method, path and query, the target's own headers, the body, its
//! type, and nothing else but the headers that are documented, none of which is missing; those say of the attempt what the row says that handed it
//! out; `webhook-timestamp` is when it was sent; and the signature is Standard Webhooks', with the version's secret,
//! else the nodes'.

use std::collections::BTreeMap;

use base64::Engine as _;
use campanile_model::{NodeId, Target, TaskId, TaskSpec};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::index::{Delivered, Facts};
use super::report::Report;
use super::spans::{Span, Spans};
use crate::history::{Action, Event, Outcome, Request, RunRow, Source};
use crate::verdict::Finding;

/// What reads show in place of a secret.
const REDACTED: &str = "whsec_***";

pub fn check(facts: &Facts) -> Finding {
    let mut report = Report::new("delivery_content");
    let secrets = Secrets::gather(facts);
    let clocks = wrong_clocks(facts);
    for timed in &facts.history.events {
        if let Event::Stray { node, request } = &timed.event {
            let (method, path) = (&request.method, &request.path);
            report.violated(timed.t, format!("node {node} sent {method} {path}, which does not say of what attempt"));
        }
    }
    for run in facts.runs.values() {
        for delivered in &run.deliveries {
            let row = run.handed_out(delivered.it.token);
            if let Some(row) = row {
                is_of_its_row(delivered, row.it, &mut report);
            } else if facts.has_log() {
                report.violated(
                    delivered.t,
                    format!(
                        "attempt {} of run {} arrived with token {}, which no entry gave out",
                        delivered.it.attempt, delivered.it.run, delivered.it.token
                    ),
                );
            }
            let Some(request) = delivered.it.request.as_deref() else { continue };
            let version = row.map(|row| row.it.version).or(run.in_the_end.map(|view| view.it.version));
            let Some(version) = version else { continue };
            headers_agree(delivered, request, &mut report);
            // An attempt that is not in the log was sent at some time before.
            let from = row.map_or(0, |row| row.t);
            let is_wrong = clocks.get(&delivered.it.node).is_some_and(|wrong| wrong.touch(from, delivered.t));
            if !is_wrong {
                sent_when_it_says(facts, delivered, from, request, &mut report);
            }
            let Some(spec) = facts.spec(delivered.it.task, version) else { continue };
            let secret = match (secrets.of(delivered.it.task, version), &facts.history.header.webhook_secret) {
                // What nodes sign with by themselves.
                (Secret::None, Some(secret)) => Secret::Known(secret),
                // Of real ones it is not known.
                (Secret::None, None) if facts.history.header.source == Source::RealProcesses => Secret::Unknown,
                (secret, _) => secret,
            };
            let name = name_of(facts, delivered.it.task);
            let named = name.as_deref();
            is_as_defined(delivered, request, spec, secret, named, &mut report);
        }
    }
    report.finish_if_any("requests as they came")
}

fn is_of_its_row(delivered: &Delivered, row: &RunRow, report: &mut Report) {
    let it = delivered.it;
    let same = (it.attempt, it.occurrence, it.task, it.scheduled_at)
        == (row.attempt, row.occurrence, row.occurrence.task, row.occurrence.scheduled_at);
    report.hold(same, delivered.t, || {
        format!(
            "run {} came as attempt {} of {}; the entry that gave token {} out says attempt {} of {}",
            it.run, it.attempt, it.occurrence, it.token, row.attempt, row.occurrence
        )
    });
}

/// What the headers repeat they repeat alike.
fn headers_agree(delivered: &Delivered, request: &Request, report: &mut Report) {
    let it = delivered.it;
    let told = [
        ("webhook-id", it.occurrence.to_string()),
        ("campanile-occurrence-id", it.occurrence.to_string()),
        ("campanile-run-id", it.run.to_string()),
        ("campanile-task-id", it.occurrence.task.to_string()),
        ("campanile-attempt", it.attempt.to_string()),
        ("campanile-fencing-token", it.token.to_string()),
        ("campanile-scheduled-at", it.occurrence.scheduled_at.to_string()),
    ];
    for (name, value) in told {
        let given = request.headers.get(name);
        report.hold(given == Some(&value), delivered.t, || {
            format!("attempt {} of run {} says {name} {given:?} instead of {value:?}", it.attempt, it.run)
        });
    }
}

/// When nodes' clocks were wrong: the history's bound is for those that lead, which others need not keep.
fn wrong_clocks(facts: &Facts) -> BTreeMap<NodeId, Spans> {
    let mut begun: BTreeMap<usize, (u64, &[NodeId])> = BTreeMap::new();
    let mut wrong: BTreeMap<NodeId, Spans> = BTreeMap::new();
    let mut add = |(from, nodes): (u64, &[NodeId]), to| {
        for node in nodes {
            wrong.entry(*node).or_default().add(Span { from, to });
        }
    };
    for timed in &facts.history.events {
        match &timed.event {
            Event::FaultBegins { id, planned, nodes } if planned.fault.name().starts_with("clock_") => {
                begun.insert(*id, (timed.t, nodes));
            }
            Event::FaultEnds { id } => {
                if let Some(fault) = begun.remove(id) {
                    add(fault, timed.t);
                }
            }
            _ => {}
        }
    }
    for fault in begun.into_values() {
        add(fault, u64::MAX);
    }
    wrong.values_mut().for_each(Spans::settle);
    wrong
}

fn sent_when_it_says(facts: &Facts, delivered: &Delivered, from: u64, request: &Request, report: &mut Report) {
    let text = request.headers.get("webhook-timestamp");
    let said: Option<i64> = text.and_then(|text| text.parse().ok());
    let error = facts.history.header.clock_error_ms + 1;
    let earliest = (facts.history.wall_ms(from) - error).div_euclid(1000);
    let latest = facts.latest_clock(delivered.t).as_millis().saturating_add(1).div_euclid(1000);
    report.hold(said.is_some_and(|said| (earliest..=latest).contains(&said)), delivered.t, || {
        let (attempt, run) = (delivered.it.attempt, delivered.it.run);
        format!("attempt {attempt} of run {run} says that it was sent at {text:?}, which was in {earliest}..={latest}")
    });
}

fn is_as_defined(
    delivered: &Delivered,
    request: &Request,
    spec: &TaskSpec,
    secret: Secret,
    name: Option<&str>,
    report: &mut Report,
) {
    let Target::Http(target) = &spec.target;
    let body = spec.payload.as_ref().map_or("", |payload| payload.as_str());
    let (attempt, run) = (delivered.it.attempt, delivered.it.run);
    let asked = (target.method.as_str(), path(&target.url), body);
    let came = (request.method.as_str(), request.path.as_str(), request.body.as_str());
    report.hold(asked == came, delivered.t, || {
        format!("attempt {attempt} of run {run} came as {came:?} and is defined as {asked:?}")
    });
    let own: BTreeMap<String, &String> =
        target.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    for (name, value) in &own {
        let given = request.headers.get(name);
        report.hold(given == Some(*value), delivered.t, || {
            format!("attempt {attempt} of run {run} has header {name} {given:?} and is defined with {value:?}")
        });
    }
    if !own.contains_key("content-type") {
        let given = request.headers.get("content-type").map(String::as_str);
        let wanted = spec.payload.as_ref().map(|_| "application/json");
        report.hold(given == wanted, delivered.t, || {
            format!("attempt {attempt} of run {run} has the content type {given:?} instead of {wanted:?}")
        });
    }
    let given = request.headers.get("campanile-task").map(String::as_str);
    report.hold(name.is_none() || given == name, delivered.t, || {
        format!("attempt {attempt} of run {run} is of task {given:?} and should be of {name:?}")
    });
    let foreign = request.headers.keys().find(|name| !own.contains_key(*name) && !OURS.contains(&name.as_str()));
    report.hold(foreign.is_none(), delivered.t, || {
        format!("attempt {attempt} of run {run} has a header {foreign:?} that nobody asked for")
    });
    let signature = request.headers.get("webhook-signature").map(String::as_str);
    let fits = match secret {
        Secret::None => signature.is_none(),
        Secret::Unknown => true,
        Secret::Known(secret) => signature.is_some() && signature == sign(secret, request).as_deref(),
    };
    report.hold(fits, delivered.t, || {
        format!("attempt {attempt} of run {run} is signed {signature:?}, which is not by its secret")
    });
}

const OURS: [&str; 12] = [
    "user-agent",
    "content-type",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "campanile-occurrence-id",
    "campanile-run-id",
    "campanile-task",
    "campanile-task-id",
    "campanile-attempt",
    "campanile-fencing-token",
    "campanile-scheduled-at",
];

/// Path and query of an address, as HTTP sends them.
fn path(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let whole = after_scheme.find(['/', '?']).map_or("/", |from| &after_scheme[from..]);
    whole.split('#').next().unwrap_or(whole)
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
fn sign(secret: &str, request: &Request) -> Option<String> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = base64.decode(secret.strip_prefix("whsec_")?).ok()?;
    let (id, at) = (request.headers.get("webhook-id")?, request.headers.get("webhook-timestamp")?);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{at}.{}", request.body).as_bytes());
    Some(format!("v1,{}", base64.encode(mac.finalize().into_bytes())))
}

/// An unnamed task has its id for a name.
fn name_of(facts: &Facts, task: TaskId) -> Option<String> {
    let known = facts.tasks.get(&task)?;
    if let Some(row) = known.rows.first() {
        return Some(if row.it.name.is_empty() { task.to_string() } else { row.it.name.clone() });
    }
    known.in_the_end.map(|view| view.name.clone())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret<'h> {
    None,
    Known(&'h str),
    /// It is not told, or nobody saw the definition written.
    Unknown,
}

/// The secrets that clients gave, by version.
struct Secrets<'h>(BTreeMap<(TaskId, u32), Secret<'h>>);

impl<'h> Secrets<'h> {
    fn gather(facts: &Facts<'h>) -> Self {
        let mut given: BTreeMap<(TaskId, u32), Secret> = BTreeMap::new();
        for operation in &facts.operations {
            match (operation.action, operation.acknowledged()) {
                (Action::Put { spec, .. }, Some((_, Outcome::Written { task }))) => {
                    let known = given.entry((task.id, task.version)).or_insert(Secret::Unknown);
                    *known = if *known == Secret::Unknown { Secret::of(spec) } else { *known };
                }
                (_, Some((_, Outcome::Read { task }))) => {
                    given.entry((task.id, task.version)).or_insert(Secret::of(&task.spec));
                }
                _ => {}
            }
        }
        for (id, task) in &facts.tasks {
            if let Some(view) = task.in_the_end {
                given.entry((*id, view.version)).or_insert(Secret::of(&view.spec));
            }
        }
        Self(given)
    }

    fn of(&self, task: TaskId, version: u32) -> Secret<'h> {
        self.0.get(&(task, version)).copied().unwrap_or(Secret::Unknown)
    }
}

impl<'h> Secret<'h> {
    fn of(spec: &'h TaskSpec) -> Self {
        let Target::Http(target) = &spec.target;
        match target.signing_secret.as_deref() {
            None => Self::None,
            // "As it is."
            Some(REDACTED) => Self::Unknown,
            Some(secret) => Self::Known(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::api::Change;
    use campanile_model::{HttpMethod, Json, Millis};
    use serde_json::json;

    use super::super::testing::*;
    use super::*;
    use crate::plan::{Fault, PlannedFault, Who};

    const NAME: &str = "delivery_content";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// A delivery at second 10 that is as it should be, but for a change.
    fn delivered(change: impl FnOnce(&mut crate::history::Delivery)) -> Script {
        delivered_of(|_| {}, change)
    }

    fn delivered_of(define: impl FnOnce(&mut TaskSpec), change: impl FnOnce(&mut crate::history::Delivery)) -> Script {
        let put = put_with(|spec| {
            let Target::Http(target) = &mut spec.target;
            target.url = "http://receiver/hook?a=1".into();
            target.method = HttpMethod::Put;
            target.headers.insert("X-Team".into(), "billing".into());
            target.signing_secret = Some(SECRET.into());
            spec.payload = Some(Json::from_value(&json!({"n": 1})));
            define(spec);
        });
        let run = fired(5, 10);
        let known = Script::new().invoke(1, put).wrote(1, Change::Created, 1).task(3, 1, 0);
        known.at(10_000).entry(5).row(&run).at(10_500).delivery(1, &run, |delivery| {
            let mut request = request(&run, 10);
            request.method = "PUT".into();
            request.path = "/hook?a=1".into();
            request.body = r#"{"n":1}"#.into();
            request.headers.insert("x-team".into(), "billing".into());
            request.headers.insert("content-type".into(), "application/json".into());
            let signature = sign(SECRET, &request).expect("a signature");
            request.headers.insert("webhook-signature".into(), signature);
            delivery.request = Some(Box::new(request));
            change(delivery);
        })
    }

    fn changed_to(change: impl FnOnce(&mut Request)) -> Script {
        delivered(|delivery| change(delivery.request.as_mut().expect("a request")))
    }

    #[test]
    fn a_request_is_as_its_version_says() {
        accepts(NAME, delivered(|_| {}));
        refuses(NAME, changed_to(|request| request.method = "POST".into()));
        refuses(NAME, changed_to(|request| request.path = "/hook".into()));
        refuses(NAME, changed_to(|request| request.body = r#"{"n": 1}"#.into()));
        let header = |name: &'static str, value: &'static str| {
            changed_to(move |request| {
                request.headers.insert(name.into(), value.into());
            })
        };
        refuses(NAME, header("x-team", "sales"));
        refuses(NAME, header("content-type", "text/plain"));
        refuses(NAME, header("x-other", "1"));
        refuses(NAME, header("campanile-task", "b"));
        refuses(NAME, header("campanile-attempt", "2"));
        refuses(NAME, header("webhook-id", "t1-1"));
        refuses(NAME, header("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        refuses(NAME, changed_to(|request| drop(request.headers.remove("webhook-signature"))));
        refuses(NAME, changed_to(|request| drop(request.headers.remove("content-type"))));
    }

    #[test]
    fn a_request_says_what_it_is_about() {
        let stray = Event::Stray { node: NodeId(1), request: Box::new(request(&fired(5, 10), 10)) };
        refuses(NAME, delivered(|_| {}).event(stray));
    }

    #[test]
    fn the_timestamp_is_when_it_was_sent() {
        let said = |seconds: i64| {
            changed_to(move |request| {
                let at = (EPOCH / 1000 + seconds).to_string();
                request.headers.insert("webhook-timestamp".into(), at);
                let signature = sign(SECRET, request).expect("a signature");
                request.headers.insert("webhook-signature".into(), signature);
            })
        };
        accepts(NAME, said(10));
        refuses(NAME, said(8));
        refuses(NAME, said(11));
        accepts(NAME, said(11).clock_error(1000));
        let frozen = |node| {
            let planned =
                PlannedFault { at: Millis(0), lasts: None, fault: Fault::ClockFreeze { node: Who::Node(node) } };
            let nodes = vec![node];
            Script::new().event(Event::FaultBegins { id: 0, planned, nodes })
        };
        let under = |script: Script| {
            said(8).done().events.into_iter().fold(script, |script, timed| script.at(timed.t / 1000).event(timed.event))
        };
        accepts(NAME, under(frozen(NodeId(1))));
        refuses(NAME, under(frozen(NodeId(2))));
    }

    #[test]
    fn without_a_secret_there_is_no_signature() {
        let unsigned = |target: &mut TaskSpec| {
            let Target::Http(http) = &mut target.target;
            http.signing_secret = None;
        };
        refuses(NAME, delivered_of(unsigned, |_| {}));
        let without = |delivery: &mut crate::history::Delivery| {
            drop(delivery.request.as_mut().expect("a request").headers.remove("webhook-signature"));
        };
        accepts(NAME, delivered_of(unsigned, without));
        let by_nodes = delivered_of(unsigned, |_| {}).done();
        let mut header = by_nodes.header.clone();
        header.webhook_secret = Some(SECRET.into());
        accepts(
            NAME,
            by_nodes
                .events
                .into_iter()
                .fold(Script::headed(header), |script, timed| script.at(timed.t / 1000).event(timed.event)),
        );
        let kept = |spec: &mut TaskSpec| {
            let Target::Http(http) = &mut spec.target;
            http.signing_secret = Some(REDACTED.into());
        };
        accepts(NAME, delivered_of(kept, |_| {}));
    }

    #[test]
    fn an_attempt_is_the_one_that_was_handed_out() {
        refuses(NAME, delivered(|delivery| delivery.attempt = 2));
        refuses(NAME, delivered(|delivery| delivery.token.0 += 1));
        refuses(NAME, delivered(|delivery| delivery.occurrence.scheduled_at = second(11)));
        not_applicable(NAME, Script::new().real().deliver(1, &fired(5, 10)));
    }

    #[test]
    fn paths() {
        for (url, expected) in
            [("http://a", "/"), ("http://a/", "/"), ("http://a:1/b/c?d=/e", "/b/c?d=/e"), ("http://a/b#c", "/b")]
        {
            assert_eq!(path(url), expected, "{url}");
        }
    }

    #[test]
    fn signs_as_the_specification_does() {
        let headers = [("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"), ("webhook-timestamp", "1614265330")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let body = r#"{"test": 2432232314}"#.into();
        let request = Request { method: String::new(), path: String::new(), headers: headers.into(), body };
        let signature = sign(SECRET, &request);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }
}
