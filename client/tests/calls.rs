//! The client against scripted nodes: which endpoint is asked, what is repeated, and what an error says.

mod node;

use std::time::Duration;

use campanile_client::model::{RunId, TaskSpec};
use campanile_client::{Client, ClientBuilder, Condition, DeleteTask, ErrorKind, NamedTask, TaskQuery};
use node::{Answer, Node, problem};
use tokio::time::Instant;

fn client(nodes: &[&Node]) -> ClientBuilder {
    Client::builder(nodes.iter().map(|node| node.endpoint()))
        .back_off(Duration::from_millis(1), Duration::from_millis(5))
        .retries(2)
}

fn spec() -> TaskSpec {
    serde_json::from_str(r#"{"schedules":[{"every":"1m"}],"target":{"http":{"url":"http://127.0.0.1:9/"}}}"#).unwrap()
}

const WRITTEN: &str = r#"{"id":"t65536","namespace":"default","name":"a","version":1,"state":"active",
    "change":"created","next":null}"#;

fn written() -> Answer {
    Answer::new(200, WRITTEN)
}

#[tokio::test]
async fn a_put_is_sent_as_the_api_reads_it() {
    let node = Node::start(vec![written()]).await;
    let client = client(&[&node]).namespace("ops").build().unwrap();
    let answer = client.put_task("eu/nightly", &spec(), Condition::Version(3)).await.unwrap();
    assert_eq!((answer.name.as_str(), answer.version), ("a", 1));
    let seen = node.seen();
    assert_eq!(seen[0].line, "PUT /v1/namespaces/ops/tasks/eu%2Fnightly");
    assert_eq!(seen[0].header("if-match"), Some("\"3\""));
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(serde_json::from_str::<TaskSpec>(&seen[0].body).unwrap(), spec());
}

#[tokio::test]
async fn connections_are_kept() {
    let node = Node::start(vec![written(), written(), written()]).await;
    let client = client(&[&node]).build().unwrap();
    for _ in 0..3 {
        client.pause_task("a", None).await.unwrap();
    }
    assert_eq!(node.connections(), 1);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_even_by_writes_that_must_not_repeat() {
    let dead = Node::dead().await;
    let alive = Node::start(vec![written(), written()]).await;
    let client = client(&[&dead, &alive]).build().unwrap();
    let task = NamedTask { name: None, spec: spec() };
    client.create_task(&task, None).await.unwrap();
    client.create_task(&task, None).await.unwrap();
    assert_eq!(alive.seen().len(), 2);
}

#[tokio::test]
async fn a_node_that_proves_it_did_nothing_is_passed_over() {
    let leaderless = Node::start(vec![problem(503, "no_leader")]).await;
    let triggered = Answer::new(202, r#"{"run":"r65536","occurrence_id":"t65536-0-m1"}"#);
    let leader = Node::start(vec![triggered, written()]).await;
    let client = client(&[&leaderless, &leader]).build().unwrap();
    client.trigger_task("a", None).await.unwrap();
    assert_eq!((leaderless.seen().len(), leader.seen().len()), (1, 1));
    // The one that answered is asked first from now on.
    client.pause_task("a", None).await.unwrap();
    assert_eq!((leaderless.seen().len(), leader.seen().len()), (1, 2));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_only_when_that_is_safe() {
    for idempotent in [false, true] {
        let node = Node::start(vec![Answer::Cut, written()]).await;
        let client = client(&[&node]).build().unwrap();
        let task = NamedTask { name: None, spec: spec() };
        let result = client.create_task(&task, idempotent.then_some("key-1")).await;
        match idempotent {
            true => {
                result.unwrap();
                let seen = node.seen();
                assert_eq!(seen.len(), 2);
                assert!(seen.iter().all(|request| request.header("idempotency-key") == Some("key-1")));
            }
            false => {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::OutcomeUnknown);
                assert_eq!(node.seen().len(), 1);
            }
        }
    }
}

#[tokio::test]
async fn conditional_writes_and_cancels_are_not_repeated() {
    let node = Node::start(vec![Answer::Cut, Answer::Cut, Answer::Cut, Answer::Cut]).await;
    let client = client(&[&node]).build().unwrap();
    let errors = [
        client.put_task("a", &spec(), Condition::Absent).await.unwrap_err(),
        client.put_task("a", &spec(), Condition::Version(1)).await.unwrap_err(),
        client.delete_task("a", DeleteTask { version: Some(1), ..DeleteTask::default() }).await.unwrap_err(),
        client.cancel_run(RunId(65536)).await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::OutcomeUnknown), "{errors:?}");
    assert_eq!(node.seen().len(), 4);
}

#[tokio::test]
async fn an_outcome_unknown_to_the_cluster_is_unknown_to_the_caller() {
    let node = Node::start(vec![problem(503, "outcome_unknown")]).await;
    let client = client(&[&node]).build().unwrap();
    let error = client.trigger_task("a", None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::OutcomeUnknown, Some("outcome_unknown")));
    assert_eq!(node.seen().len(), 1);

    let node = Node::start(vec![problem(503, "outcome_unknown"), written()]).await;
    let client = self::client(&[&node]).build().unwrap();
    client.put_task("a", &spec(), Condition::None).await.unwrap();
    assert_eq!(node.seen().len(), 2);
}

#[tokio::test]
async fn a_refusal_comes_back_whole_and_at_once() {
    let node = Node::start(vec![Answer::new(
        412,
        r#"{"type":"/v1/errors/version_mismatch","title":"Version mismatch","status":412,"code":"version_mismatch",
            "detail":"the task is at version 4","retryable":false,"field":"If-Match","current":4}"#,
    )])
    .await;
    let client = client(&[&node]).build().unwrap();
    let error = client.put_task("a", &spec(), Condition::Version(3)).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((error.kind(), problem.status), (ErrorKind::Refused, 412));
    assert_eq!(problem.field.as_deref(), Some("If-Match"));
    assert_eq!(problem.extra["current"], 4);
    assert_eq!(error.to_string(), "version_mismatch: the task is at version 4");
    assert!(!error.is_retryable());
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn retries_are_bounded() {
    let node = Node::start((0..9).map(|_| problem(503, "no_leader")).collect()).await;
    let client = client(&[&node]).build().unwrap();
    let error = client.get_task("a").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, Some("no_leader")));
    assert_eq!(node.seen().len(), 3);
}

#[tokio::test]
async fn a_pause_longer_than_the_deadline_is_not_begun() {
    let node = Node::start(vec![problem(429, "overloaded").retry_after(60), written()]).await;
    let client = client(&[&node]).back_off(Duration::from_millis(1), Duration::from_secs(120)).build().unwrap();
    let begun = Instant::now();
    let error = client.pause_task("a", None).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), (Some("overloaded"), true));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_silent_node_costs_one_attempt_and_the_next_is_asked() {
    let silent = Node::start(vec![Answer::Never]).await;
    let alive = Node::start(vec![Answer::new(200, r#"{"items":[]}"#)]).await;
    let client = client(&[&silent, &alive]).attempt_timeout(Duration::from_millis(50)).build().unwrap();
    let page = client.list_tasks(&TaskQuery { prefix: Some("a b".into()), ..TaskQuery::default() }).await.unwrap();
    assert!(page.items.is_empty() && page.next_page_token.is_none());
    assert_eq!(alive.seen()[0].line, "GET /v1/namespaces/default/tasks?prefix=a%20b");
}

#[tokio::test]
async fn the_deadline_ends_a_call() {
    let silent = Node::start(vec![Answer::Never, Answer::Never]).await;
    let build = || client(&[&silent]).deadline(Duration::from_millis(50)).build().unwrap();
    let read = build().get_task("a").await.unwrap_err();
    assert_eq!(read.kind(), ErrorKind::Unreachable);
    let write = build().put_task("a", &spec(), Condition::None).await.unwrap_err();
    assert_eq!(write.kind(), ErrorKind::OutcomeUnknown);
}

#[tokio::test]
async fn another_program_on_the_port_is_named() {
    let other = Node::start(vec![Answer::new(404, "<html>not here</html>"), Answer::new(200, "hello")]).await;
    let client = client(&[&other]).build().unwrap();
    for _ in 0..2 {
        assert_eq!(client.get_task("a").await.unwrap_err().kind(), ErrorKind::InvalidAnswer);
    }
}

#[tokio::test]
async fn a_batch_goes_and_comes_as_lines() {
    let line = format!(r#"{{"line":1,"status":201,"task":{}}}"#, WRITTEN.replace('\n', " "));
    let refused = r#"{"line":2,"status":422,"error":{"type":"t","title":"t","status":422,"code":"invalid_field","detail":"d","retryable":false}}"#;
    let node = Node::start(vec![Answer::new(200, &format!("{line}\n{refused}\n"))]).await;
    let client = client(&[&node]).build().unwrap();
    let tasks = [NamedTask { name: Some("a".into()), spec: spec() }, NamedTask { name: None, spec: spec() }];
    let lines = client.create_batch(&tasks).await.unwrap();
    assert_eq!(lines.len(), 2);
    let seen = node.seen();
    assert_eq!(seen[0].line, "POST /v1/namespaces/default/tasks:batch");
    let sent: Vec<&str> = seen[0].body.lines().collect();
    assert!(sent.len() == 2 && sent[0].contains(r#""name":"a""#) && !sent[1].contains("name"), "{sent:?}");
}
