//! Sends a call until an endpoint answers it: the next endpoint when one cannot be reached or proves that it did
//! nothing, a pause when all are busy, and an end at the deadline.
//!
//! It must never send a write again whose outcome is unknown, unless the call says that a second time changes nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::uri::Authority;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;

use crate::call::{Answer, Call, Effect, Failure, Proof, judge};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::transport::{HttpClient, http_client};

/// The largest answer read: a full page of tasks with the largest payloads.
const ANSWER_BYTES: usize = 512 << 20;

#[derive(Debug)]
pub(crate) struct Sender {
    http: HttpClient,
    endpoints: Vec<Authority>,
    /// The endpoint that answered last; the next call starts there.
    preferred: AtomicUsize,
    options: Options,
}

impl Sender {
    pub fn new(endpoints: &[String], options: Options) -> Result<Self> {
        let endpoints = endpoints.iter().map(|text| parse_endpoint(text)).collect::<Result<Vec<_>>>()?;
        if endpoints.is_empty() {
            return Err(Error::new(ErrorKind::InvalidRequest, "no endpoint is given"));
        }
        let http = http_client(options.connect_timeout, options.idle_connections);
        Ok(Self { http, endpoints, preferred: AtomicUsize::new(0), options })
    }

    pub async fn send(&self, call: &Call) -> Result<Answer> {
        let deadline = Instant::now() + self.options.deadline.max(call.patience);
        let mut at = self.preferred.load(Ordering::Relaxed) % self.endpoints.len();
        let mut progress = Progress::new(self.endpoints.len(), &self.options);
        loop {
            let failure = match self.attempt(at, call, deadline).await {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let pause = progress.after(call.effect, failure)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if pause >= left {
                return Err(progress.give_up());
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            at = (at + 1) % self.endpoints.len();
        }
    }

    /// Asks one endpoint once.
    async fn attempt(&self, at: usize, call: &Call, deadline: Instant) -> std::result::Result<Answer, Failure> {
        let endpoint = &self.endpoints[at];
        let request = build_request(endpoint, call)
            .map_err(|error| Failure::new(Proof::Final, Error::new(ErrorKind::InvalidRequest, error.to_string())))?;
        let attempt = self.options.attempt_timeout.max(call.patience);
        let limit = deadline.saturating_duration_since(Instant::now()).min(attempt);
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| {
                let proves = if error.is_connect() { Proof::NotHere } else { Proof::Nothing };
                let message = format!("{endpoint}: {}", root_cause(&error));
                Failure::new(proves, Error::new(ErrorKind::Unreachable, message).with_source(error))
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| {
                let message = format!("{endpoint}: the answer broke off: {}", root_cause(error.as_ref()));
                Failure::new(Proof::Nothing, Error::new(ErrorKind::Unreachable, message))
            })?;
            judge(head.status, &head.headers, body.to_bytes(), endpoint.as_str())
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!("{endpoint}: no answer within {} ms", limit.as_millis());
                Err(Failure::new(Proof::Nothing, Error::new(ErrorKind::Unreachable, message)))
            }
        }
    }
}

/// What a call has met so far, and from that what it does next.
struct Progress<'a> {
    endpoints: usize,
    options: &'a Options,
    /// Failures in a row since the last pause.
    failures: usize,
    pauses: u32,
    /// A write may have taken effect at one of the endpoints that failed.
    maybe_done: bool,
    /// The longest pause a node has asked for since the last one.
    asked: Duration,
    last: Option<Error>,
}

impl<'a> Progress<'a> {
    fn new(endpoints: usize, options: &'a Options) -> Self {
        Self { endpoints, options, failures: 0, pauses: 0, maybe_done: false, asked: Duration::ZERO, last: None }
    }

    /// Takes a failure in: the pause before the next endpoint is tried, or the error that ends the call.
    fn after(&mut self, effect: Effect, failure: Failure) -> Result<Duration> {
        match (failure.proves, effect) {
            (Proof::Final, _) => return Err(failure.error),
            (Proof::Nothing, Effect::Once) => return Err(failure.error.into_unknown()),
            (Proof::Nothing, Effect::Idempotent) => self.maybe_done = true,
            _ => {}
        }
        self.asked = self.asked.max(failure.retry_after.unwrap_or_default());
        self.last = Some(failure.error);
        self.failures += 1;
        if failure.proves != Proof::Busy && self.failures < self.endpoints {
            return Ok(Duration::ZERO);
        }
        if self.pauses == self.options.retries {
            return Err(self.give_up());
        }
        let own = self.options.back_off_initial.saturating_mul(1 << self.pauses.min(16));
        let pause = own.max(self.asked).min(self.options.back_off_max);
        self.pauses += 1;
        self.failures = 0;
        self.asked = Duration::ZERO;
        Ok(pause)
    }

    fn give_up(&mut self) -> Error {
        let error = self.last.take().unwrap_or_else(|| Error::new(ErrorKind::Unreachable, "no endpoint was tried"));
        match (self.maybe_done, error.kind()) {
            (true, _) => error.into_unknown(),
            // A read whose every answer was lost or unreadable.
            (false, ErrorKind::InvalidAnswer) => error.into_unreachable(),
            (false, _) => error,
        }
    }
}

fn build_request(endpoint: &Authority, call: &Call) -> http::Result<Request<Full<Bytes>>> {
    let uri = Uri::builder().scheme("http").authority(endpoint.clone()).path_and_query(&*call.target).build()?;
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(uri)
        .header(ACCEPT, "application/json, application/problem+json, */*;q=0.5")
        .body(Full::new(call.body.clone()))?;
    const AGENT: HeaderValue = HeaderValue::from_static(concat!("campanile-client/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().extend(call.headers.clone());
    request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
    Ok(request)
}

/// `host:port` or `http://host:port`.
fn parse_endpoint(text: &str) -> Result<Authority> {
    let invalid = |why: &str| Error::new(ErrorKind::InvalidRequest, format!("endpoint {text:?} {why}"));
    let bare = match text.split_once("://") {
        None => text,
        Some(("http", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some((scheme, _)) => return Err(invalid(&format!("has the scheme {scheme}; only http is spoken"))),
    };
    let authority: Authority = bare.parse().map_err(|_| invalid("is not http://host:port"))?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(invalid("is not http://host:port"));
    }
    Ok(authority)
}

/// The innermost error is the one that names the fact ("connection refused"); the outer ones only say where.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(proves: Proof, retry_after_secs: u64) -> Failure {
        let error = Error::new(ErrorKind::Unreachable, "gone");
        Failure { error, proves, retry_after: Some(Duration::from_secs(retry_after_secs)) }
    }

    fn options() -> Options {
        Options {
            retries: 2,
            back_off_initial: Duration::from_millis(100),
            back_off_max: Duration::from_secs(5),
            ..Options::default()
        }
    }

    #[test]
    fn every_endpoint_is_tried_before_a_pause_and_pauses_grow() {
        let options = options();
        let mut progress = Progress::new(3, &options);
        let mut pauses = Vec::new();
        let error = loop {
            match progress.after(Effect::None, failure(Proof::NotHere, 0)) {
                Ok(pause) => pauses.push(pause.as_millis()),
                Err(error) => break error,
            }
        };
        assert_eq!(pauses, [0, 0, 100, 0, 0, 200, 0, 0]);
        assert_eq!(error.kind(), ErrorKind::Unreachable);
    }

    #[test]
    fn busy_pauses_at_once_as_long_as_asked_within_the_bound() {
        let options = options();
        let mut progress = Progress::new(3, &options);
        assert_eq!(progress.after(Effect::Once, failure(Proof::Busy, 2)).unwrap(), Duration::from_secs(2));
        assert_eq!(progress.after(Effect::Once, failure(Proof::Busy, 60)).unwrap(), Duration::from_secs(5));
    }

    #[test]
    fn a_write_that_may_be_done_is_never_reported_as_not_done() {
        let options = options();
        let mut progress = Progress::new(1, &options);
        let error = progress.after(Effect::Once, failure(Proof::Nothing, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);

        let mut progress = Progress::new(1, &options);
        progress.after(Effect::Idempotent, failure(Proof::Nothing, 0)).unwrap();
        progress.after(Effect::Idempotent, failure(Proof::NotHere, 0)).unwrap();
        let error = progress.after(Effect::Idempotent, failure(Proof::NotHere, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn endpoints_are_host_and_port() {
        for good in ["127.0.0.1:7701", "http://127.0.0.1:7701", "http://node-1:7701/", "[::1]:7701"] {
            assert!(parse_endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "https://node:1", "http://node/path", "http://user@node:1", "node one"] {
            assert_eq!(parse_endpoint(bad).unwrap_err().kind(), ErrorKind::InvalidRequest, "{bad}");
        }
    }
}
