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

/// What a closed loop of requests took.
#[derive(Debug, Default)]
pub struct Submitted {
    pub requests: u64,
    pub latencies: Latencies,
    pub took: Duration,
    /// Bodies of the answers, if they were asked for.
    pub answers: Vec<Bytes>,
}

impl Submitted {
    pub fn per_second(&self, tasks_per_request: usize) -> f64 {
        self.requests as f64 * tasks_per_request as f64 / self.took.as_secs_f64()
    }
}

/// A closed loop: every connection sends its next request when it has the answer to the one before, until `requests`
/// are sent in all or time is up.
#[derive(Clone)]
pub struct ClosedLoop {
    pub endpoint: Endpoint,
    /// Spread over the nodes in turn.
    pub connections: usize,
    pub requests: u64,
    pub within: Duration,
    pub keep_answers: bool,
}

impl ClosedLoop {
    /// `body` makes the n-th request's body. Any answer but success ends it with an error.
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
            tasks.spawn(self.clone().drive(connection, shared.clone(), started + self.within));
        }
        let mut total = Submitted::default();
        while let Some(part) = tasks.join_next().await {
            let part = part.context("a connection's task")??;
            total.requests += part.requests;
            total.latencies.add(&part.latencies);
            total.answers.extend(part.answers);
        }
        total.took = started.elapsed();
        ensure!(total.requests > 0, "nothing was sent");
        Ok(total)
    }

    async fn drive<F>(
        self,
        mut connection: Connection,
        shared: Arc<(AtomicU64, F)>,
        deadline: Instant,
    ) -> Result<Submitted>
    where
        F: Fn(u64) -> Bytes,
    {
        let mut part = Submitted::default();
        loop {
            let n = shared.0.fetch_add(1, Ordering::Relaxed);
            if n >= self.requests || Instant::now() >= deadline {
                return Ok(part);
            }
            let body = (shared.1)(n);
            let sent = Instant::now();
            let (status, answer) = connection.post(body).await?;
            part.latencies.record_us(i64::try_from(sent.elapsed().as_micros()).unwrap_or(i64::MAX));
            if !status.is_success() {
                bail!("a submit was answered {status}: {}", String::from_utf8_lossy(&answer));
            }
            part.requests += 1;
            if self.keep_answers {
                part.answers.push(answer);
            }
        }
    }
}
