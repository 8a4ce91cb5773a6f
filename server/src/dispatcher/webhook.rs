//! One delivery over HTTP: the request that carries an attempt, and what its answer means.
//!
//! Headers follow Standard Webhooks (`webhook-id`, `-timestamp`, `-signature`); the `campanile-` ones carry what a
//! receiver needs to make the effect exactly-once: run, attempt and fencing token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use campanile_model::{
    Delivery, HttpTarget, Millis, Outcome, OutcomeLine, Target, TaskSpec, Timestamp, limits, planted,
};
use campanile_raft::{Clock, rt};
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use rand::{Rng, rngs::SmallRng};
use sha2::Sha256;

use super::tls::Connector;
use super::{Attempt, backoff};
use crate::secret;

/// Bytes of an answer that are read, so that its connection can be used again; what is longer costs the connection.
const ANSWER_BYTES: usize = 64 << 10;
/// How long such an answer may take after its head, for the same.
const BODY_READ: Duration = Duration::from_secs(1);
/// Idle connections kept per host, and for how long.
const IDLE_PER_HOST: usize = 512;
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Sends attempts over pooled connections.
#[derive(Clone)]
pub struct WebhookClient {
    client: Client<Connector, Full<Bytes>>,
    clock: Clock,
    rng: Arc<Mutex<SmallRng>>,
    default_secret: Option<String>,
}

/// The host of a target, which connections and bounds are kept by.
pub(crate) fn host(target: &Target) -> String {
    let Target::Http(http) = target;
    http.url.parse::<http::Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
}

/// An answer's status and headers, or why there is none.
type Answer = Result<(StatusCode, HeaderMap), String>;

/// How one attempt ended.
struct Ended {
    result: Outcome,
    status: Option<StatusCode>,
    error: String,
}

impl WebhookClient {
    pub fn new(clock: Clock, rng: SmallRng, default_secret: Option<String>) -> Self {
        let client = Client::builder(rt::Executor)
            .pool_timer(rt::Timer)
            .timer(rt::Timer)
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(Connector::new());
        Self { client, clock, rng: Arc::new(Mutex::new(rng)), default_secret }
    }

    /// Sends an attempt and says how it ended. Never takes longer than the task's timeout.
    pub(crate) async fn deliver(&self, attempt: &Attempt) -> OutcomeLine {
        let Target::Http(target) = &attempt.spec.target;
        let ended = match self.request(attempt, target) {
            Err(error) => Ended { result: Outcome::Failed, status: None, error },
            Ok(request) => match self.exchange(request, longest(&attempt.spec)).await {
                Some(Ok((status, headers))) => self.judge(attempt, status, &headers),
                Some(Err(error)) => self.retry_or(attempt, Outcome::Failed, None, None, error),
                None => {
                    let error = format!("no answer within {}", attempt.spec.timeout);
                    self.retry_or(attempt, Outcome::TimedOut, None, None, error)
                }
            },
        };
        OutcomeLine {
            run: attempt.run.id,
            token: attempt.run.token,
            result: ended.result,
            status: ended.status.map(|status| status.as_u16()),
            error: if planted!(ReasonNotTold) { String::new() } else { truncated(ended.error) },
        }
    }

    /// Sends a request and waits for its answer. `None`: none came in time.
    async fn exchange(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Option<Answer> {
        let began = self.clock.instant();
        let response = match rt::timeout(timeout, self.client.request(request)).await? {
            Ok(response) => response,
            Err(error) => return Some(Err(describe(&error))),
        };
        let (head, body) = response.into_parts();
        // The status is the answer, whatever becomes of the body, and however long that takes.
        let left = timeout.saturating_sub(self.clock.instant().saturating_duration_since(began));
        let left = if planted!(BodyMustEnd) { left } else { left.min(BODY_READ) };
        let whole = rt::timeout(left, Limited::new(body, ANSWER_BYTES).collect()).await;
        if whole.is_none() && planted!(BodyMustEnd) {
            return None;
        }
        Some(Ok((head.status, head.headers)))
    }

    fn request(&self, attempt: &Attempt, target: &HttpTarget) -> Result<Request<Full<Bytes>>, String> {
        let run = &attempt.run;
        let payload = attempt.spec.payload.as_ref().filter(|_| run.attempt == 1 || !planted!(RetryWithoutBody));
        let body = Bytes::from(payload.map_or(String::new(), |json| json.as_str().to_owned()));
        let mut request = Request::builder()
            .method(target.method.as_str())
            .uri(&target.url)
            .body(Full::new(body.clone()))
            .map_err(|error| format!("target cannot be called: {error}"))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("campanile/", env!("CARGO_PKG_VERSION"))));
        if attempt.spec.payload.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &target.headers {
            let name: HeaderName = name.parse().map_err(|_| format!("header name {name:?} cannot be sent"))?;
            let value: HeaderValue = value.parse().map_err(|_| format!("header {name} cannot be sent"))?;
            headers.insert(name, value);
        }
        let id = run.occurrence().to_string();
        let timestamp = self.clock.now().as_millis().div_euclid(1000).to_string();
        if let Some(secret) = target.signing_secret.as_deref().or(self.default_secret.as_deref()) {
            let stamped = if planted!(SignatureWrong) { "0" } else { &timestamp };
            let signature = sign(secret, &id, stamped, &body)?;
            set(headers, "webhook-signature", &signature);
        }
        set(headers, "webhook-id", &id);
        set(headers, "webhook-timestamp", &timestamp);
        set(headers, "campanile-occurrence-id", &id);
        set(headers, "campanile-run-id", &run.id.to_string());
        set(headers, "campanile-task", &attempt.task_name);
        set(headers, "campanile-task-id", &run.task.to_string());
        set(headers, "campanile-attempt", &run.attempt.to_string());
        set(headers, "campanile-fencing-token", &run.token.to_string());
        set(headers, "campanile-scheduled-at", &run.scheduled_at.to_string());
        Ok(request)
    }

    fn judge(&self, attempt: &Attempt, status: StatusCode, headers: &HeaderMap) -> Ended {
        if status.is_success() {
            return Ended { result: Outcome::Succeeded, status: Some(status), error: String::new() };
        }
        if status == StatusCode::GONE {
            let error = "receiver is gone (410): the task is paused".into();
            return Ended { result: Outcome::Gone, status: Some(status), error };
        }
        let error = format!("receiver answered {status}");
        if !is_retryable(status) && !planted!(FinalIsRetried) {
            return Ended { result: Outcome::Failed, status: Some(status), error };
        }
        let asked = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            .then(|| {
                headers
                    .get(RETRY_AFTER)
                    .filter(|_| !planted!(RetryAfterIgnored))
                    .and_then(|value| retry_after(value, self.clock.now()))
            })
            .flatten();
        self.retry_or(attempt, Outcome::Failed, Some(status), asked, error)
    }

    /// Another attempt if the policy has one left, `last` otherwise.
    fn retry_or(
        &self,
        attempt: &Attempt,
        last: Outcome,
        status: Option<StatusCode>,
        asked: Option<Millis>,
        error: String,
    ) -> Ended {
        let spec: &TaskSpec = &attempt.spec;
        let retry = &spec.retry;
        let last_attempt = attempt.run.attempt >= retry.max_attempts && !planted!(AttemptsUnbounded);
        if spec.delivery == Delivery::AtMostOnce || last_attempt {
            return Ended { result: last, status, error };
        }
        let draw = self.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        let delay = backoff::delay(retry, attempt.run.attempt, draw, asked);
        let deadline = spec.deadline.filter(|_| !planted!(DeadlineIgnored));
        let deadline = deadline.map(|deadline| attempt.run.fired_at.saturating_add(deadline));
        if deadline.is_some_and(|deadline| self.clock.now().saturating_add(delay) > deadline) {
            return Ended { result: last, status, error: format!("{error}; the run's deadline leaves no retry") };
        }
        Ended { result: Outcome::RetryAfter(delay), status, error }
    }
}

/// How long an attempt may take.
fn longest(spec: &TaskSpec) -> Duration {
    spec.timeout.to_std() * if planted!(TimeoutTripled) { 3 } else { 1 }
}

/// Whether the same request may succeed later: the server's trouble, a conflict in time, or too many requests.
fn is_retryable(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
}

/// Seconds, or an HTTP date (RFC 9110 §10.2.3).
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Millis> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // However many digits: what is too long is cut where it is honoured.
        let seconds = text.parse::<u32>().unwrap_or(u32::MAX);
        return Some(Millis::from_secs(u64::from(seconds)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_jiff(date.timestamp()).since(now))
}

/// Standard Webhooks: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.
fn sign(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> Result<String, String> {
    let key = secret::key(secret)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())))
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // Ids, numbers and validated names: always legal header values.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// The innermost reason; the outer layers only say that something failed.
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("{error}: {innermost}")
}

fn truncated(mut text: String) -> String {
    if text.len() > limits::ERROR_BYTES {
        let end = (0..=limits::ERROR_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_standard_webhooks_does() {
        // The example of the specification's reference libraries.
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.as_deref(), Ok("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn reads_both_forms_of_retry_after() {
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let read = |text: &'static str| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(read("120"), Some(Millis::from_secs(120)));
        assert_eq!(read("Sat, 21 Nov 2026 08:02:00 GMT"), Some(Millis::from_secs(120)));
        assert_eq!(read("Sat, 21 Nov 2026 07:00:00 GMT"), Some(Millis(0)));
        assert!(read("99999999999999999999") > Some(Millis::from_days(1)), "long is not never");
        assert_eq!(read("soon"), None);
        assert_eq!(read(""), None);
        assert_eq!(read("-5"), None);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [500, 502, 503, 504, 408, 425, 429] {
            assert!(is_retryable(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [301, 302, 400, 401, 403, 404, 409, 410, 422] {
            assert!(!is_retryable(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let cut = truncated("é".repeat(400));
        assert!(cut.len() <= limits::ERROR_BYTES && cut.chars().all(|c| c == 'é'));
    }
}
