//! Reports of ended attempts on their way to the log: gathered while the batch before them is being committed, so that
//! one entry carries many, and tried again until the log has answered. A report whose attempt was taken away meanwhile
//! is refused by its token, which is as it should be.

use std::sync::Arc;
use std::time::Duration;

use campanile_model::{Command, OutcomeLine, Reply, bound, filled, planted};
use campanile_raft::{Clock, Lane, ProposeError, Replica, rt};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

/// Reports that may wait; beyond that deliveries wait.
const WAITING: usize = 8192;
/// Reports of one command.
const LINES: usize = 1000;
/// Commits in flight.
const IN_FLIGHT: usize = 2;
const REPEAT_AFTER: Duration = Duration::from_millis(50);

/// Takes reports for the log.
pub(crate) struct Reporter {
    inbox: mpsc::Sender<OutcomeLine>,
    idle: oneshot::Receiver<()>,
}

impl Reporter {
    pub fn start(replica: Replica, clock: Clock, metrics: Arc<Metrics>) -> Self {
        let (inbox, reports) = mpsc::channel(bound!(OutcomesWaiting, WAITING));
        let (done, idle) = oneshot::channel();
        rt::spawn(async move {
            run(reports, replica, clock, metrics).await;
            let _ = done.send(());
        });
        Self { inbox, idle }
    }

    pub fn sender(&self) -> mpsc::Sender<OutcomeLine> {
        self.inbox.clone()
    }

    /// Ends when every report has been answered.
    pub async fn close(self) {
        drop(self.inbox);
        let _ = self.idle.await;
    }
}

async fn run(mut inbox: mpsc::Receiver<OutcomeLine>, replica: Replica, clock: Clock, metrics: Arc<Metrics>) {
    let places = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
    while let Some(first) = inbox.recv().await {
        // While this waits for its place, more reports gather.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let mut lines = vec![first];
        while lines.len() < bound!(OutcomeLines, LINES) {
            match inbox.try_recv() {
                Ok(line) => lines.push(line),
                Err(_) => break,
            }
        }
        filled!("outcome lines", lines.len(), bound!(OutcomeLines, LINES));
        let (replica, clock, metrics) = (replica.clone(), clock.clone(), metrics.clone());
        rt::spawn(async move {
            commit(lines, &replica, &clock, &metrics).await;
            drop(place);
        });
    }
    // All places free: nothing is in flight.
    let _ = places.acquire_many(IN_FLIGHT as u32).await;
}

async fn commit(lines: Vec<OutcomeLine>, replica: &Replica, clock: &Clock, metrics: &Metrics) {
    let command = Command::Outcomes { lines };
    loop {
        match replica.propose(Lane::Outcome, vec![command.clone()]).await {
            Ok(replies) => {
                for reply in replies {
                    if let Reply::Outcomes { accepted } = reply {
                        let refused = accepted.iter().filter(|accepted| !**accepted).count();
                        metrics.outcomes_refused.inc_by(refused as u64);
                    }
                }
                return;
            }
            Err(ProposeError::ShuttingDown) => return,
            Err(_) if planted!(OutcomeDropped) => return,
            Err(error) => {
                tracing::debug!(%error, "outcomes were not committed; trying again");
                clock.sleep(REPEAT_AFTER).await;
            }
        }
    }
}
