//! The one way a node dies of a bad disk: whoever finds out raises it, the program that runs the node waits for it.

use tokio::sync::watch;

/// An error after which the node must not go on. The first one stands. Clones share it.
#[derive(Clone, Debug)]
pub struct Fatal(watch::Sender<Option<String>>);

impl Default for Fatal {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Fatal {
    pub fn raise(&self, reason: String) {
        self.0.send_if_modified(|current| {
            if current.is_some() {
                return false;
            }
            tracing::error!(%reason, "the node must stop");
            *current = Some(reason);
            true
        });
    }

    /// Waits until the node must stop, and says why.
    pub async fn raised(&self) -> String {
        let mut receiver = self.0.subscribe();
        // The sender is held by `self`, so this waits until there is a reason.
        let reason = receiver.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| "the node stopped without a reason".into())
    }
}
