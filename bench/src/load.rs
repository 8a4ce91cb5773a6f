//! Load on the API: raw keep-alive connections that send prepared bodies, because the generator shares its processors
//! with the nodes it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::latency::Latencies;

/// The kinds of write that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// One task a request.
    Single,
    /// Many tasks a request, one a line.
    Batch,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Single => "/v1/namespaces/default/tasks",
            Self::Batch => "/v1/namespaces/default/tasks:batch",
        }
    }

    /// Read off the beginning of each line: the load shares its processors with the nodes.
    fn tasks_made(self, answer: &[u8]) -> Made {
        if self == Self::Single {
            return Made { made: 1, refused: 0 };
        }
        let (mut made, mut refused) = (0, 0);
        for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // `{"line":17,"status":201,...`
            let second = line.splitn(3, |byte| *byte == b',').nth(1).unwrap_or_default();
            if second.starts_with(b"\"status\":2") { made += 1 } else { refused += 1 }
        }
        Made { made, refused }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Single => "application/json",
            Self::Batch => "application/x-ndjson",
        })
    }
}

/// One connection to one node.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    endpoint: Endpoint,
}

impl Connection {
    pub async fn open(api: &str, endpoint: Endpoint) -> Result<Self> {
        let address: SocketAddr = api.parse().with_context(|| format!("the address {api}"))?;
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {api}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How it ends, the sender's next call tells.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, host: HeaderValue::from_str(api)?, endpoint })
    }

    pub async fn post(&mut self, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(self.endpoint.path());
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, self.endpoint.content_type());
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Submitted {
    /// Those that were accepted.
    pub requests: u64,
    /// Tasks that were made.
    pub tasks: u64,
    /// Of accepted requests.
    pub latencies: Latencies,
    /// Of requests that were refused: 429 or 503.
    pub refusals: Latencies,
    pub took: Duration,
    /// Bodies of the answers, if they were asked for.
    pub answers: Vec<Bytes>,
}

impl Submitted {
    pub fn per_second(&self) -> f64 {
        self.tasks as f64 / self.took.as_secs_f64()
    }
}

/// Requests over several connections, each of which has one on its way at a time.
#[derive(Clone)]
pub struct Load {
    pub endpoint: Endpoint,
    /// Spread over the nodes in turn.
    pub connections: usize,
    pub requests: u64,
    pub within: Duration,
    pub keep_answers: bool,
    /// A closed loop: every connection sends its next request when it has the answer to the one before. Or a flood.
    pub flood: Option<Flood>,
}

/// More than there is room for: requests start at a rate, whatever becomes of those before, and may be refused.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    pub per_second: f64,
}

impl Load {
    /// A closed loop that nothing is refused to.
    pub fn closed(endpoint: Endpoint, connections: usize, requests: u64, within: Duration) -> Self {
        Self { endpoint, connections, requests, within, keep_answers: false, flood: None }
    }

    /// `body` makes the n-th request's body. Ends when `requests` are sent or time is up, and with an error at any
    /// answer but success, or a refusal of a flood.
    pub async fn run<F>(&self, nodes: &[String], body: F) -> Result<Submitted>
    where
        F: Fn(u64) -> Bytes + Send + Sync + 'static,
    {
        ensure!(!nodes.is_empty() && self.connections > 0, "no node to send to");
        let mut connections = Vec::new();
        for n in 0..self.connections {
            connections.push(Connection::open(&nodes[n % nodes.len()], self.endpoint).await?);
        }
        let shared = Arc::new((AtomicU64::new(0), body));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for connection in connections {
            tasks.spawn(self.clone().drive(connection, shared.clone(), started));
        }
        let mut total = Submitted::default();
        while let Some(part) = tasks.join_next().await {
            let part = part.context("a connection's task")??;
            total.requests += part.requests;
            total.tasks += part.tasks;
            total.latencies.add(&part.latencies);
            total.refusals.add(&part.refusals);
            total.answers.extend(part.answers);
        }
        total.took = started.elapsed();
        ensure!(total.requests > 0, "nothing was accepted");
        Ok(total)
    }

    async fn drive<F>(
        self,
        mut connection: Connection,
        shared: Arc<(AtomicU64, F)>,
        started: Instant,
    ) -> Result<Submitted>
    where
        F: Fn(u64) -> Bytes,
    {
        let mut part = Submitted::default();
        loop {
            let n = shared.0.fetch_add(1, Ordering::Relaxed);
            if n >= self.requests || started.elapsed() >= self.within {
                return Ok(part);
            }
            if let Some(flood) = self.flood {
                let at = Duration::from_secs_f64(n as f64 / flood.per_second);
                if at >= self.within {
                    return Ok(part);
                }
                sleep_until((started + at).into()).await;
            }
            let body = (shared.1)(n);
            let sent = Instant::now();
            let (status, answer) = connection.post(body).await?;
            let took = sent.elapsed();
            let refused = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            if self.flood.is_some() && refused {
                part.refusals.record(took);
                continue;
            }
            if !status.is_success() {
                bail!("a submit was answered {status}: {}", String::from_utf8_lossy(&answer));
            }
            let tasks = self.endpoint.tasks_made(&answer);
            if self.flood.is_none() {
                ensure!(tasks.refused == 0, "{} tasks of a batch were refused", tasks.refused);
            }
            part.tasks += tasks.made;
            part.requests += 1;
            part.latencies.record(took);
            if self.keep_answers {
                part.answers.push(answer);
            }
        }
    }
}

/// What an answer says of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    made: u64,
    refused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_lines_of_a_batch_are_not_tasks() {
        let answer = b"{\"line\":1,\"status\":201,\"task\":{}}\n{\"line\":2,\"status\":503,\"error\":{}}\n";
        assert_eq!(Endpoint::Batch.tasks_made(answer), Made { made: 1, refused: 1 });
        assert_eq!(Endpoint::Single.tasks_made(b"{}"), Made { made: 1, refused: 0 });
    }
}
