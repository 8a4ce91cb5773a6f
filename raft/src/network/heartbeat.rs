//! The heartbeats of a leader to one follower share a call that stays open: a call for each would be most of what an
//! idle cluster does.
//!
//! A heartbeat that is given up on takes the call with it, so that an answer that comes late is never taken for the
//! answer to the next one.

use std::io;

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;

use super::channel::{CallError, Channel};
use super::stream::{self as frames, AppendRequest, AppendResult, FrameReader};
use super::wire;

/// Heartbeats to one follower.
pub struct Heartbeats {
    channel: Channel,
    open: Option<OpenCall>,
}

struct OpenCall {
    requests: mpsc::Sender<Bytes>,
    answers: FrameReader,
}

impl Heartbeats {
    pub fn new(channel: Channel) -> Self {
        Self { channel, open: None }
    }

    /// Sends one and waits for its answer. Whoever waits no longer drops the future.
    pub async fn send(&mut self, request: &AppendRequest) -> Result<AppendResult, CallError> {
        let request = frames::encode_append(request);
        #[cfg(madsim)]
        crate::rt::links::sent(self.channel.address(), wire::APPEND.path);
        if let Some(call) = self.open.take()
            && let Ok(answer) = self.exchange(call, request.clone()).await
        {
            return Ok(answer);
        }
        // None is open, or the follower has ended it since the last one. A heartbeat may be sent twice.
        let call = self.begin().await?;
        self.exchange(call, request).await.map_err(|error| CallError::Lost(error.to_string()))
    }

    async fn begin(&self) -> Result<OpenCall, CallError> {
        let (requests, receiver) = mpsc::channel(1);
        let body = stream::unfold(receiver, async |mut requests: mpsc::Receiver<Bytes>| {
            let request = requests.recv().await?;
            Some((Ok(request), requests))
        });
        let response = self.channel.send(wire::APPEND, frames::body(body)).await?;
        Ok(OpenCall { requests, answers: FrameReader::new(response.into_body()) })
    }

    async fn exchange(&mut self, mut call: OpenCall, request: Bytes) -> io::Result<AppendResult> {
        call.requests.send(request).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        let answer = call.answers.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = frames::decode_answer(&answer)?;
        self.channel.note_answer();
        // The follower ends the call after it has refused a request.
        if answer.is_ok() {
            self.open = Some(call);
        }
        Ok(answer)
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use campanile_model::NodeId;
    use campanile_store::engine::mem::MemDisk;
    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;

    use super::*;
    use crate::form::VoteForm;
    use crate::identity::Identity;
    use crate::metrics::Metrics;
    use crate::rt;
    use crate::types::log_id;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A call as the follower sees it. It ends when this is dropped.
    struct Call {
        requests: FrameReader,
        answers: mpsc::UnboundedSender<Bytes>,
    }

    impl Call {
        /// The next heartbeat, by the index that it names.
        async fn take(&mut self) -> u64 {
            let frame = self.requests.next().await.unwrap().unwrap();
            frames::decode_append(frame).unwrap().prev_log_id.unwrap().index
        }

        fn answer(&self, index: u64) {
            self.answers.send(frames::encode_answer(&Ok(Some(log_id(1, index))))).unwrap();
        }
    }

    /// A follower that leaves every call to the test, and what sends it heartbeats.
    async fn follower() -> (Heartbeats, mpsc::UnboundedReceiver<Call>) {
        let listener = rt::Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (calls, received) = mpsc::unbounded_channel();
        rt::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let (answers, frames) = mpsc::unbounded_channel();
                let frames = stream::unfold(frames, async |mut frames| Some((Ok(frames.recv().await?), frames)));
                calls.send(Call { requests: FrameReader::new(request.into_body()), answers }).unwrap();
                async { Ok::<_, Infallible>(Response::new(frames::body(frames))) }
            });
            // It ends when the test does.
            drop(http2::Builder::new(rt::Executor).serve_connection(TokioIo::new(stream), service).await);
        });
        let identity = Identity::open(MemDisk::new().attach(), NodeId(1), false).unwrap();
        let channel = Channel::new(identity, Arc::<Metrics>::default(), NodeId(2), address, Duration::from_secs(10));
        (Heartbeats::new(channel), received)
    }

    /// Sends a heartbeat that names `index`; the index that the answer names.
    async fn beat(heartbeats: &mut Heartbeats, index: u64) -> u64 {
        let request = AppendRequest {
            vote: VoteForm { term: 1, node: 1, committed: true }.into(),
            prev_log_id: Some(log_id(1, index)),
            leader_commit: None,
            entries: Vec::new(),
        };
        heartbeats.send(&request).await.unwrap().unwrap().unwrap().index
    }

    /// Takes the next call, and answers its first heartbeat.
    async fn answered(calls: &mut mpsc::UnboundedReceiver<Call>, index: u64) -> Call {
        let mut call = rt::timeout(PATIENCE, calls.recv()).await.expect("a new call").unwrap();
        assert_eq!(call.take().await, index);
        call.answer(index);
        call
    }

    #[tokio::test]
    async fn heartbeats_share_a_call_until_it_ends() {
        let (mut heartbeats, mut calls) = follower().await;
        let (first, mut call) = tokio::join!(beat(&mut heartbeats, 1), answered(&mut calls, 1));
        let (second, ()) = tokio::join!(beat(&mut heartbeats, 2), async {
            assert_eq!(call.take().await, 2);
            call.answer(2);
        });
        assert_eq!((first, second), (1, 2));
        assert!(calls.try_recv().is_err(), "one call carries them all");
        drop(call);
        let (third, _call) = tokio::join!(beat(&mut heartbeats, 3), answered(&mut calls, 3));
        assert_eq!(third, 3);
    }

    #[tokio::test]
    async fn an_answer_that_comes_late_is_not_the_next_ones() {
        let (mut heartbeats, mut calls) = follower().await;
        let mut first = tokio::select! {
            _ = beat(&mut heartbeats, 1) => panic!("nobody has answered"),
            call = async {
                let mut call = calls.recv().await.unwrap();
                call.take().await;
                call
            } => call,
        };
        // The leader has given up on it when the answer comes.
        first.answer(1);
        let (second, _call) = tokio::join!(beat(&mut heartbeats, 2), answered(&mut calls, 2));
        assert_eq!(second, 2);
        assert!(!matches!(first.requests.next().await, Ok(Some(_))), "the first call has ended");
    }
}
