//! Many tasks in one request: NDJSON in, one answer a line out, in order. Each line stands for itself; a bad one
//! refuses nobody else.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use campanile_model::api::{BatchLine, Change, TaskWritten};
use campanile_model::{Code, Command, PutMode, PutTask, Rejection, Reply, TaskName, Timestamp, limits};
use campanile_raft::Lane;
use futures::future::join_all;
use http::header::{CONTENT_TYPE, HeaderValue};

use super::admission;
use super::extract::{Segments, body};
use super::problem::{self, ApiError};
use super::tasks::{expect_task, written};
use super::{Api, ApiResult, definition};

/// Tasks of one proposal, and about how many bytes of definitions.
const CHUNK: usize = 500;
const CHUNK_BYTES: usize = 1 << 20;
/// About how long the answer to a line is.
const ANSWER_BYTES: usize = 256;
const NDJSON: &str = "application/x-ndjson";

/// A line on its way.
struct Line {
    number: usize,
    bytes: usize,
    task: TaskName,
    warnings: Vec<campanile_model::api::Warning>,
    command: Result<Command, Rejection>,
}

/// Creates tasks, one per line; lines with a name that is taken are refused.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/tasks:batch", tag = "tasks",
    request_body(content = String, content_type = "application/x-ndjson", description = "One definition a line, with an optional name"),
    params(("ns", description = "Namespace")),
    responses((status = 200, body = BatchLine, content_type = "application/x-ndjson", description = "One answer a line, in order")))]
pub async fn post(State(api): State<Api>, Segments(ns): Segments<String>, request: Body) -> ApiResult<Response> {
    let Some(_place) = api.batches.admit(&request) else { return Err(admission::refuse(request).await) };
    let bytes = body(request, limits::BATCH_BODY_BYTES).await?;
    api.namespace(&ns)?;
    let now = api.clock.now();
    let lines = api.batches.compute(move || read(&bytes, &ns, now)).await??;
    // Committed side by side: they share entries and fsyncs.
    let chunks = chunks(lines).into_iter().map(|chunk| commit(&api, chunk));
    let answers: Vec<(usize, Result<TaskWritten, Rejection>)> = join_all(chunks).await.into_iter().flatten().collect();
    if let Some(refusal) = common_refusal(&answers) {
        return Err(ApiError(refusal.clone()));
    }
    let text = api.batches.compute(move || write(answers)).await?;
    let mut response = text.map_err(unwritten)?.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

fn write(answers: Vec<(usize, Result<TaskWritten, Rejection>)>) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(answers.len() * ANSWER_BYTES);
    for (line, answer) in answers {
        serde_json::to_writer(&mut text, &answered(line, answer))?;
        text.push(b'\n');
    }
    Ok(text)
}

fn unwritten(error: serde_json::Error) -> ApiError {
    ApiError::new(Code::Internal, format!("an answer cannot be written: {error}"))
}

/// Why the cluster took none of the lines, if that is the same for all: then it is the answer to the request, so that
/// a client that looks at the status alone waits before it sends the batch again.
fn common_refusal(answers: &[(usize, Result<TaskWritten, Rejection>)]) -> Option<&Rejection> {
    let (_, first) = answers.first()?;
    let first = first.as_ref().err().filter(|refusal| problem::status(refusal.code).is_server_error())?;
    let same = |answer: &Result<TaskWritten, Rejection>| answer.as_ref().is_err_and(|other| other.code == first.code);
    answers.iter().all(|(_, answer)| same(answer)).then_some(first)
}

fn answered(line: usize, answer: Result<TaskWritten, Rejection>) -> BatchLine {
    match answer {
        Ok(task) => {
            let status = if task.change == Change::Created { 201 } else { 200 };
            BatchLine::Written { line, status, task }
        }
        Err(rejection) => {
            let error = ApiError(rejection);
            BatchLine::Refused { line, status: error.status().as_u16(), error: error.problem() }
        }
    }
}

/// Cuts lines into proposals. One line is always one, however large.
fn chunks(lines: Vec<Line>) -> Vec<Vec<Line>> {
    let mut chunks: Vec<Vec<Line>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        bytes += line.bytes;
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK && bytes <= CHUNK_BYTES => chunk.push(line),
            _ => {
                bytes = line.bytes;
                chunks.push(vec![line]);
            }
        }
    }
    chunks
}

fn read(bytes: &Bytes, ns: &str, now: Timestamp) -> ApiResult<Vec<Line>> {
    let mut lines = Vec::new();
    for (position, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        if lines.len() == limits::BATCH_TASKS {
            let message = format!("the batch has more than {} tasks", limits::BATCH_TASKS);
            return Err(ApiError::new(Code::LimitExceeded, message));
        }
        lines.push(read_line(position + 1, text, ns, now));
    }
    if lines.is_empty() {
        return Err(ApiError::new(Code::MalformedJson, "the batch has no line"));
    }
    Ok(lines)
}

fn read_line(number: usize, text: &[u8], ns: &str, now: Timestamp) -> Line {
    let mut task = TaskName { namespace: ns.to_owned(), name: String::new() };
    let definition = if text.len() > limits::BATCH_LINE_BYTES {
        let message = format!("the line has {} bytes, the limit is {}", text.len(), limits::BATCH_LINE_BYTES);
        Err(Rejection::new(Code::LimitExceeded, message))
    } else {
        definition::read(text, now).and_then(|definition| {
            definition.name.as_deref().map_or(Ok(()), definition::check_name)?;
            Ok(definition)
        })
    };
    match definition {
        Err(rejection) => Line { number, bytes: text.len(), task, warnings: Vec::new(), command: Err(rejection) },
        Ok(definition) => {
            task.name = definition.name.unwrap_or_default();
            let put = PutTask {
                task: task.clone(),
                spec: definition.spec,
                mode: PutMode::Create,
                idempotency: None,
                prepared: None,
            };
            let command = Ok(Command::PutTask(Box::new(put)));
            Line { number, bytes: text.len(), task, warnings: definition.warnings, command }
        }
    }
}

/// What became of each line, under its number.
async fn commit(api: &Api, lines: Vec<Line>) -> Vec<(usize, Result<TaskWritten, Rejection>)> {
    let mut commands = Vec::with_capacity(lines.len());
    let mut rest = Vec::with_capacity(lines.len());
    for line in lines {
        let refused = line.command.map(|command| commands.push(command)).err();
        rest.push((line.number, line.task, line.warnings, refused));
    }
    let replies = if commands.is_empty() { Ok(Vec::new()) } else { api.propose_all(Lane::Api, commands).await };
    // What went wrong with all of them went wrong with each.
    let (mut replies, failed) = match replies {
        Ok(replies) => (replies.into_iter(), None),
        Err(error) => (Vec::new().into_iter(), Some(error.0)),
    };
    rest.into_iter()
        .map(|(line, task, warnings, refused)| {
            let reply = match (refused, &failed) {
                (Some(rejection), _) => Err(rejection),
                (None, Some(rejection)) => Err(rejection.clone()),
                (None, None) => replies
                    .next()
                    .ok_or_else(|| Rejection::new(Code::Internal, "the log answered fewer lines than it was given"))
                    .and_then(|reply: Reply| expect_task(reply)),
            };
            let task = reply.map(|reply| TaskWritten { warnings, ..written(&task, reply) });
            (line, task)
        })
        .collect()
}
