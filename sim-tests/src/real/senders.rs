//! Which node a connection to the receiver comes from: by its address where nodes have addresses of their own, else by
//! the process that holds the other end, as `/proc` tells.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use campanile_model::NodeId;

/// Clones are the same.
#[derive(Clone)]
pub struct Senders {
    by_address: bool,
    processes: Arc<Mutex<BTreeMap<NodeId, u32>>>,
}

impl Senders {
    pub fn new(by_address: bool) -> Self {
        Self { by_address, processes: Arc::default() }
    }

    /// A node runs as this process from now on.
    pub fn set(&self, node: NodeId, pid: u32) {
        self.processes().insert(node, pid);
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at the other end of a connection to `to`, or 0 where nobody can tell: the process may be gone already.
    pub fn node(&self, from: SocketAddr, to: SocketAddr) -> NodeId {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { return NodeId(0) };
        if self.by_address {
            return NodeId(u64::from(from.ip().octets()[3]));
        }
        let processes = self.processes().clone();
        let Some(socket) = fs::read_to_string("/proc/net/tcp").ok().and_then(|table| socket(&table, from, to)) else {
            return NodeId(0);
        };
        processes.into_iter().find(|(_, pid)| holds(*pid, &socket)).map_or(NodeId(0), |(node, _)| node)
    }
}

/// The socket that is connected from this address to that one, as links in `/proc/PID/fd` name it. (One address may have
/// several, to different places, and those that wait for their end belong to nobody.) Columns are as proc(5) has them:
/// the second and third are the two addresses with their bytes in the machine's order, the tenth the socket's inode.
fn socket(table: &str, from: SocketAddrV4, to: SocketAddrV4) -> Option<String> {
    let told = |end: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port());
    let ends = [told(from), told(to)];
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let line = lines.find(|columns| columns.get(1..3).is_some_and(|found| found == ends))?;
    Some(format!("socket:[{}]", line.get(9)?))
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_is_known_by_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, from) = listener.accept().unwrap();
        let to = theirs.local_addr().unwrap();
        let senders = Senders::new(false);
        senders.set(NodeId(1), 1);
        assert_eq!(senders.node(from, to), NodeId(0));
        senders.set(NodeId(2), std::process::id());
        assert_eq!(senders.node(from, to), NodeId(2));
    }

    #[test]
    fn a_connection_is_known_by_its_address() {
        let [from, to] = ["10.213.0.3:40000", "10.213.0.9:80"].map(|end| end.parse().unwrap());
        assert_eq!(Senders::new(true).node(from, to), NodeId(3));
    }

    #[test]
    fn a_connection_from_the_same_port_to_elsewhere_is_another() {
        let line = |to: &str, inode: u32| format!("0: 0100007F:9C40 {to} 01 0:0 00:0 0 0 0 {inode} 1\n");
        let table =
            format!("sl local_address rem_address st\n{}{}", line("0100007F:1F41", 0), line("0100007F:1F40", 77));
        let end = |port| SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        assert_eq!(socket(&table, end(40_000), end(8_000)), Some("socket:[77]".into()));
        assert_eq!(socket(&table, end(40_000), end(8_002)), None);
    }
}
