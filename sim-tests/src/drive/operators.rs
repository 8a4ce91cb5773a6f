//! Operators: ask for changes of members and of leadership, write down what they are answered, and try again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use campanile_client::{Client, Error, ErrorKind};
use campanile_model::NodeId;
use campanile_model::api::{AddNode, ClusterView, Role};

use super::clients::connect;
use super::recorder::Recorder;
use crate::history::{Event, Told, Wanted};

/// Tries of one change, and the pause between them.
const TRIES: usize = 12;
const PAUSE: Duration = Duration::from_millis(500);

/// Numbers changes and calls, and records them. Clones share the numbers.
#[derive(Clone)]
pub struct Operators {
    recorder: Recorder,
    /// Where a node listens for its peers.
    peer: fn(NodeId) -> String,
    calls: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

/// A node that is asked, and where.
pub type Helper = (NodeId, String);

impl Operators {
    pub fn new(recorder: Recorder, peer: fn(NodeId) -> String) -> Self {
        Self { recorder, peer, calls: Arc::new(AtomicU64::new(1)), changes: Arc::new(AtomicU64::new(1)) }
    }

    /// Asks once. If it fails, leadership stays.
    pub async fn hand_over(&self, helper: Helper, to: NodeId) {
        let change = self.changes.fetch_add(1, Ordering::Relaxed);
        if !self.ask(&helper, change, Wanted::TransferLeader { to }).await {
            self.recorder.record(Event::GaveUp { change });
        }
    }

    /// Makes these changes, one after the other, each with the help of one node after another. What comes after one that
    /// cannot be made is not tried.
    pub async fn change_members(&self, helpers: Vec<Helper>, wanted: Vec<Wanted>) {
        for wanted in wanted {
            let change = self.changes.fetch_add(1, Ordering::Relaxed);
            let mut made = false;
            for helper in helpers.iter().cycle().take(TRIES) {
                made = self.ask(helper, change, wanted).await;
                if made {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
            if !made {
                self.recorder.record(Event::GaveUp { change });
                return;
            }
        }
    }

    /// Asks a node once. Whether it is as wanted now, by this call or by an earlier one.
    async fn ask(&self, (node, address): &Helper, change: u64, wanted: Wanted) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.recorder.record(Event::Ask { call, change, node: *node, wanted });
        let client = match connect(address) {
            Ok(client) => client,
            Err(error) => {
                self.recorder.record(Event::Told { call, answer: learned(&error) });
                return false;
            }
        };
        let answer = match self.make(&client, wanted).await {
            Ok(_) => Told::Done,
            Err(error) => learned(&error),
        };
        let is_done = answer == Told::Done;
        self.recorder.record(Event::Told { call, answer });
        // An earlier try may have done it after all. A node that does not tell is as one that says no.
        is_done || client.cluster().await.is_ok_and(|view| is_so(&view, wanted))
    }

    async fn make(&self, client: &Client, wanted: Wanted) -> Result<ClusterView, Error> {
        match wanted {
            Wanted::AddNode { id } => client.add_node(&AddNode { id, peer: (self.peer)(id) }).await,
            Wanted::RemoveNode { id } => client.remove_node(id).await,
            Wanted::TransferLeader { to } => client.transfer_leader(to).await,
        }
    }
}

fn is_so(view: &ClusterView, wanted: Wanted) -> bool {
    let role = |id| view.nodes.iter().find(|member| member.id == id).map(|member| member.role);
    match wanted {
        Wanted::AddNode { id } => role(id).is_some_and(|role| role != Role::Learner),
        Wanted::RemoveNode { id } => role(id).is_none(),
        Wanted::TransferLeader { to } => view.leader == Some(to),
    }
}

/// What a failed call tells.
fn learned(error: &Error) -> Told {
    match (error.kind(), error.problem()) {
        (ErrorKind::Refused, Some(problem)) => {
            Told::Refused { status: problem.status, code: problem.code.clone(), detail: problem.detail.clone() }
        }
        (ErrorKind::Unreachable, _) => {
            Told::Refused { status: 0, code: "unreachable".into(), detail: error.to_string() }
        }
        _ => Told::Unknown { reason: error.to_string() },
    }
}
