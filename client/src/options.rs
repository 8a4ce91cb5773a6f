//! How a client behaves, with defaults that survive a change of leader.

use std::time::Duration;

use crate::client::Client;
use crate::error::Result;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub namespace: String,
    pub deadline: Duration,
    pub attempt_timeout: Duration,
    pub connect_timeout: Duration,
    pub retries: u32,
    pub back_off_initial: Duration,
    pub back_off_max: Duration,
    pub idle_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            retries: 4,
            back_off_initial: Duration::from_millis(100),
            back_off_max: Duration::from_secs(5),
            idle_connections: 256,
        }
    }
}

/// Makes a [`Client`] with other options than the default ones.
///
/// ```
/// # fn main() -> Result<(), campanile_client::Error> {
/// use std::time::Duration;
/// use campanile_client::Client;
///
/// let client = Client::builder(["127.0.0.1:7701", "127.0.0.1:7702"])
///     .namespace("default")
///     .deadline(Duration::from_secs(5))
///     .retries(1)
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    options: Options,
}

impl ClientBuilder {
    pub(crate) fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, options: Options::default() }
    }

    /// The namespace that tasks and runs are looked for in (`default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.options.namespace = namespace.into();
        self
    }

    /// The longest a call takes, all tries and pauses included (30 s). A change of the cluster's members is given at
    /// least 70 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline;
        self
    }

    /// How long one endpoint is waited for before the call is tried elsewhere (10 s). A write that must not be
    /// repeated ends here with an unknown outcome.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.attempt_timeout = timeout;
        self
    }

    /// How long a connection may take to open (2 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How often the round of all endpoints is repeated after a pause (4).
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// The first pause, doubled each time, and the longest one (100 ms, 5 s). A node's `Retry-After` makes a pause
    /// longer, but never longer than `max`.
    pub fn back_off(mut self, initial: Duration, max: Duration) -> Self {
        self.options.back_off_initial = initial;
        self.options.back_off_max = max;
        self
    }

    /// Idle connections kept open to each endpoint (256).
    pub fn idle_connections(mut self, connections: usize) -> Self {
        self.options.idle_connections = connections;
        self
    }

    /// Fails on an endpoint that is not `http://host:port`. Opens no connection.
    pub fn build(self) -> Result<Client> {
        Client::from_options(&self.endpoints, self.options)
    }
}
