//! Serves the router over our own accept loop, so that the simulator can serve it too. Connections are bounded, heads
//! must arrive in time, and draining lets the requests in flight finish.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use campanile_model::limits;
use campanile_raft::rt;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use crate::drain::Drain;
use crate::metrics::Metrics;

/// API connections of one node; further ones wait in the listener's backlog.
const CONNECTIONS: usize = 8192;
/// How long requests in flight may take once the node drains.
const DRAIN: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of file descriptors, usually).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until `drain` turns true, then ends when the connections have.
pub async fn serve(listener: rt::Listener, router: Router, metrics: Arc<Metrics>, mut drain: Drain) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            biased;
            () = drain.asked() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting an API connection failed");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (router, metrics, drain) = (router.clone(), metrics.clone(), drain.clone());
        rt::spawn(async move {
            metrics.connections.inc();
            connection(stream, router, drain).await;
            metrics.connections.dec();
            drop(place);
        });
    }
    // All places free again: every connection has ended.
    let _ = rt::timeout(DRAIN, places.acquire_many(CONNECTIONS as u32)).await;
}

async fn connection(stream: rt::Stream, router: Router, mut drain: Drain) {
    let mut builder = auto::Builder::new(rt::Executor);
    builder.http1().timer(rt::Timer).header_read_timeout(limits::REQUEST_READ.to_std());
    builder.http2().timer(rt::Timer).max_concurrent_streams(256).keep_alive_interval(Duration::from_secs(30));
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = drain.asked() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients break off, or send what is not HTTP; neither is this node's trouble.
        tracing::debug!(%error, "an API connection ended badly");
    }
}
