//! The receiver's socket. What it does with a request is shared with the simulator.

use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::senders::Senders;
use crate::drive::receiver::Receiver;

/// Serves for ever.
pub async fn serve(listener: TcpListener, receiver: Receiver, senders: Senders) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if receiver.is_there() => {
                tokio::spawn(attend(stream, receiver.clone(), senders.clone()));
            }
            Ok(_) => {}
            // Out of file descriptors, or a connection reset before it was taken: the next may fare better.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn attend(stream: TcpStream, receiver: Receiver, senders: Senders) {
    let Ok(from) = stream.set_nodelay(true).and_then(|()| stream.peer_addr()) else { return };
    let Ok(to) = stream.local_addr() else { return };
    let node = senders.node(from, to);
    let service = service_fn(|request| receiver.answer(request, node));
    // A node that was killed breaks its connections; what it sent before has been recorded.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
