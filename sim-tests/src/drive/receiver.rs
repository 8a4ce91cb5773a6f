//! What the receiver of webhooks does with a request: writes down what arrives, and answers as it is told. How it
//! listens, and how it knows the sender, is the business of those who have the sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use campanile_model::NodeId;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rand::rngs::SmallRng;

use super::mood::{Answer, AnswerBody, Kind};
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

/// A header larger than any client reads, for heads without end.
const LARGE_HEADER: usize = 16 << 10;

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
    /// From here on everything is answered with 200, but for the closing round's own receivers.
    healed: bool,
}

impl Receiver {
    pub fn new(recorder: Recorder) -> Self {
        let state = State { mood: Mood::Fine, deliveries: 0, moody_per_mille: 0, healed: false };
        Self { recorder, state: Arc::new(Mutex::new(state)) }
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub fn set_moody(&self, per_mille: u32) {
        self.state().moody_per_mille = per_mille;
    }

    /// Nothing is wrong with any receiver from here on: what is owed can be delivered.
    pub fn heal(&self) {
        self.state().healed = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes connections.
    pub fn is_there(&self) -> bool {
        self.state().mood != Mood::Gone
    }

    /// Answers a request that came from a node.
    pub async fn answer(&self, request: Request<Incoming>, from: NodeId) -> Result<Response<AnswerBody>, String> {
        let answer = self.draw(request.uri().path());
        if self.state().mood == Mood::Gone {
            return Err("nobody is there".into());
        }
        let number = {
            let mut state = self.state();
            state.deliveries += 1;
            state.deliveries
        };
        let (head, body) = request.into_parts();
        // A request that its sender broke off has not arrived: nobody could act on it.
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let request = Box::new(as_it_came(&head, &body));
        let Some(mut delivery) = delivery(&head.headers, number, from) else {
            self.recorder.record(Event::Stray { node: from, request });
            return Err("a webhook without our headers".into());
        };
        delivery.request = Some(request);
        self.recorder.record(Event::Deliver(delivery));
        match answer {
            Answer::Silence => std::future::pending().await,
            Answer::Reset => {
                self.recorder.record(Event::Reset { delivery: number, without_end: false });
                Err("the receiver ends the connection".into())
            }
            Answer::EndlessHead => {
                self.recorder.record(Event::Reset { delivery: number, without_end: true });
                endless_head()
            }
            Answer::Says { status, after, retry_after, body } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                let retry_after = retry_after.map(|wait| wait.text(sent_at(&head.headers)));
                let mut response = Response::new(body);
                *response.status_mut() = StatusCode::from_u16(status).map_err(|error| error.to_string())?;
                if let Some(text) = &retry_after {
                    let value = HeaderValue::from_str(text).map_err(|error| error.to_string())?;
                    response.headers_mut().insert(RETRY_AFTER, value);
                }
                self.recorder.record(Event::Answer { delivery: number, status, retry_after });
                Ok(response)
            }
        }
    }

    /// What everybody gets at the moment; else what this kind of receiver gives; else, now and then, whatever there is.
    fn draw(&self, path: &str) -> Answer {
        let state = self.state();
        let mut rng: SmallRng = rand::make_rng();
        match state.mood {
            Mood::Hangs | Mood::Gone => Answer::Silence,
            Mood::Answers(status) => Answer::status(status),
            Mood::Slow(by) => Answer::slowly(by),
            Mood::Fine if state.healed && !Kind::of(path).is_of_closing() => Answer::status(200),
            Mood::Fine if state.healed => Kind::of(path).answer(&mut rng, 0),
            Mood::Fine => Kind::of(path).answer(&mut rng, state.moody_per_mille),
        }
    }
}

/// Headers over headers: a client that keeps them all has no bound.
fn endless_head() -> Result<Response<AnswerBody>, String> {
    let mut response = Response::new(AnswerBody::empty());
    let value = HeaderValue::from_str(&"x".repeat(LARGE_HEADER)).map_err(|error| error.to_string())?;
    for number in 0..40 {
        let name = HeaderName::from_bytes(format!("x-more-{number}").as_bytes()).map_err(|error| error.to_string())?;
        response.headers_mut().insert(name, value.clone());
    }
    Ok(response)
}

/// When the request was sent, in seconds since 1970, by the sender's clock. Whether that header is right is
/// `delivery_content`'s business.
fn sent_at(headers: &HeaderMap) -> i64 {
    headers.get("webhook-timestamp").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

fn as_it_came(head: &http::request::Parts, body: &bytes::Bytes) -> history::Request {
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
