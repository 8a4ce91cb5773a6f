//! The links between machines: cut, cut one way, slowed, lossy. Cuts are counted, so that faults may overlap.

use std::collections::BTreeMap;
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
