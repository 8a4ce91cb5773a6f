//! The real binary against a scripted API: what it asks, in which order, and what it makes of the answers.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Answers each request with the next of its script and remembers them. One connection a request.
struct Api {
    endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

#[derive(Clone, Debug)]
struct Request {
    /// Method, path and query.
    line: String,
    headers: String,
    body: Value,
}

impl Api {
    fn start(script: Vec<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remember = seen.clone();
        let mut script: VecDeque<_> = script.into();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let request = read(&mut socket);
                remember.lock().unwrap().push(request);
                let (status, body) = script.pop_front().unwrap_or((500, json!("the script has ended")));
                let body = body.to_string();
                let length = body.len();
                write!(socket, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                    .unwrap();
            }
        });
        Self { endpoint, seen }
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_campanile"))
            .args(args)
            .env("CAMPANILE_ENDPOINT", &self.endpoint)
            .env_remove("CAMPANILE_NAMESPACE")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.line).collect()
    }
}

fn read(socket: &mut TcpStream) -> Request {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") && reader.read_line(&mut headers).unwrap() > 2 {}
    let headers = headers.to_ascii_lowercase();
    let length = headers.lines().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Request { line, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
}

fn view(name: &str, version: u32) -> Value {
    json!({
        "id": "t65536", "namespace": "default", "name": name, "version": version, "state": "active",
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "decided_until": null,
        "next": {"scheduled_at": "2026-01-01T00:01:00Z", "due_at": "2026-01-01T00:01:00Z"},
        "tally": {"fired": 2, "triggered": 0, "overlap": 1, "buffer_full": 0, "beyond_window": 0, "policy_skip": 0,
            "coalesced": 0, "paused": 0},
        "schedules": [{"cron": "* * * * *", "time_zone": "UTC", "dst": "vixie"}],
        "target": {"http": {"url": "http://127.0.0.1:9000/a", "method": "GET"}},
        "payload": {"kept": true}, "priority": 3,
    })
}

fn written(name: &str, change: &str) -> Value {
    json!({
        "id": "t65536", "namespace": "default", "name": name, "version": 1, "state": "active", "change": change,
        "next": {"scheduled_at": "2026-01-01T00:01:00Z", "due_at": "2026-01-01T00:01:00Z"},
        "warnings": [{"code": "past_at", "message": "fires at once"}],
    })
}

fn problem(status: u16, code: &str) -> (u16, Value) {
    let detail = format!("{code} as scripted");
    let problem = json!({"type": format!("/v1/errors/{code}"), "title": code, "status": status, "code": code,
        "detail": detail, "retryable": false, "field": "schedules[0].cron"});
    (status, problem)
}

#[test]
fn create_posts_a_definition_with_a_key_of_its_own() {
    let api = Api::start(vec![(201, written("a", "created"))]);
    let output = api.run(&["task", "create", "a", "--every", "1m", "--url", "http://127.0.0.1:9000/", "-n", "ops"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "created a (t65536), version 1, active, next at 2026-01-01T00:01:00.000Z\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "warning: past_at: fires at once\n");
    let seen = &api.seen()[0];
    assert_eq!(seen.line, "POST /v1/namespaces/ops/tasks");
    assert!(seen.headers.contains("idempotency-key: cli-"), "{}", seen.headers);
    assert_eq!((&seen.body["name"], &seen.body["schedules"]), (&json!("a"), &json!([{"every": "1m"}])));
}

#[test]
fn update_changes_what_is_named_in_the_version_it_read() {
    let api = Api::start(vec![(200, view("a", 7)), (200, written("a", "updated"))]);
    api.succeeds(&["task", "update", "a", "--priority", "9"]);
    let seen = api.seen();
    assert_eq!(seen[1].line, "PUT /v1/namespaces/default/tasks/a");
    assert!(seen[1].headers.contains("if-match: \"7\""), "{}", seen[1].headers);
    assert_eq!((&seen[1].body["priority"], &seen[1].body["payload"]), (&json!(9), &json!({"kept": true})));
    assert_eq!(seen[1].body.get("version"), None);
}

#[test]
fn all_follows_the_pages_into_one_document() {
    let pages = || {
        vec![
            (200, json!({"items": [view("a", 1)], "next_page_token": "two"})),
            (200, json!({"items": [], "next_page_token": "three"})),
            (200, json!({"items": [view("b", 1)]})),
        ]
    };
    let api = Api::start(pages());
    let all: Value = serde_json::from_str(&api.succeeds(&["task", "list", "--all", "--json"])).unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    assert_eq!(all.get("next_page_token"), None);
    assert_eq!(all["items"][0]["next"]["due_at"], "2026-01-01T00:01:00.000Z");
    assert_eq!(
        api.lines(),
        ["", "?page_token=two", "?page_token=three"].map(|query| format!("GET /v1/namespaces/default/tasks{query}"))
    );

    let api = Api::start(pages());
    let output = api.run(&["task", "list"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("NAME  STATE   SCHEDULE") && table.contains("* * * * * UTC"), "{table}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("--page-token two"));
    assert_eq!(api.lines().len(), 1);
}

#[test]
fn a_refusal_names_code_detail_field_and_hint() {
    let api = Api::start(vec![problem(400, "never_occurs"), problem(404, "task_not_found")]);
    let output = api.run(&["task", "create", "a", "--cron", "30 2 31 2 *", "--url", "http://127.0.0.1:9000/"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for text in ["error: never_occurs: never_occurs as scripted\n", "  field: schedules[0].cron\n", "  hint: "] {
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(api.run(&["task", "get", "a"]).status.code(), Some(1));
}

#[test]
fn an_outcome_the_cluster_does_not_know_exits_with_4() {
    let api = Api::start(vec![problem(503, "outcome_unknown")]);
    assert_eq!(api.run(&["cluster", "add", "4", "127.0.0.1:7804"]).status.code(), Some(4));
    assert_eq!(api.seen()[0].body, json!({"id": 4, "peer": "127.0.0.1:7804"}));
}

#[test]
fn an_import_creates_updates_and_leaves_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("crontab");
    let crontab = "# name: new\n@daily http://127.0.0.1:9000/new\n\
                   # name: same\n* * * * * GET http://127.0.0.1:9000/a\n\
                   # name: moved\n0 * * * * GET http://127.0.0.1:9000/a\n\
                   # name: bad\n0 0 * * * http://127.0.0.1:9000/bad\n";
    std::fs::write(&file, crontab).unwrap();
    let api = Api::start(vec![
        problem(404, "task_not_found"),
        (201, written("new", "created")),
        (200, view("same", 1)),
        (200, view("moved", 5)),
        (200, written("moved", "updated")),
        problem(404, "task_not_found"),
        problem(429, "quota_exceeded"),
    ]);
    let output = api.run(&["import", "crontab", file.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results: Vec<_> = lines.as_array().unwrap().iter().map(|line| (&line["line"], &line["result"])).collect();
    assert_eq!(json!(results), json!([[2, "created"], [4, "unchanged"], [6, "updated"], [8, "failed"]]));
    assert_eq!(lines[3]["error"]["code"], "quota_exceeded");

    let seen = api.seen();
    assert_eq!(seen.len(), 7);
    assert!(seen[1].headers.contains("if-none-match: *"));
    assert!(seen[4].headers.contains("if-match: \"5\""));
    // What a crontab cannot say is kept.
    assert_eq!((&seen[4].body["payload"], &seen[4].body["priority"]), (&json!({"kept": true}), &json!(3)));
    assert_eq!(seen[4].body["schedules"][0]["cron"], "0 * * * *");
}

#[test]
fn tasks_and_the_cluster_are_shown_to_people() {
    let cluster = json!({
        "cluster_id": "c1", "node": 1, "leader": 2, "term": 7, "applied": 1234, "tzdb": "2026a", "version": "0.1.0",
        "tasks": 5, "live_runs": 1, "nodes": [
            {"id": 1, "role": "follower", "api": "a:1", "peer": "p:1", "lag": 0, "clock_skew_ms": 0.42, "up": true, "shards": 128},
            {"id": 2, "role": "leader", "api": "a:2", "peer": "p:2", "lag": null, "clock_skew_ms": null, "up": false, "shards": 128}]
    });
    let ledger = json!({
        "task_id": "t65536", "decided_until": "2026-01-01T00:00:00Z", "tally": view("a", 1)["tally"],
        "folded": view("a", 1)["tally"], "items": [{"kind": "skipped", "reason": "overlap", "origin": "schedule",
            "scheduled_at": "2026-01-01T00:00:00Z", "last": "2026-01-01T00:05:00Z", "count": 6}]
    });
    let api = Api::start(vec![(200, view("a", 1)), (200, cluster), (200, ledger)]);
    let task = api.succeeds(&["task", "get", "a"]);
    for text in ["* * * * * UTC", "2 fired, 1 skipped by overlap", "GET http://127.0.0.1:9000/a", r#"{"kept":true}"#] {
        assert!(task.contains(text), "{task}");
    }
    let cluster = api.succeeds(&["cluster", "status"]);
    for text in ["node 2", "1     follower  up     a:1  p:1   0    0.4 ms  128", "2     leader    down"] {
        assert!(cluster.contains(text), "{cluster}");
    }
    let ledger = api.succeeds(&["task", "ledger", "a"]);
    for text in ["skipped", "overlap", "2026-01-01T00:05:00.000Z", "of these, in no line any more: 2 fired"] {
        assert!(ledger.contains(text), "{ledger}");
    }
}
