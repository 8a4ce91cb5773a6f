//! Networks of the nodes' own: a namespace for each node, joined by a bridge on which this machine is the receiver's and
//! the clients' place. Needs root and `ip`, and nothing of any firewall.
//!
//! A link is cut one way by telling the sender a wrong hardware address of the other: what it sends is lost without a
//! word, as on a bad wire; the other way, and the ways to clients and receivers, stay open.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use campanile_bench::cluster::Place;
use campanile_model::NodeId;

/// Networks there can be on one machine, `10.213.N.0/24` each.
const NETWORKS: u8 = 200;
/// Its files are the locks on these numbers; what stands without a lock belongs to a process that was killed.
const LOCKS: &str = "/run/campanile-sim";
/// Of any scenario.
const MOST_NODES: u8 = 7;
/// This machine on each of them.
const HOST: u8 = 254;
/// A hardware address that nobody has.
const NOBODY: &str = "02:ca:ff:00:00:00";

/// Dropping it takes the namespaces and the bridge away.
pub struct Network {
    number: u8,
    nodes: u8,
    lock: File,
}

impl Network {
    /// Builds one for so many nodes; else why not.
    pub fn build(nodes: u32) -> Result<Self, String> {
        let build = || {
            remove_stale();
            let network = Self::reserve(u8::try_from(nodes)?)?;
            network.set_up().map(|()| network)
        };
        build().map_err(|error: anyhow::Error| format!("no network namespaces here: {error:#}"))
    }

    fn reserve(nodes: u8) -> Result<Self> {
        fs::create_dir_all(LOCKS).with_context(|| format!("making {LOCKS}"))?;
        for number in 0..NETWORKS {
            let path = Path::new(LOCKS).join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
            if lock.try_lock().is_ok() {
                return Ok(Self { number, nodes, lock });
            }
        }
        anyhow::bail!("all {NETWORKS} of them are in use; see {LOCKS}")
    }

    fn set_up(&self) -> Result<()> {
        let bridge = bridge(self.number);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("address add {}/24 dev {bridge}", self.host()))?;
        ip(&format!("link set {bridge} up"))?;
        for node in self.ids() {
            let (space, port) = (self.space(node), self.port(node));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {port} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {port} master {bridge} up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} link set eth0 address {} up", self.hardware(node)))?;
            ip(&format!("-n {space} address add {}/24 dev eth0", self.address(node)))?;
        }
        for from in self.ids() {
            for to in self.ids().filter(|to| *to != from) {
                self.mend(from, to)?;
            }
        }
        Ok(())
    }

    /// What `from` sends no longer reaches `to`.
    pub fn cut(&self, from: NodeId, to: NodeId) -> Result<()> {
        self.direct(from, to, NOBODY)
    }

    pub fn mend(&self, from: NodeId, to: NodeId) -> Result<()> {
        self.direct(from, to, &self.hardware(to))
    }

    /// Has `from` send what is for `to` to this hardware address, connections that stand included.
    fn direct(&self, from: NodeId, to: NodeId, hardware: &str) -> Result<()> {
        let (space, to) = (self.space(from), self.address(to));
        ip(&format!("-n {space} neighbour replace {to} lladdr {hardware} nud permanent dev eth0"))
    }

    /// This machine, as nodes see it.
    pub fn host(&self) -> IpAddr {
        self.ip(HOST)
    }

    pub fn place(&self, node: NodeId) -> Place {
        let enter = ["ip", "netns", "exec", &self.space(node)].map(str::to_owned).to_vec();
        Place { address: self.address(node), enter }
    }

    fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=u64::from(self.nodes)).map(NodeId)
    }

    fn ip(&self, host: u8) -> IpAddr {
        Ipv4Addr::new(10, 213, self.number, host).into()
    }

    fn address(&self, node: NodeId) -> IpAddr {
        self.ip(node.0 as u8)
    }

    fn hardware(&self, node: NodeId) -> String {
        format!("02:ca:00:00:{:02x}:{:02x}", self.number, node.0 as u8)
    }

    fn space(&self, node: NodeId) -> String {
        format!("csim{}-{node}", self.number)
    }

    /// The bridge's end of a node's cable.
    fn port(&self, node: NodeId) -> String {
        format!("csim{}p{node}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Nobody can be told of a failure, and what is not there need not be taken away.
        for node in self.ids() {
            let _ = ip(&format!("link delete {}", self.port(node)));
            let _ = ip(&format!("netns delete {}", self.space(node)));
        }
        // It was the first to come and is the last to go, and only then is the number free.
        let _ = ip(&format!("link delete {}", bridge(self.number)));
        let _ = self.lock.unlock();
    }
}

/// Takes away what processes have left that were killed: nobody holds their locks.
fn remove_stale() {
    let Ok(files) = fs::read_dir(LOCKS) else { return };
    for file in files.flatten() {
        let number = file.file_name().to_str().and_then(|name| name.parse().ok());
        let (Some(number), Ok(lock)) = (number, File::open(file.path())) else { continue };
        if Path::new("/sys/class/net").join(bridge(number)).exists() && lock.try_lock().is_ok() {
            drop(Network { number, nodes: MOST_NODES, lock });
        }
    }
}

fn bridge(number: u8) -> String {
    format!("csim{number}")
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("running ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the nodes' end of the cable does with what is for another node.
    fn neighbours(space: &str) -> String {
        let output = Command::new("ip").args(["-n", space, "neighbour"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn links_are_cut_one_way_and_nothing_is_left_in_the_end() {
        let network = match Network::build(3) {
            Ok(network) => network,
            Err(why) => return println!("skipped: {why}"),
        };
        let (one, two) = (network.space(NodeId(1)), network.space(NodeId(2)));
        assert!(!neighbours(&one).contains(NOBODY));
        network.cut(NodeId(1), NodeId(2)).unwrap();
        let cut = format!("{} dev eth0 lladdr {NOBODY}", network.address(NodeId(2)));
        assert!(neighbours(&one).contains(&cut), "{}", neighbours(&one));
        assert!(!neighbours(&two).contains(NOBODY));
        network.mend(NodeId(1), NodeId(2)).unwrap();
        assert!(!neighbours(&one).contains(NOBODY));
        let bridge = Path::new("/sys/class/net").join(bridge(network.number));
        assert!(bridge.exists());
        drop(network);
        assert!(!bridge.exists() && !Path::new("/run/netns").join(one).exists());
    }

    #[test]
    fn networks_side_by_side_do_not_meet() {
        let (Ok(one), Ok(other)) = (Network::build(3), Network::build(3)) else {
            return println!("skipped: no network namespaces here");
        };
        assert_ne!(one.host(), other.host());
    }
}
