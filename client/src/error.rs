//! What can go wrong with a call, as one type. The kind says what is known of the effect, which is what a caller has to
//! decide by.

use std::error::Error as StdError;
use std::fmt;

use campanile_model::api::Problem;

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// What is known after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request, or an endpoint, cannot be put into HTTP; nothing was sent.
    InvalidRequest,
    /// No endpoint took the request, or a read got no answer in time; nothing was done.
    Unreachable,
    /// The cluster refused it, and [`Error::problem`] says why; nothing was done.
    Refused,
    /// The request may or may not have taken effect: its answer was lost, or the cluster itself does not know.
    OutcomeUnknown,
    /// Something answered that does not speak this API.
    InvalidAnswer,
}

/// A failed call. Opaque: look at [`kind`](Self::kind), [`code`](Self::code) and [`problem`](Self::problem).
///
/// ```no_run
/// # async fn example(client: campanile_client::Client) -> Result<(), campanile_client::Error> {
/// use campanile_client::ErrorKind;
///
/// match client.trigger_task("nightly-report", None).await {
///     Ok(triggered) => println!("run {}", triggered.run),
///     Err(error) if error.code() == Some("task_not_found") => println!("no such task"),
///     Err(error) if error.kind() == ErrorKind::OutcomeUnknown => println!("look at its runs first: {error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    problem: Option<Box<Problem>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), problem: None, source: None }
    }

    pub(crate) fn refused(problem: Problem) -> Self {
        let message = format!("{}: {}", problem.code, problem.detail);
        Self { kind: ErrorKind::Refused, message, problem: Some(Box::new(problem)), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The same failure, of a write that may have taken effect.
    pub(crate) fn into_unknown(mut self) -> Self {
        self.kind = ErrorKind::OutcomeUnknown;
        self
    }

    /// The same failure, where nothing can have taken effect.
    pub(crate) fn into_unreachable(mut self) -> Self {
        self.kind = ErrorKind::Unreachable;
        self
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The problem document of the answer, if the cluster sent one.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_deref()
    }

    /// The stable code of the problem, such as `version_mismatch`; see `docs/errors/`.
    pub fn code(&self) -> Option<&str> {
        self.problem().map(|problem| problem.code.as_str())
    }

    /// Whether the same call can succeed later. For [`ErrorKind::OutcomeUnknown`] it can, but may then have been done
    /// twice unless it carries an idempotency key.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Unreachable | ErrorKind::OutcomeUnknown => true,
            ErrorKind::Refused => self.problem().is_some_and(|problem| problem.retryable),
            ErrorKind::InvalidRequest | ErrorKind::InvalidAnswer => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.kind {
            ErrorKind::InvalidRequest => "invalid request: ",
            ErrorKind::Unreachable => "unreachable: ",
            ErrorKind::Refused => "",
            ErrorKind::OutcomeUnknown => "outcome unknown: ",
            ErrorKind::InvalidAnswer => "invalid answer: ",
        };
        write!(f, "{prefix}{}", self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}
