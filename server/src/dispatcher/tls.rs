//! Connections to receivers: plain, or TLS with the web's root certificates. The simulated build has no TLS in it; an
//! `https` target fails there with that reason.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use campanile_raft::rt;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A receiver that does not take the connection for so long is unreachable.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Opens connections for the pooled client.
#[derive(Clone)]
pub struct Connector {
    #[cfg(not(madsim))]
    tls: std::sync::Arc<tokio_rustls::rustls::ClientConfig>,
}

/// A byte stream of either kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub struct Wire(Box<dyn Io>);

impl Connector {
    #[cfg(not(madsim))]
    pub fn new() -> Self {
        use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            // The provider is compiled in and has both versions.
            .expect("ring supports TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: std::sync::Arc::new(config) }
    }

    #[cfg(madsim)]
    pub fn new() -> Self {
        Self {}
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Wire>> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri}: {why}"));
        let host = uri.host().ok_or_else(|| invalid("has no host"))?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = rt::connect(&format!("{host}:{port}"), CONNECT_WITHIN).await?;
        if !secure {
            return Ok(TokioIo::new(Wire(Box::new(stream))));
        }
        #[cfg(madsim)]
        return Err(invalid("TLS is not part of the simulated build"));
        #[cfg(not(madsim))]
        {
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = tokio_rustls::rustls::pki_types::ServerName::try_from(name)
                .map_err(|_| invalid("is not a name a certificate can have"))?;
            let connector = tokio_rustls::TlsConnector::from(self.tls);
            match rt::timeout(CONNECT_WITHIN, connector.connect(name, stream)).await {
                Some(stream) => Ok(TokioIo::new(Wire(Box::new(stream?)))),
                None => Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")),
            }
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
