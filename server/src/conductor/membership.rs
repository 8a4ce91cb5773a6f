//! Who delivers what: nodes that are heard from get shards, the shards of a lost node move to the others. Every change
//! is an entry of the log with a new epoch, and fences the attempts of the node it takes shards from.
//!
//! A node is lost when its lease has certainly ended: it has not been heard for longer than the lease it was granted.
//! From the moment this is decided it is granted nothing until the log has fenced it, though it be heard again meanwhile.
//! The leader before this one is lost sooner, because its lease was its leadership, and that has ended; but once it has
//! been heard it is a node like others. A node that was removed from the cluster gets no lease from then on, and is lost
//! like one that has fallen silent at that moment.
//!
//! A node that is about to stop gives up its shards and is not fenced: it delivers what it has been given.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use campanile_model::{Command, NodeId, NodeState, ShardId, ShardOwner, ShardTable, Token, planted};
use campanile_raft::{Heard, Lane, Replica};
use campanile_store::StoreError;

use super::{Context, From, Proposal, proposals::Proposals};

/// A node heard within this time is there.
const FRESH: Duration = Duration::from_secs(1);
/// How long a new leader waits for the one before it to be heard.
const PREVIOUS_LEADER_GRACE: Duration = Duration::from_millis(200);

pub(crate) struct Membership {
    node: NodeId,
    previous_leader: Option<NodeId>,
    /// When this reign began.
    since: Instant,
    /// One change at a time, so that each is made from the tables the last one left.
    in_flight: bool,
    /// The tables have to be read again before the next change.
    stale: bool,
    nodes: Vec<NodeState>,
    shards: ShardTable,
    /// Index of these tables.
    tables_at: u64,
    /// The node whose loss has been proposed, and its fence before: lost it is until the fence has moved.
    given_up: Option<(NodeId, Token)>,
}

impl Membership {
    pub fn new(node: NodeId, previous_leader: Option<NodeId>, now: Instant) -> Self {
        Self {
            node,
            previous_leader,
            since: now,
            in_flight: false,
            stale: true,
            nodes: Vec::new(),
            shards: ShardTable { shards: Vec::new() },
            tables_at: 0,
            given_up: None,
        }
    }

    pub fn every_shard_has_an_owner(&self) -> bool {
        !self.shards.shards.is_empty() && self.shards.shards.iter().all(|shard| shard.owner != NodeId(0))
    }

    pub fn shards_moved(&mut self) {
        self.stale = true;
    }

    pub fn finished(&mut self) {
        self.in_flight = false;
        self.stale = true;
    }

    pub fn tick(&mut self, context: &Context, proposals: &mut Proposals) -> Result<(), StoreError> {
        if self.stale {
            let view = context.replica.store().view();
            self.nodes = view.nodes()?;
            self.shards = view.shards()?;
            self.tables_at = view.index();
            self.given_up = self.given_up.filter(|given_up| self.is_up_under(*given_up));
            self.stale = false;
        }
        let replica = &context.replica;
        let now = context.clock.instant();
        let lost = self.lost(&self.heard(replica, now), replica.lost_after(), now);
        // Leases go to the nodes that are up in the tables, and from here on not to the one that is lost.
        let holders = self.nodes.iter().filter(|node| node.up && Some(node.id) != lost);
        replica.grant_leases(holders.map(|node| (node.id, node.incarnation)).collect(), self.tables_at);
        // Asked again: until it was off the list a beat may have been answered, and then it is not lost.
        let heard = self.heard(replica, now);
        if self.in_flight || lost != self.lost(&heard, replica.lost_after(), now) {
            return Ok(());
        }
        if let Some(command) = self.change(lost, &heard, now) {
            self.in_flight = true;
            if let Command::NodeLost { node, .. } = command {
                self.give_up(node);
            }
            proposals.push(Proposal {
                lane: Lane::Fire,
                commands: vec![command],
                from: From::Membership,
                first_due: None,
                dues: Vec::new(),
                decided_at: None,
            });
        }
        Ok(())
    }

    /// Who was heard when; the leader hears itself.
    fn heard(&self, replica: &Replica, now: Instant) -> BTreeMap<NodeId, Heard> {
        let mut heard = replica.heard();
        let (incarnation, drains) = (replica.incarnation(), replica.drains());
        let us =
            Heard { at: now, incarnation, number: 0, ahead_us: Some(0), measured_at: now, is_member: true, drains };
        heard.insert(self.node, us);
        heard
    }

    /// What is to change next. While no other node is up there is nobody to give a lost one's shards to: fires would go on
    /// naming it as the owner, after its fence. So another one comes first.
    fn change(&self, lost: Option<NodeId>, heard: &BTreeMap<NodeId, Heard>, now: Instant) -> Option<Command> {
        match lost {
            Some(lost) if self.nodes.iter().any(|node| node.up && node.id != lost) => Some(self.loss(lost, heard)),
            _ => self
                .arrival(heard, |node| self.silent(heard, node, now) < FRESH)
                .or_else(|| self.departure(heard, lost)),
        }
    }

    fn give_up(&mut self, lost: NodeId) {
        let (early, left) = (planted!(LeaseBeforeFence), planted!(LostNodeGivenShards));
        if early || left {
            return;
        }
        let row = self.nodes.iter().find(|node| node.id == lost);
        self.given_up = row.map(|row| (row.id, row.fence));
    }

    fn is_up_under(&self, (node, fence): (NodeId, Token)) -> bool {
        self.nodes.iter().any(|row| row.id == node && row.up && row.fence == fence)
    }

    /// How long the node has not been heard. One that is not in the table has been removed: since when is not known if
    /// another leader saw it, so it is counted from the beginning of this reign.
    fn silent(&self, heard: &BTreeMap<NodeId, Heard>, node: NodeId, now: Instant) -> Duration {
        now.saturating_duration_since(heard.get(&node).map_or(self.since, |heard| heard.at))
    }

    /// A node that is heard from, and to stay, but is not up, or is up under another incarnation.
    fn arrival(&self, heard: &BTreeMap<NodeId, Heard>, is_fresh: impl Fn(NodeId) -> bool) -> Option<Command> {
        let is_up = |id: NodeId, incarnation: u64| {
            self.nodes.iter().any(|node| node.id == id && node.up && node.incarnation == incarnation)
        };
        let (&node, arrived) = heard
            .iter()
            .filter(|(_, heard)| heard.incarnation != 0 && heard.is_member && !heard.drains)
            .find(|(id, heard)| is_fresh(**id) && !is_up(**id, heard.incarnation))?;
        let shards = rebalance(&self.shards, &staying(self.up_with(node), heard));
        tracing::info!(%node, shards = shards.len(), "node is up");
        Some(Command::NodeUp { node, incarnation: arrived.incarnation, shards })
    }

    /// Shards of nodes that are about to stop go to those that stay, if any does.
    fn departure(&self, heard: &BTreeMap<NodeId, Heard>, lost: Option<NodeId>) -> Option<Command> {
        let up = self.nodes.iter().filter(|node| node.up && Some(node.id) != lost).map(|node| node.id).collect();
        let stay = staying(up, heard);
        let leaves = |shard: &ShardOwner| !stay.contains(&shard.owner) && drains(heard, shard.owner);
        if !self.shards.shards.iter().any(leaves) {
            return None;
        }
        let shards = rebalance(&self.shards, &stay);
        tracing::info!(shards = shards.len(), "nodes are about to stop; their shards move");
        Some(Command::MoveShards { shards })
    }

    /// A node that is up in the tables, but whose lease has ended.
    fn lost(&self, heard: &BTreeMap<NodeId, Heard>, lost_after: Duration, now: Instant) -> Option<NodeId> {
        if let Some((given_up, _)) = self.given_up {
            return Some(given_up);
        }
        let is_lost = |node: NodeId| {
            let never_heard = heard.get(&node).is_none_or(|heard| heard.incarnation == 0);
            let led_before = Some(node) == self.previous_leader && (never_heard || planted!(LeaderBeforeLostAgain));
            self.silent(heard, node, now) > if led_before { PREVIOUS_LEADER_GRACE } else { lost_after }
        };
        self.nodes.iter().filter(|node| node.up).map(|node| node.id).find(|node| is_lost(*node))
    }

    fn loss(&self, lost: NodeId, heard: &BTreeMap<NodeId, Heard>) -> Command {
        let up = self.nodes.iter().filter(|node| node.up && node.id != lost).map(|node| node.id).collect();
        let shards = rebalance(&self.shards, &staying(up, heard));
        tracing::warn!(node = %lost, shards = shards.len(), "node is lost; its shards move");
        Command::NodeLost { node: lost, shards }
    }

    fn up_with(&self, arrived: NodeId) -> Vec<NodeId> {
        let mut up: Vec<NodeId> = self.nodes.iter().filter(|node| node.up).map(|node| node.id).collect();
        if !up.contains(&arrived) {
            up.push(arrived);
            up.sort_unstable();
        }
        up
    }
}

fn drains(heard: &BTreeMap<NodeId, Heard>, node: NodeId) -> bool {
    heard.get(&node).is_some_and(|heard| heard.drains)
}

/// Those of these nodes that are not about to stop; all of them if all are.
fn staying(nodes: Vec<NodeId>, heard: &BTreeMap<NodeId, Heard>) -> Vec<NodeId> {
    let stay: Vec<NodeId> = nodes.iter().copied().filter(|node| !drains(heard, *node)).collect();
    if stay.is_empty() { nodes } else { stay }
}

/// The fewest moves after which every shard is owned by one of `up` and none of them owns more than its fair share.
fn rebalance(table: &ShardTable, up: &[NodeId]) -> Vec<(ShardId, NodeId)> {
    if up.is_empty() {
        return Vec::new();
    }
    let count = usize::from(ShardId::COUNT);
    // The first nodes, in order, take one more each where the division leaves a rest.
    let fair = |position: usize| count / up.len() + usize::from(position < count % up.len());
    let mut room: BTreeMap<NodeId, usize> =
        up.iter().enumerate().map(|(position, node)| (*node, fair(position))).collect();
    let owner = |shard: u16| table.shards.get(usize::from(shard)).map_or(NodeId(0), |shard| shard.owner);
    let mut homeless = Vec::new();
    for shard in 0..ShardId::COUNT {
        match room.get_mut(&owner(shard)) {
            Some(left) if *left > 0 => *left -= 1,
            _ => homeless.push(ShardId(shard)),
        }
    }
    let places = room.into_iter().flat_map(|(node, left)| std::iter::repeat_n(node, left));
    homeless.into_iter().zip(places).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard_at(at: Instant, incarnation: u64) -> Heard {
        Heard { at, incarnation, number: 0, ahead_us: None, measured_at: at, is_member: true, drains: false }
    }

    fn moved(table: &ShardTable, moves: &[(ShardId, NodeId)]) -> ShardTable {
        let mut shards = table.shards.clone();
        shards.resize(usize::from(ShardId::COUNT), ShardOwner::default());
        for (shard, owner) in moves {
            shards[usize::from(shard.0)].owner = *owner;
        }
        ShardTable { shards }
    }

    fn owned(table: &ShardTable, node: u64) -> usize {
        table.shards.iter().filter(|shard| shard.owner == NodeId(node)).count()
    }

    #[test]
    fn a_removed_node_is_lost_when_its_lease_has_ended() {
        let now = campanile_raft::Clock::system().instant();
        let at = |ms| now + Duration::from_millis(ms);
        let row = |id| NodeState { id: NodeId(id), incarnation: 7, up: true, ..NodeState::default() };
        let mut membership = Membership::new(NodeId(1), None, at(0));
        membership.nodes = vec![row(1), row(2)];
        let lost_after = Duration::from_millis(1000);
        let lost = |heard: &BTreeMap<NodeId, Heard>, now| {
            let heard = heard.clone().into_iter().chain([(NodeId(1), heard_at(now, 7))]).collect();
            membership.lost(&heard, lost_after, now)
        };
        let removed = |at| Heard { is_member: false, ..heard_at(at, 7) };
        // Removed while this node led, and by the leader before it.
        let seen = BTreeMap::from([(NodeId(2), removed(at(5000)))]);
        for (heard, removed_at) in [(seen, 5000), (BTreeMap::new(), 0)] {
            assert_eq!(lost(&heard, at(removed_at + 1000)), None);
            assert_eq!(lost(&heard, at(removed_at + 1001)), Some(NodeId(2)));
        }
        // It does not come back, whatever it says of itself.
        let again = BTreeMap::from([(NodeId(2), Heard { incarnation: 8, ..removed(at(5000)) })]);
        assert!(membership.arrival(&again, |_| true).is_none());
    }

    #[test]
    fn the_leader_before_is_lost_soon_until_it_has_been_heard() {
        let now = campanile_raft::Clock::system().instant();
        let at = |ms| now + Duration::from_millis(ms);
        let mut membership = Membership::new(NodeId(1), Some(NodeId(2)), at(0));
        membership.nodes = vec![NodeState { id: NodeId(2), incarnation: 7, up: true, ..NodeState::default() }];
        let lost_after = Duration::from_millis(1000);
        let heard = |ms, incarnation| BTreeMap::from([(NodeId(2), heard_at(at(ms), incarnation))]);
        let grace = PREVIOUS_LEADER_GRACE.as_millis() as u64;
        assert_eq!(membership.lost(&heard(0, 0), lost_after, at(grace)), None);
        assert_eq!(membership.lost(&heard(0, 0), lost_after, at(grace + 1)), Some(NodeId(2)));
        // Heard now and then, it would be lost and come back again and again.
        assert_eq!(membership.lost(&heard(50, 7), lost_after, at(1050)), None);
        assert_eq!(membership.lost(&heard(50, 7), lost_after, at(1051)), Some(NodeId(2)));
    }

    #[test]
    fn no_shard_is_left_with_a_fenced_node() {
        let now = campanile_raft::Clock::system().instant();
        let row = |id, up| NodeState { id: NodeId(id), incarnation: 7, up, ..NodeState::default() };
        let mut membership = Membership::new(NodeId(2), Some(NodeId(1)), now);
        membership.shards =
            moved(&ShardTable { shards: Vec::new() }, &rebalance(&ShardTable { shards: Vec::new() }, &[NodeId(1)]));
        membership.nodes = vec![row(1, true), row(2, false)];
        let heard = BTreeMap::from([(NodeId(2), heard_at(now, 8))]);
        // The leader before was the only one up, and is lost.
        let first = membership.change(Some(NodeId(1)), &heard, now);
        assert!(matches!(first, Some(Command::NodeUp { node: NodeId(2), .. })), "{first:?}");
        membership.nodes = vec![row(1, true), NodeState { incarnation: 8, ..row(2, true) }];
        let Some(Command::NodeLost { node: NodeId(1), shards }) = membership.change(Some(NodeId(1)), &heard, now)
        else {
            panic!("node 1 is lost now");
        };
        assert_eq!(shards.len(), 256);
    }

    #[test]
    fn who_is_given_up_is_lost_until_it_is_fenced() {
        let now = campanile_raft::Clock::system().instant();
        let late = now + Duration::from_secs(5);
        let row = |id| NodeState { id: NodeId(id), incarnation: 7, up: true, fence: Token(40) };
        let mut membership = Membership::new(NodeId(1), None, now);
        membership.nodes = vec![row(1), row(2)];
        let heard = |second| BTreeMap::from([(NodeId(1), heard_at(late, 7)), (NodeId(2), heard_at(second, 7))]);
        let lost = |membership: &Membership, second| membership.lost(&heard(second), Duration::from_secs(1), late);
        assert_eq!(lost(&membership, late), None);
        assert_eq!(lost(&membership, now), Some(NodeId(2)));
        membership.give_up(NodeId(2));
        assert_eq!(lost(&membership, late), Some(NodeId(2)), "it is heard, and its fence is on its way");
        assert!(membership.is_up_under((NodeId(2), Token(40))));
        membership.nodes[1].fence = Token(41);
        assert!(!membership.is_up_under((NodeId(2), Token(40))));
    }

    #[test]
    fn a_node_that_is_about_to_stop_gives_up_its_shards() {
        let now = campanile_raft::Clock::system().instant();
        let row = |id| NodeState { id: NodeId(id), incarnation: 7, up: true, ..NodeState::default() };
        let nodes = [1, 2, 3].map(NodeId);
        let none = ShardTable { shards: Vec::new() };
        let mut membership = Membership::new(NodeId(1), None, now);
        membership.nodes = vec![row(1), row(2), row(3)];
        membership.shards = moved(&none, &rebalance(&none, &nodes));
        let heard = |leaving: &[u64]| -> BTreeMap<NodeId, Heard> {
            nodes.map(|id| (id, Heard { drains: leaving.contains(&id.0), ..heard_at(now, 7) })).into()
        };
        assert_eq!(membership.change(None, &heard(&[]), now), None);
        let Some(Command::MoveShards { shards }) = membership.change(None, &heard(&[2]), now) else {
            panic!("its shards move");
        };
        membership.shards = moved(&membership.shards, &shards);
        assert_eq!([1, 2, 3].map(|node| owned(&membership.shards, node)), [128, 0, 128]);
        assert_eq!(membership.change(None, &heard(&[2]), now), None, "once");
        // It does not get any back, whoever else goes or comes.
        let Some(Command::NodeLost { shards, .. }) = membership.change(Some(NodeId(3)), &heard(&[2]), now) else {
            panic!("node 3 is lost");
        };
        assert_eq!(owned(&moved(&membership.shards, &shards), 1), 256);
        membership.nodes[1].up = false;
        assert_eq!(membership.change(None, &heard(&[2]), now), None, "lost, it does not come back");
        // Where nobody stays nothing moves.
        assert_eq!(membership.change(None, &heard(&[1, 2, 3]), now), None);
    }

    #[test]
    fn shards_are_shared_fairly_with_the_fewest_moves() {
        let none = ShardTable { shards: Vec::new() };
        let one = moved(&none, &rebalance(&none, &[NodeId(1)]));
        assert_eq!(owned(&one, 1), 256);
        let moves = rebalance(&one, &[NodeId(1), NodeId(2)]);
        assert_eq!(moves.len(), 128);
        let two = moved(&one, &moves);
        let moves = rebalance(&two, &[NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(moves.len(), 85);
        let three = moved(&two, &moves);
        assert_eq!([1, 2, 3].map(|node| owned(&three, node)), [86, 85, 85]);
        let moves = rebalance(&three, &[NodeId(1), NodeId(3)]);
        assert_eq!(moves.len(), 85);
        let without = moved(&three, &moves);
        assert_eq!([1, 2, 3].map(|node| owned(&without, node)), [128, 0, 128]);
        assert!(rebalance(&without, &[NodeId(1), NodeId(3)]).is_empty());
        assert!(rebalance(&without, &[]).is_empty());
    }
}
