//! Redis with an append-only file that is synced for every write: one process, no replica. 64 connections write 256
//! bytes under keys of their own, as `submit_single_64` does with tasks.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::latency::Latencies;
use crate::report::Row;

const NAME: &str = "redis_set_fsync_always";
const CONNECTIONS: usize = 64;
const VALUE: [u8; 256] = [b'x'; 256];
const START: Duration = Duration::from_secs(10);

/// Ends with the value.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None` if it is not installed.
pub async fn measure(scratch: &Path, within: Duration) -> Result<Option<Row>> {
    let directory = tempfile::Builder::new().prefix("campanile-").tempdir_in(scratch)?;
    let Some(server) = start(directory.path())? else { return Ok(None) };
    wait_ready(server.address).await?;
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CONNECTIONS {
        let stream = TcpStream::connect(server.address).await?;
        clients.spawn(write(stream, client, started, within));
    }
    let mut latencies = Latencies::default();
    while let Some(part) = clients.join_next().await {
        latencies.add(&part??);
    }
    let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
    let detail = format!("one process, appendfsync always, 256 B, {CONNECTIONS} connections");
    Ok(Some(Row::new(NAME, per_second, "writes/s").latencies(&latencies).detail(detail)))
}

fn start(directory: &Path) -> Result<Option<Server>> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new("redis-server");
    command.args(["--port", &free.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(directory);
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => Ok(Some(Server { child, address: free })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("starting redis-server"),
    }
}

async fn wait_ready(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START;
    while TcpStream::connect(address).await.is_err() {
        ensure!(Instant::now() < deadline, "redis-server does not answer at {address}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// One request at a time, in Redis' own protocol (RESP2).
async fn write(mut stream: TcpStream, client: usize, started: Instant, within: Duration) -> Result<Latencies> {
    const OK: &[u8; 5] = b"+OK\r\n";
    stream.set_nodelay(true)?;
    let mut latencies = Latencies::default();
    let mut answer = *OK;
    let mut number = 0;
    while started.elapsed() < within {
        let key = format!("task:{client}:{number}");
        let mut request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), VALUE.len()).into_bytes();
        request.extend_from_slice(&VALUE);
        request.extend_from_slice(b"\r\n");
        let sent = Instant::now();
        stream.write_all(&request).await?;
        stream.read_exact(&mut answer).await?;
        if &answer != OK {
            bail!("redis refused a write: {}", String::from_utf8_lossy(&answer));
        }
        latencies.record(sent.elapsed());
        number += 1;
    }
    Ok(latencies)
}
