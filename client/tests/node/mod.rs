//! A scripted node: answers each request with the next line of its script and remembers what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[derive(Clone, Debug)]
pub enum Answer {
    Reply {
        status: u16,
        body: String,
        retry_after_secs: Option<u64>,
    },
    /// The connection breaks after the request was read.
    Cut,
    /// The request is read and nothing comes back.
    Never,
}

impl Answer {
    pub fn new(status: u16, body: &str) -> Self {
        Self::Reply { status, body: body.into(), retry_after_secs: None }
    }

    pub fn retry_after(self, secs: u64) -> Self {
        match self {
            Self::Reply { status, body, .. } => Self::Reply { status, body, retry_after_secs: Some(secs) },
            other => other,
        }
    }
}

pub fn problem(status: u16, code: &str) -> Answer {
    let body = serde_json::json!({
        "type": format!("/v1/errors/{code}"), "title": code, "status": status, "code": code, "detail": "as scripted",
        "retryable": status != 412,
    });
    Answer::new(status, &body.to_string())
}

#[derive(Clone, Debug)]
pub struct Seen {
    /// Method, path and query.
    pub line: String,
    pub body: String,
    headers: http::HeaderMap,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

pub struct Node {
    endpoint: String,
    shared: Arc<Shared>,
}

impl Node {
    pub async fn start(script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { script: Mutex::new(script.into()), ..Shared::default() });
        let node = Self { endpoint, shared: shared.clone() };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(shared.clone(), request));
                    // A cut connection ends in an error here, which is what the script wants.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        node
    }

    /// An endpoint that refuses connections.
    pub async fn dead() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { endpoint: format!("http://{}", listener.local_addr().unwrap()), shared: Arc::default() }
    }

    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| "the request broke off")?.to_bytes();
    shared.seen.lock().unwrap().push(Seen {
        line: format!("{} {}", head.method, head.uri),
        body: String::from_utf8_lossy(&body).into_owned(),
        headers: head.headers,
    });
    let next = shared.script.lock().unwrap().pop_front();
    match next.unwrap_or_else(|| Answer::new(500, "the script has ended")) {
        Answer::Cut => Err("cut by the script"),
        Answer::Never => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
        Answer::Reply { status, body, retry_after_secs } => {
            let mut response = Response::builder().status(status);
            if let Some(secs) = retry_after_secs {
                response = response.header("retry-after", secs);
            }
            response.body(Full::new(body.into())).map_err(|_| "the script's answer is not HTTP")
        }
    }
}
