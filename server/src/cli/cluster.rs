//! `cluster`: who is in it, who leads, and changing both.

use campanile_client::Client;
use campanile_model::NodeId;
use campanile_model::api::{AddNode, ClusterView};
use clap::Subcommand;

use super::failure::Failure;
use super::output::{Output, or_dash, sheet, table, word};

#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the cluster as the answering node sees it
    Status,
    /// Take in a node that was started with --join
    Add {
        /// Its id, never used before
        #[arg(value_name = "ID")]
        node: u64,
        /// Its peer address
        #[arg(value_name = "HOST:PORT")]
        peer: String,
    },
    /// Remove a node for good
    Remove {
        /// Its id, which is never used again
        #[arg(value_name = "ID")]
        node: u64,
    },
    /// Hand leadership to a node
    TransferLeader {
        /// Its id
        #[arg(value_name = "ID")]
        node: u64,
    },
}

impl Cluster {
    pub async fn run(self, client: &Client, output: &mut Output) -> Result<(), Failure> {
        let cluster = match self {
            Self::Status => client.cluster().await?,
            Self::Add { node, peer } => client.add_node(&AddNode { id: NodeId(node), peer }).await?,
            Self::Remove { node } => client.remove_node(NodeId(node)).await?,
            Self::TransferLeader { node } => client.transfer_leader(NodeId(node)).await?,
        };
        output.print(&cluster, describe)
    }
}

fn describe(cluster: &ClusterView) -> String {
    let mut text = sheet(vec![
        ("cluster", cluster.cluster_id.clone()),
        ("leader", cluster.leader.map_or_else(|| "none".into(), |node| format!("node {node}"))),
        ("term", cluster.term.to_string()),
        ("applied", format!("{} on node {}", cluster.applied, cluster.node)),
        ("tasks", cluster.tasks.to_string()),
        ("live runs", cluster.live_runs.to_string()),
        ("version", format!("{} (tzdb {})", cluster.version, cluster.tzdb)),
    ]);
    let rows = cluster.nodes.iter().map(|node| {
        vec![
            node.id.to_string(),
            word(node.role),
            if node.up { "up" } else { "down" }.into(),
            node.api.clone(),
            node.peer.clone(),
            or_dash(node.lag),
            node.clock_skew_ms.map_or_else(|| "-".into(), |skew| format!("{skew:.1} ms")),
            node.shards.to_string(),
        ]
    });
    text.push('\n');
    text.push_str(&table(&["NODE", "ROLE", "STATE", "API", "PEER", "LAG", "SKEW", "SHARDS"], rows));
    text
}
