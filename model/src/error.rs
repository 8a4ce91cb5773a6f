//! Why a request is refused, as a stable code. The HTTP face turns a code into its status and its page in
//! `docs/errors/`; the state machine only ever returns codes, never text that differs between builds.

use std::fmt;

use bincode::{Decode, Encode};

/// A stable, documented error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Code {
    // The request itself.
    MalformedJson,
    InvalidField,
    UnknownField,
    LimitExceeded,
    BodyTooLarge,
    RequestTimeout,
    InvalidPageToken,
    NotFound,
    MethodNotAllowed,
    // Schedules.
    InvalidSchedule,
    UnknownTimeZone,
    NeverOccurs,
    // Named things.
    NamespaceNotFound,
    TaskNotFound,
    RunNotFound,
    NodeNotFound,
    // State.
    TaskExists,
    VersionMismatch,
    TaskFinished,
    RunFinished,
    IdempotencyMismatch,
    Conflict,
    // The cluster.
    Overloaded,
    QuotaExceeded,
    DiskFull,
    NoLeader,
    NotReady,
    OutcomeUnknown,
    CatchingUp,
    ClockSkew,
    ShuttingDown,
    Internal,
}

impl Code {
    pub const ALL: [Self; 32] = [
        Self::MalformedJson,
        Self::InvalidField,
        Self::UnknownField,
        Self::LimitExceeded,
        Self::BodyTooLarge,
        Self::RequestTimeout,
        Self::InvalidPageToken,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::InvalidSchedule,
        Self::UnknownTimeZone,
        Self::NeverOccurs,
        Self::NamespaceNotFound,
        Self::TaskNotFound,
        Self::RunNotFound,
        Self::NodeNotFound,
        Self::TaskExists,
        Self::VersionMismatch,
        Self::TaskFinished,
        Self::RunFinished,
        Self::IdempotencyMismatch,
        Self::Conflict,
        Self::Overloaded,
        Self::QuotaExceeded,
        Self::DiskFull,
        Self::NoLeader,
        Self::NotReady,
        Self::OutcomeUnknown,
        Self::CatchingUp,
        Self::ClockSkew,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The code as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::InvalidField => "invalid_field",
            Self::UnknownField => "unknown_field",
            Self::LimitExceeded => "limit_exceeded",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::InvalidPageToken => "invalid_page_token",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::InvalidSchedule => "invalid_schedule",
            Self::UnknownTimeZone => "unknown_time_zone",
            Self::NeverOccurs => "never_occurs",
            Self::NamespaceNotFound => "namespace_not_found",
            Self::TaskNotFound => "task_not_found",
            Self::RunNotFound => "run_not_found",
            Self::NodeNotFound => "node_not_found",
            Self::TaskExists => "task_exists",
            Self::VersionMismatch => "version_mismatch",
            Self::TaskFinished => "task_finished",
            Self::RunFinished => "run_finished",
            Self::IdempotencyMismatch => "idempotency_mismatch",
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::QuotaExceeded => "quota_exceeded",
            Self::DiskFull => "disk_full",
            Self::NoLeader => "no_leader",
            Self::NotReady => "not_ready",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::CatchingUp => "catching_up",
            Self::ClockSkew => "clock_skew",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }

    /// Whether the same request can succeed later without being changed.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::Conflict
                | Self::Overloaded
                | Self::QuotaExceeded
                | Self::DiskFull
                | Self::NoLeader
                | Self::NotReady
                | Self::OutcomeUnknown
                | Self::CatchingUp
                | Self::ClockSkew
                | Self::ShuttingDown
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: the code, and a message that names the thing and the limit. Lower-case fragment, no full stop.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejection {
    pub code: Code,
    pub message: String,
    /// The field of the request at fault, as a path (`schedules[0].cron`).
    pub field: Option<String>,
}

impl Rejection {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    pub fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}
