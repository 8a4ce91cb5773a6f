//! The pages of `docs/errors/`, built in so that every node can serve them.

use campanile_model::Code;

/// Maps each code to its page; a code without a page does not compile.
macro_rules! pages {
    ($($code:ident => $file:literal),* $(,)?) => {
        /// The Markdown page that explains a code.
        pub fn page(code: Code) -> &'static str {
            match code {
                $(Code::$code => include_str!(concat!("../../docs/errors/", $file, ".md")),)*
            }
        }
    };
}

pages! {
    MalformedJson => "malformed_json",
    InvalidField => "invalid_field",
    UnknownField => "unknown_field",
    LimitExceeded => "limit_exceeded",
    BodyTooLarge => "body_too_large",
    RequestTimeout => "request_timeout",
    InvalidPageToken => "invalid_page_token",
    NotFound => "not_found",
    MethodNotAllowed => "method_not_allowed",
    InvalidSchedule => "invalid_schedule",
    UnknownTimeZone => "unknown_time_zone",
    NeverOccurs => "never_occurs",
    NamespaceNotFound => "namespace_not_found",
    TaskNotFound => "task_not_found",
    RunNotFound => "run_not_found",
    NodeNotFound => "node_not_found",
    TaskExists => "task_exists",
    VersionMismatch => "version_mismatch",
    TaskFinished => "task_finished",
    RunFinished => "run_finished",
    IdempotencyMismatch => "idempotency_mismatch",
    Conflict => "conflict",
    Overloaded => "overloaded",
    QuotaExceeded => "quota_exceeded",
    DiskFull => "disk_full",
    NoLeader => "no_leader",
    NotReady => "not_ready",
    OutcomeUnknown => "outcome_unknown",
    CatchingUp => "catching_up",
    ClockSkew => "clock_skew",
    ShuttingDown => "shutting_down",
    Internal => "internal",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_about_its_code() {
        for code in Code::ALL {
            let heading = format!("# `{code}`");
            assert!(page(code).starts_with(&heading), "docs/errors/{code}.md does not start with {heading}");
        }
    }
}
