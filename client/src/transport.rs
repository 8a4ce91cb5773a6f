//! Sockets under hyper: a connector, the stream it makes and the executor its connections run on. They are our own
//! because hyper-util's do not run in the simulator.
//!
//! This module must never know what travels over a connection, and never retries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(crate) type HttpClient = Client<Connector, Full<Bytes>>;

/// A pooled HTTP/1.1 client. Idle connections are dropped before a node would drop them (30 s), because a request that
/// meets a connection just closed by the other side has an unknown outcome.
pub(crate) fn http_client(connect_timeout: Duration, connections_per_endpoint: usize) -> HttpClient {
    const IDLE: Duration = Duration::from_secs(20);
    Builder::new(Spawn)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(connections_per_endpoint)
        .build(Connector { connect_timeout })
}

/// Runs hyper's connection tasks.
#[derive(Clone, Copy, Debug)]
struct Spawn;

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Opens connections, each within the connect timeout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connector {
    connect_timeout: Duration,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.connect_timeout;
        Box::pin(async move {
            let authority = uri.authority().ok_or_else(|| io::Error::other("the endpoint names no host"))?;
            // An IPv6 address stands in brackets, which is what the resolver expects of `host:port`.
            let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
            let connected = tokio::time::timeout(limit, TcpStream::connect(address)).await;
            let socket =
                connected.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"))??;
            // Small requests must not wait for the acknowledgement of the one before.
            socket.set_nodelay(true)?;
            Ok(TokioIo::new(Stream { socket, unflushed: false }))
        })
    }
}

/// A socket that passes a flush on only when something was written: the simulator sends a message for every flush.
pub(crate) struct Stream {
    socket: TcpStream,
    unflushed: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        if flushed.is_ready() {
            self.unflushed = false;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
