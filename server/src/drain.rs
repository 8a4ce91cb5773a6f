//! The signal that a node is to drain: parts that serve start nothing more, finish what they have, and end.

use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Drain(watch::Receiver<bool>);

/// Gives the signal. Dropping it does too, since then nobody is left who could.
pub(crate) struct Drainer(watch::Sender<bool>);

pub(crate) fn channel() -> (Drainer, Drain) {
    let (sender, receiver) = watch::channel(false);
    (Drainer(sender), Drain(receiver))
}

impl Drainer {
    pub fn drain(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Ends once the node drains.
    pub async fn asked(&mut self) {
        // An error says that the drainer is gone, which means the same.
        let _ = self.0.wait_for(|drain| *drain).await;
    }
}
