//! Who leads, as one value to watch: openraft's word for it, and whether the leader has applied enough to speak.

use campanile_model::NodeId;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::vote::RaftLeaderId;
use tokio::sync::watch;

use crate::state_machine::{Position, Raft};
use crate::types::term_of;

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<NodeId>,
    pub term: u64,
    /// This node leads.
    pub is_leader: bool,
    /// This node leads and has applied its term's first entry, hence everything committed before its term.
    pub ready: bool,
}

/// Where a member's peer listener is, by the newest membership this node knows.
pub fn address_of(raft: &Raft, node: NodeId) -> Option<String> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.get_node(&node.0).map(|node| node.peer.clone())
}

/// Keeps the value up to date until openraft stops.
pub async fn follow(raft: Raft, mut position: watch::Receiver<Position>, leadership: watch::Sender<Leadership>) {
    let mut metrics = raft.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            let position = position.borrow_and_update();
            let term = metrics.vote.leader_id().term();
            let is_leader = metrics.state == ServerState::Leader;
            Leadership {
                leader: metrics.current_leader.map(NodeId),
                term,
                is_leader,
                ready: is_leader && position.applied.as_ref().is_some_and(|applied| term_of(applied) == term),
            }
        };
        leadership.send_if_modified(|current| std::mem::replace(current, now) != now);
        // Positions matter only while a leader is getting ready: nobody is woken for every applied entry.
        let getting_ready = now.is_leader && !now.ready;
        tokio::select! {
            biased;
            changed = metrics.changed() => if changed.is_err() { return },
            changed = position.changed(), if getting_ready => if changed.is_err() { return },
        }
    }
}
