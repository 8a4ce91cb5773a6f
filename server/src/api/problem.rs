//! Errors as clients see them: RFC 9457 problem details with a stable code, whatever went wrong where.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use campanile_model::api::Problem;
use campanile_model::{Code, Rejection};
use campanile_raft::{MembershipError, ProposeError, ReadError};
use campanile_store::StoreError;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};

/// A refused or failed request.
#[derive(Debug)]
pub struct ApiError(pub Rejection);

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Rejection::new(code, message))
    }

    pub fn field(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Rejection::new(code, message).with_field(field))
    }

    pub fn status(&self) -> StatusCode {
        status(self.0.code)
    }

    pub fn problem(&self) -> Problem {
        let code = self.0.code;
        Problem {
            kind: format!("/v1/errors/{code}"),
            title: title(code).into(),
            status: status(code).as_u16(),
            code: code.as_str().into(),
            detail: self.0.message.clone(),
            retryable: code.is_retryable(),
            field: self.0.field.clone(),
            extra: BTreeMap::new(),
        }
    }
}

/// The HTTP status of a code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::MalformedJson
        | Code::InvalidField
        | Code::UnknownField
        | Code::LimitExceeded
        | Code::InvalidPageToken
        | Code::InvalidSchedule
        | Code::UnknownTimeZone
        | Code::NeverOccurs => StatusCode::BAD_REQUEST,
        Code::NotFound | Code::NamespaceNotFound | Code::TaskNotFound | Code::RunNotFound | Code::NodeNotFound => {
            StatusCode::NOT_FOUND
        }
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::TaskExists | Code::TaskFinished | Code::RunFinished | Code::Conflict => StatusCode::CONFLICT,
        Code::VersionMismatch => StatusCode::PRECONDITION_FAILED,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        Code::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        Code::Overloaded
        | Code::DiskFull
        | Code::NoLeader
        | Code::NotReady
        | Code::OutcomeUnknown
        | Code::CatchingUp
        | Code::ClockSkew
        | Code::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the code means, the same words for every occurrence of it.
fn title(code: Code) -> &'static str {
    match code {
        Code::MalformedJson => "The body is not JSON",
        Code::InvalidField => "A field has a value it cannot have",
        Code::UnknownField => "A field is not known",
        Code::LimitExceeded => "A documented limit is exceeded",
        Code::BodyTooLarge => "The body is too large",
        Code::RequestTimeout => "The request was sent too slowly",
        Code::InvalidPageToken => "The page token does not belong to this list",
        Code::NotFound => "There is nothing at this path",
        Code::MethodNotAllowed => "This path does not take this method",
        Code::InvalidSchedule => "A schedule cannot be read",
        Code::UnknownTimeZone => "A time zone is not known",
        Code::NeverOccurs => "A schedule has no occurrence",
        Code::NamespaceNotFound => "The namespace is not there",
        Code::TaskNotFound => "The task is not there",
        Code::RunNotFound => "The run is not there",
        Code::NodeNotFound => "The node is not there",
        Code::TaskExists => "The name is taken",
        Code::VersionMismatch => "The task is at another version",
        Code::TaskFinished => "The task has finished",
        Code::RunFinished => "The run has finished",
        Code::IdempotencyMismatch => "The idempotency key was used for another request",
        Code::Conflict => "Another write came first",
        Code::Overloaded => "The cluster takes no more at the moment",
        Code::QuotaExceeded => "A quota is used up",
        Code::DiskFull => "A disk is nearly full",
        Code::NoLeader => "The cluster has no leader at the moment",
        Code::NotReady => "The node is not ready",
        Code::OutcomeUnknown => "Whether the write was made is not known",
        Code::CatchingUp => "The task is catching up",
        Code::ClockSkew => "The leader's clock is too far from the others'",
        Code::ShuttingDown => "The node is shutting down",
        Code::Internal => "The node failed",
    }
}

/// Seconds after which a retryable request may be tried again.
fn retry_after(code: Code) -> Option<u32> {
    code.is_retryable().then_some(match code {
        Code::DiskFull | Code::QuotaExceeded => 30,
        _ => 1,
    })
}

pub const PROBLEM_JSON: &str = "application/problem+json";

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after(self.0.code) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self(rejection)
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Rejected(rejection) => Self(rejection),
            ProposeError::NoLeader => Self::new(Code::NoLeader, error.to_string()),
            ProposeError::Overloaded { .. } => Self::new(Code::Overloaded, error.to_string()),
            ProposeError::ClockSkew => Self::new(Code::ClockSkew, error.to_string()),
            ProposeError::ShuttingDown => Self::new(Code::ShuttingDown, error.to_string()),
            ProposeError::OutcomeUnknown => Self::new(
                Code::OutcomeUnknown,
                "no answer in time; the write may have been made: repeat it with its Idempotency-Key, or read first",
            ),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::new(Code::NoLeader, format!("{error}; consistency=stale reads what this node has"))
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        let code = match &error {
            MembershipError::NoLeader => Code::NoLeader,
            MembershipError::NotMember(_) => Code::NodeNotFound,
            MembershipError::AlreadyMember(_) | MembershipError::LastVoter(_) | MembershipError::Refused(_) => {
                Code::Conflict
            }
            MembershipError::TimedOut => Code::OutcomeUnknown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "reading state failed");
        Self::new(Code::Internal, "reading state failed; see the node's log")
    }
}
