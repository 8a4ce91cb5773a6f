//! Calls on the cluster and on whichever node answers.

use std::time::Duration;

use campanile_model::NodeId;
use campanile_model::api::{AddNode, ClusterView, TransferLeader};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::call::{Call, Effect};
use crate::client::Client;
use crate::error::Result;
use crate::path::Target;

/// Members change through the log, snapshots included; a node says after a minute that it takes longer.
const CHANGE: Duration = Duration::from_secs(70);

/// A node's replicated state as one hash: equal at equal indexes, or a replica has gone astray.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    pub index: u64,
    /// Hexadecimal.
    pub digest: String,
}

impl Client {
    pub async fn cluster(&self) -> Result<ClusterView> {
        self.send(Call::get("/v1/cluster".into())).await?.json()
    }

    /// Takes in a node that was started with `--join`. Not repeated when its answer is lost: ask
    /// [`cluster`](Self::cluster) whether it is in.
    pub async fn add_node(&self, node: &AddNode) -> Result<ClusterView> {
        let call = Call::new(Method::POST, "/v1/cluster/nodes".into(), Effect::Once).patience(CHANGE);
        self.send(call.json(node)?).await?.json()
    }

    /// Removes a node for good: its id is never used again.
    pub async fn remove_node(&self, id: NodeId) -> Result<ClusterView> {
        let target = Target::new("/v1/cluster/nodes").segment(&id.to_string()).finish();
        self.send(Call::new(Method::DELETE, target, Effect::Idempotent).patience(CHANGE)).await?.json()
    }

    pub async fn transfer_leader(&self, to: NodeId) -> Result<ClusterView> {
        let call = Call::new(Method::POST, "/v1/cluster/leader".into(), Effect::Idempotent).patience(CHANGE);
        self.send(call.json(&TransferLeader { to })?).await?.json()
    }

    pub async fn digest(&self) -> Result<Digest> {
        self.send(Call::get("/v1/cluster/digest".into())).await?.json()
    }

    /// Succeeds once the node can serve: it knows a leader and has caught up.
    pub async fn ready(&self) -> Result<()> {
        self.send(Call::get("/readyz".into())).await.map(drop)
    }

    /// The node's metrics in Prometheus' text form.
    pub async fn metrics(&self) -> Result<String> {
        self.send(Call::get("/metrics".into())).await?.text()
    }
}
