//! How a command fails: the exit status, and what is said on standard error (code, detail, field, hint).

use std::io::{self, Write};

use campanile_client::ErrorKind;
use campanile_model::{Code, Rejection};
use serde::Serialize;

/// Exit statuses; part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    OutcomeUnknown = 4,
}

pub const EXIT_STATUS_HELP: &str = "\
Exit status:
  0  done
  1  refused or failed; nothing was changed, or what was is printed
  2  the command line or the configuration is wrong
  3  no node could be reached; nothing was changed
  4  the outcome is unknown: the change may have been made; look before repeating it";

/// Why a command did not do what it was asked.
#[derive(Debug, Serialize)]
pub struct Failure {
    #[serde(skip)]
    exit: Exit,
    code: String,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Failure {
    fn new(exit: Exit, code: &str, detail: impl Into<String>) -> Self {
        let hint = hint(code).map(str::to_owned);
        Self { exit, code: code.into(), detail: detail.into(), field: None, hint }
    }

    /// The command line is wrong in a way that clap cannot see.
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", detail)
    }

    /// The node cannot run with this configuration.
    pub fn config(detail: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "invalid_configuration", detail)
    }

    /// Something on this machine failed.
    pub fn failed(detail: impl Into<String>) -> Self {
        Self::new(Exit::Failed, "failed", detail)
    }

    /// A file or standard input could not be read.
    pub fn unreadable(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::Failed, "unreadable", format!("{what}: {error}"))
    }

    /// What a node would refuse, found before one was asked.
    pub fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code.as_str(), detail)
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Says it on standard error: lines for people, or one JSON object.
    pub fn report(&self, json: bool) -> Exit {
        let text = match serde_json::to_string(self) {
            Ok(text) if json => format!("{text}\n"),
            _ => self.text(),
        };
        // Nobody is left to tell when standard error is gone.
        let _ = io::stderr().write_all(text.as_bytes());
        self.exit
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}: {}\n", self.code, self.detail);
        if let Some(field) = &self.field {
            text.push_str(&format!("  field: {field}\n"));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  hint: {hint}\n"));
        }
        text
    }
}

impl From<campanile_client::Error> for Failure {
    fn from(error: campanile_client::Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::InvalidRequest => Exit::Usage,
            ErrorKind::Unreachable => Exit::Unreachable,
            ErrorKind::OutcomeUnknown => Exit::OutcomeUnknown,
            _ => Exit::Failed,
        };
        let code = match error.kind() {
            ErrorKind::OutcomeUnknown => Code::OutcomeUnknown.as_str(),
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::InvalidRequest => "usage",
            _ => error.code().unwrap_or("invalid_answer"),
        };
        let detail = match error.problem() {
            Some(problem) => problem.detail.clone(),
            None => error.to_string(),
        };
        Self { field: error.problem().and_then(|problem| problem.field.clone()), ..Self::new(exit, code, detail) }
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self { field: rejection.field, ..Self::refused(rejection.code, rejection.message) }
    }
}

/// What to do about it, where there is something.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "usage" => "`campanile help` and `campanile help COMMAND` show what can be given",
        "invalid_configuration" => {
            "`campanile serve --help` lists every setting; --print-config shows what is in effect"
        }
        "unreachable" => "is a node running there? --endpoint or CAMPANILE_ENDPOINT names others",
        "invalid_answer" => "another program, or another version, may be listening there",
        "outcome_unknown" => "it may have been done: look with `task get` or `cluster status` before repeating it",
        "unknown_time_zone" => "zones are named as in the IANA database, such as Europe/Berlin",
        "never_occurs" => "no instant of the calendar fits the expression",
        "task_exists" => "`campanile task update` changes a task that exists",
        "task_not_found" => "`campanile task list` shows the tasks of the namespace",
        "version_mismatch" | "conflict" => "somebody else changed it: read it again, then repeat",
        "task_finished" | "run_finished" => "it has ended, so there is nothing left to change",
        "no_leader" | "not_ready" => "a majority of the nodes must be up; `campanile cluster status` shows them",
        "overloaded" | "quota_exceeded" | "disk_full" => "a bound was met; docs/reference/limits.md lists them",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_code_field_and_hint() {
        let rejection = Rejection::new(Code::UnknownTimeZone, "time zone \"Mars\" is unknown").with_field("time_zone");
        let failure = Failure::from(rejection);
        assert_eq!(
            failure.text(),
            "error: unknown_time_zone: time zone \"Mars\" is unknown\n  field: time_zone\n  hint: zones are named as in \
             the IANA database, such as Europe/Berlin\n"
        );
        assert_eq!(failure.exit, Exit::Failed);
        assert!(serde_json::to_string(&failure).unwrap().starts_with(r#"{"code":"unknown_time_zone","#));
    }
}
