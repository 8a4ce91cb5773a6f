//! What the receiver of webhooks does with a request: writes down what arrives, and answers as it is told. How it
//! listens, and how it knows the sender, is the business of those who have the sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use campanile_model::NodeId;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::recorder::Recorder;
use crate::history::{self, Delivery, Event};

/// How it answers at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Fine,
    Hangs,
    Answers(u16),
    Slow(Duration),
    /// Takes no request at all.
    Gone,
}

/// The receiver. Clones are the same.
#[derive(Clone)]
pub struct Receiver {
    recorder: Recorder,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    deliveries: u64,
    /// Of a thousand requests so many are answered with an error, slowly, or never, where the mood is fine.
    moody_per_mille: u32,
}

impl Receiver {
    pub fn new(recorder: Recorder) -> Self {
        let state = State { mood: Mood::Fine, deliveries: 0, moody_per_mille: 0 };
        Self { recorder, state: Arc::new(Mutex::new(state)) }
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub fn set_moody(&self, per_mille: u32) {
        self.state().moody_per_mille = per_mille;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes connections.
    pub fn is_there(&self) -> bool {
        self.state().mood != Mood::Gone
    }

    /// Answers a request that came from a node.
    pub async fn answer(&self, request: Request<Incoming>, from: NodeId) -> Result<Response<Full<Bytes>>, String> {
        let mood = self.draw_mood();
        if mood == Mood::Gone {
            return Err("nobody is there".into());
        }
        let number = {
            let mut state = self.state();
            state.deliveries += 1;
            state.deliveries
        };
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let mut delivery = delivery(&head.headers, number, from).ok_or("a webhook without our headers")?;
        delivery.request = Some(Box::new(as_it_came(&head, &body)));
        self.recorder.record(Event::Deliver(delivery));
        let status = match mood {
            Mood::Hangs | Mood::Gone => return std::future::pending().await,
            Mood::Slow(by) => {
                tokio::time::sleep(by).await;
                200
            }
            Mood::Answers(status) => status,
            Mood::Fine => 200,
        };
        self.recorder.record(Event::Answer { delivery: number, status, retry_after: None });
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = http::StatusCode::from_u16(status).map_err(|error| error.to_string())?;
        Ok(response)
    }

    fn draw_mood(&self) -> Mood {
        let state = self.state();
        let mut rng: SmallRng = rand::make_rng();
        if state.mood != Mood::Fine || rng.random_range(0..1000) >= state.moody_per_mille {
            return state.mood;
        }
        match rng.random_range(0..6) {
            0 => Mood::Hangs,
            1 | 2 => Mood::Slow(Duration::from_millis(rng.random_range(50..3000))),
            3 => Mood::Answers(500),
            4 => Mood::Answers(503),
            _ => Mood::Answers(400),
        }
    }
}

fn as_it_came(head: &http::request::Parts, body: &Bytes) -> history::Request {
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let headers = head.headers.iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    let body = String::from_utf8_lossy(body).into();
    history::Request { method: head.method.to_string(), path, headers: headers.collect(), body }
}

fn delivery(headers: &HeaderMap, number: u64, node: NodeId) -> Option<Delivery> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    Some(Delivery {
        delivery: number,
        node,
        task: text("campanile-task-id")?.parse().ok()?,
        run: text("campanile-run-id")?.parse().ok()?,
        occurrence: text("campanile-occurrence-id")?.parse().ok()?,
        scheduled_at: text("campanile-scheduled-at")?.parse().ok()?,
        attempt: text("campanile-attempt")?.parse().ok()?,
        token: campanile_model::Token(text("campanile-fencing-token")?.parse().ok()?),
        signed: None,
        request: None,
    })
}
