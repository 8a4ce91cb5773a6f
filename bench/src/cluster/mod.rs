//! A cluster of real `campanile serve` processes on this machine, and what can be done to them from outside: kill,
//! pause, restart, wipe, grow.
//!
//! Every child ends with the value that owns it, and with this process, whatever ends that. Nothing here looks into a
//! node other than through its HTTP API, its signals, `/proc` and its files' sizes.

mod launcher;
mod ports;
mod process;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use campanile_client::Client;
use campanile_model::NodeId;
use campanile_model::api::{AddNode, ClusterView};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use launcher::Launcher;
use ports::Ports;
pub use process::{NodeProcess, describe_exit, disk_bytes};

/// How often a condition of a process is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long one node is waited for when it is only asked how it is.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Of nodes that have an address of their own.
const API_PORT: u16 = 7701;
const PEER_PORT: u16 = 7801;
/// How long a whole cluster may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a node lives that is not to be found at this machine's loopback address.
#[derive(Clone, Debug)]
pub struct Place {
    pub address: IpAddr,
    /// A command that starts the command after it in that place, as `ip netns exec NAME` does, by becoming it.
    pub enter: Vec<String>,
}

/// How to start a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The program `campanile`.
    pub binary: PathBuf,
    pub nodes: u64,
    /// Where nodes keep their data and logs; a temporary directory when absent.
    pub data: Option<PathBuf>,
    /// Where that temporary directory is made.
    pub scratch: PathBuf,
    /// API of node *n* at this port + *n* - 1, its peers' port 100 above; free ports when absent.
    pub base_port: Option<u16>,
    /// Places of the nodes, in the order of their ids, each with addresses of its own; all at the loopback address when
    /// empty.
    pub places: Vec<Place>,
    /// More arguments for every `campanile serve`.
    pub serve_args: Vec<String>,
}

impl ClusterOptions {
    /// Three nodes on free ports, data in a temporary directory.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let scratch = std::env::temp_dir();
        Self {
            binary: binary.into(),
            nodes: 3,
            data: None,
            scratch,
            base_port: None,
            places: Vec::new(),
            serve_args: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it kills every process, and removes the data if it was temporary.
#[derive(Debug)]
pub struct ProcessCluster {
    // Dropped in this order: processes first, their directory last.
    nodes: Vec<NodeProcess>,
    launcher: Launcher,
    ports: Ports,
    /// Ids are never reused, those of removed nodes included.
    last_id: u64,
    options: ClusterOptions,
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

impl ProcessCluster {
    /// Starts all nodes and waits until every one is ready.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let mut cluster = Self::prepare(options)?;
        for id in cluster.ids() {
            cluster.spawn(id)?;
        }
        cluster.wait_all_ready(START_TIMEOUT).await?;
        Ok(cluster)
    }

    /// Gives every node its place without starting any.
    pub fn prepare(options: ClusterOptions) -> Result<Self> {
        let (directory, temporary) = match &options.data {
            Some(data) => (data.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("campanile-").tempdir_in(&options.scratch);
                let temporary = temporary.with_context(|| format!("in {}", options.scratch.display()))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let count = options.nodes;
        let mut cluster = Self {
            nodes: Vec::new(),
            launcher: Launcher::start().context("starting the launcher")?,
            ports: Ports::default(),
            last_id: 0,
            options,
            directory,
            _temporary: temporary,
        };
        for _ in 0..count {
            cluster.place_node(false)?;
        }
        Ok(cluster)
    }

    fn place_node(&mut self, joins: bool) -> Result<NodeId> {
        let id = self.last_id + 1;
        let place = self.options.places.get(usize::try_from(id - 1)?).cloned();
        let (api, peer) = match self.options.base_port {
            None if place.is_some() => (API_PORT, PEER_PORT),
            None => (self.ports.take()?, self.ports.take()?),
            Some(base) => {
                let offset = u16::try_from(id - 1).ok().filter(|offset| *offset < 100);
                let api = offset.and_then(|offset| base.checked_add(offset));
                let api = api.with_context(|| format!("no port for node {id} from base port {base}"))?;
                (api, api.checked_add(100).with_context(|| format!("no peer port for node {id} above {api}"))?)
            }
        };
        let address = place.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), |place| place.address);
        let api = SocketAddr::new(address, api).to_string();
        let client = Client::builder([api.as_str()]).retries(0).attempt_timeout(ASK_TIMEOUT).build()?;
        self.nodes.push(NodeProcess {
            id: NodeId(id),
            peer: SocketAddr::new(address, peer).to_string(),
            enter: place.map_or_else(Vec::new, |place| place.enter),
            data: self.directory.join(format!("node-{id}")),
            log: self.directory.join(format!("node-{id}.log")),
            joins,
            client,
            api,
            child: None,
            paused: false,
        });
        self.last_id = id;
        Ok(NodeId(id))
    }

    /// Ids of all members, running or not.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Panics on an id that this cluster never had: that is a mistake of the caller.
    pub fn node(&self, id: NodeId) -> &NodeProcess {
        self.nodes.iter().find(|node| node.id == id).unwrap_or_else(|| panic!("the cluster has no node {id}"))
    }

    fn node_mut(&mut self, id: NodeId) -> &mut NodeProcess {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap_or_else(|| panic!("the cluster has no node {id}"))
    }

    pub fn binary(&self) -> &Path {
        &self.options.binary
    }

    /// Where data and logs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// API addresses of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.api.clone()).collect()
    }

    /// Processor time that all running nodes have taken since each was started.
    pub fn cpu(&self) -> Result<Duration> {
        self.nodes.iter().filter(|node| node.child.is_some()).map(NodeProcess::cpu).sum()
    }

    /// A client of all members.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(self.endpoints())?)
    }

    /// Starts a node that is down, on the data it has.
    pub fn spawn(&mut self, id: NodeId) -> Result<()> {
        let peers: Vec<String> = self.nodes.iter().map(|node| format!("{}={}", node.id, node.peer)).collect();
        let peers = peers.join(",");
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) else { bail!("there is no node {id}") };
        node.spawn(&self.launcher, &self.options.binary, &peers, &self.options.serve_args)
    }

    /// Kills a node if it is running, starts it again and waits until it is ready.
    pub async fn restart(&mut self, id: NodeId, within: Duration) -> Result<()> {
        self.kill9(id)?;
        self.spawn(id)?;
        self.wait_ready(id, within).await
    }

    /// SIGKILL; returns once the process is gone.
    pub fn kill9(&mut self, id: NodeId) -> Result<()> {
        self.node_mut(id).kill()
    }

    /// SIGTERM, and no more: see [`wait_exit`](Self::wait_exit).
    pub fn terminate(&mut self, id: NodeId) -> Result<()> {
        self.node(id).signal(Signal::TERM)
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    pub fn pause(&mut self, id: NodeId) -> Result<()> {
        self.node(id).signal(Signal::STOP)?;
        self.node_mut(id).paused = true;
        Ok(())
    }

    /// SIGCONT.
    pub fn cont(&mut self, id: NodeId) -> Result<()> {
        self.node(id).signal(Signal::CONT)?;
        self.node_mut(id).paused = false;
        Ok(())
    }

    /// Removes the data of a node that is down.
    pub fn wipe(&mut self, id: NodeId) -> Result<()> {
        let node = self.node(id);
        ensure!(node.child.is_none(), "node {id} is running; its data cannot be wiped");
        std::fs::remove_dir_all(&node.data).with_context(|| format!("removing {}", node.data.display()))
    }

    /// Starts one more node with `--join`, under an id never used before. It waits until [`add`](Self::add).
    pub fn spawn_joining(&mut self) -> Result<NodeId> {
        let id = self.place_node(true)?;
        self.spawn(id)?;
        Ok(id)
    }

    /// Has the cluster take in a node started by [`spawn_joining`](Self::spawn_joining), and waits until it is ready.
    pub async fn add(&mut self, id: NodeId, within: Duration) -> Result<()> {
        let node = AddNode { id, peer: self.node(id).peer.clone() };
        self.client()?.add_node(&node).await.with_context(|| format!("adding node {id}"))?;
        self.wait_ready(id, within).await
    }

    /// Has the cluster drop a member for good, and forgets the process.
    pub async fn remove(&mut self, id: NodeId) -> Result<()> {
        self.client()?.remove_node(id).await.with_context(|| format!("removing node {id}"))?;
        self.nodes.retain(|node| node.id != id);
        Ok(())
    }

    /// The nodes whose processes have ended by themselves since this was last asked, and how.
    pub fn ended(&mut self) -> Result<Vec<(NodeId, ExitStatus)>> {
        let mut ended = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| node.child.is_some()) {
            ended.extend(node.try_wait()?.map(|status| (node.id, status)));
        }
        Ok(ended)
    }

    /// Waits for a process to end by itself.
    pub async fn wait_exit(&mut self, id: NodeId, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.node_mut(id).try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "node {id} still runs after {} ms", within.as_millis());
            sleep(POLL).await;
        }
    }

    /// Waits until a node says that it can serve. Fails at once, with the end of its log, if the process ends.
    pub async fn wait_ready(&mut self, id: NodeId, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let client = self.node(id).client.clone();
            let Err(error) = client.ready().await else { return Ok(()) };
            if let Some(status) = self.node_mut(id).try_wait()? {
                let how = process::describe_exit(status);
                bail!("node {id} ended with {how}; its log ends:\n{}", self.node(id).log_tail());
            }
            if Instant::now() >= deadline {
                let waited = within.as_millis();
                bail!("node {id} is not ready after {waited} ms: {error}; its log ends:\n{}", self.node(id).log_tail());
            }
            sleep(POLL).await;
        }
    }

    /// Waits until every running node is ready.
    pub async fn wait_all_ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for id in self.ids() {
            if self.node(id).child.is_some() {
                self.wait_ready(id, deadline.saturating_duration_since(Instant::now())).await?;
            }
        }
        Ok(())
    }

    /// The leader, as it itself says in the highest term that any running node knows; waits for one to be elected.
    pub async fn leader(&self, within: Duration) -> Result<NodeId> {
        Ok(self.leader_view(within).await?.node)
    }

    /// The cluster as its leader sees it.
    pub async fn leader_view(&self, within: Duration) -> Result<ClusterView> {
        let deadline = Instant::now() + within;
        loop {
            let running = self.nodes.iter().filter(|node| node.child.is_some() && !node.paused);
            let views = futures::future::join_all(running.map(|node| node.client.cluster())).await;
            let views: Vec<ClusterView> = views.into_iter().filter_map(Result::ok).collect();
            let term = views.iter().map(|view| view.term).max();
            let leader = views.into_iter().find(|view| Some(view.term) == term && view.leader == Some(view.node));
            if let Some(view) = leader {
                return Ok(view);
            }
            ensure!(Instant::now() < deadline, "no node leads after {} ms", within.as_millis());
            sleep(POLL).await;
        }
    }

    /// Tells every node to stop and waits; those that still run after `within` are killed, which is an error.
    pub async fn shutdown(mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let running: Vec<NodeId> = self.nodes.iter().filter(|node| node.child.is_some()).map(|node| node.id).collect();
        for id in &running {
            self.cont(*id)?;
            self.terminate(*id)?;
        }
        for id in running {
            self.wait_exit(id, deadline.saturating_duration_since(Instant::now())).await?;
        }
        Ok(())
    }
}
