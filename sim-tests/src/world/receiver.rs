//! The receiver's machine: listens at one address, and knows a sender by its own.

use std::net::SocketAddr;

use campanile_model::NodeId;
use campanile_raft::rt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;

use crate::drive::receiver::Receiver;

/// Where it listens.
pub const ADDRESS: &str = "10.0.9.1:9000";

/// Serves for ever.
pub async fn serve(receiver: Receiver) {
    let listener = rt::Listener::bind(ADDRESS).await.expect("the receiver's address is free");
    loop {
        let Ok((stream, SocketAddr::V4(from))) = listener.accept().await else { continue };
        if !receiver.is_there() {
            continue;
        }
        let from = NodeId(u64::from(from.ip().octets()[3]));
        let receiver = receiver.clone();
        rt::spawn(async move {
            let service = service_fn(move |request| {
                let receiver = receiver.clone();
                async move { receiver.answer(request, from).await }
            });
            let builder = auto::Builder::new(rt::Executor);
            // A connection that breaks is the sender's trouble; what arrived and was answered is recorded by then.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
