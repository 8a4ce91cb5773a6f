//! The client itself; the calls are grouped by what they concern, in `tasks`, `runs` and `cluster`.

use std::sync::Arc;

use crate::call::{Answer, Call};
use crate::error::Result;
use crate::options::{ClientBuilder, Options};
use crate::path::Target;
use crate::sender::Sender;

/// A client of a cluster. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    sender: Arc<Sender>,
    namespace: Arc<str>,
}

impl Client {
    /// A client with default options of a cluster whose nodes listen at `endpoints` (`http://host:port`, or
    /// `host:port`). Fails on an endpoint that is not one. Opens no connection.
    pub fn new(endpoints: Vec<String>) -> Result<Self> {
        ClientBuilder::new(endpoints).build()
    }

    /// A client with other options.
    pub fn builder(endpoints: impl IntoIterator<Item = impl Into<String>>) -> ClientBuilder {
        ClientBuilder::new(endpoints.into_iter().map(Into::into).collect())
    }

    pub(crate) fn from_options(endpoints: &[String], options: Options) -> Result<Self> {
        let namespace = options.namespace.as_str().into();
        Ok(Self { sender: Arc::new(Sender::new(endpoints, options)?), namespace })
    }

    /// The same client, for another namespace.
    pub fn with_namespace(&self, namespace: &str) -> Self {
        Self { sender: self.sender.clone(), namespace: namespace.into() }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) async fn send(&self, call: Call) -> Result<Answer> {
        self.sender.send(&call).await
    }

    /// `/v1/namespaces/{namespace}`
    pub(crate) fn target(&self) -> Target {
        Target::new("/v1/namespaces").segment(&self.namespace)
    }
}
