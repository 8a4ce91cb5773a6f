//! Where the nodes live for a run: a directory, and where the scenario has a use for them and the machine allows it,
//! networks and disks of their own. All of it is gone when this value is.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use campanile_bench::cluster::ClusterOptions;
use campanile_model::NodeId;
use tempfile::TempDir;

use super::disks::Disks;
use super::network::Network;
use super::reach;
use crate::scenario::Scenario;

/// As often as a node may be told to take them, so that they are taken, and read at restarts, in a short run.
const SNAPSHOTS: [&str; 4] = ["--snapshot-log-bytes", "1MiB", "--snapshot-interval", "10s"];

/// What a part of the site is, or why there is none.
type Part<T> = Result<T, String>;

pub struct Site {
    // Dropped in this order: what is mounted in the directory before it.
    network: Part<Network>,
    disks: Part<Disks>,
    directory: TempDir,
}

impl Site {
    pub fn prepare(scenario: &Scenario) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("campanile-real-").tempdir().context("making a directory")?;
        let kinds = reach::wanted(scenario);
        let wants = |group: &[&str]| kinds.iter().any(|kind| group.contains(&kind.as_str()));
        let unused = || "no fault of the scenario needs it".to_owned();
        let network = if wants(&reach::CUTS) { Network::build(scenario.nodes) } else { Err(unused()) };
        let homes: Vec<PathBuf> =
            (1..=u64::from(scenario.nodes)).map(|id| directory.path().join(format!("node-{id}"))).collect();
        let disks = if wants(&reach::DISKS) { Disks::mount(&homes) } else { Err(unused()) };
        Ok(Self { network, disks, directory })
    }

    pub fn network(&self) -> Result<&Network, &str> {
        self.network.as_ref().map_err(String::as_str)
    }

    pub fn disks(&self) -> Result<&Disks, &str> {
        self.disks.as_ref().map_err(String::as_str)
    }

    pub fn has_network(&self) -> bool {
        self.network.is_ok()
    }

    /// This machine's address as the nodes see it.
    pub fn host(&self) -> IpAddr {
        self.network.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), Network::host)
    }

    pub fn options(&self, binary: &Path, nodes: u32) -> ClusterOptions {
        let ids = (1..=u64::from(nodes)).map(NodeId);
        let places =
            self.network.as_ref().map_or_else(|_| Vec::new(), |network| ids.map(|id| network.place(id)).collect());
        let mut serve_args: Vec<String> = SNAPSHOTS.map(str::to_owned).to_vec();
        if self.disks.is_ok() {
            serve_args.extend(Disks::serve_args());
        }
        let data = Some(self.directory.path().to_owned());
        ClusterOptions { nodes: u64::from(nodes), data, places, serve_args, ..ClusterOptions::new(binary) }
    }
}
