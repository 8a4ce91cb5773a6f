//! Small HTTP requests over loopback, client and server on one thread: what one core can carry of submits, or of
//! webhooks, if nothing else had to be done for them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::load::{Connection, Endpoint};
use crate::report::Row;

pub const NAME: &str = "http_echo";
const CONNECTIONS: usize = 64;
/// As large as the benchmark's task.
const BODY: [u8; 200] = [b'x'; 200];

pub async fn measure(within: Duration) -> Result<Row> {
    let per_second = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(exchange(within))
    });
    let detail = format!("{CONNECTIONS} connections, client and server on one thread, no cluster");
    Ok(Row::new(NAME, per_second.await??, "requests/s").detail(detail))
}

async fn exchange(within: Duration) -> Result<f64> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo));
            // It ends when the client has closed it.
            tokio::spawn(async move { drop(served.await) });
        }
    });
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(&address, Endpoint::Single).await?);
    }
    let started = Instant::now();
    let mut clients: JoinSet<Result<u64>> = JoinSet::new();
    for mut connection in connections {
        clients.spawn(async move {
            let mut answered = 0;
            while started.elapsed() < within {
                connection.post(Bytes::from_static(&BODY)).await?;
                answered += 1;
            }
            Ok(answered)
        });
    }
    let mut total = 0;
    while let Some(answered) = clients.join_next().await {
        total += answered??;
    }
    Ok(total as f64 / started.elapsed().as_secs_f64())
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // What is cut off is not answered: its connection is gone.
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}
