//! What an operator wants to know of the cluster, as one node sees it.

use std::time::Duration;

use campanile_model::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::vote::RaftLeaderId;

use crate::identity::ClusterId;
use crate::node::Node;
use crate::types::{LogId, PeerNode, term_of};

/// The cluster as this node sees it. What only the leader knows is absent on other nodes.
#[derive(Clone, Debug)]
pub struct Status {
    pub node: NodeId,
    pub cluster: Option<ClusterId>,
    pub leader: Option<NodeId>,
    pub term: u64,
    /// Whom this node has voted for in the term, or follows.
    pub voted_for: NodeId,
    /// Whether that node is known to have been elected.
    pub elected: bool,
    /// Index of the last entry applied on this node.
    pub applied: u64,
    pub committed: u64,
    pub last_log: u64,
    /// Index of the last entry in this node's latest snapshot: its state is durable up to there.
    pub snapshot: u64,
    /// Index of the last entry purged from its log.
    pub purged: u64,
    pub nodes: Vec<NodeStatus>,
    /// Term and index of the entry that made them members.
    pub members_since: (u64, u64),
    /// Whether of two sets of voters a majority of each is needed.
    pub joint: bool,
}

#[derive(Clone, Debug)]
pub struct NodeStatus {
    pub id: NodeId,
    pub role: Role,
    pub peer: String,
    pub api: String,
    /// Entries the leader has that this node has not acknowledged. Leader only.
    pub lag: Option<u64>,
    /// How long ago the leader heard it. Leader only.
    pub last_heard: Option<Duration>,
    /// How far its wall clock is ahead of the leader's. Leader only, and each node of itself.
    pub clock_skew_ms: Option<f64>,
    pub incarnation: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Learner,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        }
    }
}

impl Node {
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let membership = metrics.membership_config.membership().clone();
        let answering = self.beats.answering_leader();
        let leader = answering.map(|leader| leader.0);
        let voters: Vec<u64> = membership.voter_ids().collect();
        let members_since = *metrics.membership_config.log_id();
        let members_since = members_since.map_or((0, 0), |id| (term_of(&id), id.index));
        let heard = self.beats.heard();
        let now = self.clock.instant();
        let us = self.identity.node();
        let last_log = metrics.last_log_index.unwrap_or(0);
        let status_of = |id: u64, node: &PeerNode| {
            let heard = heard.get(&NodeId(id));
            let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id));
            NodeStatus {
                id: NodeId(id),
                role: match id {
                    id if leader == Some(id) => Role::Leader,
                    id if voters.contains(&id) => Role::Follower,
                    _ => Role::Learner,
                },
                peer: node.peer.clone(),
                api: node.api.clone(),
                lag: match matched {
                    Some(matched) => Some(last_log.saturating_sub(index(*matched))),
                    None => (leader == Some(id) && us.0 == id).then_some(0),
                },
                last_heard: heard.map(|heard| now.saturating_duration_since(heard.at)),
                clock_skew_ms: match heard {
                    Some(heard) => heard.ahead_us.map(|ahead| ahead as f64 / 1000.0),
                    None if us.0 == id => self.beats.clock_skew_ms(),
                    None => None,
                },
                incarnation: match heard {
                    Some(heard) => Some(heard.incarnation).filter(|incarnation| *incarnation != 0),
                    None => (us.0 == id).then(|| self.beats.incarnation()),
                },
            }
        };
        Status {
            node: us,
            cluster: self.identity.cluster(),
            leader: answering,
            term: metrics.vote.leader_id().term(),
            voted_for: NodeId(*metrics.vote.leader_id().node_id()),
            elected: metrics.vote.is_committed(),
            applied: index(metrics.last_applied),
            committed: index(metrics.local_committed),
            last_log,
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
            nodes: membership.nodes().map(|(id, node)| status_of(*id, node)).collect(),
            members_since,
            joint: membership.get_joint_config().len() > 1,
        }
    }
}
