//! Everything a client can get wrong gets a clear answer: the status, the stable code, the field at fault; and the node
//! goes on. One table, against a real node in this process.

mod common;

use std::net::SocketAddr;

use campanile_model::limits;
use common::http::{self, Answer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TASK: &str = "/v1/namespaces/default/tasks/t";
const TASKS: &str = "/v1/namespaces/default/tasks";

/// A definition that is right, with one field changed.
fn with(field: &str, value: Value) -> String {
    let mut task = json!({
        "schedules": [{"at": "2099-01-01T00:00:00Z"}],
        "target": {"http": {"url": "http://127.0.0.1:9/hook"}},
    });
    task[field] = value;
    task.to_string()
}

fn schedule(schedule: Value) -> String {
    with("schedules", json!([schedule]))
}

fn target(http: Value) -> String {
    with("target", json!({ "http": http }))
}

struct Case {
    name: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    status: u16,
    code: &'static str,
    field: Option<&'static str>,
}

fn put(name: &'static str, body: String, code: &'static str, field: &'static str) -> Case {
    let field = (!field.is_empty()).then_some(field);
    Case { name, method: "PUT", path: TASK.into(), headers: Vec::new(), body, status: 400, code, field }
}

fn get(name: &'static str, path: &str, status: u16, code: &'static str, field: &'static str) -> Case {
    let field = (!field.is_empty()).then_some(field);
    Case { name, method: "GET", path: path.into(), headers: Vec::new(), body: String::new(), status, code, field }
}

fn definitions() -> Vec<Case> {
    let long = |length: usize| "x".repeat(length);
    vec![
        put("malformed JSON", "{\"schedules\": [".into(), "malformed_json", ""),
        put("not UTF-8 JSON", "\u{0}".into(), "malformed_json", ""),
        put("empty body", String::new(), "malformed_json", ""),
        put("an array", "[]".into(), "invalid_field", ""),
        put("no target", "{}".into(), "invalid_field", ""),
        put("unknown field", with("scheduels", json!([])), "unknown_field", "scheduels"),
        put("unknown nested field", with("retry", json!({"attempts": 3})), "unknown_field", "retry.attempts"),
        put("unknown target", with("target", json!({"smtp": {}})), "invalid_field", "target"),
        put("wrong type", with("timeout", json!(30)), "invalid_field", "timeout"),
        put("name of another task in the body", with("name", json!("other")), "invalid_field", "name"),
        put("name of a wrong type", with("name", json!(7)), "invalid_field", "name"),
        put(
            "two kinds in one schedule",
            schedule(json!({"every": "1m", "delay": "1m"})),
            "invalid_field",
            "schedules[0]",
        ),
        put("no kind in a schedule", schedule(json!({})), "invalid_field", "schedules[0]"),
        put("cron with words", schedule(json!({"cron": "every day"})), "invalid_schedule", "schedules[0].cron"),
        put("cron out of range", schedule(json!({"cron": "61 * * * *"})), "invalid_schedule", "schedules[0].cron"),
        put("cron that never occurs", schedule(json!({"cron": "30 2 31 2 *"})), "never_occurs", "schedules[0].cron"),
        put(
            "unknown zone",
            schedule(json!({"cron": "0 2 * * *", "time_zone": "Mars/Olympus"})),
            "unknown_time_zone",
            "schedules[0].time_zone",
        ),
        put("zone without cron", schedule(json!({"every": "1m", "time_zone": "UTC"})), "invalid_field", "schedules[0]"),
        put(
            "instant without offset",
            schedule(json!({"at": "2099-01-01T00:00:00"})),
            "invalid_field",
            "schedules[0].at",
        ),
        put("negative delay", schedule(json!({"delay": "-5s"})), "invalid_field", "schedules[0].delay"),
        put("interval below the limit", schedule(json!({"every": "1ms"})), "limit_exceeded", "schedules[0].every"),
        put(
            "ISO 8601 without period",
            schedule(json!({"repeat": "R3/2026-01-31T09:00:00Z"})),
            "invalid_schedule",
            "schedules[0].repeat",
        ),
        put(
            "too many schedules",
            with("schedules", json!(vec![json!({"every": "1m"}); limits::SCHEDULES + 1])),
            "limit_exceeded",
            "schedules",
        ),
        put(
            "cron too long",
            schedule(json!({"cron": long(limits::SCHEDULE_BYTES + 1)})),
            "limit_exceeded",
            "schedules[0].cron",
        ),
        put("payload over the limit", with("payload", json!(long(limits::PAYLOAD_BYTES))), "limit_exceeded", "payload"),
        put("URL that is none", target(json!({"url": "not a url"})), "invalid_field", "target.http.url"),
        put("URL of another scheme", target(json!({"url": "ftp://a/b"})), "invalid_field", "target.http.url"),
        put("URL without host", target(json!({"url": "http:///b"})), "invalid_field", "target.http.url"),
        put(
            "header with a line break",
            target(json!({"url": "http://a/", "headers": {"x": "a\r\nb: c"}})),
            "invalid_field",
            "target.http.headers.x",
        ),
        put(
            "header that is ours",
            target(json!({"url": "http://a/", "headers": {"Campanile-Attempt": "7"}})),
            "invalid_field",
            "target.http.headers.Campanile-Attempt",
        ),
        put(
            "unknown method",
            target(json!({"url": "http://a/", "method": "BREW"})),
            "invalid_field",
            "target.http.method",
        ),
        put(
            "secret too short",
            target(json!({"url": "http://a/", "signing_secret": "whsec_YQ=="})),
            "invalid_field",
            "target.http.signing_secret",
        ),
        put(
            "redacted secret of a new task",
            target(json!({"url": "http://a/", "signing_secret": "whsec_***"})),
            "invalid_field",
            "target.http.signing_secret",
        ),
        put("priority out of range", with("priority", json!(101)), "limit_exceeded", "priority"),
        put("no attempts", with("retry", json!({"max_attempts": 0})), "limit_exceeded", "retry.max_attempts"),
        put("jitter above one", with("retry", json!({"jitter": 1.5})), "limit_exceeded", "retry.jitter"),
        put("grace too short", with("catch_up", json!({"grace": "0s"})), "limit_exceeded", "catch_up.grace"),
        put("unknown policy", with("catch_up", json!({"policy": "fire_twice"})), "invalid_field", "catch_up.policy"),
        put("unknown overlap", with("overlap", json!("maybe")), "invalid_field", "overlap"),
        put("timeout too long", with("timeout", json!("2h")), "limit_exceeded", "timeout"),
        put("never again", with("remaining", json!(0)), "invalid_field", "remaining"),
        put(
            "label key too long",
            with("labels", json!({"k".repeat(limits::LABEL_BYTES + 1): "v"})),
            "limit_exceeded",
            "",
        ),
    ]
}

fn requests() -> Vec<Case> {
    let definition = schedule(json!({"every": "1h"}));
    let case = |name, method, path: &str, headers, body: &str, status, code, field| Case {
        name,
        method,
        path: path.into(),
        headers,
        body: body.into(),
        status,
        code,
        field,
    };
    let long_name = format!("{TASKS}/{}", "n".repeat(limits::NAME_BYTES + 1));
    let batch = format!("{TASKS}:batch");
    let too_many = "{}\n".repeat(limits::BATCH_TASKS + 1);
    vec![
        case("name over the limit", "PUT", &long_name, vec![], &definition, 400, "limit_exceeded", Some("name")),
        case(
            "name with a space",
            "PUT",
            &format!("{TASKS}/a%20b"),
            vec![],
            &definition,
            400,
            "invalid_field",
            Some("name"),
        ),
        case("name that is an id", "PUT", &format!("{TASKS}/t12345"), vec![], &definition, 404, "task_not_found", None),
        case(
            "unknown namespace",
            "PUT",
            "/v1/namespaces/nope/tasks/t",
            vec![],
            &definition,
            404,
            "namespace_not_found",
            None,
        ),
        case(
            "version of a task that is not there",
            "PUT",
            &format!("{TASKS}/absent"),
            vec![("if-match", "\"3\"")],
            &definition,
            404,
            "task_not_found",
            None,
        ),
        case(
            "version that is none",
            "PUT",
            TASK,
            vec![("if-match", "three")],
            &definition,
            400,
            "invalid_field",
            Some("If-Match"),
        ),
        case(
            "idempotency key too long",
            "POST",
            TASKS,
            vec![("idempotency-key", "k".repeat(limits::IDEMPOTENCY_KEY_BYTES + 1).leak())],
            &definition,
            400,
            "limit_exceeded",
            Some("Idempotency-Key"),
        ),
        case("batch over the limit", "POST", &batch, vec![], &too_many, 400, "limit_exceeded", None),
        case("empty batch", "POST", &batch, vec![], "\n\n", 400, "malformed_json", None),
        case("delete what is not there", "DELETE", &format!("{TASKS}/absent"), vec![], "", 404, "task_not_found", None),
        case(
            "trigger what is not there",
            "POST",
            &format!("{TASKS}/absent/trigger"),
            vec![],
            "",
            404,
            "task_not_found",
            None,
        ),
        case(
            "cancel what is not there",
            "POST",
            "/v1/namespaces/default/runs/r77/cancel",
            vec![],
            "",
            404,
            "run_not_found",
            None,
        ),
        case("unknown choice", "DELETE", &format!("{TASKS}/absent?runs=maybe"), vec![], "", 400, "invalid_field", None),
        case("method not allowed", "PATCH", TASK, vec![], "", 405, "method_not_allowed", None),
        case(
            "preview of a bad definition",
            "POST",
            "/v1/namespaces/default/preview",
            vec![],
            "{}",
            400,
            "invalid_field",
            None,
        ),
        case(
            "add node zero",
            "POST",
            "/v1/cluster/nodes",
            vec![],
            r#"{"id": 0, "peer": "a:1"}"#,
            400,
            "invalid_field",
            Some("id"),
        ),
        case(
            "add a node nowhere",
            "POST",
            "/v1/cluster/nodes",
            vec![],
            r#"{"id": 9, "peer": "a"}"#,
            400,
            "invalid_field",
            Some("peer"),
        ),
        case("remove a node that is none", "DELETE", "/v1/cluster/nodes/9", vec![], "", 404, "node_not_found", None),
        get("unknown path", "/v1/nothing", 404, "not_found", ""),
        get("task that is not there", &format!("{TASKS}/absent"), 404, "task_not_found", ""),
        get("run that is none", "/v1/namespaces/default/runs/seven", 404, "run_not_found", ""),
        get("ledger of what is not there", &format!("{TASKS}/absent/ledger"), 404, "task_not_found", ""),
        get("unknown parameter", &format!("{TASKS}?stat=active"), 400, "unknown_field", ""),
        get("unknown state", &format!("{TASKS}?state=asleep"), 400, "invalid_field", ""),
        get("page too large", &format!("{TASKS}?limit=1001"), 400, "limit_exceeded", "limit"),
        get("empty page", &format!("{TASKS}?limit=0"), 400, "limit_exceeded", "limit"),
        get(
            "page token that is none",
            &format!("{TASKS}?page_token=AAAAAAAA"),
            400,
            "invalid_page_token",
            "page_token",
        ),
        get("label that is none", &format!("{TASKS}?label=team"), 400, "invalid_field", "label"),
        get("unknown consistency", &format!("{TASKS}?consistency=maybe"), 400, "invalid_field", ""),
        get("unknown error page", "/v1/errors/nope", 404, "not_found", ""),
    ]
}

fn check(case: &Case, answer: &Answer) -> Result<(), String> {
    let content_type = answer.headers.get("content-type").map(String::as_str);
    if answer.status != case.status || content_type != Some("application/problem+json") {
        return Err(format!(
            "{}: {} {content_type:?} {}",
            case.name,
            answer.status,
            String::from_utf8_lossy(&answer.body)
        ));
    }
    let problem = answer.json();
    let expected = json!({
        "code": case.code,
        "status": case.status,
        "type": format!("/v1/errors/{}", case.code),
    });
    for (key, value) in expected.as_object().unwrap() {
        if &problem[key] != value {
            return Err(format!("{}: {key} is not {value} in {problem}", case.name));
        }
    }
    if problem["detail"].as_str().is_none_or(str::is_empty) || problem["retryable"] != json!(false) {
        return Err(format!("{}: {problem}", case.name));
    }
    match case.field {
        Some(field) if problem["field"] != json!(field) => {
            Err(format!("{}: field is not {field} in {problem}", case.name))
        }
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_answered_and_nothing_is_written() {
    let node = common::single_node(|_| {}).await;
    let address = node.api_address();
    let mut wrong = Vec::new();
    for case in definitions().into_iter().chain(requests()) {
        let answer = http::send(address, case.method, &case.path, &case.headers, case.body.as_bytes()).await;
        wrong.extend(check(&case, &answer).err());
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    let list = http::send(address, "GET", TASKS, &[], b"").await.json();
    assert_eq!(list, json!({"items": []}), "something was written");
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_keys_and_names_are_kept_to() {
    let node = common::single_node(|_| {}).await;
    let address = node.api_address();
    let hourly = schedule(json!({"every": "1h"}));
    let daily = schedule(json!({"every": "1d"}));
    let send = |method, path, headers: Vec<(&'static str, &'static str)>, body: String| async move {
        http::send(address, method, path, &headers, body.as_bytes()).await
    };

    let created = send("PUT", TASK, vec![], hourly.clone()).await;
    assert_eq!((created.status, created.headers["etag"].as_str()), (201, "\"1\""));
    let same = send("PUT", TASK, vec![], hourly.clone()).await;
    assert_eq!((same.status, same.json()["change"].as_str()), (200, Some("unchanged")));
    let stale = send("PUT", TASK, vec![("if-match", "\"9\"")], daily.clone()).await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "version_mismatch"));
    let taken = send("PUT", TASK, vec![("if-none-match", "*")], daily.clone()).await;
    assert_eq!((taken.status, taken.code().as_str()), (409, "task_exists"));
    let updated = send("PUT", TASK, vec![("if-match", "\"1\"")], daily.clone()).await;
    assert_eq!((updated.status, updated.json()["version"].as_u64()), (200, Some(2)));

    // What was read can be written back: read-only fields are ignored, and nothing has changed.
    let read = send("GET", TASK, vec![], String::new()).await;
    let back = send("PUT", TASK, vec![], String::from_utf8(read.body).unwrap()).await;
    assert_eq!((back.status, back.json()["change"].as_str()), (200, Some("unchanged")));

    let key = || vec![("idempotency-key", "k1")];
    let first = send("POST", TASKS, key(), hourly.clone()).await;
    let again = send("POST", TASKS, key(), hourly.clone()).await;
    assert_eq!((first.status, again.status, first.json()["id"].clone()), (201, 201, again.json()["id"].clone()));
    let other = send("POST", TASKS, key(), daily.clone()).await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_mismatch"));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_in_the_past_fires_at_once_and_says_so() {
    let node = common::single_node(|_| {}).await;
    let address = node.api_address();
    let past = schedule(json!({"at": "2020-01-01T00:00:00Z"}));
    let created = http::send(address, "PUT", TASK, &[], past.as_bytes()).await;
    assert_eq!(created.status, 201);
    let warning = &created.json()["warnings"][0];
    assert_eq!((&warning["code"], &warning["field"]), (&json!("past_at"), &json!("schedules[0].at")));
    common::within("the task fires", async {
        loop {
            let ledger = http::send(address, "GET", &format!("{TASK}/ledger"), &[], b"").await.json();
            if ledger["tally"]["fired"] == 1 {
                assert_eq!(ledger["items"][0]["scheduled_at"], "2020-01-01T00:00:00.000Z");
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_of_a_batch_refuses_only_itself() {
    let node = common::single_node(|_| {}).await;
    let good = schedule(json!({"every": "1h"}));
    let named = with("name", json!("same"));
    let body = format!("{good}\n{{\"schedules\": 7}}\n\nnonsense\n{named}\n{named}\n");
    let answer = http::send(node.api_address(), "POST", &format!("{TASKS}:batch"), &[], body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let lines: Vec<Value> =
        String::from_utf8(answer.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["line"].as_u64().unwrap(), line["status"].as_u64().unwrap(), line["error"]["code"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, 201, None),
            (2, 400, Some("invalid_field")),
            (4, 400, Some("malformed_json")),
            (5, 201, None),
            (6, 409, Some("task_exists")),
        ]
    );
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_with_retry_after_and_still_reads() {
    let node = common::single_node(|config| config.min_free_disk_bytes = u64::MAX).await;
    let address = node.api_address();
    let refused = common::within("writes are refused", async {
        loop {
            let answer = http::send(address, "PUT", TASK, &[], schedule(json!({"every": "1h"})).as_bytes()).await;
            if answer.status == 503 {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(refused.code(), "disk_full");
    assert_eq!(refused.headers["retry-after"], "30");
    // A batch of which nothing is taken is refused as a whole; a line that is wrong anyway keeps its own answer.
    let good = schedule(json!({"every": "1h"}));
    let batch = format!("{TASKS}:batch");
    let refused = http::send(address, "POST", &batch, &[], format!("{good}\n{good}\n").as_bytes()).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "disk_full"));
    assert_eq!(refused.headers["retry-after"], "30");
    let mixed = http::send(address, "POST", &batch, &[], format!("{good}\nnonsense\n").as_bytes()).await;
    assert_eq!(mixed.status, 200);
    assert_eq!(http::send(address, "GET", TASKS, &[], b"").await.status, 200);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_broken_requests_leave_the_node_serving() {
    let node = common::single_node(|_| {}).await;
    let address = node.api_address();
    let oversized = with("payload", json!("x".repeat(limits::BODY_BYTES)));
    let answer = http::send(address, "PUT", TASK, &[], oversized.as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0", &[0xff; 70_000]] {
        speak(address, garbage).await;
    }
    assert_eq!(http::send(address, "GET", "/livez", &[], b"").await.status, 200);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_peer_port_leaves_the_node_serving() {
    let mut peer = String::new();
    let node = common::single_node(|config| peer = config.replica.peer_listen.clone()).await;
    let peer: SocketAddr = peer.parse().unwrap();
    let http2_then_garbage = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 4096]].concat();
    for garbage in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 1024], &[0xff; 70_000], &http2_then_garbage] {
        speak(peer, garbage).await;
    }
    let answer = http::send(node.api_address(), "PUT", TASK, &[], schedule(json!({"every": "1h"})).as_bytes()).await;
    assert_eq!(answer.status, 201);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_answered_in_time() {
    let node = common::single_node(|_| {}).await;
    let mut stream = TcpStream::connect(node.api_address()).await.unwrap();
    let head = format!("PUT {TASK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let limit = limits::REQUEST_READ.to_std() + std::time::Duration::from_secs(10);
    let answer = tokio::time::timeout(limit, http::receive(&mut stream)).await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_too_many_is_refused_at_once_and_the_others_are_not() {
    let node = common::single_node(|_| {}).await;
    let api = node.api_address();
    let path = "/v1/namespaces/default/tasks:batch";
    let line = r#"{"schedules":[{"every":"1h"}],"target":{"http":{"url":"http://127.0.0.1:9/"}}}"#;
    let post = || http::send(api, "POST", path, &[], line.as_bytes());
    const CONTINUE: &[u8; 25] = b"HTTP/1.1 100 Continue\r\n\r\n";
    // Every place is taken by a batch whose body is still on its way: it is asked for when the batch has its place.
    let mut held = Vec::new();
    for _ in 0..limits::BATCHES {
        let mut stream = TcpStream::connect(api).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            line.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut asked = [0; CONTINUE.len()];
        common::within("a request for the body", stream.read_exact(&mut asked)).await.unwrap();
        assert_eq!(asked, *CONTINUE);
        held.push(stream);
    }
    let refused = post().await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    let single = http::send(api, "POST", "/v1/namespaces/default/tasks", &[], line.as_bytes()).await;
    assert_eq!(single.status, 201, "other writes have places of their own");
    for mut stream in held {
        stream.write_all(line.as_bytes()).await.unwrap();
        assert_eq!(http::receive(&mut stream).await.status, 200);
    }
    assert_eq!(post().await.status, 200);
    node.shutdown().await.unwrap();
}

/// Sends bytes and hears the other side out, whatever it says.
async fn speak(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
}
