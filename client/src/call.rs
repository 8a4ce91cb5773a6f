//! One call: a request as the API understands it, its answer, and what an answer or a broken connection proves about
//! the request's effect. Pure; sending is [`crate::sender`]'s business.

use std::time::Duration;

use bytes::Bytes;
use campanile_model::api::Problem;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// What happens when a request is carried out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It only reads.
    None,
    /// The second time changes nothing.
    Idempotent,
    /// The second time does it again, or gets an answer that misleads.
    Once,
}

/// A request before it is given to an endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub method: Method,
    /// Path and query, already encoded.
    pub target: String,
    pub effect: Effect,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The cluster may need this long to answer; the client's own limits are raised to it.
    pub patience: Duration,
}

impl Call {
    pub fn new(method: Method, target: String, effect: Effect) -> Self {
        Self { method, target, effect, headers: HeaderMap::new(), body: Bytes::new(), patience: Duration::ZERO }
    }

    pub fn get(target: String) -> Self {
        Self::new(Method::GET, target, Effect::None)
    }

    pub fn json(self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Error::new(ErrorKind::InvalidRequest, "the body is not JSON").with_source(error))?;
        Ok(self.raw("application/json", body.into()))
    }

    pub fn raw(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body;
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value).map_err(|error| {
            Error::new(ErrorKind::InvalidRequest, format!("{value:?} cannot be the value of header {name}"))
                .with_source(error)
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// With a key, repeating the call is safe; without, it stays as it is.
    pub fn idempotency_key(self, key: Option<&str>) -> Result<Self> {
        match key {
            None => Ok(self),
            Some(key) => {
                let call = self.header(HeaderName::from_static("idempotency-key"), key)?;
                Ok(Self { effect: Effect::Idempotent, ..call })
            }
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub body: Bytes,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(ErrorKind::InvalidAnswer, format!("the answer is not what this client knows: {error}"))
                .with_source(error)
        })
    }

    pub fn text(&self) -> Result<String> {
        String::from_utf8(self.body.to_vec())
            .map_err(|error| Error::new(ErrorKind::InvalidAnswer, "the answer is not text").with_source(error))
    }
}

/// A try that brought no answer to hand on.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: Error,
    pub proves: Proof,
    /// The node asked for this pause.
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(proves: Proof, error: Error) -> Self {
        Self { error, proves, retry_after: None }
    }
}

/// What a failed try proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Trying again is useless.
    Final,
    /// Nothing was done, and another node may be able to.
    NotHere,
    /// Nothing was done, and all of the cluster is busy for now.
    Busy,
    /// It may have been done.
    Nothing,
}

/// Reads an answer.
pub(crate) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
    endpoint: &str,
) -> std::result::Result<Answer, Failure> {
    if status.is_success() {
        return Ok(Answer { body });
    }
    let retry_after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        // Not ours: a proxy, or another program on that port. A server error of either proves nothing.
        let proves = if status.is_server_error() { Proof::Nothing } else { Proof::Final };
        let error = Error::new(ErrorKind::InvalidAnswer, format!("{endpoint} answered {status} without a problem"));
        return Err(Failure { error, proves, retry_after });
    };
    let proves = match problem.code.as_str() {
        "no_leader" | "not_ready" | "clock_skew" | "shutting_down" => Proof::NotHere,
        "overloaded" | "catching_up" => Proof::Busy,
        "outcome_unknown" | "internal" => Proof::Nothing,
        _ => Proof::Final,
    };
    Err(Failure { error: Error::refused(problem), proves, retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, code: &str) -> Bytes {
        let text = format!(
            r#"{{"type":"/v1/errors/{code}","title":"t","status":{status},"code":"{code}","detail":"d","retryable":true}}"#
        );
        text.into()
    }

    #[test]
    fn a_refusal_says_what_it_proves() {
        for (status, code, proves) in [
            (503, "no_leader", Proof::NotHere),
            (503, "shutting_down", Proof::NotHere),
            (503, "overloaded", Proof::Busy),
            (429, "overloaded", Proof::Busy),
            (503, "catching_up", Proof::Busy),
            (503, "outcome_unknown", Proof::Nothing),
            (500, "internal", Proof::Nothing),
            (412, "version_mismatch", Proof::Final),
            (503, "disk_full", Proof::Final),
            (429, "quota_exceeded", Proof::Final),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = judge(status, &HeaderMap::new(), problem(status.as_u16(), code), "x").unwrap_err();
            assert_eq!(failure.proves, proves, "{code}");
            assert_eq!(failure.error.code(), Some(code));
        }
    }

    #[test]
    fn an_answer_that_is_not_ours_proves_nothing() {
        let failure = judge(StatusCode::BAD_GATEWAY, &HeaderMap::new(), "<html>".into(), "x").unwrap_err();
        assert_eq!((failure.proves, failure.error.kind()), (Proof::Nothing, ErrorKind::InvalidAnswer));
        let failure = judge(StatusCode::NOT_FOUND, &HeaderMap::new(), Bytes::new(), "x").unwrap_err();
        assert_eq!(failure.proves, Proof::Final);
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        let failure = judge(StatusCode::TOO_MANY_REQUESTS, &headers, problem(429, "overloaded"), "x").unwrap_err();
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    }
}
