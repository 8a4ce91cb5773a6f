//! `NodeUp`, `NodeLost`, `MoveShards`, `NodeRemoved`: which nodes deliver what, and from which token on their outcomes
//! count.
//!
//! A node's row is never removed. After the node has gone its fence still refuses what it may report, and the row shows
//! that its id has been used.

use campanile_model::{Code, NodeId, NodeState, Reply, ShardId, ShardOwner, Token, planted};

use super::context::{Answer, Apply, reject};
use crate::effect::Effect;
use crate::tables;

impl Apply<'_> {
    pub fn node_up(&mut self, id: NodeId, incarnation: u64, shards: &[(ShardId, NodeId)]) -> Answer {
        if id == NodeId::default() {
            return reject(Code::InvalidField, "0 is not a node's id");
        }
        let known = self.cached.nodes.get(&id).cloned();
        let place = Token::at(self.next_place());
        let fence = match &known {
            Some(node) if node.incarnation == incarnation => node.fence,
            _ => place,
        };
        self.set_node(NodeState { id, incarnation, fence, up: true });
        if known.is_some_and(|node| node.incarnation != incarnation) {
            self.emit(Effect::NodeFenced { node: id, fence });
        }
        self.move_shards(shards, place);
        Ok(Reply::Done)
    }

    pub fn node_lost(&mut self, id: NodeId, shards: &[(ShardId, NodeId)]) -> Answer {
        let Some(node) = self.cached.nodes.get(&id).cloned() else {
            return reject(Code::NodeNotFound, format!("node {id} was never up"));
        };
        let fence = if planted!(ShardOwnerWithoutEpoch) { node.fence } else { Token::at(self.next_place()) };
        self.set_node(NodeState { fence, up: false, ..node });
        self.emit(Effect::NodeFenced { node: id, fence });
        self.move_shards(shards, fence);
        Ok(Reply::Done)
    }

    pub fn shards_given(&mut self, shards: &[(ShardId, NodeId)]) -> Answer {
        let place = Token::at(self.next_place());
        self.move_shards(shards, place);
        Ok(Reply::Done)
    }

    /// Membership itself is not the state machine's. What a member leaves behind moves when it is lost.
    pub fn node_removed(&mut self, id: NodeId) -> Answer {
        if !self.cached.nodes.contains_key(&id) {
            let fence = Token::at(self.next_place());
            self.set_node(NodeState { id, fence, ..NodeState::default() });
        }
        Ok(Reply::Done)
    }

    fn set_node(&mut self, node: NodeState) {
        tables::put_node(self.overlay, &node);
        self.cached.nodes.insert(node.id, node);
    }

    /// Gives the shards to the nodes listed, then those whose owner is not up to the nodes that are, in turn: the list
    /// was made from tables that another change may have overtaken, and an attempt is never to be handed to a node that
    /// is not there. While no node is up, nobody owns them. Every move is under a new epoch. Shards that the cluster
    /// does not have are ignored.
    fn move_shards(&mut self, shards: &[(ShardId, NodeId)], place: Token) {
        let as_listed = planted!(LostNodeGivenShards);
        let up: Vec<NodeId> = self.cached.nodes.values().filter(|node| node.up).map(|node| node.id).collect();
        let (mut moved, mut adopted) = (false, false);
        let mut give = |entry: &mut ShardOwner, owner: NodeId| {
            moved = true;
            adopted |= entry.owner == NodeId::default();
            entry.owner = owner;
            entry.epoch += 1;
        };
        for (shard, owner) in shards.iter().filter(|(_, owner)| as_listed || up.contains(owner)) {
            if let Some(entry) = self.cached.shards.shards.get_mut(usize::from(shard.0)) {
                give(entry, *owner);
            }
        }
        let mut heirs = up.iter().copied().cycle();
        let homeless = |entry: &&mut ShardOwner| !as_listed && !up.contains(&entry.owner);
        for entry in self.cached.shards.shards.iter_mut().filter(homeless) {
            let heir = heirs.next().unwrap_or_default();
            if entry.owner != heir {
                give(entry, heir);
            }
        }
        if !moved {
            return;
        }
        tables::put_shards(self.overlay, &self.cached.shards);
        if adopted && self.cached.globals.counts.live_runs > 0 {
            // Attempts handed out while nobody owned their shard were never made.
            self.emit(Effect::NodeFenced { node: NodeId::default(), fence: place });
        }
        self.emit(Effect::ShardsMoved);
    }
}

#[cfg(test)]
mod tests {
    use campanile_model::*;

    use super::super::testing::*;
    use crate::Effect;

    #[test]
    fn a_restart_fences_and_a_second_hello_does_not() {
        let mut m = Machine::new();
        let fence = m.view().nodes().unwrap()[0].fence;
        let up = |incarnation| Command::NodeUp { node: NodeId(1), incarnation, shards: Vec::new() };
        m.run(up(11));
        assert!(m.effects.is_empty());
        assert_eq!(m.view().nodes().unwrap()[0].fence, fence);
        m.run(up(12));
        let node = m.view().nodes().unwrap().remove(0);
        assert_eq!((node.incarnation, node.up), (12, true));
        assert!(node.fence > fence);
        assert_eq!(m.effects, [Effect::NodeFenced { node: NodeId(1), fence: node.fence }]);
    }

    #[test]
    fn a_removed_node_leaves_a_row() {
        let mut m = Machine::new();
        let before = m.view().nodes().unwrap();
        m.run(Command::NodeRemoved { node: NodeId(1) });
        assert_eq!(m.view().nodes().unwrap(), before, "it delivers until it is gone");
        m.run(Command::NodeRemoved { node: NodeId(2) });
        let row = m.view().nodes().unwrap().remove(1);
        assert_eq!((row.id, row.up, row.incarnation), (NodeId(2), false, 0), "even one that never was up");
    }

    #[test]
    fn shards_move_under_a_new_epoch() {
        let mut m = Machine::new();
        let shards = vec![(ShardId(7), NodeId(2)), (ShardId(60_000), NodeId(2))];
        m.run(Command::NodeUp { node: NodeId(2), incarnation: 1, shards });
        let table = m.view().shards().unwrap().shards;
        assert_eq!(table.len(), usize::from(ShardId::COUNT));
        assert_eq!(table[7], ShardOwner { owner: NodeId(2), epoch: 2 });
        assert_eq!(table[8], ShardOwner { owner: NodeId(1), epoch: 1 });
        assert_eq!(m.effects, [Effect::ShardsMoved]);
        assert_eq!(code(&m.run(Command::NodeLost { node: NodeId(3), shards: Vec::new() })), Some(Code::NodeNotFound));
        m.run(Command::NodeLost { node: NodeId(2), shards: vec![(ShardId(7), NodeId(1))] });
        assert_eq!(m.view().shards().unwrap().shards[7], ShardOwner { owner: NodeId(1), epoch: 3 });
        assert!(!m.view().nodes().unwrap()[1].up);
    }

    #[test]
    fn shards_are_given_up_without_a_fence() {
        let mut m = Machine::new();
        m.run(Command::NodeUp { node: NodeId(2), incarnation: 1, shards: vec![(ShardId(7), NodeId(2))] });
        let before = m.view().nodes().unwrap();
        m.run(Command::MoveShards { shards: vec![(ShardId(7), NodeId(1)), (ShardId(8), NodeId(9))] });
        let table = m.view().shards().unwrap().shards;
        assert_eq!(table[7], ShardOwner { owner: NodeId(1), epoch: 3 });
        assert_eq!(table[8], ShardOwner { owner: NodeId(1), epoch: 1 }, "nobody gets shards who is not up");
        assert_eq!(m.view().nodes().unwrap(), before);
        assert_eq!(m.effects, [Effect::ShardsMoved]);
        m.run(Command::MoveShards { shards: Vec::new() });
        assert!(m.effects.is_empty());
    }

    #[test]
    fn no_shard_stays_with_a_node_that_is_not_up() {
        let mut m = Machine::new();
        let owners = |m: &Machine| -> Vec<NodeId> {
            m.view().shards().unwrap().shards.iter().map(|shard| shard.owner).collect()
        };
        for node in [2, 3] {
            m.run(Command::NodeUp { node: NodeId(node), incarnation: 1, shards: Vec::new() });
        }
        let all = |owner| (0..ShardId::COUNT).map(|shard| (ShardId(shard), NodeId(owner))).collect();
        m.run(Command::NodeLost { node: NodeId(1), shards: all(2) });
        // Decided while node 1 still owned them all, and committed after they had moved to node 2.
        m.run(Command::NodeLost { node: NodeId(2), shards: Vec::new() });
        assert!(owners(&m).iter().all(|owner| *owner == NodeId(3)));
        m.create("a", by_hand(), None);
        let run = m.trigger("a");
        assert_eq!((m.get_run(run).owner, m.get_run(run).epoch), (NodeId(3), 3));

        // Decided while node 1 was still up.
        m.run(Command::NodeUp { node: NodeId(2), incarnation: 2, shards: all(1) });
        assert!(owners(&m).iter().all(|owner| *owner == NodeId(3)));

        m.run(Command::NodeLost { node: NodeId(2), shards: Vec::new() });
        m.run(Command::NodeLost { node: NodeId(3), shards: all(2) });
        assert!(owners(&m).iter().all(|owner| *owner == NodeId(0)), "nobody is up");
        m.run(Command::NodeUp { node: NodeId(3), incarnation: 2, shards: Vec::new() });
        assert!(owners(&m).iter().all(|owner| *owner == NodeId(3)));
    }
}
