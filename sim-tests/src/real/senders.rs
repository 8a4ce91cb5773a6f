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

    /// The node at the other end, or 0 where nobody can tell: the process may be gone already.
    pub fn node(&self, from: SocketAddr) -> NodeId {
        let SocketAddr::V4(from) = from else { return NodeId(0) };
        if self.by_address {
            return NodeId(u64::from(from.ip().octets()[3]));
        }
        let processes = self.processes().clone();
        let Some(socket) = fs::read_to_string("/proc/net/tcp").ok().and_then(|table| socket(&table, from)) else {
            return NodeId(0);
        };
        processes.into_iter().find(|(_, pid)| holds(*pid, &socket)).map_or(NodeId(0), |(node, _)| node)
    }
}

/// The socket bound to this local address, as links in `/proc/PID/fd` name it. Columns are as proc(5) has them: the
/// second is the local address with its bytes in the machine's order, the tenth the socket's inode.
fn socket(table: &str, local: SocketAddrV4) -> Option<String> {
    let address = format!("{:08X}:{:04X}", u32::from_ne_bytes(local.ip().octets()), local.port());
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace());
    let inode = lines.find_map(|mut columns| (columns.nth(1)? == address).then(|| columns.nth(7))?)?;
    Some(format!("socket:[{inode}]"))
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
        let (_theirs, from) = listener.accept().unwrap();
        let senders = Senders::new(false);
        senders.set(NodeId(1), 1);
        assert_eq!(senders.node(from), NodeId(0));
        senders.set(NodeId(2), std::process::id());
        assert_eq!(senders.node(from), NodeId(2));
    }

    #[test]
    fn a_connection_is_known_by_its_address() {
        assert_eq!(Senders::new(true).node("10.213.0.3:40000".parse().unwrap()), NodeId(3));
    }
}
