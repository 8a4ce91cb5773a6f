//! The links between machines: cut, cut one way, slowed, lossy. Cuts are counted, so that faults may overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use campanile_model::{Millis, NodeId};
use madsim::net::NetSim;

use super::cluster::Cluster;

/// What a message takes between machines when nothing is wrong.
const USUAL: std::ops::Range<Duration> = Duration::from_micros(1000)..Duration::from_micros(4000);

/// Links as they are.
#[derive(Default)]
pub struct Network {
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// Nodes that nobody can connect to.
    closed: BTreeMap<NodeId, u32>,
}

impl Network {
    /// As it should be at the start.
    pub fn usual() -> Self {
        NetSim::current().update_config(|config| {
            config.send_latency = USUAL;
            config.packet_loss_rate = 0.0;
        });
        Self::default()
    }

    /// What `from` sends no longer reaches `to`.
    pub fn cut(&mut self, cluster: &Cluster, from: NodeId, to: NodeId) {
        let count = self.cuts.entry((from, to)).or_default();
        *count += 1;
        if *count == 1 {
            set(cluster, from, to, true);
        }
    }

    pub fn mend(&mut self, cluster: &Cluster, from: NodeId, to: NodeId) {
        let Some(count) = self.cuts.get_mut(&(from, to)) else { return };
        *count -= 1;
        if *count == 0 {
            self.cuts.remove(&(from, to));
            set(cluster, from, to, false);
        }
    }

    /// Nobody can connect to the node's peer port, and who was connected is not any more.
    pub fn close(&mut self, node: NodeId) {
        *self.closed.entry(node).or_default() += 1;
        campanile_raft::rt::links::set_closed(peer_port(node), true);
    }

    pub fn open(&mut self, node: NodeId) {
        let Some(count) = self.closed.get_mut(&node) else { return };
        *count -= 1;
        if *count == 0 {
            self.closed.remove(&node);
            campanile_raft::rt::links::set_closed(peer_port(node), false);
        }
    }

    /// The links on which nothing arrives that a node sends of itself: cut, or closed at the far end.
    pub fn silent(&self, cluster: &Cluster) -> Vec<(NodeId, NodeId)> {
        let closed = self.closed.keys().flat_map(|to| cluster.hosts.keys().map(move |from| (*from, *to)));
        let all: BTreeSet<_> = self.cuts.keys().copied().chain(closed.filter(|(from, to)| from != to)).collect();
        all.into_iter().collect()
    }

    pub fn delay(&self, min: Millis, max: Millis) {
        let max = max.to_std().max(min.to_std() + Duration::from_micros(1));
        NetSim::current().update_config(|config| config.send_latency = min.to_std()..max);
    }

    pub fn no_delay(&self) {
        NetSim::current().update_config(|config| config.send_latency = USUAL);
    }

    pub fn lose(&self, per_mille: u32) {
        NetSim::current().update_config(|config| config.packet_loss_rate = f64::from(per_mille) / 1000.0);
    }
}

fn set(cluster: &Cluster, from: NodeId, to: NodeId, cut: bool) {
    let (Some(from_host), Some(to_host)) = (cluster.hosts.get(&from), cluster.hosts.get(&to)) else { return };
    let network = NetSim::current();
    if cut {
        network.clog_link(from_host.machine, to_host.machine);
    } else {
        network.unclog_link(from_host.machine, to_host.machine);
    }
    campanile_raft::rt::links::set_cut(address(from), address(to), cut);
}

fn address(node: NodeId) -> std::net::IpAddr {
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, node.0 as u8))
}

/// Where a node's peers look for it.
fn peer_port(node: NodeId) -> SocketAddr {
    SocketAddr::new(address(node), 7801)
}
