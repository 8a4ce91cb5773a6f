//! Changes of members and of leadership. Any node takes the request; the leader makes the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use campanile_model::{Command, NodeId, planted, sometimes};
use campanile_store::Store;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use tokio::sync::{Mutex, watch};

use crate::beats::Beats;
use crate::clock;
use crate::error::{MembershipError, ProposeError};
use crate::identity::Identity;
use crate::leadership::{Leadership, address_of};
use crate::network::channel::CallError;
use crate::network::client::{Peers, Traffic};
use crate::network::wire::{self, HelloAnswer, MembersAnswer, MembersMessage};
use crate::proposer::{Lane, Proposer};
use crate::rt;
use crate::state_machine::Raft;
use crate::types::{PeerNode, StoredMembership, TypeConfig};

/// How long the newcomer may take to answer a greeting.
const HELLO: Duration = Duration::from_secs(1);
const HELLO_TRIES: u32 = 8;
const HELLO_AGAIN: Duration = Duration::from_millis(250);
/// How long a newcomer may take to catch up, snapshot included.
const CATCH_UP: Duration = Duration::from_secs(600);
/// How long a change may take to be committed.
const CHANGE: Duration = Duration::from_secs(20);
/// Between two attempts to finish what was left half made.
const FINISH_AGAIN: Duration = Duration::from_millis(250);
/// How long a transfer of leadership may take.
const TRANSFER: Duration = Duration::from_secs(5);

/// Changes members. Clones are the same.
#[derive(Clone)]
pub struct Members {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    raft: Raft,
    peers: Peers,
    beats: Beats,
    leadership: watch::Receiver<Leadership>,
    store: Store,
    proposer: Proposer,
    /// Held by whoever changes the voters: one change at a time.
    turn: Mutex<()>,
}

/// What changes of members are made with.
pub struct Parts {
    pub identity: Identity,
    pub raft: Raft,
    pub peers: Peers,
    pub beats: Beats,
    pub leadership: watch::Receiver<Leadership>,
    pub store: Store,
    pub proposer: Proposer,
}

impl Members {
    pub fn new(parts: Parts) -> Self {
        let Parts { identity, raft, peers, beats, leadership, store, proposer } = parts;
        let turn = Mutex::default();
        Self { inner: Arc::new(Inner { identity, raft, peers, beats, leadership, store, proposer, turn }) }
    }

    /// While this node leads, finishes what was left half made, until it stops. A change of voters has two steps, and
    /// between them a majority of the old and one of the new is needed (joint consensus, §6 of the Raft paper). The
    /// leader that makes the first may be lost before the second, or have it refused, or whoever asked may go away.
    pub async fn finish_changes(self, mut stopping: watch::Receiver<bool>) {
        let inner = self.inner;
        let mut metrics = inner.raft.server_metrics();
        loop {
            let finishing = async {
                metrics.borrow_and_update();
                if !inner.finish_change().await {
                    clock::sleep(FINISH_AGAIN).await;
                } else if metrics.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = finishing => {}
            }
        }
    }

    /// Makes the change, here or on the leader.
    pub async fn change(&self, message: MembersMessage) -> Result<(), MembershipError> {
        let leadership = *self.inner.leadership.borrow();
        let leader = leadership.leader.ok_or(MembershipError::NoLeader)?;
        if leadership.is_leader {
            return self.inner.change(message).await;
        }
        let address = address_of(&self.inner.raft, leader).ok_or(MembershipError::NoLeader)?;
        let channel = self.inner.peers.channel(leader, &address, Traffic::Control);
        match channel.call(wire::MEMBERS, &message, CATCH_UP + CHANGE).await {
            Ok(MembersAnswer::Done) => Ok(()),
            Ok(MembersAnswer::Failed(error)) => Err(error),
            Err(error) if error.had_no_effect() => Err(MembershipError::NoLeader),
            Err(_) => Err(MembershipError::TimedOut),
        }
    }

    /// Answers another node. It is not passed on again.
    pub async fn serve(&self, message: MembersMessage) -> MembersAnswer {
        if !self.inner.leadership.borrow().is_leader {
            return MembersAnswer::Failed(MembershipError::NoLeader);
        }
        match self.inner.change(message).await {
            Ok(()) => MembersAnswer::Done,
            Err(error) => MembersAnswer::Failed(error),
        }
    }
}

impl Inner {
    async fn change(&self, message: MembersMessage) -> Result<(), MembershipError> {
        match message {
            MembersMessage::Add { node, peer } => self.add(node, peer).await,
            MembersMessage::Remove { node } => self.remove(node).await,
            MembersMessage::Transfer { to } => self.transfer(to).await,
        }
    }

    fn membership(&self) -> Arc<StoredMembership> {
        self.raft.server_metrics().borrow_watched().membership_config.clone()
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.membership().voter_ids().any(|voter| voter == node.0)
    }

    /// As a learner, until it has caught up, and then as a voter: a newcomer never weakens the quorum.
    async fn add(&self, node: NodeId, peer: String) -> Result<(), MembershipError> {
        if self.is_voter(node) {
            return Err(MembershipError::AlreadyMember(node));
        }
        let known = self.membership().get_node(&node.0).is_some();
        if !known && self.is_remembered(node)? {
            let reason = format!("node {node} was a member before; ids are not used again");
            return Err(MembershipError::Refused(reason));
        }
        let hello = self.greet(node, &peer).await;
        let hello = hello.map_err(|error| MembershipError::Refused(format!("node {node} at {peer}: {error}")))?;
        let ours = self.identity.cluster().map(|cluster| cluster.0);
        if hello.cluster != ours {
            let reason = format!("node {node} is not of this cluster; start it with --join first");
            return Err(MembershipError::Refused(reason));
        }
        if !known && !hello.empty {
            let reason = format!("node {node} has data of an earlier membership; ids are not used again");
            return Err(MembershipError::Refused(reason));
        }
        let member = PeerNode { peer, api: hello.api };
        written(rt::timeout(CATCH_UP, self.raft.add_learner(node.0, member, true)).await)?;
        self.change_voters(ChangeMembers::AddVoterIds(BTreeSet::from([node.0])), true).await
    }

    /// Makes both steps of a change of voters.
    async fn change_voters(&self, change: ChangeMembers<u64, PeerNode>, retain: bool) -> Result<(), MembershipError> {
        let _turn = self.turn.lock().await;
        let before = *self.membership().log_id();
        let made = written(rt::timeout(CHANGE, self.raft.change_membership(change, retain)).await);
        // Once the first step is in the log, an error is about the second: the change may yet be made.
        made.map_err(|error| if *self.membership().log_id() == before { error } else { MembershipError::TimedOut })
    }

    /// The second step of a change whose first one stands alone. Whether nothing is left half made that this node could
    /// finish.
    async fn finish_change(&self) -> bool {
        let is_left = || {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            metrics.state == ServerState::Leader && metrics.membership_config.membership().get_joint_config().len() > 1
        };
        if !is_left() || planted!(ChangeLeftHalfMade) {
            return true;
        }
        let _turn = self.turn.lock().await;
        if !is_left() {
            return true;
        }
        // To the newer of the two sets of voters, without those that are only in the older one.
        let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
        let made = written(rt::timeout(CHANGE, self.raft.change_membership(nobody, false)).await);
        match &made {
            Ok(()) => {
                sometimes!(ChangeFinished);
                tracing::info!("finished a change of members that was left half made");
            }
            Err(error) => tracing::debug!(%error, "a change of members is half made; trying again to finish it"),
        }
        made.is_ok()
    }

    /// Whether the state has a row of the node: it is, or was, a member.
    fn is_remembered(&self, node: NodeId) -> Result<bool, MembershipError> {
        if !self.leadership.borrow().ready {
            return Err(MembershipError::NoLeader);
        }
        let rows = self.store.view().nodes().map_err(|error| MembershipError::Refused(error.to_string()))?;
        Ok(rows.iter().any(|row| row.id == node))
    }

    async fn remember(&self, node: NodeId) -> Result<(), MembershipError> {
        match self.proposer.propose(Lane::Api, vec![Command::NodeRemoved { node }]).await {
            Ok(_) => Ok(()),
            Err(ProposeError::OutcomeUnknown) => Err(MembershipError::TimedOut),
            Err(ProposeError::NoLeader | ProposeError::ShuttingDown) => Err(MembershipError::NoLeader),
            Err(error) => Err(MembershipError::Refused(error.to_string())),
        }
    }

    /// Asks the newcomer who it is; a few times, since it may have started a moment ago and not have heard yet which
    /// cluster it is to join.
    async fn greet(&self, node: NodeId, peer: &str) -> Result<HelloAnswer, CallError> {
        let channel = self.peers.channel(node, peer, Traffic::Control);
        let mut tries = 0;
        loop {
            tries += 1;
            let result: Result<HelloAnswer, CallError> = channel.ask(wire::HELLO, HELLO).await;
            let early = match &result {
                Ok(hello) => hello.cluster.is_none(),
                Err(error) => matches!(error, CallError::Unreachable(_)),
            };
            if !early || tries == HELLO_TRIES {
                return result;
            }
            clock::sleep(HELLO_AGAIN).await;
        }
    }

    async fn remove(&self, node: NodeId) -> Result<(), MembershipError> {
        let membership = self.membership();
        if membership.get_node(&node.0).is_none() {
            return Err(MembershipError::NotMember(node));
        }
        if self.is_voter(node) && membership.voter_ids().count() == 1 {
            return Err(MembershipError::LastVoter(node));
        }
        if !self.is_remembered(node)? {
            // First, so that it is remembered whatever happens to this leader in between.
            self.remember(node).await?;
        }
        if planted!(RemovalNotMade) {
            return Ok(());
        }
        let change = if self.is_voter(node) {
            ChangeMembers::RemoveVoters(BTreeSet::from([node.0]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([node.0]))
        };
        self.change_voters(change, false).await?;
        let left: BTreeMap<u64, PeerNode> = crate::types::members(self.membership().membership());
        self.peers.keep_only(|member| left.contains_key(&member.0));
        Ok(())
    }

    async fn transfer(&self, to: NodeId) -> Result<(), MembershipError> {
        if !self.is_voter(to) {
            return Err(MembershipError::NotMember(to));
        }
        if let Some(off_ms) = self.beats.clock_off_ms(to) {
            // It would lead, and not be allowed to fire.
            let reason = format!("the clock of node {to} is {off_ms} ms off the leader's");
            return Err(MembershipError::Refused(reason));
        }
        let stopped = |_| MembershipError::NoLeader;
        self.beats.hand_over(to).await.map_err(|_| MembershipError::NoLeader)?;
        let mut leadership = self.leadership.clone();
        match rt::timeout(TRANSFER, leadership.wait_for(|now| now.leader == Some(to))).await {
            Some(result) => result.map(|_| ()).map_err(stopped),
            None => Err(MembershipError::TimedOut),
        }
    }
}

/// What became of a change of members.
fn written<T>(
    result: Option<Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
) -> Result<(), MembershipError> {
    match result {
        None => Err(MembershipError::TimedOut),
        Some(Ok(_)) => Ok(()),
        Some(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(MembershipError::NoLeader),
        Some(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => Err(MembershipError::TimedOut),
        Some(Err(error)) => Err(MembershipError::Refused(error.to_string())),
    }
}
