//! Who this disk belongs to: a small file with the node's id and its cluster's, written once each.
//!
//! The cluster id is what keeps two clusters apart, and an empty disk from voting: a node without one takes part in
//! nothing but formation.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use campanile_model::NodeId;
use campanile_store::engine::Disk;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::error::StartError;
use crate::rt;

const FILE: &str = "node.json";

/// A cluster's name: random, drawn at its formation. Text form: 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

impl ClusterId {
    pub fn draw() -> Self {
        Self(rt::rng().random())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    node: u64,
    cluster: Option<String>,
}

/// The identity of a node. Clones share it.
#[derive(Clone)]
pub struct Identity {
    node: NodeId,
    cluster: Arc<Mutex<Option<ClusterId>>>,
    disk: Arc<dyn Disk>,
}

impl Identity {
    /// Reads the identity of this disk, or gives an empty disk to `node`.
    pub fn open(disk: Arc<dyn Disk>, node: NodeId, disk_has_data: bool) -> Result<Self, StartError> {
        let Some(content) = disk.read_file(FILE)? else {
            if disk_has_data {
                return Err(StartError::NoIdentity);
            }
            let identity = Self { node, cluster: Arc::default(), disk };
            identity.write(None)?;
            return Ok(identity);
        };
        let file: File =
            serde_json::from_slice(&content).map_err(|error| StartError::BadIdentity(error.to_string()))?;
        if file.version != 1 {
            return Err(StartError::BadIdentity(format!("version {} is not known to this build", file.version)));
        }
        if file.node != node.0 {
            return Err(StartError::OtherNode { found: NodeId(file.node), configured: node });
        }
        let cluster = match file.cluster {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| StartError::BadIdentity(format!("cluster id {text:?}")))?),
        };
        if cluster.is_none() && disk_has_data {
            return Err(StartError::NoIdentity);
        }
        Ok(Self { node, cluster: Arc::new(Mutex::new(cluster)), disk })
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn cluster(&self) -> Option<ClusterId> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ClusterId>> {
        self.cluster.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes this node one of `cluster`, durably. A node never changes its cluster: false if it is in another.
    pub fn join(&self, cluster: ClusterId) -> std::io::Result<bool> {
        let mut current = self.lock();
        if let Some(current) = *current {
            return Ok(current == cluster);
        }
        self.write(Some(cluster))?;
        *current = Some(cluster);
        Ok(true)
    }

    fn write(&self, cluster: Option<ClusterId>) -> std::io::Result<()> {
        let file = File { version: 1, node: self.node.0, cluster: cluster.map(|cluster| cluster.to_string()) };
        self.disk.write_file(FILE, &serde_json::to_vec(&file)?)
    }
}
